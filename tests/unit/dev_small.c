/* The keyboard controller, reset registers, PCI configuration ports and the exit port. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "dev/exit_port.h"
#include "dev/i8042.h"
#include "dev/pci.h"

static struct i8042 k;

static int setup(void **state)
{
	i8042_reset(&k);
	return 0;
}

/* A command that answers with one byte. */
static u8 ask(u8 command)
{
	assert_false(i8042_write(&k, 0x64, command));
	assert_int_equal(i8042_read(&k, 0x64) & 1, 1);
	return i8042_read(&k, 0x60);
}

static void commands(void **state)
{
	static const u8 table[][2] = {{0xaa, 0x55}, {0xab, 0x00}, {0xa9, 0x01}, {0xc0, 0x80},
				      {0xd0, 0x03}, {0x20, 0x04}, {0x21, 0x00}};

	assert_int_equal(i8042_read(&k, 0x64), 0x14);
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		assert_int_equal(ask(table[i][0]), table[i][1]);
		assert_int_equal(i8042_read(&k, 0x64) & 1, 0);
	}
	i8042_write(&k, 0x64, 0x60);
	assert_int_equal(i8042_read(&k, 0x64) & 8, 8); /* last write was a command */
	i8042_write(&k, 0x60, 0x47);
	assert_int_equal(i8042_read(&k, 0x64) & 8, 0);
	assert_int_equal(ask(0x20), 0x47);
	i8042_write(&k, 0x64, 0xad);
	assert_int_equal(ask(0x20), 0x57);
	i8042_write(&k, 0x64, 0xa7);
	assert_int_equal(ask(0x20), 0x77);
	i8042_write(&k, 0x64, 0xae);
	i8042_write(&k, 0x64, 0xa8);
	assert_int_equal(ask(0x20), 0x47);
	i8042_write(&k, 0x64, 0x7f);
	i8042_write(&k, 0x60, 0x12);
	assert_int_equal(ask(0x3f), 0x12);
}

static void nobody_connected(void **state)
{
	i8042_write(&k, 0x60, 0xed);
	assert_int_equal(i8042_read(&k, 0x64) & 0x41, 0x41); /* time-out */
	assert_int_equal(i8042_read(&k, 0x60), 0xfe);
	i8042_write(&k, 0x64, 0xd4);
	i8042_write(&k, 0x60, 0xf4);
	assert_int_equal(i8042_read(&k, 0x64) & 0x41, 0x41);
	assert_int_equal(ask(0xaa), 0x55);
	assert_int_equal(i8042_read(&k, 0x64) & 0x40, 0);
}

static void interrupt(void **state)
{
	i8042_write(&k, 0x64, 0xd2);
	i8042_write(&k, 0x60, 0x1c);
	assert_false(i8042_irq(&k)); /* not enabled in the command byte */
	i8042_write(&k, 0x64, 0x60);
	i8042_write(&k, 0x60, 0x45);
	assert_true(i8042_irq(&k));
	assert_int_equal(i8042_read(&k, 0x60), 0x1c);
	assert_false(i8042_irq(&k));
}

static void resets(void **state)
{
	for (u32 v = 0; v < 256; v++) {
		setup(NULL);
		/* Pulse of line 0, and nothing else among the commands. */
		assert_int_equal(i8042_write(&k, 0x64, (u8)v), v >= 0xf0 && !(v & 1));
		setup(NULL);
		i8042_write(&k, 0x64, 0xd1);
		assert_int_equal(i8042_write(&k, 0x60, (u8)v), !(v & 1));
		setup(NULL);
		assert_int_equal(i8042_write(&k, 0x92, (u8)v), v & 1);
		setup(NULL);
		assert_int_equal(i8042_write(&k, 0xcf9, (u8)v), v >> 2 & 1);
		assert_false(i8042_write(&k, 0xcf9, (u8)v)); /* 0 to 1 only */
	}
	assert_int_equal(i8042_read(&k, 0xcf9), 0x0e);
}

static void a20(void **state)
{
	assert_int_equal(i8042_read(&k, 0x92), 2);
	i8042_write(&k, 0x64, 0xdd);
	assert_int_equal(i8042_read(&k, 0x92), 0);
	assert_int_equal(ask(0xd0), 1);
	i8042_write(&k, 0x92, 2);
	assert_int_equal(ask(0xd0), 3);
	i8042_write(&k, 0x64, 0xd1);
	i8042_write(&k, 0x60, 1);
	assert_int_equal(i8042_read(&k, 0x92), 0);
	i8042_write(&k, 0x64, 0xdf);
	assert_int_equal(i8042_read(&k, 0x92), 2);
}

static void pci(void **state)
{
	struct pci p = {0};

	pci_write(&p, 0xcf8, 4, ~0u);
	assert_int_equal(pci_read(&p, 0xcf8, 4), 0x80fffffc);
	pci_write(&p, 0xcf8, 1, 0);
	pci_write(&p, 0xcfa, 2, 0);
	assert_int_equal(pci_read(&p, 0xcf8, 4), 0x80fffffc);
	assert_int_equal(pci_read(&p, 0xcfc, 4), 0xffffffff);
	assert_int_equal(pci_read(&p, 0xcfe, 2), 0xffff);
	assert_int_equal(pci_read(&p, 0xcff, 1), 0xff);
	pci_write(&p, 0xcfc, 4, 0);
	assert_int_equal(pci_read(&p, 0xcf8, 2), 0xffff);
}

static void pci_bridge(void **state)
{
	struct pci p = {0};

	/* Without the enable bit, and at any other function: nobody. */
	assert_int_equal(pci_read(&p, 0xcfc, 4), 0xffffffff);
	for (u32 function = 1; function < 0x10000; function++) {
		pci_write(&p, 0xcf8, 4, 0x80000000 | function << 8);
		assert_int_equal(pci_read(&p, 0xcfc, 4), 0xffffffff);
	}
	pci_write(&p, 0xcf8, 4, 0x80000000);
	assert_int_equal(pci_read(&p, 0xcfc, 4), 0x00081b36);
	assert_int_equal(pci_read(&p, 0xcfc, 2), 0x1b36);
	assert_int_equal(pci_read(&p, 0xcfe, 2), 0x0008);
	assert_int_equal(pci_read(&p, 0xcfd, 1), 0x1b);
	/* Beyond CONFIG_DATA there is nothing. */
	assert_int_equal(pci_read(&p, 0xcfe, 4), 0xffff0008);
	assert_int_equal(pci_read(&p, 0xcff, 2), 0xff00);
	pci_write(&p, 0xcfc, 4, 0x12345678);
	assert_int_equal(pci_read(&p, 0xcfc, 4), 0x00081b36);
	pci_write(&p, 0xcf8, 4, 0x80000008);
	assert_int_equal(pci_read(&p, 0xcfc, 4), 0x06000000);
	for (u32 at = 12; at < 256; at += 4) {
		pci_write(&p, 0xcf8, 4, 0x80000000 | at);
		assert_int_equal(pci_read(&p, 0xcfc, 4), 0);
	}
}

static void exit_status(void **state)
{
	for (u32 v = 0; v < 128; v++)
		assert_int_equal(exit_port_status(v), 2 * v + 1);
	assert_int_equal(exit_port_status(0xffffffff), 0xff);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(commands, setup),
		cmocka_unit_test_setup(nobody_connected, setup),
		cmocka_unit_test_setup(interrupt, setup),
		cmocka_unit_test_setup(resets, setup),
		cmocka_unit_test_setup(a20, setup),
		cmocka_unit_test(pci),
		cmocka_unit_test(pci_bridge),
		cmocka_unit_test(exit_status),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
