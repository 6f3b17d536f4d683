/*
 * Debug registers. They are the guest's own while it is current; only MOV DR exits, so that it is
 * known whether DR7 holds I/O breakpoints, which the processor cannot match where an I/O
 * instruction is emulated. SDM 3B 18.2.
 */
#include "vm/internal.h"
#include "x86/asm.h"
#include "x86/regs.h"

#define DR6_ONES  0xffff0ff0ull
#define DR6_BITS  0x0000e00full
#define DR7_ONES  0x00000400ull
#define DR7_BITS  0xffff23ffull
#define DR7_RW_IO 2
#define DR6_BD	  BIT64(13)
#define DR7_GD	  BIT64(13)

/* Pending debug exceptions (SDM table 25-4). */
#define PENDING_ENABLED BIT64(12)

static u64 read_dr(unsigned int dr)
{
	switch (dr) {
	case 0:
		return read_dr0();
	case 1:
		return read_dr1();
	case 2:
		return read_dr2();
	case 3:
		return read_dr3();
	case 4: /* aliases: with CR4.DE the processor has raised #UD */
	case 6:
		return read_dr6();
	default:
		return vmcs_read(VMCS_GUEST_DR7);
	}
}

static bool has_io_breakpoint(u64 dr7)
{
	for (unsigned int i = 0; i < 4; i++)
		if ((dr7 >> (2 * i) & 3) && (dr7 >> (16 + 4 * i) & 3) == DR7_RW_IO)
			return true;
	return false;
}

static void write_dr(struct vcpu *vcpu, unsigned int dr, u64 value)
{
	switch (dr) {
	case 0:
		write_dr0(value);
		break;
	case 1:
		write_dr1(value);
		break;
	case 2:
		write_dr2(value);
		break;
	case 3:
		write_dr3(value);
		break;
	case 4:
	case 6:
		write_dr6((value & DR6_BITS) | DR6_ONES);
		break;
	default:
		value = (value & DR7_BITS) | DR7_ONES;
		vmcs_write(VMCS_GUEST_DR7, value);
		vcpu->io_breakpoints = has_io_breakpoint(value);
		break;
	}
}

/* What comes before the access; the exit comes before all of these (SDM 26.1.3, MOV DR). */
static bool refused(struct vcpu *vcpu, unsigned int dr)
{
	u64 dr7 = vmcs_read(VMCS_GUEST_DR7);

	if ((dr == 4 || dr == 5) && (vmcs_read(VMCS_GUEST_CR4) & CR4_DE)) {
		vcpu_inject(vcpu, VEC_UD);
	} else if (!vcpu_cpl0(vcpu)) {
		vcpu_inject_error(vcpu, VEC_GP, 0);
	} else if (dr7 & DR7_GD) {
		write_dr6((read_dr6() & ~0xfull) | DR6_BD);
		vmcs_write(VMCS_GUEST_DR7, dr7 & ~DR7_GD);
		vcpu_inject(vcpu, VEC_DB);
	} else {
		return false;
	}
	return true;
}

void exit_mov_dr(struct vcpu *vcpu)
{
	/* Exit qualification for MOV DR (SDM table 28-4). */
	u64 q = vmcs_read(VMCS_EXIT_QUALIFICATION);
	unsigned int dr = q & 7, reg = q >> 8 & 15;
	bool wide = vmcs_read(VMCS_GUEST_CS_AR) & BIT(13);
	u64 value;

	if (refused(vcpu, dr))
		return;
	if (q & BIT(4)) {
		value = wide ? read_dr(dr) : (u32)read_dr(dr);
		if (reg == RSP)
			vmcs_write(VMCS_GUEST_RSP, value);
		else
			vcpu->gpr[reg] = value;
		vcpu_skip(vcpu);
		return;
	}
	value = reg == RSP ? vmcs_read(VMCS_GUEST_RSP) : vcpu->gpr[reg];
	if (!wide)
		value = (u32)value;
	if (dr >= 4 && value >> 32) {
		vcpu_inject_error(vcpu, VEC_GP, 0);
		return;
	}
	write_dr(vcpu, dr, value);
	vcpu_skip(vcpu);
}

void vcpu_match_io_breakpoints(struct vcpu *vcpu, u16 port, unsigned int size)
{
	static const u8 lengths[4] = {1, 2, 8, 4};
	u64 dr7 = vmcs_read(VMCS_GUEST_DR7);
	u64 hit = 0;

	if (!(vmcs_read(VMCS_GUEST_CR4) & CR4_DE))
		return;
	for (unsigned int i = 0; i < 4; i++) {
		u64 length = lengths[dr7 >> (18 + 4 * i) & 3];
		u64 base = read_dr(i) & ~(length - 1);

		if ((dr7 >> (2 * i) & 3) && (dr7 >> (16 + 4 * i) & 3) == DR7_RW_IO &&
		    base < port + size && port < base + length)
			hit |= BIT64(i);
	}
	if (!hit)
		return;
	vmcs_write(VMCS_GUEST_PENDING_DEBUG,
		   vmcs_read(VMCS_GUEST_PENDING_DEBUG) | hit | PENDING_ENABLED);
	vcpu->debug_pending = true;
}
