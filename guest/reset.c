/*
 * INIT to the bootstrap processor, which starts at the reset vector then. Firmware there looks at
 * the shutdown status in CMOS: a warm start jumps by the vector at 40:67, anything else resets the
 * machine. The second CPU sends the INITs and looks at what comes of them.
 *
 * Option `keys`: nothing of that; a key on the console chooses: `i` sends the INIT of a cold start,
 * any other ends the run.
 */
#include "apic.h"
#include "irq.h"
#include "smp.h"
#include "umbra.h"

#define WARM_VECTOR 0x467
#define UD_VECTOR   0x18  /* in the real-mode interrupt vector table */
#define STOP_CODE   0x600 /* cli; hlt; jmp to it */
#define CMOS_STATUS 0x0f

extern volatile u32 ap_next_index;

static volatile u8 *volatile low_memory; /* gcc takes constants so low for offsets from NULL */
static u64 seen_base;
static volatile u32 progress;

static void put_low(u32 at, u32 value)
{
	for (u32 i = 0; i < 4; i++)
		low_memory[at + i] = (u8)(value >> 8 * i);
}

static void cmos_write(u8 index, u8 value)
{
	outb(0x70, index);
	outb(0x71, value);
}

static u8 cmos_read(u8 index)
{
	outb(0x70, index);
	return inb(0x71);
}

/* What the BSP waits in, until it is taken out of it. */
static __noreturn void wait_for_init(void *arg)
{
	for (;;) {
		progress++;
		cpu_pause();
	}
}

static void look(void *arg)
{
	seen_base = rdmsr(MSR_APIC_BASE);
}

/* The BSP comes back by the trampoline of the APs, as the CPU with index 0. */
static void warm_start(u8 status)
{
	u32 before;

	smp_install_trampoline();
	put_low(WARM_VECTOR, TRAMPOLINE >> 4 << 16);
	/* Nothing at the reset vector would be #UD: it must not come from there by chance. */
	put_low(UD_VECTOR, STOP_CODE);
	put_low(STOP_CODE, 0xfdebf4fa);
	cmos_write(CMOS_STATUS, status);
	ap_next_index = 0;
	cpus[0].online = false;
	lapic_send(cpus[0].apic_id, ICR_INIT | ICR_ASSERT);
	for (u32 i = 0; i < 200 && !cpus[0].online; i++)
		delay_us(1000);
	ap_next_index = 2;
	if (!tap_ok(cpus[0].online, "INIT, shutdown status 0x%x: by the vector at 40:67", status))
		tap_bail("the BSP does not come back");
	tap_is(cmos_read(CMOS_STATUS), 0, "and the status is cleared");
	before = progress;
	delay_us(1000);
	tap_is(progress, before, "what it did before has ended");
	seen_base = 0;
	smp_post(0, look, NULL);
	tap_ok(smp_wait(0, 1000), "it does what it is told");
	tap_ok(seen_base & APIC_BASE_BSP, "it is still the BSP (0x%lx)", seen_base);
}

static void supervise(void *arg)
{
	delay_us(1000);
	warm_start(0x0a);
	smp_post(0, wait_for_init, NULL);
	delay_us(1000);
	warm_start(0x05);
	if (tcg_present()) {
		tap_skip("INIT ends HLT (QEMU 7.2 TCG: not for the BSP)");
	} else {
		smp_spin = false;
		delay_us(1000);
		warm_start(0x0a);
	}
	tap_end();
}

static void obey_keys(void)
{
	printf("# waiting for a key\n");
	while (!(inb(0x3fd) & 1))
		cpu_pause();
	if (inb(0x3f8) != 'i')
		return;
	cmos_write(CMOS_STATUS, 0);
	lapic_send(lapic_id(), ICR_INIT | ICR_ASSERT);
	delay_us(100000);
	tap_ok(false, "INIT to the BSP resets the machine");
}

void guest_main(void)
{
	lapic_enable();
	if (opt_flag("keys")) {
		obey_keys();
		return;
	}
	smp_spin = true;
	if (smp_start() != 2)
		tap_bail("this needs two CPUs");
	cpus[0].apic_id = lapic_id();
	smp_post(1, supervise, NULL);
	wait_for_init(NULL);
}
