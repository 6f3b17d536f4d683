/* The local APIC: see lapic.h. Section numbers are of the SDM, volume 3A. */
#include "dev/lapic.h"
#include "dev/lapic_timer.h"
#include "lib/string.h"
#include "x86/regs.h"

/* Who may do what with a register. */
#define XR  BIT(0) /* read in xAPIC mode */
#define XW  BIT(1) /* write in xAPIC mode; without it a write is ignored */
#define R2  BIT(2) /* read in x2APIC mode */
#define W2  BIT(3) /* write in x2APIC mode */
#define ALL (XR | XW | R2 | W2)

static const struct {
	u32 writable;
	u32 status; /* read-only bits that may be written with anything in x2APIC mode */
	u32 access;
} reg_rules[0x40] = {
	[LAPIC_ID >> 4] = {0, 0, XR | XW | R2},
	[LAPIC_VERSION >> 4] = {0, 0, XR | R2},
	[LAPIC_TPR >> 4] = {0xff, 0, ALL},
	[LAPIC_APR >> 4] = {0, 0, XR},
	[LAPIC_PPR >> 4] = {0, 0, XR | R2},
	[LAPIC_EOI >> 4] = {0, 0, XR | XW | W2},
	[LAPIC_RRD >> 4] = {0, 0, XR},
	[LAPIC_LDR >> 4] = {0xff000000, 0, XR | XW | R2},
	[LAPIC_DFR >> 4] = {0xf0000000, 0, XR | XW},
	[LAPIC_SVR >> 4] = {0x11ff, 0, ALL},
	[LAPIC_ISR >> 4 ...(LAPIC_ESR >> 4) - 1] = {0, 0, XR | R2},
	[LAPIC_ESR >> 4] = {0, 0, ALL},
	[LAPIC_ICR >> 4] = {0xccfff, 0, ALL},
	[LAPIC_ICR_HIGH >> 4] = {0xff000000, 0, XR | XW},
	[LAPIC_LVT_TIMER >> 4] = {0x700ff, 0x1000, ALL},
	[LAPIC_LVT_THERMAL >> 4 ... LAPIC_LVT_PERF >> 4] = {0x107ff, 0x1000, ALL},
	[LAPIC_LVT_LINT0 >> 4 ... LAPIC_LVT_LINT1 >> 4] = {0x1a7ff, 0x5000, ALL},
	[LAPIC_LVT_ERROR >> 4] = {0x100ff, 0x1000, ALL},
	[LAPIC_TIMER_INITIAL >> 4] = {0xffffffff, 0, ALL},
	[LAPIC_TIMER_CURRENT >> 4] = {0, 0, XR | R2},
	[LAPIC_TIMER_DIVIDE >> 4] = {0xb, 0, ALL},
	[LAPIC_SELF_IPI >> 4] = {0xff, 0, W2},
};

#define VERSION (0x14 | 5 << 16 | BIT(24)) /* six LVT entries, EOI-broadcast suppression */

/* LVT timer, bits 18:17. */
enum timer_mode {
	TIMER_ONE_SHOT,
	TIMER_PERIODIC,
	TIMER_DEADLINE,
	TIMER_RESERVED
};

static u32 *reg_ptr(struct lapic *l, u32 offset)
{
	return (u32 *)(void *)(l->regs + offset);
}

static bool x2apic(const struct lapic *l)
{
	return l->base & APIC_BASE_X2APIC;
}

/* --- vector bitmaps ------------------------------------------------------------------------- */

static u32 vector_word(u32 base, u8 vector)
{
	return base + (vector >> 5) * 16;
}

static bool vector_test(const struct lapic *l, u32 base, u8 vector)
{
	return lapic_reg(l, vector_word(base, vector)) >> (vector & 31) & 1;
}

static int vector_in(u32 word, int index)
{
	return index * 32 + 31 - __builtin_clz(word);
}

/* This is on the way of every interrupt: unrolled, it takes three instructions a word. */
static int scan_all(const u8 *base)
{
#pragma GCC unroll 8
	for (int i = 7; i >= 0; i--) {
		u32 word = __atomic_load_n((const u32 *)(const void *)(base + i * 16),
					   __ATOMIC_RELAXED);

		if (word)
			return vector_in(word, i);
	}
	return -1;
}

/* `words` has a bit for each word that is not 0, if nobody but us writes the page. */
static int vector_highest(const struct lapic *l, u32 base, u32 words)
{
	int i;

	if (l->hardware)
		return scan_all(l->regs + base);
	if (!words)
		return -1;
	i = 31 - __builtin_clz(words);
	return vector_in(lapic_reg(l, base + (u32)i * 16), i);
}

int lapic_irr_highest(const struct lapic *l)
{
	return vector_highest(l, LAPIC_IRR, l->irr_words);
}

int lapic_isr_highest(const struct lapic *l)
{
	return vector_highest(l, LAPIC_ISR, l->isr_words);
}

static void irr_set(struct lapic *l, u8 vector)
{
	*reg_ptr(l, vector_word(LAPIC_IRR, vector)) |= BIT(vector & 31);
	l->irr_words |= (u8)BIT(vector >> 5);
	l->raised = MAX(l->raised, vector);
}

static void irr_clear(struct lapic *l, u8 vector)
{
	u32 *word = reg_ptr(l, vector_word(LAPIC_IRR, vector));

	*word &= ~BIT(vector & 31);
	if (!*word)
		l->irr_words &= (u8)~BIT(vector >> 5);
	l->changed = true;
}

static void isr_set(struct lapic *l, u8 vector)
{
	*reg_ptr(l, vector_word(LAPIC_ISR, vector)) |= BIT(vector & 31);
	l->isr_words |= (u8)BIT(vector >> 5);
	l->changed = true;
}

static void isr_clear(struct lapic *l, u8 vector)
{
	u32 *word = reg_ptr(l, vector_word(LAPIC_ISR, vector));

	*word &= ~BIT(vector & 31);
	if (!*word)
		l->isr_words &= (u8)~BIT(vector >> 5);
	l->changed = true;
}

void lapic_set_trigger(struct lapic *l, u8 vector, bool level)
{
	u32 *word = reg_ptr(l, vector_word(LAPIC_TMR, vector));
	u32 bit = BIT(vector & 31);

	if (!!(__atomic_load_n(word, __ATOMIC_RELAXED) & bit) == level)
		return;
	if (level)
		__atomic_fetch_or(word, bit, __ATOMIC_RELAXED);
	else
		__atomic_fetch_and(word, ~bit, __ATOMIC_RELAXED);
}

void lapic_merge(struct lapic *l, unsigned int word, u64 bits)
{
	u32 low = (u32)bits, high = (u32)(bits >> 32);

	if (!bits)
		return;
	l->raised = MAX(l->raised, (u8)(word * 64 + 63 - (unsigned int)__builtin_clzll(bits)));
	if (low) {
		*reg_ptr(l, LAPIC_IRR + word * 32) |= low;
		l->irr_words |= (u8)BIT(word * 2);
	}
	if (high) {
		*reg_ptr(l, LAPIC_IRR + word * 32 + 16) |= high;
		l->irr_words |= (u8)BIT(word * 2 + 1);
	}
}

/* 11.8.3.1: the processor priority from TPR and the highest vector in service. */
static u32 update_ppr(struct lapic *l)
{
	u32 tpr = lapic_reg(l, LAPIC_TPR) & 0xff;
	int isr = lapic_isr_highest(l);
	u32 service = isr < 0 ? 0 : (u32)isr & 0xf0;
	u32 ppr = (tpr & 0xf0) >= service ? tpr : service;

	lapic_reg_set(l, LAPIC_PPR, ppr);
	return ppr;
}

int lapic_pending(struct lapic *l)
{
	u32 ppr = update_ppr(l);
	int irr = lapic_irr_highest(l);

	return irr >= 0 && ((u32)irr & 0xf0) > (ppr & 0xf0) ? irr : -1;
}

int lapic_accept(struct lapic *l)
{
	int vector = lapic_pending(l);

	if (vector < 0)
		return -1;
	irr_clear(l, (u8)vector);
	isr_set(l, (u8)vector);
	/* Nothing that stays in IRR has a higher class: the new vector alone decides PPR. */
	lapic_reg_set(l, LAPIC_PPR, (u32)vector & 0xf0);
	return vector;
}

void lapic_eoi_done(struct lapic *l, u8 vector)
{
	if (vector_test(l, LAPIC_TMR, vector) && !(l->svr & LAPIC_SVR_EOI_SUPPRESS))
		lapic_bus_eoi(l, vector);
}

void lapic_eoi(struct lapic *l)
{
	int vector = lapic_isr_highest(l);

	if (vector < 0)
		return;
	isr_clear(l, (u8)vector);
	lapic_eoi_done(l, (u8)vector);
	/* The usual end of an interrupt: nothing has waited for it. */
	if (!l->hardware && !l->irr_words)
		update_ppr(l);
	else
		lapic_changed(l);
}

/* --- errors and local interrupts ------------------------------------------------------------ */

int lapic_record_error(struct lapic *l, u32 bit)
{
	u32 lvt = lapic_reg(l, LAPIC_LVT_ERROR);

	if (!(lvt & LAPIC_LVT_MASKED) && (lvt & 0xff) < 16)
		bit |= LAPIC_ESR_RECV_VECTOR;
	__atomic_fetch_or(&l->esr, bit, __ATOMIC_RELAXED);
	return lvt & LAPIC_LVT_MASKED || (lvt & 0xff) < 16 ? -1 : (int)(lvt & 0xff);
}

static void error(struct lapic *l, u32 bit)
{
	int vector = lapic_record_error(l, bit);

	if (vector >= 0)
		lapic_set_irr(l, (u8)vector, false);
}

void lapic_set_irr(struct lapic *l, u8 vector, bool level)
{
	if (vector < 16) {
		error(l, LAPIC_ESR_RECV_VECTOR);
		return;
	}
	lapic_set_trigger(l, vector, level);
	irr_set(l, vector);
	lapic_changed(l);
}

bool lapic_lint0(struct lapic *l, bool level)
{
	u32 lvt = lapic_reg(l, LAPIC_LVT_LINT0);
	u32 mode = lvt >> 8 & 7;
	bool rises = level && !l->lint0;

	l->lint0 = level;
	if (!level)
		return false;
	if (!(l->base & APIC_BASE_ENABLE)) /* 11.4.3: the pin is INTR then */
		return true;
	if (lvt & LAPIC_LVT_MASKED)
		return false;
	if (mode == LAPIC_DM_EXTINT)
		return true;
	if (rises && mode == LAPIC_DM_FIXED)
		lapic_set_irr(l, (u8)lvt, false);
	else if (rises && mode == LAPIC_DM_NMI)
		lapic_bus_nmi(l);
	return false;
}

/* --- interrupt command register (11.6) ------------------------------------------------------ */

static void send_ipi(struct lapic *l, u32 icr, u32 dest)
{
	u32 mode = icr >> 8 & 7;
	u32 shorthand = icr >> 18 & 3;
	u8 vector = (u8)icr;

	if ((mode == LAPIC_DM_FIXED || mode == LAPIC_DM_LOWEST) && vector < 16) {
		error(l, LAPIC_ESR_SEND_VECTOR);
		return;
	}
	/* Reserved modes, ExtINT and the INIT level de-assert, which does nothing since the P6. */
	if (mode == 3 || mode == LAPIC_DM_EXTINT || (mode == LAPIC_DM_INIT && (icr >> 14 & 3) == 2))
		return;
	/* Table 11-3: including oneself only fixed interrupts are valid. */
	if ((shorthand == LAPIC_SH_SELF || shorthand == LAPIC_SH_ALL) && mode != LAPIC_DM_FIXED)
		return;
	if (shorthand != LAPIC_SH_SELF)
		lapic_bus_send(l, icr, dest);
	else if (lapic_takes_fixed(l))
		lapic_set_irr(l, vector, false);
}

static bool cluster_match(u32 dest, u32 ldr)
{
	return (dest >> 4 == 0xf || dest >> 4 == ldr >> 4) && (dest & ldr & 0xf);
}

bool lapic_is_destination(const struct lapic *l, u32 dest, bool logical)
{
	u32 ldr;

	if (!lapic_enabled(l))
		return false;
	if (dest == ~0u)
		return true;
	if (!logical)
		return dest == (lapic_x2apic(l) ? l->id : (l->id & 0xff));
	ldr = lapic_reg(l, LAPIC_LDR);
	if (lapic_x2apic(l))
		return dest >> 16 == ldr >> 16 && (dest & ldr & 0xffff);
	if (dest > 0xff)
		return false;
	switch (lapic_reg(l, LAPIC_DFR) >> 28) {
	case 0xf:
		return dest & ldr >> 24;
	case 0:
		return cluster_match(dest, ldr >> 24);
	default:
		return false;
	}
}

bool lapic_enabled(const struct lapic *l)
{
	return __atomic_load_n(&l->base, __ATOMIC_RELAXED) & APIC_BASE_ENABLE;
}

bool lapic_takes_fixed(const struct lapic *l)
{
	return lapic_enabled(l) && (__atomic_load_n(&l->svr, __ATOMIC_RELAXED) & LAPIC_SVR_ENABLE);
}

/* --- registers ------------------------------------------------------------------------------ */

static void mask_lvts(struct lapic *l)
{
	for (u32 r = LAPIC_LVT_THERMAL; r <= LAPIC_LVT_ERROR; r += 0x10)
		lapic_reg_set(l, r, lapic_reg(l, r) | LAPIC_LVT_MASKED);
	lapic_timer_set_lvt(l, l->lvt_timer | LAPIC_LVT_MASKED, lapic_clock(l));
}

static void write_svr(struct lapic *l, u32 value)
{
	bool switched = (l->svr ^ value) & LAPIC_SVR_ENABLE;

	__atomic_store_n(&l->svr, value, __ATOMIC_RELAXED);
	lapic_reg_set(l, LAPIC_SVR, value);
	if (!(value & LAPIC_SVR_ENABLE))
		mask_lvts(l);
	if (switched)
		lapic_mode_changed(l);
}

static void write_lvt(struct lapic *l, u32 offset, u32 value)
{
	if (!(l->svr & LAPIC_SVR_ENABLE))
		value |= LAPIC_LVT_MASKED;
	if (offset == LAPIC_LVT_TIMER)
		lapic_timer_set_lvt(l, value, lapic_clock(l));
	else
		lapic_reg_set(l, offset, value);
	if (offset == LAPIC_LVT_LINT0)
		lapic_changed(l); /* an ExtINT may have been let in */
}

/* A permitted write; the value may have unwritable bits, which are dropped. */
static void reg_write(struct lapic *l, u32 offset, u32 value)
{
	value &= reg_rules[offset >> 4].writable;
	switch (offset) {
	case LAPIC_ID:
		lapic_reg_set(l, offset, l->id << 24);
		break;
	case LAPIC_TPR:
		lapic_reg_set(l, offset, value);
		lapic_changed(l);
		break;
	case LAPIC_EOI:
		lapic_reg_set(l, offset, 0);
		lapic_eoi(l);
		break;
	case LAPIC_DFR:
		lapic_reg_set(l, offset, value | 0x0fffffff);
		break;
	case LAPIC_SVR:
		write_svr(l, value);
		break;
	case LAPIC_ESR:
		lapic_reg_set(l, offset, __atomic_exchange_n(&l->esr, 0, __ATOMIC_RELAXED));
		break;
	case LAPIC_ICR:
		lapic_reg_set(l, offset, value);
		value = lapic_reg(l, LAPIC_ICR_HIGH) >> 24;
		send_ipi(l, lapic_reg(l, LAPIC_ICR), value == 0xff ? ~0u : value);
		break;
	case LAPIC_LVT_TIMER ... LAPIC_LVT_ERROR:
		write_lvt(l, offset, value);
		break;
	case LAPIC_TIMER_INITIAL:
		lapic_timer_start(l, value, lapic_clock(l));
		break;
	case LAPIC_TIMER_DIVIDE:
		lapic_timer_set_divide(l, value, lapic_clock(l));
		break;
	case LAPIC_SELF_IPI:
		lapic_reg_set(l, offset, 0);
		send_ipi(l, LAPIC_SH_SELF << 18 | value, 0);
		break;
	default:
		lapic_reg_set(l, offset, value);
		break;
	}
}

/* The P6's arbitration priority; later processors do not arbitrate and leave it undefined. */
static u32 read_apr(const struct lapic *l)
{
	int irr = lapic_irr_highest(l), isr = lapic_isr_highest(l);
	u32 tpr = lapic_reg(l, LAPIC_TPR), irrv = irr < 0 ? 0 : (u32)irr,
	    isrv = isr < 0 ? 0 : (u32)isr;

	if (tpr >> 4 >= irrv >> 4 && tpr >> 4 > isrv >> 4)
		return tpr;
	return MAX(tpr & 0xf0, MAX(irrv & 0xf0, isrv & 0xf0));
}

static u32 reg_read(struct lapic *l, u32 offset)
{
	switch (offset) {
	case LAPIC_APR:
		return read_apr(l);
	case LAPIC_PPR:
		return update_ppr(l);
	case LAPIC_TIMER_CURRENT:
		return lapic_timer_count(l, lapic_clock(l));
	default:
		return lapic_reg(l, offset);
	}
}

static u32 access_rights(u64 offset)
{
	return offset < 0x400 ? reg_rules[offset >> 4].access : 0;
}

bool lapic_mmio_read(struct lapic *l, u64 offset, unsigned int size, u64 *value)
{
	u32 byte = offset & 15;

	if ((l->base & (APIC_BASE_ENABLE | APIC_BASE_X2APIC)) != APIC_BASE_ENABLE)
		return false;
	*value = 0;
	if (!(access_rights(offset) & XR)) {
		error(l, LAPIC_ESR_ILLEGAL_REG);
		return true;
	}
	if (size == 8 ? byte != 0 : byte + size > 4)
		return false;
	*value = reg_read(l, (u32)offset & ~15u) >> (byte * 8);
	if (size < 4)
		*value &= BIT(size * 8) - 1;
	return true;
}

bool lapic_mmio_write(struct lapic *l, u64 offset, unsigned int size, u64 value)
{
	u32 access = access_rights(offset);

	if ((l->base & (APIC_BASE_ENABLE | APIC_BASE_X2APIC)) != APIC_BASE_ENABLE)
		return false;
	if (!(access & (XR | XW))) {
		error(l, LAPIC_ESR_ILLEGAL_REG);
		return true;
	}
	if (size != 4 || (offset & 15))
		return false;
	if (access & XW)
		reg_write(l, (u32)offset, (u32)value);
	return true;
}

void lapic_written(struct lapic *l, u32 offset)
{
	offset &= ~15u;
	if (access_rights(offset) & XW)
		reg_write(l, offset, lapic_reg(l, offset));
}

/* --- MSRs (11.12) --------------------------------------------------------------------------- */

static void set_mode_registers(struct lapic *l)
{
	if (x2apic(l)) {
		lapic_reg_set(l, LAPIC_ID, l->id);
		lapic_reg_set(l, LAPIC_LDR, l->id >> 4 << 16 | BIT(l->id & 15));
		lapic_reg_set(l, LAPIC_ICR_HIGH, 0);
	} else {
		lapic_reg_set(l, LAPIC_ID, l->id << 24);
	}
	lapic_reg_set(l, LAPIC_ICR + 4, 0);
}

static bool write_base(struct lapic *l, u64 value)
{
	u64 may_change = APIC_BASE_ENABLE | (l->x2apic_offered ? APIC_BASE_X2APIC : 0);
	u64 old = l->base;
	bool from_off = !(old & APIC_BASE_ENABLE), from_x2 = old & APIC_BASE_X2APIC;
	bool to_off = !(value & APIC_BASE_ENABLE), to_x2 = value & APIC_BASE_X2APIC;

	if ((value ^ old) & ~may_change)
		return false;
	/* Figure 11-27: what is not an edge of the state diagram faults. */
	if ((to_off && to_x2) || (from_off && to_x2) || (from_x2 && !to_off && !to_x2))
		return false;
	if (value == old)
		return true;
	__atomic_store_n(&l->base, value, __ATOMIC_RELAXED);
	if (to_off || from_off)
		lapic_init(l); /* 11.4.3: as after a reset */
	else
		set_mode_registers(l);
	lapic_mode_changed(l);
	return true;
}

bool lapic_msr_read(struct lapic *l, u32 msr, u64 *value)
{
	u32 offset = (msr - MSR_X2APIC_FIRST) << 4;

	if (msr == MSR_APIC_BASE) {
		*value = l->base;
		return true;
	}
	if (msr == MSR_TSC_DEADLINE) {
		*value = lapic_timer_get_deadline(l);
		return true;
	}
	if (msr < MSR_X2APIC_FIRST || !x2apic(l) || !(access_rights(offset) & R2))
		return false;
	*value = reg_read(l, offset);
	if (offset == LAPIC_ICR)
		*value |= (u64)lapic_reg(l, LAPIC_ICR + 4) << 32;
	return true;
}

bool lapic_msr_write(struct lapic *l, u32 msr, u64 value)
{
	u32 offset = (msr - MSR_X2APIC_FIRST) << 4;

	if (msr == MSR_TSC_DEADLINE)
		return lapic_timer_set_deadline(l, value), true;
	if (msr == MSR_APIC_BASE)
		return write_base(l, value);
	if (msr < MSR_X2APIC_FIRST || !x2apic(l) || !(access_rights(offset) & W2))
		return false;
	if (offset == LAPIC_ICR) {
		if ((u32)value & ~reg_rules[LAPIC_ICR >> 4].writable)
			return false;
		lapic_reg_set(l, LAPIC_ICR, (u32)value);
		lapic_reg_set(l, LAPIC_ICR + 4, (u32)(value >> 32)); /* where the processor looks */
		send_ipi(l, (u32)value, (u32)(value >> 32));
		return true;
	}
	if (value & ~(u64)(reg_rules[offset >> 4].writable | reg_rules[offset >> 4].status))
		return false;
	reg_write(l, offset, (u32)value);
	return true;
}

/* --- reset ---------------------------------------------------------------------------------- */

void lapic_init(struct lapic *l)
{
	memset(l->regs, 0, PAGE_SIZE);
	lapic_timer_stop(l);
	l->lvt_timer = LAPIC_LVT_MASKED;
	l->divide = 0;
	l->esr = 0;
	l->irr_words = l->isr_words = 0;
	l->changed = true;
	l->lint0 = false;
	__atomic_store_n(&l->svr, 0xff, __ATOMIC_RELAXED);
	lapic_reg_set(l, LAPIC_VERSION, VERSION);
	lapic_reg_set(l, LAPIC_DFR, 0xffffffff);
	lapic_reg_set(l, LAPIC_SVR, l->svr);
	for (u32 r = LAPIC_LVT_TIMER; r <= LAPIC_LVT_ERROR; r += 0x10)
		lapic_reg_set(l, r, LAPIC_LVT_MASKED);
	set_mode_registers(l);
	lapic_timer_changed(l, LAPIC_NEVER);
	lapic_changed(l);
}

void lapic_create(struct lapic *l, u8 *regs, struct vcpu *vcpu, u32 id, bool bsp, bool x2apic_mode,
		  bool hardware)
{
	*l = (struct lapic){
		.regs = regs,
		.vcpu = vcpu,
		.id = id,
		.base = LAPIC_BASE_ADDRESS | APIC_BASE_ENABLE | (bsp ? APIC_BASE_BSP : 0),
		.x2apic_offered = x2apic_mode,
		.hardware = hardware,
	};
	lapic_init(l);
}

void lapic_virtual_wire(struct lapic *l)
{
	reg_write(l, LAPIC_SVR, LAPIC_SVR_ENABLE | 0xff);
	reg_write(l, LAPIC_LVT_LINT0, LAPIC_DM_EXTINT << 8);
	reg_write(l, LAPIC_LVT_LINT1, LAPIC_DM_NMI << 8);
}
