/*
 * Instructions on memory that is none: each form that the hypervisor must emulate runs once on RAM
 * that holds what reads of the hole return, and once on the hole; registers and flags must come out
 * the same, so the processor itself is the reference. Then stores whose value a device shows, and
 * accesses that only half touch a device, fault, or come from other modes.
 * Option `hole` moves the hole, `show` prints each instruction before it runs.
 */
#include "apic.h"
#include "cpu.h"
#include "mem.h"
#include "umbra.h"

#define TEST_VA 0x4300000000ull

typedef void round_fn(const u64 in[17], u64 out[17]);

struct insn {
	const char *name;
	round_fn *run;
	u64 undefined; /* flags; and RARE */
};
#define RARE BIT64(63) /* not emulated by Umbra */
extern const struct insn mmio_insns[], mmio_insns_end[];

#define RAISE(insn, ...)                            \
	do {                                        \
		trap_clear();                       \
		asm volatile(EX(insn) __VA_ARGS__); \
	} while (0)

#define ARITHMETIC 0x8d5ull

static struct rng rng;
static u64 hole, empty; /* address, and what reading it returns */
static u8 *ram;		/* four pages */

static void fill_ram(void)
{
	for (u32 i = 0; i < 4 * PAGE_SIZE; i += 8)
		memcpy(ram + i, &empty, 8);
}

static void run_insn(const struct insn *insn, u64 offset)
{
	u64 in[17], on_ram[17] = {0}, on_hole[17] = {0};
	u64 base = (u64)(uintptr_t)ram + PAGE_SIZE + offset;
	bool good = true;

	for (u32 i = 0; i < 16; i++)
		in[i] = rng_next(&rng);
	in[16] = (rng_next(&rng) & ARITHMETIC) | RFLAGS_1;
	fill_ram();
	in[6] = base;
	in[7] = base;
	insn->run(in, on_ram);
	in[6] = hole + offset;
	in[7] = hole + offset;
	insn->run(in, on_hole);
	for (u32 i = 0; i < 16; i++) {
		u64 want = on_ram[i];

		/* Registers that point into RAM point as far into the hole. */
		if (want - base + PAGE_SIZE < 4 * PAGE_SIZE)
			want = want - base + hole + offset;
		if (i != 4 && on_hole[i] != want) {
			tap_note("register %u is 0x%lx, want 0x%lx", i, on_hole[i], want);
			good = false;
		}
	}
	if ((on_ram[16] ^ on_hole[16]) & ARITHMETIC & ~insn->undefined) {
		tap_note("flags are 0x%lx, want 0x%lx", on_hole[16], on_ram[16]);
		good = false;
	}
	good = good && *(volatile u64 *)(uintptr_t)hole == empty;
	tap_ok(good, "%s", insn->name);
}

static void test_forms(void)
{
	for (const struct insn *i = mmio_insns; (uintptr_t)i < (uintptr_t)mmio_insns_end; i++) {
		if (opt_flag("show"))
			tap_note("%s", i->name);
		if (i->undefined & RARE && umbra_present())
			tap_skip("%s is not emulated", i->name);
		else
			run_insn(i, rng_below(&rng, 8) * 64);
	}
}

/* Stores to the task priority register, by instructions of many kinds. */
#define STORE(name, before, after, code, ...)                                    \
	do {                                                                     \
		lapic_write(LAPIC_TPR, before);                                  \
		asm volatile(code : : "r"(tpr), ##__VA_ARGS__ : "memory", "cc"); \
		tap_is(lapic_read(LAPIC_TPR), after, "%s", name);                \
	} while (0)

static void test_device_stores(void)
{
	u64 tpr = LAPIC_BASE + LAPIC_TPR;
	static u32 source;

	if (lapic_is_x2apic()) {
		tap_skip("no xAPIC to store to");
		return;
	}
	STORE("MOV $imm", 0, 0x35, "movl $0x35, (%0)");
	STORE("MOV %reg", 0, 0x46, "movl %1, (%0)", "r"(0x46));
	STORE("OR", 0x41, 0x53, "orl $0x12, (%0)");
	STORE("AND", 0xff, 0x53, "andl $0x53, (%0)");
	STORE("XOR", 0x33, 0x11, "xorl %1, (%0)", "r"(0x22));
	STORE("ADD", 0x20, 0x31, "addl $0x11, (%0)");
	STORE("SUB", 0x20, 0x1f, "subl $1, (%0)");
	STORE("INC", 0x20, 0x21, "incl (%0)");
	STORE("BTS", 0x20, 0x28, "btsl $3, (%0)");
	STORE("MOVNTI", 0, 0x71, "movnti %1, (%0)", "r"(0x71));
	u32 value = 0x62, old = value;

	lapic_write(LAPIC_TPR, 0x17);
	asm volatile("xchgl %0, (%1)" : "+r"(old) : "r"(tpr) : "memory");
	tap_ok(old == 0x17 && lapic_read(LAPIC_TPR) == value, "XCHG");
	source = 0x24;
	u64 si = (u64)(uintptr_t)&source, di = tpr;

	asm volatile("movsl" : "+S"(si), "+D"(di) : : "memory");
	tap_ok(lapic_read(LAPIC_TPR) == 0x24 && di == tpr + 4, "MOVS to a device");
	si = tpr;
	di = (u64)(uintptr_t)&source;
	lapic_write(LAPIC_TPR, 0x38);
	asm volatile("movsl" : "+S"(si), "+D"(di) : : "memory");
	tap_is(source, 0x38, "MOVS from a device");
	di = tpr;
	asm volatile("stosl" : "+D"(di) : "a"(0x47) : "memory");
	tap_is(lapic_read(LAPIC_TPR), 0x47, "STOS");
	lapic_write(LAPIC_TPR, 0);
}

static void test_faults(void)
{
	u64 page = (u64)(uintptr_t)page_alloc(), si = hole, di, cx = 8;

	pt_map(TEST_VA, page, PAGE_SIZE, PTE_P | PTE_W, 1);
	pt_unmap(TEST_VA + PAGE_SIZE, PAGE_SIZE);
	di = TEST_VA + PAGE_SIZE - 12;
	trap_clear();
	asm volatile(EX("rep movsl") : "+S"(si), "+D"(di), "+c"(cx) : : "memory");
	const struct trap *t = trap_last();

	tap_ok(t->vector == VEC_PF && t->error == PF_W && t->cr2 == TEST_VA + PAGE_SIZE &&
		       t->rip == t->insn,
	       "REP MOVSL from a hole into an absent page: #PF");
	tap_ok(cx == 5 && si == hole + 12 && di == TEST_VA + PAGE_SIZE, "after three of eight");
	/* The hole through the guest's own page tables: user, read-only, absent. */
	pt_map(TEST_VA, hole, PAGE_SIZE, PTE_P, 1);
	RAISE("movl $1, (%0)", : : "r"(TEST_VA) : "memory");
	tap_ok(trap_last()->vector == VEC_PF && trap_last()->error == (PF_P | PF_W),
	       "store to a hole mapped read-only: #PF of the guest");
	pt_unmap(TEST_VA, PAGE_SIZE);
	RAISE("movl (%0), %%eax", : : "r"(TEST_VA) : "eax", "memory");
	tap_ok(trap_last()->vector == VEC_PF && trap_last()->error == 0, "absent: #PF");
	/* Half RAM, half hole: the next page of linear memory is the hole. */
	pt_map(TEST_VA, page, PAGE_SIZE, PTE_P | PTE_W, 1);
	pt_map(TEST_VA + PAGE_SIZE, hole, PAGE_SIZE, PTE_P | PTE_W, 1);
	*(volatile u32 *)(uintptr_t)(page + PAGE_SIZE - 4) = 0x12345678;
	u64 value;

	asm volatile("movq (%1), %0" : "=r"(value) : "r"(TEST_VA + PAGE_SIZE - 4) : "memory");
	tap_is(value, (u64)(u32)empty << 32 | 0x12345678, "read across RAM into a hole");
	asm volatile("movq %0, (%1)"
		     :
		     : "r"(0x1122334455667788ull), "r"(TEST_VA + PAGE_SIZE - 4)
		     : "memory");
	tap_is(*(volatile u32 *)(uintptr_t)(page + PAGE_SIZE - 4), 0x55667788,
	       "write across: the RAM half is written");
	pt_map(TEST_VA, hole, PAGE_SIZE, PTE_P | PTE_W, 1);
	pt_map(TEST_VA + PAGE_SIZE, page, PAGE_SIZE, PTE_P | PTE_W, 1);
	*(volatile u32 *)(uintptr_t)page = 0x9abcdef0;
	asm volatile("movq (%1), %0" : "=r"(value) : "r"(TEST_VA + PAGE_SIZE - 4) : "memory");
	tap_is(value, 0x9abcdef000000000ull | (u32)empty, "read across a hole into RAM");
	asm volatile("movq %0, (%1)"
		     :
		     : "r"(0x1122334455667788ull), "r"(TEST_VA + PAGE_SIZE - 4)
		     : "memory");
	tap_is(*(volatile u32 *)(uintptr_t)page, 0x11223344, "write across: likewise");
}

static u64 __user u_load(u64 address)
{
	return *(volatile u32 *)address;
}

extern u32 compat_load_address;
asm(".pushsection .text\n.code32\n"
    "compat_load_code: movl compat_load_address, %ebx\n movl (%ebx), %eax\n movl $0, 4(%ebx)\n"
    " movl %eax, compat_load_address\n lret\n"
    ".code64\n.popsection\n"
    ".pushsection .data\n compat_load_address: .long 0\n.popsection");
void compat_load_code(void);

static void test_modes(void)
{
	u64 value = 1;
	struct trap t;
	u8 *code = mem_alloc(2 * PAGE_SIZE, PAGE_SIZE);

	pt_map(TEST_VA, hole, PAGE_SIZE, PTE_P | PTE_W | PTE_U, 1);
	tap_ok(!user_run(&t, u_load, TEST_VA, &value) && value == (u32)empty,
	       "load from a hole at CPL 3");
	pt_map(TEST_VA, hole, PAGE_SIZE, PTE_P | PTE_W, 1);
	tap_ok(user_run(&t, u_load, TEST_VA, NULL) && t.vector == VEC_PF &&
		       t.error == (PF_P | PF_U),
	       "from a supervisor page: #PF");
	compat_load_address = (u32)hole;
	compat_call(compat_load_code);
	tap_is(compat_load_address, (u32)empty, "load and store in 32-bit code");
	wrmsr(MSR_FS_BASE, hole);
	u32 word = 1;

	asm volatile("movl %%fs:8, %0" : "=r"(word) : : "memory");
	wrmsr(MSR_FS_BASE, 0);
	tap_is(word, (u32)empty, "segment base in a load");
	/* The instruction's own bytes on two pages. */
	code += PAGE_SIZE - 1;
	memcpy(code, "\x8b\x07\xc3", 3); /* MOV (%rdi), %eax; RET */
	tap_is(((u32(*)(u64))(uintptr_t)code)(hole), (u32)empty, "an instruction across two pages");
	memcpy(code, "\x8b\x47\x04", 3); /* the bytes change: MOV 4(%rdi), %eax */
	code[3] = 0xc3;
	tap_is(((u32(*)(u64))(uintptr_t)code)(LAPIC_BASE + LAPIC_VERSION - 4),
	       lapic_is_x2apic() ? (u32)empty : lapic_read(LAPIC_VERSION),
	       "the same place with other bytes");
}

void guest_main(void)
{
	hole = opt_u64("hole", 0xd0000000);
	rng_seed(&rng, opt_u64("seed", 1));
	ram = mem_alloc(4 * PAGE_SIZE, PAGE_SIZE);
	if (!ram)
		tap_bail("out of memory");
	lapic_enable();
	empty = *(volatile u64 *)(uintptr_t)hole;
	if (umbra_present())
		tap_is(empty, ~0ull, "where nothing is reads all ones");
	test_forms();
	test_device_stores();
	test_faults();
	test_modes();
}
