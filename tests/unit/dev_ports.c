/* The table of I/O ports: who answers where, and how wide; the exit port; CMOS; the IOAPIC page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "platform_fake.h"

static void every_port(void **state)
{
	u32 unknown = 0;

	for (u32 port = 0; port < 0x10000; port++) {
		u32 before = refusals, value;

		value = platform_port_in(&vcpus[1], (u16)port, 1);
		assert_true(value <= 0xff);
		if (refusals != before) {
			assert_int_equal(value, 0xff);
			assert_int_equal(refused_key, port);
			unknown++;
			platform_port_out(&vcpus[1], (u16)port, 1, 0);
			assert_int_equal(refusals, before + 2);
			assert_int_equal(vcpus[1].refusals, refusals);
			/* Only what reaches a known port is not refused as a whole. */
			if (port + 3 < 0x10000)
				assert_true(platform_port_in(&vcpus[1], (u16)port, 4) & 0xff);
			refusals = vcpus[1].refusals = before + 2;
		}
		check_unlocked();
	}
	assert_true(unknown > 0xf000 && unknown < 0x10000);
	assert_int_equal(ended + restarted, 0);
}

static void wide_accesses(void **state)
{
	/* A word to 0x3fa sets FCR and LCR; a double word reads four registers. */
	platform_port_out(&vcpus[0], 0x3fa, 2, 0x0301);
	assert_int_equal(in(0x3fb), 3);
	assert_int_equal(platform_port_in(&vcpus[0], 0x3fa, 4), 0x600003c1);
	assert_int_equal(platform_port_in(&vcpus[0], 0x60, 2) >> 8, in(0x61));
	/* Half in a device, half in nothing. */
	assert_int_equal(platform_port_in(&vcpus[0], 0x3f7, 2) & 0xff, 0xff);
	platform_port_out(&vcpus[0], 0xcf8, 4, 0x80001234);
	assert_int_equal(platform_port_in(&vcpus[0], 0xcf8, 4), 0x80001234);
	assert_int_equal(platform_port_in(&vcpus[0], 0xcfc, 4), 0xffffffff);
	assert_int_equal(platform_port_in(&vcpus[0], 0xcfc, 2), 0xffff);
	assert_int_equal(refusals, 0);
	assert_int_equal(platform_port_in(&vcpus[0], 0xc000, 4), 0xffffffff);
	assert_int_equal(platform_port_in(&vcpus[0], 0xc000, 2), 0xffff);
	assert_int_equal(refusals, 2);
	assert_int_equal(platform_port_in(&vcpus[0], 0xffff, 4), 0xffffffff);
}

static void exit_and_reset(void **state)
{
	static const struct {
		u16 port;
		unsigned int size;
		u32 value;
		u32 status;
	} exits[] = {
		{0xf4, 1, 0, 1}, {0xf4, 2, 0x10, 0x21}, {0xf4, 4, 0x7f, 0xff}, {0xf4, 4, 0x101, 3}};
	static const u16 resets[][2] = {{0x64, 0xfe}, {0x92, 0x01}, {0xcf9, 0x06}};

	for (size_t i = 0; i < ARRAY_SIZE(exits); i++) {
		platform_port_out(&vcpus[0], exits[i].port, exits[i].size, exits[i].value);
		assert_int_equal(ended, i + 1);
		assert_int_equal(exit_value, exits[i].status);
	}
	assert_int_equal(in(0xf4), 0);
	for (size_t i = 0; i < ARRAY_SIZE(resets); i++) {
		out(resets[i][0], (u8)resets[i][1]);
		assert_int_equal(restarted, i + 1);
	}
	out(0xcf9, 0x02);
	assert_int_equal(restarted, 3);
}

static void cmos_memory(void **state)
{
	u32 v;

	out(0x70, 0x34);
	v = in(0x71);
	out(0x70, 0x35);
	assert_int_equal(v | in(0x71) << 8, (64 - 16) * 16);
	out(0x70, 0x5f);
	assert_int_equal(in(0x71), CPUS - 1);
	assert_int_equal(in(0x70), 0xff); /* write-only */
}

static void ioapic_mmio(void **state)
{
	u64 v;

	assert_true(platform_mmio_write(&vcpus[0], PLATFORM_IOAPIC, 0, 4, 1));
	assert_true(platform_mmio_read(&vcpus[0], PLATFORM_IOAPIC, 0x10, 4, &v));
	assert_int_equal(v, 0x170020);
	assert_true(platform_mmio_read(&vcpus[0], PLATFORM_IOAPIC, 0x12, 1, &v));
	assert_int_equal(v, 0x17);
	assert_true(platform_mmio_read(&vcpus[0], PLATFORM_IOAPIC, 0x10, 8, &v));
	assert_int_equal(v, 0x170020);
	assert_false(platform_mmio_read(&vcpus[0], PLATFORM_IOAPIC, 0x12, 4, &v));
	assert_false(platform_mmio_read(&vcpus[0], PLATFORM_IOAPIC, 0x14, 4, &v));
	assert_false(platform_mmio_read(&vcpus[0], 7, 0, 4, &v));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(every_port), T(wide_accesses), T(exit_and_reset), T(cmos_memory), T(ioapic_mmio),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
