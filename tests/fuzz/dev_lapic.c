/* The local APIC under random accesses by every door, posted vectors and time steps. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "dev/lapic.h"
#include "lib/panic.h"
#include "x86/tsc.h"

u64 tsc_hz = 1000000000;

static u8 page[4096] __aligned(4096);
static u64 now, deadline;
static int rvi, svi; /* as the processor has them (SDM 3C 30.2), 0: none */

void lapic_bus_send(struct lapic *l, u32 icr, u32 dest)
{
	u32 mode = icr >> 8 & 7;

	ASSERT(mode != 3 && mode != 7 && (mode > 1 || (icr & 0xff) >= 16));
	ASSERT((icr >> 18 & 3) != LAPIC_SH_SELF);
}

void lapic_bus_eoi(struct lapic *l, u8 vector)
{
	ASSERT(!(l->svr & LAPIC_SVR_EOI_SUPPRESS));
}

void lapic_bus_nmi(struct lapic *l)
{
}

void lapic_changed(struct lapic *l)
{
}

void lapic_timer_changed(struct lapic *l, u64 at)
{
	deadline = at;
}

void lapic_mode_changed(struct lapic *l)
{
}

u64 lapic_clock(const struct lapic *l)
{
	return now;
}

u64 lapic_clock_at(const struct lapic *l, u64 guest)
{
	return guest;
}

static int scan(u32 base)
{
	for (int v = 255; v >= 0; v--)
		if (*(u32 *)(void *)(page + base + v / 32 * 16) >> (v % 32) & 1)
			return v;
	return -1;
}

static void check(struct lapic *l)
{
	int irr = scan(LAPIC_IRR), isr = scan(LAPIC_ISR), pending = lapic_pending(l);
	u32 tpr = page[LAPIC_TPR], ppr = (u32)MAX((int)tpr >> 4, isr >> 4);

	ASSERT(lapic_irr_highest(l) == irr && lapic_isr_highest(l) == isr);
	ASSERT(irr < 0 || irr >= 16);
	ASSERT(pending == (irr >= 0 && (u32)irr >> 4 > ppr ? irr : -1));
	ASSERT((l->base & 0xc00) != 0x400);
	/* Software-disabled: no local interrupt is open. */
	for (u32 r = LAPIC_LVT_TIMER; r <= LAPIC_LVT_ERROR; r += 16)
		if (!(l->svr & LAPIC_SVR_ENABLE))
			ASSERT(lapic_reg(l, r) & LAPIC_LVT_MASKED);
	ASSERT(lapic_reg(l, LAPIC_LVT_TIMER) == l->lvt_timer);
	ASSERT(lapic_reg(l, LAPIC_SVR) == l->svr);
	if (l->base & 0x400)
		ASSERT(lapic_reg(l, LAPIC_ID) == l->id);
	deadline = lapic_timer(l, now);
	ASSERT(deadline > now);
}

/* What entries write to the guest interrupt status: it must always fit IRR and ISR. */
static void check_status(struct lapic *l)
{
	int raised = lapic_take_raised(l);

	if (raised < 0) {
		rvi = MAX(lapic_irr_highest(l), 0);
		svi = MAX(lapic_isr_highest(l), 0);
	}
	rvi = MAX(rvi, raised);
	ASSERT(rvi == MAX(scan(LAPIC_IRR), 0) && svi == MAX(scan(LAPIC_ISR), 0));
}

static void flip(u32 base, int vector)
{
	*(u32 *)(void *)(page + base + vector / 32 * 16) ^= 1u << (vector % 32);
}

/* Virtual-interrupt delivery and EOI virtualization, in the page alone. */
static void processor(struct lapic *l, bool eoi)
{
	if (eoi && svi) {
		flip(LAPIC_ISR, svi);
		svi = MAX(scan(LAPIC_ISR), 0);
	} else if (!eoi && rvi >> 4 > MAX(page[LAPIC_TPR] >> 4, svi >> 4)) {
		flip(LAPIC_IRR, rvi);
		flip(LAPIC_ISR, rvi);
		svi = rvi;
		rvi = MAX(scan(LAPIC_IRR), 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lapic l;
	u64 value, out;

	if (!size)
		return 0;
	now = 1000;
	lapic_create(&l, page, NULL, data[0] & 31, data[0] & 32, data[0] & 64, data[0] & 128);
	lapic_virtual_wire(&l);
	check_status(&l);
	for (size_t i = 1; i + 5 < size; i += 6) {
		u32 offset = data[i + 1] << 4, v;
		int before;

		memcpy(&v, data + i + 2, 4);
		value = v;
		switch (data[i] & 15) {
		case 0:
			lapic_mmio_read(&l, offset + (data[i] >> 4), 1u << (v & 3), &out);
			break;
		case 1 ... 3:
			lapic_mmio_write(&l, offset, 4, value);
			break;
		case 4:
			lapic_msr_read(&l, 0x800 + data[i + 1], &out);
			break;
		case 5:
		case 6:
			lapic_msr_write(&l, 0x800 + data[i + 1], value);
			break;
		case 7:
			lapic_msr_write(&l, 0x1b, 0xfee00000 | (v & 0xc00) | (l.base & 0x100));
			break;
		case 8:
			lapic_msr_write(&l, 0x6e0, now + value);
			break;
		case 9: /* what APIC-register virtualization lets the guest write in the page */
			if ((l.base & 0xc00) == 0x800 &&
			    ((offset >= 0x320 && offset <= 0x380) || offset == LAPIC_SVR ||
			     offset == LAPIC_TPR || offset == LAPIC_ICR || offset == LAPIC_EOI ||
			     offset == LAPIC_TIMER_DIVIDE || offset == LAPIC_ESR)) {
				memcpy(page + offset, &v, 4);
				lapic_written(&l, offset);
				if (offset == LAPIC_TPR)
					ASSERT(lapic_reg(&l, LAPIC_TPR) <= 0xff);
			}
			break;
		case 10:
			lapic_set_irr(&l, data[i + 1], v & 1);
			break;
		case 11:
			lapic_merge(&l, data[i + 1] & 3,
				    (value << 16) & (data[i + 1] & 3 ? ~0ull : ~0xffffull));
			break;
		case 12:
			before = lapic_pending(&l);
			ASSERT(lapic_accept(&l) == before);
			/* What was accepted is in service and holds back its class. */
			if (before >= 0)
				ASSERT(scan(LAPIC_ISR) == before && lapic_pending(&l) == -1);
			break;
		case 13:
			lapic_lint0(&l, v & 1);
			/* The processor runs only after an entry. */
			check_status(&l);
			if (l.hardware)
				processor(&l, v & 2);
			break;
		case 14:
			now += value;
			break;
		default:
			if (deadline != LAPIC_NEVER && deadline < now + (1ull << 40))
				now = deadline;
			if (!(v & 0xff))
				lapic_init(&l);
			break;
		}
		check(&l);
		check_status(&l);
	}
	return 0;
}
