/* The local APIC: priorities, EOI, errors, ICR, modes. SDM 3A chapter 11. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "lapic_fake.h"

/* --- reset and registers -------------------------------------------------------------------------
 */

static void after_reset(void **state)
{
	/* 11.4.7.1 */
	assert_int_equal(rd(LAPIC_ID), 3u << 24);
	assert_int_equal(rd(LAPIC_VERSION), 0x01050014);
	assert_int_equal(rd(LAPIC_SVR), 0xff);
	assert_int_equal(rd(LAPIC_DFR), 0xffffffff);
	assert_int_equal(rd(LAPIC_LDR), 0);
	assert_int_equal(rd(LAPIC_TPR), 0);
	for (u32 r = LAPIC_LVT_TIMER; r <= LAPIC_LVT_ERROR; r += 16)
		assert_int_equal(rd(r), 0x10000);
	assert_int_equal(l.base, 0xfee00800);
	fresh(0);
	assert_int_equal(l.base, 0xfee00900);
}

static void writable_bits(void **state)
{
	static const struct {
		u32 offset, keeps;
	} table[] = {
		{LAPIC_ID, 3u << 24},
		{LAPIC_VERSION, 0x01050014},
		{LAPIC_TPR, 0xff},
		{LAPIC_LDR, 0xff000000},
		{LAPIC_DFR, 0xffffffff},
		{LAPIC_SVR, 0x11ff},
		{LAPIC_ICR_HIGH, 0xff000000},
		{LAPIC_LVT_TIMER, 0x700ff},
		{LAPIC_LVT_THERMAL, 0x107ff},
		{LAPIC_LVT_PERF, 0x107ff},
		{LAPIC_LVT_LINT0, 0x1a7ff},
		{LAPIC_LVT_LINT1, 0x1a7ff},
		{LAPIC_LVT_ERROR, 0x100ff},
		{LAPIC_TIMER_DIVIDE, 0xb},
		{LAPIC_ISR, 0},
		{LAPIC_TIMER_CURRENT, 0},
		{LAPIC_PPR, 0xff},
		{LAPIC_EOI, 0},
	};

	enable();
	wr(LAPIC_TPR, 0xff);
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		wr(table[i].offset, ~0u);
		assert_int_equal(rd(table[i].offset), table[i].keeps);
	}
	wr(LAPIC_DFR, 0);
	assert_int_equal(rd(LAPIC_DFR), 0x0fffffff);
}

static void access_sizes(void **state)
{
	u64 v;

	assert_true(lapic_mmio_read(&l, 0x31, 1, &v));
	assert_int_equal(v, 0);
	assert_true(lapic_mmio_read(&l, 0x32, 2, &v));
	assert_int_equal(v, 0x105);
	assert_true(lapic_mmio_read(&l, 0x30, 8, &v));
	assert_int_equal(v, 0x01050014);
	assert_false(lapic_mmio_read(&l, 0x32, 4, &v));
	assert_false(lapic_mmio_read(&l, 0x34, 4, &v));
	assert_false(lapic_mmio_write(&l, LAPIC_TPR, 1, 0x20));
	assert_false(lapic_mmio_write(&l, LAPIC_TPR, 8, 0x20));
	assert_false(lapic_mmio_write(&l, LAPIC_TPR + 4, 4, 0x20));
	assert_int_equal(rd(LAPIC_TPR), 0);
}

/* --- priorities ----------------------------------------------------------------------------------
 */

/* Every TPR class against every vector class and every class in service (11.8.3). */
static void priorities(void **state)
{
	for (u32 tpr = 0; tpr < 0x100; tpr += 0x11) {
		for (u32 service = 0; service < 16; service++) {
			for (u32 vector = 16; vector < 256; vector += 15) {
				u32 ppr = MAX(tpr >> 4, service);

				fresh(3);
				enable();
				if (service) {
					lapic_set_irr(&l, (u8)(service << 4 | 2), false);
					assert_int_equal(lapic_accept(&l), service << 4 | 2);
				}
				wr(LAPIC_TPR, tpr);
				assert_int_equal(rd(LAPIC_PPR),
						 tpr >> 4 >= service ? tpr : service << 4);
				lapic_set_irr(&l, (u8)vector, false);
				assert_int_equal(lapic_pending(&l),
						 vector >> 4 > ppr ? (int)vector : -1);
				assert_int_equal(lapic_accept(&l),
						 vector >> 4 > ppr ? (int)vector : -1);
			}
		}
	}
}

/* All vectors at once come out highest first when each is ended; nested otherwise by class. */
static void order_of_delivery(void **state)
{
	enable();
	for (u32 v = 16; v < 256; v++)
		lapic_set_irr(&l, (u8)v, false);
	for (int v = 255; v >= 16; v--) {
		assert_int_equal(lapic_irr_highest(&l), v);
		assert_int_equal(lapic_accept(&l), v);
		assert_int_equal(lapic_isr_highest(&l), v);
		assert_int_equal(lapic_accept(&l), -1); /* nothing of its class or below */
		wr(LAPIC_EOI, 0);
	}
	assert_int_equal(lapic_irr_highest(&l), -1);
	assert_int_equal(lapic_isr_highest(&l), -1);
	wr(LAPIC_EOI, 0); /* nothing in service: nothing happens */
	lapic_merge(&l, 3, BIT64(63) | BIT64(0));
	lapic_merge(&l, 0, BIT64(20));
	assert_int_equal(lapic_accept(&l), 255);
	wr(LAPIC_EOI, 0);
	assert_int_equal(lapic_accept(&l), 192);
	wr(LAPIC_EOI, 0);
	assert_int_equal(lapic_accept(&l), 20);
}

/* What virtual-interrupt delivery has to be told: additions by their highest vector, else all. */
static void raised_vectors(void **state)
{
	enable();
	assert_int_equal(lapic_take_raised(&l), -1); /* after the reset */
	assert_int_equal(lapic_take_raised(&l), 0);
	lapic_set_irr(&l, 0x61, false);
	lapic_set_irr(&l, 0x40, false);
	assert_int_equal(lapic_take_raised(&l), 0x61);
	assert_int_equal(lapic_take_raised(&l), 0);
	lapic_set_irr(&l, 0x40, false); /* a second time: it may have been delivered since */
	assert_int_equal(lapic_take_raised(&l), 0x40);
	lapic_merge(&l, 1, BIT64(0) | BIT64(63));
	lapic_merge(&l, 0, BIT64(20));
	lapic_merge(&l, 3, 0);
	assert_int_equal(lapic_take_raised(&l), 0x7f);
	lapic_merge(&l, 3, BIT64(63));
	assert_int_equal(lapic_take_raised(&l), 0xff);
	assert_int_equal(lapic_accept(&l), 0xff);
	assert_int_equal(lapic_take_raised(&l), -1);
	wr(LAPIC_EOI, 0);
	assert_int_equal(lapic_take_raised(&l), -1);
	wr(LAPIC_EOI, 0); /* nothing in service */
	assert_int_equal(lapic_take_raised(&l), 0);
	lapic_init(&l);
	assert_int_equal(lapic_take_raised(&l), -1);
}

/* Only an EOI that something has waited for makes the interrupts be looked at. */
static void eoi_without_successor(void **state)
{
	enable();
	lapic_set_irr(&l, 0x40, false);
	lapic_set_irr(&l, 0x60, false);
	assert_int_equal(lapic_accept(&l), 0x60);
	changes = 0;
	wr(LAPIC_EOI, 0);
	assert_int_equal(changes, 1);
	assert_int_equal(lapic_accept(&l), 0x40);
	assert_int_equal(lapic_reg(&l, LAPIC_PPR), 0x40);
	wr(LAPIC_EOI, 0);
	/* The processor may have put something into IRR. */
	assert_int_equal(changes, hardware ? 2 : 1);
	if (!hardware) /* guests read the page without an exit */
		assert_int_equal(lapic_reg(&l, LAPIC_PPR), 0);
}

static void eoi_broadcast(void **state)
{
	enable();
	lapic_set_irr(&l, 0x40, false);
	lapic_accept(&l);
	wr(LAPIC_EOI, 0);
	assert_int_equal(eois, 0);
	lapic_set_irr(&l, 0x40, true);
	lapic_accept(&l);
	assert_int_equal(rd(LAPIC_TMR + 0x20), 1);
	wr(LAPIC_EOI, 0);
	assert_int_equal(eois, 1);
	assert_int_equal(eoi_vector, 0x40);
	/* An edge takes the level bit away again. */
	lapic_set_trigger(&l, 0x40, false);
	assert_int_equal(rd(LAPIC_TMR + 0x20), 0);
	/* Suppressed by SVR bit 12; and the processor's own EOI reports in the same way. */
	lapic_set_trigger(&l, 0x40, true);
	lapic_eoi_done(&l, 0x40);
	assert_int_equal(eois, 2);
	wr(LAPIC_SVR, 0x11ff);
	lapic_eoi_done(&l, 0x40);
	assert_int_equal(eois, 2);
}

static void software_disable(void **state)
{
	enable();
	wr(LAPIC_LVT_TIMER, 0x31);
	wr(LAPIC_LVT_ERROR, 0x32);
	lapic_set_irr(&l, 0x50, false);
	assert_true(lapic_takes_fixed(&l));
	wr(LAPIC_SVR, 0xff);
	assert_false(lapic_takes_fixed(&l));
	assert_true(lapic_enabled(&l));
	assert_int_equal(rd(LAPIC_LVT_TIMER), 0x10031);
	assert_int_equal(rd(LAPIC_LVT_ERROR), 0x10032);
	wr(LAPIC_LVT_TIMER, 0x31); /* cannot be unmasked while disabled */
	assert_int_equal(rd(LAPIC_LVT_TIMER), 0x10031);
	assert_int_equal(lapic_pending(&l), 0x50); /* what is in IRR stays */
	wr(LAPIC_ICR, 0x40041);			   /* self-IPI: not accepted */
	assert_int_equal(lapic_irr_highest(&l), 0x50);
	enable();
	assert_int_equal(rd(LAPIC_LVT_TIMER), 0x10031);
}

/* --- errors (11.5.3) -----------------------------------------------------------------------------
 */

static void errors(void **state)
{
	u64 v;

	enable();
	wr(LAPIC_ICR, 0x4000f); /* fixed, self, vector 15 */
	assert_int_equal(rd(LAPIC_ESR), 0);
	assert_int_equal(esr(), LAPIC_ESR_SEND_VECTOR);
	assert_int_equal(esr(), 0); /* a write arms the next round */
	assert_int_equal(sends, 0);
	lapic_set_irr(&l, 15, false);
	assert_int_equal(esr(), LAPIC_ESR_RECV_VECTOR);
	assert_int_equal(lapic_irr_highest(&l), -1);
	for (u32 offset = 0; offset < 0x1000; offset += 0x10) {
		bool reserved = offset < 0x20 || (offset >= 0x40 && offset < 0x80) ||
				(offset >= 0x290 && offset < 0x300) ||
				(offset >= 0x3a0 && offset < 0x3e0) || offset >= 0x3f0;

		lapic_mmio_read(&l, offset, 4, &v);
		assert_int_equal(esr(), reserved ? LAPIC_ESR_ILLEGAL_REG : 0);
		if (!reserved)
			continue;
		assert_int_equal(v, 0);
		lapic_mmio_write(&l, offset, 4, 0);
		assert_int_equal(esr(), LAPIC_ESR_ILLEGAL_REG);
	}
	/* With the error entry open, an interrupt; with an illegal vector there, one more error. */
	wr(LAPIC_LVT_ERROR, 0xe1);
	wr(LAPIC_ICR, 0x40001);
	assert_int_equal(lapic_pending(&l), 0xe1);
	wr(LAPIC_LVT_ERROR, 0x05);
	esr();
	wr(LAPIC_ICR, 0x40001);
	assert_int_equal(esr(), LAPIC_ESR_SEND_VECTOR | LAPIC_ESR_RECV_VECTOR);
}

/* --- ICR (11.6.1, table 11-3) --------------------------------------------------------------------
 */

static void icr_combinations(void **state)
{
	for (u32 mode = 0; mode < 8; mode++) {
		for (u32 shorthand = 0; shorthand < 4; shorthand++) {
			for (u32 level = 0; level < 4; level++) { /* bits 15:14 trigger, level */
				u32 icr = shorthand << 18 | level << 14 | mode << 8 | 0x45;
				bool to_bus = shorthand != LAPIC_SH_SELF, valid = true;

				if (mode == 3 || mode == 7 || (mode == LAPIC_DM_INIT && level == 2))
					valid = false;
				if (mode &&
				    (shorthand == LAPIC_SH_SELF || shorthand == LAPIC_SH_ALL))
					valid = false;
				fresh(3);
				enable();
				wr(LAPIC_ICR_HIGH, 0x12000000);
				wr(LAPIC_ICR, icr);
				assert_int_equal(rd(LAPIC_ICR), icr);
				assert_int_equal(sends, valid && to_bus);
				if (sends) {
					assert_int_equal(sent_icr, icr);
					assert_int_equal(sent_dest, 0x12);
				}
				assert_int_equal(lapic_irr_highest(&l),
						 valid && !to_bus ? 0x45 : -1);
			}
		}
	}
	wr(LAPIC_ICR_HIGH, 0xff000000);
	wr(LAPIC_ICR, 0x45);
	assert_int_equal(sent_dest, ~0u); /* the 8-bit broadcast */
}

static void x2apic_icr(void **state)
{
	enable();
	x2apic();
	assert_true(wrmsr_ok(0x830, 0xff00004045));
	assert_int_equal(sent_dest, 0xff); /* not a broadcast */
	assert_int_equal(rdmsr_ok(0x830), 0xff00004045);
	assert_true(wrmsr_ok(0x830, 0xffffffff00000045));
	assert_int_equal(sent_dest, ~0u);
	for (u32 bit = 0; bit < 32; bit++)
		assert_int_equal(wrmsr_ok(0x830, 0x45 | BIT(bit)), 0xccfff >> bit & 1);
	assert_true(wrmsr_ok(0x83f, 0x46));
	assert_int_equal(lapic_irr_highest(&l), 0x46);
	assert_false(wrmsr_ok(0x83f, 0x146));
}

/* --- x2APIC MSRs (table 11-6) --------------------------------------------------------------------
 */

static void x2apic_registers(void **state)
{
	/* Each of 0x800-0x8ff: 'r' and 'w' as the table says. */
	static const struct {
		u32 first, last;
		const char *access;
		u64 writable;
	} table[] = {
		{0x802, 0x803, "r", 0},		  {0x808, 0x808, "rw", 0xff},
		{0x80a, 0x80a, "r", 0},		  {0x80b, 0x80b, "w", 0},
		{0x80d, 0x80d, "r", 0},		  {0x80f, 0x80f, "rw", 0x11ff},
		{0x810, 0x827, "r", 0},		  {0x828, 0x828, "rw", 0},
		{0x832, 0x832, "rw", 0x710ff},	  {0x833, 0x834, "rw", 0x117ff},
		{0x835, 0x836, "rw", 0x1f7ff},	  {0x837, 0x837, "rw", 0x110ff},
		{0x838, 0x838, "rw", 0xffffffff}, {0x839, 0x839, "r", 0},
		{0x83e, 0x83e, "rw", 0xb},	  {0x83f, 0x83f, "w", 0xff},
	};
	u64 v;

	for (u32 msr = 0x800; msr <= 0x8ff; msr++) {
		assert_false(lapic_msr_read(&l, msr, &v)); /* not in xAPIC mode */
		assert_false(lapic_msr_write(&l, msr, 0));
	}
	x2apic();
	for (u32 msr = 0x800; msr <= 0x8ff; msr++) {
		const char *access = "";
		u64 writable = 0;

		if (msr == 0x830) /* its own test */
			continue;
		for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
			if (msr >= table[i].first && msr <= table[i].last) {
				access = table[i].access;
				writable = table[i].writable;
			}
		}
		assert_int_equal(lapic_msr_read(&l, msr, &v), !!strchr(access, 'r'));
		if (!strchr(access, 'w')) {
			assert_false(lapic_msr_write(&l, msr, 0));
			continue;
		}
		assert_true(lapic_msr_write(&l, msr, 0));
		for (u32 bit = 0; bit < 64; bit++)
			assert_int_equal(lapic_msr_write(&l, msr, BIT64(bit)), writable >> bit & 1);
	}
	assert_false(lapic_mmio_read(&l, LAPIC_ID, 4, &v)); /* the page is not there any more */
	assert_false(lapic_mmio_write(&l, LAPIC_TPR, 4, 0));
}

static void x2apic_ids(void **state)
{
	static const u32 ids[] = {0, 1, 15, 16, 37, 255, 1000};

	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		fresh(ids[i]);
		x2apic();
		assert_int_equal(rdmsr_ok(0x802), ids[i]);
		assert_int_equal(rdmsr_ok(0x80d), (ids[i] >> 4) << 16 | 1u << (ids[i] & 15));
	}
}

static void base_transitions(void **state)
{
	/* From (row) to (column): off, xAPIC, x2APIC, invalid. Figure 11-27. */
	static const u64 bits[4] = {0, 0x800, 0xc00, 0x400};
	static const bool allowed[3][4] = {
		{true, true, false, false},
		{true, true, true, false},
		{true, false, true, false},
	};

	for (u32 from = 0; from < 3; from++) {
		for (u32 to = 0; to < 4; to++) {
			u64 before;

			fresh(3);
			if (from == 0)
				assert_true(wrmsr_ok(0x1b, 0xfee00000));
			if (from == 2)
				x2apic();
			before = l.base;
			assert_int_equal(wrmsr_ok(0x1b, 0xfee00000 | bits[to]), allowed[from][to]);
			assert_int_equal(l.base,
					 allowed[from][to] ? 0xfee00000 | bits[to] : before);
		}
	}
	fresh(3);
	for (u32 bit = 0; bit < 64; bit++)
		if (bit != 10 && bit != 11)
			assert_false(wrmsr_ok(0x1b, l.base ^ BIT64(bit)));
	lapic_create(&l, page, NULL, 3, false, false, hardware);
	assert_false(wrmsr_ok(0x1b, l.base | 0x400)); /* x2APIC not offered */
}

static void disabling_resets(void **state)
{
	u64 v;

	enable();
	wr(LAPIC_TPR, 0x55);
	lapic_set_irr(&l, 0x60, false);
	assert_int_equal(modes, 1); /* the software enable counts */
	assert_true(wrmsr_ok(0x1b, 0xfee00000));
	assert_int_equal(modes, 2);
	assert_false(lapic_enabled(&l));
	assert_false(lapic_mmio_read(&l, LAPIC_TPR, 4, &v));
	assert_true(wrmsr_ok(0x1b, 0xfee00800));
	assert_int_equal(rd(LAPIC_TPR), 0);
	assert_int_equal(rd(LAPIC_SVR), 0xff);
	assert_int_equal(lapic_irr_highest(&l), -1);
	/* INIT keeps mode and ID. */
	x2apic();
	assert_true(wrmsr_ok(0x808, 0x30));
	lapic_init(&l);
	assert_int_equal(rdmsr_ok(0x808), 0);
	assert_int_equal(rdmsr_ok(0x802), 3);
	assert_int_equal(rdmsr_ok(0x80d), 8);
}

static void mode_change_keeps_state(void **state)
{
	enable();
	wr(LAPIC_TPR, 0x20);
	lapic_set_irr(&l, 0x77, false);
	wr(LAPIC_LVT_ERROR, 0xfe);
	x2apic();
	assert_int_equal(rdmsr_ok(0x808), 0x20);
	assert_int_equal(rdmsr_ok(0x837), 0xfe);
	assert_int_equal(rdmsr_ok(0x80f), 0x1ff);
	assert_int_equal(lapic_pending(&l), 0x77);
}

/* --- destinations (11.6.2, 11.12.10)
 * -------------------------------------------------------------- */

static void destinations(void **state)
{
	static const struct {
		bool x2, logical;
		u32 id, ldr, dfr, dest;
		bool match;
	} table[] = {
		{false, false, 3, 0, 0, 3, true},
		{false, false, 3, 0, 0, 4, false},
		{false, false, 3, 0, 0, 0x103, false},
		{false, false, 3, 0, 0, ~0u, true},
		{true, false, 3, 0, 0, 3, true},
		{true, false, 300, 0, 0, 300, true},
		{true, false, 300, 0, 0, 44, false},
		{true, false, 255, 0, 0, 255, true},
		{true, false, 3, 0, 0, ~0u, true},
		/* flat */
		{false, true, 3, 0x08, ~0u, 0x08, true},
		{false, true, 3, 0x08, ~0u, 0xf7, false},
		{false, true, 3, 0x0c, ~0u, 0x05, true},
		{false, true, 3, 0x00, ~0u, 0xfe, false},
		{false, true, 3, 0x00, ~0u, ~0u, true},
		/* cluster */
		{false, true, 3, 0x24, 0, 0x24, true},
		{false, true, 3, 0x24, 0, 0x2f, true},
		{false, true, 3, 0x24, 0, 0x2b, false},
		{false, true, 3, 0x24, 0, 0x34, false},
		{false, true, 3, 0x24, 0, 0xf4, true},
		{false, true, 3, 0x24, 0, 0xfb, false},
		{false, true, 3, 0x24, 0, 0x20, false},
		/* a model that does not exist */
		{false, true, 3, 0x24, 0x50000000, 0x24, false},
		/* x2APIC cluster */
		{true, true, 3, 0, 0, 0x00008, true},
		{true, true, 3, 0, 0, 0x0000f, true},
		{true, true, 3, 0, 0, 0x00007, false},
		{true, true, 3, 0, 0, 0x10008, false},
		{true, true, 37, 0, 0, 0x20020, true},
		{true, true, 37, 0, 0, 0x30020, false},
		{true, true, 37, 0, 0, ~0u, true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		fresh(table[i].id);
		if (table[i].x2) {
			x2apic();
		} else {
			wr(LAPIC_LDR, table[i].ldr << 24);
			wr(LAPIC_DFR, table[i].dfr);
		}
		if (lapic_is_destination(&l, table[i].dest, table[i].logical) != table[i].match)
			fail_msg("row %zu", i);
		assert_true(wrmsr_ok(0x1b, l.base & 0xfffff3ff));
		assert_false(lapic_is_destination(&l, table[i].dest, table[i].logical));
	}
}

/* --- LINT0
 * ------------------------------------------------------------------------------------------ */

static void lint0(void **state)
{
	assert_false(lapic_lint0(&l, true)); /* masked */
	lapic_lint0(&l, false);
	lapic_virtual_wire(&l);
	assert_int_equal(rd(LAPIC_LVT_LINT0), 0x700);
	assert_int_equal(rd(LAPIC_LVT_LINT1), 0x400);
	assert_true(lapic_lint0(&l, true));
	assert_true(lapic_lint0(&l, true));
	assert_false(lapic_lint0(&l, false));
	wr(LAPIC_LVT_LINT0, 0x44); /* fixed: the edge */
	assert_false(lapic_lint0(&l, true));
	assert_int_equal(lapic_accept(&l), 0x44);
	wr(LAPIC_EOI, 0);
	assert_false(lapic_lint0(&l, true));
	assert_int_equal(lapic_accept(&l), -1);
	lapic_lint0(&l, false);
	wr(LAPIC_LVT_LINT0, 0x400);
	lapic_lint0(&l, true);
	lapic_lint0(&l, true);
	assert_int_equal(nmis, 1);
	wr(LAPIC_LVT_LINT0, 0x10700);
	assert_false(lapic_lint0(&l, true));
	assert_true(wrmsr_ok(0x1b, 0xfee00000));
	assert_true(lapic_lint0(&l, true)); /* without an APIC the pin is INTR */
}

/* What APIC-register virtualization does: the raw value is in the page before we hear of it. */
static void written_behind_our_back(void **state)
{
	enable();
	wr(LAPIC_LVT_TIMER, 0x35);
	wr(LAPIC_TIMER_DIVIDE, 0xb);
	wr(LAPIC_TIMER_INITIAL, 1000);
	*(u32 *)(void *)(page + LAPIC_LVT_TIMER) = 0xfff40036;
	lapic_written(&l, LAPIC_LVT_TIMER);
	assert_int_equal(rd(LAPIC_LVT_TIMER), 0x40036);
	assert_int_equal(deadline_seen, LAPIC_NEVER); /* the mode change was noticed */
	*(u32 *)(void *)(page + LAPIC_ID) = 0;
	lapic_written(&l, LAPIC_ID);
	assert_int_equal(rd(LAPIC_ID), 3u << 24);
	*(u32 *)(void *)(page + LAPIC_SVR) = 0xffffeeff;
	lapic_written(&l, LAPIC_SVR);
	assert_int_equal(rd(LAPIC_SVR), 0x0ff);
	assert_int_equal(rd(LAPIC_LVT_TIMER), 0x50036);
	*(u32 *)(void *)(page + LAPIC_SVR) = 0x1ff;
	lapic_written(&l, LAPIC_SVR);
	lapic_set_irr(&l, 0x40, false);
	lapic_accept(&l);
	*(u32 *)(void *)(page + LAPIC_EOI) = 77;
	lapic_written(&l, LAPIC_EOI);
	assert_int_equal(lapic_isr_highest(&l), -1);
	*(u32 *)(void *)(page + LAPIC_ICR_HIGH) = 0x05ffffff;
	lapic_written(&l, LAPIC_ICR_HIGH);
	*(u32 *)(void *)(page + LAPIC_ICR) = 0x41;
	lapic_written(&l, LAPIC_ICR);
	assert_int_equal(sent_dest, 5);
	lapic_written(&l, 0xff0); /* not a register: nothing */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(after_reset, setup),
		cmocka_unit_test_setup(writable_bits, setup),
		cmocka_unit_test_setup(access_sizes, setup),
		cmocka_unit_test_setup(priorities, setup),
		cmocka_unit_test_setup(order_of_delivery, setup),
		cmocka_unit_test_setup(raised_vectors, setup),
		cmocka_unit_test_setup(eoi_without_successor, setup),
		cmocka_unit_test_setup(eoi_broadcast, setup),
		cmocka_unit_test_setup(software_disable, setup),
		cmocka_unit_test_setup(errors, setup),
		cmocka_unit_test_setup(icr_combinations, setup),
		cmocka_unit_test_setup(x2apic_icr, setup),
		cmocka_unit_test_setup(x2apic_registers, setup),
		cmocka_unit_test_setup(x2apic_ids, setup),
		cmocka_unit_test_setup(base_transitions, setup),
		cmocka_unit_test_setup(disabling_resets, setup),
		cmocka_unit_test_setup(mode_change_keeps_state, setup),
		cmocka_unit_test_setup(destinations, setup),
		cmocka_unit_test_setup(lint0, setup),
		cmocka_unit_test_setup(written_behind_our_back, setup),
	};
	int failed = cmocka_run_group_tests_name("software delivery", tests, NULL, NULL);

	hardware = true;
	return failed + cmocka_run_group_tests_name("hardware delivery", tests, NULL, NULL);
}
