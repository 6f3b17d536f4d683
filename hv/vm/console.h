/*
 * Guests' serial consoles and the monitor on one physical UART. A RAM ring per machine, drained by
 * console_poll() (ticks and idle), so that a guest's write costs no waiting.
 *
 * What the terminal shows is the focus (values of enum boot_focus):
 *   all       the lines of every VM with `NAME| ` in front; with one VM configured, bytes as they
 *             are. Input goes to the first VM that runs.
 *   one VM    its bytes as they are, and input to it. What the others write goes to their backlogs,
 *             of which a switch shows what is left.
 *   monitor   hv/mon/. All VMs write to their backlogs.
 * Ctrl-A and a key switch: see console_keys.c. When the VM in focus ends, the next one gets it.
 *
 * In lines a guest can only add text behind its own name: escape sequences and control characters
 * are taken out, a carriage return begins a new line. In a VM's own console the terminal is the
 * guest's; a switch away resets colours and character set.
 */
#pragma once

#include <umbra/boot_info.h>

#include "lib/types.h"

struct vm;

#define CTRL(letter) ((letter)&0x1f)

/* `focus`: with BOOT_FOCUS_DEFAULT there is no hint on the terminal. All CPUs may call the rest. */
void console_init(u16 port, u32 vms_configured, u32 focus);
/* May wait for the line if the VM is shown and the ring is full, as a real UART would. */
void console_put(struct vm *vm, u8 byte);
/* Next byte of input for this VM, or -1. */
int console_get(struct vm *vm);
/* Moves bytes both ways; cheap when nothing is to be done. May run a step of the monitor: the
 * caller is in root mode and holds no lock. */
void console_poll(void);
/* A VM's end, or restart: adds a newline if its last line has none; at its end the focus moves on.
 * Does not wait. */
void console_close(struct vm *vm);
/* Writes out everything, which takes seconds: the machine's end. */
void console_flush(void);

/* --- for the monitor ---------------------------------------------------------------------------
 */

u32 console_focus(void);
void console_set_focus(u32 focus);
/* What had the focus before the monitor. */
u32 console_previous(void);
/* Input for the monitor: -1 if there is none. When it gets the focus, a 0 comes. */
int console_monitor_get(void);
/* Ctrl-C has been typed; it is the next byte. */
bool console_monitor_break(void);
/* Bytes on the way to the line. Without the lock: a moment ago. */
u32 console_unsent(void);
/* Only while the monitor has the focus: else the text is dropped. Does not wait if at most a few
 * KiB are unsent. */
void console_print(const char *text);

/* mon/ defines this: a bounded piece of work for the monitor, which has the focus. Any CPU, as
 * console_poll(). */
void monitor_poll(void);
