/*
 * Physical 16550 UARTs (console and log), polled. `port` 0 means none.
 */
#pragma once

#include "lib/types.h"

/* True if a UART answers there (scratch and loopback test). Sets 115200 8N1, FIFO on. */
bool uart_init(u16 port);
/* Writes up to 16 bytes if the transmit FIFO is empty; returns how many were taken (0 if busy).
 * Where no UART is, or it has not moved for a second, everything is taken and dropped. */
size_t uart_write_some(u16 port, const u8 *buf, size_t len);
/* Writes everything, waiting; for the log and panics. */
void uart_write(u16 port, const char *buf, size_t len);
/* Reads one received byte, or -1. */
int uart_read(u16 port);

/* Sends the log to this UART (a sink); false if none answers there. */
bool uart_log(u16 port);
/* Waits until the last bit of every UART has been sent; gives up on one that does not move. */
void uart_drain(void);
/* From a panic: the other CPUs are stopped, whatever lock they held is void. */
void uart_break_locks(void);
