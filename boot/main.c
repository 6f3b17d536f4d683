/* The UEFI loader: the order of things, and the way back to the firmware when one is not right. */
#include "config.h"
#include "elf.h"
#include "loader.h"
#include "memmap.h"
#include "text.h"
#include "x86/asm.h"

#define IMAGE_FILE_MAX	(64 * MIB)
#define KERNEL_FILE_MAX (2 * GIB)
#define DISK_FILE_MAX	(64 * GIB)

EFI_SYSTEM_TABLE *efi;
EFI_BOOT_SERVICES *bs;
EFI_HANDLE loader_handle;

static void config_report(void *ctx, unsigned int line, const char *text)
{
	if (line)
		problem("%s:%u: %s", CONFIG_PATH, line, text);
	else
		problem("%s: %s", CONFIG_PATH, text);
}

static bool load_config(struct boot_info *info)
{
	struct boot_file file = {0};
	unsigned int errors;

	if (!file_read(CONFIG_PATH, CONFIG_MAX_BYTES, "the limit", TEMPORARY, &file))
		return false;
	errors = config_parse((const char *)(uintptr_t)file.base, file.bytes, &info->options,
			      info->vm, &info->vm_count, config_report, NULL);
	if (errors > CONFIG_MAX_ERRORS)
		problem("%s: %u more errors", CONFIG_PATH, errors - CONFIG_MAX_ERRORS);
	return !errors;
}

static bool load_image(struct boot_info *info, u64 *entry)
{
	struct elf_image image;
	const void *file;
	char why[120];
	void *to;

	if (!file_read(IMAGE_PATH, IMAGE_FILE_MAX, "the limit", KEPT, &info->image_file))
		return false;
	file = (const void *)(uintptr_t)info->image_file.base;
	if (elf_check(file, info->image_file.bytes, &image, why, sizeof(why))) {
		problem("%s %s; install Umbra's own umbra.elf again", IMAGE_PATH, why);
		return false;
	}
	to = memory_alloc_2m(image.bytes, KEPT);
	if (!to) {
		memory_short("the hypervisor's image", image.bytes);
		return false;
	}
	elf_load(file, &image, to);
	info->image_base = (uintptr_t)to;
	info->image_bytes = image.bytes;
	info->image_virt = image.virt;
	*entry = image.entry;
	return true;
}

/* Nobody writes to a disk's file: VMs that name the same one share it. */
static bool load_disk(const struct boot_info *info, struct boot_file *disk)
{
	for (const struct boot_vm *vm = info->vm; vm < info->vm + info->vm_count; vm++) {
		for (u32 i = 0; i < vm->disk_count; i++) {
			if (vm->disk[i].base && text_equal(vm->disk[i].path, disk->path)) {
				*disk = vm->disk[i];
				return true;
			}
		}
	}
	return file_read(disk->path, DISK_FILE_MAX, "the limit", KEPT, disk);
}

static bool load_guest(const struct boot_info *info, struct boot_vm *vm)
{
	char limit[80];
	u32 i;
	bool ok;

	text_print(limit, sizeof(limit), "memory of [vm %s]", vm->name);
	/* An ELF kernel's file may be larger than what it loads, by its debug information. */
	ok = file_read(vm->kernel.path, KERNEL_FILE_MAX, "the limit", KEPT, &vm->kernel);
	for (i = 0; i < vm->module_count; i++)
		ok &= file_read(vm->module[i].path, vm->memory, limit, KEPT, &vm->module[i]);
	for (i = 0; i < vm->disk_count; i++)
		ok &= load_disk(info, &vm->disk[i]);
	return ok;
}

/* Frames of RAM, persistent regions that are made of RAM (a model twice), and every page of its
 * disks written to (before the disks are loaded: without). */
static u64 memory_of(const struct boot_vm *vm)
{
	u64 bytes = vm->remote_count ? vm->local : vm->memory;
	u32 i;

	for (i = 0; i < vm->disk_count; i++)
		if (vm->disk_mode[i] == BOOT_DISK_COW)
			bytes += ALIGN_UP(vm->disk[i].bytes, PAGE_SIZE);
	for (i = 0; i < vm->pmem_count; i++)
		bytes += vm->pmem[i].source == BOOT_PMEM_MODEL ? 2 * vm->pmem[i].bytes
							       : vm->pmem[i].bytes;
	return bytes;
}

/* The guests' memory must fit into what is usable once the loader and the firmware are gone. */
static bool check_memory(struct boot_info *info)
{
	struct memmap map = {.range = info->memory};
	u64 wanted = 0, bytes, usable;
	EFI_STATUS status;
	UINTN key;
	u32 i;

	status = memory_map(info, &key);
	if (EFI_ERROR(status)) {
		problem("the firmware's memory map is unusable: %s", status_text(status));
		return false;
	}
	map.count = info->memory_count;
	usable = memmap_sum(&map, BOOT_MEM_USABLE);
	for (i = 0; i < info->vm_count; i++) {
		bytes = memory_of(&info->vm[i]);
		/* In sequence a VM's memory is free when the next one starts. */
		if (info->options.order == BOOT_ORDER_SEQUENCE)
			wanted = MAX(wanted, bytes);
		else
			wanted += bytes;
	}
	if (wanted <= usable)
		return true;
	problem("not enough memory: the VMs want %llu MiB, %llu MiB are usable; lower \"memory\" "
		"or the size of disks in %s",
		wanted / MIB, usable / MIB, CONFIG_PATH);
	return false;
}

static bool check_pins(const struct boot_info *info)
{
	u32 cpus = info->cpu_count;

	if (info->options.cpus)
		cpus = MIN(cpus, info->options.cpus);
	return !config_check_cpus(info->vm, info->vm_count, cpus, config_report, NULL);
}

/*
 * Every stage says all that is wrong with it, and a stage is left out only if it needs an earlier
 * one: who has to mend two things learns of both at once.
 */
static EFI_STATUS run(u64 start_tsc)
{
	struct boot_info *info;
	struct vmx_caps caps;
	bool ok, config_ok;
	EFI_STATUS status;
	u64 entry = 0;
	u32 i;

	caps_read(&caps);
	info = memory_alloc(sizeof(*info), BELOW_4G, KEPT);
	if (!info) {
		memory_short("boot_info", sizeof(*info));
		return EFI_OUT_OF_RESOURCES;
	}
	bs->SetMem(info, sizeof(*info), 0);
	info->magic = BOOT_INFO_MAGIC;
	info->version = BOOT_INFO_VERSION;
	info->size = sizeof(*info);
	info->start_tsc = start_tsc;
	if (!file_volume()) {
		machine_check(&caps, BOOT_ROLE_HYPERVISOR);
		return EFI_LOAD_ERROR;
	}
	config_ok = load_config(info);
	/* A memory node needs no VT-x: what the machine has to have is known only now. */
	ok = machine_check(&caps, info->options.role);
	if (config_ok && caps.has_vmx && info->options.log_level == BOOT_LOG_DEBUG)
		machine_print_caps(&caps);
	ok &= load_image(info, &entry);
	machine_tables(info);
	machine_framebuffer(&info->fb);
	machine_cpus(info);
	if (config_ok) {
		config_ok = check_pins(info) & check_memory(info);
		for (i = 0; i < info->vm_count; i++)
			config_ok &= load_guest(info, &info->vm[i]);
		config_ok = config_ok && check_memory(info);
	}
	if (!ok || !config_ok)
		return ok ? EFI_LOAD_ERROR : EFI_UNSUPPORTED;
	info->tsc_hz = machine_tsc_hz();
	if (!handover_prepare(info, entry))
		return EFI_LOAD_ERROR;
	say("starting Umbra");
	status = handover(info);
	problem("the firmware does not let go (ExitBootServices: %s)", status_text(status));
	return status;
}

/* Called by the start-up code of GNU-EFI, which has no header for it. */
EFI_STATUS efi_main(EFI_HANDLE handle, EFI_SYSTEM_TABLE *table);

EFI_STATUS efi_main(EFI_HANDLE handle, EFI_SYSTEM_TABLE *table)
{
	u64 start_tsc = rdtsc();
	EFI_STATUS status;

	efi = table;
	bs = table->BootServices;
	loader_handle = handle;
	/*
	 * The firmware resets the machine if a loader takes five minutes, which a slow stick may.
	 * It is not armed again on the way back: the boot manager has it off there anyhow, and in
	 * the UEFI shell it would reset the machine under the user's hands.
	 */
	bs->SetWatchdogTimer(0, 0, 0, NULL);
	say("Umbra, a hypervisor for VT-x");
	status = run(start_tsc);
	file_volume_close();
	memory_release();
	say("returning to firmware");
	return status;
}
