/*
 * hv/emu/store.c: stores that are known from before, on a fake VMCS and RAM with real page tables
 * and the real decoder; and all the ways in which they may no longer be what they were.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fake_vcpu.h"
/* With the fake VMCS in place of the real one. */
#include "emu/store.c"

#define CODE   0x5000ull /* linear; physical 0x6000 */
#define WINDOW 0x7000ull /* linear */

static struct emu_cache cache;
static struct walk_state state;
static u64 value; /* of the store that is known */
static u32 size, length;

const void *guest_ram_view(struct vm *vm, gpa_t at, size_t len)
{
	return at.v < FAKE_RAM_BYTES && FAKE_RAM_BYTES - at.v >= len ? ram + at.v : NULL;
}

/* The instruction at CODE + offset has been emulated once. */
static bool remember(u64 offset, const u8 *bytes, u32 len)
{
	u64 rip = CODE + offset;
	struct emu_cache_slot *slot = emu_slot(&cache, rip);
	const char *reason;

	fake_reset();
	memset(&cache, 0, sizeof(cache));
	fake.emu_cache = &cache;
	state = (struct walk_state){.cr0 = CR0_PE | CR0_PG,
				    .cr3 = 0x10000,
				    .cr4 = CR4_PAE,
				    .efer = EFER_LME | EFER_LMA,
				    .phys_bits = 40};
	put_ram(0x10000, 0x11007, 8);
	put_ram(0x11000, 0x12007, 8);
	put_ram(0x12000, 0x13007, 8);
	put_ram(0x13000 + CODE / 512, 0x6007, 8);
	memcpy(ram + 0x6000 + offset, bytes, len);
	vmcs_field[VMCS_GUEST_CR3] = 0x10000;
	vmcs_field[VMCS_GUEST_CS_AR] = 0xa09b;
	vmcs_field[VMCS_GUEST_EFER] = EFER_LME | EFER_LMA;
	vmcs_field[VMCS_GUEST_RIP] = rip;
	for (u32 i = 0; i < 16; i++)
		fake.gpr[i] = WINDOW + 0x100 * i + 1;
	assert_int_equal(insn_decode(64, bytes, len, &slot->insn, &reason), EMU_DONE);
	memset(&slot->bytes, 0, sizeof(slot->bytes));
	memcpy(&slot->bytes, bytes, len);
	slot->mode = 64;
	emu_remember(&fake, &state, rip);
	return known_slot(&cache, rip)->store.size;
}

static bool known(u64 linear)
{
	const struct known_store *store = mmio_known_store(&fake, gva(linear));

	if (!store)
		return false;
	value = 0;
	memcpy(&value, store->from, store->size);
	size = store->size;
	length = store->length;
	return true;
}

#define INSN(...) ((const u8[]){__VA_ARGS__}), sizeof((const u8[]){__VA_ARGS__})

static void test_forms(void **unused)
{
	/* mov [rdi], rcx; what is reported is only taken if it is the operand's address */
	assert_true(remember(0, INSN(0x48, 0x89, 0x0f)));
	assert_true(known(WINDOW + 0x701));
	assert_int_equal(value, WINDOW + 0x101);
	assert_int_equal(size, 8);
	assert_int_equal(length, 3);
	assert_false(known(WINDOW + 0x700));
	assert_false(known(WINDOW + 0x702));
	/* movnti [rax + rbx*4 - 0x10], r9d */
	assert_true(remember(8, INSN(0x44, 0x0f, 0xc3, 0x4c, 0x98, 0xf0)));
	fake.gpr[RBX] = 4;
	assert_true(known(WINDOW + 1));
	assert_int_equal(size, 4);
	assert_int_equal(value, WINDOW + 0x901);
	/* mov byte [rsi], 0x80; mov qword [rip + 0x2000 - 11], -1 */
	assert_true(remember(16, INSN(0xc6, 0x06, 0x80)));
	assert_true(known(WINDOW + 0x601));
	assert_int_equal(value, 0x80);
	assert_true(remember(0, INSN(0x48, 0xc7, 0x05, 0xf5, 0x1f, 0, 0, 0xff, 0xff, 0xff, 0xff)));
	assert_true(known(WINDOW));
	assert_int_equal(value, ~0ull);
	assert_int_equal(length, 11);
	/* mov [rdi], cl is plain; mov [rdi], ch is not; with REX it is SIL */
	assert_true(remember(0, INSN(0x88, 0x0f)));
	assert_false(remember(0, INSN(0x88, 0x2f)));
	assert_true(remember(0, INSN(0x40, 0x88, 0x37)));
	/* [rsp], rsp, fs:, 32-bit addresses, xchg, movbe, add */
	assert_false(remember(0, INSN(0x48, 0x89, 0x0c, 0x24)));
	assert_false(remember(0, INSN(0x48, 0x89, 0x27)));
	assert_false(remember(0, INSN(0x64, 0x48, 0x89, 0x0f)));
	assert_false(remember(0, INSN(0x67, 0x48, 0x89, 0x0f)));
	assert_false(remember(0, INSN(0x48, 0x87, 0x0f)));
	assert_false(remember(0, INSN(0x48, 0x0f, 0x38, 0xf1, 0x0f)));
	assert_false(remember(0, INSN(0x48, 0x01, 0x0f)));
}

static void test_changes(void **unused)
{
	const u64 at = WINDOW + 0x701;

	for (u32 i = 0; i < 4; i++) {
		u64 entry = i < 3 ? 0x10000 + i * 0x1000 : 0x13000 + CODE / 512;

		assert_true(remember(0, INSN(0x48, 0x89, 0x0f)));
		put_ram(entry, get_ram(entry, 8) ^ 0x60, 8); /* accessed, dirty */
		assert_true(known(at));
		put_ram(entry, get_ram(entry, 8) ^ 0x20000, 8);
		assert_false(known(at));
	}
	for (u32 i = 0; i < 3; i++) {
		assert_true(remember(0x40, INSN(0x48, 0x89, 0x0f)));
		ram[0x6043] = 0xcc; /* behind it */
		assert_true(known(at));
		ram[0x6040 + i] ^= 1;
		assert_false(known(at));
	}
	/* A long one, whose last byte counts. */
	assert_true(remember(0, INSN(0x48, 0xc7, 0x87, 0, 1, 0, 0, 1, 2, 3, 4)));
	assert_true(known(at + 0x100));
	ram[0x600a] ^= 1;
	assert_false(known(at + 0x100));
	/* Another address space, another place, another mode. */
	assert_true(remember(0, INSN(0x48, 0x89, 0x0f)));
	vmcs_field[VMCS_GUEST_CR3] ^= 0x1000;
	assert_false(known(at));
	vmcs_field[VMCS_GUEST_CR3] ^= 0x1000;
	vmcs_field[VMCS_GUEST_RIP] += 1;
	assert_false(known(at));
	vmcs_field[VMCS_GUEST_RIP] += 0xfff;
	assert_false(known(at));
	vmcs_field[VMCS_GUEST_RIP] -= 0x1000;
	assert_true(known(at));
	vmcs_field[VMCS_GUEST_CS_AR] = 0xc09b;
	assert_false(known(at));
	vmcs_field[VMCS_GUEST_CS_AR] = 0xa09b;
	assert_true(known(at));
	vmcs_field[VMCS_GUEST_EFER] = 0; /* the descriptor's bit means nothing then */
	assert_false(known(at));
}

static void test_edges(void **unused)
{
	/* Bytes that reach the end of the page, as far as they are compared. */
	assert_true(remember(0xff0, INSN(0x48, 0x89, 0x0f)));
	assert_true(known(WINDOW + 0x701));
	assert_false(remember(0xff1, INSN(0x48, 0x89, 0x0f)));
	assert_false(known(WINDOW + 0x701));
	/* An operand that leaves the page. */
	assert_true(remember(0, INSN(0x48, 0x89, 0x0f)));
	fake.gpr[RDI] = WINDOW + 0xff8;
	assert_true(known(WINDOW + 0xff8));
	fake.gpr[RDI] = WINDOW + 0xff9;
	assert_false(known(WINDOW + 0xff9));
	fake.gpr[RDI] = WINDOW - 4; /* reported where it enters the page */
	assert_false(known(WINDOW));
	/* Tables or code that are not RAM. */
	remember(0, INSN(0x48, 0x89, 0x0f));
	put_ram(0x13000 + CODE / 512, FAKE_MMIO | 7, 8);
	emu_remember(&fake, &state, CODE);
	assert_false(known(WINDOW + 0x701));
	/* Nothing is known at first. */
	memset(&cache, 0, sizeof(cache));
	assert_false(known(WINDOW + 0x701));
	vmcs_field[VMCS_GUEST_RIP] = 0;
	vmcs_field[VMCS_GUEST_CR3] = 0;
	assert_false(known(WINDOW + 0x701));
}

static void test_several(void **unused)
{
	struct emu_cache_slot *slot;

	/* mov [rdi], rcx; mov [rsi], rcx, in another slot; one that takes the first one's. */
	assert_true(remember(0, INSN(0x48, 0x89, 0x0f)));
	for (u32 i = 0; i < 2; i++) {
		u64 rip = CODE + (i ? 0x80 : 3);

		slot = emu_slot(&cache, rip);
		*slot = *emu_slot(&cache, CODE);
		slot->bytes.byte[2] = 0x0e;
		slot->insn.base = RSI;
		memcpy(ram + 0x6000 + rip % PAGE_SIZE, slot->bytes.byte, 3);
		emu_remember(&fake, &state, rip);
		vmcs_field[VMCS_GUEST_RIP] = rip;
		assert_true(known(WINDOW + 0x601));
		vmcs_field[VMCS_GUEST_RIP] = CODE;
		assert_int_equal(known(WINDOW + 0x701), !i);
	}
	/* What cannot be remembered leaves nothing behind. */
	vmcs_field[VMCS_GUEST_RIP] = CODE + 3;
	assert_true(known(WINDOW + 0x601));
	emu_slot(&cache, CODE + 3)->insn.op = OP_XCHG;
	emu_remember(&fake, &state, CODE + 3);
	assert_false(known(WINDOW + 0x601));
}

/* Code on a large page: two or three entries on the way. */
static void test_large_page(void **unused)
{
	assert_true(remember(0, INSN(0x48, 0x89, 0x0f)));
	memset(ram + 0x5000, 0, 16);
	memcpy(ram + 0x5000, emu_slot(&cache, CODE)->bytes.byte, 3);
	put_ram(0x12000, 0x87, 8);
	emu_remember(&fake, &state, CODE);
	assert_true(known(WINDOW + 0x701));
	put_ram(0x13000 + CODE / 512, 0, 8); /* not on the way */
	assert_true(known(WINDOW + 0x701));
	put_ram(0x12000, 0x200087, 8);
	assert_false(known(WINDOW + 0x701));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forms),	   cmocka_unit_test(test_changes),
		cmocka_unit_test(test_edges),	   cmocka_unit_test(test_several),
		cmocka_unit_test(test_large_page),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
