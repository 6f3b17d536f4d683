/*
 * Guests' serial consoles on one physical UART: a RAM ring per machine so that a guest's write
 * costs no waiting, drained by console_poll() (ticks and idle). With one VM configured bytes pass
 * as they are; with several, whole lines come out with `NAME| ` in front. Input goes to the VM in
 * focus (the first one that runs).
 */
#pragma once

#include "lib/types.h"

struct vm;

void console_init(u16 port, u32 vm_count);
void console_put(struct vm *vm, u8 byte);
/* Next byte of input for this VM, or -1. */
int console_get(struct vm *vm);
/* Moves bytes both ways; cheap when nothing is to be done. Any CPU. */
void console_poll(void);
/* A VM's end: adds a newline if its last line has none. Does not wait. */
void console_close(struct vm *vm);
/* The same (vm may be NULL), and writes out everything, which takes seconds: the machine's end. */
void console_flush(struct vm *vm);
