/*
 * Execution of instructions with a memory operand. Each function resolves all its operands before
 * it touches memory, and changes registers and flags when nothing can fail any more.
 */
#include "emu/emu_insn.h"
#include "lib/string.h"
#include "x86/regs.h"

#define FLAG_ZF BIT64(6)

static u64 swap_bytes(u64 value, u32 size)
{
	return __builtin_bswap64(value) >> (64 - 8 * size);
}

static u64 extend(enum emu_extend kind, u64 value, u32 size)
{
	u32 unused = 64 - 8 * size;

	switch (kind) {
	case EXTEND_SIGN:
		return (u64)((s64)(value << unused) >> unused);
	case EXTEND_SWAP:
		return swap_bytes(value, size);
	default:
		return value;
	}
}

/* The operand's value, for up to 8 bytes; the place is kept for a later write. */
static enum emu_status fetch_operand(struct emu_run *run, unsigned int access,
				     struct emu_place *place, u64 *value)
{
	enum emu_status status = emu_resolve_operand(run, access, 0, place);

	*value = 0;
	return status ? status : emu_place_read(run, place, value);
}

/* The second operand: immediate or register. */
static u64 source(const struct emu_run *run)
{
	const struct emu_insn *i = run->insn;

	if (i->flags & INSN_IMM)
		return i->imm & size_mask(i->size);
	return emu_reg_read(run, i->reg, i->size);
}

static bool locked(const struct emu_run *run)
{
	return run->insn->flags & INSN_LOCK;
}

static enum emu_status load(struct emu_run *run)
{
	const struct emu_insn *i = run->insn;
	struct emu_place place;
	u64 value;
	enum emu_status status = fetch_operand(run, EMU_READ, &place, &value);

	if (!status)
		emu_reg_write(run, i->reg, i->reg_size, extend(i->sub, value, i->size));
	return status;
}

static enum emu_status store(struct emu_run *run)
{
	const struct emu_insn *i = run->insn;
	struct emu_place place;
	u64 value = extend(i->sub, source(run), i->size);
	enum emu_status status = emu_resolve_operand(run, EMU_WRITE, 0, &place);

	return status ? status : emu_place_write(run, &place, &value);
}

static enum emu_status alu_store(struct emu_run *run)
{
	const struct emu_insn *i = run->insn;
	bool compares = i->sub == ALU_CMP || i->sub == ALU_TEST;
	u64 rflags = run->cpu->rflags, old, new;
	struct emu_place place;
	enum emu_status status;

	status = fetch_operand(run, compares ? EMU_READ : EMU_READ | EMU_WRITE, &place, &old);
	if (status)
		return status;
	new = alu_binary(i->sub, old, source(run), i->size, &rflags);
	if (!compares)
		status = emu_place_update(run, &place, &old, &new, locked(run));
	if (!status)
		run->cpu->rflags = rflags;
	return status;
}

static enum emu_status alu_load(struct emu_run *run)
{
	const struct emu_insn *i = run->insn;
	struct emu_place place;
	u64 value, result;
	enum emu_status status = fetch_operand(run, EMU_READ, &place, &value);

	if (status)
		return status;
	result = alu_binary(i->sub, emu_reg_read(run, i->reg, i->size), value, i->size,
			    &run->cpu->rflags);
	if (i->sub != ALU_CMP)
		emu_reg_write(run, i->reg, i->size, result);
	return EMU_DONE;
}

/* memory <- f(memory), flags */
static enum emu_status unary_or_shift(struct emu_run *run)
{
	const struct emu_insn *i = run->insn;
	u64 rflags = run->cpu->rflags, old, new;
	struct emu_place place;
	enum emu_status status = fetch_operand(run, EMU_READ | EMU_WRITE, &place, &old);

	if (status)
		return status;
	if (i->op == OP_UNARY)
		new = alu_unary(i->sub, old, i->size, &rflags);
	else
		new = alu_shift(i->sub, old,
				(u32)(i->flags & INSN_IMM ? i->imm : run->cpu->gpr[EMU_RCX]) & 0xff,
				i->size, &rflags);
	status = emu_place_update(run, &place, &old, &new, locked(run));
	if (!status)
		run->cpu->rflags = rflags;
	return status;
}

/* A bit number in a register reaches beyond the operand; an immediate one does not. */
static enum emu_status bit(struct emu_run *run)
{
	const struct emu_insn *i = run->insn;
	unsigned int access = i->sub == BIT_TEST ? EMU_READ : EMU_READ | EMU_WRITE;
	u64 rflags = run->cpu->rflags, old = 0, new;
	u32 bits = 8u * i->size;
	s64 number = (s64)extend(EXTEND_SIGN, source(run), i->size);
	s64 displace = 0;
	struct emu_place place;
	enum emu_status status;

	if (!(i->flags & INSN_IMM))
		displace = (number & ~(s64)(bits - 1)) / 8;
	status = emu_resolve_operand(run, access, displace, &place);
	if (!status)
		status = emu_place_read(run, &place, &old);
	if (status)
		return status;
	new = alu_bit(i->sub, old, (u32)number & (bits - 1), &rflags);
	if (i->sub != BIT_TEST)
		status = emu_place_update(run, &place, &old, &new, locked(run));
	if (!status)
		run->cpu->rflags = rflags;
	return status;
}

/* XCHG with memory is locked with or without the prefix. */
static enum emu_status exchange(struct emu_run *run)
{
	const struct emu_insn *i = run->insn;
	u64 rflags = run->cpu->rflags, old, new = source(run);
	struct emu_place place;
	enum emu_status status = fetch_operand(run, EMU_READ | EMU_WRITE, &place, &old);

	if (status)
		return status;
	if (i->op == OP_XADD)
		new = alu_binary(ALU_ADD, old, new, i->size, &rflags);
	status = emu_place_update(run, &place, &old, &new, i->op == OP_XCHG || locked(run));
	if (status)
		return status;
	run->cpu->rflags = rflags;
	emu_reg_write(run, i->reg, i->size, old);
	return EMU_DONE;
}

/* Memory is written in any case, with its old value if the comparison failed (SDM 2A CMPXCHG). */
static enum emu_status compare_exchange(struct emu_run *run)
{
	const struct emu_insn *i = run->insn;
	u64 rflags = run->cpu->rflags, old, new;
	struct emu_place place;
	enum emu_status status = fetch_operand(run, EMU_READ | EMU_WRITE, &place, &old);

	if (status)
		return status;
	alu_binary(ALU_CMP, run->cpu->gpr[EMU_RAX] & size_mask(i->size), old, i->size, &rflags);
	new = rflags &FLAG_ZF ? source(run) : old;
	status = emu_place_update(run, &place, &old, &new, locked(run));
	if (status)
		return status;
	run->cpu->rflags = rflags;
	if (!(rflags & FLAG_ZF))
		run->cpu->gpr[EMU_RAX] = emu_merge(run->cpu->gpr[EMU_RAX], old, i->size);
	return EMU_DONE;
}

static enum emu_status compare_exchange_pair(struct emu_run *run)
{
	u64 *gpr = run->cpu->gpr;
	u32 half = run->insn->size / 2;
	u64 mask = size_mask(half);
	u64 low = 0, high = 0;
	u8 old[16], new[16];
	struct emu_place place;
	bool equal;
	enum emu_status status = emu_resolve_operand(run, EMU_READ | EMU_WRITE, 0, &place);

	if (!status)
		status = emu_place_read(run, &place, old);
	if (status)
		return status;
	memcpy(&low, old, half);
	memcpy(&high, old + half, half);
	equal = low == (gpr[EMU_RAX] & mask) && high == (gpr[EMU_RDX] & mask);
	memcpy(new, equal ? &gpr[EMU_RBX] : &low, half);
	memcpy(new + half, equal ? &gpr[EMU_RCX] : &high, half);
	status = emu_place_update(run, &place, old, new, locked(run));
	if (status)
		return status;
	if (equal) {
		run->cpu->rflags |= FLAG_ZF;
	} else {
		run->cpu->rflags &= ~FLAG_ZF;
		gpr[EMU_RAX] = low;
		gpr[EMU_RDX] = high;
	}
	return EMU_DONE;
}

static enum emu_status set_condition(struct emu_run *run)
{
	u8 value = alu_condition(run->insn->sub, run->cpu->rflags);
	struct emu_place place;
	enum emu_status status = emu_resolve_operand(run, EMU_WRITE, 0, &place);

	return status ? status : emu_place_write(run, &place, &value);
}

/* Memory is read, and the upper half of a 32-bit register cleared, whatever the condition. */
static enum emu_status move_condition(struct emu_run *run)
{
	const struct emu_insn *i = run->insn;
	struct emu_place place;
	u64 value;
	enum emu_status status = fetch_operand(run, EMU_READ, &place, &value);

	if (status)
		return status;
	if (!alu_condition(i->sub, run->cpu->rflags))
		value = emu_reg_read(run, i->reg, i->size);
	emu_reg_write(run, i->reg, i->size, value);
	return EMU_DONE;
}

static enum emu_status push(struct emu_run *run)
{
	const struct emu_insn *i = run->insn;
	u64 *rsp = &run->cpu->gpr[EMU_RSP];
	struct emu_place from, to;
	u64 value = 0, below;
	u32 stack;
	enum emu_status status = emu_stack_size(run, &stack);

	below = (*rsp - i->size) & size_mask(stack);
	if (!status)
		status = emu_resolve_operand(run, EMU_READ, 0, &from);
	if (!status)
		status = emu_resolve(run, EMU_SS, below, i->size, EMU_WRITE, &to);
	if (!status)
		status = emu_place_read(run, &from, &value);
	if (!status)
		status = emu_place_write(run, &to, &value);
	if (!status)
		*rsp = emu_merge(*rsp, below, stack);
	return status;
}

/* The destination's address is computed with the stack pointer incremented (SDM 2B POP). */
static enum emu_status pop(struct emu_run *run)
{
	const struct emu_insn *i = run->insn;
	u64 *rsp = &run->cpu->gpr[EMU_RSP];
	struct emu_place from, to;
	u64 value = 0, after = 0;
	u32 stack;
	enum emu_status status = emu_stack_size(run, &stack);

	if (!status)
		status =
			emu_resolve(run, EMU_SS, *rsp & size_mask(stack), i->size, EMU_READ, &from);
	if (status)
		return status;
	after = emu_merge(*rsp, *rsp + i->size, stack);
	status = emu_resolve(run, i->seg, emu_effective_address(run, after), i->size, EMU_WRITE,
			     &to);
	if (!status)
		status = emu_place_read(run, &from, &value);
	if (!status)
		status = emu_place_write(run, &to, &value);
	if (!status)
		*rsp = after;
	return status;
}

static enum emu_status touch(struct emu_run *run)
{
	struct emu_place place;

	return emu_resolve_operand(run, EMU_READ, 0, &place);
}

static enum emu_status vector_load(struct emu_run *run)
{
	const struct emu_insn *i = run->insn;
	u8 value[32] = {0};
	struct emu_place place;
	enum emu_status status = emu_resolve_operand(run, EMU_READ, 0, &place);

	if (!status && i->sub != HALF_ALL &&
	    run->ops->vector_read(run->ctx, i->reg, value, i->reg_size))
		return EMU_FAILED;
	if (!status)
		status = emu_place_read(run, &place, value + (i->sub == HALF_HIGH ? 8 : 0));
	if (!status &&
	    run->ops->vector_write(run->ctx, i->reg, value, i->reg_size, i->flags & INSN_VEX))
		return EMU_FAILED;
	return status;
}

static enum emu_status vector_store(struct emu_run *run)
{
	const struct emu_insn *i = run->insn;
	u8 value[32];
	struct emu_place place;
	enum emu_status status = emu_resolve_operand(run, EMU_WRITE, 0, &place);

	if (status)
		return status;
	if (run->ops->vector_read(run->ctx, i->reg, value, i->reg_size))
		return EMU_FAILED;
	return emu_place_write(run, &place, value + (i->sub == HALF_HIGH ? 8 : 0));
}

static enum emu_status (*const execute[OP_COUNT])(struct emu_run *run) = {
	[OP_LOAD] = load,
	[OP_STORE] = store,
	[OP_ALU_STORE] = alu_store,
	[OP_ALU_LOAD] = alu_load,
	[OP_UNARY] = unary_or_shift,
	[OP_SHIFT] = unary_or_shift,
	[OP_BIT] = bit,
	[OP_XCHG] = exchange,
	[OP_XADD] = exchange,
	[OP_CMPXCHG] = compare_exchange,
	[OP_CMPXCHG_PAIR] = compare_exchange_pair,
	[OP_SETCC] = set_condition,
	[OP_CMOVCC] = move_condition,
	[OP_PUSH] = push,
	[OP_POP] = pop,
	[OP_TOUCH] = touch,
	[OP_VECTOR_LOAD] = vector_load,
	[OP_VECTOR_STORE] = vector_store,
	[OP_STRING] = emu_execute_string,
};

enum emu_status emu_execute(struct emu_run *run)
{
	return execute[run->insn->op](run);
}
