/*
 * hv/vm/events.c: what is injected, when it has to wait, and what becomes of two events that meet.
 * Bit layouts are written out as SDM 3C tables 25-17, 25-18 and 25-3 print them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vm/internal.h"
#include "x86/regs.h"

u64 fake_vmcs[0x8000];
u64 fake_cr2, fake_dr6;

#define VALID	   0x80000000u
#define ERROR_CODE 0x800u
#define EXTINT	   0x000u
#define NMI	   0x200u
#define HARDWARE   0x300u
#define SOFT_INT   0x400u
#define ICEBP	   0x500u
#define SOFT_EXC   0x600u

#define IRQ_WINDOW 0x4u	     /* primary processor-based controls, bit 2 */
#define NMI_WINDOW 0x400000u /* bit 22 */

static struct vm vm;
static struct vcpu vcpu;
static u8 vapic[4096];
static unsigned int ended;
static int irq_vector, irq_accepted, irq_raised;
static bool irq_extint, irq_more;
static u8 irr_highest, isr_highest;

void vm_end(struct vm *v, u32 status, const char *fmt, ...)
{
	assert_int_equal(status, VM_STATUS_FAULT);
	ended++;
}

void vcpu_request(struct vcpu *v, u32 requests)
{
	v->requests |= requests;
}

void vcpu_set_proc(struct vcpu *v, u32 set, u32 clear)
{
	v->proc = (v->proc & ~clear) | set;
}

void cpu_take_interrupts(void)
{
}

int platform_irq_pending(struct vcpu *v)
{
	return irq_vector;
}

int platform_irq_accept(struct vcpu *v, bool *more)
{
	int vector = irq_vector;

	assert_true(vector >= 0);
	irq_vector = -1;
	irq_accepted++;
	*more = irq_more;
	return vector;
}

int platform_irq_raised(struct vcpu *v)
{
	int raised = irq_raised;

	irq_raised = 0;
	return raised;
}

bool platform_extint(struct vcpu *v)
{
	return irq_extint;
}

u8 platform_extint_accept(struct vcpu *v)
{
	assert_true(irq_extint);
	irq_extint = false;
	return 0x08;
}

u8 platform_irr_highest(struct vcpu *v)
{
	return irr_highest;
}

u8 platform_isr_highest(struct vcpu *v)
{
	return isr_highest;
}

/* A guest in protected mode with interrupts open and nothing going on. */
static void start(void)
{
	memset(fake_vmcs, 0, sizeof(fake_vmcs));
	memset(&vcpu, 0, sizeof(vcpu));
	memset(vapic, 0, sizeof(vapic));
	vcpu.vm = &vm;
	vcpu.vapic = vapic;
	fake_vmcs[VMCS_GUEST_CR0] = CR0_PE;
	fake_vmcs[VMCS_GUEST_RFLAGS] = RFLAGS_IF | 2;
	fake_cr2 = fake_dr6 = 0;
	ended = 0;
	irq_vector = -1;
	irq_accepted = irq_raised = 0;
	irq_extint = irq_more = false;
	irr_highest = isr_highest = 0;
}

/* What this entry injects; taken, as the processor does. */
static u32 entry(void)
{
	u32 info;

	event_deliver(&vcpu);
	info = (u32)fake_vmcs[VMCS_ENTRY_INTR_INFO];
	fake_vmcs[VMCS_ENTRY_INTR_INFO] = 0;
	return info;
}

/* --- exceptions ------------------------------------------------------------------------------- */

/* SDM 3A table 6-1: the vectors that push an error code. */
static bool has_error_code(unsigned int vector)
{
	static const u8 with[] = {8, 10, 11, 12, 13, 14, 17, 21};

	return memchr(with, (int)vector, sizeof(with)) != NULL;
}

static void test_error_codes(void **state)
{
	for (unsigned int vector = 0; vector < 32; vector++) {
		if (vector == 2)
			continue;
		start();
		vcpu_inject_error(&vcpu, (u8)vector, 0x1234);
		assert_true(vcpu.requests & REQ_EVENT);
		assert_int_equal(entry(), VALID | HARDWARE | vector |
						  (has_error_code(vector) ? ERROR_CODE : 0));
		if (has_error_code(vector))
			assert_int_equal(fake_vmcs[VMCS_ENTRY_ERROR_CODE], 0x1234);
		assert_int_equal(entry(), 0); /* once */
		/* In real mode there is none (27.2.1.3). */
		start();
		fake_vmcs[VMCS_GUEST_CR0] = 0;
		vcpu_inject_error(&vcpu, (u8)vector, 0x1234);
		assert_int_equal(entry(), VALID | HARDWARE | vector);
	}
	start();
	vcpu_inject_pf(&vcpu, gva(0xdeadb000), 7);
	assert_int_equal(fake_cr2, 0xdeadb000);
	assert_int_equal(entry(), VALID | HARDWARE | ERROR_CODE | 14);
	assert_int_equal(fake_vmcs[VMCS_ENTRY_ERROR_CODE], 7);
}

/* SDM 3A table 6-5 (vector 20 is not offered to guests). */
enum class {
	BENIGN,
	CONTRIBUTORY,
	PAGE_FAULT
};

static enum class class_of(unsigned int vector) {
	if (vector == 14) return PAGE_FAULT;
		return vector == 0 || (vector >= 10 && vector <= 13) || vector == 21 ? CONTRIBUTORY
										     : BENIGN;
}

static void check_pair(unsigned int first, unsigned int second)
{
	enum class one = class_of(first), two = class_of(second);
	u32 got;

	start();
	/* The second exception exits while the first is being delivered. */
	fake_vmcs[VMCS_IDT_VECTORING_INFO] =
		VALID | HARDWARE | first | (has_error_code(first) ? ERROR_CODE : 0);
	fake_vmcs[VMCS_IDT_VECTORING_ERROR] = 0x11;
	fake_vmcs[VMCS_EXIT_INTR_INFO] =
		VALID | HARDWARE | second | (has_error_code(second) ? ERROR_CODE : 0);
	fake_vmcs[VMCS_EXIT_INTR_ERROR] = 0x22;
	fake_vmcs[VMCS_EXIT_QUALIFICATION] = 0x5000;
	exit_exception(&vcpu);
	if (first == 8 && two != BENIGN) {
		assert_int_equal(ended, 1);
		return;
	}
	assert_int_equal(ended, 0);
	got = entry();
	if ((one == CONTRIBUTORY && two == CONTRIBUTORY) || (one == PAGE_FAULT && two != BENIGN)) {
		assert_int_equal(got, VALID | HARDWARE | ERROR_CODE | 8);
		assert_int_equal(fake_vmcs[VMCS_ENTRY_ERROR_CODE], 0);
		return;
	}
	assert_int_equal(got,
			 VALID | HARDWARE | second | (has_error_code(second) ? ERROR_CODE : 0));
	if (has_error_code(second))
		assert_int_equal(fake_vmcs[VMCS_ENTRY_ERROR_CODE], 0x22);
	if (second == 14)
		assert_int_equal(fake_cr2, 0x5000);
}

static void test_double_faults(void **state)
{
	for (unsigned int first = 0; first < 32; first++)
		for (unsigned int second = 0; second < 32; second++)
			if (first != 2 && second != 2 && first != 20 && second != 20 &&
			    second != 18)
				check_pair(first, second);
}

/* Interrupts and software events are benign: an exception takes their place. */
static void test_benign_first(void **state)
{
	static const u32 first[] = {EXTINT | 0x0e, NMI | 2, SOFT_INT | 0x0d, ICEBP | 1,
				    SOFT_EXC | 3};

	for (unsigned int i = 0; i < ARRAY_SIZE(first); i++) {
		start();
		fake_vmcs[VMCS_IDT_VECTORING_INFO] = VALID | first[i];
		fake_vmcs[VMCS_EXIT_INTR_INFO] = VALID | HARDWARE | ERROR_CODE | 13;
		fake_vmcs[VMCS_EXIT_INTR_ERROR] = 0x103;
		exit_exception(&vcpu);
		assert_int_equal(entry(), VALID | HARDWARE | ERROR_CODE | 13);
		assert_int_equal(fake_vmcs[VMCS_ENTRY_ERROR_CODE], 0x103);
	}
}

/* INT3, INTO and INT1 that exited are put back as they were, with their length. */
static void test_software_exceptions(void **state)
{
	static const u32 infos[] = {SOFT_EXC | 3, SOFT_EXC | 4, ICEBP | 1};

	for (unsigned int i = 0; i < ARRAY_SIZE(infos); i++) {
		start();
		fake_vmcs[VMCS_EXIT_INTR_INFO] = VALID | infos[i];
		fake_vmcs[VMCS_EXIT_INSTR_LEN] = 3;
		exit_exception(&vcpu);
		assert_int_equal(entry(), VALID | infos[i]);
		assert_int_equal(fake_vmcs[VMCS_ENTRY_INSTR_LEN], 3);
	}
}

/* SDM 28.1: an exception that exits has not changed DR6 and DR7.GD; we do. */
static void test_debug_exceptions(void **state)
{
	start();
	fake_dr6 = 0xffff0ff0 | 0x2 | 0x8000; /* from before: B1 and BT, which stays (18.2.3) */
	fake_vmcs[VMCS_GUEST_DEBUGCTL] = 2;   /* BTF ends with a debug exception */
	fake_vmcs[VMCS_EXIT_INTR_INFO] = VALID | HARDWARE | 1;
	fake_vmcs[VMCS_EXIT_QUALIFICATION] = 0x4005; /* BS, B2, B0 */
	fake_vmcs[VMCS_GUEST_DR7] = 0x2400 | 1;	     /* GD */
	exit_exception(&vcpu);
	assert_int_equal(fake_dr6, 0xffff0ff0 | 0xc005);
	assert_int_equal(fake_vmcs[VMCS_GUEST_DEBUGCTL], 0);
	assert_int_equal(fake_vmcs[VMCS_GUEST_DR7], 0x0400 | 1);
	assert_int_equal(fake_vmcs[VMCS_GUEST_PENDING_DEBUG], 0);
	assert_int_equal(entry(), VALID | HARDWARE | 1);
	/* With TF in a MOV SS shadow, VM entry wants BS pending (27.3.1.5). */
	start();
	fake_vmcs[VMCS_EXIT_INTR_INFO] = VALID | HARDWARE | 1;
	fake_vmcs[VMCS_GUEST_INTERRUPTIBILITY] = 2;
	fake_vmcs[VMCS_GUEST_RFLAGS] |= RFLAGS_TF;
	exit_exception(&vcpu);
	assert_int_equal(fake_vmcs[VMCS_GUEST_PENDING_DEBUG], 0x4000);
}

/* SDM 3B 18.3.1.1: faults push RF = 1, so that a breakpoint on the instruction is not hit twice. */
static void test_resume_flag(void **state)
{
	static const u8 faults[] = {0, 5, 6, 7, 10, 11, 12, 13, 14, 16, 17, 19, 20, 21};

	for (unsigned int vector = 0; vector < 22; vector++) {
		bool fault = memchr(faults, (int)vector, sizeof(faults)) != NULL;

		start();
		vcpu_inject(&vcpu, (u8)vector);
		assert_int_equal(fake_vmcs[VMCS_GUEST_RFLAGS],
				 RFLAGS_IF | 2 | (fault ? RFLAGS_RF : 0));
	}
	/* An abort. */
	start();
	vcpu_inject(&vcpu, 13);
	fake_vmcs[VMCS_GUEST_RFLAGS] = 2;
	vcpu_inject(&vcpu, 13);
	assert_int_equal(fake_vmcs[VMCS_GUEST_RFLAGS], 2);
	assert_int_equal(entry(), VALID | HARDWARE | ERROR_CODE | 8);
}

/* The trap after an emulated instruction comes before interrupts and NMIs, which would drop it. */
static void test_debug_trap_first(void **state)
{
	static const u32 pending[] = {0x4000, 0x1001};

	for (unsigned int i = 0; i < ARRAY_SIZE(pending); i++) {
		start();
		vcpu.debug_pending = true;
		fake_vmcs[VMCS_GUEST_PENDING_DEBUG] = pending[i];
		irq_vector = 0x40;
		assert_int_equal(entry(), 0);
		assert_int_equal(vcpu.proc & IRQ_WINDOW, IRQ_WINDOW);
		vcpu.nmi_pending = true;
		assert_int_equal(entry(), 0);
		assert_int_equal(vcpu.proc & NMI_WINDOW, NMI_WINDOW);
		/* It has been delivered. */
		fake_vmcs[VMCS_GUEST_PENDING_DEBUG] = 0;
		assert_int_equal(entry(), VALID | NMI | 2);
		assert_int_equal(entry(), VALID | EXTINT | 0x40);
		assert_false(vcpu.debug_pending);
	}
	/* With virtual-interrupt delivery only ExtINT is injected. */
	start();
	vcpu.proc2 = PROC2_VIRTUAL_INTERRUPT;
	vcpu.debug_pending = true;
	fake_vmcs[VMCS_GUEST_PENDING_DEBUG] = 0x4000;
	irq_extint = true;
	assert_int_equal(entry(), 0);
	assert_int_equal(vcpu.proc & IRQ_WINDOW, IRQ_WINDOW);
	/* A breakpoint that is not enabled is noted, but is no exception. */
	start();
	vcpu.debug_pending = true;
	fake_vmcs[VMCS_GUEST_PENDING_DEBUG] = 0x0002;
	irq_vector = 0x40;
	assert_int_equal(entry(), VALID | EXTINT | 0x40);
}

/* --- events that an exit cut short ------------------------------------------------------------ */

/* An exception takes the place of an NMI that was being delivered: NMIs stay blocked until IRET. */
static void test_fault_during_nmi(void **state)
{
	start();
	fake_vmcs[VMCS_IDT_VECTORING_INFO] = VALID | NMI | 2;
	fake_vmcs[VMCS_GUEST_INTERRUPTIBILITY] = 8;
	event_collect(&vcpu);
	assert_int_equal(fake_vmcs[VMCS_GUEST_INTERRUPTIBILITY], 0);
	vcpu_inject_pf(&vcpu, gva(0x1000), 2);
	assert_int_equal(fake_vmcs[VMCS_GUEST_INTERRUPTIBILITY], 8);
	assert_int_equal(entry(), VALID | HARDWARE | ERROR_CODE | 14);
}

static void test_reinjection(void **state)
{
	static const u32 infos[] = {EXTINT | 0x33, HARDWARE | 6, SOFT_INT | 0x80, SOFT_EXC | 3,
				    ICEBP | 1};

	for (unsigned int i = 0; i < ARRAY_SIZE(infos); i++) {
		start();
		fake_vmcs[VMCS_IDT_VECTORING_INFO] =
			VALID | infos[i] | 0x1000; /* bit 12 undefined */
		fake_vmcs[VMCS_EXIT_INSTR_LEN] = 2;
		event_collect(&vcpu);
		assert_int_equal(entry(), VALID | infos[i]);
		if ((infos[i] & 0x700) >= SOFT_INT)
			assert_int_equal(fake_vmcs[VMCS_ENTRY_INSTR_LEN], 2);
	}
	start();
	fake_vmcs[VMCS_IDT_VECTORING_INFO] = VALID | HARDWARE | ERROR_CODE | 14;
	fake_vmcs[VMCS_IDT_VECTORING_ERROR] = 0x15;
	event_collect(&vcpu);
	assert_int_equal(entry(), VALID | HARDWARE | ERROR_CODE | 14);
	assert_int_equal(fake_vmcs[VMCS_ENTRY_ERROR_CODE], 0x15);
	/* An NMI whose delivery was cut short had blocked NMIs: opened, or entry would fail. */
	start();
	fake_vmcs[VMCS_IDT_VECTORING_INFO] = VALID | NMI | 2;
	fake_vmcs[VMCS_GUEST_INTERRUPTIBILITY] = 8;
	event_collect(&vcpu);
	assert_int_equal(fake_vmcs[VMCS_GUEST_INTERRUPTIBILITY], 0);
	assert_int_equal(entry(), VALID | NMI | 2);
	/* Nothing valid, nothing done. */
	start();
	fake_vmcs[VMCS_IDT_VECTORING_INFO] = HARDWARE | 6;
	event_collect(&vcpu);
	assert_int_equal(entry(), 0);
}

/* Vectoring information that only a virtual interrupt's delivery on Bochs can show. */
static void test_stale_vectoring(void **state)
{
	static const struct {
		u32 info, length, injected;
		u64 rflags, status;
		bool stale;
	} cases[] = {
		{EXTINT | 0x41, 0, 0, RFLAGS_IF, 0x4100, false},
		{EXTINT | 0x31, 0, 0, RFLAGS_IF, 0x4100, true},
		{EXTINT | 0x31, 0, EXTINT | 0x31, RFLAGS_IF, 0x4100, false}, /* 8259 */
		{EXTINT | 0, 0, 0, RFLAGS_IF, 0x4100, true},		     /* no event before */
		{SOFT_INT | 0x80, 2, 0, RFLAGS_IF, 0x4100, false},
		{SOFT_INT | 0x80, 0, 0, RFLAGS_IF, 0x4100, true},
		{SOFT_EXC | 3, 1, 0, RFLAGS_IF, 0x4100, false},
		{SOFT_EXC | 3, 0, 0, RFLAGS_IF, 0x4100, true},
		{ICEBP | 1, 1, 0, RFLAGS_IF, 0x4100, false},
		{ICEBP | 1, 0, 0, RFLAGS_IF, 0x4100, true},
		{NMI | 2, 0, NMI | 2, RFLAGS_IF, 0x4100, false},
		{NMI | 2, 0, 0, RFLAGS_IF, 0x4100, true},
		{HARDWARE | ERROR_CODE | 14, 0, 0, RFLAGS_IF | RFLAGS_RF, 0x4100, false},
		{HARDWARE | ERROR_CODE | 14, 0, 0, RFLAGS_IF, 0x4100, true},
		{HARDWARE | ERROR_CODE | 14, 0, HARDWARE | ERROR_CODE | 14, RFLAGS_IF, 0x4100,
		 false},
		{HARDWARE | 1, 0, 0, RFLAGS_IF, 0x4100, false}, /* a trap has RF clear */
		{HARDWARE | 6, 0, 0, RFLAGS_IF, 0x0041, false}, /* none in service */
		{HARDWARE | 6, 0, 0, 0, 0x4100, false},		/* interrupts are closed */
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		start();
		vcpu.proc2 = PROC2_VIRTUAL_INTERRUPT;
		fake_vmcs[VMCS_EXIT_REASON] = EXIT_EPT_VIOLATION;
		fake_vmcs[VMCS_IDT_VECTORING_INFO] = VALID | cases[i].info;
		fake_vmcs[VMCS_EXIT_INSTR_LEN] = cases[i].length;
		fake_vmcs[VMCS_ENTRY_INTR_INFO] = cases[i].injected;
		fake_vmcs[VMCS_GUEST_RFLAGS] = cases[i].rflags | 2;
		fake_vmcs[VMCS_GUEST_INTERRUPT_STATUS] = cases[i].status;
		event_collect(&vcpu);
		assert_int_equal(entry(), VALID | (cases[i].stale ? EXTINT | 0x41 : cases[i].info));
	}
	/* No other exit says so, and not without virtual-interrupt delivery. */
	for (unsigned int i = 0; i < 2; i++) {
		start();
		vcpu.proc2 = i ? PROC2_VIRTUAL_INTERRUPT : 0;
		fake_vmcs[VMCS_EXIT_REASON] = i ? EXIT_TASK_SWITCH : EXIT_EPT_VIOLATION;
		fake_vmcs[VMCS_IDT_VECTORING_INFO] = VALID | SOFT_INT | 0x80;
		fake_vmcs[VMCS_GUEST_INTERRUPT_STATUS] = 0x4100;
		event_collect(&vcpu);
		assert_int_equal(entry(), VALID | SOFT_INT | 0x80);
	}
	/* Nobody delivers an interrupt to closed ears. */
	start();
	vcpu.proc2 = PROC2_VIRTUAL_INTERRUPT;
	fake_vmcs[VMCS_EXIT_REASON] = EXIT_EPT_VIOLATION;
	fake_vmcs[VMCS_IDT_VECTORING_INFO] = VALID | EXTINT | 0x41;
	fake_vmcs[VMCS_GUEST_RFLAGS] = 2;
	event_collect(&vcpu);
	assert_int_equal(entry(), 0);
}

/* IRET had opened NMIs when the access that exits faulted (28.2.3). */
static void test_nmi_unblocked_by_iret(void **state)
{
	start();
	fake_vmcs[VMCS_EXIT_INTR_INFO] = VALID | HARDWARE | ERROR_CODE | 0x1000 | 14;
	exit_exception(&vcpu);
	assert_int_equal(fake_vmcs[VMCS_GUEST_INTERRUPTIBILITY], 8);
	start();
	fake_vmcs[VMCS_EXIT_INTR_INFO] = VALID | HARDWARE | ERROR_CODE | 14;
	exit_exception(&vcpu);
	assert_int_equal(fake_vmcs[VMCS_GUEST_INTERRUPTIBILITY], 0);
	/* Undefined for #DF and while an event was being delivered. */
	start();
	fake_vmcs[VMCS_EXIT_INTR_INFO] = VALID | HARDWARE | ERROR_CODE | 0x1000 | 8;
	exit_exception(&vcpu);
	assert_int_equal(fake_vmcs[VMCS_GUEST_INTERRUPTIBILITY], 0);
	start();
	fake_vmcs[VMCS_EXIT_INTR_INFO] = VALID | HARDWARE | ERROR_CODE | 0x1000 | 14;
	fake_vmcs[VMCS_IDT_VECTORING_INFO] = VALID | EXTINT | 0x40;
	exit_exception(&vcpu);
	assert_int_equal(fake_vmcs[VMCS_GUEST_INTERRUPTIBILITY], 0);
}

/* --- NMIs and interrupts ---------------------------------------------------------------------- */

static void test_nmi(void **state)
{
	static const u8 blocking[] = {2, 8, 8 | 2};

	start();
	vcpu.nmi_pending = true;
	assert_int_equal(entry(), VALID | NMI | 2);
	assert_false(vcpu.nmi_pending);
	assert_int_equal(vcpu.proc & NMI_WINDOW, 0);
	/* Blocked: a window exit is asked for, and given up when it has opened. */
	for (unsigned int i = 0; i < sizeof(blocking); i++) {
		start();
		vcpu.nmi_pending = true;
		fake_vmcs[VMCS_GUEST_INTERRUPTIBILITY] = blocking[i];
		assert_int_equal(entry(), 0);
		assert_int_equal(vcpu.proc & NMI_WINDOW, NMI_WINDOW);
		fake_vmcs[VMCS_GUEST_INTERRUPTIBILITY] = 0;
		assert_int_equal(entry(), VALID | NMI | 2);
		assert_int_equal(vcpu.proc & NMI_WINDOW, 0);
	}
	/* In an STI shadow an NMI may be refused by VM entry: it waits for the shadow's end. */
	start();
	vcpu.nmi_pending = true;
	fake_vmcs[VMCS_GUEST_INTERRUPTIBILITY] = 1;
	assert_int_equal(entry(), 0);
	assert_true(vcpu.nmi_pending);
	assert_int_equal(vcpu.proc & (IRQ_WINDOW | NMI_WINDOW), IRQ_WINDOW);
	fake_vmcs[VMCS_GUEST_INTERRUPTIBILITY] = 0;
	assert_int_equal(entry(), VALID | NMI | 2);
	assert_int_equal(vcpu.proc & (IRQ_WINDOW | NMI_WINDOW), 0);
	/* An exception goes first. */
	start();
	vcpu.nmi_pending = true;
	vcpu_inject(&vcpu, 6);
	assert_int_equal(entry(), VALID | HARDWARE | 6);
	assert_int_equal(vcpu.proc & NMI_WINDOW, NMI_WINDOW);
	assert_int_equal(entry(), VALID | NMI | 2);
	assert_int_equal(entry(), 0);
}

static void test_interrupts(void **state)
{
	static const struct {
		u64 rflags, shadow;
		bool open;
	} cases[] = {
		{RFLAGS_IF, 0, true},  {0, 0, false},	     {RFLAGS_IF, 1, false},
		{RFLAGS_IF, 2, false}, {RFLAGS_IF, 8, true}, /* NMI blocking blocks NMIs only */
		{0, 1, false},
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		start();
		irq_vector = 0x51;
		fake_vmcs[VMCS_GUEST_RFLAGS] = cases[i].rflags | 2;
		fake_vmcs[VMCS_GUEST_INTERRUPTIBILITY] = cases[i].shadow;
		assert_int_equal(entry(), cases[i].open ? VALID | EXTINT | 0x51 : 0);
		assert_int_equal(irq_accepted, cases[i].open);
		assert_int_equal(vcpu.proc & IRQ_WINDOW, cases[i].open ? 0 : IRQ_WINDOW);
		/* Once it is open, delivered and the window shut. */
		fake_vmcs[VMCS_GUEST_RFLAGS] = RFLAGS_IF | 2;
		fake_vmcs[VMCS_GUEST_INTERRUPTIBILITY] = 0;
		assert_int_equal(entry(), cases[i].open ? 0 : VALID | EXTINT | 0x51);
		assert_int_equal(vcpu.proc & IRQ_WINDOW, 0);
	}
	/* Everything at once: exception, NMI, interrupt, in this order, one per entry. */
	start();
	vcpu_inject(&vcpu, 6);
	vcpu.nmi_pending = true;
	irq_vector = 0x60;
	assert_int_equal(entry(), VALID | HARDWARE | 6);
	assert_int_equal(vcpu.proc & (IRQ_WINDOW | NMI_WINDOW), IRQ_WINDOW | NMI_WINDOW);
	assert_int_equal(irq_accepted, 0);
	assert_int_equal(entry(), VALID | NMI | 2);
	assert_int_equal(irq_accepted, 0);
	assert_int_equal(entry(), VALID | EXTINT | 0x60);
	assert_int_equal(vcpu.proc & (IRQ_WINDOW | NMI_WINDOW), 0);
	assert_int_equal(vcpu.injections, 3);
}

/* Requests may come, and events with them, after one was prepared and before the entry. */
static void test_entry_put_off(void **state)
{
	start();
	vcpu_inject(&vcpu, 6);
	event_deliver(&vcpu);
	vcpu.nmi_pending = true;
	irq_vector = 0x51;
	event_deliver(&vcpu);
	event_deliver(&vcpu);
	assert_int_equal(irq_accepted, 0);
	assert_int_equal(vcpu.proc & (IRQ_WINDOW | NMI_WINDOW), IRQ_WINDOW | NMI_WINDOW);
	assert_int_equal(entry(), VALID | HARDWARE | 6);
	assert_int_equal(entry(), VALID | NMI | 2);
	event_deliver(&vcpu);
	irq_vector = 0x61;
	assert_int_equal(entry(), VALID | EXTINT | 0x51);
	assert_int_equal(entry(), VALID | EXTINT | 0x61);
	assert_int_equal(entry(), 0);
	/* With virtual-interrupt delivery too. */
	start();
	vcpu.proc2 = PROC2_VIRTUAL_INTERRUPT;
	vcpu_inject(&vcpu, 6);
	event_deliver(&vcpu);
	irq_extint = true;
	irq_raised = 0x51;
	assert_int_equal(entry(), VALID | HARDWARE | 6);
	assert_int_equal(fake_vmcs[VMCS_GUEST_INTERRUPT_STATUS], 0x51);
	assert_int_equal(entry(), VALID | EXTINT | 0x08);
}

static void test_tpr_threshold(void **state)
{
	start();
	vapic[0x80] = 0x60; /* TPR class 6 masks vector 0x45 */
	irr_highest = 0x45;
	entry();
	assert_int_equal(fake_vmcs[VMCS_TPR_THRESHOLD], 4);
	/* What an interrupt in service masks, not TPR: no threshold above TPR (27.2.1.1). */
	vapic[0x80] = 0x20;
	entry();
	assert_int_equal(fake_vmcs[VMCS_TPR_THRESHOLD], 2);
	irr_highest = 0;
	entry();
	assert_int_equal(fake_vmcs[VMCS_TPR_THRESHOLD], 0);
	/* One that TPR lets through waits for a window; after it, the rest is masked. */
	vapic[0x80] = 0x60;
	irr_highest = irq_vector = 0x71;
	fake_vmcs[VMCS_GUEST_RFLAGS] = 2;
	assert_int_equal(entry(), 0);
	assert_int_equal(fake_vmcs[VMCS_TPR_THRESHOLD], 0);
	assert_int_equal(vcpu.proc & IRQ_WINDOW, IRQ_WINDOW);
	irr_highest = 0x45;
	fake_vmcs[VMCS_GUEST_RFLAGS] |= RFLAGS_IF;
	assert_int_equal(entry(), VALID | EXTINT | 0x71);
	assert_int_equal(fake_vmcs[VMCS_TPR_THRESHOLD], 4);
	assert_int_equal(vcpu.proc & IRQ_WINDOW, 0);
	/* Another one at once. */
	irq_vector = 0x72;
	irq_more = true;
	assert_int_equal(entry(), VALID | EXTINT | 0x72);
	assert_int_equal(vcpu.proc & IRQ_WINDOW, IRQ_WINDOW);
}

static void test_virtual_interrupt_delivery(void **state)
{
	start();
	vcpu.proc2 = PROC2_VIRTUAL_INTERRUPT;
	irq_vector = 0x71;
	irr_highest = 0x71;
	isr_highest = 0x30;
	irq_raised = -1;	      /* both afresh */
	assert_int_equal(entry(), 0); /* the processor delivers it */
	assert_int_equal(fake_vmcs[VMCS_GUEST_INTERRUPT_STATUS], 0x3071);
	assert_int_equal(irq_accepted, 0);
	/* What arrives raises RVI, and nothing else touches what the processor has made of it. */
	irr_highest = isr_highest = 0xff;
	fake_vmcs[VMCS_GUEST_INTERRUPT_STATUS] = 0x4100;
	entry();
	assert_int_equal(fake_vmcs[VMCS_GUEST_INTERRUPT_STATUS], 0x4100);
	irq_raised = 0x52;
	entry();
	assert_int_equal(fake_vmcs[VMCS_GUEST_INTERRUPT_STATUS], 0x4152);
	irq_raised = 0x51; /* never lowers it */
	entry();
	assert_int_equal(fake_vmcs[VMCS_GUEST_INTERRUPT_STATUS], 0x4152);
	irr_highest = isr_highest = 0;
	irq_raised = -1;
	entry();
	assert_int_equal(fake_vmcs[VMCS_GUEST_INTERRUPT_STATUS], 0);
	assert_int_equal(irq_accepted, 0);
	assert_int_equal(vcpu.proc & IRQ_WINDOW, 0);
	assert_int_equal(fake_vmcs[VMCS_TPR_THRESHOLD], 0);
	/* But never the 8259's. */
	irq_extint = true;
	fake_vmcs[VMCS_GUEST_RFLAGS] = 2;
	assert_int_equal(entry(), 0);
	assert_int_equal(vcpu.proc & IRQ_WINDOW, IRQ_WINDOW);
	fake_vmcs[VMCS_GUEST_RFLAGS] = RFLAGS_IF | 2;
	assert_int_equal(entry(), VALID | EXTINT | 0x08);
	assert_int_equal(vcpu.proc & IRQ_WINDOW, 0);
	/* Nor in place of an exception. */
	irq_extint = true;
	vcpu_inject(&vcpu, 6);
	assert_int_equal(entry(), VALID | HARDWARE | 6);
	assert_int_equal(vcpu.proc & IRQ_WINDOW, IRQ_WINDOW);
	assert_int_equal(entry(), VALID | EXTINT | 0x08);
	assert_int_equal(irq_accepted, 0);
}

static void test_wake(void **state)
{
	start();
	assert_false(event_would_wake(&vcpu));
	irq_vector = 0x40;
	assert_false(event_would_wake(&vcpu)); /* HLT with IF = 0 */
	vcpu.wake_on_irq = true;
	assert_true(event_would_wake(&vcpu));
	irq_vector = -1;
	assert_false(event_would_wake(&vcpu));
	vcpu.nmi_pending = true;
	assert_false(event_would_wake(&vcpu)); /* HLT in an NMI handler */
	vcpu.wake_on_nmi = true;
	assert_true(event_would_wake(&vcpu));
	start();
	vcpu_inject(&vcpu, 3);
	assert_true(event_would_wake(&vcpu));
	start();
	vcpu_post_nmi(&vcpu);
	vcpu_post_init(&vcpu);
	vcpu_post_sipi(&vcpu, 0x9a);
	vcpu_post_sipi(&vcpu, 0x55); /* one too many */
	assert_int_equal(vcpu.requests, REQ_NMI | REQ_INIT | REQ_SIPI);
	assert_int_equal(vcpu.sipi_vector, 0x9a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_error_codes),
		cmocka_unit_test(test_double_faults),
		cmocka_unit_test(test_benign_first),
		cmocka_unit_test(test_software_exceptions),
		cmocka_unit_test(test_debug_exceptions),
		cmocka_unit_test(test_resume_flag),
		cmocka_unit_test(test_debug_trap_first),
		cmocka_unit_test(test_reinjection),
		cmocka_unit_test(test_stale_vectoring),
		cmocka_unit_test(test_fault_during_nmi),
		cmocka_unit_test(test_nmi_unblocked_by_iret),
		cmocka_unit_test(test_nmi),
		cmocka_unit_test(test_interrupts),
		cmocka_unit_test(test_entry_put_off),
		cmocka_unit_test(test_tpr_threshold),
		cmocka_unit_test(test_virtual_interrupt_delivery),
		cmocka_unit_test(test_wake),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
