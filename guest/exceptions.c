/*
 * Every exception that software can raise, raised by instructions: vector, error code, saved RIP
 * (of the instruction for faults, of the next one for traps), CR2 and DR6. With `intercept = MASK`
 * in the VM's configuration the same points show that Umbra reflects exceptions unchanged.
 * Option `triple` ends the VM by a triple fault after all points.
 */
#include "cpu.h"
#include "mem.h"
#include "umbra.h"

#define TEST_VA 0x4000000000ull

/* Runs one instruction, of which the operands follow as in an asm statement. */
#define RAISE(insn, ...)                            \
	do {                                        \
		trap_clear();                       \
		asm volatile(EX(insn) __VA_ARGS__); \
	} while (0)

static bool tcg;

/* Error code that names an IDT entry (SDM 6.13). QEMU 7.2 TCG counts in 16s in long mode. */
static u64 idt_error(unsigned int vector)
{
	return vector * (tcg ? 16 : 8) + 2;
}

static void check(const char *name, int vector, u64 error, bool fault)
{
	const struct trap *t = trap_last();
	bool good = t->vector == vector && t->error == error && t->cs == SEL_CODE &&
		    t->rip == (fault ? t->insn : t->next);

	tap_ok(good, "%s: vector %d, error 0x%lx", name, vector, error);
	if (!good)
		tap_note("got vector %d error 0x%lx rip 0x%lx (instruction 0x%lx to 0x%lx)",
			 t->vector, t->error, t->rip, t->insn, t->next);
}

static void check_user(const char *name, u64 (*fn)(u64), u64 arg, int vector, u64 error)
{
	struct trap t;

	user_run(&t, fn, arg, NULL);
	tap_ok(t.vector == vector && (vector == TRAP_NONE || t.error == error),
	       "%s at CPL 3: vector %d, error 0x%lx", name, vector, error);
	if (t.vector != vector || (vector != TRAP_NONE && t.error != error))
		tap_note("got vector %d error 0x%lx rip 0x%lx", t.vector, t.error, t.rip);
	else if (vector != TRAP_NONE)
		tap_is(t.cs, SEL_USER_CODE | 3, "%s: saved CS", name);
}

static void test_arithmetic(void)
{
	RAISE("divl %%ecx", : : "a"(1), "d"(0), "c"(0) : "memory");
	check("division by zero", VEC_DE, 0, true);
	RAISE("idivl %%ecx", : : "a"(0x80000000), "d"(0xffffffff), "c"(-1) : "memory");
	check("division overflow", VEC_DE, 0, true);
	RAISE("fwait", : : : "memory");
	tap_is((u64)trap_last()->vector, (u64)TRAP_NONE, "FWAIT without pending error");
	asm volatile("fninit; fnstcw -8(%%rsp); andw $~4, -8(%%rsp); fldcw -8(%%rsp);"
		     "fld1; fldz; fdivrp"
		     :
		     :
		     : "memory");
	RAISE("fwait", : : : "memory");
	check("x87 division by zero", VEC_MF, 0, true);
	asm volatile("fnclex; fninit");
	if (tcg) { /* QEMU 7.2 TCG does not raise SIMD floating-point exceptions */
		tap_skip("#XM on QEMU TCG");
		return;
	}
	u32 mxcsr = 0x1f80 & ~0x200u;

	asm volatile("ldmxcsr %0; xorps %%xmm1, %%xmm1; movl $0x3f800000, %%eax; movd %%eax, %%xmm0"
		     :
		     : "m"(mxcsr)
		     : "eax");
	RAISE("divss %%xmm1, %%xmm0", : : : "memory");
	check("SSE division by zero", VEC_XM, 0, true);
	mxcsr = 0x1f80;
	asm volatile("ldmxcsr %0" : : "m"(mxcsr));
}

static void test_fpu_off(void)
{
	u64 cr0 = read_cr0();

	write_cr0(cr0 | CR0_TS);
	RAISE("fldz", : : : "memory");
	check("x87 with CR0.TS", VEC_NM, 0, true);
	RAISE("xorps %%xmm0, %%xmm0", : : : "memory");
	check("SSE with CR0.TS", VEC_NM, 0, true);
	RAISE("fwait", : : : "memory");
	check("FWAIT with CR0.TS and MP", VEC_NM, 0, true);
	asm volatile("clts");
	tap_is(read_cr0(), cr0, "CLTS clears TS alone");
	write_cr0((cr0 | CR0_EM) & ~CR0_MP);
	RAISE("fldz", : : : "memory");
	check("x87 with CR0.EM", VEC_NM, 0, true);
	RAISE("xorps %%xmm0, %%xmm0", : : : "memory");
	check("SSE with CR0.EM", VEC_UD, 0, true);
	write_cr0(cr0);
	asm volatile("fninit");
}

static void test_undefined(void)
{
	RAISE("ud2", : : : "memory");
	check("UD2", VEC_UD, 0, true);
	RAISE(".byte 0x0f, 0xb9, 0xc0", : : : "memory");
	check("UD1", VEC_UD, 0, true);
	RAISE(".byte 0x06", : : : "memory");
	check("PUSH ES in 64-bit mode", VEC_UD, 0, true);
	RAISE(".byte 0xf0; nop", : : : "memory");
	check("LOCK NOP", VEC_UD, 0, true);
	RAISE(".byte 0xf0; addl %%eax, %%eax", : : : "eax", "memory");
	check("LOCK on a register", VEC_UD, 0, true);
	RAISE("mov %%rax, %%cr1", : : : "memory");
	check("MOV to CR1", VEC_UD, 0, true);
}

static void test_software(void)
{
	RAISE("int3", : : : "memory");
	check("INT3", VEC_BP, 0, false);
	RAISE(".byte 0xcd, 3", : : : "memory");
	check("INT 3", VEC_BP, 0, false);
	RAISE("int $4", : : : "memory");
	check("INT 4", VEC_OF, 0, false);
	RAISE("int $0x77", : : : "memory");
	check("INT 0x77", 0x77, 0, false);
	idt_reset(VEC_GP, true);
	RAISE("int $13", : : : "memory");
	check("INT 13 pushes no error code", VEC_GP, 0, false);
	idt_reset(VEC_GP, false);
	if (tcg) { /* QEMU 7.2 TCG: INT1 is #UD */
		tap_skip("INT1 on QEMU TCG");
		return;
	}
	write_dr6(0xffff0ff0);
	RAISE(".byte 0xf1", : : : "memory");
	check("INT1", VEC_DB, 0, false);
	tap_is(trap_last()->dr6 & 0xf, 0, "INT1 sets no breakpoint bit of DR6");
}

/* 32-bit code: INTO and BOUND do not exist in 64-bit mode. */
void compat_into(void);
void compat_bound(void);
void compat_bound_good(void);
asm(".pushsection .text\n.code32\n"
    "compat_into:\n movl $0x7fffffff, %eax\n addl $1, %eax\n"
    ".globl compat_into_next\n into\ncompat_into_next:\n lret\n"
    "compat_bound_limits: .long 5, 10\n"
    "compat_bound: movl $11, %eax\n"
    ".globl compat_bound_insn\ncompat_bound_insn: bound %eax, compat_bound_limits\n lret\n"
    "compat_bound_good: movl $10, %eax\n bound %eax, compat_bound_limits\n lret\n"
    ".code64\n.popsection");
extern const u8 compat_into_next[], compat_bound_insn[];

static void run_compat(void *fn)
{
	compat_call((void (*)(void))fn);
}

static void test_compat(void)
{
	struct trap t;

	trap_run(&t, run_compat, (void *)compat_into);
	tap_ok(t.vector == VEC_OF && t.cs == SEL_CODE32 && t.rip == (u64)compat_into_next,
	       "INTO in 32-bit code");
	trap_run(&t, run_compat, (void *)compat_bound);
	tap_ok(t.vector == VEC_BR && t.cs == SEL_CODE32 && t.rip == (u64)compat_bound_insn,
	       "BOUND in 32-bit code");
	tap_ok(!trap_run(&t, run_compat, (void *)compat_bound_good), "BOUND within its limits");
}

static volatile u64 watched __aligned(8);

static void test_general_detect(void)
{
	if (tcg) { /* QEMU 7.2 TCG ignores DR7.GD */
		tap_skip("DR7.GD on QEMU TCG");
		return;
	}
	write_dr7(0x400 | BIT(13));
	RAISE("mov %%dr3, %%rax", : : : "rax", "memory");
	check("MOV DR with DR7.GD", VEC_DB, 0, true);
	tap_is(trap_last()->dr6 & BIT(13), BIT(13), "general detect: DR6.BD");
	tap_is(read_dr7() & BIT(13), 0, "delivery of #DB clears DR7.GD");
	write_dr7(0x400);
}

static void test_breakpoints(void)
{
	u64 insn, dr6;

	/* Execution: a fault before the instruction. RF in the frame lets it run. */
	write_dr6(0xffff0ff0);
	trap_clear();
	asm volatile("lea 1f(%%rip), %0; mov %0, %%dr0; mov %1, %%dr7\n"
		     "1:" EX("nop") "xor %k1, %k1; mov %1, %%dr7"
		     : "=&r"(insn)
		     : "r"(0x402ull)
		     : "memory", "cc");
	check("execution breakpoint", VEC_DB, 0, true);
	tap_is(trap_last()->dr6 & 0xe00f, 1, "execution breakpoint: DR6");
	/* Data: a trap after the access. */
	write_dr6(0xffff0ff0);
	write_dr0(0);
	write_dr1((u64)(uintptr_t)&watched);
	write_dr7(0x400 | BIT(3) | 0xdu << 20); /* G1, write, 4 bytes */
	RAISE("movl $1, %0", : "=m"(watched) : : "memory");
	check("data breakpoint on a write", VEC_DB, 0, false);
	dr6 = trap_last()->dr6;
	tap_is(dr6 & 0xe00f, 2, "data breakpoint: DR6");
	RAISE("movl %0, %%eax", : : "m"(watched) : "eax", "memory");
	tap_is((u64)trap_last()->vector, (u64)TRAP_NONE, "a read does not hit a write breakpoint");
	write_dr7(0x400);
	write_dr6(0xffff0ff0);
	/* I/O, which needs CR4.DE; and DR4 then is no alias of DR6. */
	write_cr4(read_cr4() | CR4_DE);
	write_dr6(0xffff0ff0);
	write_dr2(0x80);
	write_dr7(0x400 | BIT(5) | 2u << 24);
	RAISE("outb %%al, $0x80", : : "a"(0) : "memory");
	check("I/O breakpoint", VEC_DB, 0, false);
	tap_is(trap_last()->dr6 & 0xe00f, 4, "I/O breakpoint: DR6");
	RAISE("outb %%al, $0x81", : : "a"(0) : "memory");
	tap_is((u64)trap_last()->vector, (u64)TRAP_NONE, "another port does not hit it");
	write_dr7(0x400);
	RAISE("mov %%dr4, %%rax", : : : "rax", "memory");
	check("MOV from DR4 with CR4.DE", VEC_UD, 0, true);
	write_cr4(read_cr4() & ~CR4_DE);
	RAISE("mov %%dr4, %%rax", : : : "rax", "memory");
	tap_is((u64)trap_last()->vector, (u64)TRAP_NONE, "DR4 is an alias without CR4.DE");
	RAISE("mov %0, %%dr7", : : "r"(1ull << 32) : "memory");
	check("MOV to DR7 with bit 32", VEC_GP, 0, true);
	RAISE("mov %0, %%dr6", : : "r"(1ull << 32) : "memory");
	check("MOV to DR6 with bit 32", VEC_GP, 0, true);
	write_dr6(0xffff0ff0);
}

static void set_test_descriptor(u64 value)
{
	gdt[SEL_TEST / 8] = value;
}

static void test_segments(void)
{
	struct __packed {
		u32 offset;
		u16 selector;
	} far = {0x100000, SEL_TEST};

	set_test_descriptor(0x00cf13000000ffff); /* data, not present */
	RAISE("movw %w0, %%es", : : "r"(SEL_TEST) : "memory");
	check("ES not present", VEC_NP, SEL_TEST, true);
	RAISE("movw %w0, %%ss", : : "r"(SEL_TEST) : "memory");
	check("SS not present", VEC_SS, SEL_TEST, true);
	set_test_descriptor(0x00af1b000000ffff); /* code, not present */
	RAISE("ljmp *%0", : : "m"(far) : "memory");
	check("far jump to a segment not present", VEC_NP, SEL_TEST, true);
	set_test_descriptor(0x00ef9b000000ffff); /* L and D both set */
	if (!tcg) {				 /* QEMU 7.2 TCG does not look */
		RAISE("ljmp *%0", : : "m"(far) : "memory");
		check("far jump to code with L and D", VEC_GP, SEL_TEST, true);
	}
	set_test_descriptor(0x00cf9b000000ffff); /* code where data is needed */
	RAISE("movw %w0, %%ss", : : "r"(SEL_TEST) : "memory");
	check("SS from a code segment", VEC_GP, SEL_TEST, true);
	RAISE("movw %w0, %%fs", : : "r"(SEL_TSS + 16 * MAX_CPUS + 8) : "memory");
	check("selector beyond the GDT", VEC_GP, SEL_TSS + 16 * MAX_CPUS + 8, true);
	RAISE("movw %w0, %%gs", : : "r"(SEL_CODE | 4) : "memory");
	check("selector in an LDT that is not there", VEC_GP, SEL_CODE | 4, true);
	set_test_descriptor(0);
	RAISE("ltr %w0", : : "r"(SEL_TEST) : "memory");
	check("LTR of an empty descriptor", VEC_GP, SEL_TEST, true);
	RAISE("ltr %w0", : : "r"(SEL_TSS) : "memory");
	check("LTR of a busy TSS", VEC_GP, SEL_TSS, true);
}

static void push_non_canonical(void *arg)
{
	asm volatile("movq %0, %%rsp; pushq %%rax" : : "r"(0x8000000000000000ull) : "memory");
}

static void test_addresses(void)
{
	u64 bad = 0x8000000000000000ull;

	RAISE("movl (%0), %%eax", : : "r"(bad) : "eax", "memory");
	check("non-canonical data address", VEC_GP, 0, true);
	if (tcg) { /* QEMU 7.2 TCG: #GP for both, the jump's after it was taken */
		tap_skip("#SS and jump to non-canonical addresses on QEMU TCG");
		return;
	}
	trap_clear();
	asm volatile("pushq %%rbp; movq %0, %%rbp;" EX("movl (%%rbp), %%eax") "popq %%rbp"
		     :
		     : "r"(bad)
		     : "eax", "memory");
	check("non-canonical stack address", VEC_SS, 0, true);
	RAISE("jmp *%0", : : "r"(bad) : "memory");
	check("jump to a non-canonical address", VEC_GP, 0, true);
}

/* Delivery of an exception that itself faults (SDM table 6-5). */
static void check_df(const char *name, void (*fn)(void *), void *arg)
{
	struct trap t;

	trap_run(&t, fn, arg);
	tap_ok(t.vector == VEC_DF && t.error == 0, "%s: #DF", name);
	if (t.vector != VEC_DF)
		tap_note("got vector %d error 0x%lx", t.vector, t.error);
}

static void do_div(void *arg)
{
	asm volatile("divl %%ecx" : : "a"(1), "d"(0), "c"(0));
}

static void do_pf(void *arg)
{
	asm volatile("movl (%0), %%eax" : : "r"(TEST_VA) : "eax", "memory");
}

static void do_gp(void *arg)
{
	asm volatile("movl (%0), %%eax" : : "r"(0x8000000000000000ull) : "eax", "memory");
}

static void gate_absent(unsigned int vector)
{
	idt[vector].type &= 0x7f;
}

static void test_double_fault(void)
{
	u64 ext = tcg ? 0 : 1; /* QEMU 7.2 TCG leaves EXT clear in these error codes */

	check_df("#SS on a stack without address", push_non_canonical, NULL);
	gate_absent(VEC_DE);
	check_df("#DE, gate not present", do_div, NULL);
	idt_reset(VEC_DE, false);
	gate_absent(VEC_GP);
	check_df("#GP, gate not present", do_gp, NULL);
	idt_reset(VEC_GP, false);
	gate_absent(VEC_PF);
	check_df("#PF, gate not present", do_pf, NULL);
	idt_reset(VEC_PF, false);
	idt[VEC_PF].selector = SEL_DATA;
	check_df("#PF, gate with a data selector", do_pf, NULL);
	idt_reset(VEC_PF, false);
	/* A benign exception followed by a fault is no double fault. */
	gate_absent(VEC_UD);
	RAISE("ud2", : : : "memory");
	check("#UD, gate not present", VEC_NP, idt_error(VEC_UD) + ext, true);
	idt_reset(VEC_UD, false);
	idt[VEC_UD].selector = SEL_TEST;
	RAISE("ud2", : : : "memory");
	check("#UD, gate with an empty descriptor", VEC_GP, SEL_TEST + ext, true);
	idt_reset(VEC_UD, false);
	gate_absent(0x77);
	RAISE("int $0x77", : : : "memory");
	check("INT, gate not present", VEC_NP, idt_error(0x77), true);
	idt_reset(0x77, false);
	idt[0x77].type = 0x85; /* a task gate: not allowed in 64-bit mode */
	RAISE("int $0x77", : : : "memory");
	check("INT through a task gate in 64-bit mode", VEC_GP, idt_error(0x77), true);
	idt_reset(0x77, false);
	/* Contributory, then a page fault on the handler's stack: the page fault is delivered. */
	cpus[0].tss.ist[6] = TEST_VA + 0x1000;
	idt_set_ist(VEC_DE, 7);
	RAISE("divl %%ecx", : : "a"(1), "d"(0), "c"(0) : "memory");
	check("#DE, handler's stack not mapped", VEC_PF, PF_W, true);
	tap_is(trap_last()->cr2, TEST_VA + 0xff8, "CR2 is the stack's address");
	idt_reset(VEC_DE, false);
	idt_set_ist(VEC_PF, 7);
	check_df("#PF, handler's stack not mapped", do_pf, NULL);
	idt_reset(VEC_PF, false);
	cpus[0].tss.ist[6] = 0;
}

/* A TSS that ends before the IST entry: #TS with the TSS's selector. */
static void test_invalid_tss(void)
{
	u64 *desc = &gdt[SEL_TSS / 8];
	u64 whole = *desc;

	*desc = (whole & ~0xffffull & ~BIT64(41)) | 0x4f; /* shorter, and available again */
	asm volatile("ltr %w0" : : "r"(SEL_TSS));
	idt_set_ist(0x77, 7);
	RAISE("int $0x77", : : : "memory");
	check("INT with IST beyond the TSS", VEC_TS, SEL_TSS, true);
	idt_set_ist(0x77, 0);
	*desc = whole & ~BIT64(41);
	asm volatile("ltr %w0" : : "r"(SEL_TSS));
}

static u64 __user u_none(u64 arg)
{
	return arg + 1;
}

#define USER_INSN(name, ...)               \
	static u64 __user name(u64 arg)    \
	{                                  \
		asm volatile(__VA_ARGS__); \
		return 0;                  \
	}
USER_INSN(u_cli, "cli")
USER_INSN(u_hlt, "hlt")
USER_INSN(u_cr0, "mov %%cr0, %%rax" : : : "rax")
USER_INSN(u_dr7, "mov %%dr7, %%rax" : : : "rax")
USER_INSN(u_in, "inb $0x80, %%al" : : : "al")
USER_INSN(u_rdmsr, "rdmsr" : : "c"(0x10) : "eax", "edx")
USER_INSN(u_wbinvd, "wbinvd")
USER_INSN(u_invd, "invd")
USER_INSN(u_xsetbv, "xsetbv" : : "c"(0), "a"(1), "d"(0))
USER_INSN(u_int77, "int $0x77")
USER_INSN(u_int3, "int3")
USER_INSN(u_ud2, "ud2")
USER_INSN(u_vmcall, "vmcall" : : "a"(1) : "rbx")
USER_INSN(u_cpuid, "cpuid" : : "a"(1) : "ebx", "ecx", "edx")
USER_INSN(u_lgdt, "lgdt (%0)" : : "r"(arg))
USER_INSN(u_rdtsc, "rdtsc" : : : "eax", "edx")
USER_INSN(u_unaligned, "movl 1(%0), %%eax" : : "r"(arg & ~7ull) : "eax")
USER_INSN(u_read, "movl (%0), %%eax" : : "r"(arg) : "eax")
USER_INSN(u_write, "movl $0xc3c3c3c3, (%0)" : : "r"(arg) : "memory")
USER_INSN(u_call, "call *%0" : : "r"(arg) : "memory")

static void test_user(void)
{
	static u64 __user_data user_word[2] __aligned(8);
	u64 value = 0;
	struct trap t;

	user_run(NULL, u_none, 41, &value);
	tap_is(value, 42, "a function at CPL 3 returns");
	check_user("CLI", u_cli, 0, VEC_GP, 0);
	check_user("HLT", u_hlt, 0, VEC_GP, 0);
	check_user("MOV from CR0", u_cr0, 0, VEC_GP, 0);
	check_user("MOV from DR7", u_dr7, 0, VEC_GP, 0);
	check_user("IN", u_in, 0, VEC_GP, 0);
	check_user("RDMSR", u_rdmsr, 0, VEC_GP, 0);
	check_user("WBINVD", u_wbinvd, 0, VEC_GP, 0);
	check_user("INVD", u_invd, 0, VEC_GP, 0);
	check_user("LGDT", u_lgdt, (u64)user_word, VEC_GP, 0);
	check_user("INT 0x77, gate of DPL 0", u_int77, 0, VEC_GP, idt_error(0x77));
	check_user("INT3, gate of DPL 0", u_int3, 0, VEC_GP, idt_error(VEC_BP));
	idt_set_dpl(VEC_BP, 3);
	check_user("INT3, gate of DPL 3", u_int3, 0, VEC_BP, 0);
	idt_set_dpl(VEC_BP, 0);
	check_user("UD2", u_ud2, 0, VEC_UD, 0);
	check_user("VMCALL", u_vmcall, 0, VEC_UD, 0);
	check_user("CPUID", u_cpuid, 0, TRAP_NONE, 0);
	check_user("RDTSC", u_rdtsc, 0, TRAP_NONE, 0);
	write_cr4(read_cr4() | CR4_TSD);
	check_user("RDTSC with CR4.TSD", u_rdtsc, 0, VEC_GP, 0);
	write_cr4(read_cr4() & ~CR4_TSD);
	if (cpuid(1, 0).ecx & BIT(26)) {
		write_cr4(read_cr4() | CR4_OSXSAVE);
		check_user("XSETBV", u_xsetbv, 0, VEC_GP, 0);
		write_cr4(read_cr4() & ~CR4_OSXSAVE);
	}
	write_cr0(read_cr0() | CR0_AM);
	if (user_run_flags(&t, u_unaligned, (u64)user_word, NULL, RFLAGS_AC) || !tcg)
		tap_ok(t.vector == VEC_AC && t.error == 0, "#AC, got vector %d", t.vector);
	else /* QEMU 7.2 TCG has no alignment check */
		tap_skip("#AC on QEMU TCG");
	check_user("unaligned access without RFLAGS.AC", u_unaligned, (u64)user_word, TRAP_NONE, 0);
	write_cr0(read_cr0() & ~CR0_AM);
}

enum pf_access {
	READ,
	WRITE,
	EXEC
};

struct pf_case {
	const char *name;
	u64 flags; /* of the leaf */
	enum pf_access access;
	bool user;
	int error; /* -1: no fault */
};

#define RSVD BIT64(51)

static const struct pf_case pf_cases[] = {
	{"read, not present", 0, READ, false, 0},
	{"write, not present", 0, WRITE, false, PF_W},
	{"fetch, not present", 0, EXEC, false, PF_I},
	{"read, read-only", PTE_P, READ, false, -1},
	{"write, read-only", PTE_P, WRITE, false, PF_P | PF_W},
	{"write, writable", PTE_P | PTE_W, WRITE, false, -1},
	{"fetch, executable", PTE_P, EXEC, false, -1},
	{"fetch, NX", PTE_P | PTE_NX, EXEC, false, PF_P | PF_I},
	{"read, NX", PTE_P | PTE_NX, READ, false, -1},
	{"read, reserved bit", PTE_P | RSVD, READ, false, PF_P | PF_R},
	{"write, reserved bit", PTE_P | PTE_W | RSVD, WRITE, false, PF_P | PF_R | PF_W},
	{"fetch, reserved bit", PTE_P | RSVD, EXEC, false, PF_P | PF_R | PF_I},
	{"user read, not present", 0, READ, true, PF_U},
	{"user write, not present", 0, WRITE, true, PF_U | PF_W},
	{"user fetch, not present", 0, EXEC, true, PF_U | PF_I},
	{"user read, supervisor page", PTE_P | PTE_W, READ, true, PF_P | PF_U},
	{"user write, supervisor page", PTE_P | PTE_W, WRITE, true, PF_P | PF_U | PF_W},
	{"user fetch, supervisor page", PTE_P, EXEC, true, PF_P | PF_U | PF_I},
	{"user read, user page", PTE_P | PTE_U, READ, true, -1},
	{"user write, read-only", PTE_P | PTE_U, WRITE, true, PF_P | PF_U | PF_W},
	{"user write, user page", PTE_P | PTE_U | PTE_W, WRITE, true, -1},
	{"user fetch, user page", PTE_P | PTE_U, EXEC, true, -1},
	{"user fetch, NX", PTE_P | PTE_U | PTE_NX, EXEC, true, PF_P | PF_U | PF_I},
	{"user read, reserved bit", PTE_P | PTE_U | RSVD, READ, true, PF_P | PF_U | PF_R},
};

static void k_access(u64 va, enum pf_access access)
{
	if (access == READ)
		asm volatile("movl (%0), %%eax" : : "r"(va) : "eax", "memory");
	else if (access == WRITE)
		asm volatile("movl $0xc3c3c3c3, (%0)" : : "r"(va) : "memory");
	else
		asm volatile("call *%0" : : "r"(va) : "memory");
}

static const struct pf_case *pf_current;
static u64 pf_address;

static void pf_kernel(void *arg)
{
	k_access(pf_address, pf_current->access);
}

static void pf_check(const struct pf_case *c, const char *suffix)
{
	static u64 (*const user_fn[])(u64) = {u_read, u_write, u_call};
	int error = c->error;
	struct trap t;
	bool good;

	if (tcg && c->error >= 0 && (c->error & PF_R))
		error &= ~(int)PF_P; /* QEMU 7.2 TCG leaves P clear with RSVD set */
	pf_current = c;
	write_cr2(0);
	if (c->user)
		user_run(&t, user_fn[c->access], pf_address, NULL);
	else
		trap_run(&t, pf_kernel, NULL);
	good = error < 0 ? t.vector == TRAP_NONE
			 : t.vector == VEC_PF && t.error == (u64)error && t.cr2 == pf_address;
	tap_ok(good, "#PF: %s%s", c->name, suffix);
	if (!good)
		tap_note("got vector %d error 0x%lx CR2 0x%lx", t.vector, t.error, t.cr2);
}

static void test_page_faults(void)
{
	static const char *const level_name[] = {"", "", ", 2M page"};
	u64 page = (u64)(uintptr_t)mem_alloc(SIZE_2M, SIZE_2M);

	if (!page)
		tap_bail("no 2 MiB of memory");
	memset((void *)(uintptr_t)page, 0xc3, PAGE_SIZE); /* RET wherever it is entered */
	for (unsigned int level = 2; level >= 1; level--) {
		for (u32 i = 0; i < ARRAY_SIZE(pf_cases); i++) {
			const struct pf_case *c = &pf_cases[i];

			pt_map(TEST_VA, page, level == 1 ? PAGE_SIZE : SIZE_2M, c->flags, level);
			pf_address = TEST_VA + 0x10 * i;
			pf_check(c, level_name[level]);
		}
	}
}

static void test_protection_bits(void)
{
	static const struct pf_case wp = {"write, read-only, CR0.WP=0", 0, WRITE, false, -1};
	static const struct pf_case smep = {"fetch of a user page, SMEP", 0, EXEC, false,
					    PF_P | PF_I};
	static const struct pf_case smap = {"read of a user page, SMAP", 0, READ, false, PF_P};
	static const struct pf_case stac = {"read of a user page, SMAP and AC", 0, READ, false, -1};
	static const struct pf_case key = {"user write, protection key", 0, WRITE, true,
					   PF_P | PF_U | PF_W | PF_PK};
	u64 *pte = pt_entry(TEST_VA, 1), cr4 = read_cr4();
	struct cpuid_regs r = cpuid(7, 0);

	pf_address = TEST_VA;
	*pte = (*pte & PTE_ADDR & ~RSVD) | PTE_P;
	invlpg(TEST_VA);
	write_cr0(read_cr0() & ~CR0_WP);
	pf_check(&wp, "");
	write_cr0(read_cr0() | CR0_WP);
	*pte |= PTE_U | PTE_W;
	invlpg(TEST_VA);
	if (r.ebx & BIT(7)) {
		write_cr4(cr4 | CR4_SMEP);
		pf_check(&smep, "");
		write_cr4(cr4);
	}
	if (r.ebx & BIT(20)) {
		write_cr4(cr4 | CR4_SMAP);
		pf_check(&smap, "");
		asm volatile("stac");
		pf_check(&stac, "");
		asm volatile("clac");
		write_cr4(cr4);
	}
	if (r.ecx & BIT(3)) {
		write_cr4(cr4 | CR4_PKE);
		*pte |= 5ull << 59;
		invlpg(TEST_VA);
		asm volatile("wrpkru" : : "a"(2u << 10), "c"(0), "d"(0));
		pf_check(&key, "");
		asm volatile("wrpkru" : : "a"(0), "c"(0), "d"(0));
		write_cr4(cr4);
	}
}

/* An access that crosses into a page that is absent: CR2 is the first byte there. */
static void test_straddling_fault(void)
{
	u64 page = (u64)(uintptr_t)page_alloc();

	pt_map(TEST_VA, page, PAGE_SIZE, PTE_P | PTE_W, 1);
	pt_unmap(TEST_VA + PAGE_SIZE, PAGE_SIZE);
	RAISE("movq (%0), %%rax", : : "r"(TEST_VA + PAGE_SIZE - 3) : "rax", "memory");
	check("read that crosses into an absent page", VEC_PF, 0, true);
	tap_is(trap_last()->cr2, TEST_VA + PAGE_SIZE, "CR2 is in the second page");
	RAISE("movq %%rax, (%0)", : : "r"(TEST_VA + PAGE_SIZE - 3) : "memory");
	check("write that crosses into an absent page", VEC_PF, PF_W, true);
	tap_is(trap_last()->cr2, TEST_VA + PAGE_SIZE, "CR2 is in the second page");
}

void guest_main(void)
{
	tcg = tcg_present();
	test_arithmetic();
	test_fpu_off();
	test_undefined();
	test_software();
	test_compat();
	test_breakpoints();
	test_general_detect();
	test_segments();
	test_addresses();
	test_double_fault();
	test_invalid_tss();
	test_user();
	test_page_faults();
	test_protection_bits();
	test_straddling_fault();
	if (opt_flag("triple")) {
		struct desc_ptr none = {0, 0};

		tap_summary();
		asm volatile("lidt %0; int3" : : "m"(none));
	}
}
