/*
 * The bare machine that scripts/bench compares a guest with: an EFI application that takes the same
 * umbra.conf as Umbra's loader, starts the first VM's kernel by PVH on the machine itself, and gets
 * out of the way. Kernel, modules, command line, memory map and ACPI tables are those of the VM:
 * the same code makes them. What remains different is named in tests/README.md.
 *
 * It runs in Bochs with the i440FX chipset only: guest memory begins at address 0, so that
 * everything of its own must lie above, and the ACPI tables want PIIX4's power management at their
 * ports.
 */
#include "config.h"
#include "loader.h"
#include "text.h"

#include "dev/acpi_tables.h"
#include "lib/string.h"
#include "mem/frame.h"
#include "vm/internal.h"
#include "vm/load.h"
#include "x86/asm.h"

#define COM1	     0x3f8
#define LSR_EMPTY    0x60
#define FILE_MAX     GIB
#define EXIT_TRIES   8
#define PRINT_TICKS  2000000 /* more than printing a line takes */
#define PCI_ADDRESS  0xcf8
#define PCI_DATA     0xcfc
#define I440FX	     0x12378086u
#define PIIX4_POWER  0x71138086u
#define PIIX4_SLOT   (1u << 3 | 3) /* device 1, function 3 */
#define PMBA	     0x40
#define PMREGMISC    0x80
#define PAM	     0x58 /* the first of two words: 0xc0000 to 0xfffff */
#define PAM_WRITABLE 0x33333000u

EFI_SYSTEM_TABLE *efi;
EFI_BOOT_SERVICES *bs;
EFI_HANDLE loader_handle;

static struct boot_info *info;

void bare_enter(u32 entry, u32 start_info, u64 tsc) __noreturn;
/* Called by the start-up code of GNU-EFI, which has no header for it. */
EFI_STATUS efi_main(EFI_HANDLE handle, EFI_SYSTEM_TABLE *table);

/*
 * What the hypervisor's files want of the rooms that are not here: memory is the machine's, and
 * there is one allocation, for the ACPI tables.
 */
void *heap_alloc(u64 bytes)
{
	static u8 room[ACPI_TABLES_MAX];

	return bytes <= sizeof(room) ? room : NULL;
}

void heap_free(void *p, u64 bytes)
{
}

int guest_write(struct vm *vm, gpa_t to, const void *from, size_t len)
{
	memcpy((void *)(uintptr_t)to.v, from, len);
	return 0;
}

static int target_write(void *ctx, gpa_t to, const void *src, u64 len)
{
	return guest_write(NULL, to, src, len);
}

static int target_zero(void *ctx, gpa_t to, u64 len)
{
	memset((void *)(uintptr_t)to.v, 0, len);
	return 0;
}

static void report(void *ctx, unsigned int line, const char *text)
{
	problem("%s:%u: %s", CONFIG_PATH, line, text);
}

static bool load_files(struct boot_vm *vm)
{
	bool ok = file_read(vm->kernel.path, FILE_MAX, "the limit", KEPT, &vm->kernel);

	for (u32 i = 0; i < vm->module_count; i++)
		ok &= file_read(vm->module[i].path, FILE_MAX, "the limit", KEPT, &vm->module[i]);
	return ok;
}

static bool load_config(void)
{
	struct boot_file file = {0};

	return file_read(CONFIG_PATH, CONFIG_MAX_BYTES, "the limit", TEMPORARY, &file) &&
	       !config_parse((const char *)(uintptr_t)file.base, file.bytes, &info->options,
			     info->vm, &info->vm_count, report, NULL);
}

/* Everything that is used after the kernel has been loaded lies above its memory. */
static bool check_places(const struct boot_vm *vm)
{
	const u64 places[] = {(uintptr_t)&places, (uintptr_t)check_places, (uintptr_t)info,
			      vm->kernel.base, read_cr3()};
	bool ok = true;

	for (u32 i = 0; i < ARRAY_SIZE(places); i++)
		ok &= places[i] >= vm->memory && places[i] < 4 * GIB;
	for (u32 i = 0; i < vm->module_count; i++)
		ok &= vm->module[i].base >= vm->memory;
	if (!ok)
		problem("firmware or files lie below the %llu MiB that the kernel gets",
			vm->memory / MIB);
	return ok;
}

static u32 pci_read(u32 slot, u32 reg)
{
	outl(PCI_ADDRESS, BIT(31) | slot << 8 | reg);
	return inl(PCI_DATA);
}

static void pci_write(u32 slot, u32 reg, u32 value)
{
	outl(PCI_ADDRESS, BIT(31) | slot << 8 | reg);
	outl(PCI_DATA, value);
}

static bool check_chipset(void)
{
	if (pci_read(0, 0) == I440FX && pci_read(PIIX4_SLOT, 0) == PIIX4_POWER)
		return true;
	problem("this machine's chipset is not Bochs' i440FX with PIIX4");
	return false;
}

/*
 * RAM instead of ROM below 1 MiB, and the power management where the tables say. The firmware waits
 * by its timer, at another place: once it has gone.
 */
static void set_up_chipset(void)
{
	pci_write(0, PAM, (pci_read(0, PAM) & 0xff) | PAM_WRITABLE);
	pci_write(0, PAM + 4, 0x33333333);
	pci_write(PIIX4_SLOT, PMBA, ACPI_PM_BASE);
	pci_write(PIIX4_SLOT, PMREGMISC, pci_read(PIIX4_SLOT, PMREGMISC) | 1);
}

static void put_char(char c)
{
	while (!(inb(COM1 + 5) & LSR_EMPTY))
		;
	outb(COM1, (u8)c);
}

static void print(const char *fmt, u64 value)
{
	char line[80];

	text_print(line, sizeof(line), fmt, (unsigned long long)value);
	for (const char *c = line; *c; c++)
		put_char(*c);
}

static int load_kernel(const struct boot_vm *vm, struct load_result *result)
{
	const struct acpi_config acpi = {.vcpus = 1};
	struct guest_image modules[BOOT_MAX_MODULES];
	struct load_target target = {.write = target_write, .zero = target_zero};
	struct load_request request = {
		.kernel = {(const u8 *)(uintptr_t)vm->kernel.base, vm->kernel.bytes,
			   vm->kernel.path, NULL},
		.modules = modules,
		.module_count = vm->module_count,
		.protocol = BOOT_PROTO_PVH,
		.cmdline = vm->cmdline,
		.rsdp = ACPI_TABLES_BASE,
	};
	int err;

	for (u32 i = 0; i < vm->module_count; i++)
		modules[i] = (struct guest_image){(const u8 *)(uintptr_t)vm->module[i].base,
						  vm->module[i].bytes, vm->module[i].path,
						  vm->module_args[i]};
	load_split_ram(vm->memory, &target.ram_low, &target.ram_high);
	target_zero(NULL, gpa(0), 0xa0000);
	target_zero(NULL, gpa(MIB), target.ram_low - MIB);
	err = bios_install(NULL);
	if (!err)
		err = acpi_tables_install(NULL, &acpi);
	if (!err && memcmp((const void *)ACPI_TABLES_BASE, "RSD PTR ", 8) != 0)
		return ERR_IO;
	return err ? err : guest_load(&request, &target, result);
}

/* Boot services end. */
static EFI_STATUS leave_firmware(void)
{
	EFI_STATUS status = EFI_INVALID_PARAMETER;
	UINTN key;

	for (u32 i = 0; i < EXIT_TRIES && status == EFI_INVALID_PARAMETER; i++) {
		status = memory_map(info, &key);
		if (!EFI_ERROR(status))
			status = bs->ExitBootServices(loader_handle, key);
	}
	return status;
}

static void run(void)
{
	struct load_result result;
	struct boot_vm *vm;
	u64 entry;

	info = memory_alloc(sizeof(*info), BELOW_4G, KEPT);
	if (!info || !file_volume() || !load_config())
		return;
	vm = &info->vm[0];
	if (!load_files(vm) || !check_places(vm) || !check_chipset())
		return;
	say("starting %s on the bare machine", vm->kernel.path);
	if (EFI_ERROR(leave_firmware())) {
		problem("the firmware does not let go");
		return;
	}
	irq_disable();
	set_up_chipset();
	if (load_kernel(vm, &result)) {
		print("bare: the kernel cannot be loaded\r\n", 0);
		for (const char *c = result.reason; *c; c++)
			put_char(*c);
		for (;;)
			cpu_halt();
	}
	entry = rdtsc() + PRINT_TICKS;
	print("bare: kernel entry at TSC %llu\r\n", entry);
	bare_enter(result.entry, result.ebx, entry);
}

EFI_STATUS efi_main(EFI_HANDLE handle, EFI_SYSTEM_TABLE *table)
{
	efi = table;
	bs = table->BootServices;
	loader_handle = handle;
	bs->SetWatchdogTimer(0, 0, 0, NULL);
	run();
	file_volume_close();
	memory_release();
	say("returning to firmware");
	return EFI_LOAD_ERROR;
}
