/*
 * No interrupt gets lost on its way from one CPU to another: two threads are CPUs, one posts, the
 * other enters and leaves its guest by the real vcpu_prepare(), event_deliver() and platform, and
 * is interrupted just as the hardware would do it. A vector that is not delivered in time is a
 * failure.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "dev/platform.h"
#include "lib/log.h"
#include "vm/console.h"
#include "vm/internal.h"
#include "vmx/entry_check.h"
#include "x86/regs.h"

#define CPUS	     2
#define TEST_SECONDS 1.5
#define LOST_SECONDS 5.0
#define SELF_VECTOR  0x1f /* of lowest priority, so that others come in between */

u64 fake_vmcs[0x8000];
__thread u32 fake_cpu;
struct cpu machine_cpus[MAX_CPUS] = {{.index = 0}, {.index = 1}};
u64 tsc_hz = 1000000000, vmx_features;
u8 vmx_timer_shift;
struct vmx_caps vmx_caps;
struct ept_view *ept_running[EPT_MAX_CPUS];
const exit_handler_fn exit_handlers[EXIT_COUNT];

static struct boot_vm config = {.name = "test", .memory = 64 * MIB, .vcpus = CPUS, .x2apic = 1};
static struct vm vm;
static struct vcpu vcpus[CPUS];
static struct posted posted[CPUS];
static struct ept_view view;
static u8 pages[CPUS][4096] __aligned(4096);

/* Interrupts of the machine that are on their way to CPU 1. Atomic. */
static u32 kicked, notified;
static u64 delivered[256]; /* atomic */
static u32 self_sent;
static bool stop; /* atomic */

/* --- what the files under test need ----------------------------------------------------------- */

void sched_kick(struct vcpu *vcpu)
{
	if (__atomic_load_n(&ept_running[vcpu->cpu], __ATOMIC_SEQ_CST))
		__atomic_store_n(&kicked, 1, __ATOMIC_SEQ_CST);
}

void sched_notify(struct vcpu *vcpu)
{
	if (__atomic_load_n(&ept_running[vcpu->cpu], __ATOMIC_SEQ_CST))
		__atomic_store_n(&notified, 1, __ATOMIC_SEQ_CST);
}

void cpu_take_interrupts(void)
{
	__atomic_store_n(&kicked, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&notified, 0, __ATOMIC_SEQ_CST);
}

struct vcpu *sched_current(void)
{
	return &vcpus[fake_cpu];
}

int sched_tick(struct vcpu *vcpu, u64 now)
{
	return RUN_AGAIN;
}

bool control_serve(struct vcpu *vcpu, u32 requests)
{
	return true;
}

void sched_deadline(struct vcpu *vcpu, u64 now)
{
	vcpu->deadline = ~0ull;
}

void vcpu_set_proc(struct vcpu *v, u32 set, u32 clear)
{
	v->proc = (v->proc & ~clear) | set;
}

void *heap_alloc(u64 bytes)
{
	return calloc(1, bytes);
}

void heap_free(void *p, u64 bytes)
{
	free(p);
}

int space_add_mmio(struct vm *v, gpa_t base, u64 bytes, u32 device)
{
	return 0;
}

s64 wallclock_read(void)
{
	return 0;
}

int console_get(struct vm *v)
{
	return -1;
}

void console_put(struct vm *v, u8 byte)
{
}

void vcpu_apic_mode_changed(struct vcpu *v)
{
}

/* Must not happen. */
#define NEVER(declaration)                                \
	declaration                                       \
	{                                                 \
		print_error("%s was called\n", __func__); \
		abort();                                  \
	}
NEVER(void ept_catch_up(struct ept_view *v, u32 cpu, u64 generation))
NEVER(void vcpu_state_reset(struct vcpu *v, bool init))
NEVER(void vcpu_state_bios(struct vcpu *v))
NEVER(void vcpu_state_sipi(struct vcpu *v, u8 vector))
NEVER(void vm_end(struct vm *v, u32 status, const char *fmt, ...))
NEVER(void vm_restart(struct vm *v, const char *why))
NEVER(void vm_log_refusal(struct vcpu *v, const char *what, u64 key))
NEVER(void watch_exit(struct vcpu *v, u32 reason))
NEVER(void watch_follow(struct vcpu *v))
NEVER(void watch_done(struct vcpu *v))
NEVER(void trace_report(const struct vcpu *v))
NEVER(void log_print(enum log_level level, const char *fmt, ...))
NEVER(const char *vmcs_field_name(u32 field))
NEVER(const char *exit_reason_name(u32 reason))
NEVER(const char *instruction_error_name(u32 error))
NEVER(unsigned int entry_check(const struct entry_source *s, const struct vmx_caps *caps,
			       entry_report_fn report, void *ctx))

/* --- the processor of CPU 1 ------------------------------------------------------------------- */

static u64 random_state = 88172645463325252ull;

static u64 random64(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static int scan(u32 base)
{
	for (int v = 255; v >= 0; v--)
		if (lapic_reg(vcpus[1].lapic, base + (u32)v / 32 * 16) >> (v % 32) & 1)
			return v;
	return 0;
}

static void set_bit(u32 base, unsigned int v, bool on)
{
	u32 *word = (u32 *)(void *)(pages[1] + base + v / 32 * 16);

	*word = on ? *word | BIT(v % 32) : *word & ~BIT(v % 32);
}

static void arrived(unsigned int vector)
{
	__atomic_add_fetch(&delivered[vector], 1, __ATOMIC_SEQ_CST);
}

/* Posted-interrupt processing (SDM 30.6). */
static void process_posted(void)
{
	unsigned int rvi = fake_vmcs[VMCS_GUEST_INTERRUPT_STATUS] & 0xff;

	__atomic_and_fetch(&posted[1].control, ~1u, __ATOMIC_SEQ_CST);
	for (unsigned int v = 0; v < 256; v++)
		if (__atomic_fetch_and(&posted[1].pir[v / 64], ~BIT64(v % 64), __ATOMIC_SEQ_CST) >>
			    (v % 64) &
		    1) {
			set_bit(LAPIC_IRR, v, true);
			rvi = MAX(rvi, v);
		}
	fake_vmcs[VMCS_GUEST_INTERRUPT_STATUS] &= 0xff00;
	fake_vmcs[VMCS_GUEST_INTERRUPT_STATUS] |= rvi;
}

/* Virtual-interrupt delivery, and the handler's EOI (SDM 30.1.4, 30.2.2). */
static void deliver_virtual(void)
{
	for (;;) {
		unsigned int rvi = fake_vmcs[VMCS_GUEST_INTERRUPT_STATUS] & 0xff;

		if (!rvi)
			return;
		/* RVI that IRR does not explain would deliver an interrupt that nobody sent. */
		assert_int_equal(rvi, scan(LAPIC_IRR));
		set_bit(LAPIC_IRR, rvi, false);
		fake_vmcs[VMCS_GUEST_INTERRUPT_STATUS] = (u64)scan(LAPIC_IRR);
		arrived(rvi);
	}
}

/* With more threads than processors nothing is won by spinning. */
static void spin(void)
{
	static __thread unsigned int spins;

	if (++spins % 1024 == 0)
		sched_yield();
}

/* In guest mode until something makes it leave; true if that is an interrupt window. */
static bool guest(struct vcpu *v)
{
	u32 info = (u32)fake_vmcs[VMCS_ENTRY_INTR_INFO];
	u64 stay = random64() % 200;
	bool vid = v->proc2 & PROC2_VIRTUAL_INTERRUPT;

	fake_vmcs[VMCS_ENTRY_INTR_INFO] = 0;
	if (info) {
		assert_true(fake_vmcs[VMCS_GUEST_RFLAGS] & RFLAGS_IF);
		assert_false(vid);
		arrived(info & 0xff);
		return false; /* EOI exits */
	}
	/* Some time with interrupts off, then on: CLI and STI do not exit. */
	fake_vmcs[VMCS_GUEST_RFLAGS] |= RFLAGS_IF;
	if (v->proc & PROC_INTERRUPT_WINDOW)
		return true;
	for (;;) {
		if (vid)
			deliver_virtual();
		if (__atomic_exchange_n(&kicked, 0, __ATOMIC_SEQ_CST))
			return false;
		if (__atomic_exchange_n(&notified, 0, __ATOMIC_SEQ_CST)) {
			process_posted();
			stay = random64() % 200;
		} else if (stay && !--stay && random64() % 4) {
			return false; /* it exits for a reason of its own, or stays for good */
		}
		if (__atomic_load_n(&stop, __ATOMIC_RELAXED))
			return false;
		spin();
	}
}

/* The guest's own doings after an exit. */
static void exit_work(struct vcpu *v)
{
	u64 what = random64();

	if (!(v->proc2 & PROC2_VIRTUAL_INTERRUPT) && scan(LAPIC_ISR))
		assert_true(lapic_msr_write(v->lapic, 0x80b, 0)); /* EOI */
	if (what % 8 == 0) {
		assert_true(lapic_msr_write(v->lapic, 0x83f, SELF_VECTOR));
		__atomic_add_fetch(&self_sent, 1, __ATOMIC_SEQ_CST);
	}
	if (what % 16 == 1)
		fake_vmcs[VMCS_GUEST_RFLAGS] &= ~(u64)RFLAGS_IF;
}

static void *cpu1(void *arg)
{
	struct vcpu *v = &vcpus[1];

	fake_cpu = 1;
	while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
		bool window;

		assert_int_equal(vcpu_prepare(v), RUN_AGAIN);
		assert_ptr_equal(ept_running[1], &view);
		window = guest(v);
		ept_leave(1);
		if (window)
			vcpu_request(v, REQ_IRQ);
		else
			exit_work(v);
	}
	return NULL;
}

/* --- CPU 0 ------------------------------------------------------------------------------------ */

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void start(void)
{
	memset(fake_vmcs, 0, sizeof(fake_vmcs));
	memset(&vm, 0, sizeof(vm));
	memset(vcpus, 0, sizeof(vcpus));
	memset(posted, 0, sizeof(posted));
	memset(delivered, 0, sizeof(delivered));
	memset(ept_running, 0, sizeof(ept_running));
	kicked = notified = self_sent = 0;
	stop = false;
	fake_cpu = 0;
	view.generation = 1;
	vm.config = &config;
	vm.vcpu_count = CPUS;
	for (u32 i = 0; i < CPUS; i++) {
		vcpus[i].vm = &vm;
		vcpus[i].index = vcpus[i].cpu = i;
		vcpus[i].vapic = pages[i];
		vcpus[i].posted = &posted[i];
		vcpus[i].view = &view;
		vcpus[i].deadline = ~0ull;
		view.seen[i] = 1;
		vm.vcpu[i] = &vcpus[i];
	}
	assert_int_equal(platform_create(&vm), 0);
	for (u32 i = 0; i < CPUS; i++) {
		assert_true(lapic_mmio_write(vcpus[i].lapic, LAPIC_SVR, 4, 0x1ff));
		assert_true(lapic_msr_write(vcpus[i].lapic, 0x1b, vcpus[i].lapic->base | 0x400));
	}
}

static u8 random_vector(u64 *r)
{
	*r = *r * 6364136223846793005ull + 1442695040888963407ull;
	return (u8)(0x20 + (*r >> 33) % 0xe0);
}

/* Sends one to three vectors by the ICR, and waits for all of them. */
static bool send_some(u64 *r)
{
	unsigned int n = 1 + (*r >> 40) % 3;
	u64 before[3];
	u8 vector[3];
	double since;

	for (unsigned int i = 0; i < n; i++) {
		vector[i] = random_vector(r);
		before[i] = __atomic_load_n(&delivered[vector[i]], __ATOMIC_SEQ_CST);
		assert_true(lapic_msr_write(vcpus[0].lapic, 0x830, 1ull << 32 | vector[i]));
	}
	since = seconds();
	for (unsigned int i = 0; i < n; i++)
		while (__atomic_load_n(&delivered[vector[i]], __ATOMIC_SEQ_CST) == before[i]) {
			if (seconds() - since > LOST_SECONDS)
				return false;
			spin();
		}
	return true;
}

static void run(u32 proc2, u32 pin)
{
	u64 r = 42, sent = 0;
	pthread_t thread;
	bool lost = false;
	double end;

	vmx_features = proc2 ? BIT64(FEAT_VID) : 0;
	start();
	vcpus[1].proc2 = proc2;
	vcpus[1].pin = pin;
	assert_int_equal(pthread_create(&thread, NULL, cpu1, NULL), 0);
	end = seconds() + TEST_SECONDS;
	while (!lost && seconds() < end) {
		lost = !send_some(&r);
		sent++;
	}
	/* The guest's own ones are seen at the latest in its next entry, and coalesce. */
	__atomic_store_n(&stop, true, __ATOMIC_SEQ_CST);
	pthread_join(thread, NULL);
	print_message("%llu rounds, %u to itself\n", (unsigned long long)sent, self_sent);
	assert_false(lost);
	assert_true(self_sent == 0 || delivered[SELF_VECTOR] > 0);
	for (unsigned int v = 0; v < SELF_VECTOR; v++)
		assert_int_equal(delivered[v], 0);
	platform_destroy(&vm);
}

static void injected(void **state)
{
	run(0, 0);
}

static void delivered_virtually(void **state)
{
	run(PROC2_VIRTUAL_INTERRUPT, 0);
}

static void posted_to_the_processor(void **state)
{
	run(PROC2_VIRTUAL_INTERRUPT, PIN_POSTED_INTERRUPTS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(injected),
		cmocka_unit_test(delivered_virtually),
		cmocka_unit_test(posted_to_the_processor),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
