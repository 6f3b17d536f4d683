/* What the machine has: processors, framebuffer, firmware tables, clock, VMX. */
#include "acpi.h"
#include "loader.h"
#include "text.h"
#include "x86/asm.h"
#include "x86/regs.h"

#define STALL_US 2000

/* EFI_MP_SERVICES_PROTOCOL (UEFI PI 1.7, volume 2, section 13.4); gnu-efi has no header of it. */
#define MP_SERVICES_GUID                                               \
	{                                                              \
		0x3fdda605, 0xa76e, 0x4f46,                            \
		{                                                      \
			0xad, 0x29, 0x12, 0xf4, 0x53, 0x1b, 0x3d, 0x08 \
		}                                                      \
	}
#define MP_BSP	   BIT(0)
#define MP_ENABLED BIT(1)
#define MP_HEALTHY BIT(2)

struct mp_processor {
	UINT64 id; /* local APIC ID */
	UINT32 flags;
	UINT32 location[3];
	UINT32 extended[6]; /* written by newer firmware only when asked for */
};

struct mp_services {
	EFI_STATUS(EFIAPI *count)(struct mp_services *self, UINTN *count, UINTN *enabled);
	EFI_STATUS(EFIAPI *info)(struct mp_services *self, UINTN index, struct mp_processor *out);
	/* More members follow that are not used. */
};

static const void *identity(u64 address, size_t bytes)
{
	return (const void *)(uintptr_t)address;
}

/* SDM 3A 10.4.6: the x2APIC ID where leaf 0BH exists, else the initial APIC ID. */
static u32 own_apic_id(void)
{
	if (cpuid(0, 0).eax >= 0xb && cpuid(0xb, 0).ebx)
		return cpuid(0xb, 0).edx;
	return cpuid(1, 0).ebx >> 24;
}

static u32 cpus_from_mp(struct boot_cpu *cpus)
{
	EFI_GUID guid = MP_SERVICES_GUID;
	struct mp_processor p;
	struct mp_services *mp;
	UINTN total, enabled, i;
	u32 count = 0;

	if (EFI_ERROR(bs->LocateProtocol(&guid, NULL, (void **)&mp)) ||
	    EFI_ERROR(mp->count(mp, &total, &enabled)))
		return 0;
	for (i = 0; i < total; i++) {
		if (EFI_ERROR(mp->info(mp, i, &p)) || !(p.flags & MP_ENABLED) ||
		    !(p.flags & MP_HEALTHY))
			continue;
		if (count < BOOT_MAX_CPUS)
			cpus[count] = (struct boot_cpu){.apic_id = (u32)p.id};
		count++;
	}
	return count;
}

/* The bootstrap processor is CPU 0, whatever order the firmware has. */
static void put_self_first(struct boot_cpu *cpus, u32 count)
{
	struct boot_cpu self = {.apic_id = own_apic_id(), .flags = BOOT_CPU_BSP};
	u32 i;

	for (i = 0; i < count - 1 && cpus[i].apic_id != self.apic_id; i++)
		;
	for (; i; i--)
		cpus[i] = cpus[i - 1];
	cpus[0] = self;
}

void machine_cpus(struct boot_info *info)
{
	const char *source = "MP services";
	u32 count = cpus_from_mp(info->cpu);

	if (!count) {
		source = "ACPI MADT";
		count = acpi_cpus(acpi_find(info->rsdp, "APIC", identity), info->cpu, identity);
	}
	if (!count) {
		source = "neither MP services nor an ACPI MADT: the bootstrap processor alone";
		count = 1;
	}
	info->cpu_count = MIN(count, (u32)BOOT_MAX_CPUS);
	put_self_first(info->cpu, info->cpu_count);
	if (count > BOOT_MAX_CPUS)
		say("%u processors (%s); the first %u are used", count, source, BOOT_MAX_CPUS);
	else
		say("%u processor%s (%s)", count, count == 1 ? "" : "s", source);
}

void machine_framebuffer(struct boot_framebuffer *fb)
{
	EFI_GUID guid = EFI_GRAPHICS_OUTPUT_PROTOCOL_GUID;
	EFI_GRAPHICS_OUTPUT_MODE_INFORMATION *mode;
	EFI_GRAPHICS_OUTPUT_PROTOCOL *gop;
	const EFI_PIXEL_BITMASK *mask;

	*fb = (struct boot_framebuffer){.format = BOOT_FB_NONE};
	if (EFI_ERROR(bs->LocateProtocol(&guid, NULL, (void **)&gop)) || !gop->Mode ||
	    !gop->Mode->Info)
		return;
	mode = gop->Mode->Info;
	mask = &mode->PixelInformation;
	if (mode->PixelFormat == PixelRedGreenBlueReserved8BitPerColor)
		fb->format = BOOT_FB_RGBX;
	else if (mode->PixelFormat == PixelBlueGreenRedReserved8BitPerColor)
		fb->format = BOOT_FB_BGRX;
	else if (mode->PixelFormat == PixelBitMask && mask->RedMask == 0xff &&
		 mask->GreenMask == 0xff00 && mask->BlueMask == 0xff0000)
		fb->format = BOOT_FB_RGBX;
	else if (mode->PixelFormat == PixelBitMask && mask->RedMask == 0xff0000 &&
		 mask->GreenMask == 0xff00 && mask->BlueMask == 0xff)
		fb->format = BOOT_FB_BGRX;
	else
		return;
	fb->base = gop->Mode->FrameBufferBase;
	fb->bytes = gop->Mode->FrameBufferSize;
	fb->width = mode->HorizontalResolution;
	fb->height = mode->VerticalResolution;
	fb->stride = mode->PixelsPerScanLine;
	/* A framebuffer smaller than its own mode would have us write beyond it. */
	if (!fb->base || fb->stride < fb->width || !fb->height ||
	    fb->bytes / 4 / fb->height < fb->stride)
		*fb = (struct boot_framebuffer){.format = BOOT_FB_NONE};
}

static bool same_guid(const EFI_GUID *a, const EFI_GUID *b)
{
	const u8 *p = (const u8 *)a, *q = (const u8 *)b;
	size_t i;

	for (i = 0; i < sizeof(*a); i++)
		if (p[i] != q[i])
			return false;
	return true;
}

static u64 firmware_table(EFI_GUID guid)
{
	UINTN i;

	for (i = 0; i < efi->NumberOfTableEntries; i++)
		if (same_guid(&efi->ConfigurationTable[i].VendorGuid, &guid))
			return (uintptr_t)efi->ConfigurationTable[i].VendorTable;
	return 0;
}

void machine_tables(struct boot_info *info)
{
	static const EFI_GUID acpi2 = ACPI_20_TABLE_GUID, acpi1 = ACPI_TABLE_GUID;
	static const EFI_GUID smbios3 = SMBIOS3_TABLE_GUID, smbios = SMBIOS_TABLE_GUID;

	info->rsdp = firmware_table(acpi2);
	if (!info->rsdp)
		info->rsdp = firmware_table(acpi1);
	info->smbios = firmware_table(smbios3);
	if (!info->smbios)
		info->smbios = firmware_table(smbios);
}

u64 machine_tsc_hz(void)
{
	u64 start = rdtsc();

	bs->Stall(STALL_US);
	return (rdtsc() - start) * (1000000 / STALL_US);
}

static void report(void *ctx, const char *text)
{
	problem("%s", text);
}

bool machine_check(const struct vmx_caps *caps, u32 role)
{
	bool ok = role == BOOT_ROLE_MEMORY_NODE || !caps_check(caps, report, NULL);

	if (read_cr4() & CR4_LA57) {
		problem("the firmware runs with 5-level paging (CR4.LA57 is 1), which Umbra cannot "
			"take "
			"over; switch 5-level paging off in the firmware set-up");
		ok = false;
	}
	return ok;
}

void machine_print_caps(const struct vmx_caps *caps)
{
	const struct {
		const char *name;
		u64 value;
	} rows[] = {
		{"feature_control", caps->feature_control},
		{"basic", caps->basic},
		{"misc", caps->misc},
		{"pin", caps->pin},
		{"proc", caps->proc},
		{"proc2", caps->proc2},
		{"proc3", caps->proc3},
		{"exit", caps->exit},
		{"entry", caps->entry},
		{"ept_vpid", caps->ept_vpid},
		{"vmfunc", caps->vmfunc},
		{"cr0_fixed0", caps->cr0_fixed0},
		{"cr0_fixed1", caps->cr0_fixed1},
		{"cr4_fixed0", caps->cr4_fixed0},
		{"cr4_fixed1", caps->cr4_fixed1},
		{"cpuid_1_ecx", caps->cpuid_1_ecx},
		{"cpuid_1_edx", caps->cpuid_1_edx},
		{"cpuid_7_ebx", caps->cpuid_7_ebx},
		{"cpuid_7_ecx", caps->cpuid_7_ecx},
		{"cpuid_d1_eax", caps->cpuid_d1_eax},
		{"cpuid_80000001_edx", caps->cpuid_80000001_edx},
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(rows); i++)
		say("caps: %s = 0x%llx", rows[i].name, (unsigned long long)rows[i].value);
}
