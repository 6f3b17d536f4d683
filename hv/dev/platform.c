/* What vm/ asks of the virtual platform: interrupts, timers, APIC accesses. See vm/platform.h. */
#include "dev/platform.h"
#include "dev/acpi_tables.h"
#include "dev/smbios.h"
#include "mem/frame.h"
#include "pmem/pmem.h"
#include "vm/console.h"
#include "vm/platform.h"
#include "vmx/vmx.h"
#include "x86/asm.h"
#include "x86/regs.h"
#include "x86/tsc.h"

/* Posting an interrupt to oneself or to another vCPU; see vm/vcpu.h. */
static void post_fixed(struct vcpu *from, struct vcpu *to, u8 vector, bool level)
{
	int error_vector;

	if (vector < 16) {
		error_vector = lapic_record_error(to->lapic, LAPIC_ESR_RECV_VECTOR);
		if (error_vector >= 0)
			vcpu_post_irq(to, (u8)error_vector);
	} else if (to == from) {
		lapic_set_irr(to->lapic, vector, level);
	} else {
		lapic_set_trigger(to->lapic, vector, level);
		vcpu_post_irq(to, vector);
	}
}

/* --- interrupt messages ----------------------------------------------------------------------- */

struct message {
	struct vcpu *from; /* sending vCPU on whose CPU we are; NULL: the IOAPIC */
	u32 dest;	   /* as in lapic_is_destination() */
	u8 vector;
	u8 mode; /* enum lapic_delivery */
	bool logical, level;
	bool all, not_self; /* shorthands */
};

static bool is_addressed(const struct message *m, const struct vcpu *vcpu)
{
	if (m->all)
		return lapic_enabled(vcpu->lapic) && !(m->not_self && vcpu == m->from);
	return lapic_is_destination(vcpu->lapic, m->dest, m->logical);
}

static bool send_to(const struct message *m, struct vcpu *vcpu)
{
	switch (m->mode) {
	case LAPIC_DM_FIXED:
	case LAPIC_DM_LOWEST:
		if (!lapic_takes_fixed(vcpu->lapic))
			return false;
		post_fixed(m->from, vcpu, m->vector, m->level);
		return true;
	case LAPIC_DM_NMI:
		vcpu_post_nmi(vcpu);
		return true;
	case LAPIC_DM_INIT:
		vcpu_post_init(vcpu);
		return true;
	case LAPIC_DM_SIPI:
		vcpu_post_sipi(vcpu, m->vector);
		return true;
	default: /* SMI: there is no SMM; ExtINT comes by LINT0 only */
		return false;
	}
}

/* The addressed APIC with the lowest task priority; ties go round. */
static struct vcpu *arbitrate(struct platform *p, const struct message *m)
{
	u32 n = p->vm->vcpu_count, best = ~0u;
	u32 first = __atomic_load_n(&p->lowest_next, __ATOMIC_RELAXED);
	struct vcpu *winner = NULL;

	for (u32 i = 0; i < n; i++) {
		struct vcpu *vcpu = p->vm->vcpu[(first + i) % n];
		u32 priority = lapic_reg(vcpu->lapic, LAPIC_TPR) >> 4 & 15;

		if (priority < best && is_addressed(m, vcpu) && lapic_takes_fixed(vcpu->lapic)) {
			best = priority;
			winner = vcpu;
		}
	}
	if (winner)
		__atomic_store_n(&p->lowest_next, winner->index + 1, __ATOMIC_RELAXED);
	return winner;
}

static bool route(struct platform *p, const struct message *m)
{
	struct vm *vm = p->vm;
	bool taken = false;

	if (m->mode == LAPIC_DM_LOWEST) {
		struct vcpu *vcpu = arbitrate(p, m);

		return vcpu && send_to(m, vcpu);
	}
	/* Physical destinations are vCPU indices: no search. */
	if (!m->all && !m->logical && m->dest != ~0u)
		return m->dest < vm->vcpu_count && is_addressed(m, vm->vcpu[m->dest]) &&
		       send_to(m, vm->vcpu[m->dest]);
	for (u32 i = 0; i < vm->vcpu_count; i++)
		if (is_addressed(m, vm->vcpu[i]))
			taken |= send_to(m, vm->vcpu[i]);
	return taken;
}

void lapic_bus_send(struct lapic *from, u32 icr, u32 dest)
{
	u32 shorthand = icr >> 18 & 3;
	struct message m = {
		.from = from->vcpu,
		.dest = dest,
		.vector = (u8)icr,
		.mode = icr >> 8 & 7,
		.logical = icr >> 11 & 1,
		.all = shorthand >= LAPIC_SH_ALL,
		.not_self = shorthand == LAPIC_SH_OTHERS,
	};

	/* The trigger mode of IPIs counts for INIT de-assert only (SDM 11.6.1): edge. */
	route(from->vcpu->vm->platform, &m);
}

bool ioapic_bus_send(struct ioapic *io, u64 entry)
{
	u32 dest = (u32)(entry >> IOAPIC_DEST_SHIFT);
	struct message m = {
		.dest = dest == 0xff ? ~0u : dest,
		.vector = (u8)entry,
		.mode = entry >> IOAPIC_MODE_SHIFT & 7,
		.logical = entry & IOAPIC_LOGICAL,
		.level = entry & IOAPIC_LEVEL,
	};

	if (m.mode == LAPIC_DM_SIPI) /* reserved here */
		return false;
	return route(container_of(io, struct platform, ioapic), &m);
}

void ioapic_level_changed(struct ioapic *io)
{
	struct vm *vm = container_of(io, struct platform, ioapic)->vm;

	for (u32 i = 0; i < vm->vcpu_count; i++)
		vcpu_request(vm->vcpu[i], REQ_EOI_MAP);
}

/* --- what the local APIC asks for ------------------------------------------------------------- */

void lapic_bus_eoi(struct lapic *l, u8 vector)
{
	struct vm *vm = l->vcpu->vm;

	spin_lock(&vm->dev_lock);
	ioapic_eoi(&vm->platform->ioapic, vector);
	spin_unlock(&vm->dev_lock);
}

void lapic_bus_nmi(struct lapic *l)
{
	vcpu_post_nmi(l->vcpu);
}

void lapic_changed(struct lapic *l)
{
	/* Our own CPU is in root mode and will look before it enters: no kick. */
	__atomic_or_fetch(&l->vcpu->requests, REQ_IRQ, __ATOMIC_RELAXED);
}

static u64 earliest_deadline(const struct vcpu *vcpu)
{
	const struct platform *p = vcpu->vm->platform;
	u64 at = p->lapic_deadline[vcpu->index];

	if (vcpu->index)
		return at;
	if (unlikely(vcpu->vm->pmem))
		at = MIN(at, pmem_deadline(vcpu->vm));
	return MIN(at, __atomic_load_n(&p->deadline, __ATOMIC_RELAXED));
}

/*
 * Own CPU. What comes earlier than the vCPU would exit anyway needs no more than to be noted there;
 * what comes later, only if that exit was for it.
 */
static void refresh_deadline(struct vcpu *vcpu)
{
	u64 at = earliest_deadline(vcpu), was = vcpu->timer_deadline;

	if (at == was)
		return;
	vcpu->timer_deadline = at;
	if (at < vcpu->deadline)
		vcpu->deadline = at;
	else if (was == vcpu->deadline)
		__atomic_or_fetch(&vcpu->requests, REQ_TIMER, __ATOMIC_RELAXED);
}

void lapic_timer_changed(struct lapic *l, u64 deadline)
{
	l->vcpu->vm->platform->lapic_deadline[l->vcpu->index] = deadline;
	refresh_deadline(l->vcpu);
}

void lapic_mode_changed(struct lapic *l)
{
	vcpu_apic_mode_changed(l->vcpu);
}

u64 lapic_clock(const struct lapic *l)
{
	return rdtsc();
}

u64 lapic_clock_at(const struct lapic *l, u64 guest)
{
	u64 now = rdtsc(), at;

	/* Compared in guest time first: an offset must not wrap the far future into the past. */
	if (guest <= vcpu_tsc(l->vcpu))
		return now;
	at = vcpu_tsc_to_host(l->vcpu, guest);
	return at < now ? LAPIC_NEVER : at;
}

/* --- lines and clocks of the shared devices --------------------------------------------------- */

u64 platform_now(struct platform *p)
{
	u64 now = rdtsc();

	p->last = MAX(p->last, now);
	return p->last;
}

u64 platform_pit_clock(const struct platform *p, u64 now)
{
	return mul_div(now - p->epoch, PIT_HZ, tsc_hz);
}

u64 platform_rtc_clock(const struct platform *p, u64 now)
{
	return mul_div(now - p->epoch, RTC_HZ, tsc_hz);
}

u64 platform_pm_clock(const struct platform *p, u64 now)
{
	return mul_div(now - p->epoch, ACPI_PM_HZ, tsc_hz);
}

/* The first host TSC at which a clock of this frequency has reached `clock`. */
static u64 tsc_of_clock(const struct platform *p, u64 clock, u64 hz)
{
	u64 ticks = mul_div(clock, tsc_hz, hz);

	return ticks >= ~0ull - p->epoch ? LAPIC_NEVER : p->epoch + ticks + 1;
}

void platform_update_intr(struct platform *p)
{
	int vector = pic_pending(&p->pic);
	u32 intr = vector < 0 ? 0 : PLATFORM_INTR | (u32)vector;

	if (intr == p->intr)
		return;
	__atomic_store_n(&p->intr, intr, __ATOMIC_RELEASE);
	vcpu_request(p->vm->vcpu[0], REQ_IRQ);
}

void platform_set_line(struct platform *p, unsigned int irq, bool level)
{
	pic_set_line(&p->pic, irq, level);
	ioapic_set_line(&p->ioapic, irq == IRQ_PIT ? 2 : irq, level);
	platform_update_intr(p);
}

void platform_update_uart(struct platform *p)
{
	bool dropped, level;

	if (!p->uart.ier && !p->uart_line) /* the usual case, and no source is enabled */
		return;
	level = vuart_irq(&p->uart, &dropped);
	if (level == p->uart_line && !(dropped && level))
		return;
	if (dropped && level)
		platform_set_line(p, IRQ_COM1, false);
	platform_set_line(p, IRQ_COM1, level);
	p->uart_line = level;
}

void platform_pump_uart(struct platform *p)
{
	if (virtio_takes_input(p->virtio))
		return;
	for (unsigned int room = vuart_rx_room(&p->uart); room; room--) {
		int byte = console_get(p->vm);

		if (byte < 0)
			break;
		vuart_rx(&p->uart, (u8)byte);
	}
	platform_update_uart(p);
}

static void update_sci(struct platform *p, u64 now)
{
	bool level;

	if (!p->pm.enable && !p->sci_line) /* the usual case, and the clock costs a division */
		return;
	level = acpi_pm_sci(&p->pm, platform_pm_clock(p, now));
	if (level != p->sci_line)
		platform_set_line(p, ACPI_IRQ_SCI, level);
	p->sci_line = level;
}

void platform_power_button(struct vm *vm)
{
	spin_lock(&vm->dev_lock);
	if (vm->platform) {
		acpi_pm_event(&vm->platform->pm, ACPI_PM1_PWRBTN);
		update_sci(vm->platform, platform_now(vm->platform));
	}
	spin_unlock(&vm->dev_lock);
}

u64 platform_rsdp(const struct vm *vm)
{
	return ACPI_TABLES_BASE;
}

void platform_console_input(struct vm *vm)
{
	spin_lock(&vm->dev_lock);
	if (vm->platform && virtio_takes_input(vm->platform->virtio)) {
		/* Its lock comes before ours, and the platform may go away without it. */
		__atomic_store_n(&vm->platform->virtio->input_due, 1, __ATOMIC_RELAXED);
		vcpu_request(vm->vcpu[0], REQ_DEVICE);
	} else if (vm->platform) {
		platform_pump_uart(vm->platform);
	}
	spin_unlock(&vm->dev_lock);
}

void platform_work(struct vcpu *vcpu)
{
	struct platform *p = vcpu->vm->platform;

	if (p->virtio)
		virtio_work(vcpu, p->virtio);
}

static void set_rtc_line(struct platform *p, bool level)
{
	if (level && !p->rtc_line)
		acpi_pm_event(&p->pm, ACPI_PM1_RTC);
	p->rtc_line = level;
	platform_set_line(p, IRQ_RTC, level);
}

void platform_update_clocks(struct platform *p, u64 now)
{
	u64 rtc_now = platform_rtc_clock(p, now), at, rtc_at, pm_at;

	if (now >= p->earliest && pit_edge(&p->pit, platform_pit_clock(p, now))) {
		/* The falling edge in between is of no interest to anybody but the edge detectors.
		 */
		platform_set_line(p, IRQ_PIT, false);
		platform_set_line(p, IRQ_PIT, true);
		p->earliest = now + tsc_from_us(LAPIC_MIN_PERIOD_US);
	}
	set_rtc_line(p, rtc_irq(&p->rtc, rtc_now));
	update_sci(p, now);
	at = pit_deadline(&p->pit);
	if (at != PIT_NEVER)
		at = MAX(tsc_of_clock(p, at, PIT_HZ), p->earliest);
	rtc_at = rtc_deadline(&p->rtc, rtc_now);
	if (rtc_at != RTC_NEVER)
		at = MIN(at, tsc_of_clock(p, rtc_at, RTC_HZ));
	pm_at = acpi_pm_deadline(&p->pm);
	if (pm_at != ACPI_PM_NEVER)
		at = MIN(at, tsc_of_clock(p, pm_at, ACPI_PM_HZ));
	__atomic_store_n(&p->deadline, at, __ATOMIC_RELAXED);
}

void platform_deadline_changed(struct vcpu *vcpu)
{
	if (vcpu->index == 0)
		refresh_deadline(vcpu);
	else
		vcpu_request(vcpu->vm->vcpu[0], REQ_TIMER);
}

void platform_timers(struct vcpu *vcpu, u64 now)
{
	struct vm *vm = vcpu->vm;
	struct platform *p = vm->platform;

	if (unlikely(vcpu->tsc_offset != p->tsc_offset[vcpu->index])) {
		p->tsc_offset[vcpu->index] = vcpu->tsc_offset;
		lapic_tsc_changed(vcpu->lapic);
	}
	p->lapic_deadline[vcpu->index] = lapic_timer(vcpu->lapic, now);
	if (unlikely(vm->pmem))
		pmem_tick(vcpu, now);
	if (vcpu->index == 0 && now >= __atomic_load_n(&p->deadline, __ATOMIC_RELAXED)) {
		spin_lock(&vm->dev_lock);
		platform_update_clocks(p, platform_now(p));
		spin_unlock(&vm->dev_lock);
	}
	vcpu->timer_deadline = earliest_deadline(vcpu); /* the caller looks at it next */
}

/* --- interrupts of a vCPU --------------------------------------------------------------------- */

static void merge_posted(struct vcpu *vcpu)
{
	struct posted *posted = vcpu->posted;
	const u64 *pir = posted->pir;

	/* ON goes first, so that a later posting notifies again (SDM 30.6). */
	if (posted->control & 1)
		__atomic_and_fetch(&posted->control, ~1u, __ATOMIC_SEQ_CST);
	if (!(__atomic_load_n(&pir[0], __ATOMIC_RELAXED) |
	      __atomic_load_n(&pir[1], __ATOMIC_RELAXED) |
	      __atomic_load_n(&pir[2], __ATOMIC_RELAXED) |
	      __atomic_load_n(&pir[3], __ATOMIC_RELAXED)))
		return;
	for (unsigned int i = 0; i < 4; i++)
		if (__atomic_load_n(&pir[i], __ATOMIC_RELAXED))
			lapic_merge(vcpu->lapic, i,
				    __atomic_exchange_n(&posted->pir[i], 0, __ATOMIC_SEQ_CST));
}

/*
 * The 8259s' INTR reaches LINT0 of the boot processor. ExtINT comes before the APIC's own vectors:
 * it has no priority among them, and with virtual-interrupt delivery those deliver themselves.
 */
static inline u32 extint(struct vcpu *vcpu)
{
	u32 intr;

	if (vcpu->index)
		return 0;
	intr = __atomic_load_n(&vcpu->vm->platform->intr, __ATOMIC_ACQUIRE);
	if (!intr && !vcpu->lapic->lint0)
		return 0;
	return lapic_lint0(vcpu->lapic, intr) ? intr : 0;
}

int platform_irq_pending(struct vcpu *vcpu)
{
	u32 intr;

	merge_posted(vcpu);
	intr = extint(vcpu);
	if (intr)
		return intr & 0xff;
	return vcpu->lapic->base & APIC_BASE_ENABLE ? lapic_pending(vcpu->lapic) : -1;
}

int platform_irq_raised(struct vcpu *vcpu)
{
	merge_posted(vcpu);
	return lapic_take_raised(vcpu->lapic);
}

bool platform_extint(struct vcpu *vcpu)
{
	return extint(vcpu);
}

int platform_irq_accept(struct vcpu *vcpu, bool *more)
{
	int vector;

	if (unlikely(extint(vcpu))) {
		vector = platform_extint_accept(vcpu);
		*more = platform_irq_pending(vcpu) >= 0;
	} else {
		/* Nothing that stays in IRR comes before what is in service now. */
		vector = lapic_accept(vcpu->lapic);
		*more = extint(vcpu);
	}
	return vector;
}

u8 platform_extint_accept(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;
	u8 vector;

	spin_lock(&vm->dev_lock);
	vector = pic_ack(&vm->platform->pic);
	platform_update_intr(vm->platform);
	spin_unlock(&vm->dev_lock);
	return vector;
}

u8 platform_irr_highest(struct vcpu *vcpu)
{
	int vector = lapic_irr_highest(vcpu->lapic);

	return vector < 0 ? 0 : (u8)vector;
}

u8 platform_isr_highest(struct vcpu *vcpu)
{
	int vector = lapic_isr_highest(vcpu->lapic);

	return vector < 0 ? 0 : (u8)vector;
}

void platform_eoi_bitmap(struct vcpu *vcpu, u64 out[4])
{
	const struct ioapic *io = &vcpu->vm->platform->ioapic;

	for (unsigned int i = 0; i < 4; i++) {
		u32 low = lapic_reg(vcpu->lapic, LAPIC_TMR + i * 32);
		u32 high = lapic_reg(vcpu->lapic, LAPIC_TMR + i * 32 + 16);

		out[i] = __atomic_load_n(&io->level_vectors[i], __ATOMIC_RELAXED) |
			 (u64)high << 32 | low;
	}
}

void platform_apic_write(struct vcpu *vcpu, u32 offset)
{
	lapic_written(vcpu->lapic, offset);
}

void platform_apic_eoi(struct vcpu *vcpu, u8 vector)
{
	lapic_eoi_done(vcpu->lapic, vector);
}

void platform_tpr_changed(struct vcpu *vcpu)
{
	lapic_changed(vcpu->lapic); /* PPR is computed when it is looked at */
}

enum apic_mode platform_apic_mode(struct vcpu *vcpu)
{
	u64 base = __atomic_load_n(&vcpu->lapic->base, __ATOMIC_RELAXED);

	if (!(base & APIC_BASE_ENABLE))
		return APIC_MODE_OFF;
	return base & APIC_BASE_X2APIC ? APIC_MODE_X2APIC : APIC_MODE_XAPIC;
}

bool platform_apic_takes_fixed(struct vcpu *vcpu)
{
	return lapic_takes_fixed(vcpu->lapic);
}

bool platform_msr_read(struct vcpu *vcpu, u32 msr, u64 *value)
{
	return lapic_msr_read(vcpu->lapic, msr, value);
}

bool platform_msr_write(struct vcpu *vcpu, u32 msr, u64 value)
{
	return lapic_msr_write(vcpu->lapic, msr, value);
}

/* --- MMIO ------------------------------------------------------------------------------------- */

/* The IOAPIC decodes aligned double words; parts and pairs of one work as on real chip sets. */
static bool ioapic_access(u64 offset, unsigned int size)
{
	return (offset & 15) + MIN(size, 4u) <= 4;
}

bool platform_mmio_read(struct vcpu *vcpu, u32 device, u64 offset, unsigned int size, u64 *value)
{
	struct vm *vm = vcpu->vm;
	u32 word;

	if (device == PLATFORM_LAPIC)
		return lapic_mmio_read(vcpu->lapic, offset, size, value);
	if (device == PLATFORM_VIRTIO)
		return virtio_mmio_read(vcpu, vm->platform->virtio, offset, size, value);
	if (device != PLATFORM_IOAPIC || !ioapic_access(offset, size))
		return false;
	spin_lock(&vm->dev_lock);
	word = ioapic_read(&vm->platform->ioapic, (u32)offset & ~3u);
	spin_unlock(&vm->dev_lock);
	*value = word >> (offset & 3) * 8;
	if (size < 4)
		*value &= BIT(size * 8) - 1;
	return true;
}

bool platform_mmio_write(struct vcpu *vcpu, u32 device, u64 offset, unsigned int size, u64 value)
{
	struct vm *vm = vcpu->vm;

	if (device == PLATFORM_LAPIC)
		return lapic_mmio_write(vcpu->lapic, offset, size, value);
	if (device == PLATFORM_VIRTIO)
		return virtio_mmio_write(vcpu, vm->platform->virtio, offset, size, value);
	if (device != PLATFORM_IOAPIC || !ioapic_access(offset, size) || (offset & 3))
		return false;
	spin_lock(&vm->dev_lock);
	ioapic_write(&vm->platform->ioapic, (u32)offset, (u32)value);
	spin_unlock(&vm->dev_lock);
	return true;
}

/* --- life ------------------------------------------------------------------------------------- */

/* As a PC's firmware leaves it: channel 0 goes round in 65,536 clocks (18.2 Hz). */
static void start_pit(struct platform *p)
{
	pit_write(&p->pit, 3, 0x34, 0);
	pit_write(&p->pit, 0, 0, 0);
	pit_write(&p->pit, 0, 0, 0);
	platform_set_line(p, IRQ_PIT, true);
	platform_update_clocks(p, p->epoch);
}

int platform_create(struct vm *vm)
{
	struct acpi_config acpi = {.vcpus = vm->vcpu_count, .virtio_mmio = virtio_device_map(vm)};
	u8 nfit[VNFIT_MAX];
	int err;
	u64 low = MIN(vm->config->memory, 3 * GIB);
	struct platform *p = heap_alloc(sizeof(*p));

	if (!p)
		return ERR_NOMEM;
	p->vm = vm;
	p->epoch = p->last = rdtsc();
	p->deadline = LAPIC_NEVER;
	vuart_reset(&p->uart);
	pic_reset(&p->pic);
	pit_reset(&p->pit);
	rtc_reset(&p->rtc, wallclock_read(), low, vm->config->memory - low, vm->vcpu_count);
	i8042_reset(&p->i8042);
	acpi_pm_reset(&p->pm);
	ioapic_reset(&p->ioapic);
	vm->platform = p;
	start_pit(p);
	for (u32 i = 0; i < vm->vcpu_count; i++) {
		struct vcpu *vcpu = vm->vcpu[i];

		vcpu->lapic = &p->lapic[i];
		vcpu->timer_deadline = LAPIC_NEVER;
		lapic_create(vcpu->lapic, vcpu->vapic, vcpu, i, i == 0, vm->config->x2apic,
			     vmx_has(FEAT_VID));
	}
	lapic_virtual_wire(vm->vcpu[0]->lapic);
	err = pmem_create(vm);
	if (err) {
		platform_destroy(vm);
		return err;
	}
	acpi.nvdimms = pmem_device_map(vm);
	acpi.nfit = nfit;
	acpi.nfit_bytes = pmem_nfit(vm, nfit);
	if (acpi_tables_install(vm, &acpi) || smbios_install(vm) || virtio_create(vm, &p->virtio) ||
	    (p->virtio &&
	     space_add_mmio(vm, gpa(VIRTIO_BASE), VIRTIO_SLOTS * PAGE_SIZE, PLATFORM_VIRTIO)) ||
	    space_add_mmio(vm, gpa(LAPIC_BASE_ADDRESS), PAGE_SIZE, PLATFORM_LAPIC) ||
	    space_add_mmio(vm, gpa(IOAPIC_BASE_ADDRESS), PAGE_SIZE, PLATFORM_IOAPIC)) {
		platform_destroy(vm);
		return ERR_NOMEM;
	}
	return 0;
}

void platform_destroy(struct vm *vm)
{
	struct platform *p;

	spin_lock(&vm->dev_lock); /* a CPU may be handing console input to us */
	p = vm->platform;
	vm->platform = NULL;
	spin_unlock(&vm->dev_lock);
	for (u32 i = 0; i < vm->vcpu_count; i++)
		if (vm->vcpu[i])
			vm->vcpu[i]->lapic = NULL;
	if (!p)
		return;
	pmem_stop(vm);
	virtio_destroy(vm, p->virtio);
	heap_free(p, sizeof(*p));
}

void platform_vcpu_init(struct vcpu *vcpu)
{
	for (unsigned int i = 0; i < 4; i++)
		__atomic_store_n(&vcpu->posted->pir[i], 0, __ATOMIC_SEQ_CST);
	lapic_init(vcpu->lapic);
	vcpu_apic_mode_changed(vcpu); /* it is software-disabled now */
}
