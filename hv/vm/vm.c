/* The life of virtual machines: created from their configuration, ended, restarted. */
#include "vm/vm.h"

#include <stdarg.h>

#include "lib/log.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mem/frame.h"
#include "vm/away.h"
#include "vm/console.h"
#include "vm/internal.h"
#include "vm/load.h"
#include "vm/report.h"
#include "x86/asm.h"
#include "x86/cpu.h"
#include "x86/tsc.h"

struct vm *vms[BOOT_MAX_VMS];
u32 vm_count;
const struct boot_info *vm_boot;

static struct vm vm_storage[BOOT_MAX_VMS];
static struct load_result load_results[BOOT_MAX_VMS];
static struct spinlock life_lock; /* creation and end of VMs */
static u32 next_vm;		  /* the next to start, in order = sequence */
static u32 running;		  /* VMs that have started and not ended */
static u32 final_status;	  /* of the machine: see scripts/run */
static u32 next_cpu;		  /* where the next unpinned vCPU goes */
static u32 passed, ended;
static bool started;
static bool closing; /* atomic: no VM starts any more */

/*
 * Bitmaps A and B, and a page more: for ports 0xfff8 and up Bochs (2.7, 3.0) reads 16 bits
 * at the last byte of B, and should that page be an APIC-access page, an OUT would be an APIC
 * access.
 */
#define IO_BITMAP_BYTES (3 * PAGE_SIZE)

/* A guest that does nothing but restart fills no log: it takes milliseconds for a line. */
#define RESTARTS_LOGGED 8

/*
 * What does not fit the VM's frames goes to its memory nodes at once. Page by page: one that has to
 * wait for a frame must not make those before it be written, and fetched for that, again.
 */
static int load_pages(struct vm *vm, gpa_t to, const u8 *src, u64 len)
{
	while (len) {
		u64 n = MIN(len, PAGE_SIZE - to.v % PAGE_SIZE);
		int err = src ? guest_write(vm, to, src, n) : guest_zero(vm, to, n);

		if (err && err != ERR_AGAIN)
			return err;
		if (err) {
			remote_poll(rdtsc());
			continue;
		}
		src = src ? src + n : NULL;
		to = gpa_add(to, n);
		len -= n;
	}
	return 0;
}

static int load_write(void *ctx, gpa_t to, const void *src, u64 len)
{
	return load_pages(ctx, to, src, len);
}

static int load_zero(void *ctx, gpa_t to, u64 len)
{
	return load_pages(ctx, to, NULL, len);
}

static int load_image(struct vm *vm)
{
	const struct boot_vm *config = vm->config;
	struct load_target target = {.ctx = vm, .write = load_write, .zero = load_zero};
	struct guest_image modules[BOOT_MAX_MODULES];
	struct load_request request = {
		.kernel = {phys_to_ptr(hpa(config->kernel.base)), config->kernel.bytes,
			   config->kernel.path, NULL},
		.modules = modules,
		.module_count = config->module_count,
		.protocol = config->protocol,
		.cmdline = config->cmdline,
		.rsdp = platform_rsdp(vm),
	};
	struct load_result *result = &load_results[vm->id];
	int err;

	for (u32 i = 0; i < config->module_count; i++)
		modules[i] = (struct guest_image){phys_to_ptr(hpa(config->module[i].base)),
						  config->module[i].bytes, config->module[i].path,
						  config->module_args[i]};
	load_split_ram(config->memory, &target.ram_low, &target.ram_high);
	/* First: a kernel may be loaded over it. */
	err = bios_install(vm);
	if (!err)
		err = guest_load(&request, &target, result);
	if (err)
		log_warn("vm %s: cannot load %s: %s", config->name, config->kernel.path,
			 result->reason);
	return err;
}

void vm_vcpu_start_state(struct vcpu *vcpu)
{
	const struct load_result *r = &load_results[vcpu->vm->id];

	if (!vcpu->bsp)
		return;
	if (r->long64)
		vcpu_state_long64(vcpu, &(struct start64){.rip = r->entry,
							  .rsp = r->stack,
							  .rsi = r->rsi,
							  .cr3 = r->cr3,
							  .gdt_base = r->gdt_base,
							  .gdt_limit = r->gdt_limit});
	else
		vcpu_state_flat32(vcpu, r->entry, r->eax, r->ebx);
}

static u32 place_vcpu(const struct boot_vm *config, u32 index)
{
	u32 cpu = config->pin_count ? config->pin[index % config->pin_count] : next_cpu++;

	return cpu % cpu_count;
}

static void destroy(struct vm *vm)
{
	remote_destroy(vm);
	if (vm->platform)
		platform_destroy(vm);
	for (u32 i = 0; i < vm->vcpu_count; i++)
		if (vm->vcpu[i])
			vcpu_destroy(vm->vcpu[i]);
	if (vm->apic_access.v)
		frame_free(FRAME_HV, vm->apic_access, PAGE_SIZE);
	if (vm->io_bitmap.v)
		frame_free(FRAME_HV, vm->io_bitmap, IO_BITMAP_BYTES);
	space_destroy(vm);
}

static int create_memory(struct vm *vm)
{
	int err = space_init(vm, vm->config->memory);

	if (!err)
		err = frame_alloc(FRAME_HV, IO_BITMAP_BYTES, PAGE_SIZE, &vm->io_bitmap);
	if (!err) /* every port exits: the policy is platform_port_in/out() */
		memset(phys_to_ptr(vm->io_bitmap), 0xff, IO_BITMAP_BYTES);
	if (!err && vmx_has(FEAT_APIC_ACCESS) && vmx_has(FEAT_APIC_REG))
		err = frame_alloc_page(FRAME_HV, &vm->apic_access);
	return err;
}

static int create_vcpus(struct vm *vm)
{
	for (u32 i = 0; i < vm->vcpu_count; i++) {
		vm->vcpu[i] = vcpu_create(vm, i, place_vcpu(vm->config, i));
		if (!vm->vcpu[i])
			return ERR_NOMEM;
	}
	return platform_create(vm);
}

/*
 * All but the lock of the devices: a CPU with console input may hold it, or wait for it, while the
 * VM restarts (console.c, platform_console_input()).
 */
static void clear(struct vm *vm)
{
	size_t before = offsetof(struct vm, dev_lock), after = before + sizeof(vm->dev_lock);

	memset(vm, 0, before);
	memset((u8 *)vm + after, 0, sizeof(*vm) - after);
}

/* life_lock held. False: the VM could not be started; it counts as ended with a fault. */
static bool start_vm(u32 id)
{
	struct vm *vm = &vm_storage[id];
	u32 restarts = vm->restarts;
	u64 now;
	int err;

	clear(vm);
	vm->id = id;
	vm->config = &vm_boot->vm[id];
	vm->vcpu_count = vm->config->vcpus;
	vm->restarts = restarts;
	err = create_memory(vm);
	if (!err)
		err = create_vcpus(vm);
	if (err == ERR_NOMEM)
		log_warn("vm %s: not enough memory for %llu MiB of RAM and its tables",
			 vm->config->name, (unsigned long long)(vm->config->memory / MIB));
	if (!err)
		err = load_image(vm);
	if (err) {
		destroy(vm);
		ended++;
		final_status = VM_STATUS_FAULT;
		log_info("umbra: vm %s ended: %u cannot be started", vm->config->name,
			 VM_STATUS_FAULT);
		return false;
	}
	vm->live = vm->vcpu_count;
	__atomic_store_n(&vm->state, VM_RUNNING, __ATOMIC_RELEASE);
	running++;
	if (restarts < RESTARTS_LOGGED)
		log_info("vm %s: %u vCPU%s, %llu MiB, %s", vm->config->name, vm->vcpu_count,
			 vm->vcpu_count == 1 ? "" : "s",
			 (unsigned long long)(vm->config->memory / MIB), vm->config->kernel.path);
	if (!started) {
		started = true;
		log_info("umbra: bench boot.instructions %llu instructions",
			 (unsigned long long)(rdtsc() - tsc_start));
	}
	/* TSC 0 at power-up, as a machine that has just been switched on. */
	now = rdtsc();
	for (u32 i = 0; i < vm->vcpu_count; i++)
		vm->vcpu[i]->tsc_offset = -now;
	for (u32 i = 0; i < vm->vcpu_count; i++)
		sched_add(vm->vcpu[i]);
	return true;
}

static bool in_sequence(void)
{
	return vm_boot->options.order == BOOT_ORDER_SEQUENCE;
}

/* life_lock held. Starts what is due; ends the machine when nothing runs and nothing will. */
static void start_due(void)
{
	struct frame_stats stats;

	while (next_vm < vm_count && !__atomic_load_n(&closing, __ATOMIC_RELAXED) &&
	       (!in_sequence() || running == 0))
		start_vm(next_vm++);
	if (running)
		return;
	console_flush();
	frame_stats(&stats);
	log_info("umbra: %u VM%s ended, %u successfully", ended, ended == 1 ? "" : "s", passed);
	log_info("umbra: bench size.hv_memory_bytes %llu bytes",
		 (unsigned long long)((stats.hv + stats.boot) * PAGE_SIZE));
	machine_end(final_status);
}

void vm_start(const struct boot_info *boot)
{
	vm_boot = boot;
	vm_count = boot->vm_count;
	for (u32 i = 0; i < vm_count; i++)
		vms[i] = &vm_storage[i];
	vmx_init(boot->options.hide);
	cpuid_policy_init();
	sched_init(boot);
	console_init(boot->options.console_port, vm_count, boot->options.focus);
}

__noreturn void vm_cpu_main(void)
{
	vmx_cpu_init();
	if (this_cpu()->index == 0) {
		spin_lock(&life_lock);
		start_due();
		spin_unlock(&life_lock);
	}
	sched_loop();
}

static void request_stop(struct vm *vm)
{
	for (u32 i = 0; i < vm->vcpu_count; i++)
		vcpu_request(vm->vcpu[i], REQ_STOP);
}

void vm_end(struct vm *vm, u32 status, const char *fmt, ...)
{
	u32 expected = VM_RUNNING;
	va_list ap;

	if (!__atomic_compare_exchange_n(&vm->state, &expected, VM_ENDING, false, __ATOMIC_ACQ_REL,
					 __ATOMIC_RELAXED))
		return;
	vm->exit_status = status;
	va_start(ap, fmt);
	str_vprint(vm->reason, sizeof(vm->reason), fmt, ap);
	va_end(ap);
	request_stop(vm);
}

void vm_restart(struct vm *vm, const char *why)
{
	u32 expected = VM_RUNNING;

	if (!__atomic_compare_exchange_n(&vm->state, &expected, VM_ENDING, false, __ATOMIC_ACQ_REL,
					 __ATOMIC_RELAXED))
		return;
	vm->restart = true;
	str_copy(vm->reason, sizeof(vm->reason), why);
	request_stop(vm);
}

void vm_shut_down(const char *why)
{
	spin_lock(&life_lock);
	__atomic_store_n(&closing, true, __ATOMIC_RELAXED);
	for (u32 i = 0; i < next_vm; i++)
		vm_end(vms[i], 0, "%s", why);
	spin_unlock(&life_lock);
}

bool vms_hold(void)
{
	return spin_trylock(&life_lock);
}

void vms_release(void)
{
	spin_unlock(&life_lock);
}

const struct boot_vm *vm_config(u32 id)
{
	return &vm_boot->vm[id];
}

bool vm_start_again(struct vm *vm)
{
	/* One that has never been started has no configuration yet. */
	if (vm->state != VM_FREE || !vm->config || __atomic_load_n(&closing, __ATOMIC_RELAXED))
		return false;
	vm->restarts++;
	return start_vm(vm->id);
}

static void report_end(struct vm *vm)
{
	u64 exits = 0, injections = 0, faults = 0;

	for (u32 i = 0; i < vm->vcpu_count; i++) {
		const struct vcpu *vcpu = vm->vcpu[i];

		for (u32 r = 0; r < EXIT_COUNT; r++)
			exits += vcpu->exits[r];
		injections += vcpu->injections;
		faults += vcpu->ept_faults;
	}
	log_info("vm %s: %llu exits, %llu injections, %llu EPT violations", vm->config->name,
		 (unsigned long long)exits, (unsigned long long)injections,
		 (unsigned long long)faults);
	log_info("umbra: vm %s ended: %u %s", vm->config->name, vm->exit_status, vm->reason);
}

/* The boot processor stops last, and has the report to write, a line in each of its turns. */
bool vm_vcpu_may_stop(const struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;

	if (!vcpu->profile || !vcpu->bsp || (vm->restart && vm->restarts >= RESTARTS_LOGGED))
		return true;
	if (__atomic_load_n(&vm->live, __ATOMIC_ACQUIRE) > 1)
		return false;
	return !report_step(vm, &vm->report, vm->restart ? "restart" : "end");
}

/* A test kernel's "all is well" is 0 to port 0xf4, which makes 1; power-off makes 0. */
static bool is_success(u32 status)
{
	return status <= 1;
}

/* What a restart costs this CPU counts as the VM's turn: its neighbours had to wait. */
static void charge(struct vm *vm, u64 ticks)
{
	for (u32 i = 0; i < vm->vcpu_count; i++)
		if (vm->vcpu[i]->cpu == this_cpu()->index)
			vm->vcpu[i]->used += ticks;
}

void vm_vcpu_stopped(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;
	u32 id = vm->id;
	u64 start;

	if (__atomic_sub_fetch(&vm->live, 1, __ATOMIC_ACQ_REL))
		return;
	spin_lock(&life_lock);
	/* Not flushed: that takes seconds, for which its neighbours on this CPU would stand still.
	 */
	console_close(vm);
	start = rdtsc();
	pmem_save(vm);
	running--;
	if (vm->restart && !__atomic_load_n(&closing, __ATOMIC_RELAXED)) {
		if (vm->restarts < RESTARTS_LOGGED)
			log_info("vm %s: restarts: %s", vm->config->name, vm->reason);
		vm->restarts++;
		__atomic_store_n(&vm->state, VM_FREE, __ATOMIC_RELEASE);
		destroy(vm);
		if (start_vm(id))
			charge(vm, rdtsc() - start);
	} else {
		report_end(vm);
		ended++;
		passed += is_success(vm->exit_status);
		if (is_success(final_status) && (vm_count == 1 || !is_success(vm->exit_status)))
			final_status = vm->exit_status;
		__atomic_store_n(&vm->state, VM_FREE, __ATOMIC_RELEASE);
		destroy(vm);
	}
	start_due();
	spin_unlock(&life_lock);
}

/* Room for a few dozen different keys; once it is full the rest goes unreported. */
void vm_log_refusal(struct vcpu *vcpu, const char *what, u64 key)
{
	struct vm *vm = vcpu->vm;
	u64 tagged = key << 8 | (u8)what[0] | BIT64(63);

	for (u32 i = 0; i < ARRAY_SIZE(vm->refused); i++) {
		u64 empty = 0;

		if (__atomic_load_n(&vm->refused[i], __ATOMIC_RELAXED) == tagged)
			return;
		if (__atomic_compare_exchange_n(&vm->refused[i], &empty, tagged, false,
						__ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
			log_debug("vm %s vCPU %u: %s %#llx refused", vm->config->name, vcpu->index,
				  what, (unsigned long long)key);
			return;
		}
		if (empty == tagged)
			return;
	}
}
