/*
 * INS and OUTS. SDM 2A/2B INS, OUTS; 3C table 28-5 (exit qualification), table 28-9 (instruction
 * information), 26.1.1: the exit comes before the checks of the memory operand's segment, its
 * alignment and its pages, so all of these are made here.
 */
#include "vm/away.h"
#include "vm/internal.h"
#include "vm/linear.h"
#include "x86/regs.h"

/* At most so many iterations in one exit: interrupts, other vCPUs and the VM's end get their turn.
 */
#define STRING_IO_MAX 64

#define QUAL_IN	 BIT(3)
#define QUAL_REP BIT(5)

#define VMX_BASIC_IO_INFO BIT64(54) /* instruction information is valid for INS and OUTS */

#define AR_CODE_64  BIT(13)
#define AR_BIG	    BIT(14) /* D or B */
#define AR_UNUSABLE BIT(16)
#define AR_CODE	    BIT(3)
#define AR_DOWN	    BIT(2) /* data: expand-down */
#define AR_WRITABLE BIT(1) /* data; code: readable */

enum segment {
	SEG_ES,
	SEG_CS,
	SEG_SS,
	SEG_DS,
	SEG_FS,
	SEG_GS
};

struct string_io {
	struct vcpu *vcpu;
	struct walk_state state;
	bool in, rep;
	bool mode_64, real; /* real: segments without access rights (real and virtual-8086 mode) */
	u32 size;
	u16 port;
	enum gpr index;
	u64 mask; /* of the address size */
	enum segment segment;
	u64 base;
	u32 limit, ar;
};

static u64 mask_of(unsigned int address_size)
{
	static const u64 masks[] = {0xffff, 0xffffffff, ~0ull};

	return masks[MIN(address_size, 2u)];
}

/*
 * Processors without VMX_BASIC[54] do not say what the prefixes were: look at them. If the bytes
 * cannot be read (any more), it is as if there were none.
 */
static void decode_prefixes(struct string_io *io, u32 cs_ar)
{
	unsigned int size = io->mode_64 ? 2 : cs_ar & AR_BIG ? 1 : 0;
	u64 rip = vmcs_read(VMCS_GUEST_RIP) + vmcs_read(VMCS_GUEST_CS_BASE);
	u32 length = MIN((u32)vmcs_read(VMCS_EXIT_INSTR_LEN), 15u);
	struct guest_fault fault;
	u8 bytes[15];
	int result;

	io->mask = mask_of(size);
	/* What follows the decoding may not be done twice. */
	remote_insist(true);
	result = !length ||
		 guest_linear_read(io->vcpu, gva(rip), bytes, length,
				   WALK_FETCH | (io->mode_64 ? 0 : GUEST_WRAP_32), &fault);
	remote_insist(false);
	if (result)
		return;
	for (u32 i = 0; i < length; i++) {
		switch (bytes[i]) {
		case 0x26:
			io->segment = SEG_ES;
			break;
		case 0x2e:
			io->segment = SEG_CS;
			break;
		case 0x36:
			io->segment = SEG_SS;
			break;
		case 0x3e:
			io->segment = SEG_DS;
			break;
		case 0x64:
			io->segment = SEG_FS;
			break;
		case 0x65:
			io->segment = SEG_GS;
			break;
		case 0x67:
			io->mask = mask_of(size == 1 ? 0 : 1);
			break;
		}
	}
}

static void load(struct string_io *io, struct vcpu *vcpu, u64 qualification)
{
	u32 cs_ar = (u32)vmcs_read(VMCS_GUEST_CS_AR);

	io->vcpu = vcpu;
	walk_state_load(vcpu, &io->state);
	io->in = qualification & QUAL_IN;
	io->rep = qualification & QUAL_REP;
	io->size = (qualification & 7) + 1;
	io->port = (u16)(qualification >> 16);
	io->index = io->in ? RDI : RSI;
	io->real = !(io->state.cr0 & CR0_PE) || (io->state.rflags & RFLAGS_VM);
	io->mode_64 = (io->state.efer & EFER_LMA) && (cs_ar & AR_CODE_64);
	io->segment = SEG_DS;
	if (vmx_caps.basic & VMX_BASIC_IO_INFO) {
		u32 info = (u32)vmcs_read(VMCS_EXIT_INSTR_INFO);

		io->mask = mask_of(info >> 7 & 7);
		io->segment = (enum segment)(info >> 15 & 7);
	} else {
		decode_prefixes(io, cs_ar);
	}
	if (io->in || io->segment > SEG_GS)
		io->segment = io->in ? SEG_ES : SEG_DS;
	io->base = vmcs_read(VMCS_GUEST_ES_BASE + 2 * io->segment);
	io->limit = (u32)vmcs_read(VMCS_GUEST_ES_LIMIT + 2 * io->segment);
	io->ar = (u32)vmcs_read(VMCS_GUEST_ES_AR + 2 * io->segment);
	if (io->mode_64 && io->segment < SEG_FS)
		io->base = 0;
}

/* The operand lies within the segment (SDM 3A 5.3). */
static bool within_limit(const struct string_io *io, u64 offset)
{
	u64 last = offset + io->size - 1;

	if (!io->real && (io->ar & (AR_CODE | AR_DOWN)) == AR_DOWN)
		return offset > io->limit && last <= (io->ar & AR_BIG ? 0xffffffff : 0xffff);
	return last <= io->limit;
}

/* Access rights allow this access (SDM 3A 5.5). */
static bool segment_allows(const struct string_io *io)
{
	if (io->real)
		return true;
	if (io->ar & AR_UNUSABLE)
		return false;
	if (io->in)
		return (io->ar & (AR_CODE | AR_WRITABLE)) == AR_WRITABLE;
	return !(io->ar & AR_CODE) || (io->ar & AR_WRITABLE);
}

/* Everything that may fault for the operand at `offset`, before the port is touched. */
static int check_operand(struct string_io *io, u64 offset, struct guest_range *range,
			 struct guest_fault *fault)
{
	unsigned int access = io->in ? WALK_WRITE : WALK_READ;
	u64 linear = io->base + offset;

	if (!io->mode_64 && (!segment_allows(io) || !within_limit(io, offset))) {
		*fault = (struct guest_fault){
			.vector = io->segment == SEG_SS ? VEC_SS : VEC_GP,
			.has_error = true,
		};
		return WALK_FAULT;
	}
	if (io->state.cpl == 3 && (io->state.cr0 & CR0_AM) && (io->state.rflags & RFLAGS_AC) &&
	    (linear & (io->size - 1))) {
		*fault = (struct guest_fault){.vector = VEC_AC, .has_error = true};
		return WALK_FAULT;
	}
	if (!io->mode_64)
		access |= GUEST_WRAP_32;
	return guest_range_walk(io->vcpu, &io->state, gva(linear), io->size, access, range, fault);
}

static void transfer(struct string_io *io, const struct guest_range *range)
{
	u32 value = 0;

	if (io->in) {
		value = platform_port_in(io->vcpu, io->port, io->size);
		guest_range_write(io->vcpu, range, &value);
	} else {
		guest_range_read(io->vcpu, range, &value);
		platform_port_out(io->vcpu, io->port, io->size, value);
	}
}

/* Writes a register with the address size: 32 bits zero the upper half, 16 bits leave the rest. */
static void set_gpr(struct string_io *io, enum gpr reg, u64 value)
{
	u64 *gpr = &io->vcpu->gpr[reg];

	*gpr = io->mask == 0xffff ? (*gpr & ~0xffffull) | (value & 0xffff) : value & io->mask;
}

void exit_string_io(struct vcpu *vcpu, u64 qualification)
{
	struct string_io io;
	u64 step, count = 1;
	u32 max;

	load(&io, vcpu, qualification);
	step = io.state.rflags & RFLAGS_DF ? -(u64)io.size : io.size;
	if (io.rep)
		count = vcpu->gpr[RCX] & io.mask;
	/* A debug trap may follow each iteration. */
	max = (io.state.rflags & RFLAGS_TF) || vcpu->io_breakpoints ? 1 : STRING_IO_MAX;
	for (u32 i = 0; count && i < max; i++) {
		u64 offset = vcpu->gpr[io.index] & io.mask;
		struct guest_range range;
		struct guest_fault fault;
		int result = check_operand(&io, offset, &range, &fault);

		if (result == WALK_FAULT)
			guest_fault_inject(vcpu, &fault);
		else if (result < 0)
			vcpu_fatal(vcpu, "string I/O on port %#x: paging mode not supported",
				   io.port);
		if (result)
			return;
		transfer(&io, &range);
		if (unlikely(vcpu->io_breakpoints))
			vcpu_match_io_breakpoints(vcpu, io.port, io.size);
		set_gpr(&io, io.index, offset + step);
		count--;
		if (io.rep)
			set_gpr(&io, RCX, count);
		if (vcpu->requests & REQ_STOP)
			break;
	}
	/* Unfinished: RIP stays, and the guest comes back here after what is pending. */
	if (count)
		vcpu_skip_bytes(vcpu, 0);
	else
		vcpu_skip(vcpu);
}
