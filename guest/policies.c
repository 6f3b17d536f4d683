/*
 * What CPUID, MSRs, control registers, XCR0 and rarely used instructions answer: consistent with
 * each other, allowed values kept, everything else refused with the exception of the SDM.
 * `native` marks points where QEMU 7.2 TCG is laxer than a processor; `umbra_only` points state
 * Umbra's own policy (what it hides).
 */
#include "apic.h"
#include "cpu.h"
#include "mem.h"
#include "umbra.h"

static bool tcg, umbra;

#define RAISE(insn, ...)                            \
	do {                                        \
		trap_clear();                       \
		asm volatile(EX(insn) __VA_ARGS__); \
	} while (0)

/* Leaf 1 EDX: FPU, PSE, TSC, MSR, PAE, APIC, PGE, CMOV, FXSR, SSE, SSE2. */
#define BASIC_EDX                                                                            \
	(BIT(0) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(9) | BIT(13) | BIT(15) | BIT(24) | \
	 BIT(25) | BIT(26))

static void test_cpuid_basic(void)
{
	struct cpuid_regs r = cpuid(0, 0), top, beyond;
	u32 max = r.eax;
	u64 rax, rbx = ~0ull, rcx, rdx = ~1ull;

	tap_ok(max >= 0xd, "highest basic leaf 0x%x", max);
	rax = 0xffffffff00000000ull;
	rcx = 0xffffffff00000000ull;
	asm volatile("cpuid" : "+a"(rax), "+b"(rbx), "+c"(rcx), "+d"(rdx));
	tap_is((rax | rbx | rcx | rdx) >> 32, 0, "CPUID clears the upper halves");
	top = cpuid(max, 0);
	beyond = cpuid(max + 1, 0);
	tap_ok(!memcmp(&top, &beyond, sizeof(top)), "a basic leaf too high answers as the highest");
	beyond = cpuid(0x3fffffff, 0);
	tap_ok(!memcmp(&top, &beyond, sizeof(top)), "leaf 0x3fffffff likewise");
	r = cpuid(1, 0);
	tap_is(r.ebx >> 24, lapic_id(), "leaf 1 has this CPU's APIC id");
	tap_ok(r.ecx & BIT(31), "the hypervisor bit is set");
	tap_ok((r.edx & BASIC_EDX) == BASIC_EDX,
	       "FPU, PSE, TSC, MSR, PAE, APIC, PGE, CMOV, FXSR, SSE, SSE2 are there: 0x%x", r.edx);
	r = cpuid(0x80000000, 0);
	tap_ok(r.eax >= 0x80000008, "highest extended leaf 0x%x", r.eax);
	r = cpuid(0x80000001, 0);
	tap_ok(r.edx & BIT(29) && r.edx & BIT(20) && r.edx & BIT(11), "long mode, NX, SYSCALL");
	r = cpuid(0x80000008, 0);
	tap_ok((r.eax & 0xff) >= 36 && (r.eax & 0xff) <= 52 && (r.eax >> 8 & 0xff) >= 48,
	       "address sizes %u and %u", r.eax & 0xff, r.eax >> 8 & 0xff);
	if (max >= 0xb) {
		r = cpuid(0xb, 0x1234);
		tap_is(r.ecx & 0xff, 0x34, "leaf 0xB echoes the sub-leaf");
		tap_is(cpuid(0xb, 0).edx, lapic_id(), "leaf 0xB has the x2APIC id");
	}
}

static void test_cpuid_umbra(void)
{
	struct cpuid_regs r;
	u64 khz, measured;

	if (!umbra) {
		tap_skip("hypervisor leaves need Umbra");
		return;
	}
	r = cpuid(KVM_CPUID_BASE, 0);
	tap_ok(r.ebx == KVM_CPUID_EBX && r.ecx == KVM_CPUID_ECX && r.edx == KVM_CPUID_EDX,
	       "KVM's signature at 0x40000000");
	tap_is(r.eax, KVM_CPUID_FEATURES, "highest of KVM's leaves");
	r = cpuid(KVM_CPUID_FEATURES, 0);
	tap_is(r.eax, KVM_FEATURE_NO_DELAYS, "features of KVM's that are offered");
	tap_is(r.ebx | r.ecx | r.edx, 0, "no hints");
	r = cpuid(UMBRA_CPUID_BASE, 0);
	tap_ok(r.eax >= UMBRA_CPUID_TIMING && r.eax < UMBRA_CPUID_BASE + 0x100,
	       "highest of Umbra's leaves 0x%x", r.eax);
	r = cpuid(UMBRA_CPUID_INFO, 0);
	tap_is(r.eax, UMBRA_HYPERCALL_VERSION, "hypercall ABI version");
	tap_ok(r.ecx == 0 && r.edx >= 1, "vCPU %u of %u", r.ecx, r.edx);
	khz = cpuid(UMBRA_CPUID_TIMING, 0).eax;
	measured = tsc_khz();
	tap_ok(khz > measured - measured / 20 && khz < measured + measured / 20,
	       "TSC %lu kHz by CPUID, %lu kHz against the PIT", khz, measured);
	r = cpuid(1, 0);
	tap_is(r.ecx & (BIT(3) | BIT(5) | BIT(6)), 0, "MONITOR, VMX and SMX are hidden");
	r = cpuid(7, 0);
	tap_is(r.ebx & BIT(2), 0, "SGX is hidden");
	if (cpuid(0, 0).eax >= 0xa)
		tap_is(cpuid(0xa, 0).eax & 0xff, 0, "no performance counters");
}

static void test_osxsave(void)
{
	struct cpuid_regs r = cpuid(1, 0);
	u64 cr4 = read_cr4();

	if (!(r.ecx & BIT(26))) {
		tap_is((u64)safe_write_cr4(cr4 | CR4_OSXSAVE), VEC_GP, "CR4.OSXSAVE without XSAVE");
		return;
	}
	tap_is(r.ecx >> 27 & 1, 0, "OSXSAVE is clear");
	trap_clear();
	safe_xsetbv(0, 1);
	tap_is((u64)trap_last()->vector, VEC_UD, "XSETBV with OSXSAVE clear");
	RAISE("xgetbv", : : "c"(0) : "eax", "edx", "memory");
	tap_is((u64)trap_last()->vector, VEC_UD, "XGETBV with OSXSAVE clear");
	write_cr4(cr4 | CR4_OSXSAVE);
	tap_is(cpuid(1, 0).ecx >> 27 & 1, 1, "OSXSAVE follows CR4");
	write_cr4(cr4);
	tap_is(cpuid(1, 0).ecx >> 27 & 1, 0, "OSXSAVE follows CR4 back");
}

/* SDM 1 13.4.3: one after the other, some at the next multiple of 64. */
static u64 compacted_size(u64 states)
{
	u64 size = 576;

	for (u32 bit = 2; bit < 63; bit++) {
		if (!(states >> bit & 1))
			continue;
		if (cpuid(0xd, bit).ecx & BIT(1))
			size = (size + 63) & ~63ull;
		size += cpuid(0xd, bit).eax;
	}
	return size;
}

static void test_xcr0(void)
{
	u64 cr4 = read_cr4(), all, saved;
	struct cpuid_regs r;
	u32 small;

	if (!(cpuid(1, 0).ecx & BIT(26)))
		return;
	write_cr4(cr4 | CR4_OSXSAVE);
	saved = xgetbv(0);
	r = cpuid(0xd, 0);
	all = (u64)r.edx << 32 | r.eax;
	tap_is(saved, 1, "XCR0 after reset");
	tap_is((u64)safe_xsetbv(0, 0), VEC_GP, "XSETBV without x87");
	tap_is((u64)safe_xsetbv(0, 2), VEC_GP, "XSETBV of SSE alone");
	tap_is((u64)safe_xsetbv(0, 5), VEC_GP, "XSETBV of AVX without SSE");
	tap_is((u64)safe_xsetbv(1, 1), VEC_GP, "XSETBV of XCR1");
	tap_is((u64)safe_xsetbv(0, 1ull << 63 | 1), VEC_GP, "XSETBV of bit 63");
	for (unsigned int bit = 2; bit < 63; bit++) {
		if (!(all >> bit & 1) && safe_xsetbv(0, 3 | 1ull << bit) != VEC_GP)
			tap_ok(false, "XSETBV of bit %u, which CPUID does not offer", bit);
	}
	tap_is(xgetbv(0), saved, "refused values change nothing");
	tap_is((u64)safe_xsetbv(0, 3), (u64)TRAP_NONE, "XSETBV of x87 and SSE");
	small = cpuid(0xd, 0).ebx;
	tap_is(small, 576, "leaf 0xD: size for x87 and SSE");
	if (all & 4) {
		tap_is((u64)safe_xsetbv(0, 7), (u64)TRAP_NONE, "XSETBV of AVX");
		tap_is(xgetbv(0), 7, "XCR0 reads back");
		r = cpuid(0xd, 2);
		tap_is(cpuid(0xd, 0).ebx, r.ebx + r.eax, "leaf 0xD: size follows XCR0");
	}
	if (!tcg) {
		tap_is((u64)safe_xsetbv(0, all), (u64)TRAP_NONE, "XSETBV of all of 0x%lx", all);
		r = cpuid(0xd, 0);
		tap_is(r.ebx, r.ecx, "leaf 0xD: size with all is the largest");
		if (cpuid(0xd, 1).eax & (BIT(1) | BIT(3))) /* XSAVEC, XSAVES */
			tap_is(cpuid(0xd, 1).ebx, compacted_size(all), "leaf 0xD: compacted size");
	}
	safe_xsetbv(0, saved);
	write_cr4(cr4);
}

/* MSRs that keep what is written, with a value that is legal on every CPU. */
static const struct {
	u32 msr;
	u64 value;
	const char *name;
} kept[] = {
	{MSR_STAR, 0x1234567890abcdefull, "STAR"},
	{MSR_LSTAR, 0xffff800012345678ull, "LSTAR"},
	{MSR_CSTAR, 0x0000700012345678ull, "CSTAR"},
	{MSR_FMASK, 0x47700, "FMASK"},
	{MSR_SYSENTER_CS, 0x1234, "SYSENTER_CS"},
	{MSR_SYSENTER_ESP, 0xffff800000001000ull, "SYSENTER_ESP"},
	{MSR_SYSENTER_EIP, 0xffff800000002000ull, "SYSENTER_EIP"},
	{MSR_FS_BASE, 0xffff800000003000ull, "FS_BASE"},
	{MSR_GS_BASE, 0x0000123400003000ull, "GS_BASE"},
	{MSR_KERNEL_GS, 0xffffffff80000000ull, "KERNEL_GS_BASE"},
	{MSR_PAT, 0x0001040506070006ull, "PAT"},
};

static void test_msr_kept(void)
{
	u64 value, old;

	for (u32 i = 0; i < ARRAY_SIZE(kept); i++) {
		int in, out, back;

		in = safe_rdmsr(kept[i].msr, &old);
		out = safe_wrmsr(kept[i].msr, kept[i].value);
		back = safe_rdmsr(kept[i].msr, &value);
		tap_ok(in == TRAP_NONE && out == TRAP_NONE && back == TRAP_NONE &&
			       value == kept[i].value,
		       "%s keeps 0x%lx", kept[i].name, kept[i].value);
		wrmsr(kept[i].msr, old);
	}
	if (cpuid(0x80000001, 0).edx & BIT(27)) {
		wrmsr(MSR_TSC_AUX, 0x89abcdef);
		u32 aux;

		asm volatile("rdtscp" : "=c"(aux) : : "eax", "edx");
		tap_is(aux, 0x89abcdef, "RDTSCP returns TSC_AUX");
		wrmsr(MSR_TSC_AUX, 0);
		if (!tcg)
			tap_is((u64)safe_wrmsr(MSR_TSC_AUX, 1ull << 32), VEC_GP,
			       "TSC_AUX above 32 bits");
	} else {
		tap_is((u64)safe_rdmsr(MSR_TSC_AUX, &value), VEC_GP, "TSC_AUX without RDTSCP");
		RAISE("rdtscp", : : : "eax", "ecx", "edx", "memory");
		tap_is((u64)trap_last()->vector, VEC_UD, "RDTSCP not offered");
	}
	u64 rax = ~0ull, rdx = ~0ull;

	asm volatile("rdmsr" : "+a"(rax), "+d"(rdx) : "c"(MSR_PAT));
	tap_is((rax | rdx) >> 32, 0, "RDMSR clears the upper halves");
}

enum {
	RD = 1,
	WR = 2,
	UMBRA_ONLY = 4,
	NATIVE = 8
};

static const struct {
	u32 msr;
	u64 value;
	u32 how;
	const char *what;
} refused[] = {
	{0x1234, 0, RD | WR | UMBRA_ONLY, "an MSR that does not exist"},
	{0x2000, 0, RD | WR | UMBRA_ONLY, "the first MSR above the low bitmap"},
	{0xbfffffff, 0, RD | WR | UMBRA_ONLY, "the last MSR below the high bitmap"},
	{0xc0001fff, 0, RD | WR | UMBRA_ONLY, "the last MSR of the high bitmap"},
	{0xc0002000, 0, RD | WR | UMBRA_ONLY, "the first MSR above the high bitmap"},
	{0xffffffff, 0, RD | WR | UMBRA_ONLY, "MSR 0xffffffff"},
	{0x40000000, 0, RD | WR | UMBRA_ONLY, "a Hyper-V MSR"},
	{0x4b564d00, 0, RD | WR | UMBRA_ONLY, "a KVM MSR"},
	{0x480, 0, RD | WR | UMBRA_ONLY, "VMX_BASIC, hidden"},
	{0x486, 0, RD | WR | UMBRA_ONLY, "VMX_CR0_FIXED0, hidden"},
	{0x9e, 0, RD | WR | UMBRA_ONLY, "SMBASE"},
	{0xc0010117, 0, RD | WR | UMBRA_ONLY, "an AMD SVM MSR"},
	{0x186, 0, WR | UMBRA_ONLY, "PERFEVTSEL0 with counters hidden"},
	{MSR_MTRRCAP, 0, WR | NATIVE, "MTRRCAP is read-only"},
	{MSR_LSTAR, 0x8000000000000000ull, WR | NATIVE, "LSTAR, non-canonical"},
	{MSR_CSTAR, 0x8000000000000000ull, WR | NATIVE, "CSTAR, non-canonical"},
	{MSR_FS_BASE, 0x8000000000000000ull, WR | NATIVE, "FS_BASE, non-canonical"},
	{MSR_GS_BASE, 0x0000800000000000ull, WR | NATIVE, "GS_BASE, non-canonical"},
	{MSR_KERNEL_GS, 0xffff7fffffffffffull, WR | NATIVE, "KERNEL_GS_BASE, non-canonical"},
	{MSR_SYSENTER_ESP, 0x8000000000000000ull, WR | NATIVE, "SYSENTER_ESP, non-canonical"},
	{MSR_SYSENTER_EIP, 0x8000000000000000ull, WR | NATIVE, "SYSENTER_EIP, non-canonical"},
	{MSR_EFER, EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | BIT64(1), WR | NATIVE,
	 "EFER, reserved bit 1"},
	{MSR_EFER, EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | BIT64(12), WR | UMBRA_ONLY,
	 "EFER.SVME"},
	{MSR_EFER, EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | BIT64(32), WR | NATIVE,
	 "EFER, bit 32"},
	{MSR_EFER, EFER_SCE | EFER_NXE, WR | NATIVE, "EFER.LME cleared with paging on"},
	{MSR_PAT, 0x0007040600070402ull, WR | NATIVE, "PAT, type 2"},
	{MSR_PAT, 0x0307040600070406ull, WR | NATIVE, "PAT, type 3"},
	{MSR_PAT, 0x0007040608070406ull, WR | NATIVE, "PAT, type 8"},
	{MSR_PAT, 0x0007040600078406ull, WR | NATIVE, "PAT, reserved bits"},
	{MSR_APIC_BASE, LAPIC_BASE | 0x900 | BIT64(0), WR | NATIVE, "APIC_BASE, reserved bit 0"},
	{MSR_APIC_BASE, LAPIC_BASE | 0x900 | BIT64(9), WR | NATIVE, "APIC_BASE, reserved bit 9"},
	{MSR_APIC_BASE, LAPIC_BASE | 0x900 | BIT64(60), WR | NATIVE, "APIC_BASE, bit 60"},
	{MSR_APIC_BASE, LAPIC_BASE | 0x500, WR | NATIVE, "APIC_BASE, EXTD without EN"},
	{MSR_DEBUGCTL, BIT64(30), WR | NATIVE, "DEBUGCTL, reserved bit"},
};

static void test_msr_refused(void)
{
	for (u32 i = 0; i < ARRAY_SIZE(refused); i++) {
		u64 value, old = 0;
		bool readable = safe_rdmsr(refused[i].msr, &old) == TRAP_NONE;

		if ((refused[i].how & UMBRA_ONLY && !umbra) || (refused[i].how & NATIVE && tcg)) {
			tap_skip("MSR 0x%x: %s", refused[i].msr, refused[i].what);
			continue;
		}
		if (refused[i].how & RD) {
			int v = safe_rdmsr(refused[i].msr, &value);

			tap_ok(v == VEC_GP && trap_last()->error == 0 &&
				       trap_last()->rip == trap_last()->insn,
			       "RDMSR 0x%x is refused: %s", refused[i].msr, refused[i].what);
		}
		if (refused[i].how & WR) {
			int v = safe_wrmsr(refused[i].msr, refused[i].value);
			bool good = v == VEC_GP && trap_last()->error == 0 &&
				    trap_last()->rip == trap_last()->insn;

			tap_ok(good, "WRMSR 0x%x is refused: %s", refused[i].msr, refused[i].what);
			if (readable &&
			    (safe_rdmsr(refused[i].msr, &value) != TRAP_NONE || value != old))
				tap_ok(false, "a refused WRMSR 0x%x changed it to 0x%lx",
				       refused[i].msr, value);
		}
	}
}

static void test_mtrr(void)
{
	u64 cap, def, value;

	if (!(cpuid(1, 0).edx & BIT(12))) {
		tap_is((u64)safe_rdmsr(MSR_MTRRCAP, &cap), VEC_GP, "MTRRCAP without MTRRs");
		return;
	}
	tap_is((u64)safe_rdmsr(MSR_MTRRCAP, &cap), (u64)TRAP_NONE, "MTRRCAP is there");
	tap_is((u64)safe_rdmsr(MSR_MTRR_DEF_TYPE, &def), (u64)TRAP_NONE, "MTRR_DEF_TYPE");
	tap_is((u64)safe_wrmsr(MSR_MTRR_DEF_TYPE, def), (u64)TRAP_NONE,
	       "MTRR_DEF_TYPE, same value");
	for (u32 i = 0; i < (cap & 0xff); i++) {
		if (safe_rdmsr(0x200 + 2 * i, &value) != TRAP_NONE ||
		    safe_rdmsr(0x201 + 2 * i, &value) != TRAP_NONE)
			tap_ok(false, "variable MTRR %u of %lu", i, cap & 0xff);
	}
	if (tcg)
		return;
	tap_is((u64)safe_wrmsr(MSR_MTRR_DEF_TYPE, 0xc02), VEC_GP, "MTRR_DEF_TYPE, type 2");
	tap_is((u64)safe_wrmsr(MSR_MTRR_DEF_TYPE, 0x1c06), VEC_GP, "MTRR_DEF_TYPE, reserved bit");
	if (cap & 0xff) {
		tap_is((u64)safe_wrmsr(0x200, 3), VEC_GP, "MTRR_PHYSBASE0, type 3");
		tap_is((u64)safe_wrmsr(0x201, 1), VEC_GP, "MTRR_PHYSMASK0, reserved bit");
		tap_is((u64)safe_rdmsr(0x200 + 2 * (u32)(cap & 0xff), &value), VEC_GP,
		       "one variable MTRR too many");
	}
	if (cap & BIT(8))
		tap_is((u64)safe_wrmsr(0x250, 0x0606060606060602ull), VEC_GP,
		       "MTRR_FIX64K, type 2");
}

static void test_efer(void)
{
	u64 efer = rdmsr(MSR_EFER), va = 0x6000000000ull, back;
	u64 page = (u64)(uintptr_t)page_alloc();

	pt_map(va, page, PAGE_SIZE, PTE_P | PTE_W | PTE_NX, 1);
	RAISE("movl (%0), %%eax", : : "r"(va) : "eax", "memory");
	tap_is((u64)trap_last()->vector, (u64)TRAP_NONE, "NX page read with EFER.NXE");
	wrmsr(MSR_EFER, efer & ~EFER_NXE);
	invlpg(va);
	RAISE("movl (%0), %%eax", : : "r"(va) : "eax", "memory");
	tap_ok(trap_last()->vector == VEC_PF && trap_last()->error & PF_R,
	       "the same with NXE clear is a reserved-bit fault");
	wrmsr(MSR_EFER, efer & ~EFER_SCE);
	RAISE("syscall", : : : "rcx", "r11", "memory");
	tap_is((u64)trap_last()->vector, VEC_UD, "SYSCALL with EFER.SCE clear");
	safe_wrmsr(MSR_EFER, efer & ~EFER_LMA);
	safe_rdmsr(MSR_EFER, &back);
	tap_ok(back & EFER_LMA, "EFER.LMA is not cleared by WRMSR");
	wrmsr(MSR_EFER, efer);
	tap_is(rdmsr(MSR_EFER), efer, "EFER restored");
}

/* Evaluates the write only where the point applies: elsewhere it might succeed. */
#define GP(applies, write, ...)                                    \
	do {                                                       \
		if (applies)                                       \
			tap_is((u64)(write), VEC_GP, __VA_ARGS__); \
		else                                               \
			tap_skip(__VA_ARGS__);                     \
	} while (0)

static void test_control_registers(void)
{
	u64 cr0 = read_cr0(), cr4 = read_cr4(), cr3 = read_cr3();
	struct cpuid_regs seven = cpuid(7, 0);

	GP(!tcg, safe_write_cr0(cr0 & ~CR0_PE), "CR0: PG without PE");
	GP(!tcg, safe_write_cr0((cr0 | CR0_NW) & ~CR0_CD), "CR0: NW without CD");
	GP(!tcg, safe_write_cr0(cr0 & ~CR0_PG), "CR0: PG cleared in 64-bit mode");
	GP(!tcg, safe_write_cr0(cr0 | BIT64(32)), "CR0: bit 32");
	tap_is(read_cr0(), cr0, "refused values leave CR0 alone");
	tap_is((u64)safe_write_cr0(cr0 | CR0_CD), (u64)TRAP_NONE, "CR0: CD");
	tap_is(read_cr0(), cr0 | CR0_CD, "CD reads back");
	write_cr0(cr0);
	write_cr0(cr0 & ~CR0_NE);
	tap_is(read_cr0(), cr0 & ~CR0_NE, "NE can be cleared and reads back");
	write_cr0(cr0);
	write_cr0(cr0 & ~CR0_ET);
	tap_is(read_cr0(), cr0, "ET is always set");
	RAISE("lmsw %w0", : : "r"(0) : "memory");
	tap_is(read_cr0() & CR0_PE, CR0_PE, "LMSW does not clear PE");
	write_cr0(cr0);

	GP(!tcg, safe_write_cr4(cr4 & ~CR4_PAE), "CR4: PAE cleared in long mode");
	GP(!tcg, safe_write_cr4(cr4 | BIT64(31)), "CR4: bit 31");
	GP(!tcg, safe_write_cr4(cr4 | BIT64(15)), "CR4: bit 15");
	GP(!tcg, safe_write_cr4(cr4 | BIT64(32)), "CR4: bit 32");
	GP(umbra, safe_write_cr4(cr4 | CR4_VMXE), "CR4: VMXE");
	GP(!tcg, safe_write_cr4(cr4 | CR4_SMXE), "CR4: SMXE");
	if (!(seven.ebx & BIT(20)))
		GP(!tcg, safe_write_cr4(cr4 | CR4_SMAP), "CR4: SMAP, not offered");
	if (!(seven.ecx & BIT(2)))
		GP(!tcg, safe_write_cr4(cr4 | CR4_UMIP), "CR4: UMIP, not offered");
	if (!(seven.ecx & BIT(3)))
		GP(!tcg, safe_write_cr4(cr4 | CR4_PKE), "CR4: PKE, not offered");
	if (!(seven.ecx & BIT(16)))
		GP(!tcg, safe_write_cr4(cr4 | CR4_LA57), "CR4: LA57, not offered");
	else
		GP(!tcg, safe_write_cr4(cr4 | CR4_LA57), "CR4: LA57 changed in long mode");
	if (!(seven.ecx & BIT(7)))
		GP(!tcg, safe_write_cr4(cr4 | CR4_CET), "CR4: CET, not offered");
	tap_is(read_cr4(), cr4, "refused values leave CR4 alone");
	GP(!tcg, safe_write_cr3(cr3 | BIT64(51)), "CR3: bit above the physical address size");
	tap_is(read_cr3(), cr3, "refused values leave CR3 alone");
	GP(!tcg, safe_write_cr8(16), "CR8: 16");
	write_cr8(5);
	tap_is(read_cr8(), 5, "CR8 reads back");
	tap_is(lapic_read(LAPIC_TPR) >> 4, 5, "CR8 is the APIC's task priority");
	lapic_write(LAPIC_TPR, 0x90);
	tap_is(read_cr8(), 9, "and the other way round");
	write_cr8(0);
}

static void test_pcid(void)
{
	u64 cr4 = read_cr4(), cr3 = read_cr3();
	struct __packed {
		u64 pcid, address;
	} d = {0, 0};

	if (cpuid(1, 0).ecx & BIT(17)) {
		write_cr3(cr3 | 0x18);
		GP(!tcg, safe_write_cr4(cr4 | CR4_PCIDE), "CR4.PCIDE with CR3 bits 11:0 not 0");
		write_cr3(cr3);
		if (!tcg) {
			write_cr4(cr4 | CR4_PCIDE);
			tap_is((u64)safe_write_cr3(cr3 | 5), (u64)TRAP_NONE, "CR3 with PCID 5");
			tap_is((u64)safe_write_cr3(1ull << 63 | cr3 | 6), (u64)TRAP_NONE,
			       "CR3 with PCID 6, no flush");
			tap_is(read_cr3(), cr3 | 6, "bit 63 is not kept");
			write_cr3(cr3);
			write_cr4(cr4);
		}
	} else {
		GP(!tcg, safe_write_cr4(cr4 | CR4_PCIDE), "CR4: PCIDE, not offered");
	}
	if (tcg) /* QEMU 7.2 TCG has no INVPCID */
		return;
	if (!(cpuid(7, 0).ebx & BIT(10))) {
		RAISE("invpcid %0, %1", : : "m"(d), "r"(2ull) : "memory");
		tap_is((u64)trap_last()->vector, VEC_UD, "INVPCID not offered");
		return;
	}
	for (u64 type = 0; type < 4; type++) {
		RAISE("invpcid %0, %1", : : "m"(d), "r"(type) : "memory");
		tap_is((u64)trap_last()->vector, (u64)TRAP_NONE, "INVPCID type %lu", type);
	}
	RAISE("invpcid %0, %1", : : "m"(d), "r"(4ull) : "memory");
	tap_is((u64)trap_last()->vector, VEC_GP, "INVPCID type 4");
	d.pcid = 0x1000;
	RAISE("invpcid %0, %1", : : "m"(d), "r"(0ull) : "memory");
	tap_is((u64)trap_last()->vector, VEC_GP, "INVPCID, reserved descriptor bits");
}

/* Machine code of instructions that must be #UD, with harmless operands. */
static const struct {
	const char *name;
	u8 code[8];
	u32 how;
} undefined[] = {
	{"VMLAUNCH", {0x0f, 0x01, 0xc2}, 0},
	{"VMRESUME", {0x0f, 0x01, 0xc3}, 0},
	{"VMXOFF", {0x0f, 0x01, 0xc4}, 0},
	{"VMREAD", {0x0f, 0x78, 0xc8}, 0},
	{"VMWRITE", {0x0f, 0x79, 0xc8}, 0},
	{"VMCLEAR", {0x66, 0x0f, 0xc7, 0x34, 0x24}, UMBRA_ONLY},
	{"VMPTRLD", {0x0f, 0xc7, 0x34, 0x24}, UMBRA_ONLY},
	{"VMPTRST", {0x0f, 0xc7, 0x3c, 0x24}, UMBRA_ONLY},
	{"VMXON", {0xf3, 0x0f, 0xc7, 0x34, 0x24}, UMBRA_ONLY},
	{"INVEPT", {0x66, 0x0f, 0x38, 0x80, 0x0c, 0x24}, UMBRA_ONLY},
	{"INVVPID", {0x66, 0x0f, 0x38, 0x81, 0x0c, 0x24}, UMBRA_ONLY},
	{"VMFUNC", {0x0f, 0x01, 0xd4}, UMBRA_ONLY},
	{"GETSEC", {0x0f, 0x37}, 0},
	{"RSM", {0x0f, 0xaa}, 0},
	{"MONITOR", {0x0f, 0x01, 0xc8}, UMBRA_ONLY},
	{"MWAIT", {0x0f, 0x01, 0xc9}, UMBRA_ONLY},
	{"ENCLS", {0x0f, 0x01, 0xcf}, UMBRA_ONLY},
	{"PCONFIG", {0x0f, 0x01, 0xc5}, UMBRA_ONLY},
	{"VMRUN of AMD", {0x0f, 0x01, 0xd8}, UMBRA_ONLY},
	{"SKINIT of AMD", {0x0f, 0x01, 0xde}, UMBRA_ONLY},
};

static void run_code(void *arg)
{
	asm volatile("subq $256, %%rsp; call *%4; addq $256, %%rsp"
		     :
		     : "a"(0), "c"(0), "d"(0), "b"(0), "r"(arg)
		     : "memory", "cc");
}

static void test_undefined(void)
{
	u8 *page = page_alloc();
	struct trap t;

	for (u32 i = 0; i < ARRAY_SIZE(undefined); i++) {
		if (undefined[i].how & UMBRA_ONLY && !umbra) {
			tap_skip("%s", undefined[i].name);
			continue;
		}
		memset(page, 0xc3, 32);
		memcpy(page, undefined[i].code, 8);
		for (u32 n = 7; n && !undefined[i].code[n]; n--)
			page[n] = 0xc3;
		trap_run(&t, run_code, page);
		tap_ok(t.vector == VEC_UD && t.rip == (u64)(uintptr_t)page, "%s is #UD",
		       undefined[i].name);
		if (t.vector != VEC_UD)
			tap_note("got vector %d at 0x%lx", t.vector, t.rip);
	}
}

static void test_instructions(void)
{
	u64 t0, t1;

	RAISE("invd", : : : "memory");
	tap_is((u64)trap_last()->vector, (u64)TRAP_NONE, "INVD");
	RAISE("wbinvd", : : : "memory");
	tap_is((u64)trap_last()->vector, (u64)TRAP_NONE, "WBINVD");
	RAISE("rdpmc", : : "c"(0x12345) : "eax", "edx", "memory");
	tap_ok(trap_last()->vector == VEC_GP || (tcg && trap_last()->vector == VEC_UD),
	       "RDPMC of a counter that does not exist");
	t0 = rdtsc();
	/* Bochs with several CPUs moves its clock every few instructions only. */
	for (int i = 0; i < 100; i++)
		t1 = rdtsc();
	tap_ok(t1 > t0, "the TSC moves");
	if (cpuid(1, 0).ecx & BIT(30)) {
		bool ok = false;

		for (int i = 0; i < 100 && !ok; i++)
			asm volatile("rdrand %%rax; setc %0" : "=r"(ok) : : "rax", "cc");
		tap_ok(ok, "RDRAND");
	}
	if (cpuid(1, 0).ecx & BIT(26) && !(cpuid(0xd, 1).eax & BIT(3))) {
		write_cr4(read_cr4() | CR4_OSXSAVE);
		RAISE(".byte 0x0f, 0xc7, 0x28", : : "a"(0x1000), "d"(0) : "memory");
		tap_is((u64)trap_last()->vector, VEC_UD, "XSAVES not offered");
		write_cr4(read_cr4() & ~CR4_OSXSAVE);
	}
	if (!tcg && !(cpuid(7, 0).ecx & BIT(5))) {
		RAISE(".byte 0x66, 0x0f, 0xae, 0xf1", : : "a"(0), "c"(0), "d"(0) : "memory", "cc");
		tap_is((u64)trap_last()->vector, VEC_UD, "TPAUSE not offered");
	}
}

void guest_main(void)
{
	tcg = tcg_present();
	umbra = umbra_present();
	lapic_enable();
	test_cpuid_basic();
	test_cpuid_umbra();
	test_osxsave();
	test_xcr0();
	test_msr_kept();
	test_msr_refused();
	test_mtrr();
	test_efer();
	test_control_registers();
	test_pcid();
	test_undefined();
	test_instructions();
}
