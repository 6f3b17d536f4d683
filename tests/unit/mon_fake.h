/*
 * The world around hv/mon/: a console, VMs that only note what is done to them, guest memory. For
 * the unit test and the fuzzer.
 */
#pragma once

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/log.h"
#include "mon/mon.h"
#include "pmem/pmem.h"
#include "vm/console.h"
#include "vm/control.h"
#include "vm/internal.h"
#include "remote/remote.h"
#include "remote/service.h"
#include "vm/stats.h"
#include "vm/trace.h"
#include "x86/regs.h"
#include "x86/tsc.h"

#define FAKE_VMS 3
#define FAKE_RAM (16 * 4096u)

#define FAKE_CHECK(cond)                                                           \
	do {                                                                       \
		if (!(cond)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond); \
			abort();                                                   \
		}                                                                  \
	} while (0)

u64 tsc_hz = 1000000000, tsc_start;
struct vm *vms[BOOT_MAX_VMS];
u32 vm_count;

static struct boot_vm fake_config[FAKE_VMS] = {
	{.name = "alpha", .vcpus = 2, .memory = 64 * MIB},
	{.name = "beta", .vcpus = 1, .memory = 4 * MIB},
	{.name = "alphabet", .vcpus = 1, .memory = 4 * MIB},
};
static struct vm fake_vm[FAKE_VMS];
static struct vcpu fake_vcpu[FAKE_VMS][2];
static u8 fake_ram[FAKE_RAM] __aligned(4096);
static struct region fake_regions[2] = {
	{.bytes = FAKE_RAM, .kind = REGION_RAM},
	{.base = {0xfee00000}, .bytes = 4096, .kind = REGION_MMIO},
};
static struct vcpu_regs fake_regs;

/* What happened. */
static struct {
	bool held, power_fails;
	u32 looks, nmis, powers, ends, restarts, starts, focus, previous, shut_downs;
	u32 look_delay; /* polls until registers are there */
	bool trace_on;
	bool network;
	u32 network_busy; /* so often it is being used */
	u64 log_bytes, log_line;
} fake;

/* --- the console ------------------------------------------------------------------------------ */

static const u8 *fake_input;
static size_t fake_input_left;
static char fake_out[1 << 20];
static size_t fake_out_len;
static u32 fake_unsent;

u32 console_focus(void)
{
	return fake.focus;
}

u32 console_previous(void)
{
	return fake.previous;
}

void console_set_focus(u32 focus)
{
	fake.focus = focus;
}

int console_monitor_get(void)
{
	if (!fake_input_left)
		return -1;
	fake_input_left--;
	return *fake_input++;
}

bool console_monitor_break(void)
{
	return fake_input_left && *fake_input == CTRL('c');
}

u32 console_unsent(void)
{
	return fake_unsent;
}

void console_print(const char *text)
{
	size_t len = strlen(text);

	/* One poll must not get near the size of the ring. */
	fake_unsent += (u32)len;
	FAKE_CHECK(fake_unsent < 8192);
	if (fake_out_len + len >= sizeof(fake_out))
		fake_out_len = 0;
	memcpy(fake_out + fake_out_len, text, len + 1);
	fake_out_len += len;
}

/* --- VMs: all but the console only while they are held ---------------------------------------- */

bool vms_hold(void)
{
	FAKE_CHECK(!fake.held);
	fake.held = true;
	return true;
}

void vms_release(void)
{
	FAKE_CHECK(fake.held);
	fake.held = false;
}

const struct boot_vm *vm_config(u32 id)
{
	FAKE_CHECK(id < vm_count);
	return &fake_config[id];
}

bool vm_paused(const struct vm *vm)
{
	return vm->pause.on;
}

void vm_pause(struct vm *vm)
{
	FAKE_CHECK(fake.held && vm->state == VM_RUNNING);
	vm->pause.on = 1;
}

void vm_resume(struct vm *vm)
{
	FAKE_CHECK(fake.held && vm->state == VM_RUNNING);
	vm->pause.on = 0;
}

void vm_end(struct vm *vm, u32 status, const char *fmt, ...)
{
	FAKE_CHECK(fake.held && vm->state == VM_RUNNING);
	vm->state = VM_ENDING;
	vm->exit_status = status;
	snprintf(vm->reason, sizeof(vm->reason), "%s", fmt);
	fake.ends++;
}

void vm_restart(struct vm *vm, const char *why)
{
	FAKE_CHECK(fake.held && vm->state == VM_RUNNING);
	fake.restarts++;
}

bool vm_start_again(struct vm *vm)
{
	FAKE_CHECK(fake.held && vm->state != VM_RUNNING);
	fake.starts++;
	return vm->state == VM_FREE;
}

void vcpu_post_nmi(struct vcpu *vcpu)
{
	FAKE_CHECK(fake.held && vcpu->vm->state == VM_RUNNING);
	fake.nmis++;
}

void platform_power_button(struct vm *vm)
{
	FAKE_CHECK(fake.held && vm->state == VM_RUNNING && !vm->pause.on);
	fake.powers++;
}

int pmem_set_mode(struct vm *vm, u32 number, u32 mode)
{
	FAKE_CHECK(fake.held && vm->state == VM_RUNNING && number < vm->pmem->count && mode < 3);
	if (mode == 1)
		return ERR_INVAL;
	vm->pmem->region[number].mode = mode;
	return 0;
}

int pmem_cut(struct vm *vm)
{
	FAKE_CHECK(fake.held && vm->state == VM_RUNNING);
	vm->pmem->cuts++;
	return 0;
}

int pmem_cut_within(struct vm *vm, u64 ticks, u64 seed)
{
	FAKE_CHECK(fake.held && vm->state == VM_RUNNING);
	if (ticks > 1000000)
		return ERR_INVAL;
	vm->pmem->cut_at = ticks;
	vm->pmem->random = seed;
	return 0;
}

void pmem_power_fails(void)
{
	fake.power_fails = true;
}

void vm_shut_down(const char *why)
{
	FAKE_CHECK(!fake.held && fake.power_fails);
	fake.shut_downs++;
}

void vcpu_look(struct vcpu *vcpu)
{
	FAKE_CHECK(fake.held && vcpu->vm->state == VM_RUNNING);
	fake.looks++;
	fake.look_delay = 2;
}

bool vcpu_look_result(struct vcpu_regs *out)
{
	if (fake.look_delay) {
		fake.look_delay--;
		return false;
	}
	*out = fake_regs;
	return true;
}

/* --- memory ----------------------------------------------------------------------------------- */

static bool in_ram(gpa_t at, size_t len)
{
	return at.v <= FAKE_RAM && FAKE_RAM - at.v >= len;
}

int guest_read(struct vm *vm, gpa_t from, void *to, size_t len)
{
	FAKE_CHECK(fake.held && vm->state == VM_RUNNING);
	if (!in_ram(from, len))
		return ERR_FAULT;
	memcpy(to, fake_ram + from.v, len);
	return 0;
}

int guest_read_word(struct vm *vm, gpa_t at, unsigned int size, u64 *value)
{
	FAKE_CHECK(fake.held && vm->state == VM_RUNNING);
	if (!in_ram(at, size))
		return ERR_FAULT;
	*value = 0;
	memcpy(value, fake_ram + at.v, size);
	return 0;
}

int guest_cmpxchg(struct vm *vm, gpa_t at, unsigned int size, u64 old, u64 new)
{
	FAKE_CHECK(!"the monitor changes nothing");
	return ERR_FAULT;
}

const struct region *space_find(const struct space *space, gpa_t at)
{
	for (unsigned int i = 0; i < 2; i++)
		if (at.v - fake_regions[i].base.v < fake_regions[i].bytes)
			return &fake_regions[i];
	return NULL;
}

u64 space_perms(const struct space *space, gpa_t at)
{
	return at.v >> 12 == 2 ? EPT_R : EPT_RWX;
}

int ept_lookup(struct ept_view *view, gpa_t at, struct ept_leaf *out)
{
	FAKE_CHECK(fake.held);
	if (at.v >= FAKE_RAM)
		return ERR_NOENT;
	*out = (struct ept_leaf){
		.frame = {0x5000000 + at.v},
		.shift = at.v >> 12 == 2 ? 12 : 21,
		.perms = at.v >> 12 == 2 ? EPT_R : EPT_RWX,
		.type = EPT_WB,
		.dirty = true,
	};
	return 0;
}

/* --- counters, trace, log --------------------------------------------------------------------- */

int service_view(struct service_view *out)
{
	if (!fake.network)
		return ERR_NODEV;
	if (fake.network_busy && fake.network_busy--)
		return ERR_BUSY;
	*out = (struct service_view){
		.state = NET_UP,
		.nic = "82574L at 00:02.0",
		.mac = {2, 0, 0, 0, 0, 7},
		.ip = 0x0a4d0001,
		.net = {.rx_frames = 10, .rx_bytes = 1000, .rx_errors = 1, .rx_missed = 2},
	};
	out->link[3].state = LINK_UP;
	out->link[3].ip = 0x0a4d0002;
	out->link[3].port = 7471;
	out->link[3].slice = 1;
	out->link[3].length = 64 * MIB;
	out->link[3].connections = 2;
	out->link[3].failures = 1;
	out->link[3].round_trip = 150000;
	out->link[5].state = LINK_WAITING;
	out->link[5].ip = 0x0a4d0003;
	out->link[5].port = 7000;
	out->link[5].refused = 28;
	return 0;
}

/* VM `beta` has remote memory. */
bool remote_view(const struct vm *vm, struct remote_view *out)
{
	if (vm->id != 1)
		return false;
	*out = (struct remote_view){.pages = 2048,
				    .frames = 512,
				    .free = 12,
				    .away = 1000,
				    .nodes = 2,
				    .replicas = 2,
				    .sealed = true,
				    .node = {{true, 3000, 990}, {.taken = 10}}};
	out->store.nodes_up = 1;
	out->pager.prefetched = 50;
	out->pager.prefetch_hits = 30;
	out->pager.latency[7] = 64;
	out->pager.latency[9] = 16;
	out->pager.latency_sum = 80 * 150000;
	return true;
}

void stats_vcpu(const struct vcpu *vcpu, struct stats *out)
{
	FAKE_CHECK(fake.held);
	memset(out, 0, sizeof(*out));
	out->exits[EXIT_HLT] = 30;
	out->exits[EXIT_VMCALL] = 60;
	out->exits[EXIT_CPUID] = 10;
	out->total = 100;
	out->injections = 7;
	out->run_tsc = 5000000;
}

void stats_vm(const struct vm *vm, struct stats *out)
{
	stats_vcpu(vm->vcpu[0], out);
}

const char *trace_detail_name(u32 reason)
{
	return reason == EXIT_CPUID ? "leaf" : "";
}

int trace_set(struct vm *vm, bool on)
{
	FAKE_CHECK(fake.held && vm->state == VM_RUNNING);
	fake.trace_on = on;
	return 0;
}

bool trace_is_on(const struct vm *vm)
{
	return fake.trace_on;
}

u64 trace_count(const struct vcpu *vcpu)
{
	return 1000;
}

bool trace_read(const struct vcpu *vcpu, u64 back, struct trace_entry *out)
{
	*out = (struct trace_entry){.tsc = (1000 - back) * 1000000,
				    .rip = 0x1000 + back,
				    .reason = EXIT_CPUID,
				    .detail = 0x40000000,
				    .cost = 1234};
	return back < 1000;
}

size_t log_ring_tail(char *buf, size_t len)
{
	size_t n = 0;

	while (n < fake.log_bytes && n < len) {
		buf[n] = (fake.log_bytes - n) % fake.log_line == 1 ? '\n' : 'x';
		n++;
	}
	return n;
}

bool str_copy(char *dst, size_t size, const char *src)
{
	return (size_t)snprintf(dst, size, "%s", src) < size;
}

/* -------------------------------------------------------------------------------------------- */

/* Three VMs: the first runs with two vCPUs, the second runs, the third has not been started. */
static inline void fake_start(void)
{
	memset(&fake, 0, sizeof(fake));
	memset(fake_vm, 0, sizeof(fake_vm));
	fake.focus = BOOT_FOCUS_MONITOR;
	fake.log_line = 32;
	fake.previous = BOOT_FOCUS_VM + 1;
	vm_count = FAKE_VMS;
	for (u32 i = 0; i < FAKE_VMS; i++) {
		vms[i] = &fake_vm[i];
		fake_vm[i].id = i;
		if (i == 2)
			continue;
		fake_vm[i].config = &fake_config[i];
		fake_vm[i].state = VM_RUNNING;
		fake_vm[i].vcpu_count = fake_config[i].vcpus;
		for (u32 v = 0; v < 2; v++) {
			fake_vm[i].vcpu[v] = &fake_vcpu[i][v];
			fake_vcpu[i][v].vm = &fake_vm[i];
			fake_vcpu[i][v].index = v;
		}
	}
	fake_out_len = 0;
	fake_out[0] = 0;
	fake_unsent = 0;
	fake_input_left = 0;
}

/* The line takes what there is after each poll. */
static inline void fake_poll(u32 times)
{
	while (times--) {
		fake_unsent = 0;
		monitor_poll();
		FAKE_CHECK(!fake.held);
	}
}
