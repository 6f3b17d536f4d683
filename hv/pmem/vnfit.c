/* Writing a guest's NFIT: see vnfit.h. */
#include "pmem/vnfit.h"

#include "lib/string.h"
#include "pmem/nfit_layout.h"

/* SMBIOS and JEDEC have no vendor for us: the number that PCI has for software devices of others.
 */
#define VENDOR 0x1af4
#define DEVICE 0x5042 /* "BP" */
/* Linux makes the cookie of an interleave set of it, which must not be 0. */
#define SERIAL 0x55000000 /* "U" */

static const u8 persistent[16] = NFIT_GUID_PERSISTENT, is_volatile[16] = NFIT_GUID_VOLATILE;

static u8 *put(u8 *to, const void *part, size_t bytes)
{
	memcpy(to, part, bytes);
	return to + bytes;
}

static u8 *put_region(u8 *to, const struct vnfit_region *r, u32 n)
{
	u16 number = (u16)(n + 1);
	u32 hints_bytes = sizeof(struct nfit_hints_part) + PMEM_HINTS * sizeof(u64);
	struct nfit_spa_part spa = {
		.part = {NFIT_SPA, sizeof(spa)},
		.index = number,
		.base = r->base,
		.bytes = r->bytes,
		.attributes = NFIT_ATTR_WB | (r->persists ? NFIT_ATTR_NV : 0),
	};
	struct nfit_mapping_part mapping = {
		.part = {NFIT_MAPPING, sizeof(mapping)},
		.handle = VNFIT_HANDLE(n),
		.physical_id = number,
		.spa = number,
		.control = number,
		.bytes = r->bytes,
		.ways = 1,
		.state = r->state,
	};
	struct nfit_control_part control = {
		.part = {NFIT_CONTROL, sizeof(control)},
		.index = number,
		.vendor = VENDOR,
		.device = DEVICE,
		.revision = 1,
		.serial = SERIAL | r->serial,
		.format = NFIT_FORMAT_BYTE,
	};
	struct nfit_hints_part hints = {
		.part = {NFIT_HINTS, (u16)hints_bytes},
		.handle = VNFIT_HANDLE(n),
		.count = PMEM_HINTS,
	};

	memcpy(spa.guid, r->persists ? persistent : is_volatile, sizeof(spa.guid));
	to = put(to, &spa, sizeof(spa));
	if (!r->persists)
		return to;
	to = put(to, &mapping, sizeof(mapping));
	to = put(to, &control, sizeof(control));
	to = put(to, &hints, sizeof(hints));
	for (u32 i = 0; i < PMEM_HINTS; i++) {
		u64 hint = r->hints + i * PMEM_HINT_STRIDE;

		to = put(to, &hint, sizeof(hint));
	}
	return to;
}

u32 vnfit_build(const struct vnfit_region *region, u32 count, u32 caps, u8 out[VNFIT_MAX])
{
	struct nfit_caps_part c = {.part = {NFIT_CAPS, sizeof(c)},
				   .highest = 1, /* the bits of these two */
				   .caps = caps & (NFIT_CAP_CACHE_FLUSH | NFIT_CAP_MEMORY_FLUSH)};
	u8 *to = out;

	for (u32 i = 0; i < count; i++)
		to = put_region(to, &region[i], i);
	to = put(to, &c, sizeof(c));
	return (u32)(to - out);
}
