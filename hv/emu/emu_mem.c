/* Registers and memory operands of the emulator: segmentation, translation, split accesses. */
#include "emu/emu_insn.h"
#include "x86/regs.h"

/* Access rights (SDM 3C table 25-2). */
#define AR_WRITABLE BIT(1) /* data; for code: readable */
#define AR_EXPAND   BIT(2) /* data: expand-down */
#define AR_CODE	    BIT(3)
#define AR_BIG	    BIT(14)
#define AR_UNUSABLE BIT(16)

u64 emu_merge(u64 old, u64 value, u32 size)
{
	if (size >= 4)
		return value & size_mask(size);
	return (old & ~size_mask(size)) | (value & size_mask(size));
}

/* AH, CH, DH, BH: byte registers 4 to 7 without REX. */
static bool is_high_byte(const struct emu_run *run, u8 reg, u32 size)
{
	return size == 1 && reg >= 4 && reg < 8 && !(run->insn->flags & INSN_REX);
}

u64 emu_reg_read(const struct emu_run *run, u8 reg, u32 size)
{
	if (is_high_byte(run, reg, size))
		return run->cpu->gpr[reg - 4] >> 8 & 0xff;
	return run->cpu->gpr[reg] & size_mask(size);
}

void emu_reg_write(struct emu_run *run, u8 reg, u32 size, u64 value)
{
	u64 *gpr = run->cpu->gpr;

	if (is_high_byte(run, reg, size))
		gpr[reg - 4] = (gpr[reg - 4] & ~(u64)0xff00) | (value & 0xff) << 8;
	else
		gpr[reg] = emu_merge(gpr[reg], value, size);
}

enum emu_status emu_fault(struct emu_run *run, u8 vector, u32 error)
{
	run->report->exception = (struct emu_exception){
		.vector = vector, .has_error = !run->cpu->real, .error = error};
	return EMU_EXCEPTION;
}

static enum emu_status segment_fault(struct emu_run *run, unsigned int seg)
{
	return emu_fault(run, seg == EMU_SS ? VEC_SS : VEC_GP, 0);
}

static bool canonical(const struct emu_cpu *cpu, u64 linear)
{
	u32 unused = 64 - cpu->linear_bits;

	return (u64)((s64)(linear << unused) >> unused) == linear;
}

/* May the segment be accessed so (SDM 3A 5.5)? Type checks are not made in real mode. */
static bool type_allows(const struct emu_segment *s, unsigned int access)
{
	if (s->ar & AR_UNUSABLE)
		return false;
	if (access & EMU_FETCH)
		return true;
	if ((access & EMU_WRITE) && ((s->ar & AR_CODE) || !(s->ar & AR_WRITABLE)))
		return false;
	return !(access & EMU_READ) || !(s->ar & AR_CODE) || (s->ar & AR_WRITABLE);
}

/* Does [offset, offset + len) lie within the limit (SDM 3A 5.3)? offset < 2^32, len > 0. */
static bool limit_allows(const struct emu_segment *s, u64 offset, u32 len)
{
	u64 last = offset + len - 1;

	if ((s->ar & (AR_CODE | AR_EXPAND)) != AR_EXPAND)
		return last <= s->limit;
	return offset > s->limit && last <= (s->ar & AR_BIG ? 0xffffffff : 0xffff);
}

static enum emu_status to_linear(struct emu_run *run, unsigned int seg, u64 offset, u32 len,
				 unsigned int access, u64 *linear)
{
	struct emu_cpu *cpu = run->cpu;
	struct emu_segment s = {0};

	if (cpu->mode == EMU_MODE_64) {
		if ((seg == EMU_FS || seg == EMU_GS) && run->ops->segment(run->ctx, seg, &s))
			return EMU_FAILED;
		*linear = s.base + offset;
		if (!canonical(cpu, *linear) || !canonical(cpu, *linear + len - 1))
			return segment_fault(run, seg);
		return EMU_DONE;
	}
	if (run->ops->segment(run->ctx, seg, &s))
		return EMU_FAILED;
	if ((!cpu->real && !type_allows(&s, access)) || !limit_allows(&s, offset, len))
		return segment_fault(run, seg);
	*linear = (u32)(s.base + offset);
	return EMU_DONE;
}

static enum emu_status translate(struct emu_run *run, u64 linear, unsigned int access, gpa_t *out)
{
	struct emu_exception fault = {0};

	switch (run->ops->translate(run->ctx, linear, access, out, &fault)) {
	case EMU_TRANSLATE_OK:
		return EMU_DONE;
	case EMU_TRANSLATE_FAULT:
		run->report->exception = fault;
		return EMU_EXCEPTION;
	case EMU_TRANSLATE_RETRY:
		return EMU_RETRY;
	default:
		return EMU_FAILED;
	}
}

enum emu_status emu_resolve(struct emu_run *run, unsigned int seg, u64 offset, u32 len,
			    unsigned int access, struct emu_place *out)
{
	enum emu_status status;
	u64 linear = 0, next;

	status = to_linear(run, seg, offset, len, access, &linear);
	if (status)
		return status;
	if ((run->insn->flags & INSN_ALIGNED) && (linear & (len - 1)))
		return emu_fault(run, VEC_GP, 0);
	out->bytes[0] = (u32)MIN((u64)len, PAGE_SIZE - (linear & ~PAGE_MASK));
	out->bytes[1] = len - out->bytes[0];
	status = translate(run, linear, access, &out->part[0]);
	if (status || !out->bytes[1])
		return status;
	next = linear + out->bytes[0];
	if (run->cpu->mode != EMU_MODE_64)
		next = (u32)next;
	return translate(run, next, access, &out->part[1]);
}

u64 emu_effective_address(const struct emu_run *run, u64 rsp)
{
	const struct emu_insn *i = run->insn;
	const u64 *gpr = run->cpu->gpr;
	u64 address = (u64)i->disp;

	if (i->flags & INSN_RIP)
		address += run->cpu->rip + i->length;
	if (i->base != NO_REG)
		address += i->base == EMU_RSP ? rsp : gpr[i->base];
	if (i->index != NO_REG)
		address += gpr[i->index] * i->scale;
	return address & size_mask(i->address_size);
}

enum emu_status emu_resolve_operand(struct emu_run *run, unsigned int access, s64 displace,
				    struct emu_place *out)
{
	const struct emu_insn *i = run->insn;
	u64 offset = emu_effective_address(run, run->cpu->gpr[EMU_RSP]) + (u64)displace;

	offset &= size_mask(i->address_size);
	return emu_resolve(run, i->seg, offset, i->size, access, out);
}

enum emu_status emu_stack_size(struct emu_run *run, u32 *size)
{
	struct emu_segment s = {0};

	*size = 8;
	if (run->cpu->mode == EMU_MODE_64)
		return EMU_DONE;
	if (run->ops->segment(run->ctx, EMU_SS, &s))
		return EMU_FAILED;
	*size = s.ar & AR_BIG ? 4 : 2;
	return EMU_DONE;
}

/* The largest single access that is not longer than `bytes`. */
static u32 piece_of(u32 bytes)
{
	return bytes >= 8 ? 8 : bytes >= 4 ? 4 : bytes >= 2 ? 2 : 1;
}

enum emu_status emu_place_read(struct emu_run *run, const struct emu_place *place, void *dst)
{
	u8 *to = dst;

	for (u32 i = 0; i < 2; i++)
		for (u32 done = 0, n; done < place->bytes[i]; done += n, to += n) {
			n = piece_of(place->bytes[i] - done);
			if (run->ops->read(run->ctx, gpa_add(place->part[i], done), to, n))
				return EMU_FAILED;
		}
	return EMU_DONE;
}

enum emu_status emu_place_write(struct emu_run *run, const struct emu_place *place, const void *src)
{
	const u8 *from = src;

	for (u32 i = 0; i < 2; i++)
		for (u32 done = 0, n; done < place->bytes[i]; done += n, from += n) {
			n = piece_of(place->bytes[i] - done);
			if (run->ops->write(run->ctx, gpa_add(place->part[i], done), from, n))
				return EMU_FAILED;
		}
	return EMU_DONE;
}

enum emu_status emu_place_update(struct emu_run *run, const struct emu_place *place,
				 const void *old, const void *new, bool locked)
{
	int result;

	if (!locked || place->bytes[1] || !run->ops->cmpxchg)
		return emu_place_write(run, place, new);
	result = run->ops->cmpxchg(run->ctx, place->part[0], old, new, place->bytes[0]);
	if (result < 0)
		return EMU_FAILED;
	return result ? EMU_RETRY : EMU_DONE;
}
