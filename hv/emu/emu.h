/*
 * Instruction emulation, for guest accesses that cannot be let through: MMIO and trapped stores.
 *
 * One call emulates one instruction (of a repeated string instruction, up to EMU_REP_MAX
 * iterations, where a page of stores to nowhere counts as one). The emulator knows nothing of VMCS,
 * EPT or devices: state comes in struct emu_cpu, memory through struct emu_ops. It keeps no state
 * but the caller's decode cache.
 *
 * Nothing is committed until nothing can fault any more: all operands are segment-checked and
 * translated first, then memory is accessed, then registers are written. The instruction's bytes
 * are fetched once and never looked at again.
 */
#pragma once

#include "lib/types.h"

#define EMU_REP_MAX  64 /* iterations of a repeated string instruction per call */
#define EMU_INSN_MAX 15

enum emu_mode {
	EMU_MODE_16 = 16,
	EMU_MODE_32 = 32,
	EMU_MODE_64 = 64
}; /* by CS.L and CS.D */

/* Register numbers are the hardware's encoding order (SDM 2A table 2-2, with REX). */
enum emu_gpr {
	EMU_RAX,
	EMU_RCX,
	EMU_RDX,
	EMU_RBX,
	EMU_RSP,
	EMU_RBP,
	EMU_RSI,
	EMU_RDI,
	EMU_R8,
	EMU_R9,
	EMU_R10,
	EMU_R11,
	EMU_R12,
	EMU_R13,
	EMU_R14,
	EMU_R15,
	EMU_GPR_COUNT
};
enum emu_seg {
	EMU_ES,
	EMU_CS,
	EMU_SS,
	EMU_DS,
	EMU_FS,
	EMU_GS,
	EMU_SEG_COUNT
};

/* What the emulator reads and, for gpr, rip and rflags, writes. Owned by the caller. */
struct emu_cpu {
	u64 *gpr; /* EMU_GPR_COUNT of them */
	u64 rip;  /* offset in CS, as in the VMCS */
	u64 rflags;
	u8 mode; /* enum emu_mode: of the code segment */
	u8 cpl;
	bool real;	/* CR0.PE = 0: no segment access rights, exceptions without error code */
	u8 linear_bits; /* 48, or 57 with CR4.LA57: for the canonical check in 64-bit mode */
};

/* A segment register as the VMCS holds it. */
struct emu_segment {
	u64 base;
	u32 limit;
	u32 ar; /* access rights in the VMX format (SDM 3C table 25-2), bit 16 = unusable */
};

enum emu_access {
	EMU_READ = 1,
	EMU_WRITE = 2,
	EMU_FETCH = 4
}; /* READ | WRITE for both */

struct emu_exception {
	u8 vector;
	bool has_error;
	u32 error;
	u64 cr2; /* valid for #PF */
};

enum emu_translate {
	EMU_TRANSLATE_OK,
	EMU_TRANSLATE_FAULT,
	EMU_TRANSLATE_RETRY
};

/*
 * The guest's memory and vector registers. Functions return 0, or negative: the VM has to end
 * (emu_step() then returns EMU_FAILED at once), except where said otherwise.
 */
struct emu_ops {
	/* Segment register `seg`. Not called for CS, DS, ES and SS in 64-bit mode. */
	int (*segment)(void *ctx, unsigned int seg, struct emu_segment *out);
	/*
	 * Linear to guest-physical with the guest's paging rules for an access of the kinds in
	 * `access` (enum emu_access bits) at the guest's CPL, setting accessed and dirty flags.
	 * EMU_TRANSLATE_FAULT: the guest gets *fault instead, typically #PF. EMU_TRANSLATE_RETRY:
	 * not possible now, enter the guest again.
	 */
	int (*translate)(void *ctx, u64 linear, unsigned int access, gpa_t *out,
			 struct emu_exception *fault);
	/* Copies instruction bytes; [from, from + len) lies within a page. Fails outside RAM. */
	int (*fetch)(void *ctx, gpa_t from, void *dst, unsigned int len);
	/*
	 * One access of the guest, RAM or MMIO, of 1, 2, 4 or 8 bytes within a page, not
	 * necessarily aligned. Operands that are larger, or straddle pages, come as several, lowest
	 * address first.
	 */
	int (*read)(void *ctx, gpa_t from, void *dst, unsigned int len);
	int (*write)(void *ctx, gpa_t to, const void *src, unsigned int len);
	/*
	 * The write of a LOCKed read-modify-write that does not straddle pages: RAM: store
	 * `desired` only if memory still holds `expected`, atomically; positive return: it does
	 * not, and the guest has to execute the instruction again. MMIO: a plain write. `len` is 1,
	 * 2, 4, 8 or 16. NULL: `write` is used.
	 */
	int (*cmpxchg)(void *ctx, gpa_t at, const void *expected, const void *desired,
		       unsigned int len);
	/*
	 * Vector register `reg` (0 to 15), its lowest `len` bytes (16 or 32). Writing 16 bytes
	 * keeps what is above for an SSE instruction and zeroes it for a VEX one; writing 32 is
	 * VEX's.
	 */
	int (*vector_read)(void *ctx, unsigned int reg, void *dst, unsigned int len);
	int (*vector_write)(void *ctx, unsigned int reg, const void *src, unsigned int len,
			    bool vex);
	/*
	 * Does it make no difference, but for the value read, whether an access of the kind
	 * `access` (EMU_READ or EMU_WRITE) to the page of `at` is made? So of reads of RAM, and of
	 * all accesses where nothing is. Then read and write may be left out. NULL: they never are.
	 */
	bool (*inert)(void *ctx, gpa_t at, unsigned int access);
};

enum emu_status {
	EMU_DONE,	 /* cpu holds the state after the instruction: write it back */
	EMU_PARTIAL,	 /* RIP is unchanged; iterations of a repeated one are done: write back */
	EMU_RETRY,	 /* as EMU_PARTIAL, because of a race with another vCPU: enter again */
	EMU_EXCEPTION,	 /* as EMU_PARTIAL, then inject report->exception */
	EMU_UNSUPPORTED, /* decoded, but not emulated: report->bytes, report->reason */
	EMU_UNDECODABLE, /* no instruction at all: #UD is what hardware would give */
	EMU_FAILED,	 /* an operation failed: end the VM */
};

struct emu_report {
	struct emu_exception exception;
	u8 bytes[EMU_INSN_MAX]; /* as fetched */
	u8 length;		/* of the instruction; for the last three: bytes that are valid */
	const char *reason;	/* for the last three: static text */
};

/*
 * Decoded instructions by their address and bytes, one cache per vCPU (struct emu_cache in
 * emu_insn.h), zeroed at first. A hit is used only if mode and bytes are those just fetched, so it
 * needs no invalidation.
 */
struct emu_cache;

/*
 * Emulates the instruction at cpu->rip. After EMU_DONE the caller owes what every completed
 * instruction does: clear RFLAGS.RF (done here) and blocking by STI and MOV SS, and make a #DB
 * pending if RFLAGS.TF was set. CPL-3 alignment checks (#AC) are not made: hardware makes them
 * before the access that brought the guest here. `report` is always written.
 */
enum emu_status emu_step(const struct emu_ops *ops, void *ctx, struct emu_cpu *cpu,
			 struct emu_cache *cache, struct emu_report *report);
