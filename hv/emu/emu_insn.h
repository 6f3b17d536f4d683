/* The emulator's own form of an instruction, and what its files share; for hv/emu alone. */
#pragma once

#include "emu/emu.h"
#include "vm/platform.h"

/* What to do. All but strings have one memory operand; PUSH and POP have the stack too. */
enum emu_op {
	OP_LOAD,      /* register <- memory; sub: enum emu_extend */
	OP_STORE,     /* memory <- register or immediate; sub: EXTEND_NONE or EXTEND_SWAP */
	OP_ALU_STORE, /* memory <- memory op register or immediate; sub: enum emu_alu */
	OP_ALU_LOAD,  /* register <- register op memory */
	OP_UNARY,     /* memory <- op memory; sub: enum emu_unary */
	OP_SHIFT,     /* memory <- memory shifted by immediate or CL; sub: ModRM.reg of group 2 */
	OP_BIT,	      /* sub: enum emu_bit */
	OP_XCHG,
	OP_XADD,
	OP_CMPXCHG,
	OP_CMPXCHG_PAIR, /* CMPXCHG8B, CMPXCHG16B */
	OP_SETCC,	 /* sub: condition code */
	OP_CMOVCC,
	OP_PUSH,
	OP_POP,
	OP_TOUCH,	 /* CLFLUSH and its like: address checked as for a load, nothing read */
	OP_VECTOR_LOAD,	 /* XMM or YMM <- memory; sub: enum emu_half */
	OP_VECTOR_STORE, /* memory <- XMM or YMM */
	OP_STRING,	 /* sub: enum emu_string */
	OP_COUNT
};

enum emu_extend {
	EXTEND_NONE,
	EXTEND_ZERO,
	EXTEND_SIGN,
	EXTEND_SWAP
};
/* The first eight in the order of the opcodes (SDM 2D table A-2, group 1). */
enum emu_alu {
	ALU_ADD,
	ALU_OR,
	ALU_ADC,
	ALU_SBB,
	ALU_AND,
	ALU_SUB,
	ALU_XOR,
	ALU_CMP,
	ALU_TEST
};
enum emu_unary {
	UNARY_NOT,
	UNARY_NEG,
	UNARY_INC,
	UNARY_DEC
};
/* In the order of group 2's ModRM.reg. */
enum emu_shift {
	SHIFT_ROL,
	SHIFT_ROR,
	SHIFT_RCL,
	SHIFT_RCR,
	SHIFT_SHL,
	SHIFT_SHR,
	SHIFT_SAL,
	SHIFT_SAR
};
/* In the order of group 8's ModRM.reg, from 4. */
enum emu_bit {
	BIT_TEST,
	BIT_SET,
	BIT_RESET,
	BIT_COMPLEMENT
};
enum emu_half {
	HALF_ALL,
	HALF_LOW,
	HALF_HIGH
}; /* LOW, HIGH: 8 bytes, the others unchanged */
enum emu_string {
	STRING_MOVS,
	STRING_CMPS,
	STRING_STOS,
	STRING_LODS,
	STRING_SCAS
};

#define INSN_LOCK    BIT(0)
#define INSN_REX     BIT(1) /* byte registers 4 to 7 are SPL, BPL, SIL, DIL */
#define INSN_REP     BIT(2) /* F3: REP or REPE */
#define INSN_REPNE   BIT(3) /* F2 */
#define INSN_IMM     BIT(4) /* the second operand is `imm` */
#define INSN_RIP     BIT(5) /* RIP-relative */
#define INSN_VEX     BIT(6)
#define INSN_ALIGNED BIT(7) /* the memory operand must be aligned to its size */

#define NO_REG 0xff

struct emu_insn {
	u8 op;		 /* enum emu_op */
	u8 sub;		 /* of what kind: see enum emu_op */
	u8 size;	 /* bytes of the memory operand */
	u8 reg_size;	 /* bytes of the register operand; vectors: 16 or 32 */
	u8 reg;		 /* register operand */
	u8 flags;	 /* INSN_* */
	u8 address_size; /* 2, 4 or 8 */
	u8 seg;		 /* enum emu_seg, of the memory operand */
	u8 base, index;	 /* enum emu_gpr or NO_REG */
	u8 scale;	 /* 1, 2, 4, 8 */
	u8 length;
	u16 mnemonic;
	u16 reserved;
	s64 disp;
	u64 imm; /* sign-extended */
};
_Static_assert(sizeof(struct emu_insn) == 32, "small enough to keep some");

/* The bytes of an instruction, zero behind their end, in a form that compares quickly. */
union emu_bytes {
	u8 byte[16];
	u64 word[2];
};

#define EMU_CACHE_SLOTS 16

/*
 * A store that has been emulated before, with what shows that the guest executes it again, in the
 * form that takes least time to look at (store.c).
 */
#define EMU_KNOWN_STEPS 4
#define EMU_KNOWN_SLOTS 8
struct emu_known {
	struct known_store store; /* size 0: nothing is known */
	u64 rip, cr3;		  /* linear; as in the VMCS */
	/* The paging-structure entries on the way to its bytes, and what is in them but for A and
	 * D. Where they are fewer, the last one again. */
	const u64 *entry[EMU_KNOWN_STEPS];
	u64 entry_value[EMU_KNOWN_STEPS];
	const u64 *code; /* its bytes, and what they are in two words of which `mask` counts */
	u64 bytes[2], mask[2];
	/* Its operand's address: *base + (*index << shift) + disp; registers, or `zero`. */
	const u64 *base, *index;
	u64 disp, zero;
	u8 shift;
	u64 last; /* where in a page the operand may begin */
	u64 imm;
};

struct emu_cache {
	struct emu_cache_slot {
		union emu_bytes bytes;
		struct emu_insn insn;
		u8 mode; /* 0: empty */
	} slot[EMU_CACHE_SLOTS];
	struct emu_known known[EMU_KNOWN_SLOTS];
};

static inline struct emu_cache_slot *emu_slot(struct emu_cache *cache, u64 rip)
{
	return &cache->slot[(rip ^ rip >> 4) % EMU_CACHE_SLOTS];
}

struct walk_state;

/* The store at `rip` has been emulated: mmio_known_store() may know it from now on. */
void emu_remember(struct vcpu *vcpu, const struct walk_state *state, u64 rip);

/* One call of emu_step(). */
struct emu_run {
	const struct emu_ops *ops;
	void *ctx;
	struct emu_cpu *cpu;
	const struct emu_insn *insn;
	struct emu_report *report;
};

/*
 * Decodes `len` bytes. EMU_DONE; EMU_PARTIAL: the instruction is longer than that; EMU_UNSUPPORTED
 * or EMU_UNDECODABLE with *reason.
 */
enum emu_status insn_decode(u8 mode, const u8 *bytes, u32 len, struct emu_insn *out,
			    const char **reason);

/* --- memory (emu_mem.c) --- */

/* An operand's place: translated, checked, at most two pages. */
struct emu_place {
	gpa_t part[2];
	u32 bytes[2]; /* bytes[1] is 0 unless the operand straddles pages */
};

/* Makes the status of an exception; has_error is dropped in real mode. */
enum emu_status emu_fault(struct emu_run *run, u8 vector, u32 error);

/* Checks [offset, offset + len) of segment `seg` for `access` and translates it. */
enum emu_status emu_resolve(struct emu_run *run, unsigned int seg, u64 offset, u32 len,
			    unsigned int access, struct emu_place *out);
/* The same for the instruction's memory operand; `displace` is added to its address. */
enum emu_status emu_resolve_operand(struct emu_run *run, unsigned int access, s64 displace,
				    struct emu_place *out);
enum emu_status emu_place_read(struct emu_run *run, const struct emu_place *place, void *dst);
enum emu_status emu_place_write(struct emu_run *run, const struct emu_place *place,
				const void *src);
/* The write of a read-modify-write that found `old`; atomic if `locked`. */
enum emu_status emu_place_update(struct emu_run *run, const struct emu_place *place,
				 const void *old, const void *new, bool locked);

/* Offset of the memory operand in its segment, with `rsp` for the stack pointer. */
u64 emu_effective_address(const struct emu_run *run, u64 rsp);

/* Bytes of the stack pointer that count: 2, 4 or 8. */
enum emu_status emu_stack_size(struct emu_run *run, u32 *size);

/* --- registers (emu_mem.c) --- */

static inline u64 size_mask(u32 size)
{
	return size >= 8 ? ~(u64)0 : BIT64(8 * size) - 1;
}

u64 emu_reg_read(const struct emu_run *run, u8 reg, u32 size);
void emu_reg_write(struct emu_run *run, u8 reg, u32 size, u64 value);
/* `size` low bytes of old replaced by those of value; 4 bytes clear the upper half. */
u64 emu_merge(u64 old, u64 value, u32 size);

/* --- arithmetic (emu_alu.c): operands masked to size; *rflags is read and written --- */

u64 alu_binary(enum emu_alu op, u64 a, u64 b, u32 size, u64 *rflags);
u64 alu_unary(enum emu_unary op, u64 a, u32 size, u64 *rflags);
u64 alu_shift(enum emu_shift op, u64 a, u32 count, u32 size, u64 *rflags);
u64 alu_bit(enum emu_bit op, u64 a, u32 bit, u64 *rflags);
bool alu_condition(u8 code, u64 rflags);

/* --- execution --- */

enum emu_status emu_execute(struct emu_run *run);	 /* emu_exec.c */
enum emu_status emu_execute_string(struct emu_run *run); /* emu_string.c */
