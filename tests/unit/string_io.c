/* INS and OUTS: segments, addresses, faults with partial progress, bounded work per exit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fake_vcpu.h"
/* With the fake VMCS in place of the real one. */
#include "vm/linear.c"
#include "vm/string_io.c"

static unsigned int port_reads, port_writes;
static u32 port_value, port_last;
static unsigned int end_vm_at; /* the how many-th port write ends the VM; 0: none */

u32 platform_port_in(struct vcpu *vcpu, u16 port, unsigned int size)
{
	assert_int_equal(port, 0x3f8);
	return port_value + port_reads++;
}

void platform_port_out(struct vcpu *vcpu, u16 port, unsigned int size, u32 value)
{
	assert_int_equal(port, 0x3f8);
	port_last = value;
	port_writes++;
	if (port_writes == end_vm_at)
		vcpu->requests |= REQ_STOP;
}

static unsigned int matches;

void vcpu_match_io_breakpoints(struct vcpu *vcpu, u16 port, unsigned int size)
{
	assert_int_equal(port, 0x3f8);
	assert_int_equal(size, 2);
	matches++;
}

#define PORT  (0x3f8ull << 16)
#define IN    BIT(3)
#define STR   BIT(4)
#define REP   BIT(5)
#define BYTE  0
#define WORD  1
#define DWORD 3

static void segment(enum segment seg, u64 base, u32 limit, u32 ar)
{
	vmcs_field[VMCS_GUEST_ES_BASE + 2 * seg] = base;
	vmcs_field[VMCS_GUEST_ES_LIMIT + 2 * seg] = limit;
	vmcs_field[VMCS_GUEST_ES_AR + 2 * seg] = ar;
}

/* Flat 32-bit protected mode without paging. */
static int reset(void **state)
{
	fake_reset();
	port_reads = port_writes = 0;
	port_value = 0x41;
	end_vm_at = 0;
	vmx_caps.basic = VMX_BASIC_IO_INFO;
	vmcs_field[VMCS_GUEST_CR0] = CR0_PE;
	vmcs_field[VMCS_GUEST_RFLAGS] = RFLAGS_FIXED;
	vmcs_field[VMCS_GUEST_RIP] = 0x100;
	vmcs_field[VMCS_EXIT_INSTR_LEN] = 2;
	for (unsigned int i = 0; i < 6; i++)
		segment(i, 0, 0xffffffff, 0xc093);
	segment(SEG_CS, 0, 0xffffffff, 0xc09b);
	return 0;
}

static void run(u64 qualification, unsigned int address_size, enum segment seg)
{
	vmcs_field[VMCS_EXIT_INSTR_INFO] = address_size << 7 | (u32)seg << 15;
	exit_string_io(&fake, PORT | STR | qualification);
}

static void expect_done(unsigned int transfers)
{
	assert_int_equal(seen.vector, -1);
	assert_int_equal(port_reads + port_writes, transfers);
	assert_int_equal(seen.skipped, 1);
	assert_int_equal(vmcs_field[VMCS_GUEST_RIP], 0x102);
}

static void expect_fault(int vector, u32 error_code)
{
	assert_int_equal(seen.vector, vector);
	assert_true(seen.has_error);
	assert_int_equal(seen.error_code, error_code);
	assert_int_equal(seen.skipped, 0);
	assert_int_equal(vmcs_field[VMCS_GUEST_RIP], 0x100);
}

static void single(void **state)
{
	fake.gpr[RSI] = 0x2000;
	fake.gpr[RCX] = 77;
	put_ram(0x2000, 0x12345678, 4);
	run(DWORD, 1, SEG_DS);
	expect_done(1);
	assert_int_equal(port_last, 0x12345678);
	assert_int_equal(fake.gpr[RSI], 0x2004);
	assert_int_equal(fake.gpr[RCX], 77);
}

static void single_in_down(void **state)
{
	fake.gpr[RDI] = 0x2002;
	port_value = 0xaabbccdd;
	vmcs_field[VMCS_GUEST_RFLAGS] |= RFLAGS_DF;
	run(IN | WORD, 1, SEG_GS); /* the segment field means nothing for INS */
	expect_done(1);
	assert_int_equal(get_ram(0x2000, 8), 0xccdd0000);
	assert_int_equal(fake.gpr[RDI], 0x2000);
}

static void repeat(void **state)
{
	fake.gpr[RDI] = 0x2ffe;
	fake.gpr[RCX] = 5;
	run(IN | BYTE | REP, 1, SEG_ES);
	expect_done(5);
	assert_memory_equal(ram + 0x2ffe, "ABCDE", 6);
	assert_int_equal(fake.gpr[RDI], 0x3003);
	assert_int_equal(fake.gpr[RCX], 0);
}

static void repeat_none(void **state)
{
	fake.gpr[RCX] = 0x10000; /* CX is 0 */
	run(IN | BYTE | REP, 0, SEG_ES);
	expect_done(0);
}

static void bounded(void **state)
{
	fake.gpr[RSI] = 0x2000;
	fake.gpr[RCX] = 130;
	run(BYTE | REP, 1, SEG_DS);
	assert_int_equal(port_writes, 64);
	assert_int_equal(fake.gpr[RCX], 66);
	assert_int_equal(vmcs_field[VMCS_GUEST_RIP], 0x100);
	run(BYTE | REP, 1, SEG_DS);
	run(BYTE | REP, 1, SEG_DS);
	expect_done(130);
	assert_int_equal(fake.gpr[RSI], 0x2000 + 130);
}

static void single_step(void **state)
{
	fake.gpr[RSI] = 0x2000;
	fake.gpr[RCX] = 3;
	vmcs_field[VMCS_GUEST_RFLAGS] |= RFLAGS_TF;
	run(BYTE | REP, 1, SEG_DS);
	assert_int_equal(port_writes, 1);
	assert_int_equal(seen.skipped_none, 1); /* makes the debug trap pending */
	assert_int_equal(fake.gpr[RCX], 2);
}

static void io_breakpoint(void **state)
{
	fake.io_breakpoints = true;
	matches = 0;
	fake.gpr[RSI] = 0x2000;
	fake.gpr[RCX] = 2;
	run(WORD | REP, 1, SEG_DS);
	assert_int_equal(port_writes, 1);
	assert_int_equal(matches, 1);
	run(WORD | REP, 1, SEG_DS);
	expect_done(2);
	assert_int_equal(matches, 2);
}

static void end_of_vm(void **state)
{
	fake.gpr[RSI] = 0x2000;
	fake.gpr[RCX] = 10;
	end_vm_at = 3;
	run(BYTE | REP, 1, SEG_DS);
	assert_int_equal(port_writes, 3);
}

static void address_sizes(void **state)
{
	/* 16 bits: the index wraps, the rest of the register stays. */
	fake.gpr[RSI] = 0xabcdffff;
	fake.gpr[RCX] = 0xffff0002;
	put_ram(0xffff, 0x11, 1);
	put_ram(0, 0x22, 1);
	run(BYTE | REP, 0, SEG_DS);
	expect_done(2);
	assert_int_equal(port_last, 0x22);
	assert_int_equal(fake.gpr[RSI], 0xabcd0001);
	assert_int_equal(fake.gpr[RCX], 0xffff0000);

	/* 32 bits in 64-bit mode: upper halves are zeroed. */
	reset(NULL);
	vmcs_field[VMCS_GUEST_EFER] = EFER_LMA | EFER_LME;
	segment(SEG_CS, 0, 0xffffffff, 0xa09b);
	segment(SEG_DS, 0x5000, 0, 0x10000); /* base, limit and null do not count */
	fake.gpr[RSI] = 0x700002000;
	fake.gpr[RCX] = 0x500000001;
	put_ram(0x2000, 0x33, 1);
	run(BYTE | REP, 1, SEG_DS);
	expect_done(1);
	assert_int_equal(port_last, 0x33);
	assert_int_equal(fake.gpr[RSI], 0x2001);
	assert_int_equal(fake.gpr[RCX], 0);

	/* FS has a base there. */
	segment(SEG_FS, 0x3000, 0, 0x10000);
	fake.gpr[RSI] = 0x20;
	put_ram(0x3020, 0x44, 1);
	run(BYTE, 2, SEG_FS);
	assert_int_equal(port_last, 0x44);
}

/* Compatibility mode: the sum of base and offset is cut to 32 bits before paging. */
static void compatibility_mode(void **state)
{
	vmcs_field[VMCS_GUEST_CR0] |= CR0_PG;
	vmcs_field[VMCS_GUEST_CR4] = CR4_PAE;
	vmcs_field[VMCS_GUEST_EFER] = EFER_LMA | EFER_LME;
	vmcs_field[VMCS_GUEST_CR3] = 0x12000;
	put_ram(0x12000, 0x13007, 8);
	put_ram(0x13000, 0x14007, 8);
	put_ram(0x14000, 0x00087, 8); /* 2 MiB at 0 */
	segment(SEG_DS, 0xfffff000, 0xffffffff, 0xc093);
	put_ram(0x2000, 0x66, 1);
	fake.gpr[RSI] = 0x3000;
	run(BYTE, 1, SEG_DS);
	expect_done(1);
	assert_int_equal(port_last, 0x66);
}

static void non_canonical(void **state)
{
	vmcs_field[VMCS_GUEST_CR0] |= CR0_PG;
	vmcs_field[VMCS_GUEST_CR4] = CR4_PAE;
	vmcs_field[VMCS_GUEST_EFER] = EFER_LMA | EFER_LME;
	segment(SEG_CS, 0, 0xffffffff, 0xa09b);
	fake.gpr[RDI] = 0x800000000000;
	run(IN | BYTE, 2, SEG_ES);
	expect_fault(VEC_GP, 0);
	assert_int_equal(port_reads, 0);
}

static const struct {
	bool in;
	u32 limit, ar;
	u64 offset;
	bool ok;
} segments[] = {
	{0, 0x1fff, 0x0093, 0x1ffc, true},
	{0, 0x1fff, 0x0093, 0x1ffd, false},
	{1, 0x1fff, 0x0093, 0x2000, false},
	{1, 0xffffffff, 0xc093, 0xfffffffd, false},
	{0, 0xffffffff, 0xc09b, 0x1000, true},
	{0, 0xffffffff, 0xc099, 0x1000, false},
	{0, 0xffffffff, 0xc091, 0x1000, true},
	{1, 0xffffffff, 0xc091, 0x1000, false},
	{1, 0xffffffff, 0xc09b, 0x1000, false},
	{1, 0xffffffff, 0x1c093, 0x1000, false},
	/* Expand-down: above the limit. */
	{1, 0xfff, 0xc097, 0x1000, true},
	{1, 0xfff, 0xc097, 0xfff, false},
	{1, 0xfff, 0x0097, 0xfffc, true},
	{1, 0xfff, 0x0097, 0xfffd, false},
	{1, 0xffffffff, 0xc097, 0x1000, false},
};

static void segment_checks(void **state)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(segments); i++) {
		reset(NULL);
		segment(segments[i].in ? SEG_ES : SEG_FS, 0x1000, segments[i].limit,
			segments[i].ar);
		fake.gpr[RSI] = fake.gpr[RDI] = segments[i].offset;
		run((segments[i].in ? IN : 0) | DWORD, 1, SEG_FS);
		if (segments[i].ok) {
			expect_done(1);
		} else {
			expect_fault(VEC_GP, 0);
			assert_int_equal(port_reads + port_writes, 0);
		}
	}
	reset(NULL);
	segment(SEG_SS, 0, 0xff, 0x4093);
	fake.gpr[RSI] = 0x100;
	run(BYTE, 1, SEG_SS);
	expect_fault(VEC_SS, 0);
}

static void real_mode(void **state)
{
	vmcs_field[VMCS_GUEST_CR0] = 0;
	segment(SEG_ES, 0x1000, 0xffff, 0x91); /* rights do not count */
	fake.gpr[RDI] = 0x10;
	run(IN | WORD, 0, SEG_ES);
	expect_done(1);
	assert_int_equal(get_ram(0x1010, 2), 0x41);
	fake.gpr[RDI] = 0xffff;
	vmcs_field[VMCS_GUEST_RIP] = 0x100;
	seen.skipped = 0;
	run(IN | WORD, 0, SEG_ES);
	expect_fault(VEC_GP, 0);
}

static void alignment(void **state)
{
	vmcs_field[VMCS_GUEST_CR0] |= CR0_AM;
	vmcs_field[VMCS_GUEST_RFLAGS] |= RFLAGS_AC;
	fake.gpr[RSI] = 0x2001;
	run(WORD, 1, SEG_DS);
	expect_done(1); /* CPL 0 */
	reset(NULL);
	vmcs_field[VMCS_GUEST_CR0] |= CR0_AM;
	vmcs_field[VMCS_GUEST_RFLAGS] |= RFLAGS_AC;
	vmcs_field[VMCS_GUEST_SS_AR] = 0xc0f3;
	fake.gpr[RSI] = 0x2001;
	run(WORD, 1, SEG_DS);
	expect_fault(VEC_AC, 0);
}

/* A page table at 0x10000/0x11000: pages 0 to 7 as they are, page 4 missing, 5 read-only. */
static void paging(void)
{
	vmcs_field[VMCS_GUEST_CR0] |= CR0_PG | CR0_WP;
	vmcs_field[VMCS_GUEST_CR3] = 0x10000;
	put_ram(0x10000, 0x11007, 4);
	for (unsigned int i = 0; i < 8; i++)
		put_ram(0x11000 + 4 * i, i << 12 | 7, 4);
	put_ram(0x11010, 0x4006, 4);
	put_ram(0x11014, 0x5005, 4);
}

static void fault_with_progress(void **state)
{
	paging();
	fake.gpr[RDI] = 0x3ffd;
	fake.gpr[RCX] = 9;
	run(IN | BYTE | REP, 1, SEG_ES);
	expect_fault(VEC_PF, PF_W);
	assert_int_equal(seen.addr, 0x4000);
	assert_int_equal(port_reads, 3); /* nothing is read that cannot be stored */
	assert_int_equal(fake.gpr[RDI], 0x4000);
	assert_int_equal(fake.gpr[RCX], 6);
	assert_int_equal(get_ram(0x11000 + 12, 4), 0x3067);
}

static void fault_straddling(void **state)
{
	paging();
	fake.gpr[RDI] = 0x3ffe;
	run(IN | DWORD, 1, SEG_ES);
	expect_fault(VEC_PF, PF_W);
	assert_int_equal(seen.addr, 0x4000);
	assert_int_equal(get_ram(0x3ffe, 2), 0);
	reset(NULL);
	paging();
	fake.gpr[RDI] = 0x5000;
	run(IN | DWORD, 1, SEG_ES);
	expect_fault(VEC_PF, PF_P | PF_W);
	reset(NULL);
	paging();
	put_ram(0x11010, 0x7007, 4); /* two pages apart in physical memory */
	fake.gpr[RDI] = 0x3ffe;
	port_value = 0x44332211;
	run(IN | DWORD, 1, SEG_ES);
	expect_done(1);
	assert_int_equal(get_ram(0x3ffe, 2), 0x2211);
	assert_int_equal(get_ram(0x7000, 2), 0x4433);
}

/* What the VM has protected (HC_PROTECT) stays so for accesses made on a guest's behalf. */
static void protection(void **state)
{
	fake_protect(0x3000, EPT_R | EPT_X);
	fake.gpr[RDI] = 0x2ffe;
	fake.gpr[RCX] = 4;
	run(IN | BYTE | REP, 1, SEG_ES);
	expect_fault(VEC_PF, HC_PF_EPT | PF_P | PF_W);
	assert_int_equal(seen.addr, 0x3000);
	assert_int_equal(port_reads, 2);
	assert_int_equal(get_ram(0x3000, 2), 0);
	reset(NULL);
	fake_protect(0x3000, EPT_R | EPT_X);
	fake.gpr[RSI] = 0x3000;
	run(DWORD, 1, SEG_DS);
	expect_done(1);
	reset(NULL);
	fake_protect(0x3000, 0);
	vmcs_field[VMCS_GUEST_SS_AR] = 0xc0f3;
	fake.gpr[RSI] = 0x2ffe;
	run(DWORD, 1, SEG_DS);
	expect_fault(VEC_PF, HC_PF_EPT | PF_P | PF_U);
	assert_int_equal(seen.addr, 0x3000);
}

static void device_and_hole(void **state)
{
	fake.gpr[RDI] = FAKE_MMIO + 8;
	run(IN | DWORD, 1, SEG_ES);
	expect_done(1);
	assert_int_equal(seen.mmio_writes, 1);
	assert_int_equal(seen.mmio_offset, 8);
	assert_int_equal(seen.mmio_size, 4);
	assert_int_equal(seen.mmio_value, 0x41);
	reset(NULL);
	fake.gpr[RSI] = 0x2000000; /* a hole */
	run(DWORD, 1, SEG_DS);
	expect_done(1);
	assert_int_equal(port_last, 0xffffffff);
	reset(NULL);
	seen.mmio_value = 0x77;
	fake.gpr[RSI] = FAKE_RAM_BYTES - 2; /* RAM, then a hole */
	run(DWORD, 1, SEG_DS);
	expect_done(1);
	assert_int_equal(port_last, 0xffff0000);
}

/* Without VMX_BASIC[54] prefixes are read from the instruction. */
static void prefixes(void **state)
{
	vmx_caps.basic = 0;
	vmcs_field[VMCS_EXIT_INSTR_LEN] = 4;
	memcpy(ram + 0x100, "\x64\x67\xf3\x6e", 4);
	segment(SEG_FS, 0x1000, 0xffff, 0x93);
	fake.gpr[RSI] = 0xffff0010;
	fake.gpr[RCX] = 0x30001;
	put_ram(0x1010, 0x55, 1);
	run(BYTE | REP, 2, SEG_DS);
	assert_int_equal(port_writes, 1);
	assert_int_equal(port_last, 0x55);
	assert_int_equal(fake.gpr[RSI], 0xffff0011);
	assert_int_equal(fake.gpr[RCX], 0x30000);
	assert_int_equal(vmcs_field[VMCS_GUEST_RIP], 0x104);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(single, reset),
		cmocka_unit_test_setup(single_in_down, reset),
		cmocka_unit_test_setup(repeat, reset),
		cmocka_unit_test_setup(repeat_none, reset),
		cmocka_unit_test_setup(bounded, reset),
		cmocka_unit_test_setup(single_step, reset),
		cmocka_unit_test_setup(io_breakpoint, reset),
		cmocka_unit_test_setup(end_of_vm, reset),
		cmocka_unit_test_setup(address_sizes, reset),
		cmocka_unit_test_setup(compatibility_mode, reset),
		cmocka_unit_test_setup(non_canonical, reset),
		cmocka_unit_test_setup(segment_checks, reset),
		cmocka_unit_test_setup(real_mode, reset),
		cmocka_unit_test_setup(alignment, reset),
		cmocka_unit_test_setup(fault_with_progress, reset),
		cmocka_unit_test_setup(fault_straddling, reset),
		cmocka_unit_test_setup(protection, reset),
		cmocka_unit_test_setup(device_and_hole, reset),
		cmocka_unit_test_setup(prefixes, reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
