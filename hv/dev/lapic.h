/*
 * The local APIC of a vCPU: xAPIC and x2APIC (SDM 3A chapter 11).
 *
 * The register page is the storage, in the SDM's layout, so that the processor's APIC-register
 * virtualization and virtual-interrupt delivery (SDM 3C chapter 30) act on the same state. Only the
 * vCPU's own CPU calls these functions, unless one says "any CPU"; other CPUs post (vm/vcpu.h).
 *
 * Choices where the SDM leaves one:
 * - The timer's input clock, before the divider, is the crystal of CPUID leaf 0x15, whose frequency
 *   is the TSC's where that fits (tsc_crystal_shift()).
 * - APIC_BASE cannot be moved and the BSP flag cannot be changed: #GP.
 * - The ID is read-only in xAPIC mode too. Lowest priority compares task priorities.
 * - SMIs are dropped. No CMCI entry, no focus processor, EOI-broadcast suppression is offered.
 * - A periodic timer that is faster than LAPIC_MIN_PERIOD_US interrupts only that often.
 */
#pragma once

#include "lib/types.h"

struct vcpu;

#define LAPIC_NEVER	    (~0ull)
#define LAPIC_BASE_ADDRESS  0xfee00000ull
#define LAPIC_MIN_PERIOD_US 20

/* Offsets in the page; x2APIC MSR = 0x800 + offset / 16. */
enum lapic_reg {
	LAPIC_ID = 0x020,
	LAPIC_VERSION = 0x030,
	LAPIC_TPR = 0x080,
	LAPIC_APR = 0x090,
	LAPIC_PPR = 0x0a0,
	LAPIC_EOI = 0x0b0,
	LAPIC_RRD = 0x0c0,
	LAPIC_LDR = 0x0d0,
	LAPIC_DFR = 0x0e0,
	LAPIC_SVR = 0x0f0,
	LAPIC_ISR = 0x100,
	LAPIC_TMR = 0x180,
	LAPIC_IRR = 0x200,
	LAPIC_ESR = 0x280,
	LAPIC_ICR = 0x300,
	LAPIC_ICR_HIGH = 0x310,
	LAPIC_LVT_TIMER = 0x320,
	LAPIC_LVT_THERMAL = 0x330,
	LAPIC_LVT_PERF = 0x340,
	LAPIC_LVT_LINT0 = 0x350,
	LAPIC_LVT_LINT1 = 0x360,
	LAPIC_LVT_ERROR = 0x370,
	LAPIC_TIMER_INITIAL = 0x380,
	LAPIC_TIMER_CURRENT = 0x390,
	LAPIC_TIMER_DIVIDE = 0x3e0,
	LAPIC_SELF_IPI = 0x3f0,
};

#define LAPIC_SVR_ENABLE       BIT(8)
#define LAPIC_SVR_EOI_SUPPRESS BIT(12)
#define LAPIC_LVT_MASKED       BIT(16)
#define LAPIC_ESR_SEND_VECTOR  BIT(5)
#define LAPIC_ESR_RECV_VECTOR  BIT(6)
#define LAPIC_ESR_ILLEGAL_REG  BIT(7)

/* Delivery modes: ICR, LVT and IOAPIC entries, bits 10:8. */
enum lapic_delivery {
	LAPIC_DM_FIXED = 0,
	LAPIC_DM_LOWEST = 1,
	LAPIC_DM_SMI = 2,
	LAPIC_DM_NMI = 4,
	LAPIC_DM_INIT = 5,
	LAPIC_DM_SIPI = 6,
	LAPIC_DM_EXTINT = 7,
};

enum lapic_shorthand {
	LAPIC_SH_NONE,
	LAPIC_SH_SELF,
	LAPIC_SH_ALL,
	LAPIC_SH_OTHERS
};

struct lapic {
	u8 *regs;	   /* the page; 4 KiB, owned by the vCPU */
	struct vcpu *vcpu; /* whose it is, for the functions below that the platform defines */
	u64 base;	   /* IA32_APIC_BASE */
	u64 expiry;	   /* host TSC of the timer's next expiry, LAPIC_NEVER = stopped */
	u64 period;	   /* host TSC ticks from expiry to expiry in periodic mode */
	u64 last_fire;	   /* host TSC of the last periodic interrupt */
	u64 tsc_deadline;  /* IA32_TSC_DEADLINE: guest TSC, 0 = disarmed */
	u32 id;
	u32 svr;		 /* acted upon; the page's copy may be the guest's newer, raw one */
	u32 lvt_timer;		 /* the same */
	u32 divide;		 /* the same */
	u32 esr;		 /* errors since the last write to ESR; atomic */
	u8 irr_words, isr_words; /* bit per 32-bit word of IRR, ISR that is not 0 */
	bool hardware;		 /* the processor may change IRR and ISR behind our back */
	u8 raised;		 /* see lapic_take_raised() */
	bool changed;
	bool x2apic_offered;
	bool lint0; /* level of the pin as last seen */
};

/*
 * Power-up state: enabled xAPIC, software-disabled. `regs` is zeroed by this. hardware: the
 * processor may deliver interrupts from the page by itself.
 */
void lapic_create(struct lapic *l, u8 *regs, struct vcpu *vcpu, u32 id, bool bsp, bool x2apic,
		  bool hardware);
/* INIT (SDM 11.4.7.3): everything but the ID and APIC_BASE. */
void lapic_init(struct lapic *l);
/* What a PC's firmware leaves on the boot processor: enabled, LINT0 = ExtINT, LINT1 = NMI. */
void lapic_virtual_wire(struct lapic *l);

/*
 * xAPIC registers. False: nobody answers (not in xAPIC mode, or a form the SDM leaves undefined).
 * Reading: 1, 2 or 4 bytes inside a register, or 8 bytes (upper half 0). Writing: aligned 4 bytes.
 */
bool lapic_mmio_read(struct lapic *l, u64 offset, unsigned int size, u64 *value);
bool lapic_mmio_write(struct lapic *l, u64 offset, unsigned int size, u64 value);
/* The page already holds what the guest wrote at this offset (APIC-write exit, SDM 30.4.3.3). */
void lapic_written(struct lapic *l, u32 offset);

/* IA32_APIC_BASE, IA32_TSC_DEADLINE, 0x800-0x8ff. False: #GP. */
bool lapic_msr_read(struct lapic *l, u32 msr, u64 *value);
bool lapic_msr_write(struct lapic *l, u32 msr, u64 value);

/* A fixed interrupt for this vCPU: sets IRR, and TMR as told. Illegal vectors set ESR. */
void lapic_set_irr(struct lapic *l, u8 vector, bool level);
/* Any CPU, before posting: records the trigger mode in TMR. */
void lapic_set_trigger(struct lapic *l, u8 vector, bool level);
/* Any CPU: sets bits of ESR; returns the vector that LVT error asks for, or -1. */
int lapic_record_error(struct lapic *l, u32 bit);
/* Moves posted vectors (bits of pir) to IRR. */
void lapic_merge(struct lapic *l, unsigned int word, u64 bits);

/* Highest vector that IRR holds and PPR lets through, or -1. Keeps PPR in the page up to date. */
int lapic_pending(struct lapic *l);
/* Acknowledge: IRR to ISR of what lapic_pending() says; returns it, or -1. */
int lapic_accept(struct lapic *l);
void lapic_eoi(struct lapic *l);
/* The processor has done the EOI of this vector itself (virtualized EOI): tell the IOAPIC. */
void lapic_eoi_done(struct lapic *l, u8 vector);
/*
 * For virtual-interrupt delivery, whose RVI and SVI the processor keeps up to date for what it does
 * itself: the highest vector that has got into IRR since the last call (0: none), or -1 if IRR or
 * ISR have lost something or ISR has gained, so that both are to be computed afresh.
 */
static inline int lapic_take_raised(struct lapic *l)
{
	int raised = l->changed ? -1 : l->raised;

	l->changed = false;
	l->raised = 0;
	return raised;
}
int lapic_irr_highest(const struct lapic *l);
int lapic_isr_highest(const struct lapic *l);

/* The pin LINT0 as the 8259 pair drives it. True if an ExtINT is to be taken from the 8259s. */
bool lapic_lint0(struct lapic *l, bool level);

/* Fires the timer if it is due; returns the host TSC at which it must be called again. */
u64 lapic_timer(struct lapic *l, u64 now);
/* The vCPU's TSC was changed: recompute the host time of a TSC deadline. */
void lapic_tsc_changed(struct lapic *l);

/* Any CPU: does an interrupt message with this destination (x2APIC width, ~0 = all) mean us? */
bool lapic_is_destination(const struct lapic *l, u32 dest, bool logical);
/* Any CPU: enabled by APIC_BASE; and by SVR, so that it takes fixed interrupts. */
bool lapic_enabled(const struct lapic *l);
bool lapic_takes_fixed(const struct lapic *l);
static inline bool lapic_x2apic(const struct lapic *l)
{
	return __atomic_load_n(&l->base, __ATOMIC_RELAXED) & BIT64(10);
}

/* The page, in words: other CPUs read it too. */
static inline void lapic_reg_set(struct lapic *l, u32 offset, u32 value)
{
	__atomic_store_n((u32 *)(void *)(l->regs + offset), value, __ATOMIC_RELAXED);
}
static inline u32 lapic_reg(const struct lapic *l, u32 offset)
{
	return __atomic_load_n((const u32 *)(const void *)(l->regs + offset), __ATOMIC_RELAXED);
}

/*
 * What the APIC asks of the platform; dev/platform.c defines these (tests bring their own).
 */
/* An IPI by the ICR, valid vector; not the self shorthand. dest as in lapic_is_destination(). */
void lapic_bus_send(struct lapic *from, u32 icr, u32 dest);
/* EOI of a level-triggered vector. */
void lapic_bus_eoi(struct lapic *l, u8 vector);
/* An NMI for this vCPU from its LVT. */
void lapic_bus_nmi(struct lapic *l);
/* IRR, ISR or TPR changed: interrupts are to be looked at before the next entry. */
void lapic_changed(struct lapic *l);
/* The timer's deadline (lapic_timer()'s value) changed. */
void lapic_timer_changed(struct lapic *l, u64 deadline);
/* APIC_BASE changed the mode, or SVR the software enable. */
void lapic_mode_changed(struct lapic *l);
/* Host TSC now; host TSC at which this vCPU's TSC is `guest`. */
u64 lapic_clock(const struct lapic *l);
u64 lapic_clock_at(const struct lapic *l, u64 guest);
