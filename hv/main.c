/* Start-up order, nothing else. */
#include <umbra/boot_info.h>
#include <umbra/features.h>

#include "lib/crc32.h"
#include "lib/log.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "lib/symbols.h"
#include "lib/zmm.h"
#include "mem/frame.h"
#include "net/net.h"
#include "pmem/pmem.h"
#include "remote/memnode.h"
#include "remote/service.h"
#include "vm/vm.h"
#include "x86/apic.h"
#include "x86/asm.h"
#include "x86/cpu.h"
#include "x86/desc.h"
#include "x86/fbcon.h"
#include "x86/fpu.h"
#include "x86/ioapic.h"
#include "x86/paging.h"
#include "x86/regs.h"
#include "x86/smp.h"
#include "x86/tsc.h"
#include "x86/uart.h"

#ifndef UMBRA_VERSION
#define UMBRA_VERSION "0.1"
#endif

#define COM1 0x3f8

static const struct boot_info *boot; /* in the direct map; nobody writes to it any more */
static u32 vms_ready;		     /* atomic: the other CPUs may go */
static u32 cpus_unused;		     /* atomic: the other CPUs are not needed */

__noreturn void start_bsp(u64 boot_phys);

hpa_t paging_alloc_table(void)
{
	hpa_t frame;

	if (frame_alloc_page(FRAME_HV, &frame) < 0)
		panic("no memory for the hypervisor's page tables and stacks");
	return frame;
}

/* Nothing in a block that fails here can be used, not even the log's port. */
static const char *boot_info_error(const struct boot_info *b)
{
	static const u32 zero;
	size_t field = offsetof(struct boot_info, crc32), after = field + sizeof(b->crc32);
	u32 crc;

	if (b->magic != BOOT_INFO_MAGIC)
		return "its magic number is wrong";
	if (b->version != BOOT_INFO_VERSION || b->size != sizeof(*b))
		return "it is of another version";
	crc = crc32(0, b, field);
	crc = crc32(crc, &zero, sizeof(zero));
	crc = crc32(crc, (const u8 *)b + after, sizeof(*b) - after);
	if (crc != b->crc32)
		return "its checksum is wrong";
	if (b->memory_count > BOOT_MAX_MEMORY || b->cpu_count > BOOT_MAX_CPUS ||
	    b->vm_count > BOOT_MAX_VMS)
		return "a count is out of range";
	return NULL;
}

static void check_boot_info(const struct boot_info *b)
{
	const char *error = boot_info_error(b);

	if (!error)
		return;
	uart_log(COM1);
	log_error("the loader's boot_info cannot be used: %s", error);
	machine_end(70);
}

static void start_log(void)
{
	static const enum log_level levels[] = {LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG};

	tsc_start = boot->start_tsc;
	tsc_hz = boot->tsc_hz; /* rough, until tsc_init() */
	machine_set_poweroff(boot->options.poweroff);
	log_set_level(levels[MIN(boot->options.log_level, (u32)LOG_DEBUG)]);
	uart_log(boot->options.log_port);
	uart_init(boot->options.console_port);
	log_info("Umbra " UMBRA_VERSION);
}

static void report_cpu(void)
{
	char brand[49] = "unnamed CPU";
	u32 id = cpuid(1, 0).eax, family = id >> 8 & 0xf, model = id >> 4 & 0xf, r[12];
	u64 cr4 = read_cr4();

	if (cpuid(0x80000000, 0).eax >= 0x80000004) {
		for (u32 i = 0; i < 3; i++) {
			struct cpuid_regs c = cpuid(0x80000002 + i, 0);

			memcpy(r + 4 * i, &c, sizeof(c));
		}
		memcpy(brand, r, sizeof(r));
	}
	/* SDM 2A, CPUID leaf 1: the extended parts count for these families only. */
	if (family == 6 || family == 15)
		model |= id >> 12 & 0xf0;
	if (family == 15)
		family += id >> 20 & 0xff;
	log_info("%s (family %u model %u stepping %u)", brand, family, model, id & 0xf);
	log_info("%s%s%s, extended state 0x%lx", apic_describe(), cr4 & CR4_SMEP ? ", SMEP" : "",
		 cr4 & CR4_SMAP ? ", SMAP" : "", xsave_features());
}

static void report_memory(void)
{
	struct frame_stats s;

	frame_stats(&s);
	log_info("memory: %lu MiB, %lu MiB of them free", (s.total >> 8), (s.free >> 8));
}

static bool need_x2apic(void)
{
	for (u32 i = 0; i < boot->cpu_count; i++)
		if (boot->cpu[i].apic_id > 254)
			return true;
	return false;
}

static __noreturn void run_node(void)
{
	__atomic_store_n(&cpus_unused, 1, __ATOMIC_RELEASE);
	if (memnode_init(boot))
		machine_end(70);
	memnode_run();
}

/* On the guarded stack, with the hypervisor's own page tables. */
static __noreturn void start_on_stack(void)
{
	if (boot->options.screen)
		fbcon_init(&boot->fb);
	symbols_init(phys_to_ptr(hpa(boot->image_file.base)), boot->image_file.bytes);
	fpu_init();
	apic_choose_mode(need_x2apic());
	ioapic_mask_all(hpa(boot->rsdp));
	cpu_init(&cpus[0]);
	zmm_init();
	cpus[0].online = 1;
	report_cpu();
	report_memory();
	tsc_init(boot);
	apic_timer_calibrate();
	smp_start(boot, boot->options.cpus);
	log_info("%u CPU%s", cpu_count, cpu_count == 1 ? "" : "s");
	net_init(boot);
	if (boot->options.role == BOOT_ROLE_MEMORY_NODE)
		run_node();
	service_init(boot);

	pmem_init(boot);
	vm_start(boot);
	__atomic_store_n(&vms_ready, 1, __ATOMIC_RELEASE);
	vm_cpu_main();
}

void start_bsp(u64 boot_phys)
{
	u8 *tops[STACK_COUNT];

	desc_init_idt();
	desc_load(&cpus[0]);
	boot = phys_to_ptr(hpa(boot_phys));
	check_boot_info(boot);
	start_log();
	frame_init(boot);
	paging_init(boot);
	paging_map_stacks(0, tops);
	stack_switch(tops[0], start_on_stack);
}

void cpu_entry(void)
{
	while (!__atomic_load_n(&vms_ready, __ATOMIC_ACQUIRE)) {
		cpu_relax();
		while (__atomic_load_n(&cpus_unused, __ATOMIC_ACQUIRE))
			cpu_idle();
	}
	vm_cpu_main();
}
