/* Exceptions: dispatch, expected-exception support, descriptor tables. Contract in trap.h. */
#include "cpu.h"
#include "mem.h"

struct extable_entry {
	u64 insn, end;
};

extern const struct extable_entry guest_extable_start[], guest_extable_end[];
extern const u8 trap_stubs[], trap_stubs_plain[], trap_unwind[], user_return[];
extern struct desc_ptr gdt_pointer;
int trap_call(u64 *save_rsp, void (*fn)(void *), void *arg);
u64 user_enter(u64 *save_rsp, u64 (*fn)(u64), u64 arg, u64 stack, u64 rflags, u64 cs);
void trap_dispatch(struct frame *f);

struct idt_gate idt[256] __aligned(16);
struct cpu cpus[MAX_CPUS];
volatile u32 trap_count[256];

static trap_handler_t handlers[256];
static u8 ist_stacks[MAX_CPUS][2][4096] __aligned(16);
static u8 user_stack[MAX_CPUS][8192] __aligned(4096);

struct cpu *this_cpu(void)
{
	u16 tr;

	asm volatile("str %0" : "=r"(tr));
	return &cpus[(tr - SEL_TSS) / 16];
}

struct trap *trap_last(void)
{
	asm volatile("" : : : "memory");
	return &this_cpu()->trap;
}

void trap_clear(void)
{
	struct trap *t = trap_last();

	memset(t, 0, sizeof(*t));
	t->vector = TRAP_NONE;
}

void trap_set_handler(unsigned int vector, trap_handler_t handler)
{
	handlers[vector] = handler;
}

static void record(struct cpu *cpu, const struct frame *f)
{
	struct trap *t = &cpu->trap;

	t->vector = (int)f->vector;
	t->error = f->error;
	t->rip = f->rip;
	t->cs = f->cs;
	t->rflags = f->rflags;
	t->rsp = f->rsp;
	t->ss = f->ss;
	t->cr2 = read_cr2();
	t->dr6 = read_dr6();
	t->insn = 0;
	t->next = 0;
}

static bool fix_up(struct frame *f, struct trap *t)
{
	for (const struct extable_entry *e = guest_extable_start;
	     (uintptr_t)e < (uintptr_t)guest_extable_end; e++) {
		if (f->rip >= e->insn && f->rip <= e->end) {
			t->insn = e->insn;
			t->next = e->end;
			f->rip = e->end;
			return true;
		}
	}
	return false;
}

static void resume_kernel(struct frame *f, const u8 *rip, u64 rsp)
{
	f->rip = (u64)(uintptr_t)rip;
	f->rsp = rsp;
	f->cs = SEL_CODE;
	f->ss = SEL_DATA;
	f->rflags = RFLAGS_1;
}

static void __noreturn die(const struct frame *f)
{
	printf("# rax %016lx rbx %016lx rcx %016lx rdx %016lx\n", f->rax, f->rbx, f->rcx, f->rdx);
	printf("# rsi %016lx rdi %016lx rbp %016lx rsp %016lx\n", f->rsi, f->rdi, f->rbp, f->rsp);
	printf("# r8  %016lx r9  %016lx r10 %016lx r11 %016lx\n", f->r8, f->r9, f->r10, f->r11);
	printf("# cr0 %lx cr2 %lx cr3 %lx cr4 %lx dr6 %lx rflags %lx\n", read_cr0(), read_cr2(),
	       read_cr3(), read_cr4(), read_dr6(), f->rflags);
	tap_bail("unexpected vector %u error 0x%lx at %lx:0x%lx on CPU %u", (u32)f->vector,
		 f->error, f->cs, f->rip, this_cpu()->index);
}

void trap_dispatch(struct frame *f)
{
	struct cpu *cpu = this_cpu();
	bool user = (f->cs & 3) == 3;

	__atomic_fetch_add(&trap_count[f->vector & 255], 1, __ATOMIC_RELAXED);
	if (handlers[f->vector & 255] && handlers[f->vector & 255](f))
		return;
	if (f->vector == VEC_USER_EXIT && user && cpu->user_rsp) {
		resume_kernel(f, user_return, cpu->user_rsp);
		return;
	}
	record(cpu, f);
	if (user && cpu->user_rsp) {
		cpu->user_end = true;
		resume_kernel(f, user_return, cpu->user_rsp);
	} else if (!user && fix_up(f, &cpu->trap)) {
		return;
	} else if (cpu->unwind) {
		resume_kernel(f, trap_unwind, *cpu->unwind);
	} else {
		die(f);
	}
}

bool trap_run(struct trap *t, void (*fn)(void *), void *arg)
{
	struct cpu *cpu = this_cpu();
	u64 *outer = cpu->unwind;
	u64 rsp;
	bool trapped;

	trap_clear();
	cpu->unwind = &rsp;
	trapped = trap_call(&rsp, fn, arg);
	cpu->unwind = outer;
	if (t) {
		*t = cpu->trap;
		if (!trapped)
			t->vector = TRAP_NONE;
	}
	return trapped;
}

bool user_run_flags(struct trap *t, u64 (*fn)(u64), u64 arg, u64 *ret, u64 rflags)
{
	struct cpu *cpu = this_cpu();
	u64 flags = read_flags(), value;
	u64 rsp0 = cpu->tss.rsp[0];

	pt_set_user((u64)(uintptr_t)user_stack[cpu->index], sizeof(user_stack[0]));
	irq_disable();
	trap_clear();
	cpu->user_end = false;
	/* Events at CPL 3 use the stack below this frame: user_enter() saves what is above. */
	cpu->tss.rsp[0] = (u64)(uintptr_t)__builtin_frame_address(0) - 2048;
	value = user_enter(&cpu->user_rsp, fn, arg,
			   (u64)(uintptr_t)user_stack[cpu->index] + sizeof(user_stack[0]),
			   rflags | RFLAGS_1, SEL_USER_CODE | 3);
	cpu->user_rsp = 0;
	cpu->tss.rsp[0] = rsp0;
	write_flags(flags);
	if (t) {
		*t = cpu->trap;
		if (!cpu->user_end)
			t->vector = TRAP_NONE;
	}
	if (ret && !cpu->user_end)
		*ret = value;
	return cpu->user_end;
}

bool user_run(struct trap *t, u64 (*fn)(u64), u64 arg, u64 *ret)
{
	return user_run_flags(t, fn, arg, ret, 0);
}

void idt_set(unsigned int vector, u64 target, unsigned int type, unsigned int dpl, unsigned int ist)
{
	idt[vector] = (struct idt_gate){
		.offset_low = (u16)target,
		.selector = SEL_CODE,
		.ist = (u8)ist,
		.type = (u8)(0x80 | dpl << 5 | type),
		.offset_mid = (u16)(target >> 16),
		.offset_high = (u32)(target >> 32),
	};
}

void idt_reset(unsigned int vector, bool plain)
{
	const u8 *stub = (plain ? trap_stubs_plain : trap_stubs) + vector * 16;
	unsigned int ist = vector == VEC_DF ? 1 : vector == VEC_NMI ? 2 : 0;

	idt_set(vector, (u64)(uintptr_t)stub, 0xe, vector == VEC_USER_EXIT ? 3 : 0, ist);
}

void idt_set_dpl(unsigned int vector, unsigned int dpl)
{
	idt[vector].type = (u8)((idt[vector].type & ~0x60u) | dpl << 5);
}

void idt_set_ist(unsigned int vector, unsigned int ist)
{
	idt[vector].ist = (u8)ist;
}

void idt_load(void)
{
	struct desc_ptr p = {sizeof(idt) - 1, (u64)(uintptr_t)idt};

	asm volatile("lidt %0" : : "m"(p));
}

void cpu_load_tables(unsigned int index)
{
	struct tss *tss = &cpus[index].tss;
	u64 base = (u64)(uintptr_t)tss;
	u64 *desc = &gdt[(SEL_TSS + index * 16) / 8];

	cpus[index].index = index;
	tss->ist[0] = (u64)(uintptr_t)ist_stacks[index][0] + sizeof(ist_stacks[0][0]);
	tss->ist[1] = (u64)(uintptr_t)ist_stacks[index][1] + sizeof(ist_stacks[0][0]);
	tss->iomap = sizeof(*tss);
	/* Available 64-bit TSS, present (SDM 8.2.3): loading it sets the busy bit. */
	desc[0] = (sizeof(*tss) - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 |
		  (base >> 24 & 0xff) << 56;
	desc[1] = base >> 32;
	asm volatile("lgdt %0; lldt %w1" : : "m"(gdt_pointer), "r"(0));
	if (!idt[0].type) {
		for (unsigned int v = 0; v < 256; v++)
			idt_reset(v, false);
	}
	idt_load();
	asm volatile("ltr %w0" : : "r"(SEL_TSS + index * 16));
}
