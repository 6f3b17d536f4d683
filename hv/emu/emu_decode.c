/*
 * From Zydis's raw decoding to the emulator's own form. Zydis (minimal mode) says whether the bytes
 * are an instruction, how long it is, and what its parts are; what it does is looked up here by
 * opcode, for integer instructions, and by mnemonic, for vector moves (SDM 2D appendix A).
 */
#include <Zydis/Zydis.h>

#include "emu/emu_insn.h"

static const char *const no_memory = "no memory operand that could have been trapped";
static const char *const not_supported = "this instruction is not emulated";

struct decoding {
	ZydisDecodedInstruction z;
	struct emu_insn *out;
	u8 mode;
	u8 group3;    /* last of 66, or 0 */
	u8 mandatory; /* legacy mandatory prefix or that of VEX: 0, 0x66, 0xf3, 0xf2 */
};

static u8 ext(const struct decoding *d)
{
	return d->z.raw.modrm.reg;
}

/* Register field of ModRM with its extension. */
static u8 modrm_reg(const struct decoding *d)
{
	u8 high = 0;

	if (d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
		high = !d->z.raw.vex.R;
	else if (d->z.attributes & ZYDIS_ATTRIB_HAS_REX)
		high = d->z.raw.rex.R;
	return d->mode == EMU_MODE_64 ? (u8)(high << 3 | ext(d)) : ext(d);
}

static u8 base_bit(const struct decoding *d)
{
	if (d->mode != EMU_MODE_64)
		return 0;
	if (d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
		return d->z.raw.vex.B ? 0 : 8;
	return d->z.attributes & ZYDIS_ATTRIB_HAS_REX && d->z.raw.rex.B ? 8 : 0;
}

static u8 index_bit(const struct decoding *d)
{
	if (d->mode != EMU_MODE_64)
		return 0;
	if (d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
		return d->z.raw.vex.X ? 0 : 8;
	return d->z.attributes & ZYDIS_ATTRIB_HAS_REX && d->z.raw.rex.X ? 8 : 0;
}

/* 16-bit addressing forms (SDM 2A table 2-1). */
static void address_16(struct decoding *d)
{
	static const u8 base[8] = {EMU_RBX, EMU_RBX, EMU_RBP, EMU_RBP,
				   EMU_RSI, EMU_RDI, EMU_RBP, EMU_RBX};
	static const u8 index[4] = {EMU_RSI, EMU_RDI, EMU_RSI, EMU_RDI};
	u8 rm = d->z.raw.modrm.rm;

	if (rm == 6 && d->z.raw.modrm.mod == 0)
		return;
	d->out->base = base[rm];
	if (rm < 4)
		d->out->index = index[rm];
}

/* 32- and 64-bit forms (tables 2-2 and 2-3). */
static void address_32(struct decoding *d)
{
	const ZydisDecodedInstruction *z = &d->z;
	struct emu_insn *out = d->out;
	u8 base = z->raw.modrm.rm;

	if (base == 4) {
		u8 index = z->raw.sib.index | index_bit(d);

		base = z->raw.sib.base;
		if (index != 4) {
			out->index = index;
			out->scale = (u8)(1u << z->raw.sib.scale);
		}
		if (base == 5 && z->raw.modrm.mod == 0)
			return;
	} else if (base == 5 && z->raw.modrm.mod == 0) {
		if (d->mode == EMU_MODE_64)
			out->flags |= INSN_RIP;
		return;
	}
	out->base = base | base_bit(d);
}

/* Prefixes that Zydis leaves to its minimal-mode users. */
static void decode_prefixes(struct decoding *d)
{
	static const struct {
		u8 byte, seg;
	} segs[] = {{0x26, EMU_ES}, {0x2e, EMU_CS}, {0x36, EMU_SS},
		    {0x3e, EMU_DS}, {0x64, EMU_FS}, {0x65, EMU_GS}};
	struct emu_insn *out = d->out;

	out->seg = EMU_DS;
	if (out->base == EMU_RSP || out->base == EMU_RBP)
		out->seg = EMU_SS;
	for (u32 i = 0; i < d->z.raw.prefix_count; i++) {
		u8 byte = d->z.raw.prefixes[i].value;

		for (size_t j = 0; j < ARRAY_SIZE(segs); j++)
			if (byte == segs[j].byte && (d->mode != EMU_MODE_64 || byte >= 0x64))
				out->seg = segs[j].seg;
		if (byte == 0xf0)
			out->flags |= INSN_LOCK;
		if (byte == 0xf3 || byte == 0xf2)
			d->mandatory = byte;
		if (byte == 0x66)
			d->group3 = byte;
	}
	if (d->z.attributes & ZYDIS_ATTRIB_HAS_REX)
		out->flags |= INSN_REX;
	if (!d->mandatory)
		d->mandatory = d->group3;
}

static void decode_immediate(struct decoding *d)
{
	u32 bits = d->z.raw.imm[0].size;

	if (!bits)
		return;
	d->out->flags |= INSN_IMM;
	d->out->imm = (u64)((s64)(d->z.raw.imm[0].value.u << (64 - bits)) >> (64 - bits));
}

static bool set(struct decoding *d, enum emu_op op, u32 sub, u32 size)
{
	d->out->op = op;
	d->out->sub = (u8)sub;
	d->out->size = (u8)size;
	d->out->reg_size = (u8)size;
	return true;
}

static bool set_string(struct decoding *d, enum emu_string kind, u32 size)
{
	set(d, OP_STRING, kind, size);
	if (d->mandatory == 0xf3)
		d->out->flags |= INSN_REP;
	else if (d->mandatory == 0xf2)
		d->out->flags |= INSN_REPNE;
	/* MOVS and LODS may override DS; nothing has a base register. */
	return true;
}

/* Instructions without ModRM: strings and moves to or from an absolute address. */
static bool decode_no_modrm(struct decoding *d, u32 size)
{
	switch (d->z.opcode & ~1u) {
	case 0xa0:
		d->out->reg = EMU_RAX;
		return set(d, OP_LOAD, EXTEND_NONE, size);
	case 0xa2:
		d->out->reg = EMU_RAX;
		return set(d, OP_STORE, EXTEND_NONE, size);
	case 0xa4:
		return set_string(d, STRING_MOVS, size);
	case 0xa6:
		return set_string(d, STRING_CMPS, size);
	case 0xaa:
		return set_string(d, STRING_STOS, size);
	case 0xac:
		return set_string(d, STRING_LODS, size);
	case 0xae:
		return set_string(d, STRING_SCAS, size);
	default:
		return false;
	}
}

static bool decode_group3(struct decoding *d, u32 size)
{
	switch (ext(d)) {
	case 0:
	case 1:
		return set(d, OP_ALU_STORE, ALU_TEST, size);
	case 2:
		return set(d, OP_UNARY, UNARY_NOT, size);
	case 3:
		return set(d, OP_UNARY, UNARY_NEG, size);
	default:
		return false; /* MUL, DIV */
	}
}

static bool decode_group5(struct decoding *d, u32 size)
{
	switch (ext(d)) {
	case 0:
		return set(d, OP_UNARY, UNARY_INC, size);
	case 1:
		return set(d, OP_UNARY, UNARY_DEC, size);
	case 6:
		return size > 1 && set(d, OP_PUSH, 0, size);
	default:
		return false; /* CALL, JMP */
	}
}

/* One-byte opcodes with ModRM. */
static bool decode_one_byte(struct decoding *d, u32 size)
{
	u8 opcode = d->z.opcode;

	if (opcode < 0x40 && (opcode & 7) < 4)
		return set(d, opcode & 2 ? OP_ALU_LOAD : OP_ALU_STORE, opcode >> 3, size);
	switch (opcode) {
	case 0x63: /* MOVSXD; ARPL outside 64-bit mode */
		if (d->mode != EMU_MODE_64)
			return false;
		set(d, OP_LOAD, EXTEND_SIGN, MIN(size, 4u));
		d->out->reg_size = (u8)size;
		return true;
	case 0x80 ... 0x83:
		return set(d, OP_ALU_STORE, ext(d), size);
	case 0x84:
	case 0x85:
		return set(d, OP_ALU_STORE, ALU_TEST, size);
	case 0x86:
	case 0x87:
		return set(d, OP_XCHG, 0, size);
	case 0x88:
	case 0x89:
		return set(d, OP_STORE, EXTEND_NONE, size);
	case 0x8a:
	case 0x8b:
		return set(d, OP_LOAD, EXTEND_NONE, size);
	case 0x8f:
		return set(d, OP_POP, 0, size);
	case 0xc6:
	case 0xc7:
		return ext(d) == 0 && set(d, OP_STORE, EXTEND_NONE, size);
	case 0xc0:
	case 0xc1:
		return set(d, OP_SHIFT, ext(d), size);
	case 0xd0:
	case 0xd1:
		d->out->flags |= INSN_IMM;
		d->out->imm = 1;
		return set(d, OP_SHIFT, ext(d), size);
	case 0xd2:
	case 0xd3:
		return set(d, OP_SHIFT, ext(d), size);
	case 0xf6:
	case 0xf7:
		return decode_group3(d, size);
	case 0xfe:
	case 0xff:
		return decode_group5(d, size);
	default:
		return false;
	}
}

static bool set_extending_load(struct decoding *d, enum emu_extend kind, u32 size, u32 reg_size)
{
	set(d, OP_LOAD, kind, size);
	d->out->reg_size = (u8)reg_size;
	return true;
}

/* Two-byte opcodes (0F xx) that are not vector instructions. */
static bool decode_two_byte(struct decoding *d, u32 size)
{
	u8 opcode = d->z.opcode;

	switch (opcode) {
	case 0x40 ... 0x4f:
		return set(d, OP_CMOVCC, opcode & 15, size);
	case 0x90 ... 0x9f:
		return set(d, OP_SETCC, opcode & 15, 1);
	case 0xa3:
	case 0xab:
	case 0xb3:
	case 0xbb:
		return set(d, OP_BIT, opcode >> 3 & 3, size);
	case 0xba:
		return set(d, OP_BIT, ext(d) & 3, size);
	case 0xae: /* CLFLUSH, CLFLUSHOPT; with 66 also CLWB */
		return (ext(d) == 7 || (ext(d) == 6 && d->mandatory == 0x66)) &&
		       d->mandatory != 0xf3 && set(d, OP_TOUCH, 0, 1);
	case 0xb0:
	case 0xb1:
		return set(d, OP_CMPXCHG, 0, opcode & 1 ? size : 1);
	case 0xb6:
	case 0xb7:
		return set_extending_load(d, EXTEND_ZERO, opcode & 1 ? 2 : 1, size);
	case 0xbe:
	case 0xbf:
		return set_extending_load(d, EXTEND_SIGN, opcode & 1 ? 2 : 1, size);
	case 0xc0:
	case 0xc1:
		return set(d, OP_XADD, 0, opcode & 1 ? size : 1);
	case 0xc3: /* MOVNTI */
		return set(d, OP_STORE, EXTEND_NONE, size);
	case 0xc7: /* CMPXCHG8B, CMPXCHG16B; the others of group 9 are not emulated */
		if (ext(d) != 1)
			return false;
		if (size == 8)
			d->out->flags |= INSN_ALIGNED;
		return set(d, OP_CMPXCHG_PAIR, 0, size == 8 ? 16 : 8);
	default:
		return false;
	}
}

/* Vector moves by mnemonic. SIZE_FULL: 16 bytes, or 32 with VEX.L. */
#define SIZE_FULL 0

static const struct vector_move {
	u16 mnemonic, vex_mnemonic;
	u8 size;
	u8 half; /* enum emu_half */
	bool aligned;
} vector_moves[] = {
	{ZYDIS_MNEMONIC_MOVUPS, ZYDIS_MNEMONIC_VMOVUPS, SIZE_FULL, HALF_ALL, false},
	{ZYDIS_MNEMONIC_MOVUPD, ZYDIS_MNEMONIC_VMOVUPD, SIZE_FULL, HALF_ALL, false},
	{ZYDIS_MNEMONIC_MOVDQU, ZYDIS_MNEMONIC_VMOVDQU, SIZE_FULL, HALF_ALL, false},
	{ZYDIS_MNEMONIC_LDDQU, ZYDIS_MNEMONIC_VLDDQU, SIZE_FULL, HALF_ALL, false},
	{ZYDIS_MNEMONIC_MOVAPS, ZYDIS_MNEMONIC_VMOVAPS, SIZE_FULL, HALF_ALL, true},
	{ZYDIS_MNEMONIC_MOVAPD, ZYDIS_MNEMONIC_VMOVAPD, SIZE_FULL, HALF_ALL, true},
	{ZYDIS_MNEMONIC_MOVDQA, ZYDIS_MNEMONIC_VMOVDQA, SIZE_FULL, HALF_ALL, true},
	{ZYDIS_MNEMONIC_MOVNTPS, ZYDIS_MNEMONIC_VMOVNTPS, SIZE_FULL, HALF_ALL, true},
	{ZYDIS_MNEMONIC_MOVNTPD, ZYDIS_MNEMONIC_VMOVNTPD, SIZE_FULL, HALF_ALL, true},
	{ZYDIS_MNEMONIC_MOVNTDQ, ZYDIS_MNEMONIC_VMOVNTDQ, SIZE_FULL, HALF_ALL, true},
	{ZYDIS_MNEMONIC_MOVNTDQA, ZYDIS_MNEMONIC_VMOVNTDQA, SIZE_FULL, HALF_ALL, true},
	{ZYDIS_MNEMONIC_MOVD, ZYDIS_MNEMONIC_VMOVD, 4, HALF_ALL, false},
	{ZYDIS_MNEMONIC_MOVQ, ZYDIS_MNEMONIC_VMOVQ, 8, HALF_ALL, false},
	{ZYDIS_MNEMONIC_MOVSS, ZYDIS_MNEMONIC_VMOVSS, 4, HALF_ALL, false},
	{ZYDIS_MNEMONIC_MOVSD, ZYDIS_MNEMONIC_VMOVSD, 8, HALF_ALL, false},
	{ZYDIS_MNEMONIC_MOVLPS, ZYDIS_MNEMONIC_VMOVLPS, 8, HALF_LOW, false},
	{ZYDIS_MNEMONIC_MOVLPD, ZYDIS_MNEMONIC_VMOVLPD, 8, HALF_LOW, false},
	{ZYDIS_MNEMONIC_MOVHPS, ZYDIS_MNEMONIC_VMOVHPS, 8, HALF_HIGH, false},
	{ZYDIS_MNEMONIC_MOVHPD, ZYDIS_MNEMONIC_VMOVHPD, 8, HALF_HIGH, false},
};

/* The moves above: is the memory operand the destination? */
static bool vector_stores(const struct decoding *d)
{
	switch (d->z.opcode) {
	case 0x11:
	case 0x13:
	case 0x17:
	case 0x29:
	case 0x2b:
	case 0x7f:
	case 0xd6:
	case 0xe7:
		return true;
	case 0x7e: /* 66: MOVD and MOVQ to memory; F3: MOVQ from memory */
		return d->mandatory == 0x66;
	default:
		return false;
	}
}

static bool decode_vector(struct decoding *d)
{
	bool vex = d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
	const struct vector_move *m = NULL;
	u32 full = vex && d->z.raw.vex.L ? 32 : 16;
	bool stores;

	for (size_t i = 0; i < ARRAY_SIZE(vector_moves) && !m; i++)
		if ((vex ? vector_moves[i].vex_mnemonic : vector_moves[i].mnemonic) ==
		    d->z.mnemonic)
			m = &vector_moves[i];
	if (!m)
		return false;
	if (vex) {
		static const u8 prefixes[4] = {0, 0x66, 0xf3, 0xf2};

		d->out->flags |= INSN_VEX;
		d->mandatory = prefixes[d->z.raw.vex.pp & 3];
	}
	/* MOVD and MOVQ without prefix are MMX. */
	if ((m->mnemonic == ZYDIS_MNEMONIC_MOVD || m->mnemonic == ZYDIS_MNEMONIC_MOVQ) &&
	    !d->mandatory)
		return false;
	stores = vector_stores(d);
	/* Loading half of a register takes the other half from a third operand with VEX. */
	if (vex && m->half != HALF_ALL && !stores)
		return false;
	set(d, stores ? OP_VECTOR_STORE : OP_VECTOR_LOAD, m->half, m->size ? m->size : full);
	d->out->reg_size = (u8)full;
	if (m->aligned)
		d->out->flags |= INSN_ALIGNED;
	return true;
}

/* What the instruction does; false if it is not one of ours. */
static bool decode_operation(struct decoding *d)
{
	u32 size = d->z.operand_width / 8;
	u32 sized = d->z.opcode & 1 ? size : 1; /* most opcodes: bit 0 tells bytes from words */

	if (d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
		return decode_vector(d);
	if (d->z.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		return false;
	switch (d->z.opcode_map) {
	case ZYDIS_OPCODE_MAP_DEFAULT:
		if (!(d->z.attributes & ZYDIS_ATTRIB_HAS_MODRM))
			return decode_no_modrm(d, sized);
		return decode_one_byte(d, sized);
	case ZYDIS_OPCODE_MAP_0F:
		return decode_vector(d) || decode_two_byte(d, size);
	case ZYDIS_OPCODE_MAP_0F38:
		if (d->z.mnemonic == ZYDIS_MNEMONIC_MOVBE)
			return set(d, d->z.opcode & 1 ? OP_STORE : OP_LOAD, EXTEND_SWAP, size);
		return decode_vector(d);
	default:
		return false;
	}
}

static void decode_address(struct decoding *d)
{
	struct emu_insn *out = d->out;

	out->base = NO_REG;
	out->index = NO_REG;
	out->scale = 1;
	out->address_size = d->z.address_width / 8;
	out->disp = d->z.raw.disp.value;
	if (!(d->z.attributes & ZYDIS_ATTRIB_HAS_MODRM))
		return;
	out->reg = modrm_reg(d);
	if (out->address_size == 2)
		address_16(d);
	else
		address_32(d);
}

static enum emu_status refuse(struct decoding *d, const char *why, const char **reason)
{
	d->out->mnemonic = d->z.mnemonic;
	*reason = why;
	return EMU_UNSUPPORTED;
}

enum emu_status insn_decode(u8 mode, const u8 *bytes, u32 len, struct emu_insn *out,
			    const char **reason)
{
	struct decoding d = {.out = out, .mode = mode};
	ZydisDecoder decoder;
	ZyanStatus status;

	*out = (struct emu_insn){.length = 0};
	if (mode == EMU_MODE_64)
		ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	else if (mode == EMU_MODE_32)
		ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
	else
		ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
	status = ZydisDecoderDecodeInstruction(&decoder, NULL, bytes, len, &d.z);
	if (status == ZYDIS_STATUS_NO_MORE_DATA || status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
		return EMU_PARTIAL;
	if (ZYAN_FAILED(status)) {
		*reason = "these bytes are not a valid instruction";
		return EMU_UNDECODABLE;
	}
	if ((d.z.attributes & ZYDIS_ATTRIB_HAS_MODRM) && d.z.raw.modrm.mod == 3)
		return refuse(&d, no_memory, reason);
	out->length = d.z.length;
	out->mnemonic = d.z.mnemonic;
	decode_address(&d);
	decode_prefixes(&d);
	decode_immediate(&d);
	if (!decode_operation(&d))
		return refuse(&d, not_supported, reason);
	return EMU_DONE;
}
