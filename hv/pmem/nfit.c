/* Reading an NFIT: see nfit.h. In two passes, since structures refer to others in any order. */
#include "pmem/nfit.h"

#include "lib/string.h"
#include "pmem/nfit_layout.h"

struct parser {
	const u8 *table;
	u32 length;
	u32 at; /* of the structure being read */
	struct nfit *out;
	const char *why;
};

static int refuse(struct parser *p, int error, const char *why)
{
	p->why = why;
	return error;
}

/* Copies the fixed part of a structure; the table need not be aligned. */
static int take(struct parser *p, u32 length, void *to, u32 bytes)
{
	if (length < bytes)
		return refuse(p, ERR_INVAL, "a structure is too short for its type");
	memcpy(to, p->table + p->at, bytes);
	return 0;
}

static const struct nfit_range *find_range(const struct nfit *n, u16 index)
{
	for (u32 i = 0; i < n->ranges; i++)
		if (n->range[i].index == index)
			return &n->range[i];
	return NULL;
}

static const struct nfit_control *find_control(const struct nfit *n, u16 index)
{
	for (u32 i = 0; i < n->controls; i++)
		if (n->control[i].index == index)
			return &n->control[i];
	return NULL;
}

static enum nfit_kind kind_of(const u8 guid[16])
{
	static const u8 persistent[16] = NFIT_GUID_PERSISTENT, is_volatile[16] = NFIT_GUID_VOLATILE;

	if (!memcmp(guid, persistent, 16))
		return NFIT_PERSISTENT;
	return memcmp(guid, is_volatile, 16) ? NFIT_OTHER : NFIT_VOLATILE;
}

static int read_spa(struct parser *p, u32 length)
{
	struct nfit *n = p->out;
	struct nfit_spa_part s;
	enum nfit_kind kind;
	int err = take(p, length, &s, sizeof(s));

	if (err)
		return err;
	kind = kind_of(s.guid);
	if (!s.index || find_range(n, s.index))
		return refuse(p, ERR_INVAL, "the index of a range is 0 or there twice");
	if (n->ranges == NFIT_MAX_RANGES)
		return refuse(p, ERR_RANGE, "too many ranges");
	/* A range that is not memory (a window, say) may be of any size; it is only remembered, so
	 * that mappings of it are understood. */
	if (kind != NFIT_OTHER) {
		if (!s.bytes || !IS_ALIGNED(s.base | s.bytes, PAGE_SIZE))
			return refuse(p, ERR_INVAL, "a range is empty or not of whole pages");
		if (s.base >= NFIT_ADDRESS_MAX || s.bytes > NFIT_ADDRESS_MAX - s.base)
			return refuse(p, ERR_INVAL, "a range reaches beyond physical addresses");
		for (u32 i = 0; i < n->ranges; i++) {
			const struct nfit_range *r = &n->range[i];

			if (r->kind != NFIT_OTHER && r->base < s.base + s.bytes &&
			    s.base < r->base + r->bytes)
				return refuse(p, ERR_INVAL, "two ranges overlap");
		}
	}
	n->range[n->ranges++] = (struct nfit_range){s.index, kind, s.base, s.bytes, s.attributes};
	return 0;
}

static int read_mapping(struct parser *p, u32 length)
{
	struct nfit *n = p->out;
	struct nfit_mapping_part m;
	int err = take(p, length, &m, sizeof(m));

	if (err)
		return err;
	for (u32 i = 0; i < n->mappings; i++)
		if (m.spa && n->mapping[i].handle == m.handle && n->mapping[i].spa == m.spa)
			return refuse(p, ERR_INVAL, "an NVDIMM is mapped to a range twice");
	if (n->mappings == NFIT_MAX_MAPPINGS)
		return refuse(p, ERR_RANGE, "too many region mappings");
	n->mapping[n->mappings++] =
		(struct nfit_mapping){m.handle, m.spa, m.control, m.ways, m.bytes, m.offset};
	return 0;
}

static int read_control(struct parser *p, u32 length)
{
	struct nfit *n = p->out;
	struct nfit_control_part c;
	int err = take(p, length, &c, sizeof(c));

	if (err)
		return err;
	if (!c.index || find_control(n, c.index))
		return refuse(p, ERR_INVAL, "the index of a control region is 0 or there twice");
	if (n->controls == NFIT_MAX_CONTROLS)
		return refuse(p, ERR_RANGE, "too many control regions");
	n->control[n->controls++] =
		(struct nfit_control){c.index, c.vendor, c.device, c.format, c.serial};
	return 0;
}

/* `first`: where the hints of this NVDIMM begin. Behind one controller, others may have the same.
 */
static int read_hint(struct parser *p, u32 at, u32 first)
{
	struct nfit *n = p->out;
	u64 address;

	memcpy(&address, p->table + at, sizeof(address));
	if (!address || !IS_ALIGNED(address, 8) || address >= NFIT_ADDRESS_MAX)
		return refuse(p, ERR_INVAL, "a flush hint is no aligned physical address");
	for (u32 i = first; i < n->hints; i++)
		if (n->hint[i] == address)
			return refuse(p, ERR_INVAL, "an NVDIMM has a flush hint twice");
	if (n->hints == NFIT_MAX_HINTS)
		return refuse(p, ERR_RANGE, "too many flush hints");
	n->hint[n->hints++] = address;
	return 0;
}

static int read_hints(struct parser *p, u32 length)
{
	struct nfit *n = p->out;
	struct nfit_hints_part h;
	u32 first = n->hints;
	int err = take(p, length, &h, sizeof(h));

	if (err)
		return err;
	if (length - sizeof(h) < (u64)h.count * sizeof(u64))
		return refuse(p, ERR_INVAL, "more flush hints than the structure is long");
	for (u32 i = 0; i < n->dimms; i++)
		if (n->dimm[i].handle == h.handle)
			return refuse(p, ERR_INVAL, "an NVDIMM's flush hints are there twice");
	if (n->dimms == NFIT_MAX_DIMMS)
		return refuse(p, ERR_RANGE, "too many NVDIMMs with flush hints");
	if (!h.count) /* as if it were not there */
		return 0;
	n->dimm[n->dimms++] = (struct nfit_dimm){h.handle, (u16)first, h.count};
	for (u32 i = 0; !err && i < h.count; i++)
		err = read_hint(p, p->at + (u32)sizeof(h) + i * (u32)sizeof(u64), first);
	return err;
}

static int read_caps(struct parser *p, u32 length)
{
	struct nfit *n = p->out;
	struct nfit_caps_part c;
	int err = take(p, length, &c, sizeof(c));

	if (err)
		return err;
	if (n->has_caps)
		return refuse(p, ERR_INVAL, "the platform's capabilities are there twice");
	n->has_caps = true;
	n->caps = c.highest >= 31 ? c.caps : c.caps & (BIT(c.highest + 1u) - 1);
	return 0;
}

static int read_part(struct parser *p, u16 type, u32 length)
{
	switch (type) {
	case NFIT_SPA:
		return read_spa(p, length);
	case NFIT_MAPPING:
		return read_mapping(p, length);
	case NFIT_CONTROL:
		return read_control(p, length);
	case NFIT_HINTS:
		return read_hints(p, length);
	case NFIT_CAPS:
		return read_caps(p, length);
	default:
		return 0;
	}
}

static int read_parts(struct parser *p)
{
	struct nfit_part part;
	int err;

	for (p->at = sizeof(struct nfit_header); p->at < p->length; p->at += part.length) {
		if (p->length - p->at < sizeof(part))
			return refuse(p, ERR_INVAL, "bytes that are no structure at the end");
		memcpy(&part, p->table + p->at, sizeof(part));
		if (part.length < sizeof(part) || part.length > p->length - p->at)
			return refuse(p, ERR_INVAL, "a structure's length leads out of the table");
		err = read_part(p, part.type, part.length);
		if (err)
			return err;
	}
	return 0;
}

static int check_mappings(struct parser *p)
{
	struct nfit *n = p->out;

	for (u32 i = 0; i < n->mappings; i++) {
		const struct nfit_mapping *m = &n->mapping[i];
		const struct nfit_range *r = m->spa ? find_range(n, m->spa) : NULL;

		if (m->control && !find_control(n, m->control))
			return refuse(p, ERR_INVAL, "a mapping names no control region");
		if (!m->spa)
			continue;
		if (!r)
			return refuse(p, ERR_INVAL, "a mapping names no range");
		if (r->kind != NFIT_OTHER && (!m->bytes || m->bytes > r->bytes))
			return refuse(p, ERR_INVAL, "a mapping is larger than its range");
	}
	return 0;
}

static int check_hints(struct parser *p)
{
	struct nfit *n = p->out;

	for (u32 i = 0; i < n->hints; i++)
		for (u32 r = 0; r < n->ranges; r++)
			if (n->range[r].kind != NFIT_OTHER &&
			    n->hint[i] - n->range[r].base < n->range[r].bytes)
				return refuse(p, ERR_INVAL, "a flush hint lies in a range");
	return 0;
}

static int check_header(struct parser *p, size_t bytes)
{
	struct nfit_header h;
	u8 sum = 0;

	if (bytes < sizeof(h))
		return refuse(p, ERR_INVAL, "the table is too short");
	memcpy(&h, p->table, sizeof(h));
	if (memcmp(h.signature, "NFIT", 4) != 0)
		return refuse(p, ERR_INVAL, "the signature is not NFIT");
	if (h.length < sizeof(h) || h.length > bytes)
		return refuse(p, ERR_INVAL, "the table's length is wrong");
	for (u32 i = 0; i < h.length; i++)
		sum = (u8)(sum + p->table[i]);
	p->length = h.length;
	return sum ? refuse(p, ERR_INVAL, "the checksum is wrong") : 0;
}

int nfit_parse(const void *table, size_t bytes, struct nfit *out, const char **why, u32 *where)
{
	struct parser p = {.table = table, .out = out};
	int err;

	memset(out, 0, sizeof(*out));
	err = check_header(&p, bytes);
	if (!err)
		err = read_parts(&p);
	if (!err)
		err = check_mappings(&p);
	if (!err)
		err = check_hints(&p);
	if (err)
		memset(out, 0, sizeof(*out));
	*why = p.why;
	*where = p.at;
	return err;
}

u32 nfit_range_dimms(const struct nfit *nfit, const struct nfit_range *range,
		     u16 dimm[NFIT_MAX_DIMMS], bool *all)
{
	u32 n = 0;

	*all = true;
	for (u32 i = 0; i < nfit->mappings; i++) {
		u32 d;

		if (nfit->mapping[i].spa != range->index)
			continue;
		for (d = 0; d < nfit->dimms && nfit->dimm[d].handle != nfit->mapping[i].handle; d++)
			;
		/* A mapping names an NVDIMM once for each range, so that none comes twice. */
		if (d < nfit->dimms)
			dimm[n++] = (u16)d;
		else
			*all = false;
	}
	return n;
}
