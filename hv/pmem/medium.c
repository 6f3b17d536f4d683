/* Real ranges and lent RAM; the order of flushing. See medium.h; the model is in model.c. */
#include "pmem/medium.h"

#include "lib/string.h"
#include "pmem/model.h"
#include "pmem/nfit.h"

void medium_init_ram(struct medium *m, hpa_t base, u64 bytes)
{
	memset(m, 0, sizeof(*m));
	m->kind = MEDIUM_RAM;
	m->base = base;
	m->bytes = bytes;
}

/* The host has one hint in all, so that no other NVDIMM's can be in its page. */
static hpa_t direct_page(const struct nfit *nfit, const struct medium *m)
{
	for (u32 i = 0; i < nfit->hints; i++)
		if (!m->hints || nfit->hint[i] != m->hint[0])
			return hpa(0);
	return m->hints ? hpa(m->hint[0] & PAGE_MASK) : hpa(0);
}

static bool has_hint(const struct medium *m, u64 hint)
{
	for (u32 i = 0; i < m->hints; i++)
		if (m->hint[i] == hint)
			return true;
	return false;
}

/* NVDIMMs behind one controller may name the same hint, which is stored to once for all of them. */
static int add_controller(struct medium *m, const u64 *hint, u32 count)
{
	u32 first = m->hints;

	for (u32 i = 0; i < count; i++) {
		if (has_hint(m, hint[i]))
			continue;
		if (m->hints == MEDIUM_HINTS)
			return ERR_RANGE;
		m->hint[m->hints++] = hint[i];
	}
	if (m->hints == first)
		return 0;
	if (m->controllers == MEDIUM_CONTROLLERS)
		return ERR_RANGE;
	m->first_hint[m->controllers++] = first;
	m->first_hint[m->controllers] = m->hints;
	return 0;
}

int medium_init_real(struct medium *m, const struct nfit *nfit, const struct nfit_range *range,
		     bool direct_allowed)
{
	u16 dimm[NFIT_MAX_DIMMS];
	bool all;
	u32 n = nfit_range_dimms(nfit, range, dimm, &all);

	memset(m, 0, sizeof(*m));
	for (u32 i = 0; i < n; i++) {
		const struct nfit_dimm *d = &nfit->dimm[dimm[i]];

		if (add_controller(m, &nfit->hint[d->first], d->count))
			return ERR_RANGE;
	}
	m->kind = MEDIUM_REAL;
	m->caps = nfit->caps;
	m->base = hpa(range->base);
	m->bytes = range->bytes;
	if (direct_allowed)
		m->direct = direct_page(nfit, m);
	return 0;
}

void medium_written(struct medium *m, u64 offset, u64 bytes)
{
	if (m->kind == MEDIUM_MODEL)
		model_written(m, offset, bytes);
}

static void store_hints(struct medium *m, u32 controller)
{
	for (u32 i = m->first_hint[controller]; i < m->first_hint[controller + 1]; i++)
		*(volatile u64 *)phys_to_ptr(hpa(m->hint[i])) = 1;
}

static void fence(void)
{
	asm volatile("sfence" ::: "memory");
}

void medium_flush(struct medium *m)
{
	u32 told = 0; /* of the model, which looks at a page but once for all of them */

	if (!m->controllers)
		return;
	/* 5.2.25.8: earlier stores first have to be accepted by the memory subsystem; and the guest
	 * may take it as done only when the hints have been stored. */
	fence();
	for (u32 c = 0; c < m->controllers; c++) {
		if (m->kind != MEDIUM_MODEL)
			store_hints(m, c);
		told |= BIT(c);
		__atomic_add_fetch(&m->flushes[c], 1, __ATOMIC_RELAXED);
	}
	if (m->kind == MEDIUM_MODEL && !marks_empty(&m->written))
		model_flush(m, told);
	fence();
}

void medium_drain(struct medium *m)
{
	if (m->kind == MEDIUM_MODEL)
		model_drain(m);
}

void medium_cut(struct medium *m)
{
	if (m->kind == MEDIUM_MODEL)
		model_cut(m);
}

int medium_image(struct medium *m, struct medium *to)
{
	if (m == to || m->kind != MEDIUM_MODEL || to->kind != MEDIUM_MODEL || m->bytes != to->bytes)
		return ERR_INVAL;
	model_image(m, to);
	return 0;
}

void medium_set_direct(struct medium *m, bool on)
{
	if (m->kind != MEDIUM_MODEL)
		return;
	if (m->unseen)
		model_flush(m, ~0u);
	m->unseen = on;
}

void medium_seed(struct medium *m, u64 seed)
{
	if (m->kind == MEDIUM_MODEL)
		model_seed(m, seed);
}

u64 medium_pending(struct medium *m)
{
	return m->kind == MEDIUM_MODEL ? model_pending(m) : 0;
}
