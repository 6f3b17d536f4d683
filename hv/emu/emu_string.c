/*
 * String instructions, restartable: each iteration commits its registers, so that a fault or the
 * end of the budget leaves a state in which the instruction can simply be executed again.
 */
#include "emu/emu_insn.h"
#include "x86/regs.h"

#define FLAG_ZF BIT64(6)

/* Adds to an index or count register as wide as the address size. */
static void step(struct emu_run *run, enum emu_gpr reg, s64 by)
{
	u64 *r = &run->cpu->gpr[reg];

	*r = emu_merge(*r, *r + (u64)by, run->insn->address_size);
}

static enum emu_status resolve(struct emu_run *run, unsigned int seg, enum emu_gpr reg,
			       unsigned int access, struct emu_place *place)
{
	const struct emu_insn *i = run->insn;

	return emu_resolve(run, seg, run->cpu->gpr[reg] & size_mask(i->address_size), i->size,
			   access, place);
}

/* One iteration without the count. */
static enum emu_status iterate(struct emu_run *run)
{
	const struct emu_insn *i = run->insn;
	struct emu_cpu *cpu = run->cpu;
	bool from_si = i->sub == STRING_MOVS || i->sub == STRING_CMPS || i->sub == STRING_LODS;
	bool stores = i->sub == STRING_MOVS || i->sub == STRING_STOS;
	bool uses_di = i->sub != STRING_LODS;
	s64 by = cpu->rflags & RFLAGS_DF ? -(s64)i->size : (s64)i->size;
	u64 acc = cpu->gpr[EMU_RAX] & size_mask(i->size);
	u64 a = acc, b = 0;
	struct emu_place si, di;
	enum emu_status status = EMU_DONE;

	if (from_si)
		status = resolve(run, i->seg, EMU_RSI, EMU_READ, &si);
	if (!status && uses_di)
		status = resolve(run, EMU_ES, EMU_RDI, stores ? EMU_WRITE : EMU_READ, &di);
	if (!status && from_si) {
		a = 0;
		status = emu_place_read(run, &si, &a);
	}
	if (!status && uses_di)
		status = stores ? emu_place_write(run, &di, &a) : emu_place_read(run, &di, &b);
	if (status)
		return status;
	if (i->sub == STRING_LODS)
		cpu->gpr[EMU_RAX] = emu_merge(cpu->gpr[EMU_RAX], a, i->size);
	else if (!stores)
		alu_binary(ALU_CMP, a, b, i->size, &cpu->rflags);
	if (from_si)
		step(run, EMU_RSI, by);
	if (uses_di)
		step(run, EMU_RDI, by);
	return EMU_DONE;
}

/* Iterations of an operand that stay on its page, do not wrap, and need no access; maybe 0. */
static u64 on_page(struct emu_run *run, unsigned int seg, enum emu_gpr reg, unsigned int access)
{
	const struct emu_insn *i = run->insn;
	u64 offset = run->cpu->gpr[reg] & size_mask(i->address_size), room;
	struct emu_place place;

	if (resolve(run, seg, reg, access, &place) || place.bytes[1] ||
	    !run->ops->inert(run->ctx, place.part[0], access))
		return 0;
	room = MIN(PAGE_SIZE - (place.part[0].v & ~PAGE_MASK), size_mask(i->address_size) - offset);
	room -= room % i->size;
	if (room && emu_resolve(run, seg, offset, (u32)room, access, &place))
		return 0;
	return room / i->size;
}

/*
 * A guest that fills or copies beyond the end of its RAM (memory testers do) stores to nowhere,
 * megabytes long. All that such iterations change is index and count registers: makes those of a
 * page, as far as that is allowed, at once. Returns whether it did.
 */
static bool store_nowhere(struct emu_run *run)
{
	const struct emu_insn *i = run->insn;
	struct emu_cpu *cpu = run->cpu;
	u64 n = cpu->gpr[EMU_RCX] & size_mask(i->address_size);

	if ((i->sub != STRING_STOS && i->sub != STRING_MOVS) || !run->ops->inert ||
	    (cpu->rflags & RFLAGS_DF))
		return false;
	n = MIN(n, on_page(run, EMU_ES, EMU_RDI, EMU_WRITE));
	if (n && i->sub == STRING_MOVS)
		n = MIN(n, on_page(run, i->seg, EMU_RSI, EMU_READ));
	if (!n)
		return false;
	if (i->sub == STRING_MOVS)
		step(run, EMU_RSI, (s64)(n * i->size));
	step(run, EMU_RDI, (s64)(n * i->size));
	step(run, EMU_RCX, -(s64)n);
	return true;
}

enum emu_status emu_execute_string(struct emu_run *run)
{
	const struct emu_insn *i = run->insn;
	struct emu_cpu *cpu = run->cpu;
	bool compares = i->sub == STRING_CMPS || i->sub == STRING_SCAS;
	bool nowhere = true; /* behind the first iteration, until it is found not to be so */

	if (!(i->flags & (INSN_REP | INSN_REPNE)))
		return iterate(run);
	for (u32 n = 0; n < EMU_REP_MAX; n++) {
		enum emu_status status;

		if (!(cpu->gpr[EMU_RCX] & size_mask(i->address_size)))
			return EMU_DONE;
		if (n && nowhere) {
			nowhere = store_nowhere(run);
			if (nowhere)
				continue;
		}
		status = iterate(run);
		if (status)
			return status;
		step(run, EMU_RCX, -1);
		if (compares && !(cpu->rflags & FLAG_ZF) == !(i->flags & INSN_REPNE))
			return EMU_DONE;
	}
	return EMU_PARTIAL;
}
