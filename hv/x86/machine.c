/* The end of the machine, and stopping the other CPUs for it. */
#include <umbra/boot_info.h>

#include "lib/log.h"
#include "x86/apic.h"
#include "x86/asm.h"
#include "x86/cpu.h"
#include "x86/stop.h"
#include "x86/tsc.h"
#include "x86/uart.h"

static u32 poweroff = BOOT_POWEROFF_HALT;
static u32 stopper; /* index + 1 of the CPU that has asked all others to stop */

void stop_here(void)
{
	__atomic_store_n(&this_cpu()->stopped, 1, __ATOMIC_RELEASE);
	for (;;) {
		irq_disable();
		cpu_halt();
	}
}

void stop_if_asked(void)
{
	u32 by = __atomic_load_n(&stopper, __ATOMIC_ACQUIRE);

	if (by && by != this_cpu()->index + 1)
		stop_here();
}

static bool all_stopped(u32 me)
{
	for (u32 i = 0; i < cpu_count; i++)
		if (i != me && __atomic_load_n(&cpus[i].online, __ATOMIC_ACQUIRE) &&
		    !__atomic_load_n(&cpus[i].stopped, __ATOMIC_ACQUIRE))
			return false;
	return true;
}

void stop_others(void)
{
	u32 me = this_cpu()->index, none = 0;
	u64 start;

	if (!__atomic_compare_exchange_n(&stopper, &none, me + 1, false, __ATOMIC_ACQ_REL,
					 __ATOMIC_ACQUIRE)) {
		if (none != me + 1)
			stop_here();
		return;
	}
	if (all_stopped(me))
		return;
	apic_send_nmi_others();
	start = rdtsc();
	while (!all_stopped(me) && rdtsc() - start < tsc_from_us(100000))
		cpu_relax();
}

void machine_set_poweroff(u32 method)
{
	poweroff = method;
}

static void reset(void)
{
	outb(0xcf9, 0x02); /* reset control register: hard reset on the next write */
	outb(0xcf9, 0x06);
	for (unsigned int i = 0; i < 100000 && inb(0x64) & 2; i++)
		cpu_relax();
	outb(0x64, 0xfe); /* i8042: pulse the reset line */
}

void machine_off(void)
{
	uart_drain();
	switch (poweroff) {
	case BOOT_POWEROFF_BOCHS:
		for (const char *s = "Shutdown"; *s; s++)
			outb(0x8900, (u8)*s);
		break;
	case BOOT_POWEROFF_QEMU:
		outb(0x501, 0x31);
		break;
	case BOOT_POWEROFF_RESET:
		reset();
		break;
	default:
		break;
	}
	stop_here();
}

void machine_end(u32 status)
{
	char line[32];

	irq_disable();
	stop_others();
	str_print(line, sizeof(line), "umbra: end %u", status);
	if (poweroff == BOOT_POWEROFF_HALT)
		log_info("Umbra has ended; you can switch the machine off");
	log_plain(line);
	machine_off();
}
