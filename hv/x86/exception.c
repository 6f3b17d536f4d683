#include "x86/exception.h"

#include "lib/log.h"
#include "x86/apic.h"
#include "x86/asm.h"
#include "x86/cpu.h"
#include "x86/regs.h"
#include "x86/stop.h"

/* An instruction that may fault, and where execution goes on if it does. */
struct fixup {
	u64 rip, to;
};

extern const struct fixup __fixup_start[], __fixup_end[];

#define FIXUP(from, to)                        \
	".pushsection .fixup_table, \"a\"\n\t" \
	".quad " from ", " to "\n\t"           \
	".popsection\n\t"

bool rdmsr_safe(u32 msr, u64 *value)
{
	u32 lo, hi, ok = 0;

	asm volatile("1: rdmsr\n\t"
		     "mov $1, %2\n"
		     "2:\n\t" FIXUP("1b", "2b")
		     : "=a"(lo), "=d"(hi), "+r"(ok)
		     : "c"(msr));
	if (ok)
		*value = (u64)hi << 32 | lo;
	return ok;
}

bool wrmsr_safe(u32 msr, u64 value)
{
	u32 ok = 0;

	asm volatile("1: wrmsr\n\t"
		     "mov $1, %0\n"
		     "2:\n\t" FIXUP("1b", "2b")
		     : "+r"(ok)
		     : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32))
		     : "memory");
	return ok;
}

static bool fixed_up(struct exception_frame *frame)
{
	if (frame->vector != VEC_GP && frame->vector != VEC_UD)
		return false;
	for (const struct fixup *f = __fixup_start; (uintptr_t)f < (uintptr_t)__fixup_end; f++)
		if (f->rip == frame->rip) {
			frame->rip = f->to;
			return true;
		}
	return false;
}

void nmi_handle(void)
{
	stop_if_asked();
	__atomic_fetch_add(&this_cpu()->nmi_pending, 1, __ATOMIC_RELAXED);
}

/* Interrupts are on only in cpu_idle(): arriving is all that they have to do. */
static void interrupt(u64 vector)
{
	struct cpu *c = this_cpu();

	switch (vector) {
	case VECTOR_SPURIOUS: /* no EOI: SDM 3A 11.9 */
		break;
	case VECTOR_KICK:
	case VECTOR_POSTED:
		c->kicks++;
		apic_eoi();
		break;
	case VECTOR_TIMER:
		apic_eoi();
		break;
	default:
		if (!c->spurious++)
			log_warn("unexpected interrupt, vector 0x%02lx", vector);
		apic_eoi();
		break;
	}
}

void exception_handle(struct exception_frame *frame)
{
	if (frame->vector >= 32)
		interrupt(frame->vector);
	else if (frame->vector == VEC_NMI)
		nmi_handle();
	else if (!fixed_up(frame))
		panic_exception(frame);
}
