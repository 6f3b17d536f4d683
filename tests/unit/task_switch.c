/* Task switches: both TSS formats, every way in, every check of SDM 3A table 8-1. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fake_vcpu.h"
/* With the fake VMCS in place of the real one. */
#include "vm/linear.c"
#include "vm/task_switch.c"

/* Memory: GDT, LDT, two 32-bit TSSs, a 16-bit one. */
#define GDT   0x1000
#define LDT   0x2000
#define TSS_A 0x3000
#define TSS_B 0x4000
#define TSS_C 0x5000
#define STACK 0x7000

/* Selectors. */
#define CODE0	   0x08
#define DATA0	   0x10
#define TASK_A	   0x18
#define TASK_B	   0x20
#define TASK_C	   0x28
#define LDT_B	   0x30
#define CODE3	   0x3b
#define DATA3	   0x43
#define CONFORM0   0x48
#define CONFORM3   0x50
#define ABSENT	   0x58
#define EXEC_ONLY  0x60
#define READ_ONLY  0x68
#define CODE0_GONE 0x70
#define GDT_LIMIT  0x77

#define CALL 0ull
#define IRET (1ull << 30)
#define JMP  (2ull << 30)
#define GATE (3ull << 30)

static void set_descriptor(u64 at, u32 base, u32 limit, u32 ar)
{
	u64 d = (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)(ar & 0xff) << 40 |
		(u64)(limit >> 16 & 0xf) << 48 | (u64)(ar >> 12 & 0xf) << 52 |
		(u64)(base >> 24) << 56;

	put_ram(at, d, 8);
}

static u32 type_of(u16 selector)
{
	return (u32)get_ram(GDT + (selector & 0xfff8) + 5, 1);
}

static void set_selectors(u32 es, u32 cs, u32 ss, u32 ds, u32 fs, u32 gs)
{
	u32 all[] = {es, cs, ss, ds, fs, gs};

	for (unsigned int i = 0; i < 6; i++) {
		put_ram(TSS_B + 0x48 + 4 * i, all[i], 4);
		if (i < 4)
			put_ram(TSS_C + 0x22 + 2 * i, all[i], 2);
	}
}

/* The new tasks B (32-bit) and C (16-bit): registers are recognisable numbers. */
static void make_new_tasks(void)
{
	put_ram(TSS_B + 0x1c, 0x9000, 4); /* CR3 */
	put_ram(TSS_B + 0x20, 0x00401000, 4);
	put_ram(TSS_B + 0x24, 0x00000246, 4);
	put_ram(TSS_C + 0x0e, 0x1000, 2);
	put_ram(TSS_C + 0x10, 0x0202, 2);
	for (unsigned int i = 0; i < 8; i++) {
		put_ram(TSS_B + 0x28 + 4 * i, 0xb0000000 + i, 4);
		put_ram(TSS_C + 0x12 + 2 * i, 0xc000 + i, 2);
	}
	put_ram(TSS_B + 0x28 + 4 * RSP, STACK, 4);
	put_ram(TSS_C + 0x12 + 2 * RSP, STACK, 2);
	put_ram(TSS_B + 0x60, LDT_B, 2);
	set_selectors(DATA0, CODE0, DATA0, DATA0, 0, DATA3);
}

/* In task A at CPL 0, flat, no paging. */
static int reset(void **state)
{
	static const u32 rights[] = {[SEG_ES] = 0xc093, [SEG_CS] = 0xc09b, [SEG_SS] = 0xc093,
				     [SEG_DS] = 0xc093, [SEG_FS] = 0xc093, [SEG_GS] = 0x10000};

	fake_reset();
	set_descriptor(GDT + CODE0, 0, 0xfffff, 0xc09a);
	set_descriptor(GDT + DATA0, 0, 0xfffff, 0xc092);
	set_descriptor(GDT + TASK_A, TSS_A, 0x67, 0x8b);
	set_descriptor(GDT + TASK_B, TSS_B, 0x67, 0x89);
	set_descriptor(GDT + TASK_C, TSS_C, 0x2b, 0x81);
	set_descriptor(GDT + LDT_B, LDT, 0xf, 0x82);
	set_descriptor(GDT + (CODE3 & ~3), 0, 0xfffff, 0xc0fa);
	set_descriptor(GDT + (DATA3 & ~3), 0x100, 0xfffff, 0xc0f2);
	set_descriptor(GDT + CONFORM0, 0, 0xfffff, 0xc09e);
	set_descriptor(GDT + CONFORM3, 0, 0xfffff, 0xc0fe);
	set_descriptor(GDT + ABSENT, 0, 0xfffff, 0xc012);
	set_descriptor(GDT + EXEC_ONLY, 0, 0xfffff, 0xc098);
	set_descriptor(GDT + READ_ONLY, 0, 0xfffff, 0xc090);
	set_descriptor(GDT + CODE0_GONE, 0, 0xfffff, 0xc01a);
	set_descriptor(LDT + 8, 0x123000, 0xfff, 0x4092);
	make_new_tasks();
	memset(ram + TSS_A, 0xee, 0x68);

	vmcs_field[VMCS_GUEST_CR0] = CR0_PE | CR0_ET | CR0_NE;
	vmcs_field[VMCS_GUEST_CR3] = 0xa000;
	vmcs_field[VMCS_GUEST_RFLAGS] = RFLAGS_FIXED | RFLAGS_IF | RFLAGS_NT;
	vmcs_field[VMCS_GUEST_RIP] = 0x8000;
	vmcs_field[VMCS_EXIT_INSTR_LEN] = 7;
	vmcs_field[VMCS_GUEST_RSP] = 0x6ff0;
	vmcs_field[VMCS_GUEST_DR7] = 0x7ff;
	vmcs_field[VMCS_GUEST_INTERRUPTIBILITY] = INTERRUPTIBILITY_MOV_SS | INTERRUPTIBILITY_NMI;
	vmcs_field[VMCS_GUEST_GDTR_BASE] = GDT;
	vmcs_field[VMCS_GUEST_GDTR_LIMIT] = GDT_LIMIT;
	vmcs_field[VMCS_GUEST_LDTR_AR] = 0x10000;
	vmcs_field[VMCS_GUEST_TR] = TASK_A;
	vmcs_field[VMCS_GUEST_TR_BASE] = TSS_A;
	vmcs_field[VMCS_GUEST_TR_LIMIT] = 0x67;
	vmcs_field[VMCS_GUEST_TR_AR] = 0x8b;
	for (unsigned int i = 0; i < 6; i++) {
		vmcs_field[VMCS_GUEST_ES + 2 * i] = i == SEG_CS ? CODE0 : i == SEG_GS ? 0 : DATA0;
		vmcs_field[VMCS_GUEST_ES_LIMIT + 2 * i] = 0xffffffff;
		vmcs_field[VMCS_GUEST_ES_AR + 2 * i] = rights[i];
	}
	for (unsigned int i = 0; i < 8; i++)
		fake.gpr[i] = 0xa0000000 + i;
	return 0;
}

static void run(u64 how, u16 selector)
{
	seen.vector = -1;
	vmcs_field[VMCS_EXIT_QUALIFICATION] = how | selector;
	exit_task_switch(&fake);
}

static void event(u32 type, u32 vector, bool has_error, u32 error_code)
{
	vmcs_field[VMCS_IDT_VECTORING_INFO] =
		INTR_INFO_VALID | type | vector | (has_error ? INTR_INFO_ERROR_CODE : 0);
	vmcs_field[VMCS_IDT_VECTORING_ERROR] = error_code;
	/* The field is meaningful for software events only. */
	if (type == INTR_TYPE_EXTERNAL || type == INTR_TYPE_NMI || type == INTR_TYPE_HW_EXCEPTION)
		vmcs_field[VMCS_EXIT_INSTR_LEN] = 0;
	else
		vmcs_field[VMCS_EXIT_INSTR_LEN] = 2;
}

/* --- the switch itself ---------------------------------------------------------------------------
 */

static void expect_task_b(u64 eflags)
{
	assert_int_equal(seen.vector, -1);
	assert_int_equal(seen.fatal, 0);
	assert_int_equal(vmcs_field[VMCS_GUEST_RIP], 0x00401000);
	assert_int_equal(vmcs_field[VMCS_GUEST_RFLAGS], eflags);
	for (unsigned int i = 0; i < 8; i++) {
		if (i != RSP)
			assert_int_equal(fake.gpr[i], 0xb0000000 + i);
	}
	assert_int_equal(vmcs_field[VMCS_GUEST_TR], TASK_B);
	assert_int_equal(vmcs_field[VMCS_GUEST_TR_BASE], TSS_B);
	assert_int_equal(vmcs_field[VMCS_GUEST_TR_LIMIT], 0x67);
	assert_int_equal(vmcs_field[VMCS_GUEST_TR_AR], 0x8b);
	assert_int_equal(vmcs_field[VMCS_GUEST_LDTR], LDT_B);
	assert_int_equal(vmcs_field[VMCS_GUEST_LDTR_BASE], LDT);
	assert_int_equal(vmcs_field[VMCS_GUEST_LDTR_LIMIT], 0xf);
	assert_int_equal(vmcs_field[VMCS_GUEST_LDTR_AR], 0x82);
	assert_int_equal(vmcs_field[VMCS_GUEST_CS], CODE0);
	assert_int_equal(vmcs_field[VMCS_GUEST_CS_AR], 0xc09b);
	assert_int_equal(vmcs_field[VMCS_GUEST_CS_LIMIT], 0xffffffff);
	assert_int_equal(vmcs_field[VMCS_GUEST_SS_AR], 0xc093);
	assert_true(vmcs_field[VMCS_GUEST_FS_AR] & AR_UNUSABLE);
	assert_int_equal(vmcs_field[VMCS_GUEST_GS], DATA3);
	assert_int_equal(vmcs_field[VMCS_GUEST_GS_BASE], 0x100);
	assert_int_equal(vmcs_field[VMCS_GUEST_GS_AR], 0xc0f3);
	assert_int_equal(type_of(DATA3), 0xf3); /* accessed in memory too */
	assert_true(vmcs_field[VMCS_GUEST_CR0] & CR0_TS);
	assert_int_equal(vmcs_field[VMCS_GUEST_DR7], 0x7ff & ~0x155);
	assert_int_equal(vmcs_field[VMCS_GUEST_CR3], 0xa000); /* paging is off */
}

static void expect_saved(u32 eip, u32 eflags)
{
	static const u16 selectors[] = {DATA0, CODE0, DATA0, DATA0, DATA0, 0};

	assert_int_equal(get_ram(TSS_A + 0x20, 4), eip);
	assert_int_equal(get_ram(TSS_A + 0x24, 4), eflags);
	for (unsigned int i = 0; i < 8; i++)
		assert_int_equal(get_ram(TSS_A + 0x28 + 4 * i, 4),
				 i == RSP ? 0x6ff0 : 0xa0000000 + i);
	for (unsigned int i = 0; i < 6; i++)
		assert_int_equal(get_ram(TSS_A + 0x48 + 4 * i, 4), 0xeeee0000 | selectors[i]);
	/* The static part is not touched. */
	assert_int_equal(get_ram(TSS_A + 0x1c, 4), 0xeeeeeeee);
	assert_int_equal(get_ram(TSS_A + 0x60, 4), 0xeeeeeeee);
}

static void by_call(void **state)
{
	run(CALL, TASK_B);
	expect_task_b(0x4246);
	expect_saved(0x8007, 0x4202);
	assert_int_equal(vmcs_field[VMCS_GUEST_RSP], STACK);
	assert_int_equal(get_ram(TSS_B, 4), TASK_A);
	assert_int_equal(type_of(TASK_A), 0x8b);
	assert_int_equal(type_of(TASK_B), 0x8b);
	assert_int_equal(vmcs_field[VMCS_GUEST_INTERRUPTIBILITY], INTERRUPTIBILITY_NMI);
}

static void by_jmp(void **state)
{
	run(JMP, TASK_B);
	expect_task_b(0x246);
	expect_saved(0x8007, 0x4202);
	assert_int_equal(get_ram(TSS_B, 4), 0);
	assert_int_equal(type_of(TASK_A), 0x89);
	assert_int_equal(type_of(TASK_B), 0x8b);
}

static void by_iret(void **state)
{
	set_descriptor(GDT + TASK_B, TSS_B, 0x67, 0x8b);
	run(IRET, TASK_B);
	expect_task_b(0x246);
	expect_saved(0x8007, 0x202);
	assert_int_equal(get_ram(TSS_B, 4), 0);
	assert_int_equal(type_of(TASK_A), 0x89);
	assert_int_equal(type_of(TASK_B), 0x8b);
	assert_int_equal(vmcs_field[VMCS_GUEST_INTERRUPTIBILITY], 0);
}

static void to_and_from_16_bits(void **state)
{
	set_selectors(DATA0, CODE0, DATA0, 0, 0, 0);
	put_ram(TSS_C + 0x2a, LDT_B, 2);
	run(CALL, TASK_C);
	assert_int_equal(seen.vector, -1);
	expect_saved(0x8007, 0x4202);
	assert_int_equal(vmcs_field[VMCS_GUEST_RIP], 0x1000);
	assert_int_equal(vmcs_field[VMCS_GUEST_RFLAGS], 0x4202);
	assert_int_equal(fake.gpr[RDI], 0xc007);
	assert_int_equal(vmcs_field[VMCS_GUEST_RSP], STACK);
	assert_int_equal(vmcs_field[VMCS_GUEST_TR_AR], 0x83);
	assert_int_equal(vmcs_field[VMCS_GUEST_LDTR_BASE], LDT);
	assert_int_equal(vmcs_field[VMCS_GUEST_ES], DATA0);
	assert_true(vmcs_field[VMCS_GUEST_DS_AR] & AR_UNUSABLE);
	assert_int_equal(vmcs_field[VMCS_GUEST_GS], 0);
	assert_int_equal(get_ram(TSS_C, 2), TASK_A);

	/* And on to B: C is saved in 16 bits, its neighbours stay. */
	set_selectors(DATA0, CODE0, DATA0, DATA0, 0, DATA3);
	put_ram(TSS_C + 0x2a, 0x5555, 2);
	put_ram(TSS_C + 0x0c, 0x6666, 2);
	vmcs_field[VMCS_GUEST_RIP] = 0x12345;
	fake.gpr[RAX] = 0x99998888;
	run(JMP, TASK_B);
	assert_int_equal(seen.vector, -1);
	assert_int_equal(get_ram(TSS_C + 0x0c, 4), 0x234c6666);
	assert_int_equal(get_ram(TSS_C + 0x10, 4), 0x88884202);
	assert_int_equal(get_ram(TSS_C + 0x22, 8), 0x1000080010ull);
	assert_int_equal(get_ram(TSS_C + 0x2a, 2), 0x5555);
	assert_int_equal(type_of(TASK_C), 0x81);
}

static void vm86(void **state)
{
	put_ram(TSS_B + 0x24, 0x20202 | RFLAGS_IOPL, 4);
	set_selectors(0x1111, 0x2222, 0x3333, 0x4444, 0x5555, 0x6666);
	run(CALL, TASK_B);
	assert_int_equal(seen.vector, -1);
	assert_int_equal(vmcs_field[VMCS_GUEST_RFLAGS], 0x27202);
	for (unsigned int i = 0; i < 6; i++) {
		u64 selector = vmcs_field[VMCS_GUEST_ES + 2 * i];

		assert_int_equal(selector, 0x1111 * (i + 1));
		assert_int_equal(vmcs_field[VMCS_GUEST_ES_BASE + 2 * i], selector << 4);
		assert_int_equal(vmcs_field[VMCS_GUEST_ES_LIMIT + 2 * i], 0xffff);
		assert_int_equal(vmcs_field[VMCS_GUEST_ES_AR + 2 * i], 0xf3);
	}
}

static void reserved_eflags(void **state)
{
	put_ram(TSS_B + 0x24, 0xfffdffff, 4); /* all but VM */
	run(JMP, TASK_B);
	assert_int_equal(vmcs_field[VMCS_GUEST_RFLAGS], 0x3d7fd7);
}

static void user_task(void **state)
{
	set_selectors(DATA3, CODE3, DATA3, CONFORM0, LDT_B, 0);
	put_ram(TSS_B + 0x58, 0x0f, 4); /* FS in the LDT, RPL 3 */
	set_descriptor(LDT + 8, 0x123000, 0xfff, 0x40f2);
	run(CALL, TASK_B);
	assert_int_equal(seen.vector, -1);
	assert_int_equal(vmcs_field[VMCS_GUEST_CS_AR], 0xc0fb);
	assert_int_equal(vmcs_field[VMCS_GUEST_SS_AR], 0xc0f3);
	assert_int_equal(vmcs_field[VMCS_GUEST_DS_AR], 0xc09f); /* conforming code: any DPL */
	assert_int_equal(vmcs_field[VMCS_GUEST_FS_BASE], 0x123000);
	assert_int_equal(vmcs_field[VMCS_GUEST_FS_AR], 0x40f3);
	assert_int_equal(get_ram(LDT + 13, 1), 0xf3);
}

static void trap_flag(void **state)
{
	put_ram(TSS_B + 0x64, 1, 2);
	run(CALL, TASK_B);
	assert_int_equal(seen.vector, VEC_DB);
	assert_int_equal(fake_dr6, 0x8000);
	assert_int_equal(vmcs_field[VMCS_GUEST_TR], TASK_B);
}

/* --- by an event
 * ------------------------------------------------------------------------------------- */

static void gate_interrupt(void **state)
{
	event(INTR_TYPE_EXTERNAL, 0x40, false, 0);
	run(GATE, TASK_B);
	expect_task_b(0x4246);
	expect_saved(0x8000, 0x4202);
	assert_int_equal(get_ram(TSS_B, 4), TASK_A);
	assert_int_equal(fake.event.info, 0);
	assert_int_equal(vmcs_field[VMCS_GUEST_RSP], STACK);
}

static void gate_software(void **state)
{
	event(INTR_TYPE_SW_INTERRUPT, 0x80, false, 0);
	run(GATE, TASK_B);
	expect_task_b(0x4246);
	expect_saved(0x8002, 0x4202);
}

static void gate_nmi(void **state)
{
	vmcs_field[VMCS_GUEST_INTERRUPTIBILITY] = 0;
	event(INTR_TYPE_NMI, 2, false, 0);
	run(GATE, TASK_B);
	expect_task_b(0x4246);
	expect_saved(0x8000, 0x4202);
	assert_int_equal(vmcs_field[VMCS_GUEST_INTERRUPTIBILITY], INTERRUPTIBILITY_NMI);
}

static void gate_error_code(void **state)
{
	event(INTR_TYPE_HW_EXCEPTION, VEC_GP, true, 0x1234);
	run(GATE, TASK_B);
	expect_task_b(0x4246);
	expect_saved(0x8000, 0x4202);
	assert_int_equal(vmcs_field[VMCS_GUEST_RSP], STACK - 4);
	assert_int_equal(get_ram(STACK - 4, 4), 0x1234);
	assert_int_equal(fake.event.info, 0);
}

static void gate_error_code_16(void **state)
{
	set_selectors(DATA0, CODE0, DATA0, 0, 0, 0);
	set_descriptor(GDT + DATA0, 0, 0xffff, 0x92); /* SP, not ESP */
	put_ram(TSS_C + 0x12 + 2 * RSP, 0, 2);
	event(INTR_TYPE_HW_EXCEPTION, VEC_GP, true, 0x1234);
	run(GATE, TASK_C);
	assert_int_equal(seen.vector, -1);
	assert_int_equal(vmcs_field[VMCS_GUEST_RSP], 0xfffe);
	assert_int_equal(get_ram(0xfffc, 4), 0x12340000);
}

/* A 16-bit stack of a 32-bit task: ESP's upper half stays; expand-down is above the limit only. */
static void gate_error_code_stacks(void **state)
{
	static const struct {
		u32 ar, limit, esp;
		int vector;
	} stacks[] = {
		{0x92, 0xffff, 0x12340000, -1},	    {0x96, 0xfff, 0x1004, -1},
		{0x96, 0xfff, 0x1003, VEC_SS},	    {0x96, 0xfff, 2, VEC_SS},
		{0x96, 0xfff, 0x56780000, -1},	    {0x4096, 0xfff, 2, VEC_SS},
		{0x92, 0xffff, 0x12340002, VEC_SS}, {0x92, 0x6fff, STACK, -1},
		{0x92, 0x6ffe, STACK, VEC_SS},
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(stacks); i++) {
		reset(NULL);
		set_descriptor(GDT + DATA0, 0, stacks[i].limit, stacks[i].ar);
		put_ram(TSS_B + 0x28 + 4 * RSP, stacks[i].esp, 4);
		event(INTR_TYPE_HW_EXCEPTION, VEC_GP, true, 0x1234);
		run(GATE, TASK_B);
		assert_int_equal(seen.vector, stacks[i].vector);
		if (stacks[i].vector < 0) {
			u32 to = (stacks[i].esp & 0xffff0000) | ((stacks[i].esp - 4) & 0xffff);

			assert_int_equal(vmcs_field[VMCS_GUEST_RSP], to);
			assert_int_equal(get_ram(to & 0xffff, 4), 0x1234);
		} else {
			assert_int_equal(vmcs_field[VMCS_GUEST_RSP], stacks[i].esp);
		}
	}
}

static void gate_stack_fault(void **state)
{
	set_descriptor(GDT + DATA0, 0, STACK - 5, 0x4092);
	event(INTR_TYPE_HW_EXCEPTION, VEC_GP, true, 0x1234);
	run(GATE, TASK_B);
	assert_int_equal(seen.vector, VEC_SS);
	assert_int_equal(seen.error_code, 1);
	assert_int_equal(vmcs_field[VMCS_GUEST_TR], TASK_B);
	assert_int_equal(vmcs_field[VMCS_GUEST_RSP], STACK);
	assert_true(fake.event.info != 0); /* for #DF */
}

/* --- checks before the commit --------------------------------------------------------------------
 */

static const struct {
	u64 how;
	u16 selector;
	u32 ar, limit; /* of TASK_B, 0: as it is */
	int vector;
} bad_tss[] = {
	{CALL, TASK_B | 4, 0, 0, VEC_GP},
	{IRET, TASK_B | 4, 0, 0, VEC_TS},
	{CALL, 0x78, 0, 0, VEC_GP},
	{IRET, 0x78, 0, 0, VEC_TS},
	{JMP, 0, 0, 0, VEC_GP},
	{CALL, TASK_B, 0x8b, 0x67, VEC_GP},
	{JMP, TASK_B, 0x8b, 0x67, VEC_GP},
	{GATE, TASK_B, 0x8b, 0x67, VEC_GP},
	{IRET, TASK_B, 0x89, 0x67, VEC_TS},
	{CALL, TASK_B, 0x09, 0x67, VEC_NP},
	{IRET, TASK_B, 0x0b, 0x67, VEC_NP},
	{CALL, TASK_B, 0x89, 0x66, VEC_TS},
	{CALL, TASK_B, 0x81, 0x2a, VEC_TS},
	{CALL, TASK_B, 0x92, 0x67, VEC_GP},
	{CALL, TASK_B, 0x82, 0x67, VEC_GP},
	{CALL, TASK_B, 0x8c, 0x67, VEC_GP},
	{IRET, TASK_B, 0x9b, 0x67, VEC_TS},
	{JMP, TASK_B, 0x85, 0x67, VEC_GP},
	{JMP, TASK_A, 0, 0, VEC_GP},
};

static void checks_of_tss(void **state)
{
	static u64 fields[0x8000];
	static u8 memory[FAKE_RAM_BYTES];

	for (unsigned int i = 0; i < ARRAY_SIZE(bad_tss) * 2; i++) {
		unsigned int n = i / 2;
		bool external = i & 1;

		if (external && bad_tss[n].how != GATE)
			continue;
		reset(NULL);
		if (bad_tss[n].ar)
			set_descriptor(GDT + TASK_B, TSS_B, bad_tss[n].limit, bad_tss[n].ar);
		if (bad_tss[n].how == GATE)
			event(external ? INTR_TYPE_EXTERNAL : INTR_TYPE_SW_EXCEPTION, 3, false, 0);
		vmcs_field[VMCS_EXIT_QUALIFICATION] = bad_tss[n].how | bad_tss[n].selector;
		memcpy(fields, vmcs_field, sizeof(fields));
		memcpy(memory, ram, sizeof(memory));
		run(bad_tss[n].how, bad_tss[n].selector);
		assert_int_equal(seen.vector, bad_tss[n].vector);
		assert_true(seen.has_error);
		assert_int_equal(seen.error_code, (bad_tss[n].selector & 0xfffc) | external);
		assert_memory_equal(fields, vmcs_field, sizeof(fields));
		assert_memory_equal(memory, ram, sizeof(memory));
	}
	reset(NULL);
	vmcs_field[VMCS_GUEST_GDTR_LIMIT] = TASK_B + 6; /* all but the descriptor's last byte */
	run(CALL, TASK_B);
	assert_int_equal(seen.vector, VEC_GP);
	reset(NULL);
	vmcs_field[VMCS_GUEST_TR_LIMIT] = 0x5e; /* the old state does not fit */
	run(CALL, TASK_B);
	assert_int_equal(seen.vector, VEC_TS);
	assert_int_equal(seen.error_code, TASK_A);
	assert_int_equal(type_of(TASK_B), 0x89);
}

/* Page tables at 0x20000 and 0x21000 that map the first 64 pages to themselves. */
static void paging(void)
{
	vmcs_field[VMCS_GUEST_CR0] |= CR0_PG | CR0_WP;
	vmcs_field[VMCS_GUEST_CR3] = 0x20000;
	put_ram(0x20000, 0x21007, 4);
	for (unsigned int i = 0; i < 64; i++)
		put_ram(0x21000 + 4 * i, i << 12 | 7, 4);
	put_ram(TSS_B + 0x1c, 0x20018, 4);
}

static void page_faults(void **state)
{
	static const struct {
		u64 how;
		unsigned int page;
		u32 entry, error;
	} tries[] = {
		{CALL, 3, 0, PF_W},
		{CALL, 3, 0x3005, PF_P | PF_W},
		{CALL, 4, 0, 0},
		{CALL, 4, 0x4005, PF_P | PF_W}, /* the link */
		{CALL, 1, 0, 0},
		{CALL, 1, 0x1005, PF_P | PF_W}, /* busy flags */
		{JMP, 1, 0x1005, PF_P | PF_W},
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(tries); i++) {
		reset(NULL);
		paging();
		vmcs_field[VMCS_GUEST_SS_AR] =
			0xc0f3; /* CPL 3: these are supervisor accesses still */
		put_ram(0x21000 + 4 * tries[i].page, tries[i].entry, 4);
		run(tries[i].how, TASK_B);
		assert_int_equal(seen.vector, VEC_PF);
		assert_int_equal(seen.error_code, tries[i].error);
		assert_int_equal(seen.addr >> 12, tries[i].page);
		assert_int_equal(vmcs_field[VMCS_GUEST_TR], TASK_A);
		assert_int_equal(get_ram(TSS_A + 0x20, 4), 0xeeeeeeee);
		assert_int_equal(type_of(TASK_A), 0x8b);
		assert_int_equal(type_of(TASK_B), 0x89);
	}
	reset(NULL);
	paging();
	put_ram(0x2100c, 0x3005, 4);
	run(JMP, TASK_A); /* no access without a reason: the checks come first */
	assert_int_equal(seen.vector, VEC_GP);
}

static void loads_cr3(void **state)
{
	paging();
	run(CALL, TASK_B);
	assert_int_equal(seen.vector, -1);
	assert_int_equal(vmcs_field[VMCS_GUEST_CR3], 0x20018);
	assert_int_equal(seen.flushed, 1);

	/* Descriptors are read through the new tables: here there are none. */
	reset(NULL);
	paging();
	put_ram(TSS_B + 0x1c, 0x22000, 4);
	run(CALL, TASK_B);
	assert_int_equal(seen.vector, VEC_PF);
	assert_int_equal(seen.addr, GDT + LDT_B);
	assert_int_equal(vmcs_field[VMCS_GUEST_TR], TASK_B);
	assert_int_equal(vmcs_field[VMCS_GUEST_RIP], 0x00401000);

	reset(NULL);
	paging();
	vmcs_field[VMCS_GUEST_CR4] = CR4_PAE;
	vmcs_field[VMCS_GUEST_PDPTE0] = 0x20001;
	memset(ram + 0x20000, 0, 0x2000);
	put_ram(0x20000, 0x21007, 8);
	for (unsigned int i = 0; i < 64; i++)
		put_ram(0x21000 + 8 * i, i << 12 | 7, 8);
	pdptes_ok = false;
	run(CALL, TASK_B);
	assert_int_equal(seen.vector, VEC_GP);
	assert_int_equal(seen.error_code, 0);
	assert_int_equal(vmcs_field[VMCS_GUEST_CR3], 0x20000);
	assert_int_equal(vmcs_field[VMCS_GUEST_TR], TASK_B);
}

/* --- checks in the new task ----------------------------------------------------------------------
 */

static const struct {
	u32 offset; /* of the selector in TSS_B */
	u16 selector;
	int vector;
} bad_segment[] = {
	/* LDT */
	{0x60, LDT_B | 4, VEC_TS},
	{0x60, 0x78, VEC_TS},
	{0x60, DATA0, VEC_TS},
	{0x60, TASK_B, VEC_TS},
	{0x60, ABSENT, VEC_TS},
	/* CS */
	{0x4c, 0, VEC_TS},
	{0x4c, 0x78, VEC_TS},
	{0x4c, DATA0, VEC_TS},
	{0x4c, CODE0 | 1, VEC_TS},
	{0x4c, CODE3 & ~3, VEC_TS},
	{0x4c, CONFORM3, VEC_TS},
	{0x4c, TASK_A, VEC_TS},
	{0x4c, CODE0_GONE, VEC_NP},
	{0x4c, 0x0c, VEC_TS},
	/* SS */
	{0x50, 0, VEC_TS},
	{0x50, 0x78, VEC_TS},
	{0x50, CODE0, VEC_TS},
	{0x50, READ_ONLY, VEC_TS},
	{0x50, DATA0 | 3, VEC_TS},
	{0x50, DATA3 & ~3, VEC_TS},
	{0x50, ABSENT, VEC_SS},
	/* DS, ES, FS, GS */
	{0x54, 0x78, VEC_TS},
	{0x54, EXEC_ONLY, VEC_TS},
	{0x54, TASK_A, VEC_TS},
	{0x54, DATA0 | 3, VEC_TS},
	{0x54, ABSENT, VEC_NP},
	{0x48, CODE0 | 3, VEC_TS},
	{0x58, ABSENT, VEC_NP},
	{0x5c, LDT_B, VEC_TS},
	{0x5c, 0x14, VEC_TS},
};

static void checks_of_segments(void **state)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(bad_segment) * 2; i++) {
		unsigned int n = i / 2;
		bool external = i & 1;

		reset(NULL);
		put_ram(TSS_B + bad_segment[n].offset, bad_segment[n].selector, 2);
		if (external)
			event(INTR_TYPE_EXTERNAL, 0x40, false, 0);
		run(external ? GATE : CALL, TASK_B);
		assert_int_equal(seen.vector, bad_segment[n].vector);
		assert_int_equal(seen.error_code, (bad_segment[n].selector & 0xfffc) | external);
		/* In the new task, in a state that VM entry accepts. */
		assert_int_equal(vmcs_field[VMCS_GUEST_TR], TASK_B);
		assert_int_equal(vmcs_field[VMCS_GUEST_RIP], 0x00401000);
		assert_int_equal(vmcs_field[VMCS_GUEST_CS_AR] & (AR_UNUSABLE | AR_S | AR_P | 9),
				 AR_S | AR_P | 9);
		assert_int_equal(AR_DPL(vmcs_field[VMCS_GUEST_SS_AR]),
				 AR_DPL(vmcs_field[VMCS_GUEST_CS_AR]));
		assert_int_equal(get_ram(TSS_A + 0x20, 4), external ? 0x8000 : 0x8007);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(by_call, reset),
		cmocka_unit_test_setup(by_jmp, reset),
		cmocka_unit_test_setup(by_iret, reset),
		cmocka_unit_test_setup(to_and_from_16_bits, reset),
		cmocka_unit_test_setup(vm86, reset),
		cmocka_unit_test_setup(reserved_eflags, reset),
		cmocka_unit_test_setup(user_task, reset),
		cmocka_unit_test_setup(trap_flag, reset),
		cmocka_unit_test_setup(gate_interrupt, reset),
		cmocka_unit_test_setup(gate_software, reset),
		cmocka_unit_test_setup(gate_nmi, reset),
		cmocka_unit_test_setup(gate_error_code, reset),
		cmocka_unit_test_setup(gate_error_code_16, reset),
		cmocka_unit_test_setup(gate_error_code_stacks, reset),
		cmocka_unit_test_setup(gate_stack_fault, reset),
		cmocka_unit_test_setup(checks_of_tss, reset),
		cmocka_unit_test_setup(page_faults, reset),
		cmocka_unit_test_setup(loads_cr3, reset),
		cmocka_unit_test_setup(checks_of_segments, reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
