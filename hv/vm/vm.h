/*
 * A virtual machine, and the life of VMs.
 */
#pragma once

#include <umbra/boot_info.h>

#include "vm/memory.h"
#include "vm/report.h"
#include "vm/space.h"
#include "vm/vcpu.h"

struct platform;  /* dev/ */
struct vm_pmem;	  /* pmem/ */
struct vm_remote; /* remote/ */

enum vm_state {
	VM_FREE,
	VM_RUNNING,
	VM_ENDING
};

#define VM_STATUS_FAULT	 71  /* a VM that Umbra had to end */
#define VM_STATUS_KILLED 137 /* ended by the monitor: as a process by SIGKILL */

/* See vm/control.h. */
struct vm_pause {
	u32 on;	    /* atomic: no vCPU enters guest mode */
	u32 number; /* of pauses so far */
	u32 asked;  /* atomic: vCPUs that have not stopped yet */
	u64 since;  /* atomic: host TSC when the last one did */
};

struct vm {
	u32 id;	   /* index of its configuration */
	u32 state; /* enum vm_state; atomic */
	const struct boot_vm *config;
	u32 vcpu_count;
	struct vcpu *vcpu[BOOT_MAX_VCPUS];
	struct space space;
	struct spinlock dev_lock; /* the devices that vCPUs share */
	struct platform *platform;
	struct vm_pmem *pmem;	  /* NULL: no persistent memory */
	struct vm_remote *remote; /* NULL: all its memory is here */
	u32 live;		  /* atomic: vCPUs that have not yet stopped */
	u32 exit_status; /* as scripts/run reports it: (v << 1) | 1 for port 0xf4, 0 power-off */
	bool restart;	 /* come up again instead of ending */
	u32 restarts;
	struct vm_pause pause;
	struct report_cursor report;
	char reason[128];
	u32 logged_refusals; /* rate limit of the log */
	hpa_t io_bitmap;     /* A and B (SDM 25.6.4) */
	hpa_t apic_access;   /* the APIC-access page, where that is virtualized */
	u64 refused[64];     /* MSRs and ports whose refusal has been logged */
};

extern struct vm *vms[BOOT_MAX_VMS];
extern u32 vm_count;

/* Builds the VMs that the configuration asks for (BSP, all CPUs online). Bad images end only their
 * VM. */
void vm_start(const struct boot_info *boot);

/* Every CPU's life: VMXON, then run the vCPUs that belong here. */
__noreturn void vm_cpu_main(void);

/*
 * Ends the VM (the first caller's status and reason stay); its vCPUs stop at their next exit. From
 * any CPU. vm_restart: the same, and it comes up again from its image.
 */
void vm_end(struct vm *vm, u32 status, const char *fmt, ...) __format(3, 4);
void vm_restart(struct vm *vm, const char *why);

/* Ends every VM with status 0, starts no other one: the machine ends. No lock held. */
void vm_shut_down(const char *why);

/*
 * For a look at VMs from outside: between vms_hold() and vms_release() none is created or
 * destroyed, so that what belongs to one that is VM_RUNNING or VM_ENDING stays there. Short; no
 * lock held before. False: somebody is just doing that.
 */
bool vms_hold(void);
void vms_release(void);
/* What the configuration says of a VM, whether it has been started or not. */
const struct boot_vm *vm_config(u32 id);
/* While held: starts a VM that has ended once more. False: it has not, or cannot be started. */
bool vm_start_again(struct vm *vm);

/* Logs once per VM and key that something was refused (no guest can flood the log). */
void vm_log_refusal(struct vcpu *vcpu, const char *what, u64 key);
/* A 4-byte read of UMBRA_PORT (umbra/hypercall.h): what it returns. On the vCPU's CPU. */
u32 hypercall_by_port(struct vcpu *vcpu);
