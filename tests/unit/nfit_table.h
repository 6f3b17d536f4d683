/* Builds an NFIT for tests: parts are appended, then the header is made right. */
#pragma once

#include <string.h>

#include "pmem/nfit_layout.h"

struct nfit_table {
	u8 bytes[16384];
	u32 length;
};

static const u8 guid_persistent[16] = NFIT_GUID_PERSISTENT;
static const u8 guid_volatile[16] = NFIT_GUID_VOLATILE;

static inline void nfit_finish(struct nfit_table *t)
{
	u8 sum = 0;

	memcpy(t->bytes, "NFIT", 4);
	memcpy(t->bytes + 4, &t->length, 4);
	t->bytes[9] = 0;
	for (u32 i = 0; i < t->length; i++)
		sum = (u8)(sum + t->bytes[i]);
	t->bytes[9] = (u8)-sum;
}

static inline void nfit_begin(struct nfit_table *t)
{
	memset(t, 0, sizeof(*t));
	t->length = sizeof(struct nfit_header);
	nfit_finish(t);
}

static inline u32 nfit_add(struct nfit_table *t, const void *part, u32 bytes)
{
	u32 at = t->length;

	memcpy(t->bytes + at, part, bytes);
	t->length += bytes;
	nfit_finish(t);
	return at;
}

static inline u32 nfit_add_spa(struct nfit_table *t, u16 index, const u8 guid[16], u64 base,
			       u64 bytes)
{
	struct nfit_spa_part s = {.part = {NFIT_SPA, sizeof(s)},
				  .index = index,
				  .base = base,
				  .bytes = bytes,
				  .attributes = NFIT_ATTR_WB};

	memcpy(s.guid, guid, 16);
	return nfit_add(t, &s, sizeof(s));
}

static inline u32 nfit_add_mapping(struct nfit_table *t, u32 handle, u16 spa, u16 control,
				   u64 bytes)
{
	struct nfit_mapping_part m = {.part = {NFIT_MAPPING, sizeof(m)},
				      .handle = handle,
				      .spa = spa,
				      .control = control,
				      .bytes = bytes,
				      .ways = 1};

	return nfit_add(t, &m, sizeof(m));
}

static inline u32 nfit_add_control(struct nfit_table *t, u16 index)
{
	struct nfit_control_part c = {.part = {NFIT_CONTROL, sizeof(c)},
				      .index = index,
				      .vendor = 0x8086,
				      .device = 0x2018,
				      .serial = 0x1000u + index,
				      .format = NFIT_FORMAT_BYTE};

	return nfit_add(t, &c, sizeof(c));
}

static inline u32 nfit_add_hints(struct nfit_table *t, u32 handle, u16 count, u64 first, u64 step)
{
	struct {
		struct nfit_hints_part h;
		u64 address[300];
	} __packed p = {.h = {.part = {NFIT_HINTS, (u16)(sizeof(p.h) + count * 8u)},
			      .handle = handle,
			      .count = count}};

	for (u32 i = 0; i < count; i++)
		p.address[i] = first + i * step;
	return nfit_add(t, &p, (u32)sizeof(p.h) + count * 8u);
}

static inline u32 nfit_add_caps(struct nfit_table *t, u8 highest, u32 caps)
{
	struct nfit_caps_part c = {
		.part = {NFIT_CAPS, sizeof(c)}, .highest = highest, .caps = caps};

	return nfit_add(t, &c, sizeof(c));
}

/* Two NVDIMMs interleaved in one persistent range with hints, one volatile range. */
static inline void nfit_usual(struct nfit_table *t)
{
	nfit_begin(t);
	nfit_add_hints(t, 0x10, 2, 0x90000000, 64); /* before what they refer to: any order */
	nfit_add_mapping(t, 0x10, 1, 1, 64 * MIB);
	nfit_add_mapping(t, 0x20, 1, 2, 64 * MIB);
	nfit_add_mapping(t, 0x30, 2, 0, 16 * MIB);
	nfit_add_spa(t, 1, guid_persistent, 4 * GIB, 128 * MIB);
	nfit_add_spa(t, 2, guid_volatile, 5 * GIB, 16 * MIB);
	nfit_add_control(t, 1);
	nfit_add_control(t, 2);
	nfit_add_hints(t, 0x20, 1, 0x90001000, 64);
	nfit_add_caps(t, 1, 0xfffffff2);
}
