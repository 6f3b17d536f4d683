/*
 * Selectors of the one GDT that all CPUs share, and vectors the library uses itself. Included by
 * assembly too. SYSCALL/SYSRET fit: STAR[47:32] = SEL_CODE, STAR[63:48] = SEL_USER_CODE32 | 3.
 */
#pragma once

#define SEL_CODE	0x08 /* 64-bit, CPL 0 */
#define SEL_DATA	0x10 /* flat 4 GiB, CPL 0 */
#define SEL_CODE32	0x18 /* 32-bit flat, CPL 0 */
#define SEL_CODE16	0x20 /* 16-bit, base 0, limit 0xffff, CPL 0 */
#define SEL_DATA16	0x28 /* 16-bit, base 0, limit 0xffff, CPL 0 */
#define SEL_USER_CODE32 0x30
#define SEL_USER_DATA	0x38
#define SEL_USER_CODE	0x40  /* 64-bit, CPL 3 */
#define SEL_TEST	0x48  /* first of GDT_TEST_SLOTS slots of 8 bytes for tests */
#define SEL_TSS		0x100 /* 16 bytes per CPU */

#define MAX_CPUS 16

#define VEC_USER_EXIT 0x81 /* int 0x81 ends user_run() */
#define VEC_WAKE      0xf0 /* wakes a halted application processor */

/* Where application processors start; also free for real-mode tests once they run. */
#define TRAMPOLINE 0x8000

#define STACK_BYTES 16384

#define PROTO_MULTIBOOT 1
#define PROTO_PVH	2
#define PROTO_LINUX	3

/* struct linux_entry (mem.h) */
#define LE_RSI	  0
#define LE_RSP	  8
#define LE_RFLAGS 16
#define LE_CR0	  24
#define LE_CR3	  32
#define LE_CR4	  40
#define LE_EFER	  48
#define LE_CS	  56
#define LE_DS	  58
#define LE_ES	  60
#define LE_SS	  62
#define LE_GDTR	  64
#define LE_BYTES  80
