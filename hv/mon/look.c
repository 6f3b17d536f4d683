/* Commands that look into a VM: registers, memory, translations. */
#include "lib/log.h"
#include "mon/mon.h"
#include "vm/control.h"
#include "x86/asm.h"
#include "x86/regs.h"
#include "x86/tsc.h"

typedef unsigned long long ull;

/* A CPU that does not answer a request for registers within this is not worth waiting for. */
#define LOOK_TIMEOUT_US 2000000

/* Asks for the registers, and then whether they are there: STEP_DONE says so, or that it failed. */
static enum step get_regs(struct job *job, struct vcpu_regs *regs, bool *got)
{
	struct vcpu *vcpu = job_vcpu(job);

	*got = false;
	if (!vcpu)
		return STEP_DONE;
	if (!job->phase) {
		job->phase = 1;
		job->deadline = rdtsc() + tsc_from_us(LOOK_TIMEOUT_US);
		vcpu_look(vcpu);
		return STEP_WAIT;
	}
	*got = vcpu_look_result(regs);
	if (*got)
		return STEP_DONE;
	if (rdtsc() < job->deadline)
		return STEP_WAIT;
	mon_print("the vCPU's CPU does not answer\n");
	return STEP_DONE;
}

/* --- regs ---------------------------------------------------------------------------------------
 */

static struct vcpu_regs regs; /* of the job at work */

static void show_general(void)
{
	static const char names[16][4] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
					  "R8",	 "R9",	"R10", "R11", "R12", "R13", "R14", "R15"};

	mon_print("RIP %016llx  RFLAGS %08llx  CPL %u\n", (ull)regs.rip, (ull)regs.rflags,
		  regs.walk.cpl);
	for (u32 i = 0; i < 16; i++)
		mon_print("%-3s %016llx%s", names[i], (ull)regs.gpr[i],
			  i % 3 == 2 || i == 15 ? "\n" : "  ");
}

static void show_system(void)
{
	static const char names[SEGMENT_COUNT][5] = {"ES", "CS", "SS",	 "DS",
						     "FS", "GS", "LDTR", "TR"};

	mon_print("CR0 %016llx  CR2 %016llx  CR3 %016llx\n", (ull)regs.walk.cr0, (ull)regs.cr2,
		  (ull)regs.walk.cr3);
	mon_print("CR4 %016llx  DR7 %016llx  EFER %llx\n", (ull)regs.walk.cr4, (ull)regs.dr7,
		  (ull)regs.walk.efer);
	for (u32 i = 0; i < SEGMENT_COUNT; i++)
		mon_print("%-4s %04x  base %016llx  limit %08x  access rights %05x\n", names[i],
			  regs.segment[i].selector, (ull)regs.segment[i].base,
			  regs.segment[i].limit, regs.segment[i].ar);
	mon_print("GDTR base %016llx  limit %04x\nIDTR base %016llx  limit %04x\n",
		  (ull)regs.gdt_base, regs.gdt_limit, (ull)regs.idt_base, regs.idt_limit);
}

static enum step regs_step(struct job *job)
{
	enum step result;
	bool got;

	if (job->phase == 2) {
		show_system();
		return STEP_DONE;
	}
	result = get_regs(job, &regs, &got);
	if (!got)
		return result;
	show_general();
	job->phase = 2;
	return STEP_MORE;
}

static bool read_vcpu(const char *text, struct job *job)
{
	u64 vcpu;

	if (!parse_number(text, false, &vcpu))
		return false;
	job->vcpu = (u32)MIN(vcpu, (u64)BOOT_MAX_VCPUS);
	return true;
}

bool look_regs(const struct words *w, struct job *job)
{
	if (w->count > 2 || (w->count == 2 && !read_vcpu(w->word[1], job)))
		return false;
	if (word_vm(w, 0, &job->vm))
		job->step = regs_step;
	return true;
}

/* --- mem ----------------------------------------------------------------------------------------
 */

#define MEM_SHOWN 128
#define PER_LINE  16u

static const char *kind_of(const struct region *region)
{
	if (!region)
		return "nothing there";
	return region->kind == REGION_MMIO ? "a device" : "RAM";
}

static enum step mem_step(struct job *job)
{
	u32 n = (u32)MIN(job->left, (u64)PER_LINE);
	struct vm *vm = job_vm(job);
	char hex[3 * PER_LINE + 2], text[PER_LINE + 1];
	u8 byte[PER_LINE];
	int err;

	if (!vm || !n)
		return STEP_DONE;
	err = guest_read(vm, gpa(job->at), byte, n);
	if (err == ERR_AGAIN) { /* on its way from a memory node */
		if (job->deadline)
			return rdtsc() < job->deadline ? STEP_WAIT : STEP_DONE;
		job->deadline = rdtsc() + tsc_hz;
		return STEP_WAIT;
	}
	job->deadline = 0;
	if (err) {
		mon_print("%012llx  %s\n", (ull)job->at,
			  kind_of(space_find(&vm->space, gpa(job->at))));
		return STEP_DONE;
	}
	for (u32 i = 0; i < PER_LINE; i++) {
		u32 at = 3 * i + (i >= PER_LINE / 2); /* a gap in the middle */

		if (i < n)
			str_print(hex + at, sizeof(hex) - at, "%02x  ", byte[i]);
		else
			str_print(hex + at, sizeof(hex) - at, "    ");
		text[i] = i >= n ? 0 : byte[i] >= ' ' && byte[i] < 0x7f ? (char)byte[i] : '.';
	}
	text[n] = 0;
	mon_print("%012llx  %.49s %s\n", (ull)job->at, hex, text);
	job->at += n;
	job->left -= n;
	return job->left ? STEP_MORE : STEP_DONE;
}

bool look_mem(const struct words *w, struct job *job)
{
	job->left = MEM_SHOWN;
	if (w->count < 1 || w->count > 2 || !parse_number(w->word[0], true, &job->at) ||
	    (w->count == 2 && !parse_number(w->word[1], false, &job->left)))
		return false;
	/* Not beyond the last address. */
	if (job->at)
		job->left = MIN(job->left, -job->at);
	job->vm = command_vm();
	job->step = mem_step;
	return true;
}

/* --- walk ---------------------------------------------------------------------------------------
 */

static const char *size_name(u64 bytes)
{
	switch (bytes) {
	case PAGE_SIZE:
		return "4 KiB";
	case 4 * MIB:
		return "4 MiB";
	case SIZE_2M:
		return "2 MiB";
	}
	return "1 GiB";
}

/* Paging-structure entries have these bits in common (SDM tables 4-5 to 4-20). */
static void show_flags(u64 entry)
{
	static const struct {
		u8 bit;
		const char *name;
	} flags[] = {{0, "P"}, {1, "W"}, {2, "U"}, {5, "A"}, {6, "D"}, {7, "PS"}, {63, "NX"}};

	for (u32 i = 0; i < ARRAY_SIZE(flags); i++)
		if (entry >> flags[i].bit & 1)
			mon_print(" %s", flags[i].name);
	mon_print("\n");
}

static void show_walk(struct vm *vm, gva_t at)
{
	static const char *const names[WALK_LEVELS] = {"PML4E", "PDPTE", "PDE", "PTE"};
	const struct walk_state *s = &regs.walk;
	struct walk_step step[WALK_LEVELS];
	struct walk_result found;
	u32 count, top = s->efer & EFER_LMA ? 0 : 2;
	int result = walk_explain(vm, s, at, step, &count, &found);

	if (result < 0) {
		mon_print("a kind of paging that guests do not have\n");
		return;
	}
	if (!(s->cr0 & CR0_PG)) {
		mon_print("no paging: %llx is guest-physical\n", (ull)found.addr.v);
		return;
	}
	mon_print("CR3   %016llx\n", (ull)s->cr3);
	if ((s->cr4 & CR4_PAE) && top) {
		mon_print("PDPTE %016llx in the processor:", (ull)s->pdpte[at.v >> 30 & 3]);
		show_flags(s->pdpte[at.v >> 30 & 3]);
	}
	for (u32 i = 0; i < count; i++) {
		mon_print("%-5s %016llx at %012llx:", names[(top + i) % WALK_LEVELS],
			  (ull)step[i].value, (ull)step[i].at.v);
		show_flags(step[i].value);
	}
	if (result == WALK_OK)
		mon_print("GPA   %016llx, in a page of %s\n", (ull)found.addr.v,
			  size_name(found.page_bytes));
	else
		mon_print("%s: error code %x\n",
			  found.error_code & PF_RSVD ? "a reserved bit is set" : "not present",
			  found.error_code);
}

static enum step walk_step(struct job *job)
{
	enum step result;
	bool got;

	result = get_regs(job, &regs, &got);
	if (got)
		show_walk(vms[job->vm], gva(job->at));
	return result;
}

bool look_walk(const struct words *w, struct job *job)
{
	if (w->count < 1 || w->count > 2 || !parse_number(w->word[0], true, &job->at) ||
	    (w->count == 2 && !read_vcpu(w->word[1], job)))
		return false;
	job->vm = command_vm();
	job->step = walk_step;
	return true;
}

/* --- ept ----------------------------------------------------------------------------------------
 */

static void show_perms(u64 perms)
{
	mon_print("%c%c%c", perms & EPT_R ? 'r' : '-', perms & EPT_W ? 'w' : '-',
		  perms & EPT_X ? 'x' : '-');
}

static void show_leaf(const char *name, struct ept_view *view, gpa_t at)
{
	static const char *const types[8] = {"UC", "WC", "?", "?", "WT", "WP", "WB", "?"};
	struct ept_leaf leaf;

	mon_print("%s view: ", name);
	if (ept_lookup(view, at, &leaf)) {
		mon_print("not mapped\n");
		return;
	}
	show_perms(leaf.perms);
	mon_print(", page of %s, %s%s%s, at host address %llx\n", size_name(BIT64(leaf.shift)),
		  types[leaf.type & 7], leaf.accessed ? ", accessed" : "",
		  leaf.dirty ? ", dirty" : "", (ull)leaf.frame.v);
}

static enum step ept_step(struct job *job)
{
	struct vm *vm = job_vm(job);
	const struct region *region;
	u64 perms;

	if (!vm)
		return STEP_DONE;
	region = space_find(&vm->space, gpa(job->at));
	mon_print("%012llx  %s", (ull)job->at, kind_of(region));
	if (region)
		mon_print(" from %llx to %llx", (ull)region->base.v,
			  (ull)(region->base.v + region->bytes - 1));
	if (region && region->kind == REGION_RAM) {
		spin_lock(&vm->space.lock);
		perms = space_perms(&vm->space, gpa(job->at));
		spin_unlock(&vm->space.lock);
		mon_print(", allowed: ");
		show_perms(perms);
	}
	mon_print("\n");
	show_leaf("default", &vm->space.view, gpa(job->at));
	return STEP_DONE;
}

bool look_ept(const struct words *w, struct job *job)
{
	if (w->count != 1 || !parse_number(w->word[0], true, &job->at))
		return false;
	/* A guest-physical address has at most 52 bits, EPT here 48. */
	if (job->at >> 48) {
		mon_print("addresses end at ffffffffffff\n");
		return true;
	}
	job->vm = command_vm();
	job->step = ept_step;
	return true;
}
