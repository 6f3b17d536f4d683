/*
 * Asynchronous page faults over a real pager: what guests write to the MSRs, who is told, who is
 * not, and in which order. The VMCS is an array, the guest is this file.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <umbra/hypercall.h>

#include "mem/frame.h"
#include "remote/async.h"
#include "remote/internal.h"
#include "vm/apf.h"
#include "vm/platform.h"
#include "x86/regs.h"

#define FRAMES	PAGER_MIN_FRAMES
#define PAGES	512u
#define VCPUS	2u
#define ON	0x9u /* enabled, ready by interrupt */
#define ALWAYS	0x2u
#define VECTOR	0xf3u
#define ALL	0xffffffffu
#define AREA(n) (0x5000u + (n)*0x2000u + 0x40u) /* page 5 for vCPU 0, page 7 for vCPU 1 */

u64 fake_vmcs[0x8000];
u64 fake_cr2;

static struct vm_remote r;
static struct vm vm;
static struct vcpu vcpus[VCPUS];
static struct boot_vm config;
static hpa_t chunk;
static void *pager_memory;
static bool area_away, apic_off;
static u32 page_faults, interrupts[VCPUS], requests;
static u64 last_cr2;

/* --- what async.c needs ----------------------------------------------------------------------- */

void *heap_alloc(u64 bytes)
{
	return calloc(1, bytes);
}

void heap_free(void *p, u64 bytes)
{
	free(p);
}

const struct region *space_find(const struct space *space, gpa_t at)
{
	return at.v < PAGES * PAGE_SIZE	      ? &space->region[0]
	       : at.v < 2 * PAGES * PAGE_SIZE ? &space->region[1]
					      : NULL;
}

u8 *remote_open(struct vm *v, const struct region *region, gpa_t at, bool write, bool whole)
{
	struct pager_access a = {.page = away_page(region, at), .write = write, .door = true};
	struct pager_place place;

	assert_false(whole);
	spin_lock(remote_lock(&r));
	if (!area_away && pager_access(r.pager, &a, &place) == PAGER_READY)
		return (u8 *)phys_to_ptr(remote_frame(&r, place.frame)) + at.v % PAGE_SIZE;
	spin_unlock(remote_lock(&r));
	return NULL;
}

void remote_close(struct vm *v)
{
	spin_unlock(remote_lock(&r));
}

void vcpu_inject_pf(struct vcpu *vcpu, gva_t addr, u32 error_code)
{
	assert_int_equal(error_code, 0);
	page_faults++;
	last_cr2 = fake_cr2 = addr.v;
	vcpu->event.info = 0x80000b0e;
}

void vcpu_request(struct vcpu *vcpu, u32 what)
{
	requests |= what;
}

void vcpu_post_irq(struct vcpu *vcpu, u8 vector)
{
	assert_int_equal(vector, VECTOR);
	interrupts[vcpu->index]++;
}

bool platform_apic_takes_fixed(struct vcpu *vcpu)
{
	return !apic_off;
}

/* --- a VM ------------------------------------------------------------------------------------- */

static void *op_data(void *ctx, u32 frame)
{
	return phys_to_ptr(remote_frame(&r, frame));
}

static bool op_false(void *ctx, u32 page)
{
	return false;
}

static const struct pager_ops ops = {op_false, op_false, op_data};

static enum pager_answer access_page(u32 page, bool write, bool door)
{
	struct pager_access a = {.page = page, .write = write, .door = door};
	struct pager_place place;
	enum pager_answer answer = pager_access(r.pager, &a, &place);

	if (answer == PAGER_READY && write)
		memset(phys_to_ptr(remote_frame(&r, place.frame)), (int)page | 1, 8);
	return answer;
}

/* Lets operations end that are under way; async.c is told of the page. */
static void complete_all(void)
{
	struct pager_place place;
	struct pager_op op;

	while (pager_next(r.pager, &op)) {
		pager_done(r.pager, &op, true, 0, &place);
		if (r.async)
			async_end(&r, op.page);
	}
}

/* Uses pages until many of those before are away. */
static void fill(u32 first, u32 count)
{
	for (u32 page = first; page < first + count; page++) {
		while (access_page(page, true, true) != PAGER_READY)
			complete_all();
		for (u32 i = 0; i < 64 && pager_should_evict(r.pager); i++) {
			pager_collect(r.pager);
			pager_settle(r.pager);
		}
		complete_all();
	}
}

/* The n-th page from `from` on that is away. */
static u32 away_from(u32 from, u32 n)
{
	for (u32 page = from; page < PAGES; page++)
		if (pager_state(r.pager, page) == PAGER_AWAY && !n--)
			return page;
	abort();
}

/* The guest's side of the area, of a vCPU. */
static u32 *area(u32 n)
{
	struct pager_access a = {.page = AREA(n) / PAGE_SIZE, .door = true};
	struct pager_place place;

	assert_int_equal(pager_access(r.pager, &a, &place), PAGER_READY);
	return (u32 *)(void *)((u8 *)phys_to_ptr(remote_frame(&r, place.frame)) +
			       AREA(n) % PAGE_SIZE);
}

/* In a program at CPL 3 with interrupts enabled. */
static void in_program(void)
{
	fake_vmcs[VMCS_GUEST_SS_AR] = 0xc0f3;
	fake_vmcs[VMCS_GUEST_RFLAGS] = RFLAGS_IF | 2;
	fake_vmcs[VMCS_GUEST_INTERRUPTIBILITY] = 0;
	fake_vmcs[VMCS_GUEST_CR0] = 0x80050033;
	for (u32 i = 0; i < VCPUS; i++)
		vcpus[i].event.info = 0;
}

static void write_msr(u32 n, u32 msr, u64 value)
{
	assert_int_equal(apf_msr_write(&vcpus[n], msr, value), 0);
}

static void enable(u32 n, u64 more)
{
	write_msr(n, KVM_MSR_ASYNC_PF_INT, VECTOR);
	write_msr(n, KVM_MSR_ASYNC_PF_EN, AREA(n) | ON | more);
}

static void stop(void)
{
	if (r.vm)
		async_destroy(&r);
	free(pager_memory);
	if (chunk.v)
		free(phys_to_ptr(chunk));
	pager_memory = NULL;
	chunk = hpa(0);
}

static void start(void)
{
	struct pager_config c = {.pages = PAGES, .frames = FRAMES, .vcpus = VCPUS};
	void *frames = NULL;

	stop();
	host_direct_map = 0;
	memset(fake_vmcs, 0, sizeof(fake_vmcs));
	memset(&r, 0, sizeof(r));
	memset(&vm, 0, sizeof(vm));
	memset(vcpus, 0, sizeof(vcpus));
	memset(interrupts, 0, sizeof(interrupts));
	page_faults = requests = 0;
	fake_cr2 = 0;
	area_away = apic_off = false;
	assert_int_equal(posix_memalign(&frames, PAGE_SIZE, FRAMES * PAGE_SIZE), 0);
	chunk = ptr_to_phys(frames);
	pager_memory = calloc(1, pager_bytes(&c));
	r.pager = pager_init(pager_memory, &c, &ops, NULL);
	r.chunk = &chunk;
	r.frames = FRAMES;
	r.pages = PAGES;
	r.vm = &vm;
	config.async_pf = 1;
	vm.config = &config;
	vm.remote = &r;
	vm.vcpu_count = VCPUS;
	vm.space.region[0].kind = REGION_REMOTE;
	vm.space.region[1].kind = REGION_PMEM;
	for (u32 i = 0; i < VCPUS; i++) {
		vcpus[i].vm = &vm;
		vcpus[i].index = i;
		vm.vcpu[i] = &vcpus[i];
	}
	assert_int_equal(async_create(&r), 0);
	in_program();
	/* Pages above 63 come and go; what is below stays for the areas. */
	fill(64, 300);
}

/* A touch of a page that is away: true: the guest has been told, and takes its #PF. */
static bool touch(u32 n, u32 page)
{
	u32 before = page_faults;
	bool told;

	assert_int_equal(access_page(page, false, false), PAGER_WAIT);
	told = async_begin(&r, &vcpus[n], page);
	assert_int_equal(page_faults - before, told);
	if (told) {
		assert_int_equal(area(n)[0], 1);
		assert_true(requests & REQ_TIMER);
	}
	return told;
}

/* The guest's handler of #PF: the token. */
static u32 take_fault(u32 n)
{
	assert_int_equal(area(n)[0], 1);
	area(n)[0] = 0;
	vcpus[n].event.info = 0;
	return (u32)last_cr2;
}

static void acknowledge(u32 n)
{
	area(n)[1] = 0;
	write_msr(n, KVM_MSR_ASYNC_PF_ACK, 1);
}

/* --- tests ------------------------------------------------------------------------------------ */

static void test_not_offered(void **state)
{
	u64 value;

	start();
	async_destroy(&r);
	config.async_pf = 0;
	assert_int_equal(async_create(&r), 0);
	assert_null(r.async);
	for (u32 i = 0; i < 2; i++) {
		assert_false(apf_offered(&vm));
		for (u32 msr = 0x4b564d00; msr < 0x4b564d10; msr++) {
			assert_false(apf_msr_read(&vcpus[0], msr, &value));
			assert_int_equal(apf_msr_write(&vcpus[0], msr, 0), ERR_INVAL);
		}
		apf_reset(&vcpus[0]);
		apf_apic_changed(&vcpus[0]);
		assert_false(apf_seen(&vcpus[0]));
		vm.remote = NULL; /* and without remote memory at all */
	}
}

static void test_msrs(void **state)
{
	static const u64 bad[] = {
		AREA(0) | ON | 4,    /* nested */
		AREA(0) | ON | 0x10, /* bits 5:4 */
		AREA(0) | ON | 0x20,	    AREA(0) | 0x20,
		PAGES * PAGE_SIZE | ON,	    /* persistent memory */
		4 * PAGES * PAGE_SIZE | ON, /* nothing */
		0xfffffffffffff000ull | ON,
	};
	u64 value = 1;

	start();
	assert_true(apf_offered(&vm));
	assert_true(apf_msr_read(&vcpus[0], KVM_MSR_ASYNC_PF_EN, &value));
	assert_int_equal(value, 0);
	enable(0, ALWAYS);
	assert_true(apf_msr_read(&vcpus[0], KVM_MSR_ASYNC_PF_EN, &value));
	assert_int_equal(value, AREA(0) | ON | ALWAYS);
	for (u32 i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(apf_msr_write(&vcpus[0], KVM_MSR_ASYNC_PF_EN, bad[i]), ERR_INVAL);
	assert_true(apf_msr_read(&vcpus[0], KVM_MSR_ASYNC_PF_EN, &value));
	assert_int_equal(value, AREA(0) | ON | ALWAYS);
	assert_int_equal(apf_msr_write(&vcpus[0], KVM_MSR_ASYNC_PF_INT, 0x100), ERR_INVAL);
	assert_true(apf_msr_read(&vcpus[0], KVM_MSR_ASYNC_PF_INT, &value));
	assert_int_equal(value, VECTOR);
	assert_true(apf_msr_read(&vcpus[0], KVM_MSR_ASYNC_PF_ACK, &value));
	assert_int_equal(value, 0);
	for (u32 msr = 0x4b564d00; msr < 0x4b564d10; msr++)
		if (msr != KVM_MSR_ASYNC_PF_EN && msr != KVM_MSR_ASYNC_PF_INT &&
		    msr != KVM_MSR_ASYNC_PF_ACK) {
			assert_false(apf_msr_read(&vcpus[0], msr, &value));
			assert_int_equal(apf_msr_write(&vcpus[0], msr, 0), ERR_INVAL);
		}
	/* The other vCPU has its own. */
	assert_true(apf_msr_read(&vcpus[1], KVM_MSR_ASYNC_PF_EN, &value));
	assert_int_equal(value, 0);
}

static void test_told(void **state)
{
	struct async_stats stats;
	u32 page, token;

	start();
	area(0)[0] = area(0)[1] = 5;
	enable(0, 0);
	assert_int_equal(area(0)[0] | area(0)[1], 0);
	page = away_from(64, 0);
	assert_true(touch(0, page));
	token = take_fault(0);
	assert_int_not_equal(token, 0);
	assert_int_equal(interrupts[0], 0);
	complete_all();
	assert_int_equal(interrupts[0], 1);
	assert_int_equal(area(0)[1], token);
	async_end(&r, page);
	acknowledge(0);
	assert_int_equal(interrupts[0], 1);
	async_stats(&r, &stats);
	assert_int_equal(stats.faults, 1);
	assert_int_equal(stats.ready, 1);
	assert_int_equal(stats.waits, 0);
}

static void test_refused(void **state)
{
	static const struct {
		u32 field;
		u64 value;
		bool always, told;
	} cases[] = {
		{VMCS_GUEST_RFLAGS, 2, true, false},
		{VMCS_GUEST_INTERRUPTIBILITY, 1, true, false}, /* STI */
		{VMCS_GUEST_INTERRUPTIBILITY, 2, true, false}, /* MOV SS */
		{VMCS_GUEST_INTERRUPTIBILITY, 4, true, false}, /* SMI */
		{VMCS_GUEST_INTERRUPTIBILITY, 8, true, false}, /* NMI */
		{VMCS_GUEST_CR0, 0x50033, true, false},
		{VMCS_GUEST_SS_AR, 0xc093, false, false},
		{VMCS_GUEST_SS_AR, 0xc093, true, true},
		{VMCS_GUEST_SS_AR, 0xc0b3, false, false}, /* CPL 1 */
		{VMCS_GUEST_SS_AR, 0xc0f3, false, true},
	};
	struct async_stats stats;

	for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
		start();
		enable(0, cases[i].always ? ALWAYS : 0);
		fake_vmcs[cases[i].field] = cases[i].value;
		assert_int_equal(touch(0, away_from(64, 0)), cases[i].told);
		async_stats(&r, &stats);
		assert_int_equal(stats.waits, !cases[i].told);
	}
	start();
	assert_false(touch(0, away_from(64, 0))); /* disabled */
	write_msr(0, KVM_MSR_ASYNC_PF_EN, AREA(0) | 1);
	assert_false(touch(0, away_from(64, 0))); /* not by interrupt */
	enable(0, 0);
	write_msr(0, KVM_MSR_ASYNC_PF_INT, 15);
	assert_false(touch(0, away_from(64, 0))); /* no vector */
	write_msr(0, KVM_MSR_ASYNC_PF_INT, VECTOR);
	vcpus[0].event.info = 0x80000030;
	assert_false(touch(0, away_from(64, 0))); /* an event is on its way */
	vcpus[0].event.info = 0;
	area(0)[0] = 1;
	assert_false(touch(0, away_from(64, 0))); /* the last one has not been seen */
	area(0)[0] = 0;
	assert_false(touch(1, away_from(64, 0))); /* the other vCPU is not enabled */
	assert_true(touch(0, away_from(64, 0)));
}

static void test_several(void **state)
{
	u32 token[ASYNC_FAULTS], page;

	start();
	enable(0, 0);
	enable(1, 0);
	page = away_from(64, 0);
	for (u32 i = 0; i < ASYNC_FAULTS; i++) {
		/* All for one page, but for the last. */
		if (i == ASYNC_FAULTS - 1)
			page = away_from(page + 1, 0);
		assert_true(touch(0, page));
		token[i] = take_fault(0);
		assert_int_not_equal(token[i], 0);
		assert_int_not_equal(token[i], ALL);
		for (u32 k = 0; k < i; k++)
			assert_int_not_equal(token[k], token[i]);
	}
	assert_false(touch(0, page)); /* as many as there can be */
	assert_true(touch(1, page));  /* the same page by another vCPU */
	take_fault(1);
	assert_int_not_equal((u32)last_cr2, token[ASYNC_FAULTS - 1]);
	complete_all();
	assert_int_equal(interrupts[1], 1);
	for (u32 i = 0; i < ASYNC_FAULTS; i++) {
		assert_int_equal(interrupts[0], i + 1);
		assert_int_equal(area(0)[1], token[i]);
		/* Neither of the two alone. */
		if (i & 1) {
			write_msr(0, KVM_MSR_ASYNC_PF_ACK, 1);
		} else {
			area(0)[1] = 0;
			write_msr(0, KVM_MSR_ASYNC_PF_ACK, 0);
			write_msr(0, KVM_MSR_ASYNC_PF_INT, VECTOR);
		}
		assert_int_equal(interrupts[0], i + 1);
		acknowledge(0);
	}
	assert_int_equal(interrupts[0], ASYNC_FAULTS);
	assert_true(touch(0, away_from(64, 0))); /* there is room again */
}

/* Pages come in another order than they were asked for. */
static void test_order(void **state)
{
	struct pager_place place;
	struct pager_op first, other;
	u32 token[2];

	start();
	enable(0, 0);
	for (u32 i = 0; i < 2; i++) {
		assert_true(touch(0, away_from(64, 0)));
		token[i] = take_fault(0);
	}
	assert_true(pager_next(r.pager, &first));
	assert_true(pager_next(r.pager, &other));
	pager_done(r.pager, &other, true, 0, &place);
	async_end(&r, other.page);
	assert_int_equal(area(0)[1], token[1]);
	acknowledge(0);
	assert_int_equal(interrupts[0], 1);
	pager_done(r.pager, &first, true, 0, &place);
	async_end(&r, first.page);
	assert_int_equal(interrupts[0], 2);
	assert_int_equal(area(0)[1], token[0]);
}

static void test_disabled(void **state)
{
	u32 token;

	start();
	enable(0, 0);
	assert_true(touch(0, away_from(64, 0)));
	take_fault(0);
	write_msr(0, KVM_MSR_ASYNC_PF_EN, 0);
	complete_all();
	assert_int_equal(interrupts[0], 0);
	enable(0, 0);
	assert_int_equal(interrupts[0], 1);
	assert_int_equal(area(0)[1], ALL);
	acknowledge(0);
	assert_int_equal(interrupts[0], 1);
	/* Nobody can wait. */
	write_msr(0, KVM_MSR_ASYNC_PF_EN, 0);
	enable(0, 0);
	assert_int_equal(interrupts[0], 1);
	/* Another area or other wishes: what is under way stays. */
	assert_true(touch(0, away_from(64, 0)));
	token = take_fault(0);
	write_msr(0, KVM_MSR_ASYNC_PF_EN, AREA(1) | ON | ALWAYS);
	complete_all();
	assert_int_equal(interrupts[0], 2);
	assert_int_equal(area(1)[1], token);
	/* Disabled before the guest has looked. */
	write_msr(0, KVM_MSR_ASYNC_PF_EN, 0);
	enable(0, 0);
	assert_int_equal(area(0)[1], ALL);
}

static void test_reset(void **state)
{
	u64 value;

	start();
	enable(0, ALWAYS);
	assert_true(touch(0, away_from(64, 0)));
	apf_reset(&vcpus[0]);
	complete_all();
	assert_int_equal(interrupts[0], 0);
	assert_int_equal(area(0)[1], 0);
	assert_true(apf_msr_read(&vcpus[0], KVM_MSR_ASYNC_PF_EN, &value));
	assert_int_equal(value, 0);
	assert_true(apf_msr_read(&vcpus[0], KVM_MSR_ASYNC_PF_INT, &value));
	assert_int_equal(value, 0);
	vcpus[0].event.info = 0;
	assert_false(touch(0, away_from(64, 0)));
	enable(0, 0);
	assert_int_equal(interrupts[0], 0);
}

static void test_apic_off(void **state)
{
	start();
	enable(0, 0);
	assert_true(touch(0, away_from(64, 0)));
	take_fault(0);
	apic_off = true;
	complete_all();
	assert_int_equal(interrupts[0], 0);
	assert_int_equal(area(0)[1], 0);
	apic_off = false;
	apf_apic_changed(&vcpus[0]);
	assert_int_equal(interrupts[0], 1);
}

/* The area is here as long as it is in use, and may go afterwards. */
static void test_pinned(void **state)
{
	u32 page = AREA(0) / PAGE_SIZE;

	start();
	area_away = true;
	write_msr(0, KVM_MSR_ASYNC_PF_INT, VECTOR);
	assert_int_equal(apf_msr_write(&vcpus[0], KVM_MSR_ASYNC_PF_EN, AREA(0) | ON), ERR_AGAIN);
	assert_false(touch(0, away_from(64, 0)));
	area_away = false;
	enable(0, 0);
	enable(0, ALWAYS); /* one pin all the same */
	complete_all();
	area(0)[2] = 1;
	fill(64, 400);
	assert_int_equal(pager_state(r.pager, page), PAGER_HERE);
	write_msr(0, KVM_MSR_ASYNC_PF_EN, 0);
	fill(64, 400);
	assert_int_equal(pager_state(r.pager, page), PAGER_AWAY);
}

static void test_seen(void **state)
{
	start();
	enable(0, 0);
	assert_false(apf_seen(&vcpus[0])); /* CR2 is 0, and there has been none */
	assert_true(touch(0, away_from(64, 0)));
	assert_false(apf_seen(&vcpus[0]));
	take_fault(0);
	assert_true(apf_seen(&vcpus[0]));
	fake_cr2 ^= 0x1000; /* one of the guest's own */
	assert_false(apf_seen(&vcpus[0]));
}

/* Whatever the guest does: each end comes once, for what it has been told of. */
static void test_random(void **state)
{
	u32 waiting[2 * ASYNC_FAULTS], count = 0, old = 0, told = 0, ended = 0, handled = 0;
	bool woken = false;

	start();
	enable(0, 0);
	srand(7);
	for (u32 i = 0; i < 20000; i++) {
		switch (rand() % 8) {
		case 0:
		case 1:
		case 2:
			if (pager_free(r.pager) < 4) {
				complete_all();
				fill(64 + (u32)rand() % 300, 40);
			}
			if (rand() % 4 && touch(0, away_from(64, (u32)rand() % 8))) {
				told++;
				waiting[count++] = take_fault(0);
			}
			break;
		case 3:
			complete_all();
			fill(64 + (u32)rand() % 300, 4);
			break;
		case 4:
			if (rand() % 50)
				break;
			write_msr(0, KVM_MSR_ASYNC_PF_EN, 0);
			woken = count || area(0)[1];
			old = count;
			enable(0, 0);
			/* Interrupts of one vector that are pending are one. */
			handled = interrupts[0] - !!area(0)[1];
			break;
		default:
			if (handled == interrupts[0])
				break;
			handled++;
			if (area(0)[1] == ALL) {
				assert_true(woken);
				woken = false;
				ended += old;
				count -= old;
				memmove(waiting, waiting + old, count * sizeof(waiting[0]));
			} else {
				u32 k = 0;

				while (k < count && waiting[k] != area(0)[1])
					k++;
				assert_in_range(k, 0, count - 1);
				waiting[k] = waiting[--count];
				ended++;
			}
			acknowledge(0);
			break;
		}
		assert_in_range(interrupts[0], handled, handled + 1);
	}
	assert_int_equal(told, ended + count);
	assert_in_range(told, 1000, 20000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_not_offered), cmocka_unit_test(test_msrs),
		cmocka_unit_test(test_told),	    cmocka_unit_test(test_refused),
		cmocka_unit_test(test_several),	    cmocka_unit_test(test_order),
		cmocka_unit_test(test_disabled),    cmocka_unit_test(test_reset),
		cmocka_unit_test(test_apic_off),    cmocka_unit_test(test_pinned),
		cmocka_unit_test(test_seen),	    cmocka_unit_test(test_random),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	stop();
	return failed;
}
