/*
 * A guest that does at random what no guest should: whatever it is, Umbra and the VMs beside it go
 * on, and where the architecture lets it, so does this one. Options: seed=N, rounds=N (per kind),
 * only=KIND; fatal=NAME does one deed that ends its VM for good (see fatal_deeds).
 */
#include "apic.h"
#include "ioapic.h"
#include "mem.h"
#include "random_code.h"
#include "sandbox.h"
#include "umbra.h"

/* --- hypercalls ---------------------------------------------------------------------------------
 */

/* NOPs for injected software events, whose RIP is that of the next instruction plus a length. */
static void random_hypercall(void *arg)
{
	u64 *r = arg;

	asm volatile("vmcall\n.fill 15, 1, 0x90"
		     : "+a"(r[0])
		     : "b"(r[1]), "c"(r[2]), "d"(r[3]), "S"(r[4])
		     : "memory", "cc");
}

static u64 range_argument(void)
{
	switch (rng_below(&sandbox.rng, 6)) {
	case 0:
		return ram_top() + rng_below(&sandbox.rng, 3) * PAGE_SIZE;
	case 1:
		return 0 - PAGE_SIZE * rng_below(&sandbox.rng, 4);
	case 2:
		return rng_next(&sandbox.rng) | 1;
	case 3:
		return 0xfee00000;
	default:
		return sandbox.phys + rng_below(&sandbox.rng, SANDBOX_PAGES) * PAGE_SIZE;
	}
}

static void round_hypercall(void)
{
	static const u64 sizes[] = {0, 1, PAGE_SIZE, 2 * PAGE_SIZE, 0 - PAGE_SIZE, BIT64(63)};
	u64 r[5] = {rng_below(&sandbox.rng, HC_COUNT + 3), nasty(), nasty(), nasty(), nasty()};

	if (rng_below(&sandbox.rng, 4) == 0)
		r[0] = nasty();
	else if (rng_below(&sandbox.rng, 3) == 0)
		r[0] = HC_INJECT;
	if ((u32)r[0] == HC_PROTECT || (u32)r[0] == HC_DISCARD) {
		r[1] = range_argument();
		r[2] = sizes[rng_below(&sandbox.rng, ARRAY_SIZE(sizes))];
		r[3] = rng_below(&sandbox.rng, 16);
	}
	if ((u32)r[0] == HC_INJECT) {
		r[1] = rng_below(&sandbox.rng, 2) ? rng_below(&sandbox.rng, 32) | INJECT_HARDWARE
						  : rng_below(&sandbox.rng, 0x1000);
		r[1] ^= rng_below(&sandbox.rng, 2) * INJECT_CODE;
		r[2] = rng_below(&sandbox.rng, 2) * rng_below(&sandbox.rng, 0x8000);
		r[3] = rng_below(&sandbox.rng, 2) * rng_below(&sandbox.rng, 18);
	}
	attempt(random_hypercall, r);
	if (umbra_present())
		hypercall(HC_PROTECT, sandbox.phys, SIZE_2M, 7, 0);
}

/* --- ports --------------------------------------------------------------------------------------
 */

/* What ends or resets the machine, garbles the console, or takes the watchdog away. */
static bool port_is_spared(u32 port, u32 size)
{
	static const struct {
		u16 from, to;
	} spared[] = {{0xf4, 0xf4},   {0x60, 0x60},   {0x64, 0x64}, {0x92, 0x92},
		      {0xcf9, 0xcf9}, {0x3f8, 0x3ff}, {0x40, 0x43}, {0x604, 0x605}};

	for (u32 i = 0; i < ARRAY_SIZE(spared); i++) {
		if (port + size > spared[i].from && port <= spared[i].to)
			return true;
	}
	return false;
}

static void random_port(void *arg)
{
	u64 *r = arg;
	void *buffer = (void *)(uintptr_t)(SANDBOX + r[3] % 0x4000);

	switch (r[2] % 9) {
	case 0:
		asm volatile("inb %%dx, %%al" : "+a"(r[1]) : "d"(r[0]));
		break;
	case 1:
		asm volatile("inw %%dx, %%ax" : "+a"(r[1]) : "d"(r[0]));
		break;
	case 2:
		asm volatile("inl %%dx, %%eax" : "+a"(r[1]) : "d"(r[0]));
		break;
	case 3:
		asm volatile("rep insw" : "+D"(buffer) : "c"(r[1] & 31), "d"(r[0]) : "memory");
		break;
	case 4:
		asm volatile("std; rep insl; cld"
			     : "+D"(buffer)
			     : "c"(r[1] & 15), "d"(r[0])
			     : "memory");
		break;
	case 5:
		asm volatile("outb %%al, %%dx" : : "a"(r[1]), "d"(r[0]));
		break;
	case 6:
		asm volatile("outw %%ax, %%dx" : : "a"(r[1]), "d"(r[0]));
		break;
	case 7:
		asm volatile("outl %%eax, %%dx" : : "a"(r[1]), "d"(r[0]));
		break;
	default:
		asm volatile("rep outsb" : "+S"(buffer) : "c"(r[1] & 31), "d"(r[0]) : "memory");
		break;
	}
}

static void round_port(void)
{
	static const u16 known[] = {0x20,  0x21,  0xa0,	 0xa1,	 0x61,	 0x70,	0x71,  0x80,
				    0xcf8, 0xcfc, 0x4d0, 0xffff, 0xfffe, 0x510, 0x600, 0x608};
	u64 r[4] = {rng_below(&sandbox.rng, 65536), nasty(), rng_next(&sandbox.rng),
		    rng_next(&sandbox.rng)};

	if (rng_below(&sandbox.rng, 2))
		r[0] = known[rng_below(&sandbox.rng, ARRAY_SIZE(known))] +
		       rng_below(&sandbox.rng, 2);
	if (port_is_spared((u32)r[0] & 0xffff, 4))
		return;
	attempt(random_port, r);
	pic_mask_all();
}

/* --- MSRs and control registers -----------------------------------------------------------------
 */

static u32 random_msr(void)
{
	/* Those of the policy, neighbours, and VMX capabilities. */
	static const u32 known[] = {0x01b, 0x03a, 0x03b, 0x048, 0x049, 0x079, 0x08b, 0x0ce,
				    0x0e1, 0x0fe, 0x10a, 0x174, 0x175, 0x176, 0x179, 0x17a,
				    0x1a0, 0x1d9, 0x200, 0x250, 0x277, 0x2ff, 0x345, 0x38f,
				    0x480, 0x486, 0x491, 0x6e0, 0x808, 0x830, 0x83f, 0xda0};
	static const u32 high[] = {MSR_EFER,	MSR_STAR,    MSR_LSTAR,	    MSR_CSTAR,	MSR_FMASK,
				   MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS, MSR_TSC_AUX};

	switch (rng_below(&sandbox.rng, 8)) {
	case 0:
		return (u32)rng_next(&sandbox.rng);
	case 1:
		return (u32)rng_below(&sandbox.rng, 0x2000);
	case 2:
		return 0xc0000000 + (u32)rng_below(&sandbox.rng, 0x2000);
	case 3:
		return 0x40000000 + (u32)rng_below(&sandbox.rng, 0x200);
	case 4:
	case 5:
		return high[rng_below(&sandbox.rng, ARRAY_SIZE(high))];
	default:
		return known[rng_below(&sandbox.rng, ARRAY_SIZE(known))];
	}
}

static void round_msr(void)
{
	u32 msr = random_msr();
	u64 old, value;
	bool readable = safe_rdmsr(msr, &old) == TRAP_NONE;

	value = rng_below(&sandbox.rng, 2) && readable ? old ^ BIT64(rng_below(&sandbox.rng, 64))
						       : nasty();
	sandbox.exceptions += !readable;
	if (msr == MSR_TSC || (msr >= MSR_X2APIC && msr < MSR_X2APIC + 0x100))
		return;
	sandbox.exceptions += safe_wrmsr(msr, value) != TRAP_NONE;
	if (readable)
		safe_wrmsr(msr, old);
	if (msr == MSR_APIC_BASE)
		repair_apic();
}

static void random_control(void *arg)
{
	u64 v = nasty();

	switch (rng_below(&sandbox.rng, 10)) {
	case 0:
		write_cr0(rng_below(&sandbox.rng, 2)
				  ? sandbox.cr0 ^ BIT64(rng_below(&sandbox.rng, 64))
				  : v);
		break;
	case 1:
		write_cr4(rng_below(&sandbox.rng, 2)
				  ? sandbox.cr4 ^ BIT64(rng_below(&sandbox.rng, 64))
				  : v);
		break;
	case 2: /* flags and reserved bits; a wrong base would be the end */
		write_cr3(sandbox.cr3 | (v & 0xfff0000000000fffull));
		break;
	case 3:
		write_cr8(v);
		break;
	case 4:
		write_dr7(v);
		break;
	case 5:
		write_dr6(v);
		break;
	case 6:
		write_dr0(v);
		write_dr3(~v);
		write_dr7((v & 0xffff0000) | 0x4aa);
		break;
	case 7:
		asm volatile("xsetbv" : : "c"(0), "a"((u32)v), "d"((u32)(v >> 32)) : "memory");
		break;
	case 8:
		asm volatile("lmsw %w0" : : "r"(v) : "memory");
		break;
	default:
		asm volatile("mov %0, %%dr4; mov %0, %%dr5" : : "r"(v));
		break;
	}
}

static void round_control(void)
{
	attempt(random_control, NULL);
	repair_debug();
	write_cr3(sandbox.cr3);
	write_cr4(sandbox.cr4);
	write_cr0(sandbox.cr0);
	write_cr8(0);
}

/* --- local APIC and IOAPIC ----------------------------------------------------------------------
 */

/*
 * Not INIT to ourselves, and no vectors below 0x20, which would look like exceptions without their
 * error codes.
 */
static u32 apic_value(u32 reg)
{
	u32 v = (u32)nasty();

	if (reg == LAPIC_ICR && (v & 0x600) == 0x400)
		v &= ~0x700u;
	return v | 0x20;
}

static void random_apic(void *arg)
{
	u32 reg = (u32)rng_below(&sandbox.rng, 0x41) * 16;
	volatile u32 *lapic = (volatile u32 *)(uintptr_t)(DEV_LAPIC + reg);
	volatile u32 *ioapic = (volatile u32 *)(uintptr_t)(DEV_IOAPIC);

	switch (rng_below(&sandbox.rng, 4)) {
	case 0:
		ioapic[0] = (u32)nasty();
		ioapic[4] = ((u32)nasty() & ~0x700u) | 0x20;
		break;
	case 1:
		ioapic[rng_below(&sandbox.rng, 1024)] = (u32)nasty() & 0x1f;
		break;
	default:
		(void)*lapic;
		*lapic = apic_value(reg);
		break;
	}
	irq_window();
}

/* What comes of random vectors. */
static bool any_interrupt(struct frame *f)
{
	if (f->vector >= 0x20)
		lapic_eoi();
	return true;
}

static void round_apic(void)
{
	attempt(random_apic, NULL);
	irq_disable();
	repair_apic();
}

static void round_x2apic(void)
{
	u32 msr = MSR_X2APIC + (u32)rng_below(&sandbox.rng, 0x48);
	u64 old, value = nasty();

	if (!(cpuid(1, 0).ecx & BIT(21)))
		return;
	lapic_enable_x2apic();
	sandbox.exceptions += safe_rdmsr(msr, &old) != TRAP_NONE;
	value |= 0x20;
	if (msr == MSR_X2APIC + LAPIC_ICR / 16 && (value & 0x600) == 0x400)
		value &= ~0x700ull;
	sandbox.exceptions += safe_wrmsr(msr, value) != TRAP_NONE;
	irq_window();
	wrmsr(MSR_APIC_BASE, sandbox.apic_base & ~(APIC_BASE_EN | APIC_BASE_EXTD));
	repair_apic();
}

/* --- descriptor tables --------------------------------------------------------------------------
 */

static u64 random_descriptor(void)
{
	u64 d = rng_next(&sandbox.rng);

	/* More often than not something that might pass. */
	if (rng_below(&sandbox.rng, 2))
		d = (d & ~0x00f0000000000000ull) | 0x0000800000000000ull;
	return d;
}

static void random_segments(void *arg)
{
	u16 selector =
		(u16)(SEL_TEST + rng_below(&sandbox.rng, 22) * 8 + rng_below(&sandbox.rng, 4));
	u64 far[2] = {CODE, selector};

	switch (rng_below(&sandbox.rng, 9)) {
	case 0:
		asm volatile("movw %w0, %%ds" : : "r"(selector));
		break;
	case 1:
		asm volatile("movw %w0, %%fs; movl %%fs:0, %%eax" : : "r"(selector) : "eax");
		break;
	case 2:
		asm volatile("movw %w0, %%ss" : : "r"(selector));
		break;
	case 3:
		asm volatile("lldt %w0; movw %w1, %%es" : : "r"(selector), "r"(4));
		break;
	case 4:
		ioapic_mask(2); /* no NMI on a task register of chance */
		asm volatile("ltr %w0" : : "r"(selector));
		break;
	case 5:
		asm volatile("rex.w lcall *%0" : : "m"(far) : "memory");
		break;
	case 6:
		asm volatile("pushq %0; pushq %1; lretq" : : "r"((u64)selector), "r"(CODE));
		break;
	case 7:
		asm volatile("pushq %0; pushq %1; pushq %2; pushq %3; pushq %4; iretq"
			     :
			     : "r"(nasty() & 0xffff), "r"(SANDBOX + 0x8000),
			       "r"(nasty() & ~0x100ull), "r"((u64)selector), "r"(CODE));
		break;
	default:
		asm volatile("larl %k1, %k0; lsll %k1, %k0; verr %w1; verw %w1"
			     : "=r"(far[0])
			     : "r"((u64)selector)
			     : "cc");
		break;
	}
}

static void code_is_ud2(void)
{
	volatile u16 *p = (volatile u16 *)(uintptr_t)sandbox.code_phys;

	for (u32 i = 0; i < PAGE_SIZE / 2; i++)
		p[i] = 0x0b0f;
}

static void round_segments(void)
{
	code_is_ud2();
	for (u32 i = 0; i < 22; i++)
		gdt[SEL_TEST / 8 + i] = random_descriptor();
	attempt(random_segments, NULL);
	repair_cpu();
	watchdog_arm();
}

/* Gates from 0x20 up are garbage, those of exceptions are not: they have to bring us back. */
static void random_gate(void *arg)
{
	static u8 insn[4] = {0xcd, 0, 0xc3, 0xc3};

	insn[1] = (u8)(0x82 + rng_below(&sandbox.rng, 0x50));
	asm volatile("call *%0" : : "r"(insn) : "memory", "rax", "cc");
}

static void round_gates(void)
{
	code_is_ud2();
	for (u32 v = 0x82; v < 0xd2; v++) {
		idt_set(v, CODE + rng_below(&sandbox.rng, 256), (u32)rng_below(&sandbox.rng, 16), 0,
			(u32)rng_below(&sandbox.rng, 8));
		if (rng_below(&sandbox.rng, 3) == 0)
			idt[v].selector = (u16)rng_below(&sandbox.rng, SEL_TSS);
		if (rng_below(&sandbox.rng, 4) == 0)
			idt[v].offset_high = (u32)rng_next(&sandbox.rng);
		if (rng_below(&sandbox.rng, 4) == 0)
			idt[v].type ^= 0x80;
	}
	for (u32 i = 2; i < 7; i++)
		cpus[0].tss.ist[i] = rng_below(&sandbox.rng, 2) ? nasty() : SANDBOX + 0x8000;
	attempt(random_gate, NULL);
	for (u32 v = 0x82; v < 0xd2; v++)
		idt_reset(v, false);
	for (u32 i = 2; i < 7; i++)
		cpus[0].tss.ist[i] = 0;
	repair_cpu();
}

/* --- page tables --------------------------------------------------------------------------------
 */

static void touch(void *arg)
{
	volatile u32 *p = arg;

	if (rng_below(&sandbox.rng, 2))
		(void)*p;
	else
		*p = 1;
}

static void fetch(void *arg)
{
	((void (*)(void))arg)();
}

/* An entry of the top level down to one of the last, wrong in one way or several. */
static void round_tables(void)
{
	static u64 *top, *tables[3];
	u64 va = TABLES + (rng_next(&sandbox.rng) & 0x3fffffffull & ~3ull), entry;
	u32 level = (u32)rng_below(&sandbox.rng, 4);

	if (!top) {
		top = (u64 *)(uintptr_t)(sandbox.cr3 & PTE_ADDR);
		for (u32 i = 0; i < 3; i++)
			tables[i] = page_alloc();
	}
	entry = nasty() & 0xfff;
	switch (rng_below(&sandbox.rng, 6)) {
	case 0: /* itself */
		entry |= level == 3 ? (u64)(uintptr_t)top : (u64)(uintptr_t)tables[2 - level];
		break;
	case 1:
		entry |= BIT64(rng_below(&sandbox.rng, 64));
		break;
	case 2:
		entry |= HOLE_PHYS;
		break;
	case 3:
		entry |= 0x000fffff00000000ull & rng_next(&sandbox.rng);
		break;
	case 4:
		entry |= sandbox.phys;
		break;
	default:
		entry |= rng_next(&sandbox.rng);
		break;
	}
	/* Not to RAM of the kernel, which a large page or a table of chance could reach. */
	if ((entry & PTE_ADDR) < ram_top() && (entry & PTE_ADDR) - sandbox.phys >= SIZE_2M &&
	    (entry & PTE_P))
		entry = (entry & ~PTE_ADDR) | sandbox.phys;
	top[va >> 39 & 511] = (u64)(uintptr_t)tables[0] | 7;
	for (u32 i = 0; i < 512; i++) {
		tables[0][i] = (u64)(uintptr_t)tables[1] | 7;
		tables[1][i] = (u64)(uintptr_t)tables[2] | 7;
		tables[2][i] = sandbox.phys | 7;
	}
	if (level == 3)
		top[va >> 39 & 511] = entry;
	else
		tables[2 - level][va >> (12 + 9 * level) & 511] = entry;
	write_cr3(sandbox.cr3);
	attempt(rng_below(&sandbox.rng, 4) ? touch : fetch, (void *)(uintptr_t)va);
	top[va >> 39 & 511] = 0;
	write_cr3(sandbox.cr3);
}

/* --- instructions -------------------------------------------------------------------------------
 */

static void jump(void *arg)
{
	asm volatile("jmp *%0" : : "r"(arg) : "memory");
}

/* One instruction at CPL 0, by single-stepping. */
static void round_step(void)
{
	static const u8 set_tf[] = {0x9c, 0x48, 0x81, 0x0c, 0x24, 0x00, 0x01, 0x00, 0x00, 0x9d};
	u32 at;

	emit_prologue(SANDBOX);
	emit(set_tf, sizeof(set_tf));
	at = code_bytes;
	do {
		code_bytes = at;
		emit_random(15);
	} while (is_spared(code + at, code + code_bytes));
	attempt(jump, (void *)(uintptr_t)install_code());
	repair_cpu();
}

/* The same on devices, with forms that an emulator may be expected to know. */
static void round_device_step(void)
{
	static const u8 set_tf[] = {0x9c, 0x48, 0x81, 0x0c, 0x24, 0x00, 0x01, 0x00, 0x00, 0x9d};
	static const u8 ops[] = {0x00, 0x01, 0x02, 0x03, 0x08, 0x09, 0x0a, 0x0b, 0x20,
				 0x21, 0x22, 0x23, 0x28, 0x29, 0x2a, 0x2b, 0x30, 0x31,
				 0x32, 0x33, 0x38, 0x39, 0x3a, 0x3b, 0x84, 0x85, 0x86,
				 0x87, 0x88, 0x89, 0x8a, 0x8b, 0xa4, 0xa5, 0xaa, 0xab};
	static const u64 windows[] = {DEV_LAPIC, DEV_IOAPIC, DEV_HOLE, DEV_HOLE + 0x1ff000};
	u64 window = windows[rng_below(&sandbox.rng, ARRAY_SIZE(windows))];
	u8 insn[4] = {(u8)(0x40 | rng_below(&sandbox.rng, 16)),
		      ops[rng_below(&sandbox.rng, sizeof(ops))],
		      (u8)(rng_below(&sandbox.rng, 8) << 3 | 3), 0x90};

	emit_prologue(SANDBOX);
	emit_load(3, window + rng_below(&sandbox.rng, 0x100));
	emit_load(11, window + rng_below(&sandbox.rng, 0x100));
	emit_load(rng_below(&sandbox.rng, 2) ? 7 : 6, window);
	emit(set_tf, sizeof(set_tf));
	emit(insn, sizeof(insn));
	attempt(jump, (void *)(uintptr_t)install_code());
	repair_cpu();
	repair_apic();
}

/* Runs at CPL 3 until it faults or its time is up. */
static void round_user(void)
{
	struct trap t;

	emit_prologue(SANDBOX);
	emit_random(32);
	watch_begin();
	lapic_write(LAPIC_LVT_TIMER, VEC_SANDBOX_TIMER);
	lapic_write(LAPIC_TIMER_DCR, 0xb);
	lapic_write(LAPIC_TIMER_ICR, 10000);
	sandbox.exceptions +=
		user_run_flags(&t, (u64(*)(u64))(uintptr_t)install_code(), 0, NULL, RFLAGS_IF);
	watch_end();
	lapic_write(LAPIC_TIMER_ICR, 0);
	irq_window();
	repair_cpu();
}

/* Code where there are devices, nothing, or no addresses; a stack at the latter. */
static void push_there(void *arg)
{
	asm volatile("movq %%rsp, %%rbx; movq %0, %%rsp; pushq %%rax; popq %%rcx; movq %%rbx, %%rsp"
		     :
		     : "r"(arg)
		     : "rbx", "rcx", "memory");
}

static void round_places(void)
{
	static const u64 none[] = {0x7ffffffffff0, 0x800000000000, 0xfffffffffffffff8,
				   0x2000000000};
	static const u64 devices[] = {DEV_HOLE, DEV_HOLE + 0x1ffe, DEV_LAPIC + 0x20, DEV_IOAPIC};
	void *place = (void *)(uintptr_t)none[rng_below(&sandbox.rng, ARRAY_SIZE(none))];

	switch (rng_below(&sandbox.rng, 3)) {
	case 0:
		attempt(push_there, place);
		break;
	case 1:
		attempt(fetch, place);
		break;
	default:
		attempt(fetch,
			(void *)(uintptr_t)devices[rng_below(&sandbox.rng, ARRAY_SIZE(devices))]);
		break;
	}
}

/* --- deeds that end the VM ----------------------------------------------------------------------
 */

static void fatal_triple(void)
{
	struct desc_ptr none = {0, 0};

	asm volatile("lidt %0; ud2" : : "m"(none));
}

static void fatal_stack(void)
{
	asm volatile("movq %0, %%rsp; int3" : : "r"(DEV_HOLE + 0x800));
}

static void fatal_cr3(void)
{
	write_cr3(HOLE_PHYS);
}

static void fatal_push(void)
{
	push_there((void *)(uintptr_t)(DEV_HOLE + 0x800));
}

static const struct {
	const char *name;
	void (*fn)(void);
} fatal_deeds[] = {
	{"triple", fatal_triple},
	{"stack", fatal_stack},
	{"cr3", fatal_cr3},
	{"push", fatal_push},
};

/* --- main ---------------------------------------------------------------------------------------
 */

static const struct {
	const char *name;
	void (*fn)(void);
} kinds[] = {
	{"hypercalls", round_hypercall}, {"ports", round_port},		 {"msrs", round_msr},
	{"control", round_control},	 {"apic", round_apic},		 {"x2apic", round_x2apic},
	{"segments", round_segments},	 {"gates", round_gates},	 {"tables", round_tables},
	{"steps", round_step},		 {"devices", round_device_step}, {"user", round_user},
	{"places", round_places},
};

static void run_kind(u32 i, u64 seed, u64 rounds)
{
	sandbox.exceptions = sandbox.rescues = 0;
	rng_seed(&sandbox.rng, seed * 1000 + i);
	for (u64 n = 0; n < rounds; n++)
		kinds[i].fn();
	repair_cpu();
	repair_apic();
	tap_ok(healthy(), "%s: %lu rounds", kinds[i].name, rounds);
	tap_note("%u exceptions, %u rescues", sandbox.exceptions, sandbox.rescues);
}

void guest_main(void)
{
	u64 seed = opt_u64("seed", 1), rounds = opt_u64("rounds", 150);
	char name[16];

	if (!umbra_present() && !opt_flag("force")) {
		tap_skip("only Umbra has to stand this");
		return;
	}
	tap_note("seed=%lu rounds=%lu", seed, rounds);
	sandbox_create();
	for (u32 v = 0x20; v < 256; v++) {
		if (v != VEC_USER_EXIT && v != VEC_SANDBOX_TIMER)
			trap_set_handler(v, any_interrupt);
	}
	if (opt_str("fatal", name, sizeof(name))) {
		for (u32 i = 0; i < ARRAY_SIZE(fatal_deeds); i++) {
			if (!strcmp(name, fatal_deeds[i].name))
				fatal_deeds[i].fn();
		}
		tap_bail("the deed %s did not end this VM", name);
	}
	for (u32 i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (!opt_str("only", name, sizeof(name)) || !strcmp(name, kinds[i].name))
			run_kind(i, seed, rounds);
	}
}
