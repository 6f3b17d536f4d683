/*
 * Event delivery. First, without any help: events whose delivery itself touches memory for the
 * first time (the stack, the IDT, a descriptor, a page table), so that an EPT violation happens
 * during delivery and the event must be delivered again, exactly once. Then, on Umbra, each form of
 * HC_INJECT: types, error codes, instruction lengths, and the forms that the SDM forbids.
 */
#include "apic.h"
#include "cpu.h"
#include "mem.h"
#include "umbra.h"

#define VEC_TEST 0x60
#define FRESH_VA 0x5000000000ull

static bool tcg;
static struct frame seen;
static volatile u32 seen_count;
static u64 seen_cr2;
static u64 seen_stack;

/* Remembers the event and goes on behind the faulting instruction, whose length is in RBX. */
static bool observe(struct frame *f)
{
	seen = *f;
	seen_count++;
	seen_cr2 = read_cr2();
	seen_stack = (u64)(uintptr_t)f;
	f->rip += f->rbx;
	if (f->vector >= 0x20 && (f->vector == VEC_TEST || f->vector == VEC_TEST + 1))
		lapic_eoi();
	return true;
}

/*
 * Zeroed pages of identity-mapped memory that no EPT entry maps: memory that has never been touched
 * will not do, since its neighbours may have brought a large mapping along.
 */
static u64 fresh_pages(u64 n)
{
	u64 page = (u64)(uintptr_t)mem_alloc(n * PAGE_SIZE, PAGE_SIZE);

	if (!page)
		tap_bail("out of memory");
	if (umbra_present() && hypercall(HC_DISCARD, page, n * PAGE_SIZE, 0, 0))
		tap_bail("HC_DISCARD refused");
	return page;
}

/*
 * One way to raise each kind of event. raise() returns the RIP that must be saved; RBX tells
 * observe() how far to skip.
 */
struct event {
	const char *name;
	u64 (*raise)(void);
	unsigned int vector;
	u64 error;
	u64 cr2; /* 0: not looked at */
};

#define FAULT(fn, insn, length, ...)                                \
	static u64 fn(void)                                         \
	{                                                           \
		u64 at;                                             \
		asm volatile("lea 1f(%%rip), %0\n1: " insn "\n2:\n" \
			     : "=&r"(at)                            \
			     : "b"(length), ##__VA_ARGS__           \
			     : "memory", "cc");                     \
		return at;                                          \
	}
/* Traps: RIP is that of the next instruction, nothing to skip. */
#define TRAP(fn, insn)                                           \
	static u64 fn(void)                                      \
	{                                                        \
		u64 at;                                          \
		asm volatile("lea 1f(%%rip), %0\n" insn "\n1:\n" \
			     : "=&r"(at)                         \
			     : "b"(0)                            \
			     : "memory", "cc");                  \
		return at;                                       \
	}

FAULT(raise_de, "divl %%ecx", 2, "a"(1), "d"(0), "c"(0))
FAULT(raise_ud, "ud2", 2)
FAULT(raise_gp, "movl (%%rcx), %%ecx", 2, "c"(0x8000000000000000ull))
FAULT(raise_pf, "movl (%%rcx), %%ecx", 2, "c"(FRESH_VA + 0x123000))
FAULT(raise_np, "movl %%ecx, %%es", 2, "c"(SEL_TEST))
TRAP(raise_bp, "int3")
TRAP(raise_int, ".byte 0xcd, 0x77")
TRAP(raise_int_bp, ".byte 0xcd, 3")
TRAP(raise_icebp, ".byte 0xf1")

static u64 raise_irq(void)
{
	u64 at;

	lapic_send(0, ICR_SELF | ICR_ASSERT | VEC_TEST);
	delay_us(20);
	asm volatile("lea 1f(%%rip), %0; sti; nop\n1: nop; cli" : "=&r"(at) : "b"(0) : "memory");
	return at;
}

static u64 raise_nmi(void)
{
	u32 before = seen_count;

	asm volatile("" : : "b"(0));
	lapic_send(lapic_id(), ICR_NMI | ICR_ASSERT);
	for (int i = 0; i < 100000 && seen_count == before; i++)
		cpu_pause();
	return 0; /* at some instruction of these */
}

static const struct event events[] = {
	{"#DE", raise_de, VEC_DE, 0, 0},	{"#UD", raise_ud, VEC_UD, 0, 0},
	{"#GP", raise_gp, VEC_GP, 0, 0},	{"#PF", raise_pf, VEC_PF, 0, FRESH_VA + 0x123000},
	{"#NP", raise_np, VEC_NP, SEL_TEST, 0}, {"INT3", raise_bp, VEC_BP, 0, 0},
	{"INT 0x77", raise_int, 0x77, 0, 0},	{"INT 3", raise_int_bp, VEC_BP, 0, 0},
	{"INT1", raise_icebp, VEC_DB, 0, 0},	{"external interrupt", raise_irq, VEC_TEST, 0, 0},
};

static bool check_event(const struct event *e, u64 rip)
{
	return seen_count == 1 && seen.vector == e->vector && seen.error == e->error &&
	       (!rip || seen.rip == rip) && seen.cs == SEL_CODE && (!e->cr2 || seen_cr2 == e->cr2);
}

static void report(bool good, const struct event *e, u64 rip, const char *how)
{
	tap_ok(good, "%s %s", e->name, how);
	if (!good)
		tap_note("%u events, vector %lu error 0x%lx RIP 0x%lx (want 0x%lx) CR2 0x%lx",
			 seen_count, seen.vector, seen.error, seen.rip, rip, seen_cr2);
}

/* Raises the event with its handler on an IST stack that ends at `top`. */
static void raise_on_stack(const struct event *e, u64 top, const char *how)
{
	u64 rip;

	cpus[0].tss.ist[6] = top;
	idt_set_ist(e->vector, 7);
	seen_count = 0;
	write_cr2(0);
	rip = e->raise();
	idt_reset(e->vector, false);
	/* The CPU's frame is 40 bytes, 48 with an error code; 16-aligned top. */
	report(check_event(e, rip) && seen_stack < top && seen_stack >= top - 512, e, rip, how);
}

static void test_fresh_stacks(void)
{
	gdt[SEL_TEST / 8] = 0x00cf13000000ffff; /* not present */
	for (u32 i = 0; i < ARRAY_SIZE(events); i++) {
		const struct event *e = &events[i];

		if (tcg && e->vector == VEC_DB) { /* QEMU 7.2 TCG: INT1 is #UD */
			tap_skip("INT1 on QEMU TCG");
			continue;
		}
		trap_set_handler(e->vector, observe);
		raise_on_stack(e, fresh_pages(1) + PAGE_SIZE, "on a fresh stack");
		raise_on_stack(e, fresh_pages(2) + PAGE_SIZE + 16, "on a stack across fresh pages");
		/* Once more with the page there: nothing may be left over. */
		raise_on_stack(e, cpus[0].tss.ist[6], "on a warm stack");
		trap_set_handler(e->vector, NULL);
	}
}

/* NMI: also its blocking must be right when delivery was interrupted. */
static volatile u32 nmi_nested;

static bool nmi_twice(struct frame *f)
{
	if (seen_count == 0) {
		seen_count = 1;
		lapic_send(lapic_id(), ICR_NMI | ICR_ASSERT);
		delay_us(200);
		nmi_nested = seen_count != 1;
	} else {
		seen_count++;
	}
	return true;
}

static void test_fresh_nmi(void)
{
	static const struct event nmi = {"NMI", raise_nmi, VEC_NMI, 0, 0};

	trap_set_handler(VEC_NMI, observe);
	raise_on_stack(&nmi, fresh_pages(1) + PAGE_SIZE, "on a fresh stack");
	trap_set_handler(VEC_NMI, nmi_twice);
	cpus[0].tss.ist[6] = fresh_pages(1) + PAGE_SIZE;
	idt_set_ist(VEC_NMI, 7);
	seen_count = 0;
	lapic_send(lapic_id(), ICR_NMI | ICR_ASSERT);
	delay_us(500);
	idt_reset(VEC_NMI, false);
	trap_set_handler(VEC_NMI, NULL);
	tap_is(seen_count, 2, "a second NMI during the first, delivered on a fresh stack");
	tap_is(nmi_nested, 0, "NMIs were blocked until IRET");
}

/*
 * The upper part of the IDT on a fresh page: gates read as zero, an invalid type, so each event
 * turns into #GP through the lower part; the error code says whether it was INT n (EXT clear).
 */
static void test_fresh_idt(void)
{
	u64 pages = fresh_pages(2);
	u64 base = pages + PAGE_SIZE - VEC_TEST * 16; /* gate 0x60 begins the fresh page */
	struct desc_ptr p = {sizeof(idt) - 1, base};
	u64 scale = tcg ? 16 : 8, ext = tcg ? 0 : 1; /* QEMU 7.2 TCG: see exceptions.c */
	u64 rip;

	for (unsigned int v = 0; v < VEC_TEST; v++)
		((struct idt_gate *)(uintptr_t)base)[v] = idt[v];
	asm volatile("lidt %0" : : "m"(p));
	trap_set_handler(VEC_GP, observe);
	trap_set_handler(VEC_BP, observe);
	seen_count = 0;
	asm volatile("lea 1f(%%rip), %0\n1: int $0x77" : "=&r"(rip) : "b"(2) : "memory");
	tap_ok(seen_count == 1 && seen.error == 0x77 * scale + 2 && seen.rip == rip,
	       "INT n through a fresh IDT page: #GP, error code 0x%lx", seen.error);
	p.base = fresh_pages(2) + PAGE_SIZE - VEC_TEST * 16;
	for (unsigned int v = 0; v < VEC_TEST; v++)
		((struct idt_gate *)(uintptr_t)p.base)[v] = idt[v];
	asm volatile("lidt %0" : : "m"(p));
	/*
	 * Bochs 3.0 shows the event before in the IDT-vectoring information of a virtual interrupt,
	 * and Umbra can tell only if that was none with RF set (hv/vm/events.c).
	 */
	asm volatile("int3" : : "b"(0) : "memory");
	seen_count = 0;
	lapic_send(0, ICR_SELF | ICR_ASSERT | (VEC_TEST + 1));
	delay_us(20);
	asm volatile("lea 1f(%%rip), %0; sti; nop\n1: nop; cli" : "=&r"(rip) : "b"(0) : "memory");
	tap_ok(seen_count == 1 && seen.error == (VEC_TEST + 1) * scale + 2 + ext && seen.rip == rip,
	       "external interrupt through a fresh IDT page: #GP, error code 0x%lx", seen.error);
	lapic_eoi(); /* it was acknowledged */
	trap_set_handler(VEC_BP, NULL);
	trap_set_handler(VEC_GP, NULL);
	idt_load();
}

/* Gates whose code segment lies on a fresh page of the GDT: an empty descriptor, #GP(selector). */
static void test_fresh_gdt(void)
{
	extern struct desc_ptr gdt_pointer;
	u64 pages = fresh_pages(2), limit = SEL_TSS + 16 * MAX_CPUS;
	struct desc_ptr p = {(u16)(limit + 64), pages + PAGE_SIZE - limit};
	u64 rip;

	memcpy((void *)(uintptr_t)p.base, gdt, limit);
	asm volatile("lgdt %0" : : "m"(p));
	idt[0x77].selector = (u16)limit; /* first descriptor of the fresh page */
	trap_set_handler(VEC_GP, observe);
	seen_count = 0;
	asm volatile("lea 1f(%%rip), %0\n1: int $0x77" : "=&r"(rip) : "b"(2) : "memory");
	tap_ok(seen_count == 1 && seen.error == limit && seen.rip == rip,
	       "INT n to a segment on a fresh GDT page: #GP, error code 0x%lx", seen.error);
	trap_set_handler(VEC_GP, NULL);
	idt_reset(0x77, false);
	asm volatile("lgdt %0" : : "m"(gdt_pointer));
}

/* The handler's stack behind a fresh (empty) page table: #PF instead, at the stack. */
static void test_fresh_page_table(void)
{
	u64 *pde = pt_split(FRESH_VA + SIZE_2M, 2);
	u64 rip;

	*pde = fresh_pages(1) | PTE_P | PTE_W | PTE_U;
	cpus[0].tss.ist[6] = FRESH_VA + SIZE_2M + PAGE_SIZE;
	idt_set_ist(0x77, 7);
	trap_set_handler(VEC_PF, observe);
	seen_count = 0;
	asm volatile("lea 1f(%%rip), %0\n1: int $0x77" : "=&r"(rip) : "b"(2) : "memory");
	tap_ok(seen_count == 1 && seen.error == PF_W && seen.rip == rip &&
		       seen_cr2 == FRESH_VA + SIZE_2M + PAGE_SIZE - 8,
	       "INT n to a stack behind a fresh page table: #PF with CR2 there");
	trap_set_handler(VEC_PF, NULL);
	idt_reset(0x77, false);
}

/*
 * HC_INJECT. The call's RIP is that of the instruction behind VMCALL; software events add their
 * length, so 15 NOPs follow.
 */
static s64 inject(u32 info, u32 code, u32 length, u64 *next)
{
	s64 ret;

	asm volatile("lea 1f(%%rip), %[next]\nvmcall\n1:\n.fill 15, 1, 0x90"
		     : "=a"(ret), [next] "=&r"(*next)
		     : "a"(HC_INJECT), "b"((u64)info), "c"((u64)code), "d"((u64)length)
		     : "memory", "cc");
	return ret;
}

static bool observe_injected(struct frame *f)
{
	seen = *f;
	seen_count++;
	seen_cr2 = read_cr2();
	return true;
}

static bool exception_has_code(unsigned int v)
{
	return v == VEC_DF || (v >= VEC_TS && v <= VEC_PF) || v == VEC_AC || v == 21;
}

static void check_injected(u32 info, u32 code, u32 length, const char *what)
{
	unsigned int v = info & 255;
	u64 next;
	s64 ret;
	bool good;

	trap_set_handler(v, observe_injected);
	idt_reset(v, !(info & INJECT_CODE));
	seen_count = 0;
	ret = inject(info, code, length, &next);
	idt_reset(v, false);
	trap_set_handler(v, NULL);
	good = seen_count == 1 && seen.vector == v && seen.rip == next + length &&
	       seen.error == (info & INJECT_CODE ? code : 0) && ret == 0;
	tap_ok(good, "inject %s, vector %u", what, v);
	if (!good)
		tap_note("%u events, vector %lu error 0x%lx RIP 0x%lx (call returns to 0x%lx) "
			 "result %ld",
			 seen_count, seen.vector, seen.error, seen.rip, next, ret);
}

static void test_inject_forms(void)
{
	for (unsigned int v = 0; v < 22; v++) {
		if (v == VEC_NMI || v == 9 || v == 15 || v > 20)
			continue;
		if (exception_has_code(v))
			check_injected(INJECT_HARDWARE | INJECT_CODE | v, v == VEC_DF ? 0 : 0x1230,
				       0, "a hardware exception with error code");
		else
			check_injected(INJECT_HARDWARE | v, 0, 0, "a hardware exception");
	}
	check_injected(INJECT_HARDWARE | INJECT_CODE | VEC_PF, 0x7fff, 0, "#PF with all code bits");
	for (u32 length = 1; length <= 15; length += 7) {
		check_injected(INJECT_SOFT_INT | 0x77, 0, length, "INT n");
		check_injected(INJECT_SOFT_INT | VEC_GP, 0, length, "INT n");
		check_injected(INJECT_SOFT_EXC | VEC_BP, 0, length, "INT3");
		check_injected(INJECT_SOFT_EXC | VEC_OF, 0, length, "INTO");
		check_injected(INJECT_PRIV_SOFT | VEC_DB, 0, length, "INT1");
	}
	check_injected(INJECT_NMI | VEC_NMI, 0, 0, "NMI");
	for (unsigned int v = 0x20; v < 256; v += 37) {
		irq_enable();
		check_injected(INJECT_EXTERNAL | v, 0, 0, "an external interrupt");
		irq_disable();
	}
}

static void test_inject_refusals(void)
{
	static const struct {
		u32 info, code, length;
		const char *what;
	} bad[] = {
		{1u << 8 | 0x20, 0, 0, "type 1"},
		{7u << 8 | 0x20, 0, 0, "type 7, vector not 0"},
		{INJECT_NMI | 3, 0, 0, "NMI with another vector"},
		{INJECT_HARDWARE | 32, 0, 0, "hardware exception 32"},
		{INJECT_HARDWARE | VEC_GP, 0, 0, "#GP without error code"},
		{INJECT_HARDWARE | INJECT_CODE | VEC_UD, 0, 0, "#UD with error code"},
		{INJECT_HARDWARE | INJECT_CODE | 21, 0, 0, "#CP"},
		{INJECT_HARDWARE | 21, 0, 0, "#CP without error code"},
		{INJECT_HARDWARE | INJECT_CODE | VEC_GP, 0x10000, 0, "error code bit 16"},
		{INJECT_SOFT_INT | INJECT_CODE | 13, 0, 2, "INT n with error code"},
		{INJECT_SOFT_INT | 0x77, 0, 16, "length 16"},
		{INJECT_EXTERNAL | INJECT_CODE | 0x60, 0, 0, "external interrupt with error code"},
		{1u << 12 | INJECT_HARDWARE | VEC_UD, 0, 0, "reserved bit 12"},
		{1u << 30 | INJECT_HARDWARE | VEC_UD, 0, 0, "reserved bit 30"},
		{INJECT_EXTERNAL | 0x60, 0, 0, "external interrupt with IF clear"},
	};

	for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
		u64 next;

		tap_is((u64)inject(bad[i].info, bad[i].code, bad[i].length, &next), (u64)HC_EINVAL,
		       "refused: %s", bad[i].what);
	}
	seen_count = 0;
	cpuid(0, 0);
	tap_is(seen_count, 0, "nothing stays pending after refusals");
}

/* Injected events whose delivery faults in turn, natively or by an EPT violation. */
static void run_inject(void *arg)
{
	u64 next;

	inject((u32)(uintptr_t)arg, 0, 2, &next);
}

static void check_nested(u32 info, int vector, u64 error, const char *what)
{
	struct trap t;

	idt[info & 255].type &= 0x7f;
	trap_run(&t, run_inject, (void *)(uintptr_t)info);
	idt_reset(info & 255, false);
	tap_ok(t.vector == vector && t.error == error,
	       "%s, gate not present: vector %d error 0x%lx", what, vector, error);
	if (t.vector != vector || t.error != error)
		tap_note("got vector %d error 0x%lx", t.vector, t.error);
}

static void test_inject_nested(void)
{
	check_nested(INJECT_HARDWARE | INJECT_CODE | VEC_PF, VEC_DF, 0, "injected #PF");
	check_nested(INJECT_HARDWARE | INJECT_CODE | VEC_GP, VEC_DF, 0, "injected #GP");
	check_nested(INJECT_HARDWARE | VEC_DE, VEC_DF, 0, "injected #DE");
	check_nested(INJECT_HARDWARE | VEC_UD, VEC_NP, VEC_UD * 8 + 3, "injected #UD");
	check_nested(INJECT_SOFT_INT | 0x77, VEC_NP, 0x77 * 8 + 2, "injected INT n");
	check_nested(INJECT_SOFT_EXC | VEC_BP, VEC_NP, VEC_BP * 8 + 2, "injected INT3");
	check_nested(INJECT_NMI | VEC_NMI, VEC_NP, VEC_NMI * 8 + 3, "injected NMI");
	/* On fresh stacks: an EPT violation while an injected event is delivered. */
	static const u32 infos[] = {
		INJECT_HARDWARE | INJECT_CODE | VEC_PF,
		INJECT_HARDWARE | INJECT_CODE | VEC_GP,
		INJECT_HARDWARE | VEC_UD,
		INJECT_SOFT_INT | 0x77,
		INJECT_SOFT_EXC | VEC_BP,
		INJECT_PRIV_SOFT | VEC_DB,
		INJECT_NMI | VEC_NMI,
	};
	for (u32 i = 0; i < ARRAY_SIZE(infos); i++) {
		unsigned int v = infos[i] & 255, type = infos[i] >> 8 & 7;
		u32 length = type >= 4 ? 3 : 0;
		u64 next;

		cpus[0].tss.ist[6] = fresh_pages(1) + PAGE_SIZE;
		idt_set_ist(v, 7);
		trap_set_handler(v, observe_injected);
		seen_count = 0;
		inject(infos[i], 0x18, length, &next);
		trap_set_handler(v, NULL);
		idt_reset(v, false);
		tap_ok(seen_count == 1 && seen.vector == v && seen.rip == next + length &&
			       seen.error == (infos[i] & INJECT_CODE ? 0x18 : 0),
		       "injected type %u vector %u on a fresh stack", type, v);
	}
}

void guest_main(void)
{
	tcg = tcg_present();
	lapic_enable();
	test_fresh_stacks();
	test_fresh_nmi();
	test_fresh_idt();
	test_fresh_gdt();
	test_fresh_page_table();
	if (!umbra_present()) {
		tap_skip("HC_INJECT needs Umbra");
		return;
	}
	test_inject_forms();
	test_inject_refusals();
	test_inject_nested();
}
