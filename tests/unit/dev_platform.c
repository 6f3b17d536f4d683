/*
 * The platform put together: interrupt routing between vCPUs, lines, deadlines, posted vectors,
 * ACPI. The table of ports is in dev_ports.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "platform_fake.h"

/* --- IPIs
 * ----------------------------------------------------------------------------------------- */

/* Every sender, destination form and delivery mode: exactly who gets it. */
static void ipi_matrix(void **state)
{
	static const struct {
		u32 icr, dest;
		u32 targets; /* for sender 0; "self" and "others" are computed */
	} table[] = {
		{0, 0, 1},	    {0, 1, 2},	      {0, 3, 8},
		{0, 4, 0},	    {0, 0xff, 0xf},   {0x800, 0x01, 1},
		{0x800, 0x0a, 0xa}, {0x800, 0xf0, 0}, {0x800, 0xff, 0xf},
	};

	for (u32 i = 0; i < CPUS; i++)
		mmio(i, LAPIC_LDR, BIT(24 + i));
	for (u32 sender = 0; sender < CPUS; sender++) {
		for (size_t t = 0; t < ARRAY_SIZE(table) + 3; t++) {
			u32 shorthand =
				t < ARRAY_SIZE(table) ? 0 : (u32)(t - ARRAY_SIZE(table) + 1);
			u32 icr = shorthand ? shorthand << 18 : table[t].icr;
			u32 targets = shorthand == 0   ? table[t].targets
				      : shorthand == 1 ? BIT(sender)
				      : shorthand == 2 ? 0xf
						       : 0xf & ~BIT(sender);
			bool with_self = shorthand == 1 || shorthand == 2;

			mmio(sender, LAPIC_ICR_HIGH, shorthand ? 0 : table[t].dest << 24);
			clear_events();
			mmio(sender, LAPIC_ICR, icr | 0x61);
			assert_int_equal(who_has(0x61), targets);
			clear_events();
			mmio(sender, LAPIC_ICR, icr | 0x400);
			assert_int_equal(set_of(nmis), with_self ? 0 : targets);
			clear_events();
			mmio(sender, LAPIC_ICR, icr | 0x4500);
			assert_int_equal(set_of(inits), with_self ? 0 : targets);
			clear_events();
			mmio(sender, LAPIC_ICR, icr | 0x4698);
			assert_int_equal(set_of(sipis), with_self ? 0 : targets);
			for (u32 i = 0; i < CPUS; i++)
				if (sipis[i])
					assert_int_equal(vcpus[i].sipi_vector, 0x98);
			clear_events();
			mmio(sender, LAPIC_ICR, icr | 0x8500); /* INIT de-assert */
			assert_int_equal(set_of(inits), 0);
			mmio(sender, LAPIC_ICR, icr | 0x200); /* SMI */
			assert_int_equal(who_has(-1), 0xf);
		}
	}
}

static void x2apic_ipis(void **state)
{
	u64 v;

	for (u32 i = 0; i < CPUS; i++) {
		assert_true(platform_msr_read(&vcpus[i], 0x1b, &v));
		assert_true(platform_msr_write(&vcpus[i], 0x1b, v | 0x400));
		assert_int_equal(platform_apic_mode(&vcpus[i]), APIC_MODE_X2APIC);
	}
	clear_events();
	assert_true(platform_msr_write(&vcpus[1], 0x830, 0x200000061));
	assert_int_equal(who_has(0x61), 4);
	assert_true(
		platform_msr_write(&vcpus[1], 0x830, 0x500000862)); /* cluster 0, members 0 and 2 */
	assert_int_equal(who_has(0x62), 5);
	assert_true(platform_msr_write(&vcpus[1], 0x830, 0xff00000063));    /* nobody's ID */
	assert_true(platform_msr_write(&vcpus[1], 0x830, 0x1000f00000863)); /* cluster 1 */
	assert_int_equal(who_has(0x63), 0);
	assert_true(platform_msr_write(&vcpus[1], 0x830, 0xffffffff00000064));
	assert_int_equal(who_has(0x64), 0xf);
}

static void lowest_priority(void **state)
{
	u32 got[CPUS] = {0};

	clear_events();
	mmio(0, LAPIC_TPR, 0x40);
	mmio(1, LAPIC_TPR, 0x20);
	mmio(2, LAPIC_TPR, 0x10);
	mmio(3, LAPIC_TPR, 0x30);
	mmio(0, LAPIC_ICR_HIGH, 0xff000000);
	mmio(0, LAPIC_ICR, 0x171);
	assert_int_equal(who_has(0x71), 4);
	clear_events();
	mmio(2, LAPIC_SVR, 0xff); /* software-disabled: not in the running */
	mmio(0, LAPIC_ICR, 0x171);
	assert_int_equal(who_has(0x71), 2);
	/* Among equals it goes round. */
	mmio(2, LAPIC_SVR, 0x1ff);
	for (u32 i = 0; i < CPUS; i++)
		mmio(i, LAPIC_TPR, 0);
	for (u32 n = 0; n < 40; n++) {
		u32 set;

		clear_events();
		mmio(0, LAPIC_ICR, 0x171);
		set = who_has(0x71);
		assert_int_equal(set & (set - 1), 0);
		got[__builtin_ctz(set)]++;
	}
	for (u32 i = 0; i < CPUS; i++)
		assert_int_equal(got[i], 10);
}

static void disabled_targets(void **state)
{
	mmio(1, LAPIC_SVR, 0xff);
	assert_true(platform_msr_write(&vcpus[2], 0x1b, 0xfee00000));
	assert_int_equal(platform_apic_mode(&vcpus[2]), APIC_MODE_OFF);
	clear_events();
	mmio(0, LAPIC_ICR, 0xc0061); /* all but self */
	assert_int_equal(who_has(0x61), 8);
	mmio(0, LAPIC_ICR, 0xc0400);
	assert_int_equal(set_of(nmis), 0xa); /* software-disabled ones take NMI, INIT, SIPI */
	mmio(0, LAPIC_ICR, 0xc4500);
	assert_int_equal(set_of(inits), 0xa);
}

static void posted_is_merged(void **state)
{
	clear_events();
	vcpu_post_irq(&vcpus[1], 0x31);
	vcpu_post_irq(&vcpus[1], 0xff);
	vcpu_post_irq(&vcpus[1], 0x40);
	assert_int_equal(platform_irq_pending(&vcpus[1]), 0xff);
	assert_int_equal(posted[1].control, 0);
	assert_int_equal(posted[1].pir[0] | posted[1].pir[1] | posted[1].pir[3], 0);
	assert_int_equal(platform_irr_highest(&vcpus[1]), 0xff);
	assert_int_equal(take(&vcpus[1]), 0xff);
	assert_int_equal(platform_isr_highest(&vcpus[1]), 0xff);
	assert_int_equal(platform_irr_highest(&vcpus[1]), 0x40);
	assert_int_equal(platform_irq_pending(&vcpus[1]), -1);
	mmio(1, LAPIC_EOI, 0);
	assert_true(vcpus[1].requests & REQ_IRQ);
	assert_int_equal(take(&vcpus[1]), 0x40);
	platform_vcpu_init(&vcpus[1]);
	assert_int_equal(platform_irr_highest(&vcpus[1]), 0);
}

/* --- lines
 * ---------------------------------------------------------------------------------------- */

static void pit_by_both_controllers(void **state)
{
	pic_init();
	redirect(2, 0x55, 1);
	out(0x43, 0x34);
	out(0x40, 0xa9);
	out(0x40, 0x04); /* 1 ms */
	clear_events();
	assert_int_equal(who_has(-1), 0xf);
	assert_int_not_equal(vcpus[0].timer_deadline, ~0ull);
	advance_us(999);
	timers();
	assert_int_equal(who_has(-1), 0xf);
	advance_us(2);
	timers();
	assert_true(vcpus[0].requests & REQ_IRQ);
	assert_int_equal(who_has(0x55), 2);
	assert_int_equal(platform_irq_pending(&vcpus[0]), 0x20);
	assert_true(platform_extint(&vcpus[0]));
	assert_false(platform_extint(&vcpus[1]));
	assert_int_equal(take(&vcpus[0]), 0x20);
	assert_int_equal(platform_irq_pending(&vcpus[0]), -1);
	advance_us(1000);
	timers();
	assert_int_equal(platform_irq_pending(&vcpus[0]), -1); /* no EOI yet */
	out(0x20, 0x20);
	assert_int_equal(take(&vcpus[0]), 0x20);
	/* LINT0 masked: the 8259s are cut off. */
	out(0x20, 0x20);
	advance_us(1000);
	timers();
	mmio(0, LAPIC_LVT_LINT0, 0x10700);
	assert_int_equal(platform_irq_pending(&vcpus[0]), -1);
	mmio(0, LAPIC_LVT_LINT0, 0x700);
	assert_int_equal(platform_irq_pending(&vcpus[0]), 0x20);
	/* ExtINT comes before the APIC's own. */
	vcpu_post_irq(&vcpus[0], 0xee);
	assert_int_equal(take(&vcpus[0]), 0x20);
	assert_int_equal(take(&vcpus[0]), 0xee);
}

/* A kernel that only opens the line finds the firmware's 18.2 interrupts per second. */
static void pit_as_the_firmware_left_it(void **state)
{
	u32 count = 0;
	u64 end = p->epoch + 10 * tsc_hz;

	pic_init();
	for (;;) {
		assert_int_not_equal(vcpus[0].timer_deadline, ~0ull);
		if (vcpus[0].timer_deadline > end)
			break;
		p->last = vcpus[0].timer_deadline;
		timers();
		assert_int_equal(take(&vcpus[0]), 0x20);
		out(0x20, 0x20);
		count++;
	}
	assert_int_equal(count, 182);
}

/* Rate against time: 1,000 interrupts in a second, whenever they are served. */
static void pit_rate(void **state)
{
	u32 count = 0;
	u64 start = 0;

	pic_init();
	out(0x43, 0x34);
	out(0x40, 0xa9);
	out(0x40, 0x04); /* 1193 clocks: 1000.15 Hz */
	start = p->last;
	while (p->last < start + tsc_hz) {
		u64 due = vcpus[0].timer_deadline;

		assert_true(due > p->last); /* never in the past once served */
		p->last = due + (count % 7) * (tsc_hz / 100000);
		timers();
		if (platform_irq_pending(&vcpus[0]) == 0x20) {
			assert_int_equal(take(&vcpus[0]), 0x20);
			out(0x20, 0x20);
			count++;
		}
	}
	assert_in_range(count, 1000, 1001);
}

static void programmed_elsewhere(void **state)
{
	vcpus[0].requests = 0;
	platform_port_out(&vcpus[2], 0x43, 1, 0x34);
	platform_port_out(&vcpus[2], 0x40, 1, 0xff);
	platform_port_out(&vcpus[2], 0x40, 1, 0x00);
	assert_true(vcpus[0].requests & REQ_TIMER);
	assert_int_equal(vcpus[2].timer_deadline, ~0ull);
	timers();
	assert_int_not_equal(vcpus[0].timer_deadline, ~0ull);
}

/*
 * A timer that is set to an earlier moment than the vCPU exits at moves that; a later one is no
 * business of the run loop's unless it was the reason for that exit. A changed TSC moves it too.
 */
static void deadline_and_exit(void **state)
{
	struct vcpu *v = &vcpus[1];
	u64 now = __builtin_ia32_rdtsc(), far = 1000000000000ull, at;

	v->requests = 0;
	v->deadline = now + 2 * far;
	mmio(1, LAPIC_LVT_TIMER, 0x40055);
	assert_true(platform_msr_write(v, 0x6e0, vcpu_tsc(v) + far));
	at = v->timer_deadline;
	assert_in_range(at, now + far, now + 2 * far - 1);
	assert_int_equal(v->deadline, at);
	assert_false(v->requests & REQ_TIMER);
	assert_true(platform_msr_write(v, 0x6e0, vcpu_tsc(v) + 3 * far));
	assert_true(v->timer_deadline > at);
	assert_int_equal(v->deadline, at);
	assert_true(v->requests & REQ_TIMER);
	/* Nothing to be done where something else bounds it, or it is later than before. */
	v->requests = 0;
	assert_true(platform_msr_write(v, 0x6e0, vcpu_tsc(v) + 4 * far));
	assert_int_equal(v->deadline, at);
	assert_false(v->requests & REQ_TIMER);
	at = v->timer_deadline;
	v->tsc_offset += far;
	platform_timers(v, __builtin_ia32_rdtsc());
	assert_int_equal(v->timer_deadline, at - far);
	v->tsc_offset = 0;
	v->deadline = 0;
}

static void rtc_interrupts(void **state)
{
	u32 count = 0;

	pic_init();
	out(0x43, 0x30); /* the PIT, which the firmware left running, stops */
	redirect(8, 0x88, 2);
	out(0x70, 0x0a);
	out(0x71, 0x26); /* 1,024 Hz */
	out(0x70, 0x0b);
	out(0x71, 0x42);
	for (u32 i = 0; i < 100; i++) {
		p->last = vcpus[0].timer_deadline;
		timers();
		assert_int_equal(who_has(0x88), 4);
		assert_int_equal(take(&vcpus[2]), 0x88);
		mmio(2, LAPIC_EOI, 0);
		assert_int_equal(take(&vcpus[0]), 0x28);
		out(0xa0, 0x20);
		out(0x20, 0x20);
		assert_int_equal(vcpus[0].timer_deadline, ~0ull); /* nothing before C is read */
		out(0x70, 0x0c);
		assert_int_equal(in(0x71) & 0xc0, 0xc0);
		count++;
	}
	assert_int_equal(count, 100);
}

static void uart_and_console(void **state)
{
	pic_init();
	redirect(4, 0x44, 0);
	out(0x3f8, 'a');
	out(0x3f8, 'b');
	assert_memory_equal(console_out, "ab", 2);
	assert_int_equal(who_has(0x44), 0);
	out(0x3f9, 1);
	memcpy(console_in, "hello", 5);
	in_count = 5;
	platform_console_input(&vm);
	assert_int_equal(in_next, 1); /* without FIFO one byte */
	assert_int_equal(take(&vcpus[0]), 0x24);
	assert_int_equal(take(&vcpus[0]), 0x44);
	for (u32 i = 0; i < 5; i++) {
		assert_int_equal(in(0x3fd) & 1, 1);
		assert_int_equal(in(0x3f8), "hello"[i]);
	}
	assert_int_equal(in(0x3fd) & 1, 0);
	/* Each byte sent with the transmit interrupt on makes an edge. */
	out(0x20, 0x20);
	mmio(0, LAPIC_EOI, 0);
	out(0x3f9, 2);
	for (u32 i = 0; i < 3; i++) {
		assert_int_equal(take(&vcpus[0]), 0x24);
		out(0x20, 0x20);
		assert_int_equal(take(&vcpus[0]), 0x44);
		mmio(0, LAPIC_EOI, 0);
		assert_int_equal(platform_irq_pending(&vcpus[0]), -1);
		out(0x3f8, 'x');
	}
}

static void level_through_ioapic(void **state)
{
	u64 map[4];

	redirect(1, 0x8066, 3); /* the keyboard's line, level-triggered */
	assert_true(vcpus[3].requests & REQ_EOI_MAP);
	platform_eoi_bitmap(&vcpus[1], map);
	assert_int_equal(map[1], BIT64(0x26));
	out(0x64, 0x60);
	out(0x60, 0x41);
	out(0x64, 0xaa); /* output buffer full */
	assert_int_equal(take(&vcpus[3]), 0x66);
	assert_int_equal(lapic_reg(vcpus[3].lapic, LAPIC_TMR + 0x30), BIT(6));
	mmio(3, LAPIC_EOI, 0); /* not served: comes again */
	assert_int_equal(take(&vcpus[3]), 0x66);
	assert_int_equal(in(0x60), 0x55);
	platform_apic_eoi(&vcpus[3], 0x66); /* as the EOI-induced exit reports it */
	mmio(3, LAPIC_EOI, 0);
	assert_int_equal(platform_irq_pending(&vcpus[3]), -1);
	/* Reprogrammed to edge: still the TMR of the one that has it in service. */
	redirect(1, 0x66, 3);
	platform_eoi_bitmap(&vcpus[1], map);
	assert_int_equal(map[1], 0);
	platform_eoi_bitmap(&vcpus[3], map);
	assert_int_equal(map[1], BIT64(0x26));
	/* An edge-triggered one of the same vector clears TMR. */
	mmio(0, LAPIC_ICR_HIGH, 3 << 24);
	mmio(0, LAPIC_ICR, 0x66);
	platform_eoi_bitmap(&vcpus[3], map);
	assert_int_equal(map[1], 0);
}

static void ioapic_modes(void **state)
{
	static const struct {
		u32 mode;
		u32 *counter;
	} table[] = {{4, nmis}, {5, inits}};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		clear_events();
		redirect(9, table[i].mode << 8 | 0x50, 2);
		spin_lock(&vm.dev_lock);
		platform_set_line(p, 9, false);
		platform_set_line(p, 9, true);
		spin_unlock(&vm.dev_lock);
		assert_int_equal(set_of(table[i].counter), 4);
	}
	/* An illegal vector is an error at the receiver. */
	redirect(9, 0x05, 2);
	mmio(2, LAPIC_LVT_ERROR, 0xe0);
	spin_lock(&vm.dev_lock);
	platform_set_line(p, 9, false);
	platform_set_line(p, 9, true);
	spin_unlock(&vm.dev_lock);
	assert_int_equal(platform_irq_pending(&vcpus[2]), 0xe0);
	assert_int_equal(vcpus[2].lapic->esr, LAPIC_ESR_RECV_VECTOR);
}

static void far_deadline_does_not_wrap(void **state)
{
	vcpus[1].tsc_offset = (u64)-1000000000000ll;
	mmio(1, LAPIC_LVT_TIMER, 0x40040);
	assert_true(platform_msr_write(&vcpus[1], 0x6e0, ~0ull));
	assert_int_equal(platform_irq_pending(&vcpus[1]), -1);
	assert_int_equal(vcpus[1].timer_deadline, ~0ull);
	assert_true(platform_msr_write(&vcpus[1], 0x6e0, 1)); /* long ago in guest time */
	assert_int_equal(platform_irq_pending(&vcpus[1]), 0x40);
}

/* The SCI: a level on pin 9 and IRQ 9, from button and timer. */
static void acpi_interrupt(void **state)
{
	pic_init();
	redirect(9, 0x8059, 1);
	clear_events();
	platform_power_button(&vm);
	assert_int_equal(who_has(0x59), 0); /* not enabled */
	platform_port_out(&vcpus[2], 0x602, 2, 0x100);
	assert_int_equal(who_has(0x59), 2);
	assert_int_equal(take(&vcpus[1]), 0x59);
	mmio(1, LAPIC_EOI, 0);
	assert_int_equal(take(&vcpus[1]), 0x59); /* still there */
	assert_int_equal(platform_port_in(&vcpus[0], 0x600, 2), 0x100);
	platform_port_out(&vcpus[2], 0x600, 2, 0x100);
	mmio(1, LAPIC_EOI, 0);
	assert_int_equal(who_has(0x59), 0);
	/* The button again, by the 8259s: edge-triggered, as they are set up. */
	redirect(9, 0x10000, 0);
	platform_power_button(&vm);
	assert_int_equal(platform_irq_pending(&vcpus[0]), 0x29);
	out(0x601, 1);
	/* The clock's interrupt, once. */
	out(0x70, 0x0b);
	out(0x71, 0x12); /* update-ended */
	advance_us(1000000);
	timers();
	assert_int_equal(platform_port_in(&vcpus[0], 0x600, 2), 0x400);
	platform_port_out(&vcpus[0], 0x600, 2, 0x400);
	timers();
	assert_int_equal(platform_port_in(&vcpus[0], 0x600, 2), 0);
	out(0x71, 0x02);
	/* The timer: the deadline is that of its highest bit. */
	clear_events();
	platform_port_out(&vcpus[0], 0x602, 2, 1);
	while (!p->sci_line) {
		assert_int_equal(platform_port_in(&vcpus[0], 0x60b, 1), 0x7f);
		assert_true(vcpus[0].timer_deadline <= p->epoch + 2 * tsc_hz);
		p->last = vcpus[0].timer_deadline; /* or the 8254's */
		timers();
	}
	assert_int_equal(platform_port_in(&vcpus[0], 0x608, 4) & 0xfffffff0, 0x80000000);
	assert_int_equal(platform_port_in(&vcpus[0], 0x600, 2), 1);
	assert_true(p->sci_line);
	out(0x600, 1);
	assert_false(p->sci_line);
	/* 3.579545 MHz. */
	p->last = p->epoch + 3 * tsc_hz;
	assert_int_equal(platform_port_in(&vcpus[0], 0x608, 4), 0x7fc00000u + 3 * 3579545);
}

static void power_off(void **state)
{
	platform_port_out(&vcpus[1], 0x604, 2, 0x3c00);
	assert_int_equal(ended, 0);
	exit_value = 77;
	platform_port_out(&vcpus[1], 0x604, 2, 0x2000);
	assert_int_equal(ended, 1);
	assert_int_equal(exit_value, 0);
	out(0x605, 0x20);
	assert_int_equal(ended, 2);
	/* In the middle of a wider access that begins below the block as well. */
	assert_int_equal(platform_port_in(&vcpus[0], 0x5fe, 4), 0x0000ffff);
	assert_int_equal(refusals, 0);
	assert_int_equal(restarted, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(ipi_matrix),
		T(x2apic_ipis),
		T(lowest_priority),
		T(disabled_targets),
		T(posted_is_merged),
		T(pit_by_both_controllers),
		T(pit_as_the_firmware_left_it),
		T(pit_rate),
		T(programmed_elsewhere),
		T(rtc_interrupts),
		T(uart_and_console),
		T(level_through_ioapic),
		T(ioapic_modes),
		T(far_deadline_does_not_wrap),
		T(deadline_and_exit),
		T(acpi_interrupt),
		T(power_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
