/*
 * Guest image loaders: Multiboot 1, PVH, and the 64-bit boot protocol of Linux (bzImage).
 *
 * Portable C without global state. The image is untrusted: every number in it is checked before it
 * is used, and nothing is ever written outside the RAM that the target describes.
 *
 * Guest RAM lies at [0, ram_low) and [4 GiB, 4 GiB + ram_high). What a kernel finds by Multiboot or
 * PVH is what `qemu-system-x86_64 -kernel K -initrd "M1 args,M2" -append A` gives it (see
 * load_multiboot.c and load_pvh.c for the layout). A bzImage finds
 *
 *	0x6000	GDT; a stack from the end of its page down
 *	0x7000	boot_params
 *	0x8000	command line, one page at most
 *	0x10000 page tables: identity, the first 4 GiB and all RAM above, 2 MiB pages (at the top of
 *		RAM below 3 GiB if they would reach 0x80000)
 *	its pref_address, aligned to kernel_alignment if it is relocatable: the kernel, with room
 *for init_size the top of RAM below 3 GiB and initrd_addr_max: the initial RAM disk, which is all
 *modules, each padded with zeroes to a multiple of 4 (their arguments are not passed on)
 *
 * All that is RAM to the kernel: it may use it again as soon as it has tables of its own.
 *
 * Standards: Multiboot Specification 0.6.96; Xen "x86/HVM direct boot ABI" (PVH) with
 * hvm_start_info version 1; ELF (System V gABI); "The Linux/x86 Boot Protocol" 2.12 to 2.15.
 */
#pragma once

#include <umbra/boot_info.h>

#include "lib/types.h"

#define LOAD_LOW_MAX	(3 * GIB) /* guest RAM below 4 GiB ends here at the latest */
#define LOAD_HIGH_BASE	(4 * GIB)
#define LOAD_REASON_LEN 160

struct guest_image {
	const u8 *data; /* not changed by anybody while loading */
	u64 bytes;
	const char *name; /* the path as configured: first word of the Multiboot command line */
	const char *args; /* modules: the text after the path; NULL or "" = none */
};

struct load_target {
	void *ctx;
	/* Both return 0 or a negative error; the range always lies inside the RAM given below. */
	int (*write)(void *ctx, gpa_t to, const void *src, u64 len);
	int (*zero)(void *ctx, gpa_t to, u64 len);
	u64 ram_low;  /* bytes of RAM from address 0, at most LOAD_LOW_MAX */
	u64 ram_high; /* bytes of RAM from LOAD_HIGH_BASE; 0 unless ram_low == LOAD_LOW_MAX */
};

struct load_request {
	struct guest_image kernel;
	const struct guest_image *modules;
	u32 module_count; /* at most BOOT_MAX_MODULES */
	u32 protocol;	  /* enum boot_protocol; AUTO = a Multiboot header, else a PVH note, else a
			     bzImage */
	const char *cmdline;
	u64 rsdp; /* guest-physical address of the ACPI RSDP for PVH and Linux; 0 = none */
};

/*
 * The state to start the boot processor in. Multiboot and PVH: 32-bit protected mode without
 * paging, CR0 = PE | ET, CR4 = 0, EFLAGS = 2, flat 4 GiB segments (CS execute/read, others
 * read/write), TR a busy 32-bit TSS with base 0 and limit 0x67, general registers 0 but for EAX and
 * EBX.
 *
 * Linux (long64): 64-bit mode, CR0 = PG | PE | ET, CR4 = PAE, EFER = LMA | LME, RFLAGS = 2, CS =
 * 0x10, all data segments 0x18 as the GDT has them, no IDT, TR a busy TSS with base 0 and limit
 * 0x67, general registers 0 but for RSI and RSP.
 */
struct load_result {
	u32 protocol; /* enum boot_protocol: the one that was used */
	u32 entry;    /* EIP or RIP */
	u32 eax;      /* Multiboot: 0x2badb002, else 0 */
	u32 ebx;      /* Multiboot, PVH: guest-physical address of the information */
	bool long64;  /* 64-bit mode by what follows, else 32-bit */
	u16 gdt_limit;
	u64 gdt_base, cr3, rsi, stack; /* RSI: boot_params; stack: RSP */
	u64 kernel_base, kernel_end;   /* lowest and highest byte + 1 of what the image occupies */
	u64 end;		       /* end of all that was loaded above 1 MiB, page-aligned */
	char reason[LOAD_REASON_LEN];  /* on failure: why, one sentence without full stop */
};

/* Splits a VM's memory size into the target's two parts. */
static inline void load_split_ram(u64 bytes, u64 *low, u64 *high)
{
	*low = MIN(bytes, LOAD_LOW_MAX);
	*high = bytes - *low;
}

/*
 * Loads the kernel and its modules and builds the information structure. Returns 0, or a negative
 * error with out->reason filled in: ERR_INVAL for a malformed image, ERR_NOSYS for a valid one of a
 * kind that is not supported, ERR_NOMEM if it does not fit the guest's RAM, or the target's error.
 * After a failure guest RAM may be partly written.
 */
int guest_load(const struct load_request *req, const struct load_target *target,
	       struct load_result *out);
