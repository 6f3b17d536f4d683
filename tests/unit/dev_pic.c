/* The 8259A pair: priorities, rotation, special modes, cascade, spurious interrupts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "dev/pic.h"

static struct pic_pair p;

static void init_chip(u16 port, u8 base, u8 icw4)
{
	pic_write(&p, port, 0x11);
	pic_write(&p, port + 1, base);
	pic_write(&p, port + 1, port == 0x20 ? 4 : 2);
	pic_write(&p, port + 1, icw4);
	pic_write(&p, port + 1, 0);
}

static void init(u8 icw4)
{
	pic_reset(&p);
	init_chip(0x20, 0x20, icw4);
	init_chip(0xa0, 0x28, icw4);
}

static int setup(void **state)
{
	init(1);
	return 0;
}

static void pulse(unsigned int irq)
{
	pic_set_line(&p, irq, false);
	pic_set_line(&p, irq, true);
}

static u8 isr(u16 port)
{
	pic_write(&p, port, 0x0b);
	return pic_read(&p, port);
}

static u8 irr(u16 port)
{
	pic_write(&p, port, 0x0a);
	return pic_read(&p, port);
}

static void reset_is_quiet(void **state)
{
	pic_reset(&p);
	for (unsigned int i = 0; i < 16; i++)
		pic_set_line(&p, i, true);
	assert_int_equal(pic_pending(&p), -1);
}

static void vectors_of_all_lines(void **state)
{
	for (unsigned int i = 0; i < 16; i++) {
		init(1);
		pic_set_line(&p, i, true);
		if (i == 2) { /* the cascade has no pin */
			assert_int_equal(pic_pending(&p), -1);
			continue;
		}
		assert_int_equal(pic_pending(&p), 0x20 + i);
		assert_int_equal(pic_ack(&p), 0x20 + i);
		assert_int_equal(isr(0x20), i < 8 ? 1 << i : 4);
		assert_int_equal(isr(0xa0), i < 8 ? 0 : 1 << (i - 8));
		assert_int_equal(pic_pending(&p), -1);
		if (i >= 8)
			pic_write(&p, 0xa0, 0x20);
		pic_write(&p, 0x20, 0x20);
		assert_int_equal(isr(0x20) | isr(0xa0), 0);
		/* Edge-triggered: the level alone does not request again. */
		assert_int_equal(pic_pending(&p), -1);
		pulse(i);
		assert_int_equal(pic_pending(&p), 0x20 + i);
	}
}

/* Fixed priorities: IR0 first, the slave's between IR1 and IR3; only higher ones interrupt. */
static void fully_nested(void **state)
{
	static const u8 order[] = {0, 1, 8, 9, 10, 11, 12, 13, 14, 15, 3, 4, 5, 6, 7};

	for (size_t a = 0; a < sizeof(order); a++) {
		for (size_t b = 0; b < sizeof(order); b++) {
			bool same_slave = order[a] >= 8 && order[b] >= 8;

			if (a == b)
				continue;
			init(1);
			pic_set_line(&p, order[a], true);
			assert_int_equal(pic_ack(&p), 0x20 + order[a]);
			pic_set_line(&p, order[b], true);
			/* The master holds IR2 in service: no second slave interrupt (no SFNM). */
			assert_int_equal(pic_pending(&p),
					 b < a && !same_slave ? 0x20 + order[b] : -1);
		}
	}
}

static void special_fully_nested(void **state)
{
	init(1);
	init_chip(0x20, 0x20, 0x11);
	pic_set_line(&p, 12, true);
	assert_int_equal(pic_ack(&p), 0x2c);
	pic_set_line(&p, 13, true);
	assert_int_equal(pic_pending(&p), -1);
	pic_set_line(&p, 9, true);
	assert_int_equal(pic_ack(&p), 0x29);
	pic_write(&p, 0xa0, 0x20); /* ends 9; 12 still in service: IR2 must not be ended */
	assert_int_equal(isr(0xa0), 0x10);
	assert_int_equal(isr(0x20), 0x04);
}

static void masks(void **state)
{
	pic_write(&p, 0x21, 0x08);
	pic_set_line(&p, 3, true);
	assert_int_equal(pic_pending(&p), -1);
	assert_int_equal(irr(0x20), 0x08); /* a masked request stays requested */
	pic_write(&p, 0x21, 0);
	assert_int_equal(pic_pending(&p), 0x23);
	assert_int_equal(pic_read(&p, 0x21), 0);
	pic_write(&p, 0x21, 0x04); /* masks the whole slave */
	pic_set_line(&p, 3, false);
	pic_set_line(&p, 8, true);
	assert_int_equal(pic_pending(&p), -1);
}

static void spurious(void **state)
{
	/* The request goes away before INTA: IR7, with nothing in service. */
	pic_set_line(&p, 3, true);
	pic_set_line(&p, 3, false);
	assert_int_equal(pic_pending(&p), -1);
	assert_int_equal(pic_ack(&p), 0x27);
	assert_int_equal(isr(0x20), 0);
	/* On the slave the master has put IR2 in service. */
	pic_set_line(&p, 12, true);
	p.chip[0].irr |= 4;
	p.chip[1].irr = 0;
	assert_int_equal(pic_ack(&p), 0x2f);
	assert_int_equal(isr(0xa0), 0);
	assert_int_equal(isr(0x20), 4);
}

static void rotation(void **state)
{
	/* Rotate on non-specific EOI: who was served becomes the lowest. */
	pulse(3);
	assert_int_equal(pic_ack(&p), 0x23);
	pic_write(&p, 0x20, 0xa0);
	pulse(3);
	pulse(4);
	pulse(0);
	assert_int_equal(pic_ack(&p), 0x24);
	pic_write(&p, 0x20, 0x20);
	assert_int_equal(pic_ack(&p), 0x20);
	pic_write(&p, 0x20, 0x20);
	assert_int_equal(pic_ack(&p), 0x23);
	pic_write(&p, 0x20, 0xe3); /* rotate on specific EOI */
	assert_int_equal(isr(0x20), 0);
	/* Set priority: IR5 lowest, so IR6 is highest. */
	pic_write(&p, 0x20, 0xc5);
	pulse(0);
	pulse(5);
	pulse(6);
	assert_int_equal(pic_ack(&p), 0x26);
	pulse(0);
	assert_int_equal(pic_pending(&p), -1); /* IR0 is below IR6 now */
	pic_write(&p, 0x20, 0x66);	       /* specific EOI of 6 */
	assert_int_equal(pic_ack(&p), 0x20);
	pic_write(&p, 0x20, 0x20);
	assert_int_equal(pic_ack(&p), 0x25);
}

static void specific_eoi(void **state)
{
	pulse(5);
	pic_ack(&p);
	pulse(1);
	pic_ack(&p);
	assert_int_equal(isr(0x20), 0x22);
	pic_write(&p, 0x20, 0x65);
	assert_int_equal(isr(0x20), 0x02);
	pic_write(&p, 0x20, 0x40); /* no operation */
	assert_int_equal(isr(0x20), 0x02);
	pic_write(&p, 0x20, 0x20);
	assert_int_equal(isr(0x20), 0);
}

static void automatic_eoi(void **state)
{
	init_chip(0x20, 0x20, 3);
	pulse(3);
	assert_int_equal(pic_ack(&p), 0x23);
	assert_int_equal(isr(0x20), 0);
	pic_write(&p, 0x20, 0x80); /* rotate in automatic EOI mode */
	pulse(3);
	assert_int_equal(pic_ack(&p), 0x23);
	pulse(3);
	pulse(4);
	assert_int_equal(pic_ack(&p), 0x24);
	pic_write(&p, 0x20, 0x00);
	assert_int_equal(pic_ack(&p), 0x23);
	pulse(4);
	pulse(5);
	assert_int_equal(pic_ack(&p), 0x25); /* 4 is still the lowest: rotation stopped there */
}

static void special_mask(void **state)
{
	pulse(4);
	pic_ack(&p);
	pulse(6);
	assert_int_equal(pic_pending(&p), -1);
	pic_write(&p, 0x21, 0x10);
	pic_write(&p, 0x20, 0x68); /* set special mask mode */
	assert_int_equal(pic_ack(&p), 0x26);
	/* A non-specific EOI ends IR6, not the masked IR4, though that has the higher priority. */
	pic_write(&p, 0x20, 0x20);
	assert_int_equal(isr(0x20), 0x10);
	pic_write(&p, 0x20, 0x48); /* reset special mask mode */
	pulse(6);
	assert_int_equal(pic_pending(&p), -1);
	pic_write(&p, 0x20, 0x20);
	assert_int_equal(isr(0x20), 0);
}

static void level_triggered(void **state)
{
	pic_write(&p, 0x4d0, 0xff);
	pic_write(&p, 0x4d1, 0xff);
	assert_int_equal(pic_read(&p, 0x4d0), 0xf8);
	assert_int_equal(pic_read(&p, 0x4d1), 0xde);
	pic_set_line(&p, 5, true);
	assert_int_equal(pic_ack(&p), 0x25);
	pic_write(&p, 0x20, 0x20);
	assert_int_equal(pic_pending(&p), 0x25); /* still asserted */
	pic_set_line(&p, 5, false);
	assert_int_equal(pic_pending(&p), -1);
	pic_set_line(&p, 10, true);
	assert_int_equal(pic_ack(&p), 0x2a);
	pic_write(&p, 0xa0, 0x20);
	pic_write(&p, 0x20, 0x20);
	assert_int_equal(pic_ack(&p), 0x2a);
}

static void poll_mode(void **state)
{
	pic_write(&p, 0x20, 0x0c);
	assert_int_equal(pic_read(&p, 0x20), 0);
	pulse(6);
	pic_write(&p, 0x20, 0x0c);
	assert_int_equal(pic_read(&p, 0x20), 0x86);
	assert_int_equal(isr(0x20), 0x40);
	pic_write(&p, 0x20, 0x20);
	pulse(13);
	pic_write(&p, 0xa0, 0x0c);
	assert_int_equal(pic_read(&p, 0xa0), 0x85);
	assert_int_equal(pic_pending(&p), -1);
}

static void initialisation(void **state)
{
	pulse(3);
	pulse(4);
	pic_ack(&p);
	pic_write(&p, 0x20, 0xc2);
	pic_write(&p, 0x21, 0xff);
	pic_write(&p, 0x20, 0x13); /* single, ICW4: two words follow */
	assert_int_equal(irr(0x20) | isr(0x20), 0);
	pic_write(&p, 0x21, 0x43);
	pic_write(&p, 0x21, 1);
	assert_int_equal(pic_read(&p, 0x21), 0); /* ICW1 cleared the mask */
	pic_write(&p, 0x21, 0xf7);
	assert_int_equal(pic_read(&p, 0x21), 0xf7);
	pulse(3);
	assert_int_equal(pic_ack(&p), 0x43); /* the low bits of ICW2 are the level */
	pic_write(&p, 0x20, 0x10);	     /* no ICW4: automatic EOI off, and no fourth word */
	pic_write(&p, 0x21, 0x50);
	pic_write(&p, 0x21, 4);
	pic_write(&p, 0x21, 0xfe);
	assert_int_equal(pic_read(&p, 0x21), 0xfe);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(reset_is_quiet, setup),
		cmocka_unit_test_setup(vectors_of_all_lines, setup),
		cmocka_unit_test_setup(fully_nested, setup),
		cmocka_unit_test_setup(special_fully_nested, setup),
		cmocka_unit_test_setup(masks, setup),
		cmocka_unit_test_setup(spurious, setup),
		cmocka_unit_test_setup(rotation, setup),
		cmocka_unit_test_setup(specific_eoi, setup),
		cmocka_unit_test_setup(automatic_eoi, setup),
		cmocka_unit_test_setup(special_mask, setup),
		cmocka_unit_test_setup(level_triggered, setup),
		cmocka_unit_test_setup(poll_mode, setup),
		cmocka_unit_test_setup(initialisation, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
