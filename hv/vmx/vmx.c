/* VMX operation of each CPU and the VMX instructions that are not in the entry path. */
#include "vmx/vmx.h"

#include "lib/log.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "vmx/entry_check.h"
#include "mem/frame.h"
#include "x86/asm.h"
#include "x86/cpu.h"
#include "x86/fpu.h"
#include "x86/regs.h"

struct vmx_caps vmx_caps;
struct vmx_controls vmx_controls;
u64 vmx_features;
u8 vmx_timer_shift;

static hpa_t vmxon_region[MAX_CPUS];

/* The operand of INVEPT and INVVPID (SDM 3C chapter 31). */
struct inv_descriptor {
	u64 first, second;
};
_Static_assert(sizeof(struct inv_descriptor) == 16, "INVEPT/INVVPID descriptor");

enum {
	INVEPT_SINGLE = 1,
	INVEPT_ALL = 2,
	INVVPID_SINGLE = 1,
	INVVPID_ALL = 2
};

static void report_problem(void *ctx, const char *text)
{
	log_error("vmx: %s", text);
}

/* Features that are advertised and do not work, as a bit set: each is tried once here. */
static u64 broken_features(void)
{
	u64 bytes = xsave_try_bytes();
	u8 *scratch = heap_alloc(bytes);

	if (!scratch)
		panic("no memory for the start-up tests");
	xsave_try(scratch);
	heap_free(scratch, bytes);
	return xsave_instructions() & BIT(3) ? 0 : BIT64(FEAT_XSAVES);
}

void vmx_init(u64 hide)
{
	char names[256];
	size_t len = 0;

	caps_read(&vmx_caps);
	if (caps_check(&vmx_caps, report_problem, NULL))
		panic("this processor lacks what Umbra requires; the loader should have said so");
	vmx_features = caps_features(&vmx_caps, hide | broken_features());
	caps_controls(&vmx_caps, vmx_features, &vmx_controls);
	vmx_timer_shift = vmx_caps.misc & 31;
	names[0] = 0;
	for (u32 f = 0; f < FEAT_COUNT; f++)
		if (vmx_has(f) && len < sizeof(names))
			len += (size_t)str_print(names + len, sizeof(names) - len, " %s",
						 feature_name(f));
	log_info("vmx: optional features available:%s", len ? names : " none");
}

static void enable_feature_control(void)
{
	u64 control = rdmsr(MSR_FEATURE_CONTROL);

	if (control & FEATURE_CONTROL_LOCKED) {
		if (!(control & FEATURE_CONTROL_VMX_NON_SMX))
			panic("VMX is locked off by the firmware on this CPU");
		return;
	}
	wrmsr(MSR_FEATURE_CONTROL, control | FEATURE_CONTROL_VMX_NON_SMX | FEATURE_CONTROL_LOCKED);
}

int vmx_alloc_vmcs(hpa_t *out)
{
	int err = frame_alloc_page(FRAME_HV, out);

	if (!err)
		*(u32 *)phys_to_ptr(*out) = (u32)vmx_caps.basic & 0x7fffffff;
	return err;
}

static bool vmxon(hpa_t region)
{
	bool failed;

	asm volatile("vmxon %1" : "=@ccbe"(failed) : "m"(region.v) : "memory");
	return !failed;
}

void vmx_cpu_init(void)
{
	struct vmx_caps caps;
	const char *difference;
	u32 cpu = this_cpu()->index;

	caps_read(&caps);
	difference = caps_differ(&vmx_caps, &caps);
	if (difference)
		panic("the processors differ: %s", difference);
	enable_feature_control();
	/* VMXON faults unless CR0 and CR4 obey the fixed bits (SDM 24.8); firmware may leave NE 0.
	 */
	write_cr0((read_cr0() | vmx_caps.cr0_fixed0) & vmx_caps.cr0_fixed1);
	write_cr4((read_cr4() | vmx_caps.cr4_fixed0 | CR4_VMXE) & vmx_caps.cr4_fixed1);
	if (vmx_alloc_vmcs(&vmxon_region[cpu]))
		panic("no memory for the VMXON region");
	if (!vmxon(vmxon_region[cpu]))
		panic("VMXON failed");
	vmx_invept_all();
	vmx_invvpid_all();
}

void vmx_cpu_exit(void)
{
	asm volatile("vmxoff" : : : "cc", "memory");
	write_cr4(read_cr4() & ~CR4_VMXE);
}

void vmcs_clear(hpa_t vmcs)
{
	bool failed;

	asm volatile("vmclear %1" : "=@ccbe"(failed) : "m"(vmcs.v) : "memory");
	if (failed)
		panic("VMCLEAR %#llx failed", (unsigned long long)vmcs.v);
}

void vmcs_load(hpa_t vmcs)
{
	bool failed;

	asm volatile("vmptrld %1" : "=@ccbe"(failed) : "m"(vmcs.v) : "memory");
	if (failed)
		panic("VMPTRLD %#llx failed", (unsigned long long)vmcs.v);
}

__noreturn void vmcs_access_failed(u32 field, bool write)
{
	panic("%s of %s (%#x) failed", write ? "VMWRITE" : "VMREAD", vmcs_field_name(field), field);
}

static void invept(u64 type, u64 eptp)
{
	struct inv_descriptor d = {eptp, 0};
	bool failed;

	asm volatile("invept %1, %2" : "=@ccbe"(failed) : "m"(d), "r"(type) : "memory");
	if (failed)
		panic("INVEPT type %llu of %#llx failed", (unsigned long long)type,
		      (unsigned long long)eptp);
}

static void invvpid(u64 type, u16 vpid)
{
	struct inv_descriptor d = {vpid, 0};
	bool failed;

	asm volatile("invvpid %1, %2" : "=@ccbe"(failed) : "m"(d), "r"(type) : "memory");
	if (failed)
		panic("INVVPID type %llu of %u failed", (unsigned long long)type, vpid);
}

void vmx_invept_single(u64 eptp)
{
	invept(INVEPT_SINGLE, eptp);
}

void vmx_invept_all(void)
{
	invept(INVEPT_ALL, 0);
}

void vmx_invvpid_single(u16 vpid)
{
	invvpid(INVVPID_SINGLE, vpid);
}

void vmx_invvpid_all(void)
{
	invvpid(INVVPID_ALL, 0);
}
