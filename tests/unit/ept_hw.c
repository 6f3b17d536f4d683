/* See ept_hw.h. Stored in tests/unit without an .mk of its own: part of the EPT tests. */
#include <stdio.h>
#include <stdlib.h>

#include "ept_hw.h"

#define ADDRESS 0x000ffffffffff000ull

static u64 *table_of(u64 e)
{
	return phys_to_ptr(hpa(e & ADDRESS));
}

static bool present(u64 e, bool mbec)
{
	return (e & 7) != 0 || (mbec && (e & 0x400));
}

/* SDM 3C 29.3.3.1 "EPT misconfigurations". level 4 to 1. */
static void check_entry(u64 e, int level, bool mbec, bool xo)
{
	bool leaf = level == 1 || (level < 4 && (e >> 7 & 1));
	const char *why = NULL;
	u64 type = e >> 3 & 7;

	if (!present(e, mbec))
		return;
	if ((e & 3) == 2)
		why = "writable but not readable";
	if (!(e & 1) && !xo && ((e & 4) || (mbec && (e & 0x400))))
		why = "execute-only";
	if (!leaf && (e & 0xf8))
		why = "reserved bits 7:3 of a table entry";
	if (leaf && level == 3 && (e & 0x3ffff000))
		why = "reserved bits 29:12 of a 1-GByte page";
	if (leaf && level == 2 && (e & 0x1ff000))
		why = "reserved bits 20:12 of a 2-MByte page";
	if (leaf && (type == 2 || type == 3 || type == 7))
		why = "reserved memory type";
	if (why) {
		fprintf(stderr, "EPT misconfiguration: %#llx at level %d: %s\n",
			(unsigned long long)e, level, why);
		abort();
	}
}

struct hw_page hw_walk(u64 eptp, u64 at, bool mbec, bool xo)
{
	struct hw_page page = {.perms = 0x407};
	u64 *table = table_of(eptp);

	for (int level = 4;; level--) {
		u64 *slot = &table[at >> (3 + 9 * level) & 511];
		u64 e = __atomic_load_n(slot, __ATOMIC_ACQUIRE);

		check_entry(e, level, mbec, xo);
		page.shift = 3 + 9 * level;
		page.entry = slot;
		page.perms &= e;
		if (!present(e, mbec))
			return page;
		if (level == 1 || (level < 4 && (e >> 7 & 1))) {
			u64 mask = (1ull << page.shift) - 1;

			page.present = true;
			page.frame = (e & ADDRESS & ~mask) | (at & mask & ~0xfffull);
			page.type = e >> 3 & 7;
			page.accessed = e >> 8 & 1;
			page.dirty = e >> 9 & 1;
			return page;
		}
		table = table_of(e);
	}
}

bool hw_write(u64 eptp, u64 at)
{
	bool flags = eptp >> 6 & 1;

	for (;;) {
		u64 *table = table_of(eptp), *slot = NULL, e = 0;
		int level;

		for (level = 4;; level--) {
			slot = &table[at >> (3 + 9 * level) & 511];
			e = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
			if ((e & 3) != 3)
				return false;
			if (level == 1 || (level < 4 && (e >> 7 & 1)))
				break;
			if (flags && !(e & 0x100) &&
			    !__atomic_compare_exchange_n(slot, &e, e | 0x100, false,
							 __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
				level = 5; /* changed: from the top */
			table = level == 5 ? table_of(eptp) : table_of(e);
		}
		if (!flags || (e & 0x300) == 0x300)
			return true;
		if (__atomic_compare_exchange_n(slot, &e, e | 0x300, false, __ATOMIC_SEQ_CST,
						__ATOMIC_SEQ_CST))
			return true;
	}
}

static u64 check_table(const u64 *table, int level, bool mbec, bool xo)
{
	u64 count = 1;

	for (int i = 0; i < 512; i++) {
		check_entry(table[i], level, mbec, xo);
		if (level > 1 && present(table[i], mbec) && !(table[i] >> 7 & 1))
			count += check_table(table_of(table[i]), level - 1, mbec, xo);
	}
	return count;
}

u64 hw_check(u64 eptp, bool mbec, bool xo)
{
	if ((eptp & 0xfbf) != 0x1e || eptp >> 52) {
		fprintf(stderr, "EPTP %#llx\n", (unsigned long long)eptp);
		abort();
	}
	return check_table(table_of(eptp), 4, mbec, xo);
}
