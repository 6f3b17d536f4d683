/* The I/O APIC: registers, edge and level delivery, Remote IRR. 82093AA data sheet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "dev/ioapic.h"

static struct ioapic io;
static u64 last;
static u32 sends, changes;
static bool taken;

bool ioapic_bus_send(struct ioapic *a, u64 entry)
{
	last = entry;
	sends++;
	return taken;
}

void ioapic_level_changed(struct ioapic *a)
{
	changes++;
}

static int setup(void **state)
{
	ioapic_reset(&io);
	sends = changes = 0;
	taken = true;
	return 0;
}

static void wr(u8 reg, u32 value)
{
	ioapic_write(&io, 0x00, reg);
	ioapic_write(&io, 0x10, value);
}

static u32 rd(u8 reg)
{
	ioapic_write(&io, 0x00, reg);
	return ioapic_read(&io, 0x10);
}

static void registers(void **state)
{
	assert_int_equal(rd(0), 0);
	assert_int_equal(rd(1), 0x00170020);
	wr(0, ~0u);
	assert_int_equal(rd(0), 0x0f000000);
	assert_int_equal(rd(2), 0x0f000000);
	wr(1, ~0u);
	assert_int_equal(rd(1), 0x00170020);
	for (u8 r = 0x10; r < 0x40; r++) {
		assert_int_equal(rd(r), r & 1 ? 0 : 0x10000);
		wr(r, ~0u);
		assert_int_equal(rd(r), r & 1 ? 0xff000000 : 0x1afff);
	}
	for (u32 r = 0x40; r < 0x100; r++) {
		wr((u8)r, ~0u);
		assert_int_equal(rd((u8)r), 0);
	}
	assert_int_equal(ioapic_read(&io, 0), 0xff);
	assert_int_equal(ioapic_read(&io, 0x20), 0);
	assert_int_equal(sends, 0);
}

static void edge(void **state)
{
	for (unsigned int pin = 0; pin < 24; pin++) {
		u8 r = (u8)(0x10 + 2 * pin);

		setup(NULL);
		ioapic_set_line(&io, pin, true); /* masked: lost */
		assert_int_equal(sends, 0);
		wr(r + 1, 0x05000000);
		wr(r, 0x40 + pin);
		assert_int_equal(sends, 0); /* an edge is not remembered */
		ioapic_set_line(&io, pin, true);
		assert_int_equal(sends, 0);
		ioapic_set_line(&io, pin, false);
		ioapic_set_line(&io, pin, true);
		assert_int_equal(sends, 1);
		assert_int_equal(last, 0x0500000000000040ull + pin);
		ioapic_eoi(&io, (u8)(0x40 + pin)); /* of no interest */
		assert_int_equal(sends, 1);
		assert_int_equal(rd(r), 0x40 + pin);
	}
}

static void level(void **state)
{
	wr(0x30, 0x8050); /* pin 16 */
	ioapic_set_line(&io, 16, true);
	assert_int_equal(sends, 1);
	assert_int_equal(rd(0x30), 0xc050);
	ioapic_set_line(&io, 16, false);
	ioapic_set_line(&io, 16, true); /* not again before the EOI */
	assert_int_equal(sends, 1);
	ioapic_eoi(&io, 0x51);
	assert_int_equal(sends, 1);
	ioapic_eoi(&io, 0x50); /* still asserted: again */
	assert_int_equal(sends, 2);
	assert_int_equal(rd(0x30), 0xc050);
	ioapic_set_line(&io, 16, false);
	ioapic_eoi(&io, 0x50);
	assert_int_equal(sends, 2);
	assert_int_equal(rd(0x30), 0x8050);
	/* By the EOI register of version 0x20. */
	ioapic_set_line(&io, 16, true);
	assert_int_equal(sends, 3);
	ioapic_write(&io, 0x40, 0x50);
	assert_int_equal(sends, 4);
	/* Masking while in service, EOI, unmasking: comes again then. */
	wr(0x30, 0x18050);
	ioapic_eoi(&io, 0x50);
	assert_int_equal(sends, 4);
	assert_int_equal(rd(0x30), 0x18050);
	wr(0x30, 0x8050);
	assert_int_equal(sends, 5);
	/* Remote IRR cannot be written, and goes away with edge mode. */
	wr(0x30, 0x18050);
	assert_int_equal(rd(0x30), 0x1c050);
	wr(0x30, 0x10050);
	assert_int_equal(rd(0x30), 0x10050);
}

static void not_taken(void **state)
{
	/* Nobody there: Remote IRR must not stick, or the line would be dead. */
	taken = false;
	wr(0x30, 0x8050);
	ioapic_set_line(&io, 16, true);
	assert_int_equal(rd(0x30), 0x8050);
	taken = true;
	ioapic_set_line(&io, 16, true);
	assert_int_equal(rd(0x30), 0xc050);
}

static void shared_vector(void **state)
{
	wr(0x30, 0x8050);
	wr(0x32, 0x8050);
	ioapic_set_line(&io, 16, true);
	ioapic_set_line(&io, 17, true);
	assert_int_equal(sends, 2);
	ioapic_set_line(&io, 16, false);
	ioapic_eoi(&io, 0x50);
	assert_int_equal(rd(0x30), 0x8050);
	assert_int_equal(rd(0x32), 0xc050);
	assert_int_equal(sends, 3);
}

static void only_fixed_is_level(void **state)
{
	/* Modes 2 to 7 with the level bit behave as edges: there is no EOI for them. */
	for (u32 mode = 2; mode < 8; mode++) {
		setup(NULL);
		wr(0x30, 0x8050 | mode << 8);
		ioapic_set_line(&io, 16, true);
		assert_int_equal(sends, 1);
		assert_int_equal(rd(0x30), 0x8050 | mode << 8);
		assert_int_equal(io.level_vectors[1], 0);
	}
}

static void level_vectors(void **state)
{
	wr(0x30, 0x80f1);
	assert_int_equal(io.level_vectors[3], BIT64(0x31));
	assert_int_equal(changes, 1);
	wr(0x31, 0xff000000);
	assert_int_equal(changes, 1);
	ioapic_set_line(&io, 16, true);
	wr(0x30, 0x180f1); /* masked, but its EOI is still to come */
	assert_int_equal(io.level_vectors[3], BIT64(0x31));
	ioapic_eoi(&io, 0xf1);
	assert_int_equal(io.level_vectors[3], 0);
	wr(0x30, 0x00f1);
	assert_int_equal(io.level_vectors[3], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(registers, setup),
		cmocka_unit_test_setup(edge, setup),
		cmocka_unit_test_setup(level, setup),
		cmocka_unit_test_setup(not_taken, setup),
		cmocka_unit_test_setup(shared_vector, setup),
		cmocka_unit_test_setup(only_fixed_is_level, setup),
		cmocka_unit_test_setup(level_vectors, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
