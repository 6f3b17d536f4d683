/* Memory of vCPUs, and the state that stays in the processor while one is current. */
#include "vm/vcpu.h"

#include "lib/string.h"
#include "mem/frame.h"
#include "vm/apf.h"
#include "vm/internal.h"
#include "x86/asm.h"
#include "x86/fpu.h"
#include "x86/regs.h"

struct vcpu *vcpu_create(struct vm *vm, u32 index, u32 cpu)
{
	struct vcpu *vcpu = heap_alloc(sizeof(*vcpu));

	if (!vcpu)
		return NULL;
	vcpu->vm = vm;
	vcpu->index = index;
	vcpu->cpu = cpu;
	vcpu->bsp = index == 0;
	vcpu->fresh = true;
	vcpu->state = vcpu->bsp ? VCPU_RUNNABLE : VCPU_WAIT_SIPI;
	vcpu->timer_deadline = ~0ull;
	vcpu->view = &vm->space.view;
	vcpu->xcr0 = 1;
	vcpu->dr6 = 0xffff0ff0;
	msr_reset(vcpu);
	vcpu->posted = heap_alloc(PAGE_SIZE);
	vcpu->vapic = heap_alloc(PAGE_SIZE);
	vcpu->xsave_area = heap_alloc(xsave_area_bytes());
	if (!vcpu->posted || !vcpu->vapic || !vcpu->xsave_area || mmio_vcpu_create(vcpu) ||
	    watch_create(vcpu) || vmx_alloc_vmcs(&vcpu->vmcs) ||
	    frame_alloc_page(FRAME_HV, &vcpu->msr_bitmap)) {
		vcpu_destroy(vcpu);
		return NULL;
	}
	vcpu->vapic_phys = ptr_to_phys(vcpu->vapic);
	xsave_init_area(vcpu->xsave_area);
	msr_bitmap_init(phys_to_ptr(vcpu->msr_bitmap));
	return vcpu;
}

void vcpu_destroy(struct vcpu *vcpu)
{
	watch_destroy(vcpu);
	mmio_vcpu_destroy(vcpu);
	if (vcpu->msr_bitmap.v)
		frame_free(FRAME_HV, vcpu->msr_bitmap, PAGE_SIZE);
	if (vcpu->vmcs.v)
		frame_free(FRAME_HV, vcpu->vmcs, PAGE_SIZE);
	if (vcpu->xsave_area)
		heap_free(vcpu->xsave_area, xsave_area_bytes());
	if (vcpu->vapic)
		heap_free(vcpu->vapic, PAGE_SIZE);
	if (vcpu->posted)
		heap_free(vcpu->posted, PAGE_SIZE);
	heap_free(vcpu, sizeof(*vcpu));
}

void vcpu_state_save(struct vcpu *vcpu)
{
	vcpu->dr[0] = read_dr0();
	vcpu->dr[1] = read_dr1();
	vcpu->dr[2] = read_dr2();
	vcpu->dr[3] = read_dr3();
	vcpu->dr6 = read_dr6();
	vcpu->cr2 = read_cr2();
	vcpu->star = rdmsr(MSR_STAR);
	vcpu->lstar = rdmsr(MSR_LSTAR);
	vcpu->cstar = rdmsr(MSR_CSTAR);
	vcpu->fmask = rdmsr(MSR_FMASK);
	vcpu->kernel_gs_base = rdmsr(MSR_KERNEL_GS_BASE);
	if (vmx_has(FEAT_RDTSCP))
		vcpu->tsc_aux = rdmsr(MSR_TSC_AUX);
	if (xsave_features())
		xsetbv(0, xsave_features());
	xsave_save(vcpu->xsave_area, xsave_features());
}

void vcpu_state_load(struct vcpu *vcpu)
{
	write_dr0(vcpu->dr[0]);
	write_dr1(vcpu->dr[1]);
	write_dr2(vcpu->dr[2]);
	write_dr3(vcpu->dr[3]);
	write_dr6(vcpu->dr6);
	write_cr2(vcpu->cr2);
	wrmsr(MSR_STAR, vcpu->star);
	wrmsr(MSR_LSTAR, vcpu->lstar);
	wrmsr(MSR_CSTAR, vcpu->cstar);
	wrmsr(MSR_FMASK, vcpu->fmask);
	wrmsr(MSR_KERNEL_GS_BASE, vcpu->kernel_gs_base);
	if (vmx_has(FEAT_RDTSCP))
		wrmsr(MSR_TSC_AUX, vcpu->tsc_aux);
	if (vmx_has(FEAT_WAITPKG))
		wrmsr(MSR_UMWAIT_CONTROL, vcpu->msr_umwait);
	/* All components first, whatever the guest has enabled: nothing of another vCPU remains. */
	if (xsave_features())
		xsetbv(0, xsave_features());
	xsave_restore(vcpu->xsave_area, xsave_features());
	if (xsave_features())
		xsetbv(0, vcpu->xcr0);
}

/* x2APIC registers (MSR - 0x800) that read as the page has them. Not the current count, and PPR is
 * kept up to date only with virtual-interrupt delivery.
 */
static bool x2apic_readable(u32 reg)
{
	return reg == 0x02 || reg == 0x03 || reg == 0x08 || reg == 0x0d || reg == 0x0f ||
	       (reg >= 0x10 && reg <= 0x28) || (reg >= 0x32 && reg <= 0x38) || reg == 0x3e;
}

/*
 * APIC-register virtualization and virtual-interrupt delivery follow the guest's APIC mode. The
 * processor delivers (virtualized self-IPIs too) without a look at SVR: a software-disabled APIC is
 * emulated.
 */
void vcpu_apic_mode_changed(struct vcpu *vcpu)
{
	enum apic_mode mode = platform_apic_mode(vcpu);
	u8 *bitmap = phys_to_ptr(vcpu->msr_bitmap);
	bool x2apic =
		mode == APIC_MODE_X2APIC && vmx_has(FEAT_X2APIC_VIRT) && vmx_has(FEAT_APIC_REG);
	bool enabled = platform_apic_takes_fixed(vcpu);
	bool vid;
	u32 set = 0;

	if (sched_current() != vcpu)
		return;
	if (mode != APIC_MODE_XAPIC)
		space_unmap_apic(vcpu->vm);
	else if (vmx_has(FEAT_APIC_ACCESS) && vmx_has(FEAT_APIC_REG))
		set = PROC2_APIC_ACCESS | (enabled ? PROC2_APIC_REGISTER : 0);
	if (x2apic)
		set = PROC2_X2APIC | PROC2_APIC_REGISTER;
	vid = set && enabled && vmx_has(FEAT_VID);
	if (vid)
		set |= PROC2_VIRTUAL_INTERRUPT;
	/* Posted interrupts need virtual-interrupt delivery (SDM 27.2.1.1). */
	vcpu_set_posted(vcpu, vid && vmx_has(FEAT_POSTED));
	vcpu_set_proc2(vcpu, set,
		       PROC2_APIC_ACCESS | PROC2_X2APIC | PROC2_APIC_REGISTER |
			       PROC2_VIRTUAL_INTERRUPT);
	/* Reads of x2APIC registers that have no side effect; TPR, EOI and self-IPI writes. */
	for (u32 msr = MSR_X2APIC_FIRST; msr <= MSR_X2APIC_LAST; msr++)
		msr_bitmap_refuse(bitmap, msr, true, true);
	if (x2apic) {
		for (u32 reg = 0x02; reg <= 0x3e; reg++)
			if (x2apic_readable(reg))
				msr_bitmap_allow(bitmap, MSR_X2APIC_FIRST + reg, true, false);
		msr_bitmap_allow(bitmap, MSR_X2APIC_FIRST + 0x08, true, true);
		if (vid) {
			msr_bitmap_allow(bitmap, MSR_X2APIC_FIRST + 0x0a, true, false);
			msr_bitmap_allow(bitmap, MSR_X2APIC_FIRST + 0x0b, false, true);
			msr_bitmap_allow(bitmap, MSR_X2APIC_FIRST + 0x3f, false, true);
		}
	}
	vcpu->tpr_threshold = 0;
	vmcs_write(VMCS_TPR_THRESHOLD, 0);
	vcpu_request(vcpu, REQ_IRQ | REQ_EOI_MAP);
	apf_apic_changed(vcpu);
}
