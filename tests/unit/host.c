/* What hypervisor code finds below it when it is compiled for the host. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "host.h"
#include "lib/log.h"
#include "lib/panic.h"
#include "mem/frame.h"
#include "vm/apf.h"
#include "vm/away.h"
#include "vm/space.h"

uint64_t host_direct_map;
static uint64_t host_bytes;

void host_memory_init(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		abort();
	host_direct_map = (uint64_t)(uintptr_t)p;
	host_bytes = bytes;
}

void host_memory_release(void)
{
	if (host_direct_map)
		munmap((void *)(uintptr_t)host_direct_map, host_bytes);
	host_direct_map = 0;
}

/* Weak, so that a test of the log or of panics can bring the real ones. */
__attribute__((weak)) void log_print(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	if (level > LOG_WARN && !getenv("UMBRA_TEST_LOG"))
		return;
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

__attribute__((weak)) __noreturn void panic(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("panic: ", stderr);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	abort();
}

/* Guest memory for tests that have none; tests/unit/guest_ram.h brings some. */
__attribute__((weak)) int guest_read(struct vm *vm, gpa_t from, void *to, size_t len)
{
	return ERR_FAULT;
}

__attribute__((weak)) int guest_write(struct vm *vm, gpa_t to, const void *from, size_t len)
{
	return 0; /* the tables that a platform brings along */
}

__attribute__((weak)) int guest_zero(struct vm *vm, gpa_t to, size_t len)
{
	return ERR_FAULT;
}

__attribute__((weak)) int guest_read_word(struct vm *vm, gpa_t at, unsigned int size, u64 *value)
{
	return ERR_FAULT;
}

__attribute__((weak)) int guest_write_word(struct vm *vm, gpa_t at, unsigned int size, u64 value)
{
	return ERR_FAULT;
}

__attribute__((weak)) const struct region *space_find(const struct space *space, gpa_t at)
{
	return NULL;
}

__attribute__((weak)) u64 space_perms(const struct space *space, gpa_t at)
{
	return EPT_RWX;
}

__attribute__((weak)) int frame_alloc(frame_owner_t owner, u64 bytes, u64 align, hpa_t *out)
{
	return ERR_NOMEM;
}

__attribute__((weak)) void frame_free(frame_owner_t owner, hpa_t base, u64 bytes)
{
	abort();
}

struct vcpu;
void platform_work(struct vcpu *vcpu);
u32 hypercall_by_port(struct vcpu *vcpu);
void pmem_window_write(struct vcpu *vcpu, u32 number, u64 offset, const void *from, size_t bytes);
void pmem_window_read(struct vcpu *vcpu, u32 number, u64 offset, void *to, size_t bytes);
void pmem_written(struct vm *vm, u32 number, u64 offset, u64 bytes);
bool pmem_window_store(struct vcpu *vcpu, gpa_t at, gva_t linear);

bool pmem_window_step(struct vcpu *vcpu, u32 number);
bool vcpu_step_exit(struct vcpu *vcpu, u32 reason);
void vcpu_step_check(struct vcpu *vcpu, u32 requests);
void vcpu_step_begin(struct vcpu *vcpu);

__attribute__((weak)) bool pmem_window_step(struct vcpu *vcpu, u32 number)
{
	return false;
}

__attribute__((weak)) bool vcpu_step_exit(struct vcpu *vcpu, u32 reason)
{
	abort();
}

__attribute__((weak)) void vcpu_step_check(struct vcpu *vcpu, u32 requests)
{
	abort();
}

__attribute__((weak)) void vcpu_step_begin(struct vcpu *vcpu)
{
}

struct known_store;
const struct known_store *mmio_known_store(struct vcpu *vcpu, gva_t linear);
void vcpu_instruction_effects(struct vcpu *vcpu, u64 shadow, u64 rflags, bool resume);
void vmcs_write_failed(void);

__attribute__((weak)) const struct known_store *mmio_known_store(struct vcpu *vcpu, gva_t linear)
{
	return NULL;
}

__attribute__((weak)) void vcpu_instruction_effects(struct vcpu *vcpu, u64 shadow, u64 rflags,
						    bool resume)
{
}

__attribute__((weak)) void vmcs_write_failed(void)
{
	abort();
}

struct walk_state;
void emu_remember(struct vcpu *vcpu, const struct walk_state *state, u64 rip);

__attribute__((weak)) void emu_remember(struct vcpu *vcpu, const struct walk_state *state, u64 rip)
{
}

__attribute__((weak)) bool pmem_window_store(struct vcpu *vcpu, gpa_t at, gva_t linear)
{
	return false;
}
int pmem_open(struct vm *vm, u32 number, u64 page);

int disk_init(void);
u64 disk_sectors(void);
int disk_read(u64 lba, u32 count, void *to);
int disk_write(u64 lba, u32 count, const void *from);
int disk_flush(void);

int pmem_create(struct vm *vm);
void pmem_stop(struct vm *vm);
u32 pmem_device_map(const struct vm *vm);
u32 pmem_nfit(const struct vm *vm, u8 *out);
void pmem_tick(struct vcpu *vcpu, u64 now);
u64 pmem_deadline(const struct vm *vm);

__attribute__((weak)) u32 hypercall_by_port(struct vcpu *vcpu)
{
	return 0;
}

/* Persistent memory, for what has none. */
__attribute__((weak)) int pmem_create(struct vm *vm)
{
	return 0;
}

__attribute__((weak)) void pmem_stop(struct vm *vm)
{
}

__attribute__((weak)) u32 pmem_device_map(const struct vm *vm)
{
	return 0;
}

__attribute__((weak)) u32 pmem_nfit(const struct vm *vm, u8 *out)
{
	return 0;
}

__attribute__((weak)) void pmem_tick(struct vcpu *vcpu, u64 now)
{
}

__attribute__((weak)) u64 pmem_deadline(const struct vm *vm)
{
	return ~0ull;
}

__attribute__((weak)) void pmem_window_write(struct vcpu *vcpu, u32 number, u64 offset,
					     const void *from, size_t bytes)
{
	abort();
}

__attribute__((weak)) void pmem_window_read(struct vcpu *vcpu, u32 number, u64 offset, void *to,
					    size_t bytes)
{
	abort();
}

__attribute__((weak)) void pmem_written(struct vm *vm, u32 number, u64 offset, u64 bytes)
{
	abort();
}

__attribute__((weak)) int pmem_open(struct vm *vm, u32 number, u64 page)
{
	abort();
}

/* A machine without a disk. */
__attribute__((weak)) int disk_init(void)
{
	return ERR_NODEV;
}

__attribute__((weak)) u64 disk_sectors(void)
{
	return 0;
}

__attribute__((weak)) int disk_read(u64 lba, u32 count, void *to)
{
	return ERR_NODEV;
}

__attribute__((weak)) int disk_write(u64 lba, u32 count, const void *from)
{
	return ERR_NODEV;
}

__attribute__((weak)) int disk_flush(void)
{
	return ERR_NODEV;
}

__attribute__((weak)) void platform_work(struct vcpu *vcpu)
{
}

/* A machine without remote memory. */
__attribute__((weak)) int remote_create(struct vm *vm)
{
	return ERR_NODEV;
}

__attribute__((weak)) void remote_destroy(struct vm *vm)
{
}

__attribute__((weak)) enum fault_result remote_fault(struct vcpu *vcpu, const struct region *region,
						     const struct ept_fault *fault)
{
	abort();
}

__attribute__((weak)) u8 *remote_open(struct vm *vm, const struct region *region, gpa_t at,
				      bool write, bool whole)
{
	abort();
}

__attribute__((weak)) void remote_close(struct vm *vm)
{
	abort();
}

__attribute__((weak)) bool remote_hold(struct vcpu *vcpu, gpa_t at, bool write)
{
	abort();
}

__attribute__((weak)) bool remote_waits(struct vcpu *vcpu)
{
	return false;
}

__attribute__((weak)) bool sched_await(struct vcpu *vcpu)
{
	return false;
}

__attribute__((weak)) bool apf_offered(const struct vm *vm)
{
	return false;
}

__attribute__((weak)) bool apf_msr_read(struct vcpu *vcpu, u32 msr, u64 *value)
{
	return false;
}

__attribute__((weak)) int apf_msr_write(struct vcpu *vcpu, u32 msr, u64 value)
{
	return ERR_INVAL;
}

__attribute__((weak)) void apf_reset(struct vcpu *vcpu)
{
}

__attribute__((weak)) bool apf_seen(const struct vcpu *vcpu)
{
	return false;
}

__attribute__((weak)) void apf_apic_changed(struct vcpu *vcpu)
{
}

__attribute__((weak)) void remote_unmap(struct vm *vm, const struct region *region, gpa_t at,
					u64 bytes)
{
	abort();
}

__attribute__((weak)) void remote_insist(bool on)
{
}

__attribute__((weak)) bool remote_poll(u64 began)
{
	return false;
}

__attribute__((weak)) u32 remote_ops;

__attribute__((weak)) int away_read(struct vm *vm, const struct region *region, gpa_t from,
				    void *to, size_t len)
{
	abort();
}

__attribute__((weak)) int away_write(struct vm *vm, const struct region *region, gpa_t to,
				     const void *from, size_t len)
{
	abort();
}

__attribute__((weak)) int away_zero(struct vm *vm, const struct region *region, gpa_t to,
				    size_t len)
{
	abort();
}
