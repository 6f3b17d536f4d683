/*
 * The whole platform of a VM with four vCPUs: every port, both MMIO pages and all APIC MSRs with
 * random arguments, while time goes on and interrupts are taken. What vm/ provides is played here;
 * locks are checked to be free whenever something is called that may wait.
 */
#include "platform_world.h"

static void take_interrupt(struct vcpu *v)
{
	int vector = platform_irq_pending(v);
	bool extint = platform_extint(v), more;

	if (vector < 0)
		return;
	ASSERT(!extint || v->index == 0);
	ASSERT(platform_irq_accept(v, &more) == vector);
	ASSERT(more == (platform_irq_pending(v) >= 0));
	ASSERT(extint || platform_isr_highest(v) == vector);
}

static void check(struct vcpu *v)
{
	u64 map[4], now = vm.platform->last;

	check_unlocked();
	platform_eoi_bitmap(v, map);
	platform_timers(v, now);
	ASSERT(v->timer_deadline > now || v->index);
	ASSERT(vm.platform->intr == 0 || pic_pending(&vm.platform->pic) >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (new_platform())
		return 0;
	for (size_t i = 0; i + 7 < size; i += 8) {
		struct vcpu *v = &vcpus[(data[i] >> 6) % CPUS];
		unsigned int width = 1u << (data[i] >> 4 & 3);
		u16 port = (u16)(data[i + 1] | data[i + 2] << 8);
		u64 value = 0, offset = port & 0xfff;

		memcpy(&value, data + i + 3, 5);
		vm.platform->last = MAX(vm.platform->last, __builtin_ia32_rdtsc());
		switch (data[i] & 15) {
		case 0 ... 2:
			platform_port_out(v, port, MIN(width, 4u), (u32)value);
			break;
		case 3:
		case 4:
			platform_port_in(v, port, MIN(width, 4u));
			break;
		case 5:
			platform_mmio_read(v, port & 1, offset & ~1ull, width, &value);
			break;
		case 6:
		case 7:
			platform_mmio_write(v, PLATFORM_LAPIC, offset & ~15ull, 4, value);
			break;
		case 8:
			platform_mmio_write(v, PLATFORM_IOAPIC, 0, 4, port);
			platform_mmio_write(v, PLATFORM_IOAPIC, 0x10, 4, value);
			break;
		case 9:
			platform_msr_write(v, 0x800 | (port & 0xff), (u32)value);
			break;
		case 10:
			platform_msr_write(v, 0x1b, (v->lapic->base & ~0xc00ull) | (value & 0xc00));
			break;
		case 11:
			platform_msr_write(v, 0x6e0, value << 24);
			break;
		case 12:
			vm.platform->last += value << (port & 15);
			break;
		case 13:
			console_in[0] = (u8)value;
			in_next = 0;
			in_count = port & 63;
			platform_console_input(&vm);
			break;
		case 14:
			take_interrupt(v);
			break;
		default:
			if (inits[v->index])
				platform_vcpu_init(v);
			inits[v->index] = 0;
			v->requests = 0;
			platform_apic_eoi(v, (u8)value);
			break;
		}
		check(v);
	}
	platform_destroy(&vm);
	return 0;
}
