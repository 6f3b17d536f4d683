/* The virtio console: what the guest writes, what is typed, and buffers that are not there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "virtio_driver.h"

static void type(const char *text)
{
	for (; *text; text++)
		console_in[console_in_count++ % sizeof(console_in)] = (u8)*text;
	__atomic_store_n(&v->input_due, 1, __ATOMIC_RELAXED);
	host_vcpu.requests |= REQ_DEVICE;
	work();
}

static void say(const char *text)
{
	u32 head, n = (u32)strlen(text);

	memcpy(host_ram + DATA, text, n);
	desc(1, 4, DATA, n / 2, NEXT, 5);
	desc(1, 5, DATA + n / 2, n - n / 2, 0, 0);
	add(1, 4);
	mmio_write(CON, REG_NOTIFY, 1);
	work();
	assert_int_equal(used(1, &head), 0);
	assert_int_equal(head, 4);
}

static void test_output(void **state)
{
	start(CON, 0);
	assert_false(virtio_takes_input(v));
	say("hello, world\n");
	assert_true(virtio_takes_input(v));
	assert_int_equal(console_out_count, 13);
	assert_memory_equal(console_out, "hello, world\n", 13);
	assert_int_equal(lines, BIT(20));
	mmio_write(CON, REG_CONFIG + 8, 'x');
	assert_int_equal(console_out[13], 'x');
	mmio_write(CON, REG_CONFIG, 'y');
	assert_int_equal(console_out_count, 14);
	mmio_write(CON, REG_STATUS, 0);
	assert_false(virtio_takes_input(v));
}

static void test_long_output(void **state)
{
	u32 head;

	start(CON, 0);
	desc(1, 0, DATA, 100000, 0, 0);
	add(1, 0);
	mmio_write(CON, REG_NOTIFY, 1);
	assert_in_range(console_out_count, 1, 4096);
	work();
	assert_int_equal(console_out_count, 100000);
	assert_int_equal(used(1, &head), 0);
}

static void test_input(void **state)
{
	u32 head;

	start(CON, 0);
	desc(0, 0, DATA + 0x1000, 4, WRITE, 0);
	desc(0, 1, DATA + 0x2000, 3, NEXT | WRITE, 2);
	desc(0, 2, DATA + 0x3000, 100, WRITE, 0);
	add(0, 0);
	mmio_write(CON, REG_NOTIFY, 0);
	type("a");
	assert_int_equal(console_in_next, 0); /* it is the UART's */
	say("$ ");
	mmio_write(CON, REG_ACK, 3);
	type("bc");
	assert_int_equal(used(0, &head), 3);
	assert_int_equal(head, 0);
	assert_memory_equal(host_ram + DATA + 0x1000, "abc", 3);
	assert_int_equal(lines, BIT(20));
	/* Without a buffer it waits. */
	type("defghijk");
	assert_int_equal(console_in_next, 3);
	add(0, 0);
	add(0, 1);
	mmio_write(CON, REG_NOTIFY, 0);
	assert_int_equal(used(0, &head), 4);
	assert_int_equal(used(0, &head), 4);
	assert_int_equal(head, 1);
	assert_memory_equal(host_ram + DATA + 0x1000, "defg", 4);
	assert_memory_equal(host_ram + DATA + 0x2000, "hij", 3);
	assert_memory_equal(host_ram + DATA + 0x3000, "k", 1);
	assert_int_equal(used(0, &head), -1);
	type("");
	assert_int_equal(used(0, &head), -1);
	/* A buffer that cannot be written to. */
	desc(0, 3, DATA, 10, 0, 0);
	add(0, 3);
	type("x");
	assert_true(mmio_read(CON, REG_STATUS) & VIRTIO_NEEDS_RESET);
	assert_int_equal(console_in_next, 11);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_output),
		TEST(test_long_output),
		TEST(test_input),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
