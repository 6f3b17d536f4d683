/* hv/vm/step.c on a fake VMCS: what the step changes, when it ends, and what it puts back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fake_vcpu.h"
/* With the fake VMCS in place of the real one. */
#include "vm/step.c"

#define RIP	  0x1234ull
#define OUR_EPTP  0x5000ull
#define VIEW_EPTP 0x6000ull
#define BITMAP	  0x60042u

static struct ept_view view;
static u32 used;
static bool code;

void ept_overlay_no_code(struct ept_overlay *overlay)
{
	code = false;
}

void ept_overlay_use(const struct ept_overlay *overlay)
{
	used++;
}

static void begin(u64 rflags, u64 shadow, u64 pending)
{
	fake_reset();
	used = 0;
	view.eptp = VIEW_EPTP;
	view.generation = 7;
	fake.view = &view;
	fake.step.overlay.eptp = OUR_EPTP;
	fake.step.overlay.generation = 7;
	fake.exception_bitmap = BITMAP;
	vmcs_field[VMCS_GUEST_RIP] = RIP;
	vmcs_field[VMCS_GUEST_RFLAGS] = rflags;
	vmcs_field[VMCS_GUEST_INTERRUPTIBILITY] = shadow;
	vmcs_field[VMCS_GUEST_PENDING_DEBUG] = pending;
	vmcs_field[VMCS_GUEST_DEBUGCTL] = 3;
	vcpu_step_begin(&fake);
}

static bool trapped(u64 qualification)
{
	vmcs_field[VMCS_EXIT_INTR_INFO] = INTR_INFO_VALID | INTR_TYPE_HW_EXCEPTION | VEC_DB;
	vmcs_field[VMCS_EXIT_QUALIFICATION] = qualification;
	vmcs_field[VMCS_GUEST_PENDING_DEBUG] = 0;
	return vcpu_step_exit(&fake, EXIT_EXCEPTION_NMI);
}

static void test_step(void **state)
{
	begin(RFLAGS_IF | 0x46, 0, 0);
	assert_int_equal(used, 1);
	assert_true(fake.watch & WATCH_STEP);
	assert_int_equal(vmcs_field[VMCS_GUEST_RFLAGS], RFLAGS_TF | 0x46);
	assert_int_equal(vmcs_field[VMCS_EPTP], OUR_EPTP);
	assert_int_equal((u32)vmcs_field[VMCS_EXCEPTION_BITMAP], ~0u);
	assert_int_equal(vmcs_field[VMCS_GUEST_DEBUGCTL], 1);
	/* It is done; it has changed a flag. */
	vmcs_field[VMCS_GUEST_RIP] = RIP + 3;
	vmcs_field[VMCS_GUEST_RFLAGS] = RFLAGS_TF | 0x06;
	assert_true(trapped(BIT(14)));
	assert_false(fake.watch & WATCH_STEP);
	assert_int_equal(vmcs_field[VMCS_GUEST_RFLAGS], RFLAGS_IF | 0x06);
	assert_int_equal(vmcs_field[VMCS_EPTP], VIEW_EPTP);
	assert_int_equal(vmcs_field[VMCS_EXCEPTION_BITMAP], BITMAP);
	assert_int_equal(vmcs_field[VMCS_GUEST_DEBUGCTL], 3);
	/* A breakpoint of the guest's own, and its own step, are the guest's. */
	begin(RFLAGS_IF, 0, 0);
	assert_false(trapped(BIT(14) | 1));
	begin(RFLAGS_IF | RFLAGS_TF, 0, 0);
	assert_false(trapped(BIT(14)));
	assert_int_equal(vmcs_field[VMCS_GUEST_RFLAGS], RFLAGS_IF | RFLAGS_TF);
}

/* What is pending would come before the instruction. */
static void test_pending(void **state)
{
	begin(RFLAGS_TF, 0, BIT64(14));
	assert_int_equal(vmcs_field[VMCS_GUEST_PENDING_DEBUG], 0);
	vmcs_field[VMCS_GUEST_RIP] = RIP + 3;
	assert_false(trapped(BIT(14)));
	assert_int_equal(vmcs_field[VMCS_GUEST_PENDING_DEBUG], 0);
	/* MOV SS has hit a breakpoint. */
	begin(RFLAGS_TF, INTERRUPTIBILITY_MOV_SS, BIT64(14) | BIT64(12) | 1);
	assert_int_equal(vmcs_field[VMCS_GUEST_PENDING_DEBUG], BIT64(12) | 1);
	assert_int_equal(vmcs_field[VMCS_GUEST_INTERRUPTIBILITY], 0);
	/* Called off: the shadow is there again, and entry wants BS pending in it. */
	vcpu_step_end(&fake);
	assert_int_equal(vmcs_field[VMCS_GUEST_INTERRUPTIBILITY], INTERRUPTIBILITY_MOV_SS);
	assert_int_equal(vmcs_field[VMCS_GUEST_PENDING_DEBUG], BIT64(14) | BIT64(12) | 1);
	begin(RFLAGS_TF, INTERRUPTIBILITY_STI, BIT64(14));
	assert_int_equal(vmcs_field[VMCS_GUEST_PENDING_DEBUG], 0);
	vcpu_step_end(&fake);
	assert_int_equal(vmcs_field[VMCS_GUEST_PENDING_DEBUG], BIT64(14));
	/* Executed: the shadow has ended. */
	begin(0, INTERRUPTIBILITY_STI, 0);
	vmcs_field[VMCS_GUEST_RIP] = RIP + 3;
	assert_true(trapped(BIT(14)));
	assert_int_equal(vmcs_field[VMCS_GUEST_INTERRUPTIBILITY], 0);
}

#define PF (INTR_INFO_VALID | INTR_TYPE_HW_EXCEPTION | INTR_INFO_ERROR_CODE | VEC_PF)

/* The exit was of an event's delivery. */
static void deliver(u64 rflags)
{
	begin(0, 0, 0);
	vcpu_step_end(&fake);
	vmcs_field[VMCS_GUEST_RFLAGS] = rflags;
	vmcs_field[VMCS_GUEST_INTERRUPTIBILITY] = INTERRUPTIBILITY_STI;
	fake.event.info = PF;
	code = true;
	vcpu_step_begin(&fake);
	assert_true(fake.watch & WATCH_STEP);
	assert_int_equal(vmcs_field[VMCS_EPTP], OUR_EPTP);
	assert_false(code);
}

static bool exit_by(u32 reason, u64 qualification)
{
	vmcs_field[VMCS_EXIT_QUALIFICATION] = qualification;
	return vcpu_step_exit(&fake, reason);
}

static void test_delivery(void **state)
{
	/* It pushes the flags as they are. */
	deliver(RFLAGS_IF | RFLAGS_TF | 2);
	assert_int_equal(vmcs_field[VMCS_GUEST_RFLAGS], RFLAGS_IF | RFLAGS_TF | 2);
	assert_int_equal(vmcs_field[VMCS_EXCEPTION_BITMAP], BITMAP);
	assert_int_equal(vmcs_field[VMCS_GUEST_INTERRUPTIBILITY], INTERRUPTIBILITY_STI);
	assert_int_equal(vmcs_field[VMCS_GUEST_DEBUGCTL], 3);
	/* Its own request and an NMI behind it do not call it off. */
	fake.nmi_pending = true;
	vcpu_step_check(&fake, REQ_EVENT | REQ_IRQ);
	assert_true(fake.watch & WATCH_STEP);
	/* Done: the handler is fetched. Its flags are its own. */
	fake.event.info = 0;
	vmcs_field[VMCS_GUEST_RFLAGS] = 2;
	assert_true(exit_by(EXIT_EPT_VIOLATION, BIT(2)));
	assert_false(fake.watch & WATCH_STEP);
	assert_int_equal(vmcs_field[VMCS_EPTP], VIEW_EPTP);
	assert_int_equal(vmcs_field[VMCS_GUEST_RFLAGS], 2);
	assert_int_equal(vmcs_field[VMCS_GUEST_INTERRUPTIBILITY], INTERRUPTIBILITY_STI);
	assert_int_equal(fake.step.overlay.generation, 0);
	/* Not done: something else is missing on the way, or traps. */
	deliver(2);
	vmcs_field[VMCS_IDT_VECTORING_INFO] = PF;
	assert_false(exit_by(EXIT_EPT_VIOLATION, BIT(2)));
	deliver(2);
	assert_false(exit_by(EXIT_EPT_VIOLATION, BIT(1)));
	deliver(2);
	vmcs_field[VMCS_EXIT_INTR_INFO] = INTR_INFO_VALID | INTR_TYPE_HW_EXCEPTION | VEC_DB;
	assert_false(exit_by(EXIT_EXCEPTION_NMI, 0));
	deliver(2);
	view.generation++;
	vcpu_step_check(&fake, 0);
	assert_false(fake.watch & WATCH_STEP);
	assert_int_equal(vmcs_field[VMCS_EPTP], VIEW_EPTP);
}

static void test_called_off(void **state)
{
	static const u32 goes_on[] = {0, REQ_WATCH, REQ_IRQ | REQ_TIMER, REQ_EOI_MAP};

	for (u32 i = 0; i < 4; i++) {
		begin(RFLAGS_IF, 0, 0);
		vcpu_step_check(&fake, goes_on[i]);
		assert_true(fake.watch & WATCH_STEP);
	}
	for (u32 i = 0; i < 5; i++) {
		begin(RFLAGS_IF, 0, 0);
		if (i == 1)
			fake.nmi_pending = true;
		if (i == 2)
			fake.event.info = INTR_INFO_VALID;
		if (i == 3)
			view.generation++;
		vcpu_step_check(&fake, i == 0 ? REQ_STOP : i == 4 ? REQ_EVENT : 0);
		assert_false(fake.watch & WATCH_STEP);
		assert_int_equal(vmcs_field[VMCS_GUEST_RFLAGS], RFLAGS_IF);
		assert_int_equal(vmcs_field[VMCS_EPTP], VIEW_EPTP);
	}
	/* Another exit ends it; what the overlay lacks may be there the next time. */
	begin(RFLAGS_IF, 0, 0);
	assert_false(vcpu_step_exit(&fake, EXIT_EPT_VIOLATION));
	assert_false(fake.watch & WATCH_STEP);
	assert_int_equal(fake.step.overlay.generation, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_step),
		cmocka_unit_test(test_pending),
		cmocka_unit_test(test_delivery),
		cmocka_unit_test(test_called_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
