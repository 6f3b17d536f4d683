/* The demonstration: says where it runs, what it was given, and ends with success. */
#include "apic.h"
#include "cpu.h"
#include "mem.h"
#include "smp.h"
#include "umbra.h"

static void show_cpu(void)
{
	struct cpuid_regs r = cpuid(0, 0);
	char vendor[13] = {0}, brand[49] = {0};

	memcpy(vendor, &r.ebx, 4);
	memcpy(vendor + 4, &r.edx, 4);
	memcpy(vendor + 8, &r.ecx, 4);
	for (u32 i = 0; i < 3 && cpuid(0x80000000, 0).eax >= 0x80000004; i++) {
		r = cpuid(0x80000002 + i, 0);
		memcpy(brand + 16 * i, &r, 16);
	}
	tap_note("CPU %s, %s, %lu kHz", vendor, brand, tsc_khz());
}

static void show_memory(void)
{
	for (u32 i = 0; i < boot.range_count; i++) {
		const struct mem_range *m = &boot.range[i];

		tap_note("memory %012lx-%012lx %s", m->base, m->base + m->bytes,
			 m->type == MEM_USABLE ? "usable" : "reserved");
	}
	for (u32 i = 0; i < boot.module_count; i++) {
		const struct module *m = &boot.module[i];

		tap_note("module %lx, %lu bytes: %s", m->base, m->bytes, m->cmdline);
	}
}

/* Through asm: the compiler takes addresses below a page for mistakes. */
static u32 low_memory(u32 at)
{
	u32 value;

	asm volatile("movl (%1), %0" : "=r"(value) : "r"((u64)at) : "memory");
	return value;
}

void guest_main(void)
{
	char word[64];

	if (umbra_present())
		tap_note("Hello from vCPU %u of VM %u on Umbra (hypercall ABI %ld)",
			 umbra_vcpu_index(), cpuid(UMBRA_CPUID_INFO, 0).ebx,
			 hypercall(HC_VERSION, 0, 0, 0, 0));
	else
		tap_note("Hello from a machine that is not Umbra's");
	tap_note("started by %s, command line: %s",
		 boot.protocol == PROTO_PVH ? "PVH" : "Multiboot", boot.cmdline);
	show_cpu();
	show_memory();
	tap_ok(ram_bytes() >= 3 << 20, "%lu KiB of RAM", ram_bytes() / 1024);
	tap_ok(ram_contains((u64)(uintptr_t)guest_main & ~(PAGE_SIZE - 1), PAGE_SIZE),
	       "the kernel lies in RAM");
	/* As on any PC: what a kernel without a memory map goes by. */
	tap_is(low_memory(0x413) & 0xffff, 639, "KiB of base memory in the BIOS data area");
	tap_ok(low_memory(0x15 * 4), "a vector for INT 0x15");
	for (u32 i = 0; i < boot.module_count; i++)
		tap_ok(ram_contains(boot.module[i].base, boot.module[i].bytes),
		       "module %u lies in RAM", i);
	if (umbra_present())
		tap_is((u64)hypercall(HC_VERSION, 0, 0, 0, 0), UMBRA_HYPERCALL_VERSION,
		       "hypercall ABI version");
	if (opt_str("expect-protocol", word, sizeof(word)))
		tap_ok(!strcmp(word, boot.protocol == PROTO_PVH ? "pvh" : "multiboot"),
		       "started by %s", word);
	if (opt_u64("modules", boot.module_count) != boot.module_count)
		tap_ok(false, "%u modules instead of the expected", boot.module_count);
	if (opt_flag("smp"))
		tap_is(smp_start(), smp_expected(), "all CPUs are online");
	tap_summary();
	guest_exit(tap_failures() ? 1 : (u32)opt_u64("exit", 0));
}
