/*
 * Fuzz target: any bytes as instructions, from any state, in any mode. Whatever the emulator does,
 * it accesses memory only through its operations and only where they said so, fetches each byte
 * once per step, changes nothing when it faults, does a bounded amount of work, and a cached
 * decoding acts like a fresh one.
 */
#include <stdlib.h>
#include <string.h>

#include "emu/emu_insn.h"
#include "x86/regs.h"

#define RAM_PAGES 16u
#define RAM_BYTES (RAM_PAGES * 4096u)

/* Fixed part of the input, in front of the code. */
struct input {
	u8 mode, cpl_real, fault_page, results;
	u16 rip;
	u16 limit;
	u32 ar;
	u64 rflags, base;
	u64 gpr[16];
} __packed;

static struct input in;
static u8 ram[RAM_BYTES], pattern[RAM_BYTES];
static u32 fetch_mask[2]; /* bytes fetched, by distance from RIP */
static u32 work, changes;
static u64 granted[8]; /* physical pages given out by translate(), newest first */

static void require(bool ok)
{
	if (!ok)
		abort();
}

static int op_segment(void *ctx, unsigned int seg, struct emu_segment *out)
{
	require(seg < EMU_SEG_COUNT && (in.mode != EMU_MODE_64 || seg >= EMU_FS));
	*out = (struct emu_segment){in.base >> seg, in.limit * 0x10001u, in.ar >> seg};
	if (in.mode == EMU_MODE_64)
		out->base = in.base;
	return 0;
}

static int op_translate(void *ctx, u64 linear, unsigned int access, gpa_t *out,
			struct emu_exception *fault)
{
	u64 page = linear >> 12 & (RAM_PAGES - 1);

	work++;
	require(access && !(access & ~(EMU_READ | EMU_WRITE | EMU_FETCH)));
	require(in.mode == EMU_MODE_64 || linear >> 32 == 0);
	if (page == in.fault_page % 32u) {
		*fault = (struct emu_exception){VEC_PF, true, access, linear};
		return in.fault_page & 0x40 ? EMU_TRANSLATE_RETRY : EMU_TRANSLATE_FAULT;
	}
	memmove(granted + 1, granted, sizeof(granted) - sizeof(granted[0]));
	granted[0] = page;
	*out = gpa(page << 12 | (linear & 0xfff));
	return EMU_TRANSLATE_OK;
}

/* Within one page, and one that was translated. */
static u8 *place(gpa_t at, unsigned int len)
{
	bool found = false;

	work++;
	require(len && (at.v & 0xfff) + len <= 4096);
	for (size_t i = 0; i < ARRAY_SIZE(granted); i++)
		found |= granted[i] == at.v >> 12;
	require(found);
	return ram + at.v;
}

static int op_fetch(void *ctx, gpa_t from, void *dst, unsigned int len)
{
	require(len <= EMU_INSN_MAX);
	fetch_mask[0] += len;
	fetch_mask[1]++;
	require(fetch_mask[0] <= EMU_INSN_MAX && fetch_mask[1] <= 3);
	memcpy(dst, place(from, len), len);
	return 0;
}

static void require_size(unsigned int len)
{
	require(len == 1 || len == 2 || len == 4 || len == 8);
}

static int op_read(void *ctx, gpa_t from, void *dst, unsigned int len)
{
	require_size(len);
	memcpy(dst, place(from, len), len);
	return in.results & 1 ? ERR_FAULT : 0;
}

static int op_write(void *ctx, gpa_t to, const void *src, unsigned int len)
{
	require_size(len);
	changes++;
	memcpy(place(to, len), src, len);
	return in.results & 2 ? ERR_FAULT : 0;
}

static int op_cmpxchg(void *ctx, gpa_t at, const void *expected, const void *desired,
		      unsigned int len)
{
	u8 *p = place(at, len);

	require(len == 16 || (len & (len - 1)) == 0);
	require(memcmp(p, expected, len) == 0);
	if (in.results & 4)
		return 1;
	changes++;
	memcpy(p, desired, len);
	return 0;
}

static int op_vector_read(void *ctx, unsigned int reg, void *dst, unsigned int len)
{
	require(reg < 16 && (len == 16 || len == 32));
	memset(dst, (int)reg, len);
	return in.results & 8 ? ERR_BUSY : 0;
}

static int op_vector_write(void *ctx, unsigned int reg, const void *src, unsigned int len, bool vex)
{
	static u8 sink[32];

	require(reg < 16 && (len == 16 || (len == 32 && vex)));
	memcpy(sink, src, len);
	changes++;
	return 0;
}

static const struct emu_ops ops = {
	.segment = op_segment,
	.translate = op_translate,
	.fetch = op_fetch,
	.read = op_read,
	.write = op_write,
	.cmpxchg = op_cmpxchg,
	.vector_read = op_vector_read,
	.vector_write = op_vector_write,
};

struct outcome {
	enum emu_status status;
	u64 gpr[16], rip, rflags;
	struct emu_report report;
};

static struct emu_cpu start(u64 gpr[16])
{
	memcpy(gpr, in.gpr, sizeof(in.gpr));
	return (struct emu_cpu){.gpr = gpr,
				.rip = in.rip,
				.rflags = in.rflags,
				.mode = in.mode,
				.cpl = in.cpl_real & 3,
				.real = in.mode != EMU_MODE_64 && (in.cpl_real & 4),
				.linear_bits = in.cpl_real & 8 ? 57 : 48};
}

static void check(const struct outcome *o, const struct emu_cpu *before)
{
	bool repeated = changes || memcmp(o->gpr, before->gpr, sizeof(o->gpr));

	require(work <= 16 + 12 * EMU_REP_MAX);
	switch (o->status) {
	case EMU_DONE:
		require(o->report.length >= 1 && o->report.length <= EMU_INSN_MAX);
		require(o->rip == before->rip + o->report.length);
		break;
	case EMU_PARTIAL:
		require(o->rip == before->rip);
		break;
	case EMU_RETRY:
	case EMU_EXCEPTION:
		require(o->rip == before->rip);
		/* Only whole iterations of a string instruction may have changed anything. */
		require(!repeated || (before->gpr[EMU_RCX] ^ o->gpr[EMU_RCX]));
		break;
	case EMU_UNSUPPORTED:
	case EMU_UNDECODABLE:
		require(!repeated && o->report.reason);
		break;
	case EMU_FAILED:
		require(o->report.reason);
		break;
	}
}

static void run(struct emu_cache *cache, const u8 *code, size_t len, struct outcome *o)
{
	u64 gpr[16];
	struct emu_cpu cpu = start(gpr), before = cpu;
	static bool filled;
	u64 saved[16];
	u64 linear = in.rip;

	for (u32 i = 0; i < RAM_BYTES && !filled; i++)
		pattern[i] = (u8)(i * 5);
	filled = true;
	memcpy(ram, pattern, RAM_BYTES);
	if (in.mode != EMU_MODE_64)
		linear = (u32)(linear + (in.base >> EMU_CS));
	for (size_t i = 0; i < len; i++)
		ram[(linear + i) % RAM_BYTES] = code[i];
	memcpy(saved, gpr, sizeof(saved));
	before.gpr = saved;
	work = changes = 0;
	fetch_mask[0] = fetch_mask[1] = 0;
	memset(granted, 0xff, sizeof(granted));
	memset(o, 0, sizeof(*o));
	o->status = emu_step(&ops, NULL, &cpu, cache, &o->report);
	memcpy(o->gpr, gpr, sizeof(gpr));
	o->rip = cpu.rip;
	o->rflags = cpu.rflags;
	check(o, &before);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static const u8 modes[] = {EMU_MODE_64, EMU_MODE_64, EMU_MODE_32, EMU_MODE_16};
	static struct emu_cache cache;
	struct outcome fresh, cached;
	size_t code_len;

	if (size < sizeof(in) + 1)
		return 0;
	memcpy(&in, bytes, sizeof(in));
	in.mode = modes[in.mode % 4];
	in.rflags = (in.rflags & 0x244ed5) | 2;
	code_len = MIN(size - sizeof(in), (size_t)64);
	memset(&cache, 0, sizeof(cache));
	run(&cache, bytes + sizeof(in), code_len, &fresh);
	run(&cache, bytes + sizeof(in), code_len, &cached);
	require(fresh.status == cached.status && fresh.rip == cached.rip &&
		fresh.rflags == cached.rflags &&
		memcmp(fresh.gpr, cached.gpr, sizeof(fresh.gpr)) == 0);
	return 0;
}
