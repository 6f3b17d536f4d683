/* The 16550A's behaviour, table by table of the PC16550D data sheet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "dev/uart.h"

enum {
	RBR,
	IER,
	IIR,
	LCR,
	MCR,
	LSR,
	MSR,
	SCR
};

static struct vuart u;

static int setup(void **state)
{
	vuart_reset(&u);
	return 0;
}

static bool irq(void)
{
	bool dropped;

	return vuart_irq(&u, &dropped);
}

static void after_reset(void **state)
{
	/* Table I: registers after master reset. */
	assert_int_equal(vuart_read(&u, IER), 0);
	assert_int_equal(vuart_read(&u, IIR), 1);
	assert_int_equal(vuart_read(&u, LCR), 0);
	assert_int_equal(vuart_read(&u, MCR), 0);
	assert_int_equal(vuart_read(&u, LSR), 0x60);
	assert_int_equal(vuart_read(&u, MSR) & 0x0f, 0);
	assert_false(irq());
}

static void scratch_and_divisor(void **state)
{
	vuart_write(&u, SCR, 0x5a);
	assert_int_equal(vuart_read(&u, SCR), 0x5a);
	vuart_write(&u, LCR, 0x83);
	assert_int_equal(vuart_write(&u, 0, 0x0c), -1); /* not transmitted */
	vuart_write(&u, 1, 0x01);
	assert_int_equal(vuart_read(&u, 0), 0x0c);
	assert_int_equal(vuart_read(&u, 1), 0x01);
	vuart_write(&u, LCR, 0x03);
	assert_int_equal(vuart_read(&u, IER), 0);
	assert_int_equal(vuart_write(&u, 0, 'x'), 'x');
}

static void thre_interrupt(void **state)
{
	bool dropped;

	/* Enabling it with THR empty raises it; reading IIR as the source resets it. */
	vuart_write(&u, IER, 2);
	assert_true(irq());
	assert_int_equal(vuart_read(&u, IIR), 2);
	assert_false(irq());
	assert_int_equal(vuart_read(&u, IIR), 1);
	/* Every byte sent raises it again, with an edge even if it was still up. */
	assert_int_equal(vuart_write(&u, 0, 'a'), 'a');
	assert_true(vuart_irq(&u, &dropped));
	assert_true(dropped);
	assert_int_equal(vuart_write(&u, 0, 'b'), 'b');
	assert_true(vuart_irq(&u, &dropped));
	assert_true(dropped);
	assert_true(vuart_irq(&u, &dropped));
	assert_false(dropped);
	/* Writing IER again without a change of THRI does not; turning it off and on does. */
	vuart_read(&u, IIR);
	vuart_write(&u, IER, 3);
	assert_false(irq());
	vuart_write(&u, IER, 0);
	vuart_write(&u, IER, 2);
	assert_true(irq());
}

static void priorities(void **state)
{
	static const u8 expected[4] = {6, 4, 2, 0};

	vuart_write(&u, MCR, 0x10); /* loopback: makes every source possible */
	vuart_write(&u, IER, 0x0f);
	vuart_read(&u, MSR);
	vuart_write(&u, MCR, 0x12); /* RTS: CTS changes */
	vuart_write(&u, 0, 'a');
	vuart_write(&u, 0, 'b'); /* overrun without FIFO */
	for (unsigned int i = 0; i < 4; i++) {
		assert_int_equal(vuart_read(&u, IIR), expected[i]);
		if (i == 0)
			assert_int_equal(vuart_read(&u, LSR), 0x63); /* DR, OE */
		if (i == 1)
			assert_int_equal(vuart_read(&u, RBR), 'b'); /* the newer overwrote */
		if (i == 3)
			assert_int_equal(vuart_read(&u, MSR) & 0x11, 0x11);
	}
	assert_int_equal(vuart_read(&u, IIR), 1);
	assert_int_equal(vuart_read(&u, LSR), 0x60); /* errors were cleared by reading */
}

static void fifo_triggers(void **state)
{
	static const u8 levels[4] = {1, 4, 8, 14};

	for (u8 t = 0; t < 4; t++) {
		vuart_reset(&u);
		vuart_write(&u, IIR, (u8)(t << 6 | 1));
		vuart_write(&u, IER, 1);
		for (u8 n = 1; n <= 16; n++) {
			vuart_rx(&u, n);
			/* Below the trigger the time-out reports what lies there. */
			assert_int_equal(vuart_read(&u, IIR), n < levels[t] ? 0xcc : 0xc4);
		}
		assert_int_equal(vuart_rx_room(&u), 0);
		vuart_rx(&u, 99);
		assert_int_equal(vuart_read(&u, LSR), 0x63);
		for (u8 n = 1; n <= 16; n++)
			assert_int_equal(vuart_read(&u, RBR),
					 n); /* the FIFO survived the overrun */
		assert_int_equal(vuart_read(&u, IIR), 0xc1);
		assert_int_equal(vuart_rx_room(&u), 16);
	}
}

static void fifo_reset(void **state)
{
	vuart_write(&u, IIR, 1);
	vuart_rx(&u, 'x');
	vuart_write(&u, IIR, 3);
	assert_int_equal(vuart_read(&u, LSR) & 1, 0);
	vuart_rx(&u, 'y');
	vuart_write(&u, IIR, 2); /* FCR0 is 0: leaving FIFO mode, which empties it too */
	assert_int_equal(vuart_read(&u, LSR) & 1, 0);
	assert_int_equal(vuart_read(&u, IIR) & 0xc0, 0);
	assert_int_equal(vuart_rx_room(&u), 1);
}

static void loopback_modem(void **state)
{
	/* DTR, RTS, OUT1, OUT2 come back as DSR, CTS, RI, DCD. */
	static const u8 table[4][2] = {{0x01, 0x20}, {0x02, 0x10}, {0x04, 0x40}, {0x08, 0x80}};

	assert_int_equal(vuart_read(&u, MSR) & 0xf0, 0xb0);
	for (unsigned int i = 0; i < 4; i++) {
		vuart_write(&u, MCR, 0x10 | table[i][0]);
		assert_int_equal(vuart_read(&u, MSR) & 0xf0, table[i][1]);
		assert_int_equal(vuart_read(&u, MSR) & 0x0f, 0);
	}
	/* TERI is the trailing edge of RI only. */
	vuart_write(&u, MCR, 0x10);
	vuart_read(&u, MSR);
	vuart_write(&u, MCR, 0x14);
	assert_int_equal(vuart_read(&u, MSR), 0x40);
	vuart_write(&u, MCR, 0x10);
	assert_int_equal(vuart_read(&u, MSR), 0x04);
	assert_int_equal(vuart_rx_room(&u), 0);
	vuart_rx(&u, 'z'); /* the wire is cut off */
	assert_int_equal(vuart_read(&u, LSR) & 1, 0);
	assert_int_equal(vuart_write(&u, 0, 0xa5), -1);
	assert_int_equal(vuart_read(&u, RBR), 0xa5);
	/* A break loops back as a null character with BI. */
	vuart_write(&u, LCR, 0x43);
	assert_int_equal(vuart_read(&u, LSR) & 0x11, 0x11);
	assert_int_equal(vuart_read(&u, RBR), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(after_reset, setup),
		cmocka_unit_test_setup(scratch_and_divisor, setup),
		cmocka_unit_test_setup(thre_interrupt, setup),
		cmocka_unit_test_setup(priorities, setup),
		cmocka_unit_test_setup(fifo_triggers, setup),
		cmocka_unit_test_setup(fifo_reset, setup),
		cmocka_unit_test_setup(loopback_modem, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
