/*
 * What vm/ asks of the virtual platform; dev/ defines these functions (bound at link time), emu/
 * defines mmio_emulate(). A function with a vCPU runs on that vCPU's CPU, unless it says otherwise;
 * devices shared by vCPUs are guarded by vm->dev_lock, which dev/ takes itself.
 */
#pragma once

#include "lib/types.h"

struct vcpu;
struct vm;

/* Creation (any CPU, VM not running): allocate and reset all devices, add MMIO regions, allocate
 * vcpu->lapic using vcpu->vapic as register page, write the ACPI tables to guest memory. 0,
 * ERR_NOMEM, or ERR_NODEV: something of the host's that the configuration names is not to be had;
 * which has been logged. */
int platform_create(struct vm *vm);
void platform_destroy(struct vm *vm);
/* Guest-physical address of the ACPI RSDP; platform_create() has written the tables. */
u64 platform_rsdp(const struct vm *vm);
/* Presses the ACPI power button. Any CPU. */
void platform_power_button(struct vm *vm);

/* The local APIC after INIT (SDM 11.4.7.3: everything but the ID and APIC_BASE). */
void platform_vcpu_init(struct vcpu *vcpu);

/*
 * Ports: the complete policy. size 1, 2 or 4 bytes. Unknown ports read all ones and ignore writes;
 * the refusal is logged once. Multi-byte accesses to byte-wide devices are split as hardware does.
 * Bits of `value` above the size are ignored.
 */
u32 platform_port_in(struct vcpu *vcpu, u16 port, unsigned int size);
void platform_port_out(struct vcpu *vcpu, u16 port, unsigned int size, u32 value);

/* MMIO of region->device, size 1, 2, 4 or 8. False: the device does not answer (reads all ones). */
bool platform_mmio_read(struct vcpu *vcpu, u32 device, u64 offset, unsigned int size, u64 *value);
bool platform_mmio_write(struct vcpu *vcpu, u32 device, u64 offset, unsigned int size, u64 value);

/* APIC_BASE (0x1b), TSC_DEADLINE (0x6e0) and 0x800-0x8ff. False: #GP. */
bool platform_msr_read(struct vcpu *vcpu, u32 msr, u64 *value);
bool platform_msr_write(struct vcpu *vcpu, u32 msr, u64 value);

/*
 * Interrupts. `pending` first merges vcpu->posted into IRR, then returns the vector that could be
 * delivered now if the vCPU's IF and shadows allowed it (local APIC with PPR, else ExtINT of the
 * 8259 pair), or -1. `accept` acknowledges it (IRR to ISR, or INTA) and returns the vector that is
 * to be injected (the 8259 may answer a spurious one); *more: there is another one.
 */
int platform_irq_pending(struct vcpu *vcpu);
int platform_irq_accept(struct vcpu *vcpu, bool *more);
/*
 * Instead, with virtual-interrupt delivery: the processor delivers from IRR. `raised` merges
 * vcpu->posted into IRR and returns the vector up to which RVI is to be raised (0: not at all), or
 * -1 if RVI and SVI are to be computed afresh. `extint`: the 8259 pair has something for this vCPU;
 * `extint_accept` is its INTA cycle.
 */
int platform_irq_raised(struct vcpu *vcpu);
bool platform_extint(struct vcpu *vcpu);
u8 platform_extint_accept(struct vcpu *vcpu);
/* Highest vector in IRR and in ISR, or 0: RVI and SVI for virtual-interrupt delivery; where nothing
 * is `pending`, the first is what TPR or PPR masks. */
u8 platform_irr_highest(struct vcpu *vcpu);
u8 platform_isr_highest(struct vcpu *vcpu);
/* Bitmap of vectors whose EOI must exit (level-triggered through the IOAPIC). Any CPU. */
void platform_eoi_bitmap(struct vcpu *vcpu, u64 out[4]);

/* APIC-write exit: the guest's write is in the page already (SDM 30.4.3.3); EOI exit: for vector.
 */
void platform_apic_write(struct vcpu *vcpu, u32 offset);
void platform_apic_eoi(struct vcpu *vcpu, u8 vector);
/* The guest changed TPR by CR8 or the TPR shadow (TPR-below-threshold exit): recompute PPR. */
void platform_tpr_changed(struct vcpu *vcpu);

enum apic_mode {
	APIC_MODE_OFF,
	APIC_MODE_XAPIC,
	APIC_MODE_X2APIC
};
/* For choosing the VMCS controls; vm/ is told of changes by vcpu_apic_mode_changed(). Any CPU. */
enum apic_mode platform_apic_mode(struct vcpu *vcpu);
/* Enabled by software as well (SVR bit 8), so that it takes fixed interrupts. Any CPU. */
bool platform_apic_takes_fixed(struct vcpu *vcpu);
/* vm/ defines this. */
void vcpu_apic_mode_changed(struct vcpu *vcpu);

/*
 * Timers. vcpu->timer_deadline is the host TSC at which platform_timers() must run (~0 = never);
 * dev/ writes it whenever it changes, on the vCPU's own CPU (vCPU 0's includes PIT and RTC; a
 * device programmed by another vCPU sends vCPU 0 REQ_TIMER, upon which vm/ calls
 * platform_timers()), and sees to it that vcpu->deadline is not later.
 */
void platform_timers(struct vcpu *vcpu, u64 now);

/*
 * REQ_DEVICE: what a vCPU asked of a device goes on, by a bounded piece. If that was not all, the
 * vCPU has the request again.
 */
void platform_work(struct vcpu *vcpu);

/*
 * The VM has stood still for `ticks` of the host's TSC: all clocks and timers of its devices go on
 * from where they were. While it is paused (control.h); any CPU.
 */
void platform_skip_time(struct vm *vm, u64 ticks);

/* Guest consoles (vm/console.h) have input for this VM: fill the UART. Any CPU. */
void platform_console_input(struct vm *vm);

struct ept_fault;

/*
 * pmem/: writes and reads of a window (space.h) that are not mapped through; the VM's memory of
 * that number has been written to by Umbra itself; HC_PMEM. On the vCPU's CPU; `written` on any.
 */
void pmem_window_write(struct vcpu *vcpu, u32 number, u64 offset, const void *from, size_t bytes);
/* The window is made writable for the instruction that wants to, which the emulator does not know;
 * false: it cannot be. */
bool pmem_window_step(struct vcpu *vcpu, u32 number);
/*
 * The short way, for a store at linear address `linear` that nothing is known of but that it only
 * writes at `at`. True: it was to a window whose stores trap, by an instruction that
 * mmio_known_store() knows, and all of that is done.
 */
bool pmem_window_store(struct vcpu *vcpu, gpa_t at, gva_t linear);
void pmem_window_read(struct vcpu *vcpu, u32 number, u64 offset, void *to, size_t bytes);
void pmem_written(struct vm *vm, u32 number, u64 offset, u64 bytes);
/* pmem/: all vCPUs have stopped: what is to be saved is, before anybody is told that the VM has
 * ended.
 */
void pmem_save(struct vm *vm);
/* pmem/: the guest writes to a page that it may not write to yet (space_bound_pmem()). 0: it may
 * now, or is to try again; ERR_NOMEM. */
int pmem_open(struct vm *vm, u32 number, u64 page);
s64 pmem_hypercall(struct vcpu *vcpu, u64 what, u64 number, u64 argument);

/*
 * emu/: what the guest is executing, if that is a store which has been emulated before, and to
 * `linear` and no other page; else NULL. Nothing has been done. For plain writes of data.
 */
struct known_store {
	const void *from; /* until the vCPU's registers change */
	u32 size;	  /* 1, 2, 4 or 8 */
	u32 length;	  /* of the instruction */
};
const struct known_store *mmio_known_store(struct vcpu *vcpu, gva_t linear);

/*
 * emu/: what a vCPU needs for mmio_emulate(), allocated when it is created (any CPU). 0 or
 * ERR_NOMEM.
 */
int mmio_vcpu_create(struct vcpu *vcpu);
void mmio_vcpu_destroy(struct vcpu *vcpu);

/*
 * emu/: the access at vcpu's RIP hit MMIO (or a hole) at fault->addr: decode, perform, advance.
 */
enum emulate_result {
	EMULATE_DONE,
	EMULATE_FATAL
};
enum emulate_result mmio_emulate(struct vcpu *vcpu, const struct ept_fault *fault);
