/* The tables themselves: see acpi_tables.h. Section numbers are those of ACPI 6.5. */
#include "dev/acpi_tables.h"

#include "dev/acpi_pm.h"
#include "dev/ioapic.h"
#include "dev/lapic.h"
#include "dsdt.h" /* generated: dsdt_aml[] */
#include "lib/string.h"
#include "mem/frame.h"
#include "pmem/vnfit.h"
#include "vm/memory.h"

#define OEM_ID	    "UMBRA"
#define OEM_TABLE   "UMBRAVM"
#define CREATOR	    "UMBR"
#define RESET_PORT  0xcf9
#define RESET_VALUE 6 /* a hard reset: i8042.c */
#define RTC_CENTURY 0x32

struct table_header { /* 5.2.6 */
	char signature[4];
	u32 length;
	u8 revision, checksum;
	char oem_id[6], oem_table[8];
	u32 oem_revision;
	char creator[4];
	u32 creator_revision;
} __packed;

struct rsdp { /* 5.2.5.3 */
	char signature[8];
	u8 checksum; /* of the first 20 bytes */
	char oem_id[6];
	u8 revision;
	u32 rsdt, length;
	u64 xsdt;
	u8 extended_checksum, reserved[3];
} __packed;

struct address { /* generic address structure, 5.2.3.2 */
	u8 space, bit_width, bit_offset, access;
	u64 at;
} __packed;
#define SPACE_IO     1
#define ACCESS_BYTE  1
#define ACCESS_WORD  2
#define ACCESS_DWORD 3

struct fadt { /* 5.2.9 */
	struct table_header header;
	u32 facs, dsdt;
	u8 reserved1, profile;
	u16 sci;
	u32 smi_cmd;
	u8 acpi_enable, acpi_disable, s4bios, pstate;
	u32 pm1a_evt, pm1b_evt, pm1a_cnt, pm1b_cnt, pm2_cnt, pm_tmr, gpe0, gpe1;
	u8 pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len, gpe0_len, gpe1_len, gpe1_base;
	u8 cst_cnt;
	u16 c2_latency, c3_latency, flush_size, flush_stride;
	u8 duty_offset, duty_width, day_alarm, month_alarm, century;
	u16 boot_arch;
	u8 reserved2;
	u32 flags;
	struct address reset;
	u8 reset_value;
	u16 arm_boot_arch;
	u8 minor;
	u64 x_facs, x_dsdt;
	struct address x_pm1a_evt, x_pm1b_evt, x_pm1a_cnt, x_pm1b_cnt, x_pm2_cnt, x_pm_tmr;
	struct address x_gpe0, x_gpe1, sleep_control, sleep_status;
	char hypervisor[8];
} __packed;
/* Flags, table 5.10. */
#define FADT_WBINVD	   BIT(0)
#define FADT_PROC_C1	   BIT(2)
#define FADT_NO_SLP_BUTTON BIT(5) /* as fixed hardware */
#define FADT_TMR_VAL_EXT   BIT(8) /* 32 bits */
#define FADT_RESET_REG	   BIT(10)
#define FADT_HEADLESS	   BIT(12)
/* IA-PC boot architecture, table 5.11. Not "8042": there is one, but nothing behind it. */
#define BOOT_LEGACY_DEVICES BIT(0)
#define BOOT_NO_VGA	    BIT(2)
#define BOOT_NO_MSI	    BIT(3)
#define BOOT_NO_ASPM	    BIT(4)

struct facs { /* 5.2.10 */
	char signature[4];
	u32 length, hardware_signature, waking_vector, global_lock, flags;
	u64 x_waking_vector;
	u8 version, reserved1[3];
	u32 ospm_flags;
	u8 reserved2[24];
} __packed;

/* Interrupt controller structures, 5.2.12. */
struct madt_lapic {
	u8 type, length, uid, apic_id;
	u32 flags; /* bit 0: enabled */
} __packed;
struct madt_ioapic {
	u8 type, length, id, reserved;
	u32 address, gsi_base;
} __packed;
struct madt_override {
	u8 type, length, bus, irq;
	u32 gsi;
	u16 flags;
} __packed;
struct madt_nmi {
	u8 type, length, uid;
	u16 flags;
	u8 lint;
} __packed;
enum {
	MADT_LAPIC = 0,
	MADT_IOAPIC = 1,
	MADT_OVERRIDE = 2,
	MADT_NMI = 4
};
#define MADT_PCAT_COMPAT BIT(0) /* there are 8259s as well */
#define MADT_ACTIVE_HIGH 1
#define MADT_LEVEL	 (3 << 2)
#define MADT_ALL_CPUS	 0xff

struct madt {
	struct table_header header;
	u32 lapic, flags;
	struct madt_ioapic ioapic;
	struct madt_override pit, sci;
	struct madt_nmi nmi;
	struct madt_lapic cpu[BOOT_MAX_VCPUS];
} __packed;

_Static_assert(sizeof(struct table_header) == 36, "5.2.6");
_Static_assert(sizeof(struct rsdp) == 36 && offsetof(struct rsdp, length) == 20, "5.2.5.3");
_Static_assert(sizeof(struct address) == 12, "5.2.3.2");
_Static_assert(sizeof(struct fadt) == 276, "5.2.9");
_Static_assert(offsetof(struct fadt, pm1_evt_len) == 88 && offsetof(struct fadt, flags) == 112 &&
		       offsetof(struct fadt, x_facs) == 132 &&
		       offsetof(struct fadt, sleep_control) == 244,
	       "5.2.9");
_Static_assert(sizeof(struct facs) == 64, "5.2.10");
_Static_assert(sizeof(struct madt_lapic) == 8 && sizeof(struct madt_ioapic) == 12 &&
		       sizeof(struct madt_override) == 10 && sizeof(struct madt_nmi) == 6,
	       "5.2.12");
_Static_assert(sizeof(struct acpi_info) <= ACPI_INFO_BYTES, "acpi_layout.h");

/* Where in the image; FACS is aligned to 64 bytes, the others to 16. */
#define AT_RSDP 0x000
#define AT_FACS 0x040
#define AT_RSDT 0x080
#define AT_XSDT 0x0c0
#define AT_FADT 0x100
#define AT_MADT 0x240
#define AT_NFIT 0x340
#define AT_DSDT 0x740
_Static_assert(AT_MADT >= AT_FADT + sizeof(struct fadt) &&
		       AT_NFIT >= AT_MADT + sizeof(struct madt) &&
		       AT_DSDT >= AT_NFIT + sizeof(struct table_header) + 4 + VNFIT_MAX &&
		       AT_DSDT + sizeof(dsdt_aml) <= ACPI_TABLES_MAX &&
		       ACPI_TABLES_BASE + ACPI_TABLES_MAX <= ACPI_INFO_BASE,
	       "the tables fit");

static u8 checksum(const void *data, size_t bytes)
{
	const u8 *p = data;
	u8 sum = 0;

	for (size_t i = 0; i < bytes; i++)
		sum += p[i];
	return (u8)-sum;
}

/* The last step of each table: the header, and the checksum over all. */
static void finish(struct table_header *h, const char *signature, u8 revision, size_t bytes)
{
	*h = (struct table_header){
		.length = (u32)bytes,
		.revision = revision,
		.oem_id = OEM_ID,
		.oem_table = OEM_TABLE,
		.oem_revision = 1,
		.creator_revision = 1,
	};
	memcpy(h->signature, signature, 4);
	memcpy(h->creator, CREATOR, 4);
	h->checksum = checksum(h, bytes);
}

static struct address port(u32 at, u8 bytes, u8 access)
{
	return (struct address){SPACE_IO, (u8)(bytes * 8), 0, access, at};
}

static void build_fadt(struct fadt *f)
{
	u32 evt = ACPI_PM_BASE + ACPI_PM1_STATUS, cnt = ACPI_PM_BASE + ACPI_PM1_CONTROL;
	u32 tmr = ACPI_PM_BASE + ACPI_PM_TIMER;

	*f = (struct fadt){
		.facs = ACPI_TABLES_BASE + AT_FACS,
		.dsdt = ACPI_TABLES_BASE + AT_DSDT,
		.sci = ACPI_IRQ_SCI,
		.pm1a_evt = evt,
		.pm1a_cnt = cnt,
		.pm_tmr = tmr,
		.pm1_evt_len = 4,
		.pm1_cnt_len = 2,
		.pm_tmr_len = 4,
		.c2_latency = 101,  /* more than 100: no C2 */
		.c3_latency = 1001, /* more than 1000: no C3 */
		.century = RTC_CENTURY,
		.boot_arch = BOOT_LEGACY_DEVICES | BOOT_NO_VGA | BOOT_NO_MSI | BOOT_NO_ASPM,
		.flags = FADT_WBINVD | FADT_PROC_C1 | FADT_NO_SLP_BUTTON | FADT_TMR_VAL_EXT |
			 FADT_RESET_REG | FADT_HEADLESS,
		.reset = port(RESET_PORT, 1, ACCESS_BYTE),
		.reset_value = RESET_VALUE,
		.minor = 5,
		.x_dsdt = ACPI_TABLES_BASE + AT_DSDT,
		.x_pm1a_evt = port(evt, 4, ACCESS_WORD),
		.x_pm1a_cnt = port(cnt, 2, ACCESS_WORD),
		.x_pm_tmr = port(tmr, 4, ACCESS_DWORD),
		.hypervisor = "Umbra",
	};
	finish(&f->header, "FACP", 6, sizeof(*f));
}

static void build_facs(struct facs *f)
{
	*f = (struct facs){.length = sizeof(*f), .version = 2};
	memcpy(f->signature, "FACS", 4);
}

static void build_madt(struct madt *m, const struct acpi_config *config)
{
	u32 n = MIN(config->vcpus, BOOT_MAX_VCPUS);

	*m = (struct madt){
		.lapic = LAPIC_BASE_ADDRESS,
		.flags = MADT_PCAT_COMPAT,
		.ioapic = {MADT_IOAPIC, sizeof(m->ioapic), 0, 0, IOAPIC_BASE_ADDRESS, 0},
		.pit = {MADT_OVERRIDE, sizeof(m->pit), 0, 0, 2, 0},
		.sci = {MADT_OVERRIDE, sizeof(m->sci), 0, ACPI_IRQ_SCI, ACPI_IRQ_SCI,
			MADT_ACTIVE_HIGH | MADT_LEVEL},
		.nmi = {MADT_NMI, sizeof(m->nmi), MADT_ALL_CPUS, 0, 1},
	};
	for (u32 i = 0; i < n; i++)
		m->cpu[i] =
			(struct madt_lapic){MADT_LAPIC, sizeof(m->cpu[i]), (u8)i, (u8)i, BIT(0)};
	finish(&m->header, "APIC", 5, offsetof(struct madt, cpu) + n * sizeof(m->cpu[0]));
}

/* 5.2.25: a reserved word, then the structures. */
static void build_nfit(u8 *table, const struct acpi_config *config)
{
	const size_t head = sizeof(struct table_header) + 4;

	memcpy(table + head, config->nfit, config->nfit_bytes);
	finish((void *)table, "NFIT", 1, head + config->nfit_bytes);
}

/* RSDT and XSDT: a header and addresses of 4 or 8 bytes. */
static void build_roots(u8 *image, bool nfit)
{
	static const u32 tables[] = {ACPI_TABLES_BASE + AT_FADT, ACPI_TABLES_BASE + AT_MADT,
				     ACPI_TABLES_BASE + AT_NFIT};
	const size_t head = sizeof(struct table_header), n = ARRAY_SIZE(tables) - !nfit;

	_Static_assert(AT_RSDT + sizeof(struct table_header) + sizeof(tables) <= AT_XSDT &&
			       AT_XSDT + sizeof(struct table_header) + 2 * sizeof(tables) <=
				       AT_FADT,
		       "the tables fit");
	for (size_t i = 0; i < n; i++) {
		u64 wide = tables[i];

		memcpy(image + AT_RSDT + head + i * 4, &tables[i], 4);
		memcpy(image + AT_XSDT + head + i * 8, &wide, 8);
	}
	finish((void *)(image + AT_RSDT), "RSDT", 1, head + n * 4);
	finish((void *)(image + AT_XSDT), "XSDT", 1, head + n * 8);
}

static void build_rsdp(struct rsdp *r)
{
	*r = (struct rsdp){
		.oem_id = OEM_ID,
		.revision = 2,
		.rsdt = ACPI_TABLES_BASE + AT_RSDT,
		.length = sizeof(*r),
		.xsdt = ACPI_TABLES_BASE + AT_XSDT,
	};
	memcpy(r->signature, "RSD PTR ", 8);
	r->checksum = checksum(r, 20);
	r->extended_checksum = checksum(r, sizeof(*r));
}

u32 acpi_tables_build(const struct acpi_config *config, u8 image[ACPI_TABLES_MAX])
{
	memset(image, 0, ACPI_TABLES_MAX);
	build_rsdp((void *)(image + AT_RSDP));
	build_facs((void *)(image + AT_FACS));
	build_roots(image, config->nfit_bytes);
	if (config->nfit_bytes)
		build_nfit(image + AT_NFIT, config);
	build_fadt((void *)(image + AT_FADT));
	build_madt((void *)(image + AT_MADT), config);
	memcpy(image + AT_DSDT, dsdt_aml, sizeof(dsdt_aml));
	return AT_DSDT + sizeof(dsdt_aml);
}

int acpi_tables_install(struct vm *vm, const struct acpi_config *config)
{
	struct acpi_info info = {ACPI_INFO_MAGIC, config->vcpus, config->virtio_mmio,
				 config->nvdimms};
	u8 *image = heap_alloc(ACPI_TABLES_MAX);
	int err;

	if (!image)
		return ERR_NOMEM;
	err = guest_write(vm, gpa(ACPI_TABLES_BASE), image, acpi_tables_build(config, image));
	if (!err)
		err = guest_write(vm, gpa(ACPI_INFO_BASE), &info, sizeof(info));
	heap_free(image, ACPI_TABLES_MAX);
	return err;
}
