/*
 * What the firmware-facing files of the loader share. Everything here needs boot services unless it
 * says otherwise, and runs on the bootstrap processor only.
 */
#pragma once

#include <efi.h>

#include <umbra/boot_info.h>

#include "lib/types.h"
#include "vmx/caps.h"

#define CONFIG_PATH "\\umbra\\umbra.conf"
#define CONFIG_DIR  "\\umbra\\"
#define IMAGE_PATH  "\\umbra\\umbra.elf"

extern EFI_SYSTEM_TABLE *efi;
extern EFI_BOOT_SERVICES *bs;
extern EFI_HANDLE loader_handle;

/* console.c: one line each, "umbra-loader: " before it and, for problem(), "error: " too. */
void say(const char *fmt, ...) __format(1, 2);
void problem(const char *fmt, ...) __format(1, 2);

/* What an EFI_STATUS means, for messages; the text lives until the next call. */
const char *status_text(EFI_STATUS status);

/*
 * memory.c: page allocations, all given back by memory_release() when the loader refuses. `kept`
 * ones become BOOT_MEM_UMBRA in the hand-over, the others usable memory.
 */
enum lifetime {
	TEMPORARY,
	KEPT
};
#define ANYWHERE   (~0ull)
#define BELOW_4G   0xffffffffull
#define BELOW_640K 0x9ffffull

/* `bytes` of page-aligned memory, not zeroed, ending at or below `limit`; NULL = there is none. */
void *memory_alloc(u64 bytes, u64 limit, enum lifetime lifetime);
/* The same below 4 GiB, aligned to 2 MiB. */
void *memory_alloc_2m(u64 bytes, enum lifetime lifetime);
void memory_release(void);

/*
 * Reads the firmware's map into info->memory[], with the kept allocations marked. *key is what
 * ExitBootServices wants. Allocates only when it is called for the first time; allowed between two
 * attempts at ExitBootServices.
 */
EFI_STATUS memory_map(struct boot_info *info, UINTN *key);
/* Says which memory is there when `bytes` for `what` could not be had. */
void memory_short(const char *what, u64 bytes);

/* file.c: files of the volume that the loader came from. False = the reason has been printed. */
bool file_volume(void);
void file_volume_close(void);
/*
 * Reads the whole file (at least 1, at most `limit` bytes) into memory of its own. `path` may have
 * either slash; a relative one starts at CONFIG_DIR. Sets out->base, bytes, and path as given. The
 * rest of the last page is zeroed.
 */
bool file_read(const char *path, u64 limit, const char *limit_text, enum lifetime lifetime,
	       struct boot_file *out);

/* machine.c: what there is. */
void machine_cpus(struct boot_info *info);
void machine_framebuffer(struct boot_framebuffer *fb);
void machine_tables(struct boot_info *info); /* RSDP, SMBIOS: before machine_cpus() */
u64 machine_tsc_hz(void);
/* Checks the processor against the floor; prints every requirement that is not met. */
bool machine_check(const struct vmx_caps *caps, u32 role);
void machine_print_caps(const struct vmx_caps *caps);

/*
 * handover.c: handover_prepare() allocates and builds all that hand-over needs; false = a reason
 * has been printed. handover() leaves boot services and does not return, unless the firmware
 * refuses to let go.
 */
bool handover_prepare(struct boot_info *info, u64 entry);
EFI_STATUS handover(struct boot_info *info);
