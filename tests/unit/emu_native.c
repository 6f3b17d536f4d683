/*
 * The emulator against the processor that runs this test: each instruction is executed natively
 * and emulated from the same random state; registers, defined flags and memory must agree.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "emu/emu_insn.h"
#include "x86/regs.h"

#define FLAG_CF	   BIT64(0)
#define FLAG_PF	   BIT64(2)
#define FLAG_AF	   BIT64(4)
#define FLAG_ZF	   BIT64(6)
#define FLAG_SF	   BIT64(7)
#define FLAG_DF	   BIT64(10)
#define FLAG_OF	   BIT64(11)
#define FLAGS_USED (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF | FLAG_DF)

#define DATA_BYTES (6 * 4096u)
#define MIDDLE	   (3 * 4096u)
#define ROUNDS	   60

/* One mapping: a page of code, then data, so that RIP-relative operands reach it. */
static u8 *code, *data;
static u8 shadow[DATA_BYTES]; /* what the emulator has for memory */
static u8 vector_shadow[16][32];

/* State of the native side; the assembly below knows the offsets. */
static struct native {
	u64 gpr[16];	   /* 0 */
	u64 rflags;	   /* 128 */
	u64 host_rsp;	   /* 136 */
	u64 code;	   /* 144 */
	u64 unused;	   /* 152 */
	u8 vector[16][32]; /* 160 */
} native __attribute__((used));
_Static_assert(offsetof(struct native, vector) == 160, "known to the assembly");

void native_run(void);
void native_return(void);

__asm__(".text\n"
	".globl native_run, native_return\n"
	"native_run:\n"
	"	push %rbx\n	push %rbp\n	push %r12\n	push %r13\n	push %r14\n	"
	"push %r15\n"
	"	mov %rsp, native+136(%rip)\n"
	".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
	"	vmovdqu native+160+32*\\n(%rip), %ymm\\n\n"
	".endr\n"
	"	push native+128(%rip)\n	popfq\n"
	"	mov native+0(%rip), %rax\n	mov native+8(%rip), %rcx\n"
	"	mov native+16(%rip), %rdx\n	mov native+24(%rip), %rbx\n"
	"	mov native+32(%rip), %rsp\n	mov native+40(%rip), %rbp\n"
	"	mov native+48(%rip), %rsi\n	mov native+56(%rip), %rdi\n"
	"	mov native+64(%rip), %r8\n	mov native+72(%rip), %r9\n"
	"	mov native+80(%rip), %r10\n	mov native+88(%rip), %r11\n"
	"	mov native+96(%rip), %r12\n	mov native+104(%rip), %r13\n"
	"	mov native+112(%rip), %r14\n	mov native+120(%rip), %r15\n"
	"	jmp *native+144(%rip)\n"
	"native_return:\n"
	"	mov %rax, native+0(%rip)\n	mov %rcx, native+8(%rip)\n"
	"	mov %rdx, native+16(%rip)\n	mov %rbx, native+24(%rip)\n"
	"	mov %rsp, native+32(%rip)\n	mov %rbp, native+40(%rip)\n"
	"	mov %rsi, native+48(%rip)\n	mov %rdi, native+56(%rip)\n"
	"	mov %r8, native+64(%rip)\n	mov %r9, native+72(%rip)\n"
	"	mov %r10, native+80(%rip)\n	mov %r11, native+88(%rip)\n"
	"	mov %r12, native+96(%rip)\n	mov %r13, native+104(%rip)\n"
	"	mov %r14, native+112(%rip)\n	mov %r15, native+120(%rip)\n"
	"	mov native+136(%rip), %rsp\n"
	"	pushfq\n	pop native+128(%rip)\n	cld\n"
	".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
	"	vmovdqu %ymm\\n, native+160+32*\\n(%rip)\n"
	".endr\n"
	"	vzeroupper\n"
	"	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbp\n	"
	"pop %rbx\n"
	"	ret\n");

static u64 seed = 0x9e3779b97f4a7c15;

static u64 rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* Values that make flags interesting. */
static u64 rnd_value(void)
{
	static const u64 special[] = {0,      1,	  0x7f,	      0x80,	  0xff,
				      0x7fff, 0x8000,	  0xffff,     0x7fffffff, 0x80000000,
				      ~0ull,  0xffffffff, 1ull << 63, ~0ull >> 1, 0x0f};

	return rnd() % 3 ? rnd() : special[rnd() % ARRAY_SIZE(special)];
}

/* --- the emulator's side: linear addresses are the process's, physical ones too --- */

static int op_translate(void *ctx, u64 linear, unsigned int access, gpa_t *out,
			struct emu_exception *fault)
{
	*out = gpa(linear);
	return EMU_TRANSLATE_OK;
}

static int op_fetch(void *ctx, gpa_t from, void *dst, unsigned int len)
{
	memcpy(dst, (const void *)(uintptr_t)from.v, len);
	return 0;
}

static u8 *shadow_at(gpa_t at, unsigned int len)
{
	u64 offset = at.v - (u64)(uintptr_t)data;

	if (offset >= DATA_BYTES || len > DATA_BYTES - offset)
		fail_msg("access outside the data: offset %#llx", (unsigned long long)offset);
	return shadow + offset;
}

static int op_read(void *ctx, gpa_t from, void *dst, unsigned int len)
{
	memcpy(dst, shadow_at(from, len), len);
	return 0;
}

static int op_write(void *ctx, gpa_t to, const void *src, unsigned int len)
{
	memcpy(shadow_at(to, len), src, len);
	return 0;
}

static int op_cmpxchg(void *ctx, gpa_t at, const void *expected, const void *desired,
		      unsigned int len)
{
	u8 *p = shadow_at(at, len);

	if (memcmp(p, expected, len))
		return 1;
	memcpy(p, desired, len);
	return 0;
}

static int op_vector_read(void *ctx, unsigned int reg, void *dst, unsigned int len)
{
	memcpy(dst, vector_shadow[reg], len);
	return 0;
}

static int op_vector_write(void *ctx, unsigned int reg, const void *src, unsigned int len, bool vex)
{
	memcpy(vector_shadow[reg], src, len);
	if (vex && len == 16)
		memset(vector_shadow[reg] + 16, 0, 16);
	return 0;
}

static const struct emu_ops ops = {
	.translate = op_translate,
	.fetch = op_fetch,
	.read = op_read,
	.write = op_write,
	.cmpxchg = op_cmpxchg,
	.vector_read = op_vector_read,
	.vector_write = op_vector_write,
};

static struct emu_cache cache;

/* --- one comparison --- */

static char text[3 * EMU_INSN_MAX + 1];

static const char *hex(const u8 *bytes, u32 len)
{
	for (u32 i = 0; i < len; i++)
		sprintf(text + 3 * i, "%02x ", bytes[i]);
	return text;
}

static void put_code(const u8 *insn, u32 len)
{
	static const u8 jump[] = {0xff, 0x25, 0, 0, 0, 0}; /* jmp *0(%rip) */
	u64 back = (u64)(uintptr_t)native_return;

	memcpy(code, insn, len);
	memcpy(code + len, jump, sizeof(jump));
	memcpy(code + len + sizeof(jump), &back, sizeof(back));
}

static void compare(const char *name, const u8 *insn, u32 len, const u64 before[16], u64 undefined)
{
	u64 gpr[16];
	struct emu_cpu cpu = {.gpr = gpr,
			      .rip = (u64)(uintptr_t)code,
			      .rflags = native.rflags,
			      .mode = EMU_MODE_64,
			      .cpl = 3,
			      .linear_bits = 48};
	struct emu_report report;
	enum emu_status status;
	u64 wrong;

	memcpy(gpr, before, sizeof(gpr));
	memcpy(native.gpr, before, sizeof(gpr));
	memcpy(shadow, data, DATA_BYTES);
	memcpy(vector_shadow, native.vector, sizeof(vector_shadow));
	put_code(insn, len);
	native.code = (u64)(uintptr_t)code;
	do
		status = emu_step(&ops, NULL, &cpu, &cache, &report);
	while (status == EMU_PARTIAL);
	if (status != EMU_DONE)
		fail_msg("%s (%s): status %d, %s", name, hex(insn, len), status,
			 report.reason ? report.reason : "");
	if (report.length != len || cpu.rip != (u64)(uintptr_t)code + len)
		fail_msg("%s (%s): length %u", name, hex(insn, len), report.length);
	native_run();
	for (u32 i = 0; i < 16; i++)
		if (gpr[i] != native.gpr[i])
			fail_msg("%s (%s): register %u was %#llx, is %#llx, should be %#llx", name,
				 hex(insn, len), i, (unsigned long long)before[i],
				 (unsigned long long)gpr[i], (unsigned long long)native.gpr[i]);
	wrong = (cpu.rflags ^ native.rflags) & FLAGS_USED & ~undefined;
	if (wrong)
		fail_msg("%s (%s): flags %#llx are wrong", name, hex(insn, len),
			 (unsigned long long)wrong);
	for (u32 i = 0; i < DATA_BYTES; i++)
		if (shadow[i] != data[i])
			fail_msg("%s (%s): memory at %#x is %02x, should be %02x", name,
				 hex(insn, len), i, shadow[i], data[i]);
	if (memcmp(vector_shadow, native.vector, sizeof(vector_shadow)))
		fail_msg("%s (%s): vector registers differ", name, hex(insn, len));
}

/* --- instructions with ModRM --- */

enum sizes {
	BYTE = 1,
	WORD = 2,
	DWORD = 4,
	QWORD = 8,
	WIDE = WORD | DWORD | QWORD
};
enum kind {
	PLAIN,
	SHIFTS,
	BITS,
	PAIR
};

static const struct template
{
	const char *name;
	u8 op[3];
	u8 op_len;
	signed char ext; /* ModRM.reg, or -1: any register */
	u8 imm;		 /* bytes of the immediate; 4: 2 with 16-bit operands */
	u8 sizes;	 /* enum sizes that the opcode takes by prefix */
	bool lock;	 /* may be locked */
	u8 kind;	 /* enum kind */
	u64 undefined;
}
templates[] = {
/* clang-format off */
#define BINARY(n, name_, undef) \
	{name_ " m8,r8", {(n) << 3}, 1, -1, 0, BYTE, true, PLAIN, undef}, \
	{name_ " m,r", {(n) << 3 | 1}, 1, -1, 0, WIDE, true, PLAIN, undef}, \
	{name_ " r8,m8", {(n) << 3 | 2}, 1, -1, 0, BYTE, false, PLAIN, undef}, \
	{name_ " r,m", {(n) << 3 | 3}, 1, -1, 0, WIDE, false, PLAIN, undef}, \
	{name_ " m8,i8", {0x80}, 1, n, 1, BYTE, true, PLAIN, undef}, \
	{name_ " m,i", {0x81}, 1, n, 4, WIDE, true, PLAIN, undef}, \
	{name_ " m,i8", {0x83}, 1, n, 1, WIDE, true, PLAIN, undef}
	BINARY(0, "add", 0), BINARY(1, "or", FLAG_AF), BINARY(2, "adc", 0), BINARY(3, "sbb", 0),
	BINARY(4, "and", FLAG_AF), BINARY(5, "sub", 0), BINARY(6, "xor", FLAG_AF),
	{"cmp m8,r8", {0x38}, 1, -1, 0, BYTE, false, PLAIN, 0},
	{"cmp m,r", {0x39}, 1, -1, 0, WIDE, false, PLAIN, 0},
	{"cmp r8,m8", {0x3a}, 1, -1, 0, BYTE, false, PLAIN, 0},
	{"cmp r,m", {0x3b}, 1, -1, 0, WIDE, false, PLAIN, 0},
	{"cmp m8,i8", {0x80}, 1, 7, 1, BYTE, false, PLAIN, 0},
	{"cmp m,i", {0x81}, 1, 7, 4, WIDE, false, PLAIN, 0},
	{"cmp m,i8", {0x83}, 1, 7, 1, WIDE, false, PLAIN, 0},
	{"test m8,r8", {0x84}, 1, -1, 0, BYTE, false, PLAIN, FLAG_AF},
	{"test m,r", {0x85}, 1, -1, 0, WIDE, false, PLAIN, FLAG_AF},
	{"test m8,i8", {0xf6}, 1, 0, 1, BYTE, false, PLAIN, FLAG_AF},
	{"test m,i", {0xf7}, 1, 0, 4, WIDE, false, PLAIN, FLAG_AF},
	{"not m8", {0xf6}, 1, 2, 0, BYTE, true, PLAIN, 0},
	{"not m", {0xf7}, 1, 2, 0, WIDE, true, PLAIN, 0},
	{"neg m8", {0xf6}, 1, 3, 0, BYTE, true, PLAIN, 0},
	{"neg m", {0xf7}, 1, 3, 0, WIDE, true, PLAIN, 0},
	{"inc m8", {0xfe}, 1, 0, 0, BYTE, true, PLAIN, 0},
	{"inc m", {0xff}, 1, 0, 0, WIDE, true, PLAIN, 0},
	{"dec m8", {0xfe}, 1, 1, 0, BYTE, true, PLAIN, 0},
	{"dec m", {0xff}, 1, 1, 0, WIDE, true, PLAIN, 0},
	{"mov m8,r8", {0x88}, 1, -1, 0, BYTE, false, PLAIN, 0},
	{"mov m,r", {0x89}, 1, -1, 0, WIDE, false, PLAIN, 0},
	{"mov r8,m8", {0x8a}, 1, -1, 0, BYTE, false, PLAIN, 0},
	{"mov r,m", {0x8b}, 1, -1, 0, WIDE, false, PLAIN, 0},
	{"mov m8,i8", {0xc6}, 1, 0, 1, BYTE, false, PLAIN, 0},
	{"mov m,i", {0xc7}, 1, 0, 4, WIDE, false, PLAIN, 0},
	{"movzx r,m8", {0x0f, 0xb6}, 2, -1, 0, WIDE, false, PLAIN, 0},
	{"movzx r,m16", {0x0f, 0xb7}, 2, -1, 0, WIDE, false, PLAIN, 0},
	{"movsx r,m8", {0x0f, 0xbe}, 2, -1, 0, WIDE, false, PLAIN, 0},
	{"movsx r,m16", {0x0f, 0xbf}, 2, -1, 0, WIDE, false, PLAIN, 0},
	{"movsxd r,m32", {0x63}, 1, -1, 0, WIDE, false, PLAIN, 0},
	{"movbe r,m", {0x0f, 0x38, 0xf0}, 3, -1, 0, WIDE, false, PLAIN, 0},
	{"movbe m,r", {0x0f, 0x38, 0xf1}, 3, -1, 0, WIDE, false, PLAIN, 0},
	{"movnti m,r", {0x0f, 0xc3}, 2, -1, 0, DWORD | QWORD, false, PLAIN, 0},
	{"xchg m8,r8", {0x86}, 1, -1, 0, BYTE, true, PLAIN, 0},
	{"xchg m,r", {0x87}, 1, -1, 0, WIDE, true, PLAIN, 0},
	{"xadd m8,r8", {0x0f, 0xc0}, 2, -1, 0, BYTE, true, PLAIN, 0},
	{"xadd m,r", {0x0f, 0xc1}, 2, -1, 0, WIDE, true, PLAIN, 0},
	{"cmpxchg m8,r8", {0x0f, 0xb0}, 2, -1, 0, BYTE, true, PLAIN, 0},
	{"cmpxchg m,r", {0x0f, 0xb1}, 2, -1, 0, WIDE, true, PLAIN, 0},
	{"cmpxchg8b/16b", {0x0f, 0xc7}, 2, 1, 0, DWORD | QWORD, true, PAIR, 0},
	{"push m", {0xff}, 1, 6, 0, WORD | QWORD, false, PLAIN, 0},
	{"pop m", {0x8f}, 1, 0, 0, WORD | QWORD, false, PLAIN, 0},
	{"clflush", {0x0f, 0xae}, 2, 7, 0, DWORD, false, PLAIN, 0},
#define SHIFT(n, name_) \
	{name_ " m8,i8", {0xc0}, 1, n, 1, BYTE, false, SHIFTS, 0}, \
	{name_ " m,i8", {0xc1}, 1, n, 1, WIDE, false, SHIFTS, 0}, \
	{name_ " m8,1", {0xd0}, 1, n, 0, BYTE, false, SHIFTS, 0}, \
	{name_ " m,1", {0xd1}, 1, n, 0, WIDE, false, SHIFTS, 0}, \
	{name_ " m8,cl", {0xd2}, 1, n, 0, BYTE, false, SHIFTS, 0}, \
	{name_ " m,cl", {0xd3}, 1, n, 0, WIDE, false, SHIFTS, 0}
	SHIFT(0, "rol"), SHIFT(1, "ror"), SHIFT(2, "rcl"), SHIFT(3, "rcr"), SHIFT(4, "shl"),
	SHIFT(5, "shr"), SHIFT(6, "sal"), SHIFT(7, "sar"),
#define BITOP(n, name_) \
	{name_ " m,r", {0x0f, 0x83 | (n) << 3}, 2, -1, 0, WIDE, (n) != 4, BITS, 0}, \
	{name_ " m,i8", {0x0f, 0xba}, 2, n, 1, WIDE, (n) != 4, BITS, 0}
	BITOP(4, "bt"), BITOP(5, "bts"), BITOP(6, "btr"), BITOP(7, "btc"),
	/* clang-format on */
};

/* A memory operand: SIB or plain, displacement of 0, 1 or 4 bytes, or RIP-relative. */
struct operand {
	u8 bytes[8]; /* ModRM, SIB, displacement */
	u32 len;
	u8 rex;		 /* X and B */
	s32 rip_disp_at; /* where a RIP-relative displacement has to be filled in; -1 = none */
	u64 target;
};

/* Chooses registers for an operand at `target` and sets them in gpr. */
static void make_operand(struct operand *o, u8 reg, u64 target, u64 gpr[16], u32 avoid)
{
	u32 base, index, scale = rnd() % 4, disp_kind = rnd() % 3;
	s32 disp = 0;

	*o = (struct operand){.rip_disp_at = -1, .target = target};
	if (rnd() % 8 == 0) {
		o->bytes[0] = (u8)((reg & 7) << 3 | 5);
		o->rip_disp_at = 1;
		o->len = 5;
		return;
	}
	do {
		base = rnd() % 16;
		index = rnd() % 16;
	} while ((avoid >> base & 1) || (avoid >> index & 1) || index == base || base == EMU_RSP);
	if ((base & 7) == 5 && disp_kind == 0)
		disp_kind = 1;
	if (disp_kind == 1)
		disp = (signed char)rnd();
	if (disp_kind == 2)
		disp = (s32)rnd() >> 8;
	o->bytes[0] = (u8)(disp_kind << 6 | (reg & 7) << 3);
	o->len = 1;
	gpr[base] = target - (u64)(s64)disp;
	if ((base & 7) == 4 || rnd() % 2) {
		bool no_index = index == EMU_RSP;

		o->bytes[0] |= 4;
		o->bytes[o->len++] = (u8)(scale << 6 | (index & 7) << 3 | (base & 7));
		if (!no_index) {
			gpr[index] = (u64)((s64)rnd() >> 40);
			gpr[base] -= gpr[index] << scale;
			o->rex |= index >> 3 << 1;
		}
	} else {
		o->bytes[0] |= (u8)(base & 7);
	}
	o->rex |= base >> 3;
	memcpy(o->bytes + o->len, &disp, 4);
	o->len += disp_kind == 2 ? 4 : disp_kind;
}

static u64 shift_undefined(u8 ext, u32 count, u32 size)
{
	u32 masked = count & (size == 8 ? 63 : 31);
	u64 undefined = ext >= 4 ? FLAG_AF : 0;

	if (!masked)
		return 0;
	if (masked != 1)
		undefined |= FLAG_OF;
	if (ext >= 4 && ext != 7 && masked >= 8 * size)
		undefined |= FLAG_CF;
	return undefined;
}

static void randomize(u64 gpr[16])
{
	for (u32 i = 0; i < 16; i++)
		gpr[i] = rnd_value();
	gpr[EMU_RSP] = (u64)(uintptr_t)data + 0x800; /* a stack inside the data */
	native.rflags = 0x202 | (rnd() & FLAGS_USED & ~FLAG_DF);
	for (u32 i = 0; i < DATA_BYTES; i += 8) {
		u64 v = rnd_value();

		memcpy(data + i, &v, 8);
	}
	for (u32 i = 0; i < sizeof(native.vector); i++)
		native.vector[i / 32][i % 32] = (u8)rnd();
}

/* Makes what a comparison finds equal now and then. */
static void set_accumulator(const struct template *t, u64 gpr[16], const u8 *at, u32 size)
{
	if (t->kind == PAIR && rnd() % 2) {
		memcpy(&gpr[EMU_RAX], at, size);
		memcpy(&gpr[EMU_RDX], at + size, size);
	} else if (t->op[0] == 0x0f && (t->op[1] & ~1) == 0xb0 && rnd() % 2) {
		memcpy(&gpr[EMU_RAX], at, size);
	}
}

static void try_template(const struct template *t, u32 size)
{
	bool any = t->ext < 0;
	u8 reg = any ? rnd() % 16 : (u8)t->ext;
	u32 offset = MIDDLE + (rnd() % 4 ? rnd() % 64 : 0xff0 + rnd() % 32);
	u64 gpr[16], undefined = t->undefined;
	u8 insn[EMU_INSN_MAX + 8], rex = 0;
	u32 len = 0, imm = t->imm == 4 && size == 2 ? 2 : t->imm, count;
	u32 avoid = BIT(EMU_RAX) | BIT(EMU_RDX) | BIT(EMU_RCX);
	u64 value = rnd();
	struct operand o;

	randomize(gpr);
	if (t->kind == PAIR && size == 8)
		offset &= ~15u;
	if (any && reg == EMU_RSP && size > 1)
		reg = EMU_RBX; /* would destroy the stack the test runs on */
	if (any)
		avoid |= BIT(reg) | BIT(reg & 3);
	if (t->kind == BITS && any)
		gpr[reg] = (gpr[reg] & ~0xffffull) | ((u64)(s64)((s32)rnd() >> 18) & 0xffff);
	if (t->kind == BITS && any && size > 2)
		gpr[reg] = (u64)((s64)(gpr[reg] << 48) >> 48);
	set_accumulator(t, gpr, data + offset, size);
	make_operand(&o, reg, (u64)(uintptr_t)data + offset, gpr, avoid);
	if (t->lock && rnd() % 2)
		insn[len++] = 0xf0;
	if (size == 2)
		insn[len++] = 0x66;
	rex = (u8)(o.rex | (any ? reg >> 3 << 2 : 0) | (size == 8 ? 8 : 0));
	if (rex || rnd() % 4 == 0)
		insn[len++] = 0x40 | rex;
	memcpy(insn + len, t->op, t->op_len);
	len += t->op_len;
	memcpy(insn + len, o.bytes, o.len);
	len += o.len;
	memcpy(insn + len, &value, imm);
	if (o.rip_disp_at >= 0) {
		s32 disp = (s32)(o.target - ((u64)(uintptr_t)code + len + imm));

		memcpy(insn + len - 4, &disp, 4);
	}
	len += imm;
	count = t->imm ? (u8)value : t->op[0] < 0xd2 ? 1 : (u8)gpr[EMU_RCX];
	if (t->kind == SHIFTS)
		undefined |= shift_undefined(reg, count, size);
	if (t->kind == BITS)
		undefined |= FLAG_OF | FLAG_SF | FLAG_AF | FLAG_PF;
	assert_true(len <= EMU_INSN_MAX);
	compare(t->name, insn, len, gpr, undefined);
}

static void integer_instructions(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(templates); i++)
		for (u32 size = 1; size <= 8; size *= 2)
			for (u32 n = 0; n < ROUNDS && (templates[i].sizes & size); n++)
				try_template(&templates[i], size);
}

static void conditions(void **state)
{
	static struct template t = {.name = "cc", .op = {0x0f}, .op_len = 2, .sizes = WIDE};

	for (u32 cc = 0; cc < 16; cc++) {
		t.op[1] = (u8)(0x90 | cc);
		t.ext = 0;
		for (u32 n = 0; n < ROUNDS; n++)
			try_template(&t, 1);
		t.op[1] = (u8)(0x40 | cc);
		t.ext = -1;
		for (u32 size = 2; size <= 8; size *= 2)
			for (u32 n = 0; n < ROUNDS; n++)
				try_template(&t, size);
	}
}

/* Absolute addresses: A0 to A3 with 8-byte offsets. */
static void absolute_moves(void **state)
{
	for (u32 n = 0; n < 400; n++) {
		u64 gpr[16], at = (u64)(uintptr_t)data + MIDDLE + rnd() % 4096;
		u8 insn[EMU_INSN_MAX];
		u32 len = 0, size = 1u << rnd() % 4;

		randomize(gpr);
		if (size == 2)
			insn[len++] = 0x66;
		if (size == 8)
			insn[len++] = 0x48;
		insn[len++] = (u8)(0xa0 | (rnd() & 2) | (size > 1));
		memcpy(insn + len, &at, 8);
		compare("mov moffs", insn, len + 8, gpr, 0);
	}
}

static void strings(void **state)
{
	static const struct {
		const char *name;
		u8 op;
	} ops_[] = {{"movs", 0xa4}, {"cmps", 0xa6}, {"stos", 0xaa}, {"lods", 0xac}, {"scas", 0xae}};
	static const u8 reps[] = {0, 0xf3, 0xf2};

	for (u32 n = 0; n < 4000; n++) {
		u32 which = rnd() % ARRAY_SIZE(ops_), size = 1u << rnd() % 4, len = 0;
		u8 rep = reps[rnd() % 3];
		u8 insn[EMU_INSN_MAX];
		u64 gpr[16];

		/* REPNE with MOVS, STOS and LODS is reserved (SDM 2A 2.1.1). */
		if (rep == 0xf2 && which != 1 && which != 4)
			rep = 0xf3;
		randomize(gpr);
		if (rnd() % 2)
			native.rflags |= FLAG_DF;
		memset(data + MIDDLE - 600, 0x11, 1200); /* equal stretches for CMPS and SCAS */
		gpr[EMU_RAX] = rnd() % 2 ? 0x1111111111111111 : rnd();
		gpr[EMU_RSI] = (u64)(uintptr_t)data + MIDDLE - 300 + rnd() % 600;
		gpr[EMU_RDI] = (u64)(uintptr_t)data + MIDDLE - 300 + rnd() % 600;
		gpr[EMU_RCX] = rnd() % 200;
		if (rep)
			insn[len++] = rep;
		if (size == 2)
			insn[len++] = 0x66;
		if (size == 8)
			insn[len++] = 0x48;
		insn[len++] = ops_[which].op | (size > 1);
		compare(ops_[which].name, insn, len, gpr, 0);
	}
}

/* Vector moves: prefix, opcode; the VEX form is made from the same. */
static const struct vector_template {
	const char *name;
	u8 prefix, op;
	u8 map; /* 1: 0F, 2: 0F 38 */
	bool w; /* needs REX.W or VEX.W */
	u8 align;
	bool both; /* 256-bit form */
	bool vex;  /* VEX form with two operands */
} vectors[] = {
	{"movups load", 0, 0x10, 1, false, 1, true, true},
	{"movups store", 0, 0x11, 1, false, 1, true, true},
	{"movupd load", 0x66, 0x10, 1, false, 1, true, true},
	{"movupd store", 0x66, 0x11, 1, false, 1, true, true},
	{"movss load", 0xf3, 0x10, 1, false, 1, false, true},
	{"movss store", 0xf3, 0x11, 1, false, 1, false, true},
	{"movsd load", 0xf2, 0x10, 1, false, 1, false, true},
	{"movsd store", 0xf2, 0x11, 1, false, 1, false, true},
	{"movlps load", 0, 0x12, 1, false, 1, false, false},
	{"movlps store", 0, 0x13, 1, false, 1, false, true},
	{"movlpd load", 0x66, 0x12, 1, false, 1, false, false},
	{"movlpd store", 0x66, 0x13, 1, false, 1, false, true},
	{"movhps load", 0, 0x16, 1, false, 1, false, false},
	{"movhps store", 0, 0x17, 1, false, 1, false, true},
	{"movhpd load", 0x66, 0x16, 1, false, 1, false, false},
	{"movhpd store", 0x66, 0x17, 1, false, 1, false, true},
	{"movaps load", 0, 0x28, 1, false, 32, true, true},
	{"movaps store", 0, 0x29, 1, false, 32, true, true},
	{"movapd load", 0x66, 0x28, 1, false, 32, true, true},
	{"movapd store", 0x66, 0x29, 1, false, 32, true, true},
	{"movntps", 0, 0x2b, 1, false, 32, true, true},
	{"movntpd", 0x66, 0x2b, 1, false, 32, true, true},
	{"movd load", 0x66, 0x6e, 1, false, 1, false, true},
	{"movq load 6e", 0x66, 0x6e, 1, true, 1, false, true},
	{"movd store", 0x66, 0x7e, 1, false, 1, false, true},
	{"movq store 7e", 0x66, 0x7e, 1, true, 1, false, true},
	{"movdqa load", 0x66, 0x6f, 1, false, 32, true, true},
	{"movdqa store", 0x66, 0x7f, 1, false, 32, true, true},
	{"movdqu load", 0xf3, 0x6f, 1, false, 1, true, true},
	{"movdqu store", 0xf3, 0x7f, 1, false, 1, true, true},
	{"movq load 7e", 0xf3, 0x7e, 1, false, 1, false, true},
	{"movq store d6", 0x66, 0xd6, 1, false, 1, false, true},
	{"movntdq", 0x66, 0xe7, 1, false, 32, true, true},
	{"lddqu", 0xf2, 0xf0, 1, false, 1, true, true},
	{"movntdqa", 0x66, 0x2a, 2, false, 32, true, true},
};

static u32 vex_prefix(u8 *insn, const struct vector_template *t, u8 reg, u8 rex, bool wide)
{
	u8 pp = t->prefix == 0x66 ? 1 : t->prefix == 0xf3 ? 2 : t->prefix == 0xf2 ? 3 : 0;

	insn[0] = 0xc4;
	insn[1] = (u8)((reg & 8 ? 0 : 0x80) | (rex & 2 ? 0 : 0x40) | (rex & 1 ? 0 : 0x20) | t->map);
	insn[2] = (u8)((t->w ? 0x80 : 0) | 0x78 | (wide ? 4 : 0) | pp);
	return 3;
}

static void try_vector(const struct vector_template *t, bool vex, bool wide)
{
	u32 offset = MIDDLE + (rnd() % 4 ? rnd() % 64 : 0xfe0 + rnd() % 64) / t->align * t->align;
	u8 reg = rnd() % 16, insn[EMU_INSN_MAX + 8];
	struct operand o;
	u64 gpr[16];
	u32 len = 0;

	randomize(gpr);
	make_operand(&o, reg, (u64)(uintptr_t)data + offset, gpr, 0);
	if (vex) {
		len = vex_prefix(insn, t, reg, o.rex, wide);
	} else {
		u8 rex = (u8)(o.rex | reg >> 3 << 2 | (t->w ? 8 : 0));

		if (t->prefix)
			insn[len++] = t->prefix;
		if (rex)
			insn[len++] = 0x40 | rex;
		insn[len++] = 0x0f;
		if (t->map == 2)
			insn[len++] = 0x38;
	}
	insn[len++] = t->op;
	memcpy(insn + len, o.bytes, o.len);
	len += o.len;
	if (o.rip_disp_at >= 0) {
		s32 disp = (s32)(o.target - ((u64)(uintptr_t)code + len));

		memcpy(insn + len - 4, &disp, 4);
	}
	compare(t->name, insn, len, gpr, 0);
}

static void vector_moves_(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(vectors); i++)
		for (u32 n = 0; n < ROUNDS; n++) {
			try_vector(&vectors[i], false, false);
			if (vectors[i].vex)
				try_vector(&vectors[i], true, false);
			if (vectors[i].both)
				try_vector(&vectors[i], true, true);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(integer_instructions), cmocka_unit_test(conditions),
		cmocka_unit_test(absolute_moves),	cmocka_unit_test(strings),
		cmocka_unit_test(vector_moves_),
	};

	if (!__builtin_cpu_supports("avx2")) {
		print_message("skipped: this processor has no AVX2\n");
		return 0;
	}
	code = mmap(NULL, 4096 + DATA_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(code != MAP_FAILED);
	data = code + 4096;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
