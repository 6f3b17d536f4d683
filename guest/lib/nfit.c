/* The NFIT. Contract in nfit.h. */
#include "nfit.h"

static const u8 *at(u64 address)
{
	return (const u8 *)(uintptr_t)address;
}

static u64 get(const u8 *p, u32 bytes)
{
	u64 v = 0;

	memcpy(&v, p, bytes);
	return v;
}

static bool sums_to_zero(const u8 *p, u32 bytes)
{
	u8 sum = 0;

	for (u32 i = 0; i < bytes; i++)
		sum += p[i];
	return sum == 0;
}

static const u8 *find(void)
{
	for (u64 p = 0xe0000; p < 0x100000; p += 16) {
		const u8 *xsdt;

		if (memcmp(at(p), "RSD PTR ", 8) != 0 || !sums_to_zero(at(p), 36))
			continue;
		xsdt = at(get(at(p) + 24, 8));
		for (u64 i = 36; i + 8 <= get(xsdt + 4, 4); i += 8) {
			const u8 *t = at(get(xsdt + i, 8));

			if (!memcmp(t, "NFIT", 4))
				return t;
		}
	}
	return NULL;
}

static void read_spa(struct nfit *out, const u8 *p)
{
	static const u8 persistent[16] = {0x79, 0xd3, 0xf0, 0x66, 0xf3, 0xb4, 0x74, 0x40,
					  0xac, 0x43, 0x0d, 0x33, 0x18, 0xb7, 0x8c, 0xdb};
	u64 index = get(p + 4, 2);

	if (index < 1 || index > NFIT_REGIONS)
		return;
	out->region[index - 1].base = get(p + 32, 8);
	out->region[index - 1].bytes = get(p + 40, 8);
	out->region[index - 1].persistent = !memcmp(p + 16, persistent, 16);
	out->regions++;
}

static void read_hints(struct nfit *out, const u8 *p)
{
	for (u32 r = 0; r < NFIT_REGIONS; r++) {
		struct nfit_region *region = &out->region[r];

		if (!region->handle || region->handle != get(p + 4, 4))
			continue;
		region->hints = (u32)get(p + 8, 2);
		for (u32 i = 0; i < MIN(region->hints, (u32)NFIT_HINTS); i++)
			region->hint[i] = get(p + 16 + 8 * i, 8);
	}
}

bool nfit_read(struct nfit *out)
{
	const u8 *nfit = find();
	u32 length;

	memset(out, 0, sizeof(*out));
	if (!nfit || !sums_to_zero(nfit, (u32)get(nfit + 4, 4)))
		return false;
	length = (u32)get(nfit + 4, 4);
	for (const u8 *p = nfit + 40; p + 4 <= nfit + length && get(p + 2, 2) >= 4;
	     p += get(p + 2, 2)) {
		u64 type = get(p, 2), spa = get(p + 12, 2);

		if (type < 8)
			out->structures[type]++;
		if (type == 0)
			read_spa(out, p);
		else if (type == 1 && spa >= 1 && spa <= NFIT_REGIONS)
			out->region[spa - 1].handle = (u32)get(p + 4, 4);
		else if (type == 6)
			read_hints(out, p);
		else if (type == 7) {
			out->highest = p[4];
			out->caps = (u32)get(p + 8, 4);
		}
	}
	return true;
}
