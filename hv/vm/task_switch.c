/*
 * Task switches. Hardware task switching always exits (SDM 3C 26.4.2); this does what the processor
 * would have done: SDM 3A 8.3 (steps), table 8-1 (checks and their exceptions), table 8-2 (busy
 * flag, NT, link), figures 8-2 and 8-10 (TSS formats).
 *
 * Before the commit everything that may fault is looked up and translated, and a fault leaves the
 * old task as it was. After it a fault belongs to the new task, as in hardware.
 */
#include "lib/string.h"
#include "vm/away.h"
#include "vm/internal.h"
#include "vm/linear.h"
#include "x86/asm.h"
#include "x86/regs.h"

/* Exit qualification (SDM table 28-2). */
enum source {
	BY_CALL,
	BY_IRET,
	BY_JMP,
	BY_GATE
};

/* Segment registers in the order of the VMCS and of the TSS. */
enum segment {
	SEG_ES,
	SEG_CS,
	SEG_SS,
	SEG_DS,
	SEG_FS,
	SEG_GS,
	SEG_COUNT
};

/* Access rights, as in the VMCS (SDM table 25-2); bits 15:0 are a descriptor's bits 55:40. */
#define AR_TYPE	    0xfu
#define AR_ACCESSED BIT(0)
#define AR_READABLE BIT(1) /* code; data: writable */
#define AR_WRITABLE BIT(1)
#define AR_DOWN	    BIT(2) /* data: expand-down; code: conforming */
#define AR_CONFORM  BIT(2)
#define AR_CODE	    BIT(3)
#define AR_S	    BIT(4) /* code or data */
#define AR_DPL(ar)  ((ar) >> 5 & 3)
#define AR_P	    BIT(7)
#define AR_BIG	    BIT(14)
#define AR_UNUSABLE BIT(16)
#define AR_MASK	    0xf0ffu

#define TYPE_LDT      2u
#define TYPE_TSS_BUSY BIT(1)
#define TYPE_TSS_32   BIT(3)
#define AR_VM86	      0xf3u

#define SELECTOR_LDT   BIT(2)
#define SELECTOR_INDEX 0xfff8u
#define SELECTOR_ERROR 0xfffcu

#define EFLAGS_LOADABLE 0x3f7fd5ull
#define DR7_LOCAL	0x155ull /* L0 to L3, LE */
#define DR6_BT		BIT64(15)

/* What of a TSS a switch touches: all that is read, and the part that is written. */
struct layout {
	u32 size;
	u32 save_from, save_to;
};
static const struct layout layout_32 = {0x68, 0x20, 0x60};
static const struct layout layout_16 = {0x2c, 0x0e, 0x2a};
#define TSS_MAX 0x68

/* The contents of a TSS, whichever its format. */
struct task {
	u32 cr3, eip, eflags;
	u32 gpr[8];
	u16 selector[SEG_COUNT];
	u16 ldt;
	bool trap;
};

struct descriptor {
	u16 selector;
	gva_t at;
	u32 base, limit, ar;
};

struct task_switch {
	struct vcpu *vcpu;
	struct walk_state state;
	enum source source;
	struct event event; /* whose delivery caused the switch; info 0: none */
	u32 external;	    /* EXT bit of error codes (SDM 3A 6.13) */
	struct guest_fault fault;

	bool old_wide, wide; /* 32-bit TSS */
	u16 old_selector;
	struct descriptor tss;
	struct guest_range old_save, new_all, old_busy, new_busy, new_link;
	u8 old_busy_byte;
	u8 cpl; /* of the new task */
};

static int fault(struct task_switch *s, u8 vector, u16 selector)
{
	s->fault = (struct guest_fault){
		.vector = vector,
		.has_error = true,
		.error_code = (selector & SELECTOR_ERROR) | s->external,
	};
	return WALK_FAULT;
}

/* --- TSS formats
 * ------------------------------------------------------------------------------------ */

static u32 get(const u8 *tss, u32 offset, u32 bytes)
{
	u32 value = 0;

	memcpy(&value, tss + offset, bytes);
	return value;
}

static void put(u8 *tss, u32 offset, u32 value, u32 bytes)
{
	memcpy(tss + offset, &value, bytes);
}

/* The fields that are saved, from EIP to GS: 4 bytes apart in a 32-bit TSS, else 2. */
static void encode_task(u8 *tss, const struct task *task, bool wide)
{
	u32 step = wide ? 4 : 2;
	u32 at = wide ? layout_32.save_from : layout_16.save_from;

	put(tss, at, task->eip, step);
	put(tss, at += step, task->eflags, step);
	for (u32 i = 0; i < 8; i++)
		put(tss, at += step, task->gpr[i], step);
	for (u32 i = 0; i < (wide ? SEG_COUNT : SEG_FS); i++)
		put(tss, at += step, task->selector[i], 2);
}

static void decode_task(const u8 *tss, struct task *task, bool wide)
{
	u32 step = wide ? 4 : 2;
	u32 at = wide ? layout_32.save_from : layout_16.save_from;

	memset(task, 0, sizeof(*task));
	task->eip = get(tss, at, step);
	task->eflags = get(tss, at += step, step);
	for (u32 i = 0; i < 8; i++)
		task->gpr[i] = get(tss, at += step, step);
	for (u32 i = 0; i < (wide ? SEG_COUNT : SEG_FS); i++)
		task->selector[i] = (u16)get(tss, at += step, 2);
	task->ldt = (u16)get(tss, wide ? 0x60 : 0x2a, 2);
	if (wide) {
		task->cr3 = get(tss, 0x1c, 4);
		task->trap = tss[0x64] & 1;
	}
}

/* --- descriptors
 * ------------------------------------------------------------------------------------- */

static u32 scaled_limit(u32 low, u32 high)
{
	u32 limit = (low & 0xffff) | (high & 0xf0000);

	return high & BIT(23) ? limit << 12 | 0xfff : limit;
}

/* Reads the descriptor of a selector; `vector` if the selector is null or beyond its table. */
static int read_descriptor(struct task_switch *s, u16 selector, u8 vector, struct descriptor *out)
{
	u64 base = vmcs_read(VMCS_GUEST_GDTR_BASE);
	u32 limit = (u32)vmcs_read(VMCS_GUEST_GDTR_LIMIT);
	u32 words[2];
	int result;

	if (selector & SELECTOR_LDT) {
		if (vmcs_read(VMCS_GUEST_LDTR_AR) & AR_UNUSABLE)
			return fault(s, vector, selector);
		base = vmcs_read(VMCS_GUEST_LDTR_BASE);
		limit = (u32)vmcs_read(VMCS_GUEST_LDTR_LIMIT);
	}
	if (!(selector & SELECTOR_ERROR) || (selector & SELECTOR_INDEX) + 7u > limit)
		return fault(s, vector, selector);
	out->selector = selector;
	out->at = gva(base + (selector & SELECTOR_INDEX));
	result =
		guest_linear_read(s->vcpu, out->at, words, sizeof(words), WALK_IMPLICIT, &s->fault);
	if (result)
		return result;
	out->base = words[0] >> 16 | (words[1] & 0xff) << 16 | (words[1] & 0xff000000);
	out->limit = scaled_limit(words[0], words[1]);
	out->ar = words[1] >> 8 & AR_MASK;
	return WALK_OK;
}

static void set_segment(enum segment seg, u16 selector, u64 base, u32 limit, u32 ar)
{
	vmcs_write(VMCS_GUEST_ES + 2 * seg, selector);
	vmcs_write(VMCS_GUEST_ES_BASE + 2 * seg, base);
	vmcs_write(VMCS_GUEST_ES_LIMIT + 2 * seg, limit);
	vmcs_write(VMCS_GUEST_ES_AR + 2 * seg, ar);
}

/* --- before the commit ---------------------------------------------------------------------------
 */

static int check_new_tss(struct task_switch *s, u16 selector)
{
	/* IRET came by a link in the TSS: a bad one makes the TSS invalid (SDM table 8-1). */
	u8 bad = s->source == BY_IRET ? VEC_TS : VEC_GP;
	bool busy;
	int result;

	if (selector & SELECTOR_LDT)
		return fault(s, bad, selector);
	result = read_descriptor(s, selector, bad, &s->tss);
	if (result)
		return result;
	/* Types 1, 3, 9 and 11 (SDM table 3-2). */
	if ((s->tss.ar & (AR_S | BIT(2) | BIT(0))) != BIT(0))
		return fault(s, bad, selector);
	busy = s->tss.ar & TYPE_TSS_BUSY;
	if (busy != (s->source == BY_IRET))
		return fault(s, bad, selector);
	if (!(s->tss.ar & AR_P))
		return fault(s, VEC_NP, selector);
	s->wide = s->tss.ar & TYPE_TSS_32;
	if (s->tss.limit < (s->wide ? layout_32.size : layout_16.size) - 1)
		return fault(s, VEC_TS, selector);
	return WALK_OK;
}

static int translate(struct task_switch *s, u64 at, u32 bytes, unsigned int access,
		     struct guest_range *out)
{
	return guest_range_walk(s->vcpu, &s->state, gva(at), bytes, access | WALK_IMPLICIT, out,
				&s->fault);
}

/* Step 5 of SDM 8.3: everything the switch touches is there. */
static int translate_all(struct task_switch *s)
{
	const struct layout *old = s->old_wide ? &layout_32 : &layout_16;
	u64 old_base = vmcs_read(VMCS_GUEST_TR_BASE);
	u64 old_descriptor = vmcs_read(VMCS_GUEST_GDTR_BASE) + (s->old_selector & SELECTOR_INDEX);
	int result;

	if (vmcs_read(VMCS_GUEST_TR_LIMIT) < old->save_to - 1)
		return fault(s, VEC_TS, s->old_selector);
	result = translate(s, old_base + old->save_from, old->save_to - old->save_from,
			   WALK_READ | WALK_WRITE, &s->old_save);
	if (!result)
		result = translate(s, s->tss.base, s->wide ? layout_32.size : layout_16.size,
				   WALK_READ, &s->new_all);
	if (!result && (s->source == BY_CALL || s->source == BY_GATE))
		result = translate(s, s->tss.base, 2, WALK_WRITE, &s->new_link);
	if (!result && (s->source == BY_JMP || s->source == BY_IRET))
		result = translate(s, old_descriptor + 5, 1, WALK_READ | WALK_WRITE, &s->old_busy);
	if (!result && s->source != BY_IRET)
		result = translate(s, s->tss.at.v + 5, 1, WALK_WRITE, &s->new_busy);
	return result;
}

/* --- the commit: nothing here can fail
 * ---------------------------------------------------------------- */

/* The instruction that switched (or INT n, INT3, INTO, INT1) is complete; other events are not. */
static u32 saved_eip(const struct task_switch *s)
{
	u32 eip = (u32)vmcs_read(VMCS_GUEST_RIP);

	if (s->source != BY_GATE || !s->event.info)
		return eip + (u32)vmcs_read(VMCS_EXIT_INSTR_LEN);
	return eip + s->event.instr_len;
}

static void save_old_task(struct task_switch *s)
{
	u32 from = s->old_wide ? layout_32.save_from : layout_16.save_from;
	struct task old = {.eip = saved_eip(s), .eflags = (u32)s->state.rflags};
	u8 tss[TSS_MAX];

	if (s->source == BY_IRET)
		old.eflags &= ~(u32)RFLAGS_NT;
	if (s->source != BY_GATE)
		old.eflags &= ~(u32)RFLAGS_RF;
	for (u32 i = 0; i < 8; i++)
		old.gpr[i] = (u32)s->vcpu->gpr[i];
	old.gpr[RSP] = (u32)vmcs_read(VMCS_GUEST_RSP);
	for (u32 i = 0; i < SEG_COUNT; i++)
		old.selector[i] = (u16)vmcs_read(VMCS_GUEST_ES + 2 * i);
	/* Upper halves of selector fields are reserved and stay as they are. */
	guest_range_read(s->vcpu, &s->old_save, tss + from);
	encode_task(tss, &old, s->old_wide);
	guest_range_write(s->vcpu, &s->old_save, tss + from);
}

static void set_busy_flags(struct task_switch *s)
{
	u8 byte;

	if (s->source == BY_JMP || s->source == BY_IRET) {
		guest_range_read(s->vcpu, &s->old_busy, &byte);
		byte &= (u8)~TYPE_TSS_BUSY;
		guest_range_write(s->vcpu, &s->old_busy, &byte);
	}
	if (s->source != BY_IRET) {
		byte = (u8)(s->tss.ar | TYPE_TSS_BUSY);
		guest_range_write(s->vcpu, &s->new_busy, &byte);
	}
	if (s->source == BY_CALL || s->source == BY_GATE)
		guest_range_write(s->vcpu, &s->new_link, &s->old_selector);
}

/*
 * Selectors come before descriptors (SDM 8.3, steps 12 and 13): until a descriptor is loaded its
 * register is unusable. CS cannot be for VM entry, nor can SS lack a DPL (27.3.1.2): if a load
 * faults, the exception is delivered from a flat CS.
 */
static void load_selectors(struct task_switch *s, const struct task *task)
{
	bool vm86 = task->eflags & RFLAGS_VM;

	s->cpl = vm86 ? 3 : task->selector[SEG_CS] & 3;
	for (u32 i = 0; i < SEG_COUNT; i++) {
		u16 selector = task->selector[i];
		u32 dpl = (u32)s->cpl << 5;

		if (vm86)
			set_segment(i, selector, (u64)selector << 4, 0xffff, AR_VM86);
		else if (i == SEG_CS)
			set_segment(i, selector, 0, 0xffffffff, 0xc09b | dpl);
		else
			set_segment(i, selector, 0, 0, AR_UNUSABLE | dpl);
	}
	vmcs_write(VMCS_GUEST_LDTR, task->ldt);
	vmcs_write(VMCS_GUEST_LDTR_AR, AR_UNUSABLE);
}

static void load_registers(struct task_switch *s, const struct task *task)
{
	u64 cr0 = vmcs_read(VMCS_GUEST_CR0);
	u64 eflags = (task->eflags & EFLAGS_LOADABLE) | RFLAGS_FIXED;

	if (s->source == BY_CALL || s->source == BY_GATE)
		eflags |= RFLAGS_NT;
	for (u32 i = 0; i < 8; i++)
		s->vcpu->gpr[i] = task->gpr[i];
	vmcs_write(VMCS_GUEST_RSP, task->gpr[RSP]);
	vmcs_write(VMCS_GUEST_RIP, task->eip);
	vmcs_write(VMCS_GUEST_RFLAGS, eflags);
	vmcs_write(VMCS_GUEST_CR0, cr0 | CR0_TS);
	vmcs_write(VMCS_CR0_SHADOW, vmcs_read(VMCS_CR0_SHADOW) | CR0_TS);
	vmcs_write(VMCS_GUEST_DR7, vmcs_read(VMCS_GUEST_DR7) & ~DR7_LOCAL);
	vmcs_write(VMCS_GUEST_TR, s->tss.selector);
	vmcs_write(VMCS_GUEST_TR_BASE, s->tss.base);
	vmcs_write(VMCS_GUEST_TR_LIMIT, s->tss.limit);
	vmcs_write(VMCS_GUEST_TR_AR, s->tss.ar | TYPE_TSS_BUSY);
}

static void set_interruptibility(struct task_switch *s)
{
	u64 state = vmcs_read(VMCS_GUEST_INTERRUPTIBILITY);

	state &= ~(u64)(INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS);
	if (s->source == BY_IRET)
		state &= ~(u64)INTERRUPTIBILITY_NMI;
	if (s->event.info && (s->event.info & INTR_INFO_TYPE) == INTR_TYPE_NMI)
		state |= INTERRUPTIBILITY_NMI;
	vmcs_write(VMCS_GUEST_INTERRUPTIBILITY, state);
	/* What the shadow or the NMI held back may be delivered now. */
	vcpu_request(s->vcpu, REQ_IRQ);
}

static void commit(struct task_switch *s, struct task *task)
{
	u8 tss[TSS_MAX];

	save_old_task(s);
	set_busy_flags(s);
	guest_range_read(s->vcpu, &s->new_all, tss);
	decode_task(tss, task, s->wide);
	load_registers(s, task);
	load_selectors(s, task);
	set_interruptibility(s);
}

/* --- in the new task -----------------------------------------------------------------------------
 */

/* CR3 of a 32-bit TSS, if paging is on. */
static int load_cr3(struct task_switch *s, const struct task *task)
{
	if (!s->wide || !(s->state.cr0 & CR0_PG))
		return WALK_OK;
	if ((s->state.cr4 & CR4_PAE) && !vcpu_load_pdptes(s->vcpu, task->cr3)) {
		s->fault = (struct guest_fault){.vector = VEC_GP, .has_error = true};
		return WALK_FAULT;
	}
	vmcs_write(VMCS_GUEST_CR3, task->cr3);
	vmx_invvpid_single((u16)vmcs_read(VMCS_VPID));
	return WALK_OK;
}

static int load_ldt(struct task_switch *s, u16 selector)
{
	struct descriptor d;
	int result;

	if (!(selector & SELECTOR_ERROR))
		return WALK_OK;
	if (selector & SELECTOR_LDT)
		return fault(s, VEC_TS, selector);
	result = read_descriptor(s, selector, VEC_TS, &d);
	if (result)
		return result;
	if ((d.ar & (AR_S | AR_TYPE)) != TYPE_LDT || !(d.ar & AR_P))
		return fault(s, VEC_TS, selector);
	vmcs_write(VMCS_GUEST_LDTR_BASE, d.base);
	vmcs_write(VMCS_GUEST_LDTR_LIMIT, d.limit);
	vmcs_write(VMCS_GUEST_LDTR_AR, d.ar);
	return WALK_OK;
}

static bool code_allowed(const struct task_switch *s, const struct descriptor *d)
{
	if ((d->ar & (AR_S | AR_CODE)) != (AR_S | AR_CODE))
		return false;
	return d->ar & AR_CONFORM ? AR_DPL(d->ar) <= s->cpl : AR_DPL(d->ar) == s->cpl;
}

static bool stack_allowed(const struct task_switch *s, const struct descriptor *d)
{
	return (d->ar & (AR_S | AR_CODE | AR_WRITABLE)) == (AR_S | AR_WRITABLE) &&
	       (d->selector & 3) == s->cpl && AR_DPL(d->ar) == s->cpl;
}

static bool data_allowed(const struct task_switch *s, const struct descriptor *d)
{
	if (!(d->ar & AR_S) || (d->ar & (AR_CODE | AR_READABLE)) == AR_CODE)
		return false;
	if ((d->ar & (AR_CODE | AR_CONFORM)) == (AR_CODE | AR_CONFORM))
		return true;
	return AR_DPL(d->ar) >= s->cpl && AR_DPL(d->ar) >= (d->selector & 3u);
}

static int load_segment(struct task_switch *s, enum segment seg, u16 selector)
{
	static const u8 not_present[] = {VEC_NP, VEC_NP, VEC_SS, VEC_NP, VEC_NP, VEC_NP};
	struct descriptor d;
	bool allowed;
	int result;

	if (!(selector & SELECTOR_ERROR) && seg != SEG_CS && seg != SEG_SS)
		return WALK_OK;
	result = read_descriptor(s, selector, VEC_TS, &d);
	if (result)
		return result;
	if (seg == SEG_CS)
		allowed = code_allowed(s, &d);
	else
		allowed = seg == SEG_SS ? stack_allowed(s, &d) : data_allowed(s, &d);
	if (!allowed)
		return fault(s, VEC_TS, selector);
	if (!(d.ar & AR_P))
		return fault(s, not_present[seg], selector);
	if (!(d.ar & AR_ACCESSED)) {
		u8 byte = (u8)(d.ar | AR_ACCESSED);

		result = guest_linear_write(s->vcpu, gva_add(d.at, 5), &byte, 1, WALK_IMPLICIT,
					    &s->fault);
		if (result)
			return result;
	}
	set_segment(seg, selector, d.base, d.limit, d.ar | AR_ACCESSED);
	return WALK_OK;
}

static int load_segments(struct task_switch *s, const struct task *task)
{
	static const enum segment order[] = {SEG_CS, SEG_SS, SEG_DS, SEG_ES, SEG_FS, SEG_GS};
	int result = load_ldt(s, task->ldt);

	if (task->eflags & RFLAGS_VM)
		return result;
	for (u32 i = 0; i < ARRAY_SIZE(order) && !result; i++)
		result = load_segment(s, order[i], task->selector[order[i]]);
	return result;
}

/* Pushes the exception's error code on the new task's stack. */
static int push_error_code(struct task_switch *s)
{
	u32 bytes = s->wide ? 4 : 2;
	u32 ar = (u32)vmcs_read(VMCS_GUEST_SS_AR);
	u32 limit = (u32)vmcs_read(VMCS_GUEST_SS_LIMIT);
	u64 mask = ar & AR_BIG ? 0xffffffff : 0xffff;
	u64 rsp = vmcs_read(VMCS_GUEST_RSP);
	u64 to = (rsp - bytes) & mask;
	u64 last = to + bytes - 1;
	int result;

	if (ar & AR_DOWN ? to <= limit || last > mask : last > limit)
		return fault(s, VEC_SS, 0);
	result = guest_linear_write(s->vcpu, gva(vmcs_read(VMCS_GUEST_SS_BASE) + to),
				    &s->event.error_code, bytes, 0, &s->fault);
	if (!result)
		vmcs_write(VMCS_GUEST_RSP, (rsp & ~mask) | to);
	return result;
}

static int enter_new_task(struct task_switch *s, const struct task *task)
{
	int result = load_cr3(s, task);

	if (!result)
		result = load_segments(s, task);
	if (!result && s->event.info & INTR_INFO_ERROR_CODE)
		result = push_error_code(s);
	return result;
}

/* True: go on. Else the switch ends here, with an exception queued where there was one. */
static bool proceed(struct task_switch *s, int result, bool committed)
{
	if (result == WALK_OK)
		return true;
	if (result == WALK_FAULT)
		guest_fault_inject(s->vcpu, &s->fault);
	else if (result < 0 || committed)
		vcpu_fatal(s->vcpu, "task switch to %#x: page tables that cannot be walked",
			   s->tss.selector);
	return false;
}

/* An exception during delivery of these events has EXT set; INT n, INT3 and INTO are the program's.
 */
static bool event_is_external(const struct event *event)
{
	u32 type = event->info & INTR_INFO_TYPE;

	return event->info && type != INTR_TYPE_SW_INTERRUPT && type != INTR_TYPE_SW_EXCEPTION;
}

void exit_task_switch(struct vcpu *vcpu)
{
	u64 qualification = vmcs_read(VMCS_EXIT_QUALIFICATION);
	struct task_switch s = {.vcpu = vcpu, .source = qualification >> 30 & 3};
	struct task task;
	int result;

	event_collect(vcpu);
	if (s.source == BY_GATE)
		s.event = vcpu->event;
	s.external = event_is_external(&s.event);
	s.old_selector = (u16)vmcs_read(VMCS_GUEST_TR);
	s.old_wide = vmcs_read(VMCS_GUEST_TR_AR) & TYPE_TSS_32;
	walk_state_load(vcpu, &s.state);

	if (!proceed(&s, check_new_tss(&s, (u16)qualification), false) ||
	    !proceed(&s, translate_all(&s), false))
		return;
	commit(&s, &task);
	remote_insist(true);
	result = enter_new_task(&s, &task);
	remote_insist(false);
	if (!proceed(&s, result, true))
		return;
	/* The event has been delivered. */
	vcpu->event.info = 0;
	if (task.trap) {
		write_dr6(read_dr6() | DR6_BT);
		vcpu_inject(vcpu, VEC_DB);
	}
}
