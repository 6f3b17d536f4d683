/*
 * Binds the instruction emulator to a vCPU: its registers and segments from the VMCS, its memory
 * through its paging, RAM, devices and holes.
 */
#include "emu/emu.h"
#include "emu/emu_insn.h"
#include "emu/vector.h"
#include "lib/string.h"
#include "mem/frame.h"
#include "vm/linear.h"
#include "vm/memory.h"
#include "vm/platform.h"
#include "vm/space.h"
#include "vm/vm.h"
#include "vmx/vmx.h"
#include "x86/regs.h"

#define AR_CODE_64 BIT(13) /* CS.L (SDM table 25-2) */
#define AR_CODE_32 BIT(14) /* CS.D */

#define XCR0_AVX (BIT64(1) | BIT64(2))

#define CACHE_BYTES ALIGN_UP(sizeof(struct emu_cache), PAGE_SIZE)

_Static_assert((int)EMU_READ == (int)WALK_READ && (int)EMU_WRITE == (int)WALK_WRITE &&
		       (int)EMU_FETCH == (int)WALK_FETCH,
	       "kinds of access are passed on as they are");
_Static_assert((int)EMU_RAX == (int)RAX && (int)EMU_RSP == (int)RSP && (int)EMU_R15 == (int)R15,
	       "registers are copied as they are");

struct access {
	struct vcpu *vcpu;
	const struct ept_fault *fault;
	struct walk_state state;
	bool again; /* let the guest execute the instruction once more instead of failing */
};

int mmio_vcpu_create(struct vcpu *vcpu)
{
	vcpu->emu_cache = heap_alloc(CACHE_BYTES);
	return vcpu->emu_cache ? 0 : ERR_NOMEM;
}

void mmio_vcpu_destroy(struct vcpu *vcpu)
{
	if (vcpu->emu_cache)
		heap_free(vcpu->emu_cache, CACHE_BYTES);
	vcpu->emu_cache = NULL;
}

/* Segment fields of the VMCS are two apart, in the order of enum emu_seg. */
static enum vmcs_field of_segment(enum vmcs_field es, unsigned int seg)
{
	return (enum vmcs_field)((unsigned int)es + 2 * seg);
}

static int op_segment(void *ctx, unsigned int seg, struct emu_segment *out)
{
	out->base = vmcs_read(of_segment(VMCS_GUEST_ES_BASE, seg));
	out->limit = (u32)vmcs_read(of_segment(VMCS_GUEST_ES_LIMIT, seg));
	out->ar = (u32)vmcs_read(of_segment(VMCS_GUEST_ES_AR, seg));
	return 0;
}

/* The processor has translated this page for this kind of access already: that is why we are here.
 */
static bool translated_by_cpu(const struct ept_fault *fault, u64 linear, unsigned int access)
{
	unsigned int done = (fault->access & EPT_R ? EMU_READ : 0) | (fault->write ? EMU_WRITE : 0);

	return fault->linear_valid && !fault->walk && (access & ~done) == 0 &&
	       ((fault->linear.v ^ linear) & PAGE_MASK) == 0;
}

static int op_translate(void *ctx, u64 linear, unsigned int access, gpa_t *out,
			struct emu_exception *fault)
{
	struct access *a = ctx;
	struct guest_fault why;
	int result;

	if (translated_by_cpu(a->fault, linear, access)) {
		*out = gpa((a->fault->addr.v & PAGE_MASK) | (linear & ~PAGE_MASK));
		return EMU_TRANSLATE_OK;
	}
	result = guest_walk(a->vcpu, &a->state, gva(linear), access, out, &why);
	if (result == WALK_FAULT) {
		*fault = (struct emu_exception){why.vector, why.has_error, why.error_code,
						why.addr.v};
		return EMU_TRANSLATE_FAULT;
	}
	return result == WALK_RETRY ? EMU_TRANSLATE_RETRY : result;
}

static int op_fetch(void *ctx, gpa_t from, void *dst, unsigned int len)
{
	struct access *a = ctx;

	/* Code outside RAM: nothing that a guest could sensibly run. All ones are no instruction,
	 * so that it gets the #UD it would get from an empty bus. */
	if (guest_read(a->vcpu->vm, from, dst, len))
		memset(dst, 0xff, len);
	return 0;
}

static int op_read(void *ctx, gpa_t from, void *dst, unsigned int len)
{
	struct access *a = ctx;

	guest_phys_read(a->vcpu, from, dst, len);
	return 0;
}

static int op_write(void *ctx, gpa_t to, const void *src, unsigned int len)
{
	struct access *a = ctx;

	guest_phys_write(a->vcpu, to, src, len);
	return 0;
}

/* A locked operand of 1 to 8 bytes within one aligned 8-byte word of RAM. */
static int cmpxchg_in_word(struct vm *vm, gpa_t at, const void *expected, const void *desired,
			   unsigned int len)
{
	unsigned int offset = at.v & 7;
	gpa_t base = gpa(at.v & ~7ull);
	u8 old[8], new[8];
	u64 old_word, new_word;
	int error = guest_read(vm, base, old, 8);

	if (error)
		return error == ERR_AGAIN ? 1 : error;
	if (memcmp(old + offset, expected, len))
		return 1;
	memcpy(new, old, 8);
	memcpy(new + offset, desired, len);
	memcpy(&old_word, old, 8);
	memcpy(&new_word, new, 8);
	/* A neighbour in the word changing counts as a lost race too: the guest simply tries again.
	 */
	error = guest_cmpxchg(vm, base, 8, old_word, new_word);
	return error == ERR_BUSY || error == ERR_AGAIN ? 1 : error;
}

static int op_cmpxchg(void *ctx, gpa_t at, const void *expected, const void *desired,
		      unsigned int len)
{
	struct access *a = ctx;
	const struct region *region = space_find(&a->vcpu->vm->space, at);

	if (!region || !region_is_memory(region)) {
		guest_phys_write(a->vcpu, at, desired, len);
		return 0;
	}
	/*
	 * RAM here means that its mapping has come back since the exit. What does not fit the word
	 * operation (16 bytes, or a split lock) the guest can do itself by now.
	 */
	if ((at.v & 7) + len > 8)
		return 1;
	return cmpxchg_in_word(a->vcpu->vm, at, expected, desired, len);
}

/*
 * The processor checked that the instruction may use vector registers, but what was fetched may be
 * another one (another vCPU writes to the code). Then the guest executes that one itself.
 */
static bool vector_allowed(struct access *a, bool avx)
{
	if (a->state.cr0 & CR0_TS)
		a->again = true;
	if (avx && (a->vcpu->xcr0 & XCR0_AVX) != XCR0_AVX)
		a->again = true;
	return !a->again;
}

static int op_vector_read(void *ctx, unsigned int reg, void *dst, unsigned int len)
{
	if (!vector_allowed(ctx, len == 32))
		return ERR_BUSY;
	if (len == 32)
		vector_store32(reg, dst);
	else
		vector_store16(reg, dst);
	return 0;
}

static int op_vector_write(void *ctx, unsigned int reg, const void *src, unsigned int len, bool vex)
{
	if (!vector_allowed(ctx, vex))
		return ERR_BUSY;
	if (len == 32)
		vector_load32(reg, src);
	else if (vex)
		vector_load_vex16(reg, src);
	else
		vector_load16(reg, src);
	return 0;
}

/* Regions are whole pages. */
static bool op_inert(void *ctx, gpa_t at, unsigned int access)
{
	struct access *a = ctx;
	const struct region *region = space_find(&a->vcpu->vm->space, at);

	return !region || (access == EMU_READ && region_is_memory(region));
}

static const struct emu_ops ops = {
	.segment = op_segment,
	.translate = op_translate,
	.fetch = op_fetch,
	.read = op_read,
	.write = op_write,
	.cmpxchg = op_cmpxchg,
	.vector_read = op_vector_read,
	.vector_write = op_vector_write,
	.inert = op_inert,
};

static void load_cpu(struct access *a, struct emu_cpu *cpu)
{
	u32 cs = (u32)vmcs_read(VMCS_GUEST_CS_AR);

	walk_state_load(a->vcpu, &a->state);
	cpu->gpr = a->vcpu->gpr;
	cpu->gpr[EMU_RSP] = vmcs_read(VMCS_GUEST_RSP);
	cpu->rip = vmcs_read(VMCS_GUEST_RIP);
	cpu->rflags = a->state.rflags;
	cpu->cpl = a->state.cpl;
	cpu->real = !(a->state.cr0 & CR0_PE);
	cpu->linear_bits = 48;
	if ((a->state.efer & EFER_LMA) && (cs & AR_CODE_64))
		cpu->mode = EMU_MODE_64;
	else
		cpu->mode = cs & AR_CODE_32 ? EMU_MODE_32 : EMU_MODE_16;
}

static void store_cpu(struct access *a, const struct emu_cpu *cpu)
{
	vmcs_write(VMCS_GUEST_RSP, cpu->gpr[EMU_RSP]);
	if (cpu->rflags != a->state.rflags)
		vmcs_write(VMCS_GUEST_RFLAGS, cpu->rflags);
}

static void inject(struct vcpu *vcpu, const struct emu_exception *e)
{
	struct guest_fault fault = {e->vector, e->has_error, e->error, gva(e->cr2)};

	guest_fault_inject(vcpu, &fault);
}

/* Ends the VM, saying which instruction could not be emulated. */
static enum emulate_result give_up(const struct access *a, const struct emu_report *report,
				   const char *what)
{
	char text[2 * EMU_INSN_MAX + 1];
	static const char digits[] = "0123456789abcdef";
	unsigned int n = MIN(report->length, EMU_INSN_MAX);

	for (unsigned int i = 0; i < n; i++) {
		text[2 * i] = digits[report->bytes[i] >> 4];
		text[2 * i + 1] = digits[report->bytes[i] & 15];
	}
	text[2 * n] = '\0';
	vcpu_fatal(a->vcpu, "%s at guest-physical %#llx: instruction %s: %s", what,
		   (unsigned long long)a->fault->addr.v, text,
		   report->reason ? report->reason : "no reason given");
	return EMULATE_FATAL;
}

static bool in_window(const struct vm *vm, gpa_t at)
{
	const struct region *region = space_find(&vm->space, at);

	return region && region->kind == REGION_WINDOW;
}

#define PUSHF 0x9c

/* PUSHF would show the flags that a step has set: true if it was one, in 64-bit mode, and is done.
 */
static bool push_flags(struct access *a, struct emu_cpu *cpu, const struct emu_report *report)
{
	u64 value = cpu->rflags & ~(u64)(RFLAGS_RF | RFLAGS_VM);
	u32 size = 8, at = 0;

	if (report->length && report->bytes[0] == 0x66) {
		size = 2;
		at = 1;
	}
	if (at >= report->length || report->bytes[at] != PUSHF || cpu->mode != EMU_MODE_64 ||
	    cpu->gpr[EMU_RSP] - size != a->fault->linear.v || !a->fault->linear_valid ||
	    (a->fault->addr.v & ~PAGE_MASK) > PAGE_SIZE - size)
		return false;
	guest_phys_write(a->vcpu, a->fault->addr, &value, size);
	vmcs_write(VMCS_GUEST_RSP, cpu->gpr[EMU_RSP] - size);
	vcpu_skip_bytes(a->vcpu, at + 1);
	return true;
}

/* A store to a window by an instruction that is not emulated: the guest executes it there. */
static bool step_over(struct access *a, struct emu_cpu *cpu, const struct emu_report *report)
{
	return a->fault->write && !a->fault->walk && in_window(a->vcpu->vm, a->fault->addr) &&
	       (push_flags(a, cpu, report) ||
		pmem_window_step(a->vcpu, space_find(&a->vcpu->vm->space, a->fault->addr)->device));
}

enum emulate_result mmio_emulate(struct vcpu *vcpu, const struct ept_fault *fault)
{
	struct emu_report report;
	struct emu_cpu cpu;
	struct access a;
	u64 rip;

	a.vcpu = vcpu;
	a.fault = fault;
	a.again = false;
	load_cpu(&a, &cpu);
	rip = cpu.rip;
	switch (emu_step(&ops, &a, &cpu, vcpu->emu_cache, &report)) {
	case EMU_DONE:
		store_cpu(&a, &cpu);
		if (cpu.mode == EMU_MODE_64 && in_window(vcpu->vm, fault->addr))
			emu_remember(vcpu, &a.state, rip);
		vcpu_skip_bytes(vcpu, cpu.rip - rip);
		return EMULATE_DONE;
	case EMU_PARTIAL:
		/* RIP stays; with TF a debug trap is due after the iterations made so far. */
		store_cpu(&a, &cpu);
		vcpu_skip_bytes(vcpu, 0);
		return EMULATE_DONE;
	case EMU_RETRY:
		store_cpu(&a, &cpu);
		return EMULATE_DONE;
	case EMU_EXCEPTION:
		store_cpu(&a, &cpu);
		inject(vcpu, &report.exception);
		return EMULATE_DONE;
	case EMU_UNDECODABLE:
		/* The processor has decoded it, or it would not be here. */
		if (step_over(&a, &cpu, &report))
			return EMULATE_DONE;
		vcpu_inject(vcpu, VEC_UD);
		return EMULATE_DONE;
	case EMU_UNSUPPORTED:
		if (step_over(&a, &cpu, &report))
			return EMULATE_DONE;
		return give_up(&a, &report, "unsupported access to device memory");
	case EMU_FAILED:
		break;
	}
	if (a.again)
		return EMULATE_DONE;
	return give_up(&a, &report, "failed access to device memory");
}
