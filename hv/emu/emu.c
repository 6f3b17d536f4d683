/* One step of the emulator: fetch, decode or find in the cache, execute. See emu.h. */
#include "emu/emu.h"

#include "emu/emu_insn.h"
#include "lib/string.h"
#include "x86/regs.h"

#define FETCH_BYTES 8u /* at a time: most instructions that access devices are not longer */

/* The instruction's bytes as far as they have been fetched, each one once. */
struct window {
	union emu_bytes bytes;
	u32 len;
	u32 left; /* bytes behind those that lie on the same page and within CS */
	gpa_t next;
};

/* Translates the page of the next byte. */
static enum emu_status next_page(struct emu_run *run, struct window *w)
{
	const struct emu_cpu *cpu = run->cpu;
	u64 offset = cpu->rip + w->len, room = EMU_INSN_MAX - w->len;
	struct emu_place place;
	struct emu_segment cs;
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
	w->left = (u32)MIN(room, PAGE_SIZE - ((base + offset) & ~PAGE_MASK));
	status = emu_resolve(run, EMU_CS, offset, w->left, EMU_FETCH, &place);
	w->next = place.part[0];
	return status;
}

/*
 * Fetches some more bytes, never beyond the end of a page that has not been begun: an instruction
 * that ends before the boundary must not fault because of the page behind it.
 */
static enum emu_status fetch(struct emu_run *run, struct window *w)
{
	u32 n;

	if (!w->left) {
		enum emu_status status = next_page(run, w);

		if (status)
			return status;
	}
	n = MIN(w->left, FETCH_BYTES);
	if (run->ops->fetch(run->ctx, w->next, w->bytes.byte + w->len, n))
		return EMU_FAILED;
	w->len += n;
	w->left -= n;
	w->next = gpa_add(w->next, n);
	return EMU_DONE;
}

/* Do the first `len` bytes agree? */
static bool same_bytes(const union emu_bytes *a, const union emu_bytes *b, u32 len)
{
	u64 low = a->word[0] ^ b->word[0], high = a->word[1] ^ b->word[1];

	if (len <= 8)
		return !(low & size_mask(len));
	return !low && !(high & size_mask(len - 8));
}

/*
 * Is the slot's instruction the one in the window? Where the window is a proper beginning of it,
 * whatever is there is longer than the window too, so that more may be fetched.
 */
static enum emu_status find(struct emu_run *run, struct window *w,
			    const struct emu_cache_slot *slot, bool *found)
{
	u32 len = slot->insn.length;

	*found = false;
	if (slot->mode != run->cpu->mode)
		return EMU_DONE;
	while (w->len < len && same_bytes(&slot->bytes, &w->bytes, w->len)) {
		enum emu_status status = fetch(run, w);

		if (status)
			return status;
	}
	*found = w->len >= len && same_bytes(&slot->bytes, &w->bytes, len);
	return EMU_DONE;
}

static enum emu_status decode(struct emu_run *run, struct window *w, struct emu_cache_slot *slot)
{
	const u8 mode = run->cpu->mode;
	enum emu_status status;

	slot->mode = 0;
	for (;;) {
		status =
			insn_decode(mode, w->bytes.byte, w->len, &slot->insn, &run->report->reason);
		if (status != EMU_PARTIAL)
			break;
		if (w->len == EMU_INSN_MAX) /* too long (SDM 2A 2.3.11) */
			return emu_fault(run, VEC_GP, 0);
		status = fetch(run, w);
		if (status)
			return status;
	}
	if (status == EMU_DONE) {
		slot->bytes = w->bytes;
		slot->mode = mode;
	}
	return status;
}

static enum emu_status fetch_and_decode(struct emu_run *run, struct window *w,
					struct emu_cache_slot *slot)
{
	bool found = false;
	enum emu_status status = fetch(run, w);

	if (!status)
		status = find(run, w, slot, &found);
	if (!status && !found)
		status = decode(run, w, slot);
	return status;
}

enum emu_status emu_step(const struct emu_ops *ops, void *ctx, struct emu_cpu *cpu,
			 struct emu_cache *cache, struct emu_report *report)
{
	static const struct emu_insn fetching; /* no alignment rule applies to fetches */
	struct emu_cache_slot *slot = emu_slot(cache, cpu->rip);
	struct emu_run run = {
		.ops = ops, .ctx = ctx, .cpu = cpu, .insn = &fetching, .report = report};
	struct window w;
	enum emu_status status;

	w.bytes.word[0] = w.bytes.word[1] = 0;
	w.len = w.left = 0;
	report->reason = NULL;
	status = fetch_and_decode(&run, &w, slot);
	if (!status) {
		run.insn = &slot->insn;
		status = emu_execute(&run);
	}
	if (status == EMU_DONE) {
		report->length = slot->insn.length;
		cpu->rip += slot->insn.length;
		if (cpu->mode != EMU_MODE_64)
			cpu->rip = (u32)cpu->rip;
		cpu->rflags &= ~RFLAGS_RF;
		return EMU_DONE;
	}
	memcpy(report->bytes, w.bytes.byte, sizeof(report->bytes));
	report->length = run.insn == &fetching ? (u8)w.len : slot->insn.length;
	if (status == EMU_FAILED && !report->reason)
		report->reason = run.insn == &fetching ? "the instruction could not be fetched"
						       : "an access to guest memory failed";
	return status;
}
