/*
 * Leaves 64-bit mode for 32-bit protected mode (no paging, 4 MiB pages, PAE, virtual-8086 mode,
 * CPL 3), 16-bit protected mode and real mode, and comes back each time; then hardware task
 * switches by JMP, CALL, IRET, INT, an exception and a task gate. The code is in lib/legacy.S,
 * lib/real16.S and lib/tasks.S; what it found is checked here.
 */
#include "apic.h"
#include "cpu.h"
#include "legacy.h"
#include "mem.h"
#include "umbra.h"

void legacy_run(void (*fn)(void));
void pm32_tests(void);
void real_tests(void);
void task_tests(void);

extern u64 legacy_gdt[L_COUNT], legacy_idt[128];
extern u8 legacy_tss[104], legacy_tss_a[104];
extern const u8 trap32_stubs[], real_start[], real_end[];
extern const u8 real_big_address[], real_native[], real_umbra[];
extern u32 legacy_native, legacy_umbra, pm32_magic;

#define BIG_MAGIC 0xb16b00b5
#define CR0_START (CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP)

static bool native, umbra;

static u32 result(unsigned int index)
{
	return ((volatile u32 *)(uintptr_t)RESULTS)[index];
}

/* One result that must have one value. */
static void check(unsigned int index, u32 want, const char *what)
{
	tap_is(result(index), want, "%s", what);
}

/* The same for what QEMU 7.2 TCG does not do: limits, PDPTE checks and caching. */
static void check_native(unsigned int index, u32 want, const char *what)
{
	if (native)
		check(index, want, what);
	else
		tap_skip("%s", what);
}

static u64 segment(u32 base, u32 limit, u32 type, u32 flags)
{
	return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)type << 40 |
	       (u64)(limit >> 16 & 0xf) << 48 | (u64)flags << 52 | (u64)(base >> 24) << 56;
}

static u64 tss_descriptor(const void *tss, u32 limit, u32 type)
{
	return segment((u32)(uintptr_t)tss, limit, type, 0);
}

static void set_up(void)
{
	memset(legacy_tss, 0, sizeof(legacy_tss));
	legacy_tss[102] = 104;
	legacy_gdt[L_CODE32 / 8] = segment(0, 0xfffff, 0x9b, 0xc);
	legacy_gdt[L_DATA32 / 8] = segment(0, 0xfffff, 0x93, 0xc);
	legacy_gdt[L_CODE16 / 8] = segment(REAL_BASE, 0xffff, 0x9b, 0);
	legacy_gdt[L_DATA16 / 8] = segment(REAL_BASE, 0xffff, 0x93, 0);
	legacy_gdt[L_TSS / 8] = tss_descriptor(legacy_tss, 103, 0x89);
	legacy_gdt[L_TSS_A / 8] = tss_descriptor(legacy_tss_a, 103, 0x89);
	legacy_gdt[L_GATE / 8] = (u64)L_TSS_A << 16 | 0x85ull << 40;
	legacy_gdt[L_ABSENT / 8] = segment(0, 0xfffff, 0x13, 0xc);
	legacy_gdt[L_TSS_ABSENT / 8] = tss_descriptor(legacy_tss_a, 103, 0x09);
	legacy_gdt[L_TSS_SHORT / 8] = tss_descriptor(legacy_tss_a, 102, 0x89);
	legacy_gdt[L_UCODE / 8] = segment(0, 0xfffff, 0xfb, 0xc);
	legacy_gdt[L_UDATA / 8] = segment(0, 0xfffff, 0xf3, 0xc);
	for (u32 v = 0; v < 128; v++) {
		u64 target = (u64)(uintptr_t)trap32_stubs + 16 * v;

		legacy_idt[v] = (target & 0xffff) | (u64)L_CODE32 << 16 | 0x8e00ull << 32 |
				(target >> 16) << 48;
	}
	legacy_idt[0x70] = (u64)L_TSS_A << 16 | 0x8500ull << 32;
	memcpy((void *)(uintptr_t)REAL_BASE, real_start,
	       (uintptr_t)real_end - (uintptr_t)real_start);
	memset((void *)(uintptr_t)RESULTS, 0x99, 4 * R_COUNT);
	legacy_native = native;
	legacy_umbra = umbra;
}

static void test_protected_mode(void)
{
	u32 vendor = cpuid(0, 0).ebx;

	legacy_run(pm32_tests);
	tap_ok(true, "32-bit protected mode and back");
	check(R_PM_CR0, CR0_START, "CR0 in protected mode without paging");
	tap_is(result(R_PM_EFER) & (EFER_LME | EFER_LMA), 0, "EFER.LME and LMA are clear");
	check(R_PM_DE, VEC_DE, "#DE in 32-bit code");
	check(R_PM_UD, VEC_UD, "#UD in 32-bit code");
	check(R_PM_NP, VEC_NP, "#NP in 32-bit code");
	check(R_PM_NP_ERROR, L_ABSENT, "its error code");
	check(R_PM_BP, VEC_BP, "INT3 in 32-bit code");
	check(R_PM_OF, VEC_OF, "INTO");
	check(R_PM_BR, VEC_BR, "BOUND");
	check(R_PM_INT, 0x60, "INT n in 32-bit code");
	check(R_PM_CPUID, vendor, "CPUID in 32-bit code");
	check(R_PM_INS, 0x00ffffff, "REP INSB in 32-bit code");
	if (umbra)
		check(R_PM_VMCALL, UMBRA_HYPERCALL_VERSION, "VMCALL in 32-bit code");
	check(R_PG32_READ, pm32_magic, "read through a 4 MiB page");
	check(R_PG32_PF, VEC_PF, "#PF with 32-bit paging");
	check(R_PG32_ERROR, PF_W, "its error code");
	check(R_PG32_CR2, 0x40000000 + (u32)(uintptr_t)&pm32_magic, "its CR2");
	check(R_PAE_READ, pm32_magic, "read through a PAE page");
	check_native(R_PAE_STALE, (u32)TRAP_NONE, "a PDPTE changed in memory is still in use");
	check(R_PAE_PF, VEC_PF, "MOV to CR3 loads the changed PDPTE");
	check_native(R_PAE_GP, VEC_GP, "MOV to CR3 with reserved PDPTE bits");
	check_native(R_PAE_PG_GP, VEC_GP, "turning paging on with reserved PDPTE bits");
	check(R_V86_CPUID, vendor, "CPUID in virtual-8086 mode");
	check(R_V86_SEGMENT, REAL_BASE >> 4, "segments there");
	check(R_V86_TRAP, VEC_GP, "INT with IOPL 0 in virtual-8086 mode: #GP");
	check(R_V86_ERROR, 0, "its error code");
	tap_is(result(R_V86_FLAGS) & RFLAGS_VM, RFLAGS_VM, "EFLAGS.VM is saved");
	check(R_V86_CS, REAL_BASE >> 4, "CS is saved");
	check(R_U32_TRAP, VEC_GP, "HLT at CPL 3 in 32-bit code: #GP");
	check(R_U32_CS, L_UCODE | 3, "its CS");
}

/* A label of the 16-bit code, in its copy. */
static u8 *copy_of(const u8 *label)
{
	return (u8 *)((uintptr_t)label - (uintptr_t)real_start + REAL_BASE);
}

static void test_real_mode(void)
{
	volatile u32 *big = mem_alloc(SIZE_2M, SIZE_2M);
	u32 address = (u32)(uintptr_t)big + 0x12344;

	if (!big)
		tap_bail("out of memory");
	*(volatile u32 *)(uintptr_t)address = BIG_MAGIC;
	memcpy(copy_of(real_big_address), &address, 4);
	*copy_of(real_native) = native;
	*copy_of(real_umbra) = umbra;
	memset((void *)0x20f00, 0, 0x200);
	lapic_write(LAPIC_LVT_LINT0, 0x700); /* the 8259's interrupts: virtual wire */
	legacy_run(real_tests);
	lapic_write(LAPIC_LVT_LINT0, BIT(16));
	pic_mask_all();
	check(R_RM_DONE, 0x1234abcd, "real mode and back");
	check(R_PM16_STORE, 0x16161616, "a store in 16-bit protected mode");
	check(R_PM16_STACK, 2 << 16, "16-bit stack and calls");
	tap_is(result(R_RM_CR0) & (CR0_PE | CR0_PG), 0, "CR0 in real mode");
	check(R_RM_INT, 1, "INT n in real mode");
	check(R_RM_INT_IP, 0, "its return address");
	check(R_RM_FLAGS, 1, "IRET restores the flags");
	tap_is(result(R_RM_INT_FLAGS) & (RFLAGS_IF | RFLAGS_TF), 0, "IF and TF clear in a handler");
	check(R_RM_DE, VEC_DE, "#DE in real mode");
	check(R_RM_UD, VEC_UD, "#UD in real mode");
	check(R_RM_STEPS, 7, "single-step traps over NOP, CPUID, IN");
	check(R_RM_CPUID, cpuid(0, 0).ebx, "CPUID in real mode");
	tap_is(result(R_RM_MSR) & (EFER_LME | EFER_LMA), 0, "RDMSR in real mode");
	check(R_RM_IRQ, 1, "HLT in real mode, woken by IRQ 0");
	check(R_RM_BIG, BIG_MAGIC, "a segment keeps its 4 GiB limit");
	check(R_RM_WRAP, *(volatile u32 *)0x100000, "ffff:0010 is 1 MiB");
	check(R_RM_INS, 0x01011002, "REP INSB in real mode");
	check(R_RM_OUTS, 0x207, "REP OUTSB in real mode");
	check(R_RM_FRESH, 1, "INT n on a fresh stack");
	check(R_RM_SP, 0x1002, "SP after it");
	check(R_RM_FARCALL, 0x5a5a, "far call and return");
	check(R_RM_LMSW, 0, "SMSW shows PE clear");
	check_native(R_RM_LIMIT, VEC_GP, "a word at offset 0xffff: #GP");
	check_native(R_RM_LIMIT32, VEC_GP, "offset 0x10000: #GP");
	if (umbra)
		check(R_RM_VMCALL, UMBRA_HYPERCALL_VERSION, "VMCALL in real mode");
}

#define BUSY(main, other) ((main) | (other) << 8)
#define BACK		  "back in the main task"

static void test_task_switches(void)
{
	legacy_run(task_tests);
	tap_ok(true, "task switches and back to 64-bit mode");
	check(R_T_JMP_REGS, 0xa1 + 0xa2 + 0xa3 + 0xa4 + 0xa5 + 0xa6 + 0xa7,
	      "JMP: the new task's registers");
	tap_is(result(R_T_JMP_FLAGS) & RFLAGS_NT, 0, "JMP: NT is clear");
	tap_is(result(R_T_JMP_CR0) & CR0_TS, CR0_TS, "JMP: CR0.TS is set");
	check(R_T_JMP_LINK, 0, "JMP: no back link");
	check(R_T_JMP_BUSY, BUSY(0x89, 0x8b), "JMP: busy bits");
	check(R_T_JMP_TR, L_TSS_A, "JMP: TR");
	check(R_T_JMP_BACK, L_TSS, BACK);
	check(R_T_JMP_BUSY2, BUSY(0x8b, 0x89), "busy bits " BACK);
	check(R_T_REGS_BACK, 0xb1 + 0xb2 + 0xb3 + 0xb4, "registers " BACK);
	tap_is(result(R_T_CALL_FLAGS) & RFLAGS_NT, RFLAGS_NT, "CALL: NT is set");
	check(R_T_CALL_LINK, L_TSS, "CALL: back link");
	check(R_T_CALL_BUSY, BUSY(0x8b, 0x8b), "CALL: busy bits");
	check(R_T_CALL_BACK, L_TSS, "IRET: " BACK);
	check(R_T_CALL_BUSY2, BUSY(0x8b, 0x89), "IRET: busy bits");
	tap_is(result(R_T_CALL_NT_SAVED) & RFLAGS_NT, 0, "IRET: NT is clear in the saved flags");
	check(R_T_INT_LINK, L_TSS, "INT through a task gate: back link");
	tap_is(result(R_T_INT_FLAGS) & RFLAGS_NT, RFLAGS_NT, "INT through a task gate: NT");
	check(R_T_INT_EIP, 0, "INT through a task gate: saved EIP is behind it");
	check(R_T_INT_BACK, L_TSS, BACK);
	check(R_T_EXC_ERROR, L_ABSENT, "#NP through a task gate: error code");
	check(R_T_EXC_EIP, 0, "#NP through a task gate: saved EIP is the instruction's");
	check(R_T_EXC_BACK, L_TSS, BACK);
	check(R_T_GATE_BACK, L_TSS, "CALL through a task gate: " BACK);
	check(R_T_BUSY_VEC, VEC_GP, "JMP to a busy TSS: #GP");
	check(R_T_BUSY_ERR, L_TSS, "its error code");
	check(R_T_NP_VEC, VEC_NP, "JMP to a TSS not present: #NP");
	check(R_T_NP_ERR, L_TSS_ABSENT, "its error code");
	check(R_T_TS_VEC, VEC_TS, "JMP to a TSS too short: #TS");
	check(R_T_TS_ERR, L_TSS_SHORT, "its error code");
	check(R_T_IRET_LINK_VEC, VEC_TS, "IRET with NT to no TSS: #TS");
	check(R_T_IRET_LINK_ERR, L_DATA32, "its error code");
	check_native(R_T_DBG_VEC, VEC_DB, "T flag of a TSS: #DB");
	if (native)
		tap_is(result(R_T_DBG_DR6) & BIT(15), BIT(15), "DR6.BT");
	check(R_T_BADDS_VEC, VEC_NP, "a segment of the new task not present: #NP");
	check(R_T_BADDS_ERR, L_ABSENT, "its error code");
	check(R_T_BADDS_TR, L_TSS_A, "the fault is the new task's");
	check(R_T_CR3_MAIN, pm32_magic, "paging before the switch");
	check(R_T_CR3_OTHER, 0x22222222, "the new task's CR3");
	check(R_T_CR3_BACK, pm32_magic, "the old one again");
}

void guest_main(void)
{
	umbra = umbra_present();
	native = !tcg_present();
	lapic_enable();
	set_up();
	test_protected_mode();
	test_real_mode();
	if (!opt_flag("no-tasks"))
		test_task_switches();
	for (u32 i = 0; i < 10; i++)
		legacy_run(pm32_tests);
	tap_ok(true, "ten more times to 32-bit mode and back");
}
