/*
 * Port I/O: widths, registers' upper halves, ports where nothing is, the I/O permission bitmap, and
 * string I/O of each width and direction, over page boundaries, with faults in the middle. Data is
 * checked through the UART's loopback mode.
 */
#include "cpu.h"
#include "mem.h"
#include "umbra.h"

#define EMPTY_PORT 0x6660 /* nothing there, on QEMU and Umbra */
#define COM1	   0x3f8
#define TEST_VA	   0x4100000000ull

static bool umbra;

#define RAISE(insn, ...)                            \
	do {                                        \
		trap_clear();                       \
		asm volatile(EX(insn) __VA_ARGS__); \
	} while (0)

static void test_empty(void)
{
	static const u16 ports[] = {EMPTY_PORT, 0x1f00, 0xfff0, 0xfffc, 0x2e0};
	u64 rax;

	for (u32 i = 0; i < ARRAY_SIZE(ports); i++) {
		outb(ports[i], 0x12);
		outw(ports[i], 0x1234);
		outl(ports[i], 0x12345678);
		tap_ok(inb(ports[i]) == 0xff && inw(ports[i]) == 0xffff &&
			       inl(ports[i]) == 0xffffffff,
		       "port 0x%x reads all ones at each width", ports[i]);
	}
	rax = 0x1122334455667788ull;
	asm volatile("inb %%dx, %%al" : "+a"(rax) : "d"(EMPTY_PORT));
	tap_is(rax, 0x11223344556677ffull, "IN AL keeps the rest of RAX");
	rax = 0x1122334455667788ull;
	asm volatile("inw %%dx, %%ax" : "+a"(rax) : "d"(EMPTY_PORT));
	tap_is(rax, 0x112233445566ffffull, "IN AX keeps the rest of RAX");
	rax = 0x1122334455667788ull;
	asm volatile("inl %%dx, %%eax" : "+a"(rax) : "d"(EMPTY_PORT));
	tap_is(rax, 0xffffffffull, "IN EAX clears the upper half of RAX");
	rax = 0x1122334455667788ull;
	asm volatile("inl $0xe0, %%eax" : "+a"(rax));
	tap_is(rax, 0xffffffffull, "IN EAX, immediate port");
	rax = ~0ull;
	asm volatile("inb %%dx, %%al" : "+a"(rax) : "d"(0xabcd0000ull | EMPTY_PORT));
	tap_is(rax, ~0ull, "only DX counts as port number");
	outb(0x80, 0x5a);
	RAISE("outb %%al, $0x80", : : "a"(1) : "memory");
	tap_is((u64)trap_last()->vector, (u64)TRAP_NONE, "port 0x80 takes what is written");
}

static void test_pci(void)
{
	u32 wrong = 0;

	outl(0xcf8, 0x80001234);
	tap_is(inl(0xcf8), 0x80001234, "PCI address register reads back");
	if (!umbra) {
		tap_skip("a PCI bus with nothing but its bridge needs Umbra");
		return;
	}
	for (u32 bdf = 1; bdf < 0x10000; bdf += bdf < 0x100 ? 1 : 0x501) {
		outl(0xcf8, 0x80000000 | bdf << 8);
		wrong += inl(0xcfc) != 0xffffffff;
	}
	tap_is(wrong, 0, "no PCI device but the host bridge answers");
	outl(0xcfc, 0);
	tap_ok(inw(0xcfe) == 0xffff && inb(0xcff) == 0xff, "parts of the PCI data register");
	outl(0xcf8, 0);
	tap_is(inl(0xcfc), 0xffffffff, "PCI data with the enable bit clear");
}

static u64 __user u_in80(u64 arg)
{
	asm volatile("inb $0x80, %%al" : : : "al");
	return 7;
}

static u64 __user u_in81(u64 arg)
{
	asm volatile("inb $0x81, %%al" : : : "al");
	return 7;
}

static u64 __user u_inw80(u64 arg)
{
	asm volatile("inw $0x80, %%ax" : : : "ax");
	return 7;
}

static u64 __user u_outsb(u64 arg)
{
	asm volatile("outsb" : "+S"(arg) : "d"(0x80) : "memory");
	return arg;
}

static void test_permissions(void)
{
	struct __packed {
		struct tss tss;
		u8 bitmap[33];
	} *big = page_alloc();
	static u8 __user_data byte;
	u64 *desc = &gdt[SEL_TEST / 8], base = (u64)(uintptr_t)big, ret = 0;
	struct trap t;

	tap_ok(user_run(&t, u_in80, 0, NULL) && t.vector == VEC_GP, "IN at CPL 3: #GP");
	tap_ok(!user_run_flags(&t, u_in80, 0, &ret, 3ull << 12) && ret == 7,
	       "IN at CPL 3 with IOPL 3");
	/* A TSS with a bitmap that allows port 0x80 alone. */
	big->tss = cpus[0].tss;
	big->tss.iomap = sizeof(big->tss);
	memset(big->bitmap, 0xff, sizeof(big->bitmap));
	big->bitmap[0x80 / 8] = 0xfe;
	desc[0] = (sizeof(*big) - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 |
		  (base >> 24 & 0xff) << 56;
	desc[1] = base >> 32;
	/* this_cpu() goes by the selector: TR must keep SEL_TSS. */
	u64 saved[2] = {gdt[SEL_TSS / 8], gdt[SEL_TSS / 8 + 1]};

	gdt[SEL_TSS / 8] = desc[0];
	gdt[SEL_TSS / 8 + 1] = desc[1];
	asm volatile("ltr %w0" : : "r"(SEL_TSS));
	/* user_run() sets RSP0 in cpus[0].tss: give the copy a stack of its own. */
	big->tss.rsp[0] = (u64)(uintptr_t)page_alloc() + PAGE_SIZE;
	tap_ok(!user_run(&t, u_in80, 0, &ret) && ret == 7, "IN that the bitmap allows");
	tap_ok(user_run(&t, u_in81, 0, NULL) && t.vector == VEC_GP && t.error == 0,
	       "IN that the bitmap refuses");
	tap_ok(user_run(&t, u_inw80, 0, NULL) && t.vector == VEC_GP, "IN AX over both");
	tap_ok(!user_run(&t, u_outsb, (u64)(uintptr_t)&byte, &ret) &&
		       ret == (u64)(uintptr_t)&byte + 1,
	       "OUTSB that the bitmap allows");
	saved[0] &= ~BIT64(41);
	gdt[SEL_TSS / 8] = saved[0];
	gdt[SEL_TSS / 8 + 1] = saved[1];
	asm volatile("ltr %w0" : : "r"(SEL_TSS));
	desc[0] = 0;
	desc[1] = 0;
}

struct string_regs {
	u64 rdi, rsi, rcx;
};

#define STRING_OP(fn, insn)                                            \
	static struct string_regs fn(u16 port, u64 address, u64 count) \
	{                                                              \
		struct string_regs r = {address, address, count};      \
		trap_clear();                                          \
		asm volatile(EX(insn) "cld"                            \
			     : "+D"(r.rdi), "+S"(r.rsi), "+c"(r.rcx)   \
			     : "d"(port)                               \
			     : "memory", "cc");                        \
		return r;                                              \
	}
STRING_OP(rep_insb, "rep insb")
STRING_OP(rep_insw, "rep insw")
STRING_OP(rep_insl, "rep insl")
STRING_OP(rep_outsb, "rep outsb")
STRING_OP(rep_outsw, "rep outsw")
STRING_OP(rep_outsl, "rep outsl")
STRING_OP(one_insb, "insb")
STRING_OP(one_outsl, "outsl")
STRING_OP(addr32_rep_insb, "addr32 rep insb")
STRING_OP(repne_insb, "repne insb")

static bool all_are(const u8 *p, u64 n, u8 value)
{
	for (u64 i = 0; i < n; i++) {
		if (p[i] != value)
			return false;
	}
	return true;
}

static void test_string_widths(void)
{
	typedef struct string_regs op(u16 port, u64 address, u64 count);
	static const struct {
		op *fn;
		u32 width;
		bool in;
		const char *name;
	} ops[] = {
		{rep_insb, 1, true, "REP INSB"},    {rep_insw, 2, true, "REP INSW"},
		{rep_insl, 4, true, "REP INSL"},    {rep_outsb, 1, false, "REP OUTSB"},
		{rep_outsw, 2, false, "REP OUTSW"}, {rep_outsl, 4, false, "REP OUTSL"},
	};
	static const u32 counts[] = {0, 1, 7, 300};

	for (u32 i = 0; i < ARRAY_SIZE(ops); i++) {
		for (u32 c = 0; c < ARRAY_SIZE(counts); c++) {
			u8 *buf = mem_alloc(2 * PAGE_SIZE, PAGE_SIZE), *start;
			u64 n = counts[c] * ops[i].width;
			struct string_regs r;
			bool good;

			if (!buf)
				tap_bail("out of memory");
			/* Across a page boundary, at an odd address; the second page is fresh. */
			start = buf + PAGE_SIZE - 3;
			r = ops[i].fn(EMPTY_PORT, (u64)(uintptr_t)start, counts[c]);
			good = trap_last()->vector == TRAP_NONE && r.rcx == 0 &&
			       r.rdi == (u64)(uintptr_t)start + (ops[i].in ? n : 0) &&
			       r.rsi == (u64)(uintptr_t)start + (ops[i].in ? 0 : n);
			if (ops[i].in)
				good = good && all_are(start, n, 0xff) && start[-1] == 0 &&
				       start[n] == 0;
			tap_ok(good, "%s, %u times, over a page boundary", ops[i].name, counts[c]);
		}
	}
}

static void wait_data(void)
{
	for (int k = 0; k < 100000 && !(inb(COM1 + 5) & 0x01); k++)
		cpu_pause();
}

/* Not before everything printed has left the transmitter; FIFOs on and cleared. */
static void loopback(bool on)
{
	for (int k = 0; k < 100000 && !(inb(COM1 + 5) & 0x40); k++)
		cpu_pause();
	outb(COM1 + 4, on ? 0x1b : 0x0b);
	outb(COM1 + 2, 0x07);
}

static void test_string_data(void)
{
	u8 *buf = page_alloc();
	struct string_regs r;

	loopback(true);
	memcpy(buf, "Umbra-0123456", 14);
	r = rep_outsb(COM1, (u64)(uintptr_t)buf, 14);
	memset(buf + 64, 0, 64);
	for (u32 i = 0; i < 14; i++) { /* bytes need not arrive at once */
		wait_data();
		one_insb(COM1, (u64)(uintptr_t)(buf + 64 + i), 0);
	}
	loopback(false);
	tap_is(r.rcx, 0, "REP OUTSB into the UART in loopback mode");
	tap_ok(!memcmp(buf, buf + 64, 14), "INSB reads back what was sent");
	/* Backwards. */
	loopback(true);
	u64 rsi = (u64)(uintptr_t)buf + 4, rcx = 5;

	asm volatile("std; rep outsb; cld" : "+S"(rsi), "+c"(rcx) : "d"(COM1) : "memory");
	memset(buf + 64, 0, 64);
	for (u32 i = 0; i < 5; i++) {
		wait_data();
		buf[64 + i] = inb(COM1);
	}
	loopback(false);
	tap_ok(!memcmp(buf + 64, "arbmU", 5), "REP OUTSB with DF set goes backwards");
	tap_is(rsi, (u64)(uintptr_t)buf - 1, "and leaves RSI below");
	/* A segment override: OUTSB from FS. */
	wrmsr(MSR_FS_BASE, (u64)(uintptr_t)buf);
	loopback(true);
	rsi = 2;
	asm volatile("fs outsb" : "+S"(rsi) : "d"(COM1) : "memory");
	wait_data();
	buf[64] = inb(COM1);
	loopback(false);
	wrmsr(MSR_FS_BASE, 0);
	tap_is(buf[64], 'b', "FS override of OUTSB");
}

static void test_string_faults(void)
{
	u64 page = (u64)(uintptr_t)page_alloc();
	struct string_regs r;
	const struct trap *t;

	pt_map(TEST_VA, page, PAGE_SIZE, PTE_P | PTE_W, 1);
	pt_unmap(TEST_VA + PAGE_SIZE, PAGE_SIZE);
	r = rep_insb(EMPTY_PORT, TEST_VA + PAGE_SIZE - 5, 9);
	t = trap_last();
	tap_ok(t->vector == VEC_PF && t->error == PF_W && t->rip == t->insn,
	       "REP INSB into an absent page: #PF at the instruction");
	tap_is(t->cr2, TEST_VA + PAGE_SIZE, "CR2");
	tap_ok(r.rcx == 4 && r.rdi == TEST_VA + PAGE_SIZE, "five of nine were done: RCX %lu",
	       r.rcx);
	tap_ok(all_are((u8 *)(uintptr_t)(page + PAGE_SIZE - 5), 5, 0xff), "and are in memory");
	r = rep_outsb(EMPTY_PORT, TEST_VA + PAGE_SIZE - 5, 9);
	t = trap_last();
	tap_ok(t->vector == VEC_PF && t->error == 0 && t->cr2 == TEST_VA + PAGE_SIZE &&
		       r.rcx == 4 && r.rsi == TEST_VA + PAGE_SIZE,
	       "REP OUTSB from an absent page: #PF after five");
	r = one_outsl(EMPTY_PORT, TEST_VA + PAGE_SIZE - 2, 0);
	t = trap_last();
	tap_ok(t->vector == VEC_PF && t->error == 0 && t->cr2 == TEST_VA + PAGE_SIZE &&
		       r.rsi == TEST_VA + PAGE_SIZE - 2,
	       "OUTSL across into an absent page: #PF, nothing done");
	pt_map(TEST_VA, page, PAGE_SIZE, PTE_P, 1);
	r = rep_insw(EMPTY_PORT, TEST_VA, 3);
	t = trap_last();
	tap_ok(t->vector == VEC_PF && t->error == (PF_P | PF_W) && r.rcx == 3 && r.rdi == TEST_VA,
	       "REP INSW into a read-only page: #PF, nothing done");
	r = rep_insb(EMPTY_PORT, 0x8000000000000000ull, 1);
	t = trap_last();
	tap_ok(t->vector == VEC_GP && t->error == 0 && r.rcx == 1,
	       "REP INSB to a non-canonical address: #GP");
	r = rep_insb(EMPTY_PORT, 0x8000000000000000ull, 0);
	tap_is((u64)trap_last()->vector, (u64)TRAP_NONE, "the same with RCX 0 does nothing");
	r = rep_insb(EMPTY_PORT, TEST_VA + PAGE_SIZE, 0);
	tap_is((u64)trap_last()->vector, (u64)TRAP_NONE, "an absent page with RCX 0 likewise");
	pt_map(TEST_VA, page, PAGE_SIZE, PTE_P | PTE_W, 1);
	r = repne_insb(EMPTY_PORT, TEST_VA, 3);
	tap_ok(r.rcx == 0 && r.rdi == TEST_VA + 3, "REPNE is REP");
	/* 32-bit addresses: ECX and EDI are used, their upper halves are cleared when written. */
	r = addr32_rep_insb(EMPTY_PORT, 0xffffffff00000000ull | page, 0x100000002ull);
	tap_ok(r.rcx == 0 && r.rdi == page + 2, "address-size prefix: RCX 0x%lx, RDI 0x%lx", r.rcx,
	       r.rdi);
	tap_ok(all_are((u8 *)(uintptr_t)page, 2, 0xff), "the bytes went to the 32-bit address");
}

void guest_main(void)
{
	umbra = umbra_present();
	test_empty();
	test_pci();
	test_permissions();
	test_string_widths();
	test_string_data();
	test_string_faults();
}
