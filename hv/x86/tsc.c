#include "x86/tsc.h"

#include <umbra/boot_info.h>

#include "lib/log.h"
#include "lib/string.h"
#include "x86/acpi.h"
#include "x86/asm.h"
#include "x86/cpu.h"
#include "x86/paging.h"

u64 tsc_hz;
u64 tsc_start;

u64 log_clock_us(void)
{
	return tsc_hz ? mul_div(rdtsc() - tsc_start, 1000000, tsc_hz) : 0;
}

unsigned int log_cpu(void)
{
	return this_cpu()->index;
}

/*
 * A measurement lasts about 10 ms. A timer that does not count must not hang us: after
 * GIVE_UP_READS reads and GIVE_UP_TSC cycles it is called dead (a port read takes a microsecond on
 * hardware, a few instructions in an emulator; no TSC is slower than 10 MHz or faster than 10 GHz).
 */
#define GIVE_UP_READS 100000u
#define GIVE_UP_TSC   (1ull << 28)
#define ROUNDS	      3

struct patience {
	u32 reads;
	u64 start;
};

static bool exhausted(struct patience *p)
{
	return ++p->reads > GIVE_UP_READS && rdtsc() - p->start > GIVE_UP_TSC;
}

/* 8254 channel 2, gated through port 0x61, mode 0: its output rises at terminal count. */
#define PIT_HZ	  1193182ull
#define PIT_COUNT 11932 /* 10 ms */

static u64 measure_pit(void)
{
	struct patience p = {0, rdtsc()};
	u8 port61 = inb(0x61);
	u64 start, end = 0;

	outb(0x61, (port61 & ~2u) | 1); /* gate on, speaker off */
	outb(0x43, 0xb0);		/* channel 2, low then high byte, mode 0 */
	outb(0x42, PIT_COUNT & 0xff);
	outb(0x42, PIT_COUNT >> 8);
	start = rdtsc();
	if (!(inb(0x61) & 0x20)) { /* else the output is stuck at 1 */
		while (!exhausted(&p))
			if (inb(0x61) & 0x20) {
				end = rdtsc();
				break;
			}
	}
	outb(0x61, port61);
	return end ? mul_div(end - start, PIT_HZ, PIT_COUNT) : 0;
}

/* ACPI power-management timer (ACPI 6.5, 4.8.2.1): 24 or 32 bits; 24 are enough for 4 seconds. */
#define PM_HZ	3579545ull
#define PM_MASK 0xffffffu
#define PM_STEP 35795 /* 10 ms */

static u16 pm_port;

static u64 measure_pm(void)
{
	struct patience p = {0, rdtsc()};
	u32 first, now;
	u64 start;

	if (!pm_port)
		return 0;
	/* Begin at an edge. */
	first = inl(pm_port);
	do {
		now = inl(pm_port);
		if (exhausted(&p))
			return 0;
	} while (now == first);
	start = rdtsc();
	first = now;
	do {
		now = inl(pm_port);
		if (exhausted(&p))
			return 0;
	} while (((now - first) & PM_MASK) < PM_STEP);
	return mul_div(rdtsc() - start, PM_HZ, (now - first) & PM_MASK);
}

/* HPET main counter (IA-PC HPET 1.0a, 2.3): period in femtoseconds, 32 bits are enough. */
#define HPET_PERIOD  0x004
#define HPET_CONFIG  0x010
#define HPET_COUNTER 0x0f0

static volatile u8 *hpet;

static u32 hpet_read(u32 reg)
{
	return *(volatile u32 *)(hpet + reg);
}

static u64 measure_hpet(void)
{
	struct patience p = {0, rdtsc()};
	u32 period, first, now, step;
	u64 start;

	if (!hpet)
		return 0;
	period = hpet_read(HPET_PERIOD);
	if (period < 10000 || period > 100000000) /* 0x05f5e100, the specification's limit */
		return 0;
	if (!(hpet_read(HPET_CONFIG) & 1))
		*(volatile u32 *)(hpet + HPET_CONFIG) = hpet_read(HPET_CONFIG) | 1;
	step = (u32)(10000000000000ull / period);
	first = hpet_read(HPET_COUNTER);
	start = rdtsc();
	do {
		now = hpet_read(HPET_COUNTER);
		if (exhausted(&p))
			return 0;
	} while (now - first < step);
	start = rdtsc() - start;
	return mul_div(start, 1000000000000000ull, (u64)(now - first) * period);
}

static void find_timers(hpa_t rsdp)
{
	const struct acpi_header *fadt = acpi_find(rsdp, "FACP");
	const struct acpi_header *table = acpi_find(rsdp, "HPET");
	u64 base = 0;
	u32 port = 0;

	if (fadt && fadt->length >= 80)
		memcpy(&port, (const u8 *)fadt + 76, sizeof(port)); /* PM_TMR_BLK */
	if (port < 0x10000)
		pm_port = (u16)port;
	if (table && table->length >= 56 && ((const u8 *)table)[40] == 0) /* in memory */
		memcpy(&base, (const u8 *)table + 44, sizeof(base));
	if (base)
		hpet = paging_map_mmio(hpa(base), 1024, PAGING_UC);
}

/* CPUID leaves 15H and 16H: what the processor says of itself. */
static u64 from_cpuid(void)
{
	u32 leaves = cpuid(0, 0).eax;
	struct cpuid_regs r;

	if (leaves >= 0x15) {
		r = cpuid(0x15, 0);
		if (r.eax && r.ebx && r.ecx)
			return mul_div(r.ecx, r.ebx, r.eax);
	}
	if (leaves >= 0x16)
		return (u64)(cpuid(0x16, 0).eax & 0xffff) * 1000000;
	return 0;
}

/* The middle one of three: one run may be disturbed by an SMI or a hypervisor below us. */
static u64 measure(u64 (*timer)(void))
{
	u64 a = timer(), b, c;

	if (!a)
		return 0;
	b = timer();
	c = timer();
	return MAX(MIN(a, b), MIN(MAX(a, b), c));
}

static bool agree(u64 a, u64 b, u64 percent)
{
	u64 apart = a > b ? a - b : b - a;

	return a && b && apart <= a / 100 * percent;
}

void tsc_init(const struct boot_info *boot)
{
	struct {
		const char *name;
		u64 hz, percent; /* how far it may be off as a witness */
	} w[] = {
		{"PM timer", 0, 1},
		{"HPET", 0, 1},
		{"8254", 0, 1},
		{"CPUID", 0, 1},
		{"the firmware's clock", 0, 5},
	};
	unsigned int i, k;

	find_timers(hpa(boot->rsdp));
	w[0].hz = measure(measure_pm);
	w[1].hz = measure(measure_hpet);
	w[2].hz = measure(measure_pit);
	w[3].hz = from_cpuid();
	w[4].hz = boot->tsc_hz;
	for (i = 0; i < ARRAY_SIZE(w); i++)
		if (w[i].hz)
			log_debug("TSC by %s: %lu kHz", w[i].name, (w[i].hz / 1000));
	for (i = 0; i + 1 < ARRAY_SIZE(w); i++)
		for (k = i + 1; k < ARRAY_SIZE(w); k++)
			if (agree(w[i].hz, w[k].hz, w[k].percent)) {
				tsc_hz = w[i].hz;
				log_info("TSC %lu.%03lu MHz by %s, confirmed by %s",
					 (tsc_hz / 1000000), (tsc_hz / 1000 % 1000), w[i].name,
					 w[k].name);
				return;
			}
	for (i = 0; i < ARRAY_SIZE(w) && !w[i].hz; i++)
		;
	if (i == ARRAY_SIZE(w)) {
		tsc_hz = 1000000000;
		log_error("no timer counts: taking the TSC for 1 GHz");
		return;
	}
	tsc_hz = w[i].hz;
	log_warn("TSC %lu.%03lu MHz by %s alone, no other clock agrees", (tsc_hz / 1000000),
		 (tsc_hz / 1000 % 1000), w[i].name);
}
