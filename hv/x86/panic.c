#include "lib/panic.h"

#include "lib/log.h"
#include "lib/symbols.h"
#include "x86/asm.h"
#include "x86/cpu.h"
#include "x86/fbcon.h"
#include "x86/paging.h"
#include "x86/regs.h"
#include "x86/stop.h"
#include "x86/uart.h"

#define PANIC_STATUS	70
#define BACKTRACE_DEPTH 24

static u32 panic_owner; /* CPU index + 1 of the CPU that panics; 0 = none */
static u32 panic_depth;

extern const u8 __image_start[], __text_end[];

/* A second panic on the way is most likely caused by the reporting itself: say less each time. */
static void panic_begin(void)
{
	u32 me = this_cpu()->index + 1, owner = 0;

	irq_disable();
	if (!__atomic_compare_exchange_n(&panic_owner, &owner, me, false, __ATOMIC_ACQ_REL,
					 __ATOMIC_ACQUIRE) &&
	    owner != me)
		stop_here();
	panic_depth++;
	if (panic_depth > 2)
		machine_off();
	stop_others();
	log_break_lock();
	uart_break_locks();
	if (panic_depth == 2) {
		fbcon_off();
		log_plain("umbra: panic inside a panic");
		machine_end(PANIC_STATUS);
	}
}

static __noreturn void panic_finish(void)
{
	fbcon_panic();
	machine_end(PANIC_STATUS);
}

static void print_address(const char *what, u64 addr)
{
	u64 offset = 0;
	const char *name = symbols_find(addr, &offset);

	if (name)
		log_error("%s %016lx %s+0x%lx", what, addr, name, offset);
	else
		log_error("%s %016lx", what, addr);
}

/* The return address that the frame at rbp holds, or 0. Nothing is read but mapped parts of stacks,
 * and nothing is believed that does not point into the text. */
static u64 return_address(u64 rbp)
{
	const u64 *frame = (const u64 *)(uintptr_t)rbp;
	u64 to;

	if (!IS_ALIGNED(rbp, 8) || !paging_is_stack(rbp) || !paging_is_stack(rbp + 15))
		return 0;
	to = frame[1];
	return to >= (u64)(uintptr_t)__image_start && to < (u64)(uintptr_t)__text_end ? to : 0;
}

/* Frame pointers: each frame holds the caller's RBP and the return address. */
static void backtrace(u64 rbp)
{
	u64 last = 0, to;

	log_error("call trace:");
	for (unsigned int i = 0; i < BACKTRACE_DEPTH; i++) {
		u64 next, repeated = 0;

		while ((to = return_address(rbp)) && to == last) {
			next = *(const u64 *)(uintptr_t)rbp;
			if (next <= rbp)
				return;
			rbp = next;
			repeated++;
		}
		if (repeated)
			log_error("  (the last one %lu times more)", repeated);
		if (!to)
			return;
		/* The byte before: a call may be the last thing that a noreturn caller did. */
		print_address("  from", to - 1);
		last = to;
		next = *(const u64 *)(uintptr_t)rbp;
		if (next <= rbp)
			return;
		rbp = next;
	}
}

void panic(const char *fmt, ...)
{
	char text[256];
	va_list ap;

	panic_begin();
	va_start(ap, fmt);
	str_vprint(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_error("PANIC: %s", text);
	backtrace((u64)(uintptr_t)__builtin_frame_address(0));
	panic_finish();
}

static const char *exception_name(u64 vector)
{
	static const char *const names[] = {
		"#DE divide error",
		"#DB debug",
		"NMI",
		"#BP breakpoint",
		"#OF overflow",
		"#BR bound range",
		"#UD invalid opcode",
		"#NM no math device",
		"#DF double fault",
		"coprocessor overrun",
		"#TS invalid TSS",
		"#NP segment not present",
		"#SS stack fault",
		"#GP general protection",
		"#PF page fault",
		"vector 15",
		"#MF math fault",
		"#AC alignment check",
		"#MC machine check",
		"#XM SIMD exception",
		"#VE virtualization exception",
		"#CP control protection",
	};

	return vector < ARRAY_SIZE(names) ? names[vector] : "reserved vector";
}

/* Machine-check banks (SDM 3B 16.3.2); MSRs IA32_MCi_CTL from 0x400, four a bank. */
static void report_machine_check(void)
{
	u64 cap = rdmsr(MSR_MCG_CAP), status;

	log_error("machine check: MCG_STATUS %016lx, %u banks", rdmsr(MSR_MCG_STATUS),
		  (unsigned int)(cap & 0xff));
	for (u32 i = 0; i < (cap & 0xff); i++) {
		if (!rdmsr_safe(0x401 + 4 * i, &status) || !(status & BIT64(63)))
			continue;
		log_error("  bank %u: STATUS %016lx ADDR %016lx MISC %016lx", i, status,
			  (status & BIT64(58) ? rdmsr(0x402 + 4 * i) : 0),
			  (status & BIT64(59) ? rdmsr(0x403 + 4 * i) : 0));
	}
}

static void report_page_fault(const struct exception_frame *f, u64 address)
{
	log_error("%s at %016lx, %s page%s%s",
		  f->error & PF_I   ? "fetch"
		  : f->error & PF_W ? "write"
				    : "read",
		  address, f->error & PF_P ? "a protected" : "an unmapped",
		  f->error & PF_RSVD ? ", reserved bit set in a table" : "",
		  paging_is_guard(address) ? ": guard page, a stack has overflowed" : "");
}

static void report_registers(const struct exception_frame *f)
{
	log_error("RAX %016lx  RBX %016lx  RCX %016lx", f->rax, f->rbx, f->rcx);
	log_error("RDX %016lx  RSI %016lx  RDI %016lx", f->rdx, f->rsi, f->rdi);
	log_error("RBP %016lx  RSP %016lx  R8  %016lx", f->rbp, f->rsp, f->r8);
	log_error("R9  %016lx  R10 %016lx  R11 %016lx", f->r9, f->r10, f->r11);
	log_error("R12 %016lx  R13 %016lx  R14 %016lx", f->r12, f->r13, f->r14);
	log_error("R15 %016lx  RFL %016lx  CS %04lx SS %04lx", f->r15, f->rflags, f->cs, f->ss);
	log_error("CR0 %016lx  CR3 %016lx  CR4 %016lx", read_cr0(), read_cr3(), read_cr4());
}

void panic_exception(const struct exception_frame *frame)
{
	u64 cr2 = read_cr2();

	panic_begin();
	log_error("PANIC: %s in the hypervisor, error code 0x%lx, CR2 %016lx",
		  exception_name(frame->vector), frame->error, cr2);
	if (frame->vector == VEC_PF || frame->vector == VEC_DF)
		report_page_fault(frame, cr2);
	if (frame->vector == VEC_MC)
		report_machine_check();
	print_address("RIP", frame->rip);
	report_registers(frame);
	backtrace(frame->rbp);
	panic_finish();
}
