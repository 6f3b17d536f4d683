/*
 * pmem WHAT [REGION [ARGUMENT]]: the modelled hardware behind the guest's NVDIMM, by HC_PMEM
 * (umbra/hypercall.h). WHAT:
 *
 *   mode, kind          one of: none direct trap; host ram model
 *   none, direct, trap  sets the mode of the region's hint page
 *   flushes             of all controllers, one after the other
 *   writes, pending     a number
 *   drain, cut          the latter makes power fail: it does not return
 *   within              makes power fail within ARGUMENT ticks of the TSC; REGION is the seed
 *   exits               of this processor, because of an EPT violation
 *
 * Needs the right to use ports. Status 1 if Umbra refuses.
 */
#include <umbra/hypercall.h>

#include "sys.h"

#define EPT_VIOLATION 48 /* SDM appendix C */

static const char *const modes[] = {"none", "direct", "trap"};
static const char *const kinds[] = {"", "host", "ram", "model"};

static int32_t call(u64 number, u64 what, u64 region, u64 argument)
{
	u64 result;

	asm volatile("inl %%dx, %%eax"
		     : "=a"(result)
		     : "a"(number), "b"(what), "c"(region), "d"(UMBRA_PORT), "S"(argument)
		     : "memory");
	return (int32_t)result;
}

static bool equal(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

static int show(int32_t value, const char *const *names, int32_t count)
{
	if (value < 0)
		return 1;
	if (value < count)
		print(names[value]);
	else
		print_u64((u64)value);
	print("\n");
	return 0;
}

static int flushes(u64 region)
{
	int32_t count = call(HC_PMEM, HC_PMEM_CONTROLLERS, region, 0);

	for (int32_t i = 0; i < count; i++) {
		if (i)
			print(" ");
		print_u64((u64)(uint32_t)call(HC_PMEM, HC_PMEM_FLUSHES, region, (u64)i));
	}
	print("\n");
	return count < 0;
}

static int number(const char *what, u64 region)
{
	static const struct {
		const char *name;
		u64 what;
	} all[] = {{"writes", HC_PMEM_WRITES},
		   {"pending", HC_PMEM_PENDING},
		   {"drain", HC_PMEM_DRAIN},
		   {"cut", HC_PMEM_CUT}};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (equal(what, all[i].name))
			return show(call(HC_PMEM, all[i].what, region, 0), NULL, 0);
	if (equal(what, "exits"))
		return show(call(HC_STAT, HC_STAT_EXIT + EPT_VIOLATION, 0, 0), NULL, 0);
	return 1;
}

int run(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	u64 region = argc > 2 ? parse_u64(argv[2]) : 0;

	if (sys(SYS_IOPERM, UMBRA_PORT, 4, 1, 0))
		return 1;
	for (u64 i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		if (equal(what, modes[i]))
			return call(HC_PMEM, HC_PMEM_SET_MODE, region, i) != 0;
	if (equal(what, "mode"))
		return show(call(HC_PMEM, HC_PMEM_MODE, region, 0), modes, 3);
	if (equal(what, "kind"))
		return show(call(HC_PMEM, HC_PMEM_KIND, region, 0), kinds, 4);
	if (equal(what, "within") && argc > 3)
		return call(HC_PMEM, HC_PMEM_CUT_WITHIN, region, parse_u64(argv[3])) != 0;
	if (equal(what, "flushes"))
		return flushes(region);
	return number(what, region);
}
