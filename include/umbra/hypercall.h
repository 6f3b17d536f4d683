/*
 * The hypercall interface between a guest and Umbra, version 1.
 *
 * VMCALL from CPL 0 (any other CPL gets #UD, as if there were no hypervisor). RAX holds the number,
 * RBX, RCX, RDX and RSI the arguments; RAX returns 0 or a positive result, or a negative HC_E*.
 * No other register changes. In 32-bit code the lower halves are used and RAX is sign-extended to
 * 32 bits. Numbers that are not listed return HC_ENOSYS. A hypercall acts on the calling VM only.
 *
 * A guest finds Umbra by CPUID: leaf 1 ECX[31] is set and leaf 0x40000100 returns the signature
 * "UmbraUmbraHV" in EBX, ECX, EDX, EAX being the highest of Umbra's leaves.
 * Leaf 0x40000101: EAX = hypercall ABI version, EBX = VM id, ECX = vCPU index, EDX = vCPU count.
 * Leaf 0x40000110: EAX = TSC frequency in kHz, EBX = APIC timer input frequency in kHz.
 *
 * Leaf 0x40000000 has the signature of KVM, and leaf 0x40000001 EAX the features of KVM's that are
 * offered: that port 0x80 needs no delay; in VMs with remote memory and `async_pf = yes`
 * asynchronous page faults with their three MSRs, ready by interrupt (bits 4 and 14, not 10); and
 * nothing else (no clock, no other KVM MSRs; hypercalls are Umbra's). Linux takes x2APIC without
 * interrupt remapping only from a hypervisor that it knows. Software that looks for a hypervisor
 * goes through 0x40000000 to 0x4000ff00 in steps of 0x100, so that several can be offered.
 *
 * Included by assembly too: only #define outside the __ASSEMBLER__ guard.
 */
#pragma once

#define UMBRA_HYPERCALL_VERSION 1

#define UMBRA_CPUID_BASE   0x40000100
#define UMBRA_CPUID_INFO   0x40000101
#define UMBRA_CPUID_TIMING 0x40000110
#define UMBRA_CPUID_EBX	   0x72626d55 /* "Umbr" */
#define UMBRA_CPUID_ECX	   0x626d5561 /* "aUmb" */
#define UMBRA_CPUID_EDX	   0x56486172 /* "raHV" */

#define KVM_CPUID_BASE		 0x40000000
#define KVM_CPUID_FEATURES	 0x40000001
#define KVM_CPUID_EBX		 0x4b4d564b /* "KVMK" */
#define KVM_CPUID_ECX		 0x564b4d56 /* "VMKV" */
#define KVM_CPUID_EDX		 0x0000004d /* "M" */
#define KVM_FEATURE_NO_DELAYS	 0x2 /* EAX: an access to port 0x80 is no delay, and needless */
#define KVM_FEATURE_ASYNC_PF	 0x10
#define KVM_FEATURE_ASYNC_PF_INT 0x4000
#define KVM_MSR_ASYNC_PF_EN	 0x4b564d02
#define KVM_MSR_ASYNC_PF_INT	 0x4b564d06
#define KVM_MSR_ASYNC_PF_ACK	 0x4b564d07

#define HC_EPERM  (-1)
#define HC_EINVAL (-22)
#define HC_ENOSYS (-38)

/* HC_VERSION(): returns UMBRA_HYPERCALL_VERSION. */
#define HC_VERSION 0
/* HC_NOP(): returns 0; the cheapest round trip, for measuring. */
#define HC_NOP 1
/* HC_YIELD(): gives the CPU to the next vCPU that shares it. Returns 0. */
#define HC_YIELD 2
/*
 * HC_INJECT(info, error_code, length): deliver an event to the calling vCPU on this entry. `info`
 * has the layout of the VM-entry interruption-information field (SDM 25.8.3) without the valid
 * bit: vector 7:0, type 10:8 (0 external, 2 NMI, 3 hardware exception, 4 software interrupt, 5
 * privileged software exception, 6 software exception), 11 deliver error code. `length` (0-15) is
 * the instruction length for types 4 to 6, pushed RIP being that of the next instruction plus
 * length; both are ignored where the type has none. Combinations the SDM forbids return HC_EINVAL.
 * A test aid: it lets a guest see each injected form.
 */
#define HC_INJECT 3
/*
 * HC_STAT(what): returns a counter of the calling vCPU: HC_STAT_*; HC_EINVAL for others.
 * HC_STAT_EXIT + n (n a basic exit reason of SDM appendix C, 0 to 74) counts exits for reason n.
 */
#define HC_STAT		      4
#define HC_STAT_EXITS	      0
#define HC_STAT_INJECTIONS    1
#define HC_STAT_EPT_FAULTS    2
#define HC_STAT_INVALIDATIONS 3
#define HC_STAT_REFUSALS      4 /* CPUID, MSR and port accesses that the policy refused */
#define HC_STAT_EXIT	      0x100
/*
 * HC_PROTECT(gpa, bytes, perms): sets what the calling VM's default view allows on whole 4 KiB
 * pages of its RAM: perms bit 0 read, 1 write, 2 execute. An access that the view refuses then is
 * delivered to the guest as #PF at the faulting linear address, with bit 15 (HC_PF_EPT) of the
 * error code set. HC_EINVAL if the range is not RAM, not page-aligned, or perms is a combination
 * the processor does not offer (write without read; execute-only where not supported), or if bytes
 * is more than 64 MiB.
 */
#define HC_PROTECT 5
#define HC_PERM_R  1
#define HC_PERM_W  2
#define HC_PERM_X  4
#define HC_PF_EPT  0x8000
/*
 * HC_PAGE_SIZE(gpa): log2 of the EPT leaf that maps the page in the default view (12, 21 or 30), 0
 * if it is not mapped yet, HC_EINVAL outside RAM.
 */
#define HC_PAGE_SIZE 6
/*
 * HC_DISCARD(gpa, bytes): the guest gives whole 4 KiB pages of RAM back; they read as zero from
 * then on. At most 64 MiB. Used to test unmapping and shootdown.
 */
#define HC_DISCARD 7
/* HC_FEATURES(): returns the bit set of optional CPU features available (1 << enum feature). */
#define HC_FEATURES 8
/*
 * HC_PMEM(what, n, argument): the calling VM's persistent region n, from 0; HC_EINVAL if there is
 * none, or for another `what`. Modes of its hint page, HC_PMEM_MODE_*: mapped writable, nothing
 * happens; mapped through to the host's; writes trap. SET_MODE takes only modes that the medium
 * allows: any for a modelled one, which takes everything for flushed while its page is mapped
 * through, because it sees no store.
 *
 * What may lose data is for VMs with modelled regions and none of the host's. When power fails the
 * VM ends where it is; each line of 64 bytes that has been stored to since its controller was last
 * told to flush is found as it was then, or as it was stored since, by chance; and the VM starts
 * again, with its persistent regions and nothing else. CUT: at once (the call may return before its
 * CPU stops). CUT_WITHIN: at a moment within the next `argument` ticks of the TSC, wherever the
 * vCPUs are then; 0 ticks: not at all. It replaces the one before. n is a seed from which the
 * moment and what gets lost follow; with 0 the sequence goes on, which begins with `pmem_seed`.
 *
 * IMAGE: from now until the VM's next life, CUT_WITHIN does not end it: at that moment region
 * `argument`, as large as n and not in use, becomes what region n would be found as. n itself: no
 * longer so. IMAGES: how many have been made; IMAGE_TSC: the guest's TSC before the last one was
 * begun (argument 0: lower 32 bits, 1: upper) and after it was made (2, 3).
 */
#define HC_PMEM		    9
#define HC_PMEM_REGIONS	    0 /* how many there are; n is ignored */
#define HC_PMEM_MODE	    1
#define HC_PMEM_SET_MODE    2
#define HC_PMEM_CONTROLLERS 3 /* that need to be told to flush */
#define HC_PMEM_FLUSHES	    4 /* argument: controller: how often it was */
#define HC_PMEM_WRITES	    5 /* to the hint page that have trapped */
#define HC_PMEM_PENDING	    6 /* lines that are not on the modelled medium yet */
#define HC_PMEM_DRAIN	    7 /* some of these go there */
#define HC_PMEM_CUT	    8
#define HC_PMEM_KIND	    9 /* HC_PMEM_KIND_* */
#define HC_PMEM_CUT_WITHIN  10
#define HC_PMEM_IMAGE	    13
#define HC_PMEM_IMAGES	    14
#define HC_PMEM_IMAGE_TSC   15
#define HC_PMEM_CUTS	    11 /* failures of power since the machine was started; n is ignored */
#define HC_PMEM_CUT_RIP	    12 /* where the last CUT_WITHIN caught vCPU 0 or a neighbour; 0: asleep */
/*
 * For a region that is saved to a partition. POWER_LOSS (of the VM, n is ignored): the power supply
 * says that it is about to fail: the VM stops where it is, its saved regions are saved in the time
 * that is left (`pmem_power_loss_sectors`), all of their memory is lost, and it starts again with
 * what has been saved. (The call may return before its CPU stops.)
 */
#define HC_PMEM_POWER_LOSS    16
#define HC_PMEM_DIRTY	      17 /* pages that a save would have to write now */
#define HC_PMEM_BUDGET	      18 /* pages that DIRTY never exceeds */
#define HC_PMEM_MOST_DIRTY    19 /* the highest it has been */
#define HC_PMEM_GENERATION    20 /* number of the last complete save */
#define HC_PMEM_SAVE_STATE    21 /* the NVDIMM's state flags, as in the NFIT */
#define HC_PMEM_SAVED_SECTORS 22 /* what the last save wrote */
#define HC_PMEM_MODE_NONE     0
#define HC_PMEM_MODE_DIRECT   1
#define HC_PMEM_MODE_TRAP     2
#define HC_PMEM_KIND_HOST     1
#define HC_PMEM_KIND_RAM      2
#define HC_PMEM_KIND_MODEL    3
#define HC_COUNT	      10
/*
 * A program without CPL 0 that may use the port, root's of a Linux guest for example, reaches
 * HC_STAT and HC_PMEM by a 4-byte IN from it: registers as for VMCALL, but the third argument in
 * RSI, and EAX returns the lower half. All ones for other hypercalls.
 */
#define UMBRA_PORT 0x620
