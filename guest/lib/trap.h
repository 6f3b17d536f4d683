/*
 * Exceptions and interrupts. An event goes, in this order, to
 *  1. the handler registered for its vector, if that returns true (it may change the frame);
 *  2. an EX() instruction it hit: execution continues after that instruction;
 *  3. the innermost trap_run() or user_run(), which ends early;
 *  4. the end: a dump and tap_bail().
 * 2 and 3 leave what happened in trap_last() of the CPU.
 */
#pragma once

#include "lib.h"

#define TRAP_NONE (-1)

#define VEC_DE	0
#define VEC_DB	1
#define VEC_NMI 2
#define VEC_BP	3
#define VEC_OF	4
#define VEC_BR	5
#define VEC_UD	6
#define VEC_NM	7
#define VEC_DF	8
#define VEC_TS	10
#define VEC_NP	11
#define VEC_SS	12
#define VEC_GP	13
#define VEC_PF	14
#define VEC_MF	16
#define VEC_AC	17
#define VEC_MC	18
#define VEC_XM	19

#define PF_P  BIT64(0)
#define PF_W  BIT64(1)
#define PF_U  BIT64(2)
#define PF_R  BIT64(3) /* reserved bit */
#define PF_I  BIT64(4) /* instruction fetch */
#define PF_PK BIT64(5)

/* What trap_entry.S pushes. Changes are taken over on return. */
struct frame {
	u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
	u64 vector, error, rip, cs, rflags, rsp, ss;
};

struct trap {
	int vector; /* or TRAP_NONE */
	u64 error;  /* 0 where there is none */
	u64 rip, cs, rflags, rsp, ss;
	u64 cr2;	/* as it was in the handler, whatever the vector */
	u64 dr6;	/* likewise */
	u64 insn, next; /* of the EX() instruction that was hit: its address and the next; or 0 */
};

typedef bool (*trap_handler_t)(struct frame *f);

/* One handler per vector for all CPUs; NULL takes it away. */
void trap_set_handler(unsigned int vector, trap_handler_t handler);
/* Events of a vector so far, all CPUs. */
extern volatile u32 trap_count[256];

struct trap *trap_last(void);
void trap_clear(void);

/*
 * An instruction that may fault inside an asm statement (AT&T, local labels 771 and 772 are used):
 * on a fault it is skipped, its registers unchanged; on a trap (INT3, ICEBP, #DB after it)
 * execution continues behind it. Call trap_clear() before and look at trap_last() after, and give
 * the asm statement a "memory" clobber.
 */
#define EX(insn)                \
	"771: " insn "\n772:\n" \
	".pushsection .extable, \"a\"\n.quad 771b, 772b\n.popsection\n"

/* Runs fn(arg); true if an exception ended it, which *t (may be NULL) then describes. */
bool trap_run(struct trap *t, void (*fn)(void *), void *arg);

/*
 * Runs fn(arg) at CPL 3 on a stack of its own; fn must be __user code (and may call only such).
 * True if an exception ended it; else *ret (may be NULL) is its value. user_run_flags() chooses
 * RFLAGS (bit 1 is added).
 */
#define __user	    __attribute__((section(".user.text"), noinline))
#define __user_data __attribute__((section(".user.data")))
bool user_run(struct trap *t, u64 (*fn)(u64), u64 arg, u64 *ret);
bool user_run_flags(struct trap *t, u64 (*fn)(u64), u64 arg, u64 *ret, u64 rflags);

/* Calls 32-bit code (below 4 GiB, ends by LRET, may change all registers but ESP) at CPL 0. */
void compat_call(void (*fn)(void));

/*
 * IDT of all CPUs. idt_set() points a gate anywhere (type 0xe interrupt, 0xf trap gate);
 * idt_reset() restores the library's stub, without error code if `plain`.
 */
struct __packed idt_gate {
	u16 offset_low, selector;
	u8 ist, type;
	u16 offset_mid;
	u32 offset_high, reserved;
};
_Static_assert(sizeof(struct idt_gate) == 16, "IDT gate, SDM 6.14.1");
extern struct idt_gate idt[256];
void idt_set(unsigned int vector, u64 target, unsigned int type, unsigned int dpl,
	     unsigned int ist);
void idt_reset(unsigned int vector, bool plain);
void idt_load(void);
/* Gives a gate another DPL or IST, keeping the rest. */
void idt_set_dpl(unsigned int vector, unsigned int dpl);
void idt_set_ist(unsigned int vector, unsigned int ist);

struct __packed tss {
	u32 reserved0;
	u64 rsp[3];
	u64 reserved1;
	u64 ist[7]; /* [0] #DF, [1] NMI, [2] free for tests (unset) */
	u64 reserved2;
	u16 reserved3, iomap;
};
_Static_assert(sizeof(struct tss) == 104, "64-bit TSS, SDM 8.7");

/* One per CPU, found through the task register: survives any change of GS. */
struct cpu {
	u32 index;
	u32 apic_id;
	struct tss tss;
	struct trap trap;
	u64 *unwind;   /* saved RSP of the innermost trap_run(), or NULL */
	u64 user_rsp;  /* saved RSP of user_run(), or 0 */
	bool user_end; /* the last user_run() ended by an exception */
	/* Mailbox of smp.h. */
	void (*volatile job)(void *arg);
	void *volatile job_arg;
	volatile bool online;
};
extern struct cpu cpus[MAX_CPUS];
struct cpu *this_cpu(void);
/* Loads GDT, IDT, TSS of CPU `index`; by the start-up code, and by tests that broke them. */
void cpu_load_tables(unsigned int index);
extern u64 gdt[];
