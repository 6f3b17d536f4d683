/*
 * The 8254 against a model that works clock by clock, written from the data sheet's mode
 * definitions; and port 0x61, latches, read-back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "dev/pit.h"

/* --- a counter that lives from clock to clock (binary or BCD, whole 16-bit counts) -------------
 */

struct model {
	int mode;
	bool bcd, gate, out, loaded, trigger, counting;
	u32 cr;	       /* count register, as a number */
	bool cr_fresh; /* written, not yet transferred */
	u32 ce;	       /* counting element */
	bool strobed;  /* modes 4, 5: the strobe has been given */
};

static u32 wrap(const struct model *m)
{
	return m->bcd ? 10000 : 65536;
}

static void model_mode(struct model *m, int mode, bool bcd)
{
	bool gate = m->gate;

	*m = (struct model){.mode = mode, .bcd = bcd, .gate = gate, .out = mode != 0};
}

static void model_write(struct model *m, u32 n)
{
	m->cr = n ? n : wrap(m);
	m->cr_fresh = true;
}

static void model_gate(struct model *m, bool gate)
{
	if (gate && !m->gate)
		m->trigger = true;
	if (!gate && (m->mode == 2 || m->mode == 3))
		m->out = true;
	m->gate = gate;
}

static void model_load(struct model *m)
{
	m->ce = m->mode == 3 ? m->cr & ~1u : m->cr;
	m->cr_fresh = false;
	m->loaded = true;
	m->strobed = false;
	m->trigger = false;
}

static void model_clock(struct model *m)
{
	u32 w = wrap(m);

	switch (m->mode) {
	case 0:
		if (m->cr_fresh) {
			model_load(m);
			m->out = false;
		} else if (m->loaded && m->gate) {
			m->ce = (m->ce + w - 1) % w;
			if (!m->ce)
				m->out = true;
		}
		break;
	case 1:
		if (m->trigger && (m->cr_fresh || m->loaded)) {
			model_load(m);
			m->out = false;
		} else if (m->loaded) {
			m->ce = (m->ce + w - 1) % w;
			if (!m->ce)
				m->out = true;
		}
		break;
	case 2:
		if ((!m->loaded && m->cr_fresh) || (m->loaded && m->trigger)) {
			model_load(m);
			m->out = true;
		} else if (m->loaded && m->gate) {
			m->ce--;
			m->out = m->ce != 1;
			if (!m->ce) {
				model_load(m);
				m->out = true;
			}
		}
		break;
	case 3:
		if ((!m->loaded && m->cr_fresh) || (m->loaded && m->trigger)) {
			model_load(m);
			m->out = true;
		} else if (m->loaded && m->gate) {
			/* An odd count stays one clock longer at 0 while the output is high. */
			bool odd_high = (m->cr & 1) && m->out;

			if (m->ce == 0 || (m->ce == 2 && !odd_high)) {
				m->out = !m->out;
				model_load(m);
			} else {
				m->ce -= 2;
			}
		}
		break;
	case 4:
		if (m->cr_fresh) {
			model_load(m);
			m->out = true;
		} else if (m->loaded && m->gate) {
			m->ce = (m->ce + w - 1) % w;
			m->out = m->strobed || m->ce;
			m->strobed |= !m->ce;
		}
		break;
	default:
		if (m->trigger && (m->cr_fresh || m->loaded)) {
			model_load(m);
			m->out = true;
		} else if (m->loaded) {
			m->ce = (m->ce + w - 1) % w;
			m->out = m->strobed || m->ce;
			m->strobed |= !m->ce;
		}
		break;
	}
}

/* --- comparing ------------------------------------------------------------------------------- */

static struct pit p;
static u64 now;

static int setup(void **state)
{
	pit_reset(&p);
	now = 1000;
	return 0;
}

static u32 bcd(u32 n)
{
	return n / 1000 % 10 << 12 | n / 100 % 10 << 8 | n / 10 % 10 << 4 | n % 10;
}

static void write_count(u32 n, bool in_bcd)
{
	u32 raw = in_bcd ? bcd(n) : n;

	pit_write(&p, 2, (u8)raw, now);
	pit_write(&p, 2, (u8)(raw >> 8), now);
}

static u32 read_count(void)
{
	u32 low;

	pit_write(&p, 3, 0x80, now);
	low = pit_read(&p, 2, now);
	return low | (u32)pit_read(&p, 2, now) << 8;
}

static void compare(const struct model *m, const char *what)
{
	u32 expected = m->bcd ? bcd(m->ce % 10000) : m->ce & 0xffff, got;

	if (m->loaded) {
		got = read_count();
		if (got != expected)
			fail_msg("%s: mode %d clock %d: count %#x, model %#x", what, m->mode,
				 (int)now, got, expected);
	}
	if (pit_out(&p, 2, now) != m->out)
		fail_msg("%s: mode %d clock %d: output %d, model %d (count %u of %u)", what,
			 m->mode, (int)now, !m->out, m->out, m->ce, m->cr);
}

static void step(struct model *m, const char *what)
{
	now++;
	model_clock(m);
	compare(m, what);
}

static void run(int mode, u32 n, bool in_bcd, u32 clocks)
{
	struct model m = {.gate = true};

	setup(NULL);
	pit_write_61(&p, 1, now);
	pit_write(&p, 3, (u8)(0xb0 | mode << 1 | in_bcd), now);
	model_mode(&m, mode, in_bcd);
	write_count(n, in_bcd);
	model_write(&m, n);
	compare(&m, "written");
	for (u32 i = 0; i < clocks; i++) {
		if (i == 3 && (mode == 1 || mode == 5)) {
			pit_write_61(&p, 0, now);
			model_gate(&m, false);
			pit_write_61(&p, 1, now);
			model_gate(&m, true);
		}
		step(&m, "free run");
	}
}

static void every_mode(void **state)
{
	static const u32 counts[] = {2, 3, 4, 5, 6, 7, 16, 99, 100, 255, 1000, 9999};

	for (int mode = 0; mode < 6; mode++) {
		for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
			run(mode, counts[i], false, 3 * counts[i] + 20);
			run(mode, counts[i], true, 3 * counts[i] + 20);
		}
		run(mode, 0, false, 140000);
		run(mode, 0, true, 25000);
	}
	run(0, 1, false, 10);
	run(4, 1, false, 10);
}

/* Gates, new counts and new modes at random moments. */
static void random_programming(void **state)
{
	u32 seed = 12345;

	for (int round = 0; round < 400; round++) {
		struct model m = {.gate = true};
		int mode = round % 6;

		setup(NULL);
		pit_write_61(&p, 1, now);
		pit_write(&p, 3, (u8)(0xb0 | mode << 1), now);
		model_mode(&m, mode, false);
		write_count(20, false);
		model_write(&m, 20);
		for (int i = 0; i < 400; i++) {
			u32 action, n;

			seed = seed * 1103515245 + 12345;
			action = seed >> 16 & 31;
			n = (seed >> 21) % 30 + 2;
			if (action < 3) {
				pit_write_61(&p, action & 1, now);
				model_gate(&m, action & 1);
			} else if (action == 3 && (m.loaded || mode == 1 || mode == 5)) {
				/* A second count before the first is taken over in modes 2 and 3
				 * depends on which clock edge sees it: one at a time. */
				if (mode != 2 && mode != 3) {
					write_count(n, false);
					model_write(&m, n);
				} else if (!m.cr_fresh && m.gate && m.loaded && !m.trigger) {
					write_count(n, false);
					m.cr_fresh = true;
					/* The model's odd rule needs the old count until the
					 * reload. */
					if (mode == 2 || !(m.cr & 1 || n & 1))
						m.cr = n;
					else
						write_count(m.cr, false), m.cr_fresh = false;
				}
			}
			step(&m, "random");
		}
	}
}

/* Over a long time every period ends on its exact clock: nothing accumulates. */
static void no_drift(void **state)
{
	const u64 n = 1193;
	u64 start, edges = 0;

	pit_write(&p, 3, 0x34, now);
	pit_write(&p, 0, (u8)n, now);
	pit_write(&p, 0, (u8)(n >> 8), now);
	start = now + 1;
	assert_int_equal(pit_deadline(&p), start + n);
	for (u64 k = 1; k < 200000; k++) {
		now = start + k * n;
		assert_false(pit_edge(&p, now - 1));
		assert_true(pit_edge(&p, now));
		assert_int_equal(pit_deadline(&p), now + n);
		edges++;
	}
	/* Late by many periods: one edge, and the next deadline is still on the grid. */
	assert_true(pit_edge(&p, start + (edges + 1000) * n + 5));
	assert_false(pit_edge(&p, start + (edges + 1000) * n + 5));
	assert_int_equal(pit_deadline(&p), start + (edges + 1001) * n);
}

static void edges_per_mode(void **state)
{
	/* Mode, count: clocks from the write to the first rising edge; then between edges (0:
	 * none). */
	static const u32 table[][4] = {
		{0, 100, 101, 0}, {2, 100, 101, 100}, {3, 100, 101, 100},   {3, 101, 102, 101},
		{4, 100, 102, 0}, {2, 2, 3, 2},	      {0, 65535, 65536, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		u32 first = 0, second = 0;

		setup(NULL);
		pit_write(&p, 3, (u8)(0x30 | table[i][0] << 1), now);
		pit_edge(&p, now); /* the mode itself may raise the output */
		pit_write(&p, 0, (u8)table[i][1], now);
		pit_write(&p, 0, (u8)(table[i][1] >> 8), now);
		for (u32 t = 0; t < 140000; t++) {
			if (pit_edge(&p, now + t)) {
				if (first) {
					second = t - first;
					break;
				}
				first = t;
			}
		}
		assert_int_equal(first, table[i][2]);
		assert_int_equal(second, table[i][3]);
	}
}

/* Channel 0's edges equal the rising edges of the clock-by-clock output when counts change. */
static void edges_after_new_counts(void **state)
{
	for (u32 at = 0; at < 64; at++) {
		for (int mode = 2; mode <= 3; mode++) {
			bool last, level;

			setup(NULL);
			pit_write(&p, 3, (u8)(0x30 | mode << 1), now);
			pit_write(&p, 0, 21, now);
			pit_write(&p, 0, 0, now);
			pit_edge(&p, now);
			last = pit_out(&p, 0, now);
			for (u32 t = 0; t < 200; t++) {
				bool edge;

				if (t == at) {
					pit_write(&p, 0, 9, now);
					pit_write(&p, 0, 0, now);
				}
				now++;
				level = pit_out(&p, 0, now);
				edge = pit_edge(&p, now);
				if (edge != (level && !last))
					fail_msg("mode %d, new count at %u: clock +%u edge %d, "
						 "output %d to %d",
						 mode, at, t, edge, last, level);
				last = level;
			}
		}
	}
}

static void access_modes(void **state)
{
	pit_write(&p, 3, 0x94, now); /* channel 2, low byte only, mode 2 */
	pit_write_61(&p, 1, now);
	pit_write(&p, 2, 50, now);
	now += 1;
	assert_int_equal(pit_read(&p, 2, now), 50);
	assert_int_equal(pit_read(&p, 2, now + 1), 49);
	pit_write(&p, 3, 0xa0, now); /* high byte only, mode 0 */
	pit_write(&p, 2, 2, now);
	assert_int_equal(pit_read(&p, 2, now + 1), 2);
	assert_int_equal(pit_read(&p, 2, now + 3), 1); /* 0x1fe */
	pit_write(&p, 3, 0xb0, now);		       /* both */
	pit_write(&p, 2, 0x34, now);
	assert_false(pit_out(&p, 2, now + 100000)); /* the first byte stops the count */
	pit_write(&p, 2, 0x12, now);
	assert_int_equal(pit_read(&p, 2, now + 1), 0x34);
	assert_int_equal(pit_read(&p, 2, now + 1), 0x12);
}

static void latches(void **state)
{
	pit_write_61(&p, 1, now);
	pit_write(&p, 3, 0xb0, now);
	pit_write(&p, 2, 0x00, now);
	pit_write(&p, 2, 0x10, now);
	now += 1;
	pit_write(&p, 3, 0x80, now);
	now += 0x123;
	pit_write(&p, 3, 0x80, now); /* a second latch is ignored */
	assert_int_equal(pit_read(&p, 2, now), 0x00);
	assert_int_equal(pit_read(&p, 2, now), 0x10);
	/* Read-back of count and status: status comes first. */
	pit_write(&p, 3, 0xc8, now);
	assert_int_equal(pit_read(&p, 2, now), 0x30);
	assert_int_equal(pit_read(&p, 2, now), 0xdd);
	assert_int_equal(pit_read(&p, 2, now), 0x0e);
	now += 0x1000;
	pit_write(&p, 3, 0xe8, now); /* status only: output high now */
	assert_int_equal(pit_read(&p, 2, now), 0xb0);
	/* Null count: written and not yet in the counting element. */
	pit_write(&p, 3, 0xb4, now);
	pit_write(&p, 3, 0xe8, now);
	assert_int_equal(pit_read(&p, 2, now), 0xf4);
	pit_write(&p, 2, 10, now);
	pit_write(&p, 2, 0, now);
	now += 2;
	pit_write(&p, 3, 0xe8, now);
	assert_int_equal(pit_read(&p, 2, now), 0xb4);
	pit_write(&p, 2, 20, now);
	pit_write(&p, 2, 0, now);
	pit_write(&p, 3, 0xe8, now);
	assert_int_equal(pit_read(&p, 2, now), 0xf4);
	now += 10;
	pit_write(&p, 3, 0xe8, now);
	assert_int_equal(pit_read(&p, 2, now) & 0x40, 0);
	assert_int_equal(pit_read(&p, 3, now), 0xff); /* the control word cannot be read */
}

static void port_61(void **state)
{
	u32 toggles = 0;
	u8 last;

	pit_write_61(&p, 0xff, now);
	assert_int_equal(pit_read_61(&p, now) & 0x0f, 0x0f);
	last = pit_read_61(&p, now) & 0x10;
	for (u64 t = 0; t < PIT_HZ / 10; t++) {
		u8 v = pit_read_61(&p, now + t) & 0x10;

		toggles += v != last;
		last = v;
	}
	assert_in_range(toggles, 6600, 6660); /* every 15.1 us */
	/* The calibration that kernels do: mode 0 on channel 2, wait for bit 5. */
	pit_write_61(&p, 0, now);
	pit_write(&p, 3, 0xb0, now);
	pit_write(&p, 2, 0x9b, now);
	pit_write(&p, 2, 0x2e, now);				   /* 10 ms */
	assert_int_equal(pit_read_61(&p, now + 100000) & 0x20, 0); /* the gate is closed */
	now += 100000;
	pit_write_61(&p, 1, now);
	assert_int_equal(pit_read_61(&p, now + 0x2e9a) & 0x20, 0);
	assert_int_equal(pit_read_61(&p, now + 0x2e9c) & 0x20, 0x20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(every_mode, setup),
		cmocka_unit_test_setup(random_programming, setup),
		cmocka_unit_test_setup(no_drift, setup),
		cmocka_unit_test_setup(edges_per_mode, setup),
		cmocka_unit_test_setup(edges_after_new_counts, setup),
		cmocka_unit_test_setup(access_modes, setup),
		cmocka_unit_test_setup(latches, setup),
		cmocka_unit_test_setup(port_61, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
