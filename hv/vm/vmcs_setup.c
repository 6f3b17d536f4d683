/*
 * The VMCS of a vCPU, in one place: host state, controls, guest state; then the architectural
 * states a vCPU can start from. SDM 3C chapter 25.
 */
#include "lib/string.h"
#include "vm/internal.h"
#include "x86/asm.h"
#include "x86/cpu.h"
#include "x86/regs.h"

extern const char vmx_exit[]; /* entry.S */

/* Access rights in the VMX format (SDM table 25-2). */
#define AR_CODE16   0x009b
#define AR_DATA16   0x0093
#define AR_CODE32   0xc09b
#define AR_CODE64   0xa09b
#define AR_DATA32   0xc093
#define AR_LDT	    0x0082
#define AR_TSS32    0x008b
#define AR_UNUSABLE 0x10000

static void setup_host_state(void)
{
	const struct cpu *cpu = this_cpu();

	vmcs_write(VMCS_HOST_CR0, read_cr0());
	vmcs_write(VMCS_HOST_CR3, read_cr3());
	vmcs_write(VMCS_HOST_CR4, read_cr4());
	vmcs_write(VMCS_HOST_CS, SEL_CODE);
	vmcs_write(VMCS_HOST_SS, SEL_DATA);
	vmcs_write(VMCS_HOST_DS, 0);
	vmcs_write(VMCS_HOST_ES, 0);
	vmcs_write(VMCS_HOST_FS, 0);
	vmcs_write(VMCS_HOST_GS, 0);
	vmcs_write(VMCS_HOST_TR, SEL_TSS);
	vmcs_write(VMCS_HOST_FS_BASE, 0);
	vmcs_write(VMCS_HOST_GS_BASE, (u64)cpu);
	vmcs_write(VMCS_HOST_TR_BASE, cpu->tss_base);
	vmcs_write(VMCS_HOST_GDTR_BASE, cpu->gdt_base);
	vmcs_write(VMCS_HOST_IDTR_BASE, cpu->idt_base);
	vmcs_write(VMCS_HOST_SYSENTER_CS, 0);
	vmcs_write(VMCS_HOST_SYSENTER_ESP, 0);
	vmcs_write(VMCS_HOST_SYSENTER_EIP, 0);
	vmcs_write(VMCS_HOST_EFER, rdmsr(MSR_EFER));
	vmcs_write(VMCS_HOST_PAT, rdmsr(MSR_PAT));
	vmcs_write(VMCS_HOST_RIP, (u64)vmx_exit);
}

static void setup_controls(struct vcpu *vcpu)
{
	const struct vm *vm = vcpu->vm;

	vcpu->pin = vmx_controls.pin;
	vcpu->proc = vmx_controls.proc;
	vcpu->proc2 = vmx_controls.proc2 &
		      ~(PROC2_APIC_ACCESS | PROC2_APIC_REGISTER | PROC2_VIRTUAL_INTERRUPT);
	vcpu->entry_controls = vmx_controls.entry & ~ENTRY_IA32E;
	vcpu->exception_bitmap = BIT(VEC_DB) | BIT(VEC_AC) | BIT(VEC_MC) | vm->config->intercept;
	if (vmx_has(FEAT_POSTED)) {
		vmcs_write(VMCS_POSTED_INT_VECTOR, VECTOR_POSTED);
		vmcs_write(VMCS_POSTED_INT_DESC, ptr_to_phys(vcpu->posted).v);
	}
	vmcs_write(VMCS_PIN_CONTROLS, vcpu->pin);
	vmcs_write(VMCS_PROC_CONTROLS, vcpu->proc);
	vmcs_write(VMCS_PROC2_CONTROLS, vcpu->proc2);
	vmcs_write(VMCS_EXIT_CONTROLS, vmx_controls.exit);
	vmcs_write(VMCS_ENTRY_CONTROLS, vcpu->entry_controls);
	vmcs_write(VMCS_EXCEPTION_BITMAP, vcpu->exception_bitmap);
	/* All page faults exit if the bitmap asks for any: mask 0, match 0 (SDM 25.6.3). */
	vmcs_write(VMCS_PF_ERROR_MASK, 0);
	vmcs_write(VMCS_PF_ERROR_MATCH, 0);
	vmcs_write(VMCS_CR3_TARGET_COUNT, 0);
	vmcs_write(VMCS_EXIT_MSR_STORE_COUNT, 0);
	vmcs_write(VMCS_EXIT_MSR_LOAD_COUNT, 0);
	vmcs_write(VMCS_ENTRY_MSR_LOAD_COUNT, 0);
	vmcs_write(VMCS_ENTRY_INTR_INFO, 0);
	vmcs_write(VMCS_ENTRY_ERROR_CODE, 0);
	vmcs_write(VMCS_ENTRY_INSTR_LEN, 0);
	vmcs_write(VMCS_TPR_THRESHOLD, 0);
	vmcs_write(VMCS_IO_BITMAP_A, vm->io_bitmap.v);
	vmcs_write(VMCS_IO_BITMAP_B, vm->io_bitmap.v + PAGE_SIZE);
	vmcs_write(VMCS_MSR_BITMAP, vcpu->msr_bitmap.v);
	vmcs_write(VMCS_VIRTUAL_APIC, vcpu->vapic_phys.v);
	vmcs_write(VMCS_TSC_OFFSET, vcpu->tsc_offset);
	vmcs_write(VMCS_EPTP, vcpu->view->eptp);
	/* VPID 0 is the hypervisor's own. */
	vmcs_write(VMCS_VPID, vm->id * BOOT_MAX_VCPUS + vcpu->index + 1);
	vmcs_write(VMCS_LINK_POINTER, ~0ull);
	vmcs_write(VMCS_PREEMPTION_TIMER, 0);
	if (vmx_controls.proc2 & PROC2_XSAVES)
		vmcs_write(VMCS_XSS_EXIT_BITMAP, ~0ull);
	if (vmx_controls.proc2 & PROC2_TSC_SCALING)
		vmcs_write(VMCS_TSC_MULTIPLIER, BIT64(48)); /* 1.0 (SDM 25.6.5) */
	if (vmx_controls.proc2 & PROC2_APIC_ACCESS)
		vmcs_write(VMCS_APIC_ACCESS, vm->apic_access.v);
	if (vmx_controls.proc2 & PROC2_VIRTUAL_INTERRUPT) {
		vmcs_write(VMCS_EOI_EXIT_BITMAP0, 0);
		vmcs_write(VMCS_EOI_EXIT_BITMAP1, 0);
		vmcs_write(VMCS_EOI_EXIT_BITMAP2, 0);
		vmcs_write(VMCS_EOI_EXIT_BITMAP3, 0);
		vmcs_write(VMCS_GUEST_INTERRUPT_STATUS, 0);
	}
	vcpu->interrupt_status = 0;
}

void vmcs_setup(struct vcpu *vcpu)
{
	setup_host_state();
	vmcs_write(VMCS_HOST_RSP, (u64)&vcpu->gpr[16]);
	setup_controls(vcpu);
	vmcs_write(VMCS_CR0_MASK, CR0_NE | CR0_CD | CR0_NW);
	/* Bits that stay ours, and all that the CPUID policy hides: setting those must #GP. */
	vmcs_write(VMCS_CR4_MASK, CR4_VMXE | CR4_MCE | ~cpuid_cr4_allowed());
	vmcs_write(VMCS_GUEST_SMBASE, 0);
	vcpu_state_reset(vcpu, false);
	vcpu_apic_mode_changed(vcpu);
}

void vcpu_set_proc(struct vcpu *vcpu, u32 set, u32 clear)
{
	u32 value = (vcpu->proc & ~clear) | set;

	if (value != vcpu->proc) {
		vcpu->proc = value;
		vmcs_write(VMCS_PROC_CONTROLS, value);
	}
}

void vcpu_set_proc2(struct vcpu *vcpu, u32 set, u32 clear)
{
	u32 value = (vcpu->proc2 & ~clear) | set;

	if (value != vcpu->proc2) {
		vcpu->proc2 = value;
		vmcs_write(VMCS_PROC2_CONTROLS, value);
	}
}

void vcpu_set_posted(struct vcpu *vcpu, bool on)
{
	u32 value = (vcpu->pin & ~(u32)PIN_POSTED_INTERRUPTS) | (on ? PIN_POSTED_INTERRUPTS : 0);

	if (value != vcpu->pin) {
		__atomic_store_n(&vcpu->pin, value, __ATOMIC_RELAXED);
		vmcs_write(VMCS_PIN_CONTROLS, value);
	}
}

/* Fields of one segment register lie at the same distance in every group of the VMCS. */
static void set_segment(unsigned int index, u16 selector, u64 base, u32 limit, u32 ar)
{
	vmcs_write((enum vmcs_field)(VMCS_GUEST_ES + 2 * index), selector);
	vmcs_write((enum vmcs_field)(VMCS_GUEST_ES_BASE + 2 * index), base);
	vmcs_write((enum vmcs_field)(VMCS_GUEST_ES_LIMIT + 2 * index), limit);
	vmcs_write((enum vmcs_field)(VMCS_GUEST_ES_AR + 2 * index), ar);
}

enum {
	SEG_ES,
	SEG_CS,
	SEG_SS,
	SEG_DS,
	SEG_FS,
	SEG_GS,
	SEG_LDTR,
	SEG_TR
};

static void set_control_registers(struct vcpu *vcpu, u64 cr0)
{
	vmcs_write(VMCS_GUEST_CR0, (cr0 | CR0_NE) & ~(CR0_CD | CR0_NW));
	vmcs_write(VMCS_CR0_SHADOW, cr0);
	vmcs_write(VMCS_GUEST_CR3, 0);
	vmcs_write(VMCS_GUEST_CR4, CR4_VMXE | CR4_MCE);
	vmcs_write(VMCS_CR4_SHADOW, 0);
	vmcs_write(VMCS_GUEST_EFER, 0);
	vcpu->entry_controls &= ~ENTRY_IA32E;
	vmcs_write(VMCS_ENTRY_CONTROLS, vcpu->entry_controls);
}

void vcpu_state_reset(struct vcpu *vcpu, bool init)
{
	for (unsigned int s = SEG_ES; s <= SEG_GS; s++)
		set_segment(s, 0, 0, 0xffff, AR_DATA16);
	set_segment(SEG_CS, 0xf000, 0xffff0000, 0xffff, AR_CODE16);
	set_segment(SEG_LDTR, 0, 0, 0xffff, AR_LDT);
	set_segment(SEG_TR, 0, 0, 0xffff, AR_TSS32);
	vmcs_write(VMCS_GUEST_GDTR_BASE, 0);
	vmcs_write(VMCS_GUEST_GDTR_LIMIT, 0xffff);
	vmcs_write(VMCS_GUEST_IDTR_BASE, 0);
	vmcs_write(VMCS_GUEST_IDTR_LIMIT, 0xffff);
	/* INIT keeps CD and NW as they are (SDM table 9-1 note 2); ours always read as after reset.
	 */
	set_control_registers(vcpu, CR0_CD | CR0_NW | CR0_ET);
	vmcs_write(VMCS_GUEST_RIP, 0xfff0);
	vmcs_write(VMCS_GUEST_RSP, 0);
	vmcs_write(VMCS_GUEST_RFLAGS, RFLAGS_FIXED);
	vmcs_write(VMCS_GUEST_DR7, 0x400);
	vcpu->io_breakpoints = false;
	vmcs_write(VMCS_GUEST_PENDING_DEBUG, 0);
	vmcs_write(VMCS_GUEST_INTERRUPTIBILITY, 0);
	vmcs_write(VMCS_GUEST_ACTIVITY, ACTIVITY_ACTIVE);
	vmcs_write(VMCS_ENTRY_INTR_INFO, 0);
	memset(vcpu->gpr, 0, sizeof(vcpu->gpr));
	vcpu->gpr[RDX] = cpuid(1, 0).eax & 0xfffffff;
	vcpu->event = (struct event){0};
	vcpu->nmi_pending = false;
	write_dr0(0);
	write_dr1(0);
	write_dr2(0);
	write_dr3(0);
	write_dr6(0xffff0ff0);
	write_cr2(0);
	/*
	 * Paging went off without a MOV to CR0, and a restarted VM has its predecessor's VPID:
	 * nothing that was cached may be used, global translations included (SDM 29.4.3.3).
	 */
	vmx_invvpid_single((u16)vmcs_read(VMCS_VPID));
	if (init)
		return;
	/* What INIT leaves alone. */
	vmcs_write(VMCS_GUEST_PAT, 0x0007040600070406ull);
	vmcs_write(VMCS_GUEST_DEBUGCTL, 0);
	vmcs_write(VMCS_GUEST_SYSENTER_CS, 0);
	vmcs_write(VMCS_GUEST_SYSENTER_ESP, 0);
	vmcs_write(VMCS_GUEST_SYSENTER_EIP, 0);
}

void vcpu_state_sipi(struct vcpu *vcpu, u8 vector)
{
	set_segment(SEG_CS, (u16)(vector << 8), (u64)vector << 12, 0xffff, AR_CODE16);
	vmcs_write(VMCS_GUEST_RIP, 0);
}

void vcpu_state_bios(struct vcpu *vcpu)
{
	set_segment(SEG_CS, 0xf000, 0xf0000, 0xffff, AR_CODE16);
}

void vcpu_state_flat32(struct vcpu *vcpu, u32 eip, u32 eax, u32 ebx)
{
	for (unsigned int s = SEG_ES; s <= SEG_GS; s++)
		set_segment(s, 0x18, 0, 0xffffffff, AR_DATA32);
	set_segment(SEG_CS, 0x10, 0, 0xffffffff, AR_CODE32);
	set_segment(SEG_LDTR, 0, 0, 0, AR_UNUSABLE);
	set_segment(SEG_TR, 0, 0, 0x67, AR_TSS32);
	set_control_registers(vcpu, CR0_PE | CR0_ET);
	vmcs_write(VMCS_GUEST_RIP, eip);
	memset(vcpu->gpr, 0, sizeof(vcpu->gpr));
	vcpu->gpr[RAX] = eax;
	vcpu->gpr[RBX] = ebx;
}

void vcpu_state_long64(struct vcpu *vcpu, const struct start64 *s)
{
	vcpu_state_flat32(vcpu, 0, 0, 0);
	set_segment(SEG_CS, 0x10, 0, 0xffffffff, AR_CODE64);
	vmcs_write(VMCS_GUEST_GDTR_BASE, s->gdt_base);
	vmcs_write(VMCS_GUEST_GDTR_LIMIT, s->gdt_limit);
	vmcs_write(VMCS_GUEST_IDTR_LIMIT, 0);
	set_control_registers(vcpu, CR0_PG | CR0_PE | CR0_ET);
	vmcs_write(VMCS_GUEST_CR3, s->cr3);
	vmcs_write(VMCS_GUEST_CR4, CR4_VMXE | CR4_MCE | CR4_PAE);
	vmcs_write(VMCS_CR4_SHADOW, CR4_PAE);
	vmcs_write(VMCS_GUEST_EFER, EFER_LME | EFER_LMA);
	vcpu->entry_controls |= ENTRY_IA32E;
	vmcs_write(VMCS_ENTRY_CONTROLS, vcpu->entry_controls);
	vmcs_write(VMCS_GUEST_RIP, s->rip);
	vmcs_write(VMCS_GUEST_RSP, s->rsp);
	vcpu->gpr[RSI] = s->rsi;
}
