/*
 * What the emulator does around the instructions themselves: modes, segments, faults without
 * commitment, split accesses, MMIO, repeated strings, fetching, and the decode cache.
 *
 * The guest has 64 KiB of memory; everything from MMIO on is a device that logs accesses. Linear
 * addresses are physical ones, modulo 1 MiB.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "emu/emu_insn.h"
#include "x86/regs.h"

#define RAM_BYTES 0x10000u
#define MMIO	  0xf000u /* the last page below RAM's end is the device too */
#define CODE	  0x1000u
#define NO_PAGE	  ~0ull

static u8 ram[RAM_BYTES];
static u64 gpr[16];
static struct emu_cpu cpu;
static struct emu_cache cache;
static struct emu_report report;
static struct emu_segment segs[EMU_SEG_COUNT];
static u64 fault_page, retry_page; /* linear page that faults, or asks for another try */
static int cmpxchg_result;
static u32 cmpxchg_calls, fetched, segment_calls, code_walks;
static char accesses[4096]; /* "r4@f010 w8@f020 " */
static char places[4096];   /* the kinds of access and addresses that were translated */

static int op_segment(void *ctx, unsigned int seg, struct emu_segment *out)
{
	assert_true(seg < EMU_SEG_COUNT);
	assert_true(cpu.mode != EMU_MODE_64 || seg >= EMU_FS);
	segment_calls++;
	*out = segs[seg];
	return 0;
}

static int op_translate(void *ctx, u64 linear, unsigned int access, gpa_t *out,
			struct emu_exception *fault)
{
	if (access & EMU_FETCH)
		code_walks++;
	else
		sprintf(places + strlen(places), "%u@%llx ", access, (unsigned long long)linear);
	if ((linear & PAGE_MASK) == retry_page)
		return EMU_TRANSLATE_RETRY;
	if ((linear & PAGE_MASK) == fault_page) {
		*fault = (struct emu_exception){VEC_PF, true, access == EMU_WRITE ? PF_W : 0,
						linear};
		return EMU_TRANSLATE_FAULT;
	}
	*out = gpa(linear & 0xfffff);
	return EMU_TRANSLATE_OK;
}

/* Nothing is there. */
static u64 empty_base, empty_bytes;

static u8 *at(gpa_t where, unsigned int len)
{
	if (where.v + len > RAM_BYTES)
		fail_msg("access to %#llx", (unsigned long long)where.v);
	assert_true((where.v & 0xfff) + len <= 0x1000);
	return ram + where.v;
}

static int op_fetch(void *ctx, gpa_t from, void *dst, unsigned int len)
{
	fetched += len;
	memcpy(dst, at(from, len), len);
	return 0;
}

static void note(char kind, gpa_t where, unsigned int len)
{
	assert_true(len == 1 || len == 2 || len == 4 || len == 8);
	sprintf(accesses + strlen(accesses), "%c%u@%llx ", kind, len, (unsigned long long)where.v);
}

static int op_read(void *ctx, gpa_t from, void *dst, unsigned int len)
{
	note('r', from, len);
	memcpy(dst, at(from, len), len);
	return 0;
}

static int op_write(void *ctx, gpa_t to, const void *src, unsigned int len)
{
	note('w', to, len);
	if (to.v - empty_base >= empty_bytes)
		memcpy(at(to, len), src, len);
	return 0;
}

static int op_cmpxchg(void *ctx, gpa_t where, const void *expected, const void *desired,
		      unsigned int len)
{
	cmpxchg_calls++;
	assert_memory_equal(at(where, len), expected, len);
	if (!cmpxchg_result)
		memcpy(at(where, len), desired, len);
	return cmpxchg_result;
}

static u8 vectors[16][32];

static int op_vector_read(void *ctx, unsigned int reg, void *dst, unsigned int len)
{
	memcpy(dst, vectors[reg], len);
	return 0;
}

static int op_vector_write(void *ctx, unsigned int reg, const void *src, unsigned int len, bool vex)
{
	memcpy(vectors[reg], src, len);
	return 0;
}

static bool op_inert(void *ctx, gpa_t where, unsigned int access)
{
	if (where.v - empty_base < empty_bytes)
		return true;
	return access == EMU_READ && (where.v & ~0xfffull) != MMIO;
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
	.inert = op_inert,
};

static void set_mode(u8 mode)
{
	cpu.mode = mode;
	for (u32 i = 0; i < EMU_SEG_COUNT; i++)
		segs[i] = (struct emu_segment){0, 0xffffffff, 0xc093};
	segs[EMU_CS].ar = 0xc09b;
	if (mode == EMU_MODE_16) {
		segs[EMU_CS].ar = 0x9b;
		segs[EMU_SS].ar = 0x93; /* 16-bit stack */
	}
}

static int setup(void **state)
{
	for (u32 i = 0; i < RAM_BYTES; i++)
		ram[i] = (u8)(i ^ i >> 8);
	for (u32 i = 0; i < 16; i++)
		gpr[i] = 0x1111111111111111ull * i;
	memset(&cache, 0, sizeof(cache));
	memset(vectors, 0x77, sizeof(vectors));
	cpu = (struct emu_cpu){.gpr = gpr, .rip = CODE, .rflags = 2, .linear_bits = 48};
	set_mode(EMU_MODE_64);
	fault_page = retry_page = NO_PAGE;
	cmpxchg_result = 0;
	cmpxchg_calls = fetched = segment_calls = 0;
	empty_base = empty_bytes = 0;
	return 0;
}

static enum emu_status run(void)
{
	accesses[0] = places[0] = 0;
	fetched = code_walks = 0;
	return emu_step(&ops, NULL, &cpu, &cache, &report);
}

/* Puts an instruction at RIP (below 64 KiB) and emulates it. */
#define STEP(...) step((const u8[]){__VA_ARGS__}, sizeof((const u8[]){__VA_ARGS__}))

static enum emu_status step(const u8 *bytes, u32 len)
{
	memcpy(ram + cpu.rip, bytes, len);
	return run();
}

static void is_exception(enum emu_status status, u8 vector)
{
	assert_int_equal(status, EMU_EXCEPTION);
	assert_int_equal(report.exception.vector, vector);
	assert_int_equal(report.exception.error, 0);
	assert_int_equal(report.exception.has_error, !cpu.real);
}

static u64 ram_value(u32 where, u32 size)
{
	u64 v = 0;

	memcpy(&v, ram + where, size);
	return v;
}

/* --- accesses --- */

static void device_accesses(void **state)
{
	gpr[EMU_RBX] = MMIO + 0x10;
	assert_int_equal(STEP(0x8b, 0x03), EMU_DONE); /* mov (%rbx), %eax */
	assert_string_equal(accesses, "r4@f010 ");
	assert_int_equal(gpr[EMU_RAX], ram_value(MMIO + 0x10, 4));
	assert_int_equal(cpu.rip, CODE + 2);
	cpu.rip = CODE;
	assert_int_equal(STEP(0x0f, 0x11, 0x03), EMU_DONE); /* movups %xmm0, (%rbx) */
	assert_string_equal(accesses, "w8@f010 w8@f018 ");
	cpu.rip = CODE;
	assert_int_equal(STEP(0xc5, 0xfc, 0x10, 0x03), EMU_DONE); /* vmovups (%rbx), %ymm0 */
	assert_string_equal(accesses, "r8@f010 r8@f018 r8@f020 r8@f028 ");
	cpu.rip = CODE; /* an addition reads and writes once each */
	assert_int_equal(STEP(0x01, 0x03), EMU_DONE);
	assert_string_equal(accesses, "r4@f010 w4@f010 ");
	assert_string_equal(places, "3@f010 ");
	cpu.rip = CODE; /* a comparison only reads */
	assert_int_equal(STEP(0x39, 0x03), EMU_DONE);
	assert_string_equal(accesses, "r4@f010 ");
	assert_string_equal(places, "1@f010 ");
	cpu.rip = CODE; /* clflush accesses nothing */
	assert_int_equal(STEP(0x0f, 0xae, 0x3b), EMU_DONE);
	assert_string_equal(accesses, "");
	assert_string_equal(places, "1@f010 ");
	assert_int_equal(segment_calls, 0);
}

static void straddling(void **state)
{
	gpr[EMU_RBX] = MMIO - 3;
	gpr[EMU_RAX] = 0x8877665544332211;
	assert_int_equal(STEP(0x48, 0x89, 0x03), EMU_DONE);
	assert_string_equal(accesses, "w2@effd w1@efff w4@f000 w1@f004 ");
	assert_int_equal(ram_value(MMIO - 3, 8), 0x8877665544332211);
	cpu.rip = CODE; /* a locked one cannot be atomic then */
	assert_int_equal(STEP(0xf0, 0x48, 0x01, 0x03), EMU_DONE);
	assert_int_equal(cmpxchg_calls, 0);
	assert_int_equal(ram_value(MMIO - 3, 8), 0x8877665544332211 * 2);
}

static void locked(void **state)
{
	gpr[EMU_RBX] = 0x4000;
	assert_int_equal(STEP(0xf0, 0x01, 0x03), EMU_DONE);
	assert_int_equal(cmpxchg_calls, 1);
	cpu.rip = CODE;
	assert_int_equal(STEP(0x01, 0x03), EMU_DONE);
	assert_int_equal(cmpxchg_calls, 1);
	cpu.rip = CODE; /* xchg locks by itself */
	assert_int_equal(STEP(0x87, 0x03), EMU_DONE);
	assert_int_equal(cmpxchg_calls, 2);
	cpu.rip = CODE; /* cmpxchg that does not find its value writes back what it found */
	gpr[EMU_RAX] = ~ram_value(0x4000, 8);
	assert_int_equal(STEP(0xf0, 0x48, 0x0f, 0xb1, 0x0b), EMU_DONE);
	assert_int_equal(cmpxchg_calls, 3);
	assert_int_equal(gpr[EMU_RAX], ram_value(0x4000, 8));
	cpu.rip = CODE; /* cmpxchg16b: one operation of 16 bytes */
	assert_int_equal(STEP(0xf0, 0x48, 0x0f, 0xc7, 0x0b), EMU_DONE);
	assert_int_equal(cmpxchg_calls, 4);
}

static void lost_race(void **state)
{
	u64 before[16];
	u64 memory = ram_value(0x4000, 8);

	cmpxchg_result = 1;
	gpr[EMU_RBX] = 0x4000;
	memcpy(before, gpr, sizeof(gpr));
	assert_int_equal(STEP(0xf0, 0x48, 0x0f, 0xc1, 0x03), EMU_RETRY); /* xadd */
	cpu.rip = CODE;
	assert_int_equal(STEP(0x48, 0x87, 0x03), EMU_RETRY);
	assert_int_equal(STEP(0xf0, 0x48, 0x0f, 0xb1, 0x0b), EMU_RETRY);
	assert_int_equal(STEP(0xf0, 0x48, 0x0f, 0xc7, 0x0b), EMU_RETRY);
	assert_int_equal(STEP(0xf0, 0x48, 0xff, 0x03), EMU_RETRY);
	assert_memory_equal(gpr, before, sizeof(gpr));
	assert_int_equal(ram_value(0x4000, 8), memory);
	assert_int_equal(cpu.rip, CODE);
	assert_int_equal(cpu.rflags, 2);
	retry_page = 0x4000;
	assert_int_equal(STEP(0x48, 0x8b, 0x03), EMU_RETRY);
	cmpxchg_result = ERR_FAULT;
	retry_page = NO_PAGE;
	assert_int_equal(STEP(0xf0, 0x48, 0xff, 0x03), EMU_FAILED);
	assert_non_null(report.reason);
}

/* --- faults --- */

static void page_fault_at(u64 cr2)
{
	assert_int_equal(report.exception.vector, VEC_PF);
	assert_int_equal(report.exception.cr2, cr2);
	assert_string_equal(accesses, "");
	assert_int_equal(cpu.rip, CODE);
	assert_int_equal(cpu.rflags, 2);
}

static void faults_commit_nothing(void **state)
{
	u64 before[16];

	gpr[EMU_RBX] = 0x4ffe;
	gpr[EMU_RSP] = 0x6008;
	gpr[EMU_RSI] = MMIO;
	gpr[EMU_RDI] = 0x5000;
	memcpy(before, gpr, sizeof(gpr));
	fault_page = 0x5000; /* the second page of the operand */
	assert_int_equal(STEP(0xf0, 0x0f, 0xc1, 0x03), EMU_EXCEPTION);
	page_fault_at(0x5000);
	assert_int_equal(STEP(0x89, 0x03), EMU_EXCEPTION);
	page_fault_at(0x5000);
	assert_int_equal(report.exception.error, PF_W);
	assert_int_equal(STEP(0x0f, 0x11, 0x03), EMU_EXCEPTION);
	page_fault_at(0x5000);
	assert_int_equal(STEP(0xa4), EMU_EXCEPTION); /* movsb: the device is not read */
	page_fault_at(0x5000);
	gpr[EMU_RSP] = before[EMU_RSP] = 0x5008; /* push: neither */
	gpr[EMU_RBX] = before[EMU_RBX] = MMIO;
	assert_int_equal(STEP(0xff, 0x33), EMU_EXCEPTION);
	page_fault_at(0x5000);
	assert_int_equal(STEP(0x8f, 0x03), EMU_EXCEPTION); /* pop */
	page_fault_at(0x5008);
	assert_memory_equal(gpr, before, sizeof(gpr));
}

static void canonical_addresses(void **state)
{
	gpr[EMU_RBX] = gpr[EMU_RBP] = 0x7ffffffffff8;
	is_exception(STEP(0x48, 0x8b, 0x43, 0x01), VEC_GP);	  /* its last byte is not */
	is_exception(STEP(0x48, 0x8b, 0x45, 0x01), VEC_SS);	  /* by RBP: the stack segment */
	is_exception(STEP(0x64, 0x48, 0x8b, 0x45, 0x01), VEC_GP); /* unless overridden */
	cpu.linear_bits = 57;
	retry_page = 0x7ffffffff000;
	assert_int_equal(STEP(0x48, 0x8b, 0x43, 0x01), EMU_RETRY);
	assert_string_equal(places, "1@7ffffffffff9 ");
}

static void alignment(void **state)
{
	gpr[EMU_RBX] = 0x4008;
	is_exception(STEP(0x0f, 0x28, 0x03), VEC_GP);	    /* movaps */
	is_exception(STEP(0x48, 0x0f, 0xc7, 0x0b), VEC_GP); /* cmpxchg16b */
	gpr[EMU_RBX] = 0x4010;
	is_exception(STEP(0xc5, 0xfc, 0x28, 0x03), VEC_GP); /* vmovaps ymm */
	assert_int_equal(STEP(0x0f, 0x28, 0x03), EMU_DONE);
}

/* --- modes and segments --- */

static void addressing_16(void **state)
{
	static const struct {
		u8 modrm;
		const char *place;
	} cases[] = {
		{0x00, "1@20220 "},			/* bx+si, DS */
		{0x01, "1@20240 "},			/* bx+di */
		{0x02, "1@30420 "},			/* bp+si, SS */
		{0x03, "1@30440 "}, {0x04, "1@20020 "}, /* si */
		{0x05, "1@20040 "}, {0x06, "1@21234 "}, /* disp16 */
		{0x07, "1@20200 "}, {0x46, "1@30434 "}, /* bp+disp8 */
		{0x86, "1@31634 "},			/* bp+disp16 */
		{0x82, "1@31654 "},
	};

	set_mode(EMU_MODE_16);
	cpu.real = true;
	segs[EMU_DS].base = 0x20000;
	segs[EMU_SS].base = 0x30000;
	gpr[EMU_RBX] = 0xabcd0200;
	gpr[EMU_RBP] = 0xabcd0400;
	gpr[EMU_RSI] = 0xabcd0020;
	gpr[EMU_RDI] = 0xabcd0040;
	retry_page = 0; /* code lies at 0x1000; operands are only translated */
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		enum emu_status status;

		retry_page =
			(i == 6 ? 0x21000 : 0x20000) | (cases[i].place[2] == '3' ? 0x10000 : 0);
		if (cases[i].modrm >= 0x80)
			retry_page = 0x31000;
		status = STEP(0x8a, cases[i].modrm, 0x34, 0x12);
		assert_int_equal(status, EMU_RETRY);
		assert_string_equal(places, cases[i].place);
	}
	/* The offset wraps at 64 KiB; 32-bit addressing by prefix. */
	gpr[EMU_RSI] = 0xfff0;
	retry_page = 0x20000;
	assert_int_equal(STEP(0x8a, 0x44, 0x20), EMU_RETRY);
	assert_string_equal(places, "1@20010 ");
	gpr[EMU_RSI] = 0x100;
	assert_int_equal(STEP(0x67, 0x8a, 0x46, 0x20), EMU_RETRY);
	assert_string_equal(places, "1@20120 ");
	retry_page = 0x30000;
	assert_int_equal(STEP(0x36, 0x8a, 0x44, 0x20), EMU_RETRY);
	assert_string_equal(places, "1@30120 ");
}

static void addressing_32(void **state)
{
	set_mode(EMU_MODE_32);
	segs[EMU_FS].base = 0xfffff000;
	segs[EMU_SS].base = 0x1000;
	gpr[EMU_RBX] = 0xffffffff00003000;
	assert_int_equal(STEP(0x8b, 0x43, 0x10), EMU_DONE);
	assert_string_equal(places, "1@3010 ");
	gpr[EMU_RBX] = 0x3000;
	cpu.rip = CODE; /* the linear address wraps at 4 GiB */
	assert_int_equal(STEP(0x64, 0x8b, 0x43, 0x10), EMU_DONE);
	assert_string_equal(places, "1@2010 ");
	cpu.rip = CODE; /* also within an operand */
	gpr[EMU_RBX] = 0xffe;
	fault_page = 0;
	assert_int_equal(STEP(0x64, 0x8b, 0x03), EMU_EXCEPTION);
	assert_string_equal(places, "1@fffffffe 1@0 ");
	fault_page = NO_PAGE;
	cpu.rip = CODE; /* mod 0, rm 5 is an absolute address, ESP-based ones are in SS */
	assert_int_equal(STEP(0x8b, 0x05, 0x00, 0x20, 0, 0), EMU_DONE);
	assert_string_equal(places, "1@2000 ");
	cpu.rip = CODE;
	gpr[EMU_RSP] = 0x2000;
	assert_int_equal(STEP(0x8b, 0x04, 0x24), EMU_DONE);
	assert_string_equal(places, "1@3000 ");
	cpu.rip = CODE; /* 16-bit addressing by prefix */
	gpr[EMU_RBX] = 0x12342000;
	assert_int_equal(STEP(0x67, 0x8b, 0x07), EMU_DONE);
	assert_string_equal(places, "1@2000 ");
	cpu.rip = CODE; /* 64-bit: RIP-relative to the next instruction, 32-bit address size */
	set_mode(EMU_MODE_64);
	assert_int_equal(STEP(0x8b, 0x05, 0x10, 0x10, 0, 0), EMU_DONE);
	assert_string_equal(places, "1@2016 ");
	cpu.rip = CODE;
	gpr[EMU_RBX] = 0xffffffff00002000;
	assert_int_equal(STEP(0x67, 0x8b, 0x03), EMU_DONE);
	assert_string_equal(places, "1@2000 ");
	cpu.rip = CODE; /* only FS and GS have a base; other overrides are ignored */
	segs[EMU_GS].base = 0x3000;
	assert_int_equal(STEP(0x65, 0x67, 0x8b, 0x03), EMU_DONE);
	assert_string_equal(places, "1@5000 ");
	cpu.rip = CODE;
	assert_int_equal(STEP(0x2e, 0x67, 0x8b, 0x03), EMU_DONE);
	assert_string_equal(places, "1@2000 ");
}

static void segment_rules(void **state)
{
	set_mode(EMU_MODE_32);
	gpr[EMU_RBX] = 0x3000;
	segs[EMU_DS].ar = 0xc091; /* read-only */
	assert_int_equal(STEP(0x8b, 0x03), EMU_DONE);
	cpu.rip = CODE;
	is_exception(STEP(0x89, 0x03), VEC_GP);
	is_exception(STEP(0x01, 0x03), VEC_GP);
	segs[EMU_DS].ar = 0xc09b; /* code: readable, never writable */
	assert_int_equal(STEP(0x8b, 0x03), EMU_DONE);
	cpu.rip = CODE;
	is_exception(STEP(0x89, 0x03), VEC_GP);
	segs[EMU_DS].ar = 0xc099; /* execute-only */
	is_exception(STEP(0x8b, 0x03), VEC_GP);
	segs[EMU_DS].ar = 0x1c093; /* unusable */
	is_exception(STEP(0x8b, 0x03), VEC_GP);
	segs[EMU_DS] = (struct emu_segment){0, 0x3002, 0x4093}; /* limit: one byte short */
	is_exception(STEP(0x8b, 0x03), VEC_GP);
	segs[EMU_DS].limit = 0x3003;
	assert_int_equal(STEP(0x8b, 0x03), EMU_DONE);
	cpu.rip = CODE;
	segs[EMU_DS] = (struct emu_segment){0, 0x2fff, 0x4097}; /* expand-down: above the limit */
	assert_int_equal(STEP(0x8b, 0x03), EMU_DONE);
	cpu.rip = CODE;
	segs[EMU_DS].limit = 0x3000;
	is_exception(STEP(0x8b, 0x03), VEC_GP);
	segs[EMU_DS] = (struct emu_segment){0, 0, 0x0097}; /* 16-bit: up to FFFFH */
	gpr[EMU_RBX] = 0xfffd;
	is_exception(STEP(0x8b, 0x03), VEC_GP);
	segs[EMU_SS] = (struct emu_segment){0, 0xfff, 0x4093};
	gpr[EMU_RBP] = 0x1000;
	is_exception(STEP(0x8b, 0x45, 0x00), VEC_SS);
	cpu.real = true; /* no error code, no types, but limits */
	segs[EMU_DS] = (struct emu_segment){0, 0xffff, 0x91};
	assert_int_equal(STEP(0x88, 0x03), EMU_DONE);
	cpu.rip = CODE;
	is_exception(STEP(0x89, 0x03), VEC_GP);
}

static void stacks(void **state)
{
	set_mode(EMU_MODE_32);
	gpr[EMU_RBX] = 0x3000;
	gpr[EMU_RSP] = 0x12340000;
	segs[EMU_SS].ar = 0x93; /* 16-bit stack: SP only, and it wraps */
	assert_int_equal(STEP(0xff, 0x33), EMU_DONE);
	assert_string_equal(accesses, "r4@3000 w4@fffc ");
	assert_int_equal(gpr[EMU_RSP], 0x1234fffc);
	cpu.rip = CODE;
	segs[EMU_SS].ar = 0xc093;
	gpr[EMU_RSP] = 0x4000;
	assert_int_equal(STEP(0x66, 0xff, 0x33), EMU_DONE); /* a word */
	assert_string_equal(accesses, "r2@3000 w2@3ffe ");
	assert_int_equal(gpr[EMU_RSP], 0x3ffe);
	cpu.rip = CODE; /* pop (%esp): the address is computed with ESP incremented */
	gpr[EMU_RSP] = 0x4000;
	assert_int_equal(STEP(0x8f, 0x04, 0x24), EMU_DONE);
	assert_string_equal(accesses, "r4@4000 w4@4004 ");
	cpu.rip = CODE; /* push (%esp): with ESP as it was */
	gpr[EMU_RSP] = 0x4000;
	assert_int_equal(STEP(0xff, 0x34, 0x24), EMU_DONE);
	assert_string_equal(accesses, "r4@4000 w4@3ffc ");
}

/* --- strings --- */

static void repeats(void **state)
{
	gpr[EMU_RCX] = 100;
	gpr[EMU_RSI] = 0x3000;
	gpr[EMU_RDI] = 0x4000;
	assert_int_equal(STEP(0xf3, 0xa4), EMU_PARTIAL);
	assert_int_equal(gpr[EMU_RCX], 100 - EMU_REP_MAX);
	assert_int_equal(gpr[EMU_RSI], 0x3000 + EMU_REP_MAX);
	assert_int_equal(cpu.rip, CODE);
	assert_int_equal(run(), EMU_DONE);
	assert_int_equal(gpr[EMU_RCX], 0);
	assert_int_equal(gpr[EMU_RDI], 0x4064);
	assert_int_equal(cpu.rip, CODE + 2);
	assert_memory_equal(ram + 0x4000, ram + 0x3000, 100);
	cpu.rip = CODE; /* nothing to do: no access, no fault */
	fault_page = 0x4000;
	assert_int_equal(STEP(0xf3, 0xa4), EMU_DONE);
	assert_string_equal(accesses, "");
	cpu.rip = CODE; /* a fault keeps the iterations before it */
	gpr[EMU_RCX] = 10;
	gpr[EMU_RDI] = 0x3ffd;
	assert_int_equal(STEP(0xf3, 0xaa), EMU_EXCEPTION);
	assert_int_equal(report.exception.cr2, 0x4000);
	assert_int_equal(gpr[EMU_RCX], 7);
	assert_int_equal(gpr[EMU_RDI], 0x4000);
	assert_int_equal(cpu.rip, CODE);
	fault_page = NO_PAGE; /* 32-bit address size: upper halves are cleared */
	gpr[EMU_RCX] = 0xffffffff00000002;
	gpr[EMU_RDI] = 0xffffffff00004000;
	assert_int_equal(STEP(0xf3, 0x67, 0xaa), EMU_DONE);
	assert_int_equal(gpr[EMU_RCX], 0);
	assert_int_equal(gpr[EMU_RDI], 0x4002);
	cpu.rip = CODE; /* 16-bit: DI wraps, the rest of EDI and ECX stays */
	set_mode(EMU_MODE_16);
	gpr[EMU_RCX] = 0x50002;
	gpr[EMU_RDI] = 0x7ffff;
	segs[EMU_ES].base = 0xffff0000;
	segs[EMU_ES].limit = 0xffff;
	fault_page = 0xfffff000;
	assert_int_equal(STEP(0xf3, 0xaa), EMU_EXCEPTION);
	assert_string_equal(places, "2@ffffffff ");
	segs[EMU_ES].base = 0;
	assert_int_equal(run(), EMU_DONE);
	assert_string_equal(accesses, "w1@ffff w1@0 ");
	assert_int_equal(gpr[EMU_RDI], 0x70001);
	assert_int_equal(gpr[EMU_RCX], 0x50000);
}

/* Stores to where nothing is: only registers show that they were made, a page of them at a time. */
static void nowhere(void **state)
{
	empty_base = 0x20000;
	empty_bytes = 0xe0000;
	gpr[EMU_RCX] = 0x2100;
	gpr[EMU_RSI] = 0x3008;
	gpr[EMU_RDI] = 0x20004;
	assert_int_equal(STEP(0xf3, 0xa5), EMU_DONE); /* rep movsd */
	assert_int_equal(gpr[EMU_RCX], 0);
	assert_int_equal(gpr[EMU_RSI], 0x3008 + 4 * 0x2100);
	assert_int_equal(gpr[EMU_RDI], 0x20004 + 4 * 0x2100);
	assert_string_equal(accesses, "r4@3008 w4@20004 ");
	cpu.rip = CODE; /* as many pages as a call has iterations behind the first */
	gpr[EMU_RCX] = 65 * 4096;
	gpr[EMU_RDI] = 0x20fff;
	assert_int_equal(STEP(0xf3, 0xaa), EMU_PARTIAL);
	assert_int_equal(gpr[EMU_RCX], 2 * 4096 - 1);
	assert_int_equal(gpr[EMU_RDI], 0x20000 + EMU_REP_MAX * 4096);
	cpu.rip = CODE; /* a fault in the source keeps what was stored before it */
	gpr[EMU_RCX] = 5;
	gpr[EMU_RSI] = 0x3ffe;
	gpr[EMU_RDI] = 0x20000;
	fault_page = 0x4000;
	assert_int_equal(STEP(0xf3, 0xa4), EMU_EXCEPTION);
	assert_int_equal(report.exception.cr2, 0x4000);
	assert_int_equal(gpr[EMU_RCX], 3);
	assert_int_equal(gpr[EMU_RDI], 0x20002);
}

/* Where the emptiness ends, or something else shows, every access is made. */
static void nowhere_ends(void **state)
{
	empty_base = 0x5000;
	empty_bytes = 0x1000;
	gpr[EMU_RCX] = 5; /* memory behind it */
	gpr[EMU_RDI] = 0x5ffd;
	assert_int_equal(STEP(0xf3, 0xaa), EMU_DONE);
	assert_string_equal(accesses, "w1@5ffd w1@6000 w1@6001 ");
	cpu.rip = CODE; /* half of a word in it */
	gpr[EMU_RCX] = 2;
	gpr[EMU_RDI] = 0x5fff;
	assert_int_equal(STEP(0x66, 0xf3, 0xab), EMU_DONE);
	assert_string_equal(accesses, "w1@5fff w1@6000 w2@6001 ");
	cpu.rip = CODE; /* a device as the source */
	gpr[EMU_RCX] = 2;
	gpr[EMU_RSI] = MMIO;
	gpr[EMU_RDI] = 0x5000;
	assert_int_equal(STEP(0xf3, 0xa4), EMU_DONE);
	assert_string_equal(accesses, "r1@f000 w1@5000 r1@f001 w1@5001 ");
	cpu.rip = CODE; /* what is read counts */
	gpr[EMU_RCX] = 2;
	gpr[EMU_RAX] = ~(u64)0;
	gpr[EMU_RDI] = 0x5000;
	assert_int_equal(STEP(0xf2, 0xae), EMU_DONE);
	assert_string_equal(accesses, "r1@5000 r1@5001 ");
	cpu.rip = CODE; /* downwards */
	gpr[EMU_RCX] = 2;
	gpr[EMU_RDI] = 0x5001;
	cpu.rflags |= RFLAGS_DF;
	assert_int_equal(STEP(0xf3, 0xaa), EMU_DONE);
	assert_string_equal(accesses, "w1@5001 w1@5000 ");
	cpu.rflags &= ~(u64)RFLAGS_DF;
	cpu.rip = CODE; /* the segment ends on the page */
	set_mode(EMU_MODE_32);
	segs[EMU_ES].limit = 0x5007;
	gpr[EMU_RCX] = 4;
	gpr[EMU_RDI] = 0x5000;
	is_exception(STEP(0xf3, 0xab), VEC_GP);
	assert_int_equal(gpr[EMU_RCX], 2);
	cpu.rip = CODE; /* the index register wraps on the page */
	set_mode(EMU_MODE_16);
	segs[EMU_ES].base = 0x8;
	segs[EMU_ES].limit = 0xffff;
	empty_base = 0x10000;
	gpr[EMU_RCX] = 4;
	gpr[EMU_RDI] = 0xfffd;
	assert_int_equal(STEP(0xf3, 0xaa), EMU_DONE);
	assert_string_equal(accesses, "w1@10005 w1@10007 w1@8 ");
	assert_int_equal(gpr[EMU_RDI], 1);
	assert_int_equal(gpr[EMU_RCX], 0);
}

static void string_segments(void **state)
{
	set_mode(EMU_MODE_32);
	segs[EMU_DS].base = 0x1000;
	segs[EMU_ES].base = 0x2000;
	segs[EMU_FS].base = 0x3000;
	gpr[EMU_RSI] = gpr[EMU_RDI] = 0x3000;
	assert_int_equal(STEP(0xa4), EMU_DONE);
	assert_string_equal(places, "1@4000 2@5000 ");
	cpu.rip = CODE; /* the source can be overridden, the destination cannot */
	gpr[EMU_RSI] = gpr[EMU_RDI] = 0x3000;
	assert_int_equal(STEP(0x64, 0xa4), EMU_DONE);
	assert_string_equal(places, "1@6000 2@5000 ");
}

/* --- fetching and decoding --- */

static void fetching(void **state)
{
	gpr[EMU_RBX] = 0x4000;
	cpu.rip = 0x1ffe; /* ends exactly at the boundary: the page behind is not touched */
	fault_page = 0x2000;
	assert_int_equal(STEP(0x8b, 0x03), EMU_DONE);
	assert_int_equal(fetched, 2);
	cpu.rip = 0x1ffd; /* crosses it */
	assert_int_equal(STEP(0x8b, 0x83, 0, 0, 0, 0), EMU_EXCEPTION);
	assert_int_equal(report.exception.cr2, 0x2000);
	fault_page = NO_PAGE;
	assert_int_equal(run(), EMU_DONE);
	assert_int_equal(fetched, 3 + 8); /* each byte once */
	assert_int_equal(code_walks, 2);
	assert_int_equal(report.length, 6);
	set_mode(EMU_MODE_32);
	segs[EMU_CS].limit = CODE + 1; /* code behind the limit */
	cpu.rip = CODE;
	assert_int_equal(STEP(0x8b, 0x03), EMU_DONE);
	cpu.rip = CODE;
	is_exception(STEP(0x8b, 0x43, 0), VEC_GP);
	cpu.rip = CODE + 2;
	is_exception(run(), VEC_GP);
	set_mode(EMU_MODE_64);
	cpu.rip = CODE; /* long ones: fetched in two goes from one page, decoded or found */
	for (u32 i = 0; i < 2; i++) {
		assert_int_equal(STEP(0x48, 0xc7, 0x83, 0, 0, 0, 0, 1, 2, 3, 4), EMU_DONE);
		assert_int_equal(fetched, 15);
		assert_int_equal(code_walks, 1);
		assert_int_equal(report.length, 11);
		cpu.rip = CODE;
	}
	assert_int_equal(STEP(0x48, 0xc7, 0x83, 0, 0, 0, 0, 1, 2, 3, 5), EMU_DONE);
	assert_int_equal(ram_value(0x4000, 4), 0x05030201); /* only the last byte differs */
	cpu.rip = 0x1ff5; /* the cached one continues on a page that is gone */
	assert_int_equal(STEP(0x48, 0xc7, 0x83, 0, 0, 0, 0, 1, 2, 3, 5), EMU_DONE);
	cpu.rip = 0x1ff8;
	assert_int_equal(STEP(0x48, 0xc7, 0x83, 0, 0, 0, 0, 1, 2, 3, 5), EMU_DONE);
	cpu.rip = 0x1ff8;
	fault_page = 0x2000;
	assert_int_equal(run(), EMU_EXCEPTION);
	assert_int_equal(report.exception.cr2, 0x2000);
	assert_int_equal(STEP(0x48, 0xc7, 0x03, 7, 7, 0, 0), EMU_DONE); /* now shorter */
	assert_int_equal(ram_value(0x4000, 4), 0x707);
	fault_page = NO_PAGE;
	cpu.rip = CODE; /* 16 bytes */
	is_exception(STEP(0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e,
			  0x2e, 0x2e, 0x8b, 0x03),
		     VEC_GP);
}

static void refusals(void **state)
{
	gpr[EMU_RBX] = 0x4000;
	assert_int_equal(STEP(0x0f, 0x0b), EMU_UNSUPPORTED); /* ud2 decodes, but is not ours */
	assert_int_equal(STEP(0x0f, 0xff, 0xff), EMU_UNSUPPORTED);
	assert_int_equal(STEP(0x06), EMU_UNDECODABLE); /* push %es in 64-bit mode */
	assert_non_null(report.reason);
	assert_int_equal(STEP(0xf0, 0x89, 0x03), EMU_UNDECODABLE); /* lock mov */
	assert_int_equal(STEP(0x89, 0xc3), EMU_UNSUPPORTED);	   /* no memory operand */
	assert_non_null(strstr(report.reason, "no memory operand"));
	assert_int_equal(STEP(0xd9, 0x03), EMU_UNSUPPORTED); /* flds */
	assert_non_null(strstr(report.reason, "not emulated"));
	assert_int_equal(report.bytes[0], 0xd9);
	assert_int_equal(STEP(0xf7, 0x23), EMU_UNSUPPORTED);		 /* mul */
	assert_int_equal(STEP(0xff, 0x13), EMU_UNSUPPORTED);		 /* call */
	assert_int_equal(STEP(0x0f, 0x6f, 0x03), EMU_UNSUPPORTED);	 /* movq, MMX */
	assert_int_equal(STEP(0xc5, 0xf8, 0x16, 0x03), EMU_UNSUPPORTED); /* vmovhps with three */
	assert_int_equal(STEP(0x62, 0xf1, 0x7c, 0x48, 0x10, 0x03), EMU_UNDECODABLE); /* EVEX */
	assert_int_equal(cpu.rip, CODE);
	assert_string_equal(accesses, "");
}

static void decode_cache(void **state)
{
	gpr[EMU_RBX] = 0x4000;
	assert_int_equal(STEP(0x8b, 0x03), EMU_DONE);
	cpu.rip = CODE; /* other bytes at the same address */
	assert_int_equal(STEP(0x89, 0x03), EMU_DONE);
	assert_string_equal(accesses, "w4@4000 ");
	cpu.rip = CODE; /* the same bytes in another mode */
	gpr[EMU_RDI] = gpr[EMU_RBX];
	assert_int_equal(STEP(0x8b, 0x07), EMU_DONE);
	assert_string_equal(accesses, "r4@4000 ");
	set_mode(EMU_MODE_16);
	cpu.rip = CODE;
	assert_int_equal(run(), EMU_DONE);
	assert_string_equal(accesses, "r2@4000 ");
	set_mode(EMU_MODE_64); /* a hit, but the instruction now ends on another page */
	cpu.rip = 0x1ffe;
	assert_int_equal(STEP(0x8b, 0x43, 0x00), EMU_DONE);
	cpu.rip = 0x1ffe;
	fault_page = 0x2000;
	assert_int_equal(run(), EMU_EXCEPTION);
	assert_int_equal(report.exception.cr2, 0x2000);
}

static void completion(void **state)
{
	gpr[EMU_RBX] = 0x4000;
	cpu.rflags |= RFLAGS_RF | RFLAGS_TF;
	assert_int_equal(STEP(0x8b, 0x03), EMU_DONE);
	assert_int_equal(cpu.rflags, 2 | RFLAGS_TF);
	set_mode(EMU_MODE_32); /* EIP wraps */
	segs[EMU_CS].base = 0x2002;
	cpu.rip = 0xfffffffe;
	memcpy(ram + 0x2000, "\x8b\x03", 2);
	assert_int_equal(run(), EMU_DONE);
	assert_int_equal(cpu.rip, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(device_accesses, setup),
		cmocka_unit_test_setup(straddling, setup),
		cmocka_unit_test_setup(locked, setup),
		cmocka_unit_test_setup(lost_race, setup),
		cmocka_unit_test_setup(faults_commit_nothing, setup),
		cmocka_unit_test_setup(canonical_addresses, setup),
		cmocka_unit_test_setup(alignment, setup),
		cmocka_unit_test_setup(addressing_16, setup),
		cmocka_unit_test_setup(addressing_32, setup),
		cmocka_unit_test_setup(segment_rules, setup),
		cmocka_unit_test_setup(stacks, setup),
		cmocka_unit_test_setup(repeats, setup),
		cmocka_unit_test_setup(nowhere, setup),
		cmocka_unit_test_setup(nowhere_ends, setup),
		cmocka_unit_test_setup(string_segments, setup),
		cmocka_unit_test_setup(fetching, setup),
		cmocka_unit_test_setup(refusals, setup),
		cmocka_unit_test_setup(decode_cache, setup),
		cmocka_unit_test_setup(completion, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
