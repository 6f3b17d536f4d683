/* Leaving the firmware and entering the hypervisor. */
#include "lib/crc32.h"
#include "loader.h"
#include "memmap.h"
#include "paging.h"
#include "x86/asm.h"
#include "x86/regs.h"

#define STACK_BYTES   (32 * KIB)
#define EXIT_ATTEMPTS 8
#define CPUID_EXT_1G  BIT(26)
/* Ranges that ExitBootServices' own events may still add to the map. */
#define SPARE_RANGES 32

static u64 hv_entry, stack_top;

static u64 mapped_top(const struct boot_info *info)
{
	const struct memmap map = {
		.range = (struct boot_range *)(uintptr_t)info->memory,
		.count = info->memory_count,
	};
	u64 top = MAX(memmap_top(&map), 4 * GIB);

	/* Tables may lie in memory that the firmware calls reserved. */
	top = MAX(top, info->rsdp + PAGE_SIZE);
	top = MAX(top, info->smbios + PAGE_SIZE);
	return MAX(top, info->fb.base + info->fb.bytes);
}

bool handover_prepare(struct boot_info *info, u64 entry)
{
	struct paging_plan plan = {
		.image_virt = info->image_virt,
		.image_phys = info->image_base,
		.image_bytes = info->image_bytes,
		.pages_1g = cpuid(0x80000001, 0).edx & CPUID_EXT_1G,
	};
	EFI_STATUS status;
	void *tables, *stack, *trampoline;
	UINTN key;

	status = memory_map(info, &key);
	if (EFI_ERROR(status) || info->memory_count + SPARE_RANGES > BOOT_MAX_MEMORY) {
		problem("the firmware's memory map is unusable (%s; %u ranges, at most %u)",
			status_text(status), info->memory_count, BOOT_MAX_MEMORY - SPARE_RANGES);
		return false;
	}
	plan.top = mapped_top(info);
	if (plan.top > PAGING_TOP_MAX) {
		problem("memory reaches up to %llu GiB, Umbra can map %llu GiB", plan.top / GIB,
			PAGING_TOP_MAX / GIB);
		return false;
	}
	tables = memory_alloc(paging_pages(&plan) * PAGE_SIZE, BELOW_4G, KEPT);
	stack = memory_alloc(STACK_BYTES, BELOW_4G, KEPT);
	if (!tables || !stack) {
		memory_short("page tables", paging_pages(&plan) * PAGE_SIZE + STACK_BYTES);
		return false;
	}
	trampoline = memory_alloc(PAGE_SIZE, BELOW_640K, KEPT);
	if (!trampoline) {
		problem("no free page below 640 KiB, where other processors start");
		return false;
	}
	paging_build(&plan, tables, (uintptr_t)tables);
	info->boot_cr3 = (uintptr_t)tables;
	info->trampoline = (uintptr_t)trampoline;
	stack_top = (uintptr_t)stack + STACK_BYTES;
	hv_entry = entry;
	return true;
}

static __noreturn void enter(const struct boot_info *info)
{
	irq_disable();
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
	/* Without PGE no translation of the firmware's survives the switch. */
	write_cr4(read_cr4() & ~CR4_PGE);
	/* The call that never returns: at a function's first instruction RSP is 8 below alignment.
	 */
	asm volatile("mov %[cr3], %%cr3\n\t"
		     "mov %[stack], %%rsp\n\t"
		     "xor %%ebp, %%ebp\n\t"
		     "push %%rbp\n\t"
		     "jmp *%[entry]"
		     :
		     : [cr3] "c"(info->boot_cr3), [stack] "d"(stack_top), [entry] "a"(hv_entry),
		       "D"(info)
		     : "memory");
	__builtin_unreachable();
}

EFI_STATUS handover(struct boot_info *info)
{
	EFI_STATUS status;
	unsigned int i;
	UINTN key;

	/* The key is stale as soon as anything allocates, and ExitBootServices' events may. */
	for (i = 0; i < EXIT_ATTEMPTS; i++) {
		status = memory_map(info, &key);
		if (!EFI_ERROR(status))
			status = bs->ExitBootServices(loader_handle, key);
		if (status != EFI_INVALID_PARAMETER)
			break;
	}
	if (EFI_ERROR(status))
		return status;
	info->crc32 = 0;
	info->crc32 = crc32(0, info, sizeof(*info));
	enter(info);
}
