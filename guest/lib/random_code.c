/* Random code. Contract in random_code.h. */
#include "random_code.h"
#include "sandbox.h"

u8 code[256];
u32 code_bytes;

void emit(const u8 *bytes, u32 n)
{
	memcpy(code + code_bytes, bytes, n);
	code_bytes += n;
}

void emit_load(u32 reg, u64 value)
{
	u8 insn[10] = {(u8)(0x48 | reg >> 3), (u8)(0xb8 | (reg & 7))};

	memcpy(insn + 2, &value, 8);
	emit(insn, sizeof(insn));
}

static u64 register_value(u64 window)
{
	switch (rng_below(&sandbox.rng, 6)) {
	case 0:
		return rng_below(&sandbox.rng, 256);
	case 1:
		return rng_next(&sandbox.rng) | BIT64(62); /* not canonical */
	default:
		return window + rng_below(&sandbox.rng, 0x800) * 8;
	}
}

/* Loads all registers; RSP is a stack in the sandbox. */
void emit_prologue(u64 window)
{
	code_bytes = 0;
	for (u32 reg = 0; reg < 16; reg++)
		emit_load(reg, reg == 4 ? SANDBOX + 0x20000 : register_value(window));
}

/* The opcode behind prefixes; *map: 0 one byte, 1 two bytes (0F). */
static const u8 *find_opcode(const u8 *p, const u8 *end, u32 *map)
{
	*map = 0;
	while (p < end - 3 && (*p == 0x66 || *p == 0x67 || *p == 0xf0 || *p == 0xf2 || *p == 0xf3 ||
			       *p == 0x2e || *p == 0x36 || *p == 0x3e || *p == 0x26 || *p == 0x64 ||
			       *p == 0x65 || (*p & 0xf0) == 0x40))
		p++;
	if (*p == 0x0f) {
		*map = 1;
		p++;
	}
	return p;
}

/* At CPL 0: what would take tables, ports, MSRs or a second instruction with it. */
bool is_spared(const u8 *insn, const u8 *end)
{
	u32 map;
	const u8 *op = find_opcode(insn, end, &map);
	u32 reg = op[1] >> 3 & 7;

	if (!map)
		return *op == 0x8e || (*op >= 0xe4 && *op <= 0xe7) ||
		       (*op >= 0xec && *op <= 0xef) || *op == 0x6c || *op == 0x6d || *op == 0x6e ||
		       *op == 0x6f || *op == 0xcf;
	if (*op == 0x00)
		return reg == 3;
	if (*op == 0x01)
		return op[1] < 0xc0 && (reg == 2 || reg == 3);
	return *op == 0x22 || *op == 0x30 || *op == 0xb2;
}

void emit_random(u32 n)
{
	static const u8 starts[][3] = {
		{0x0f, 0xa2},
		{0xf4},
		{0x0f, 0x01},
		{0x0f, 0x20},
		{0x0f, 0x21},
		{0x0f, 0x23},
		{0x0f, 0x32},
		{0x0f, 0x33},
		{0x0f, 0x31},
		{0x0f, 0x01, 0xf9},
		{0x0f, 0x00},
		{0x0f, 0x08},
		{0x0f, 0x09},
		{0x66, 0x0f, 0x38},
		{0x0f, 0xc7},
		{0xf3, 0x0f, 0xc7},
		{0x0f, 0xae},
		{0xf3, 0x0f, 0xae},
		{0x0f, 0x01, 0xc1},
		{0x0f, 0x01, 0xd0},
		{0x0f, 0x01, 0xd1},
		{0x0f, 0x01, 0xd4},
		{0x0f, 0x78},
		{0x0f, 0x79},
		{0x0f, 0x01, 0xc8},
		{0x0f, 0x01, 0xc9},
		{0x0f, 0x01, 0xf8},
		{0xcd, 0x20},
		{0x0f, 0x34},
		{0x0f, 0x05},
		{0x0f, 0x07},
		{0x0f, 0x35},
		{0x9c, 0x9d},
		{0xf1},
		{0xcc},
		{0x0f, 0x37},
	};
	const u8 *start = starts[rng_below(&sandbox.rng, ARRAY_SIZE(starts))];
	u8 bytes[32];

	for (u32 i = 0; i < n; i++)
		bytes[i] = (u8)rng_next(&sandbox.rng);
	if (rng_below(&sandbox.rng, 2)) {
		u32 len = start[2] ? 3 : start[1] ? 2 : 1;

		memcpy(bytes, start, len);
	}
	emit(bytes, n);
}

/* Ends at the end of the page. */
u64 install_code(void)
{
	u64 offset = PAGE_SIZE - code_bytes;

	memcpy((void *)(uintptr_t)(sandbox.code_phys + offset), code, code_bytes);
	return CODE + offset;
}
