/*
 * Task switches with any tables: whatever a guest writes into its GDT, LDT, TSSs and page tables,
 * the state that comes out is one that VM entry accepts, and a refused switch leaves the old task
 * alone.
 */
#include "fake_vcpu.h"
#include "vmx/entry_check.h"
/* With the fake VMCS in place of the real one. */
#include "vm/linear.c"
#include "vm/task_switch.c"

#define CHECK(cond)              \
	do {                     \
		if (!(cond))     \
			abort(); \
	} while (0)

#define GDT    0x1000
#define TABLES 0x6000 /* all that the input may patch lies in [GDT, TABLES + 4 KiB) */
#define END    0x7000

static u64 read_field(void *ctx, u32 field)
{
	return vmcs_field[field];
}

static const char *broken_rule;

/* Only guest state is of interest: the fake has neither controls nor a host. */
static void report(void *ctx, const struct entry_fault *fault)
{
	if (!strncmp(fault->section, "27.3.1", 6))
		broken_rule = fault->rule;
}

static bool state_is_valid(void)
{
	static const struct entry_source source = {
		.read = read_field, .phys_bits = 40, .linear_bits = 48};
	static const struct vmx_caps caps = {
		.cr0_fixed1 = ~0ull, .cr4_fixed1 = ~0ull, .misc = 0x1c0};

	broken_rule = NULL;
	entry_check(&source, &caps, report, NULL);
	return !broken_rule;
}

static void set_descriptor(unsigned int index, u32 base, u32 limit, u32 ar)
{
	u64 d = (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)(ar & 0xff) << 40 |
		(u64)(limit >> 16 & 0xf) << 48 | (u64)(ar >> 12 & 0xf) << 52 |
		(u64)(base >> 24) << 56;

	put_ram(GDT + 8 * index, d, 8);
}

/* Task 3 (32-bit, current) at 0x3000, 4 (32-bit) at 0x4000, 5 (16-bit) at 0x5000; LDT 6 at 0x2000.
 */
static void set_up_memory(void)
{
	static const u32 rights[] = {0,	   0xc09a, 0xc092, 0x8b,   0x89,  0x81,
				     0x82, 0xc0fa, 0xc0f2, 0xc09e, 0x4096};

	for (unsigned int i = 1; i < ARRAY_SIZE(rights); i++)
		set_descriptor(i,
			       i >= 3 && i <= 5 ? i << 12
			       : i == 6		? 0x2000
						: 0,
			       i >= 3 && i <= 6 ? 0x67 : 0xfffff, rights[i]);
	memcpy(ram + 0x2000, ram + GDT, 0x58);
	for (unsigned int i = 0; i < 6; i++) {
		put_ram(0x4048 + 4 * i, i == SEG_CS ? 8 : 16, 4);
		put_ram(0x5022 + 2 * i, i == SEG_CS ? 8 : 16, 2);
	}
	put_ram(0x402c, 0x7fff, 4);
	put_ram(0x401c, TABLES, 4);
	/* 4 KiB of page directory whose first entry points to itself: 32-bit paging, page by page.
	 */
	put_ram(TABLES, TABLES | 7, 4);
	for (unsigned int i = 1; i < 64; i++)
		put_ram(TABLES + 4 * i, i << 12 | 7, 4);
}

static void set_up_vcpu(const u8 *control)
{
	vmcs_field[VMCS_PROC_CONTROLS] = PROC_SECONDARY;
	vmcs_field[VMCS_PROC2_CONTROLS] = PROC2_EPT | PROC2_UNRESTRICTED_GUEST;
	vmcs_field[VMCS_LINK_POINTER] = ~0ull;
	vmcs_field[VMCS_GUEST_CR0] = CR0_PE | CR0_ET | CR0_NE | (control[0] & 1 ? CR0_PG : 0);
	vmcs_field[VMCS_GUEST_CR3] = TABLES;
	vmcs_field[VMCS_GUEST_RFLAGS] = RFLAGS_FIXED;
	vmcs_field[VMCS_GUEST_RIP] = 0x8000;
	vmcs_field[VMCS_EXIT_INSTR_LEN] = control[1] % 16;
	vmcs_field[VMCS_GUEST_GDTR_BASE] = GDT;
	vmcs_field[VMCS_GUEST_GDTR_LIMIT] = control[0] & 2 ? 0x57 : 0xffff;
	vmcs_field[VMCS_GUEST_LDTR_AR] = 0x10000;
	vmcs_field[VMCS_GUEST_TR] = 0x18;
	vmcs_field[VMCS_GUEST_TR_BASE] = 0x3000;
	vmcs_field[VMCS_GUEST_TR_LIMIT] = 0x67;
	vmcs_field[VMCS_GUEST_TR_AR] = control[0] & 4 ? 0x83 : 0x8b;
	for (unsigned int i = 0; i < 6; i++) {
		u32 dpl = control[0] & 8 ? 0x60 : 0;

		vmcs_field[VMCS_GUEST_ES + 2 * i] = (i == SEG_CS ? 8 : 16) | dpl >> 5;
		vmcs_field[VMCS_GUEST_ES_LIMIT + 2 * i] = 0xffffffff;
		vmcs_field[VMCS_GUEST_ES_AR + 2 * i] = (i == SEG_CS ? 0xc09b : 0xc093) | dpl;
	}
	if (control[2] & 0x80)
		vmcs_field[VMCS_IDT_VECTORING_INFO] =
			INTR_INFO_VALID | (control[2] & 0x0f) << 8 | control[3] % 32;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static u8 memory[FAKE_RAM_BYTES];
	static u64 fields[0x8000];

	if (size < 8)
		return 0;
	fake_reset();
	set_up_memory();
	set_up_vcpu(data);
	vmcs_field[VMCS_EXIT_QUALIFICATION] =
		(u64)(data[4] & 3) << 30 |
		(data[5] & 0x80 ? data[6] << 8 | data[7] : data[5] & 0x3f);
	for (size_t i = 8; i + 6 <= size; i += 6) {
		u32 at = GDT + ((data[i] | (u32)data[i + 1] << 8) % (END - GDT - 4));

		memcpy(ram + at, data + i + 2, 4);
	}
	CHECK(state_is_valid());
	memcpy(memory, ram, sizeof(ram));
	memcpy(fields, vmcs_field, sizeof(fields));
	exit_task_switch(&fake);
	if (vmcs_field[VMCS_GUEST_TR] == 0x18 && !memcmp(fields, vmcs_field, sizeof(fields))) {
		/* Refused; only accessed and dirty flags may have changed. */
		CHECK(seen.vector >= 0 || seen.fatal);
		CHECK((vmcs_field[VMCS_GUEST_CR0] & CR0_PG) || !memcmp(memory, ram, sizeof(ram)));
	}
	CHECK(seen.fatal || state_is_valid());
	return 0;
}
