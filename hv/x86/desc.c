#include "x86/desc.h"

#include "lib/string.h"
#include "x86/asm.h"
#include "x86/regs.h"

/* Segment and gate access bytes (SDM 3A 3.4.5, 6.14.1). */
#define DESC_CODE64 0x00af9b000000ffffull /* present, DPL 0, execute/read, accessed, L */
#define DESC_DATA   0x00cf93000000ffffull /* present, DPL 0, read/write, accessed */
#define DESC_TSS64  0x89ull		  /* present, DPL 0, available 64-bit TSS */
#define GATE_INT64  0x8eull		  /* present, DPL 0, 64-bit interrupt gate */

struct tss { /* SDM 3A figure 7-11 */
	u32 reserved0;
	u64 rsp[3];
	u64 reserved1;
	u64 ist[7]; /* IST1 to IST7 */
	u64 reserved2;
	u16 reserved3;
	u16 io_map;
} __packed;
_Static_assert(sizeof(struct tss) == 104, "TSS layout");

struct gate { /* SDM 3A figure 6-8 */
	u64 lo, hi;
};
_Static_assert(sizeof(struct gate) == 16, "gate layout");

struct table_register {
	u16 limit;
	u64 base;
} __packed;

struct cpu_tables {
	u64 gdt[5]; /* null, SEL_CODE, SEL_DATA, SEL_TSS (two entries) */
	struct tss tss;
} __aligned(64);
_Static_assert(SEL_TSS / 8 == 3, "the TSS descriptor fills the last two entries");

static struct cpu_tables tables[MAX_CPUS];
static struct gate idt[256] __aligned(4096) __attribute__((section(".ro_after_init")));

extern const char exception_stubs[]; /* entry.S: 256 entries of 16 bytes */
extern u8 boot_ist_top[];	     /* start.S */

void desc_init_idt(void)
{
	for (unsigned int v = 0; v < ARRAY_SIZE(idt); v++) {
		u64 to = (u64)(uintptr_t)exception_stubs + v * 16ull;
		u64 ist = v == VEC_DF ? IST_DF : v == VEC_NMI ? IST_NMI : v == VEC_MC ? IST_MC : 0;

		idt[v].lo = (to & 0xffff) | (u64)SEL_CODE << 16 | ist << 32 | GATE_INT64 << 40 |
			    (to >> 16 & 0xffff) << 48;
		idt[v].hi = to >> 32;
	}
}

void desc_set_stacks(struct cpu *c, u8 *const tops[IST_COUNT])
{
	for (unsigned int i = 1; i < IST_COUNT; i++)
		tables[c->index].tss.ist[i - 1] = (u64)(uintptr_t)tops[i];
}

static void load_segments(void)
{
	u64 code = SEL_CODE;
	u32 data = SEL_DATA;

	asm volatile("push %0\n\t"
		     "lea 1f(%%rip), %%rax\n\t"
		     "push %%rax\n\t"
		     "lretq\n"
		     "1:\n\t"
		     "mov %1, %%ds\n\t"
		     "mov %1, %%es\n\t"
		     "mov %1, %%ss\n\t"
		     "mov %2, %%fs\n\t"
		     "mov %2, %%gs\n\t"
		     "lldt %w2"
		     :
		     : "r"(code), "r"(data), "r"(0)
		     : "rax", "memory");
}

void desc_load(struct cpu *c)
{
	struct cpu_tables *t = &tables[c->index];
	struct table_register gdtr = {sizeof(t->gdt) - 1, (u64)(uintptr_t)t->gdt};
	struct table_register idtr = {sizeof(idt) - 1, (u64)(uintptr_t)idt};
	u64 base = (u64)(uintptr_t)&t->tss;

	for (unsigned int i = 1; i < IST_COUNT; i++)
		if (!t->tss.ist[i - 1])
			t->tss.ist[i - 1] = (u64)(uintptr_t)boot_ist_top;
	t->tss.io_map = sizeof(t->tss);
	t->gdt[SEL_CODE / 8] = DESC_CODE64;
	t->gdt[SEL_DATA / 8] = DESC_DATA;
	t->gdt[SEL_TSS / 8] = (sizeof(t->tss) - 1) | (base & 0xffffff) << 16 | DESC_TSS64 << 40 |
			      (base >> 24 & 0xff) << 56;
	t->gdt[SEL_TSS / 8 + 1] = base >> 32;

	asm volatile("lgdt %0" : : "m"(gdtr));
	load_segments();
	wrmsr(MSR_FS_BASE, 0);
	wrmsr(MSR_GS_BASE, (u64)(uintptr_t)c);
	asm volatile("ltr %w0" : : "r"(SEL_TSS) : "memory");
	asm volatile("lidt %0" : : "m"(idtr));

	c->self = c;
	c->tss_base = base;
	c->gdt_base = gdtr.base;
	c->idt_base = idtr.base;
}
