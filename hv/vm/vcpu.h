/*
 * One virtual CPU. A vCPU belongs to one physical CPU for life; only that CPU touches its VMCS and
 * its registers. Others talk to it by vcpu_post_*() and vcpu_request(), which set atomic bits and
 * kick the CPU if it is in guest mode or asleep.
 *
 * Plain data: no pointers into code. The assembly of vm/entry.S knows the members that
 * hv/asm_offsets.in lists.
 */
#pragma once

#include "ept/ept.h"
#include "lib/types.h"
#include "vmx/vmcs.h"

struct vm;
struct lapic;	    /* dev/ */
struct emu_cache;   /* emu/ */
struct trace_entry; /* trace.h */
struct profile;	    /* profile.h */

/* General registers in the order of their encoding in instructions. */
enum gpr {
	RAX,
	RCX,
	RDX,
	RBX,
	RSP,
	RBP,
	RSI,
	RDI,
	R8,
	R9,
	R10,
	R11,
	R12,
	R13,
	R14,
	R15
};

/* Bits of vcpu->requests: reasons to take the slow way before entry. Atomic. */
#define REQ_STOP    BIT(0) /* the VM ends */
#define REQ_INIT    BIT(1)
#define REQ_SIPI    BIT(2) /* vector in sipi_vector */
#define REQ_NMI	    BIT(3)
#define REQ_IRQ	    BIT(4)  /* interrupt state changed: look again */
#define REQ_EVENT   BIT(5)  /* vcpu->event is to be injected */
#define REQ_YIELD   BIT(6)  /* give the CPU to the next vCPU */
#define REQ_PAUSE   BIT(7)  /* its VM is paused, or resumed: control.c */
#define REQ_TIMER   BIT(8)  /* the deadline changed */
#define REQ_VIEW    BIT(9)  /* another view: write EPTP */
#define REQ_EOI_MAP BIT(10) /* level-triggered vectors changed: rewrite the EOI-exit bitmap */
#define REQ_WATCH   BIT(11) /* exits are watched, or begin or cease to be: trace.c */
#define REQ_DEVICE  BIT(12) /* a device has work that goes on: platform_work() */
#define REQ_LOOK    BIT(13) /* somebody wants to see its registers: control.c */
#define REQ_PAGE    BIT(14) /* a page that it needs is not here, or has come: away.h */

/* Bits of vcpu->watch: for whom exits are watched. */
#define WATCH_TRACE  BIT(0)
#define WATCH_REPORT BIT(1)
#define WATCH_STEP   BIT(2) /* in a step: see vcpu_step_begin() */

enum vcpu_state {
	VCPU_RUNNABLE,
	VCPU_HALTED,	/* HLT: woken by an interrupt, NMI, INIT */
	VCPU_WAIT_SIPI, /* after INIT */
	VCPU_STOPPED,	/* its VM has ended */
	VCPU_WAITING,	/* for a page of its memory: away.h */
};

/* An event to inject, or one whose delivery an exit cut short (SDM 25.8.3, 25.9.2). */
struct event {
	u32 info; /* VM-entry interruption information; 0 = none */
	u32 error_code;
	u32 instr_len;
};

/*
 * Posted requests, laid out as the posted-interrupt descriptor (SDM table 30-1) so that the same
 * object serves hardware that processes it and software that does not. Bochs 3.0 wants it at a
 * page boundary.
 */
struct posted {
	u64 pir[4];  /* atomic; bit per vector */
	u32 control; /* bit 0 outstanding notification, bit 1 suppress; atomic */
	u32 reserved[7];
} __aligned(64);
_Static_assert(sizeof(struct posted) == 64, "posted-interrupt descriptor");

/* A step: what it has changed. */
struct vcpu_step {
	struct ept_overlay overlay; /* eptp 0: this vCPU cannot step */
	u64 rip, rflags, shadow, pending, debugctl;
	bool delivery; /* of an event, not an instruction: nothing of the above is changed */
};

struct vcpu {
	u64 gpr[16];	/* first: entry.S pushes here. gpr[RSP] is not kept: VMCS */
	u64 host_stack; /* hypervisor RSP while the guest runs */
	u64 launched;	/* VMLAUNCH done since VMCLEAR */

	struct vm *vm;
	u32 index;		 /* within the VM */
	u32 cpu;		 /* physical CPU index */
	u32 state;		 /* enum vcpu_state; written by its own CPU only */
	u32 requests;		 /* atomic REQ_* */
	struct vcpu *sched_next; /* of its CPU: sched.c */
	u64 used;		 /* TSC ticks of its turns: sched.c */
	u64 deadline; /* TSC at which this vCPU must exit at the latest (timers, slice, tick) */
	u64 timer_deadline; /* TSC of its earliest virtual timer, ~0 = none; see platform.h */
	u64 tsc_offset;
	u32 away;	/* what page it waits for: away.h */
	u32 pause_seen; /* vm->pause.number, once it has stopped for that pause */
	struct ept_view *view;
	struct event event;

	u32 proc, proc2, pin; /* copies of VMCS controls: writes that change nothing are skipped */
	u32 entry_controls;
	u32 exception_bitmap;
	u32 interrupt_status; /* last value written to the guest interrupt status (VID) */
	u32 tpr_threshold;    /* last value written */
	bool irq_window, nmi_window;
	bool wake_on_irq;    /* VCPU_HALTED: IF was 1 at HLT */
	bool wake_on_nmi;    /* VCPU_HALTED: NMIs were not blocked at HLT */
	bool io_breakpoints; /* DR7 has one enabled: dr.c */
	bool debug_pending;  /* pending debug exceptions may be set in the VMCS */
	bool nmi_waits_for_sti;
	bool nmi_pending; /* one more is held back by blocking */
	u8 sipi_vector;
	bool fresh; /* the VMCS still needs its host state: first run on its CPU */
	bool bsp;

	struct lapic *lapic;
	struct emu_cache *emu_cache; /* mmio_vcpu_create() */
	u8 *vapic;		     /* virtual-APIC page: register storage of the local APIC */
	hpa_t vapic_phys, vmcs, msr_bitmap;
	struct posted *posted;

	/* State that stays in the CPU while this vCPU is current; see vcpu.c */
	void *xsave_area;
	u64 xcr0, xss;
	u64 dr[4], dr6;
	u64 star, lstar, cstar, fmask, kernel_gs_base, tsc_aux, spec_ctrl;
	u64 cr2;

	u64 msr_misc_enable, msr_tsc_adjust, msr_mtrr_def_type, msr_umwait;
	u64 watch;		   /* WATCH_*; written by its own CPU only. Tested at every exit */
	u64 watch_wanted;	   /* atomic; REQ_WATCH makes watch follow */
	struct trace_entry *trace; /* TRACE_ENTRIES of them, or NULL: trace.c */
	u64 trace_next;		   /* how many have been recorded */
	struct profile *profile;   /* with `report = yes`, else NULL */
	u64 root_since;		   /* TSC from which root mode is measured; 0: it is not */
	bool exit_open;		   /* the newest entry of the trace waits for its cost */

	struct vcpu_step step;

	/* Counters: stats.h says what they count. */
	u64 exits[EXIT_COUNT]; /* by basic reason */
	u64 injections, ept_faults, refusals;
	u64 run_tsc, halted_tsc, root_tsc, watched_tsc;
	u64 halted_since; /* TSC of the HLT it is in; 0: none */
};

/*
 * Posting, from any CPU. vcpu_post_irq sets a bit of PIR; edge-triggered semantics. Level-triggered
 * lines are re-evaluated by the platform at EOI.
 */
void vcpu_post_irq(struct vcpu *vcpu, u8 vector);
void vcpu_post_nmi(struct vcpu *vcpu);
void vcpu_post_init(struct vcpu *vcpu);
void vcpu_post_sipi(struct vcpu *vcpu, u8 vector);
void vcpu_request(struct vcpu *vcpu, u32 requests);

/* On the own CPU: the guest's TSC now, and the host TSC at which the guest's TSC is `guest`. */
u64 vcpu_tsc(const struct vcpu *vcpu);
u64 vcpu_tsc_to_host(const struct vcpu *vcpu, u64 guest);

/* On the own CPU: queue an exception for the next entry (merges to #DF as SDM table 6-5 says). */
void vcpu_inject(struct vcpu *vcpu, u8 vector);
void vcpu_inject_error(struct vcpu *vcpu, u8 vector, u32 error_code);
void vcpu_inject_pf(struct vcpu *vcpu, gva_t addr, u32 error_code);

/* On the own CPU: go past the instruction that caused the exit (length from the VMCS, or given). */
void vcpu_skip(struct vcpu *vcpu);
void vcpu_skip_bytes(struct vcpu *vcpu, u64 length);

/*
 * On the own CPU, in the handler of an exit of an instruction that is to be executed again: this
 * once it runs on step.overlay, which has been made (ept.h), and nothing else does. It may come
 * back to the same instruction without having executed it. If the exit has cut short the delivery
 * of an event, that is done on the overlay instead.
 */
void vcpu_step_begin(struct vcpu *vcpu);

/* The vCPU cannot go on: report registers and end its VM (status 71). */
void vcpu_fatal(struct vcpu *vcpu, const char *fmt, ...) __format(2, 3);
