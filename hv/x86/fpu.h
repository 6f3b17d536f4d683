/*
 * Extended processor state (SDM volume 1 chapter 13). The hypervisor itself never touches it (it is
 * built for general registers only), so a guest's state stays in the registers across exits and is
 * switched only between vCPUs.
 */
#pragma once

#include "lib/types.h"

/* Boot processor: which instructions and which components. */
void fpu_init(void);

/* Each CPU: XCR0 = xsave_features(), IA32_XSS = 0. */
void fpu_init_cpu(void);

/* The XCR0 bits that guests may have: those the CPU offers and Umbra knows; 0 without XSAVE. */
u64 xsave_features(void);

/* Bytes of an area for all of xsave_features(); at least 576. Areas are 64-byte aligned. */
u32 xsave_area_bytes(void);

/*
 * Fills an area with the initial state (x87 as FNINIT leaves it, MXCSR 0x1f80, all else 0). An area
 * that was saved to before must be restored from before the next save: XSAVEOPT leaves
 * out what the processor believes to be there already (SDM 1 13.6).
 */
void xsave_init_area(void *area);

/*
 * Save and restore the components in `mask`, in the standard format (SDM 1 13.4). XCR0 must hold
 * every bit of `mask` (write it first).
 */
void xsave_save(void *area, u64 mask);
void xsave_restore(const void *area, u64 mask);

/*
 * xsave_test.c. Tries XSAVEC and XSAVES on all of xsave_features(): some virtual CPUs do not
 * restore what these saved. XCR0 must hold xsave_features(); extended state is as after reset
 * afterwards. scratch: xsave_try_bytes(), 64-byte aligned.
 */
void xsave_try(u8 *scratch);
u32 xsave_try_bytes(void);
/* After xsave_try(): CPUID.0DH.1:EAX[3:0], XSAVEOPT, XSAVEC, XGETBV(1), XSAVES, that work. */
u32 xsave_instructions(void);
