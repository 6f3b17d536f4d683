/*
 * Integer arithmetic with the flags of SDM 1 appendix A. Where the SDM leaves a flag undefined, it
 * becomes what the formula for the defined case gives.
 */
#include "emu/emu_insn.h"
#include "x86/regs.h"

#define FLAG_CF BIT64(0)
#define FLAG_PF BIT64(2)
#define FLAG_AF BIT64(4)
#define FLAG_ZF BIT64(6)
#define FLAG_SF BIT64(7)
#define FLAG_OF BIT64(11)

static void set_flag(u64 *rflags, u64 flag, bool on)
{
	*rflags = on ? *rflags | flag : *rflags & ~flag;
}

static bool sign(u64 value, u32 size)
{
	return value >> (8 * size - 1) & 1;
}

/* SF, ZF and PF from a result. */
static void set_result(u64 *rflags, u64 result, u32 size)
{
	set_flag(rflags, FLAG_SF, sign(result, size));
	set_flag(rflags, FLAG_ZF, !(result & size_mask(size)));
	set_flag(rflags, FLAG_PF, !(__builtin_popcountll(result & 0xff) & 1));
}

static u64 add(u64 a, u64 b, u64 carry, u32 size, u64 *rflags)
{
	u64 r = (a + b + carry) & size_mask(size);

	set_flag(rflags, FLAG_CF, sign((a & b) | ((a | b) & ~r), size));
	set_flag(rflags, FLAG_OF, sign((a ^ r) & (b ^ r), size));
	set_flag(rflags, FLAG_AF, (a ^ b ^ r) & 0x10);
	set_result(rflags, r, size);
	return r;
}

static u64 subtract(u64 a, u64 b, u64 borrow, u32 size, u64 *rflags)
{
	u64 r = (a - b - borrow) & size_mask(size);

	set_flag(rflags, FLAG_CF, sign((~a & b) | (~(a ^ b) & r), size));
	set_flag(rflags, FLAG_OF, sign((a ^ b) & (a ^ r), size));
	set_flag(rflags, FLAG_AF, (a ^ b ^ r) & 0x10);
	set_result(rflags, r, size);
	return r;
}

static u64 logic(u64 r, u32 size, u64 *rflags)
{
	*rflags &= ~(FLAG_CF | FLAG_OF | FLAG_AF);
	set_result(rflags, r, size);
	return r;
}

u64 alu_binary(enum emu_alu op, u64 a, u64 b, u32 size, u64 *rflags)
{
	u64 carry = *rflags & FLAG_CF;

	switch (op) {
	case ALU_ADD:
		return add(a, b, 0, size, rflags);
	case ALU_ADC:
		return add(a, b, carry, size, rflags);
	case ALU_SUB:
	case ALU_CMP:
		return subtract(a, b, 0, size, rflags);
	case ALU_SBB:
		return subtract(a, b, carry, size, rflags);
	case ALU_OR:
		return logic(a | b, size, rflags);
	case ALU_XOR:
		return logic(a ^ b, size, rflags);
	case ALU_AND:
	case ALU_TEST:
		break;
	}
	return logic(a & b, size, rflags);
}

u64 alu_unary(enum emu_unary op, u64 a, u32 size, u64 *rflags)
{
	u64 carry = *rflags & FLAG_CF, r;

	switch (op) {
	case UNARY_NOT:
		return ~a & size_mask(size);
	case UNARY_NEG:
		return subtract(0, a, 0, size, rflags);
	case UNARY_INC:
		r = add(a, 1, 0, size, rflags);
		break;
	default:
		r = subtract(a, 1, 0, size, rflags);
		break;
	}
	*rflags = (*rflags & ~FLAG_CF) | carry;
	return r;
}

/* Rotates change CF and OF only. */
static u64 rotate(bool left, u64 a, u32 count, u32 size, u64 *rflags)
{
	u32 bits = 8 * size, n = count % bits;
	u64 r = a;

	if (!left)
		n = (bits - n) % bits;
	if (n)
		r = ((a << n) | (a >> (bits - n))) & size_mask(size);
	if (left) {
		set_flag(rflags, FLAG_CF, r & 1);
		set_flag(rflags, FLAG_OF, sign(r, size) != (r & 1));
	} else {
		set_flag(rflags, FLAG_CF, sign(r, size));
		set_flag(rflags, FLAG_OF, sign(r ^ (r << 1), size));
	}
	return r;
}

/* Through carry: a rotation of bits + 1 bits, one at a time. */
static u64 rotate_carry(bool left, u64 a, u32 count, u32 size, u64 *rflags)
{
	u32 bits = 8 * size;
	u64 carry = *rflags & FLAG_CF;

	for (u32 n = count % (bits + 1); n; n--) {
		u64 out = left ? sign(a, size) : a & 1;

		a = left ? (a << 1 | carry) & size_mask(size) : a >> 1 | carry << (bits - 1);
		carry = out;
	}
	set_flag(rflags, FLAG_CF, carry);
	set_flag(rflags, FLAG_OF, left ? sign(a, size) != !!carry : sign(a ^ (a << 1), size));
	return a;
}

static u64 shift_left(u64 a, u32 count, u32 size, u64 *rflags)
{
	u32 bits = 8 * size;
	u64 r = a << count & size_mask(size);
	bool out = count <= bits && (a >> (bits - count) & 1);

	set_flag(rflags, FLAG_CF, out);
	set_flag(rflags, FLAG_OF, sign(r, size) != out);
	set_flag(rflags, FLAG_AF, false);
	set_result(rflags, r, size);
	return r;
}

static u64 shift_right(bool arithmetic, u64 a, u32 count, u32 size, u64 *rflags)
{
	u32 unused = 64 - 8 * size;
	s64 wide = (s64)(a << unused) >> unused; /* sign-extended */
	u64 r = arithmetic ? (u64)(wide >> count) & size_mask(size) : a >> count;
	bool out = arithmetic ? wide >> (count - 1) & 1 : a >> (count - 1) & 1;

	set_flag(rflags, FLAG_CF, out);
	set_flag(rflags, FLAG_OF, !arithmetic && sign(a, size));
	set_flag(rflags, FLAG_AF, false);
	set_result(rflags, r, size);
	return r;
}

u64 alu_shift(enum emu_shift op, u64 a, u32 count, u32 size, u64 *rflags)
{
	count &= size == 8 ? 63 : 31;
	if (!count)
		return a;
	switch (op) {
	case SHIFT_ROL:
	case SHIFT_ROR:
		return rotate(op == SHIFT_ROL, a, count, size, rflags);
	case SHIFT_RCL:
	case SHIFT_RCR:
		return rotate_carry(op == SHIFT_RCL, a, count, size, rflags);
	case SHIFT_SHL:
	case SHIFT_SAL:
		return shift_left(a, count, size, rflags);
	case SHIFT_SHR:
	case SHIFT_SAR:
		break;
	}
	return shift_right(op == SHIFT_SAR, a, count, size, rflags);
}

u64 alu_bit(enum emu_bit op, u64 a, u32 bit, u64 *rflags)
{
	u64 mask = BIT64(bit);

	set_flag(rflags, FLAG_CF, a & mask);
	switch (op) {
	case BIT_SET:
		return a | mask;
	case BIT_RESET:
		return a & ~mask;
	case BIT_COMPLEMENT:
		return a ^ mask;
	case BIT_TEST:
		break;
	}
	return a;
}

/* SDM 1 appendix B: the low bit negates. */
bool alu_condition(u8 code, u64 rflags)
{
	bool sf = rflags & FLAG_SF, of = rflags & FLAG_OF, zf = rflags & FLAG_ZF;
	bool cf = rflags & FLAG_CF, holds;

	switch (code >> 1 & 7) {
	case 0:
		holds = of;
		break;
	case 1:
		holds = cf;
		break;
	case 2:
		holds = zf;
		break;
	case 3:
		holds = cf || zf;
		break;
	case 4:
		holds = sf;
		break;
	case 5:
		holds = rflags & FLAG_PF;
		break;
	case 6:
		holds = sf != of;
		break;
	default:
		holds = zf || sf != of;
		break;
	}
	return holds != (code & 1);
}
