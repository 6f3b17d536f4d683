/*
 * What lies below the virtio devices, for tests: a VM with RAM at 0 and at 4 GiB, an arena for disk
 * images and frames, interrupt lines, a console. Include after cmocka or fuzzing headers.
 */
#pragma once

#include <stdlib.h>
#include <string.h>

#include "dev/platform.h"
#include "dev/virtio_blk.h"
#include "dev/virtio_console.h"
#include "dev/virtio_mmio.h"
#include "mem/frame.h"
#include "vm/console.h"
#include "vm/platform.h"

#define RAM_BYTES   (4 * MIB)
#define HIGH_BASE   (4 * GIB)
#define HIGH_BYTES  SIZE_2M
#define ARENA_BYTES (16 * MIB)
#define IMAGE_AT    0x100000u
#define FRAMES_AT   0x800000u
#define FRAMES	    ((ARENA_BYTES - FRAMES_AT) / PAGE_SIZE)

static struct boot_vm host_config;
static struct platform host_platform;
static struct vm host_vm;
static struct vcpu host_vcpu;
static u8 host_ram[RAM_BYTES + HIGH_BYTES] __aligned(4096);
static struct region host_region[3] = {
	{.base = {0}, .bytes = RAM_BYTES, .kind = REGION_RAM},
	{.base = {VIRTIO_BASE}, .bytes = VIRTIO_SLOTS * PAGE_SIZE, .kind = REGION_MMIO},
	{.base = {HIGH_BASE}, .bytes = HIGH_BYTES, .kind = REGION_RAM},
};
static bool frame_used[FRAMES];
static u32 frames_used, frames_left = FRAMES;
static u64 lines; /* of the IOAPIC */
static u8 console_out[4096], console_in[4096];
static u32 console_out_count, console_in_count, console_in_next;
static u64 protected_page = ~0ull, protected_perms; /* what the VM's view allows there */

const struct region *space_find(const struct space *space, gpa_t at)
{
	for (u32 i = 0; i < ARRAY_SIZE(host_region); i++)
		if (at.v - host_region[i].base.v < host_region[i].bytes)
			return &host_region[i];
	return NULL;
}

u64 space_perms(const struct space *space, gpa_t at)
{
	return (at.v & PAGE_MASK) == protected_page ? protected_perms : (u64)EPT_RWX;
}

static u8 *host_pointer(gpa_t at, size_t len)
{
	const struct region *region = space_find(NULL, at);

	if (!region || region->kind != REGION_RAM || len > region->bytes - (at.v - region->base.v))
		return NULL;
	return host_ram + (at.v >= HIGH_BASE ? RAM_BYTES + (at.v - HIGH_BASE) : at.v);
}

int guest_read(struct vm *vm, gpa_t from, void *to, size_t len)
{
	const u8 *p = host_pointer(from, len);

	if (!p)
		return ERR_FAULT;
	memcpy(to, p, len);
	return 0;
}

int guest_write(struct vm *vm, gpa_t to, const void *from, size_t len)
{
	u8 *p = host_pointer(to, len);

	if (!p)
		return ERR_FAULT;
	memcpy(p, from, len);
	return 0;
}

int guest_zero(struct vm *vm, gpa_t to, size_t len)
{
	u8 *p = host_pointer(to, len);

	if (!p)
		return ERR_FAULT;
	memset(p, 0, len);
	return 0;
}

int guest_read_word(struct vm *vm, gpa_t at, unsigned int size, u64 *value)
{
	*value = 0;
	return IS_ALIGNED(at.v, size) ? guest_read(vm, at, value, size) : ERR_FAULT;
}

int guest_write_word(struct vm *vm, gpa_t at, unsigned int size, u64 value)
{
	return IS_ALIGNED(at.v, size) ? guest_write(vm, at, &value, size) : ERR_FAULT;
}

int frame_alloc(frame_owner_t owner, u64 bytes, u64 align, hpa_t *out)
{
	if (owner != FRAME_VM_BASE + host_vm.id || bytes != PAGE_SIZE)
		abort();
	for (u32 i = 0; i < FRAMES && frames_used < frames_left; i++) {
		if (frame_used[i])
			continue;
		frame_used[i] = true;
		frames_used++;
		*out = hpa(FRAMES_AT + i * PAGE_SIZE);
		memset(phys_to_ptr(*out), 0xee, PAGE_SIZE); /* what another VM has left */
		return 0;
	}
	return ERR_NOMEM;
}

void frame_free(frame_owner_t owner, hpa_t base, u64 bytes)
{
	u64 i = (base.v - FRAMES_AT) / PAGE_SIZE;

	if (owner != FRAME_VM_BASE + host_vm.id || i >= FRAMES || !frame_used[i])
		abort();
	frame_used[i] = false;
	frames_used--;
}

void *heap_alloc(u64 bytes)
{
	return calloc(1, bytes);
}

void heap_free(void *p, u64 bytes)
{
	free(p);
}

static void check_unlocked(void)
{
	if (host_vm.dev_lock.next != host_vm.dev_lock.serving)
		abort();
}

/* Under the lock of the devices, and only then. */
void ioapic_set_line(struct ioapic *io, unsigned int pin, bool level)
{
	if (host_vm.dev_lock.next == host_vm.dev_lock.serving || pin < 16 || pin > 23)
		abort();
	lines = level ? lines | BIT64(pin) : lines & ~BIT64(pin);
}

void vcpu_request(struct vcpu *vcpu, u32 requests)
{
	vcpu->requests |= requests;
}

void console_put(struct vm *vm, u8 byte)
{
	check_unlocked();
	console_out[console_out_count++ % sizeof(console_out)] = byte;
}

int console_get(struct vm *vm)
{
	return console_in_next < console_in_count
		       ? console_in[console_in_next++ % sizeof(console_in)]
		       : -1;
}

/* A VM with this configuration: true if it could be created. */
static inline bool host_create(void)
{
	host_vm.id = 3;
	host_vm.config = &host_config;
	host_vm.platform = &host_platform;
	host_vcpu.vm = &host_vm;
	host_vcpu.requests = 0;
	lines = 0;
	console_out_count = console_in_count = console_in_next = 0;
	host_vm.space.override_count = 0;
	return !virtio_create(&host_vm, &host_platform.virtio);
}

/* A disk of so many bytes at `at` of the arena, each word telling where it stands. */
static inline void host_image(u32 disk, u64 at, u64 bytes, u32 mode)
{
	host_config.disk[disk] = (struct boot_file){.base = at, .bytes = bytes};
	strcpy(host_config.disk[disk].path, "\\umbra/files\\root.img");
	host_config.disk_mode[disk] = mode;
	host_config.disk_count = MAX(host_config.disk_count, disk + 1);
	memset(phys_to_ptr(hpa(at)), 0, ALIGN_UP(bytes, PAGE_SIZE));
	for (u64 i = 0; i + 4 <= bytes; i += 4) {
		u32 word = (u32)(i * 2654435761u) ^ disk;

		memcpy(phys_to_ptr(hpa(at + i)), &word, 4);
	}
}
