/*
 * ACPI as an operating system meets it: the tables, then the fixed hardware that they announce. It
 * ends by switching the machine off. Section numbers are those of the ACPI specification 6.5.
 *
 * Option `keys`: nothing of that; a key on the console chooses: `r` resets by the reset register,
 * `o` switches off.
 */
#include "apic.h"
#include "ioapic.h"
#include "irq.h"
#include "mem.h"
#include "smp.h"
#include "umbra.h"

#define PM_HZ	   3579545
#define PM1_TMR	   BIT(0)
#define PM1_GBL	   BIT(5)
#define PM1_PWRBTN BIT(8)
#define PM1_RTC	   BIT(10)
#define SCI_EN	   BIT(0)
#define SLP_EN	   BIT(13)
#define VEC_SCI	   0x59

#define FADT_TMR_VAL_EXT BIT(8)
#define FADT_RESET_REG	 BIT(10)

struct __packed header {
	char signature[4];
	u32 length;
	u8 revision, checksum;
	char oem[26];
};

struct __packed rsdp {
	char signature[8];
	u8 checksum;
	char oem[6];
	u8 revision;
	u32 rsdt, length;
	u64 xsdt;
	u8 extended_checksum, reserved[3];
};

struct __packed address {
	u8 space, bits, offset, access;
	u64 at;
};

struct __packed fadt {
	struct header header;
	u32 facs, dsdt;
	u8 reserved1, profile;
	u16 sci;
	u32 smi_cmd;
	u8 acpi_enable, unused1[3];
	u32 pm1a_evt, pm1b_evt, pm1a_cnt, pm1b_cnt, pm2_cnt, pm_tmr, gpe0, gpe1;
	u8 pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len, unused2[16], century;
	u16 boot_arch;
	u8 reserved2;
	u32 flags;
	struct address reset;
	u8 reset_value, unused3[3];
	u64 x_facs, x_dsdt;
	struct address x_pm1a_evt, x_pm1b_evt, x_pm1a_cnt, x_pm1b_cnt, x_pm2_cnt, x_pm_tmr;
};
_Static_assert(offsetof(struct fadt, pm1_evt_len) == 88 && offsetof(struct fadt, flags) == 112 &&
		       offsetof(struct fadt, x_pm_tmr) == 208,
	       "5.2.9");

static const struct rsdp *root;
static const struct fadt *fadt;
static const struct header *madt, *dsdt;
static bool umbra;
static u16 evt, cnt, tmr;

static const void *at(u64 address)
{
	return (const void *)(uintptr_t)address;
}

static bool sums_to_zero(const void *p, u32 bytes)
{
	const u8 *b = p;
	u8 sum = 0;

	for (u32 i = 0; i < bytes; i++)
		sum += b[i];
	return sum == 0;
}

static bool is_table(const struct header *h, const char *signature)
{
	return memcmp(h->signature, signature, 4) == 0;
}

/* --- tables --------------------------------------------------------------------------------------
 */

/* 5.2.5.1: on 16-byte boundaries of the BIOS's read-only area. */
static bool find_root(void)
{
	for (u64 p = 0xe0000; p < 0x100000; p += 16) {
		const struct rsdp *r = at(p);

		if (memcmp(r->signature, "RSD PTR ", 8) == 0 && sums_to_zero(r, 20)) {
			root = r;
			return true;
		}
	}
	return false;
}

/* All tables that RSDT or XSDT list; those with a known name are kept. Returns how many. */
static u32 list(const struct header *h, u32 width, const char *name)
{
	u32 n = (h->length - sizeof(*h)) / width, bad = 0;

	tap_ok(is_table(h, name) && sums_to_zero(h, h->length), "%s of %u tables", name, n);
	for (u32 i = 0; i < n; i++) {
		const u8 *entry = (const u8 *)(h + 1) + i * width;
		u64 address = *(const u32 *)entry;
		const struct header *t;

		if (width == 8)
			address = *(const u64 *)entry;
		t = at(address);
		bad += !sums_to_zero(t, t->length);
		if (is_table(t, "FACP"))
			fadt = (const struct fadt *)t;
		else if (is_table(t, "APIC"))
			madt = t;
	}
	tap_is(bad, 0, "tables of the %s with a wrong checksum", name);
	return n;
}

static void test_tables(void)
{
	u32 narrow, wide;

	tap_ok(!ram_contains((u64)(uintptr_t)root, sizeof(*root)), "RSDP at %p, not in usable RAM",
	       (const void *)root);
	narrow = list(at(root->rsdt), 4, "RSDT");
	if (root->revision >= 2) {
		tap_ok(root->length >= 36 && sums_to_zero(root, root->length),
		       "extended checksum of the RSDP");
		wide = list(at(root->xsdt), 8, "XSDT");
		tap_is(wide, narrow, "tables in the XSDT as in the RSDT");
	} else {
		tap_ok(!umbra, "RSDP of revision %u", root->revision);
	}
	if (!fadt || !madt)
		tap_bail("no FADT or no MADT");
}

static bool same(u32 narrow, const struct address *wide, u32 length)
{
	return !wide->at || (wide->at == narrow && wide->space == 1 && wide->bits == length * 8);
}

static void test_fadt(void)
{
	const struct header *facs;

	dsdt = at(fadt->dsdt);
	if (fadt->header.length >= sizeof(*fadt)) {
		if (fadt->x_dsdt)
			dsdt = at(fadt->x_dsdt);
		tap_ok(same(fadt->pm1a_evt, &fadt->x_pm1a_evt, fadt->pm1_evt_len) &&
			       same(fadt->pm1a_cnt, &fadt->x_pm1a_cnt, fadt->pm1_cnt_len) &&
			       same(fadt->pm_tmr, &fadt->x_pm_tmr, fadt->pm_tmr_len),
		       "FADT: both forms of the addresses agree");
	}
	facs = at(fadt->facs ? fadt->facs : fadt->x_facs);
	tap_ok(is_table(facs, "FACS") && facs->length >= 64 && !((u64)(uintptr_t)facs & 63),
	       "FACS at %p", (const void *)facs);
	tap_ok(is_table(dsdt, "DSDT") && sums_to_zero(dsdt, dsdt->length), "DSDT of %u bytes",
	       dsdt->length);
	tap_is(fadt->pm1_evt_len, 4, "length of PM1_EVT");
	tap_is(fadt->pm1_cnt_len, 2, "length of PM1_CNT");
	tap_is(fadt->pm_tmr_len, 4, "length of PM_TMR");
	tap_is(fadt->sci, 9, "SCI_INT");
	tap_ok((fadt->flags & FADT_RESET_REG) && fadt->reset.at, "a reset register");
	if (umbra)
		tap_is(fadt->smi_cmd, 0, "no legacy mode");
	evt = (u16)fadt->pm1a_evt;
	cnt = (u16)fadt->pm1a_cnt;
	tmr = (u16)fadt->pm_tmr;
}

/* 5.2.12: processors against CPUID, the I/O APIC against itself, the two overrides that matter. */
static void test_madt(void)
{
	const u8 *p = (const u8 *)madt + 44, *end = (const u8 *)madt + madt->length;
	u32 cpus_listed = 0, doubles = 0, ioapics = 0, pit = 0, sci = ~0u;
	u64 ids = 0;

	tap_is(*(const u32 *)(p - 8), LAPIC_BASE, "MADT: local APIC address");
	for (; p + 2 <= end && p[1]; p += p[1]) {
		if (p[0] == 0 && p[4] & 1) {
			cpus_listed++;
			doubles += ids >> p[3] & 1;
			ids |= BIT64(p[3]);
		} else if (p[0] == 1) {
			ioapics += *(const u32 *)(p + 4) == IOAPIC_BASE;
		} else if (p[0] == 2 && p[3] == 0) {
			pit = *(const u32 *)(p + 4);
		} else if (p[0] == 2 && p[3] == 9) {
			sci = *(const u32 *)(p + 4) << 16 | *(const u16 *)(p + 8);
		}
	}
	tap_is(cpus_listed, smp_expected(), "processors");
	tap_is(doubles, 0, "APIC IDs that are there twice");
	tap_ok(ids >> lapic_id() & 1, "this CPU is listed");
	tap_is(ioapics, 1, "I/O APIC");
	tap_ok((ioapic_read(1) & 0xff) >= 0x11, "which answers");
	tap_is(pit, 2, "IRQ 0 is GSI 2");
	tap_is(sci, 9 << 16 | 0xd, "IRQ 9 is GSI 9, level, active high");
}

/* --- fixed hardware ------------------------------------------------------------------------------
 */

static u32 timer_mask(void)
{
	return fadt->flags & FADT_TMR_VAL_EXT ? ~0u : 0xffffff;
}

static void test_timer(void)
{
	u32 mask = timer_mask(), first, ticks, back = 0, want;
	u64 start, tsc;

	start = rdtsc();
	first = inl(tmr);
	delay_us(50000);
	ticks = (inl(tmr) - first) & mask;
	tsc = rdtsc() - start;
	want = (u32)(tsc * PM_HZ / tsc_khz() / 1000);
	real_ok(ticks > want - want / 50 && ticks < want + want / 50,
		"PM timer: %u ticks in %lu us, %u at 3.579545 MHz", ticks, tsc * 1000 / tsc_khz(),
		want);
	first = inl(tmr);
	for (u32 i = 0; i < 1000; i++) {
		u32 next = inl(tmr);

		back += (next - first) & (mask / 2 + 1) ? 1 : 0;
		first = next;
	}
	tap_is(back, 0, "steps back in 1000 reads");
	if (!umbra)
		return;
	first = inl(tmr);
	tap_ok(inb(tmr + 3) == first >> 24 || inb(tmr + 3) == (first >> 24) + 1,
	       "the timer's bytes");
	outl(tmr, 0);
	tap_ok(inl(tmr) - first < PM_HZ, "the timer is read-only");
}

static void test_registers(void)
{
	/* 4.8.3.2: without SMI_CMD the machine is always in ACPI mode. */
	if (!(inw(cnt) & SCI_EN) && fadt->smi_cmd)
		outb((u16)fadt->smi_cmd, fadt->acpi_enable);
	tap_is(inw(cnt) & SCI_EN, SCI_EN, "SCI_EN");
	outw(evt + 2, 0);
	tap_is(inw(evt + 2), 0, "PM1 enable cleared");
	outw(evt + 2, PM1_PWRBTN | PM1_GBL | PM1_RTC);
	tap_is(inw(evt + 2), PM1_PWRBTN | PM1_GBL | PM1_RTC,
	       "PM1 enable: power button, global lock, clock");
	outw(evt + 2, 0);
	tap_is(inw(evt) & ~PM1_TMR, 0, "nothing has happened");
	if (!umbra)
		return;
	outw(evt + 2, PM1_PWRBTN);
	tap_is(inl(evt) >> 16, PM1_PWRBTN, "PM1 enable as the upper half of 32 bits");
	outw(evt + 2, 0xffff & ~(PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_RTC));
	tap_is(inw(evt + 2), 0, "no other events");
	outw(cnt, 7 << 10); /* SLP_TYP without SLP_EN */
	tap_is(inw(cnt), 7 << 10 | SCI_EN, "SLP_TYP is kept, SCI_EN stays");
	outw(cnt, 7 << 10 | SLP_EN); /* a sleeping state that there is not */
	tap_is(inw(cnt), 7 << 10 | SCI_EN, "SLP_EN reads 0, and nothing sleeps");
	outw(cnt, 0);
	tap_is(inw(cnt), SCI_EN, "SCI_EN cannot be cleared");
}

/* A level: each EOI brings it again, until the status is cleared; here the third time. */
static volatile u32 scis;

static bool take_sci(struct frame *f)
{
	if (++scis == 3)
		outw(evt, PM1_TMR);
	if (scis > 10)
		outw(evt + 2, 0);
	lapic_eoi();
	return true;
}

static void test_sci(void)
{
	u32 mask = timer_mask(), half = mask / 2 + 1, left = half - (inl(tmr) & (half - 1));
	u64 us = left * 1000000ull / PM_HZ + 20000, start;
	bool pending = inw(evt) & PM1_TMR;

	if (!pending && us > 5000000) {
		tap_ok(!umbra, "the timer's overflow is %lu ms away", us / 1000);
		return;
	}
	if (pending)
		us = 20000;
	lapic_enable();
	trap_set_handler(VEC_SCI, take_sci);
	ioapic_set(fadt->sci, IOAPIC_LEVEL | VEC_SCI);
	outw(evt + 2, PM1_TMR);
	start = rdtsc();
	while (scis < 3 && rdtsc() - start < us * tsc_khz() / 1000)
		irq_window();
	for (u32 i = 0; i < 1000; i++)
		irq_window();
	real_is(scis, 3, "SCIs by the timer's highest bit, %lu ms from here, cleared by the third",
		us / 1000);
	tap_is(inw(evt) & PM1_TMR, 0, "TMR_STS is clear again");
	outw(evt + 2, 0);
	ioapic_mask(fadt->sci);
}

/* --- the end -------------------------------------------------------------------------------------
 */

/* SLP_TYP of PM1a in \_S5 (7.4.2): a name, a package, and a byte in one of its encodings. */
static int find_s5(void)
{
	const u8 *p = (const u8 *)dsdt, *end = p + dsdt->length - 8;

	for (; p < end; p++) {
		const u8 *q = p + 4;

		if (memcmp(p, "_S5_", 4) != 0 || *q++ != 0x12)
			continue;
		q += (*q >> 6) + 2; /* PkgLength, NumElements */
		if (*q <= 1)
			return *q; /* ZeroOp, OneOp */
		return *q == 0x0a ? q[1] : -1;
	}
	return -1;
}

static void power_off(void)
{
	int s5 = find_s5();

	if (s5 < 0)
		tap_bail("no \\_S5 in the DSDT");
	outw(cnt, (u16)(s5 << 10) | SLP_EN);
	delay_us(100000);
	tap_bail("the machine is still on");
}

static void obey_keys(void)
{
	tap_note("waiting for a key");
	for (;;) {
		u8 key = 0;

		if (inb(0x3fd) & 1)
			key = inb(0x3f8);
		if (key == 'r')
			outb((u16)fadt->reset.at, fadt->reset_value);
		else if (key == 'o')
			power_off();
	}
}

void guest_main(void)
{
	umbra = umbra_present();
	if (!find_root())
		tap_bail("no RSDP");
	test_tables();
	test_fadt();
	if (opt_flag("keys"))
		obey_keys();
	test_madt();
	test_timer();
	test_registers();
	test_sci();
	tap_ok(find_s5() >= 0, "\\_S5 in the DSDT");
	tap_summary();
	if (!tap_failures())
		power_off();
	guest_exit(1);
}
