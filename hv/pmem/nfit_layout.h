/*
 * The NVDIMM Firmware Interface Table (ACPI specification 6.5, 5.2.25), as bytes: what nfit.c reads
 * of the host's and vnfit.c writes for a guest.
 */
#pragma once

#include "lib/types.h"

enum {
	NFIT_SPA = 0,	     /* system physical address range, 5.2.25.2 */
	NFIT_MAPPING = 1,    /* NVDIMM region mapping, 5.2.25.3 */
	NFIT_INTERLEAVE = 2, /* 5.2.25.4 */
	NFIT_SMBIOS = 3,     /* 5.2.25.5 */
	NFIT_CONTROL = 4,    /* NVDIMM control region, 5.2.25.6 */
	NFIT_BLOCK = 5,	     /* block data window, 5.2.25.7 */
	NFIT_HINTS = 6,	     /* flush hint addresses, 5.2.25.8 */
	NFIT_CAPS = 7,	     /* platform capabilities, 5.2.25.9 */
};

struct nfit_header { /* 5.2.25, table 5.126: a table header, and a reserved word */
	char signature[4];
	u32 length;
	u8 revision, checksum;
	char oem_id[6], oem_table_id[8];
	u32 oem_revision, creator_id, creator_revision;
	u32 reserved;
} __packed;

struct nfit_part { /* begins every structure */
	u16 type, length;
} __packed;

struct nfit_spa_part {
	struct nfit_part part;
	u16 index; /* not 0 */
	u16 flags;
	u32 reserved, proximity;
	u8 guid[16];
	u64 base, bytes;
	u64 attributes; /* as in the UEFI memory map */
} __packed;

struct nfit_mapping_part {
	struct nfit_part part;
	u32 handle;
	u16 physical_id, region_id;
	u16 spa;     /* index of a range, or 0 */
	u16 control; /* index of a control region */
	u64 bytes, offset, dpa;
	u16 interleave, ways, state, reserved;
} __packed;

struct nfit_control_part { /* the part that is there without block windows */
	struct nfit_part part;
	u16 index; /* not 0 */
	u16 vendor, device, revision, subsystem_vendor, subsystem_device, subsystem_revision;
	u8 valid_fields, location;
	u16 date, reserved;
	u32 serial;
	u16 format; /* region format interface code */
	u16 windows;
} __packed;

struct nfit_hints_part { /* then one u64 for each hint */
	struct nfit_part part;
	u32 handle;
	u16 count;
	u8 reserved[6];
} __packed;

struct nfit_caps_part {
	struct nfit_part part;
	u8 highest; /* number of the highest bit that means something */
	u8 reserved1[3];
	u32 caps, reserved2;
} __packed;

#define NFIT_STATE_SAVE_FAILED	  BIT(0) /* nfit_mapping_part.state (table 5.129) */
#define NFIT_STATE_RESTORE_FAILED BIT(1)
#define NFIT_STATE_NOT_ARMED	  BIT(3)

#define NFIT_CAP_CACHE_FLUSH  BIT(0) /* CPU caches reach the media on power loss */
#define NFIT_CAP_MEMORY_FLUSH BIT(1) /* memory controllers' queues do */
#define NFIT_CAP_MIRROR	      BIT(2)

#define NFIT_ATTR_WB BIT64(3)
#define NFIT_ATTR_NV BIT64(15)

#define NFIT_FORMAT_BYTE 0x301 /* byte-addressable, no energy source of its own (JEDEC) */

/* Types of range (table 5.128), first three fields little-endian as GUIDs lie in memory. */
#define NFIT_GUID_PERSISTENT                                                                  \
	{                                                                                     \
		0x79, 0xd3, 0xf0, 0x66, 0xf3, 0xb4, 0x74, 0x40, 0xac, 0x43, 0x0d, 0x33, 0x18, \
			0xb7, 0x8c, 0xdb                                                      \
	}
#define NFIT_GUID_VOLATILE                                                                    \
	{                                                                                     \
		0x4f, 0x94, 0x05, 0x73, 0xda, 0xfd, 0xe3, 0x44, 0xb1, 0x6c, 0x3f, 0x22, 0xd2, \
			0x52, 0xe5, 0xd0                                                      \
	}

_Static_assert(sizeof(struct nfit_header) == 40 && sizeof(struct nfit_spa_part) == 56 &&
		       sizeof(struct nfit_mapping_part) == 48 &&
		       sizeof(struct nfit_control_part) == 32 &&
		       sizeof(struct nfit_hints_part) == 16 && sizeof(struct nfit_caps_part) == 16,
	       "lengths of 5.2.25");
_Static_assert(offsetof(struct nfit_spa_part, base) == 32 &&
		       offsetof(struct nfit_mapping_part, bytes) == 16 &&
		       offsetof(struct nfit_control_part, serial) == 24,
	       "offsets of 5.2.25");
