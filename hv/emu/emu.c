/* One step of the emulator: fetch, decode or find in the cache, execute. See emu.h. */
#include "emu/emu.h"

#include "emu/emu_insn.h"
#include "lib/string.h"
#include "x86/regs.h"

/* The instruction's bytes as far as they have been fetched. */
struct window {
	u8 bytes[EMU_INSN_MAX];
	u32 len;
};

/*
 * Fetches up to the end of a page: the first call what lies on the page of RIP, the second one the
 * rest. Instructions that end before the boundary must not fault because of the page behind it.
 */
static enum emu_status fetch(struct emu_run *run, struct window *w)
{
	const struct emu_cpu *cpu = run->cpu;
	u64 offset = cpu->rip + w->len, room = EMU_INSN_MAX - w->len;
	struct emu_place place;
	struct emu_segment cs = {0};
	enum emu_status status;
	u64 base = 0;

	if (cpu->mode != EMU_MODE_64) {
		if (run->ops->segment(run->ctx, EMU_CS, &cs))
			return EMU_FAILED;
		base = cs.base;
		if (offset > cs.limit)
			return emu_fault(run, VEC_GP, 0);
		room = MIN(room, cs.limit - offset + 1);
	}
	room = MIN(room, PAGE_SIZE - ((base + offset) & ~PAGE_MASK));
	status = emu_resolve(run, EMU_CS, offset, (u32)room, EMU_FETCH, &place);
	if (status)
		return status;
	if (run->ops->fetch(run->ctx, place.part[0], w->bytes + w->len, (u32)room))
		return EMU_FAILED;
	w->len += (u32)room;
	return EMU_DONE;
}

static bool slot_matches(const struct emu_cache_slot *slot, u8 mode, const struct window *w)
{
	return slot->mode == mode && slot->insn.length <= w->len &&
	       memcmp(slot->bytes, w->bytes, slot->insn.length) == 0;
}

/* Finds or decodes the instruction in the window, fetching the rest of it if need be. */
static enum emu_status decode(struct emu_run *run, struct window *w, struct emu_cache_slot *slot)
{
	u8 mode = run->cpu->mode;
	enum emu_status status;

	if (slot_matches(slot, mode, w))
		return EMU_DONE;
	slot->mode = 0;
	status = insn_decode(mode, w->bytes, w->len, &slot->insn, &run->report->reason);
	if (status == EMU_PARTIAL && w->len < EMU_INSN_MAX) {
		status = fetch(run, w);
		if (status)
			return status;
		status = insn_decode(mode, w->bytes, w->len, &slot->insn, &run->report->reason);
	}
	if (status == EMU_PARTIAL) {
		/* Longer than 15 bytes, or than what CS leaves: #GP(0) (SDM 2A 2.3.11). */
		return emu_fault(run, VEC_GP, 0);
	}
	if (status == EMU_DONE) {
		memcpy(slot->bytes, w->bytes, slot->insn.length);
		slot->mode = mode;
	}
	return status;
}

enum emu_status emu_step(const struct emu_ops *ops, void *ctx, struct emu_cpu *cpu,
			 struct emu_cache *cache, struct emu_report *report)
{
	struct emu_cache_slot *slot = &cache->slot[(cpu->rip ^ cpu->rip >> 4) % EMU_CACHE_SLOTS];
	struct emu_insn none = {.flags = 0}; /* no alignment rule for fetches */
	struct emu_run run = {.ops = ops, .ctx = ctx, .cpu = cpu, .insn = &none, .report = report};
	struct window w = {.len = 0};
	enum emu_status status;

	report->reason = NULL;
	report->length = 0;
	status = fetch(&run, &w);
	if (!status)
		status = decode(&run, &w, slot);
	memcpy(report->bytes, w.bytes, sizeof(w.bytes));
	report->length = (u8)w.len;
	if (status) {
		if (status == EMU_FAILED)
			report->reason = "the instruction could not be fetched";
		return status;
	}
	run.insn = &slot->insn;
	report->length = slot->insn.length;
	report->mnemonic = slot->insn.mnemonic;
	status = emu_execute(&run);
	if (status == EMU_FAILED)
		report->reason = "an access to guest memory failed";
	if (status != EMU_DONE)
		return status;
	cpu->rip += slot->insn.length;
	if (cpu->mode != EMU_MODE_64)
		cpu->rip = (u32)cpu->rip;
	cpu->rflags &= ~RFLAGS_RF;
	return EMU_DONE;
}
