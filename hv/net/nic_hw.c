#include "net/nic_hw.h"

#include "x86/asm.h"
#include "x86/tsc.h"

u32 nic_read(void *regs, u32 offset)
{
	return mmio_read32((u8 *)regs + offset);
}

void nic_write(void *regs, u32 offset, u32 value)
{
	/* Descriptors and data before the register that hands them over (SDM 3A 8.2: the processor
	 * keeps the order of stores, so the compiler has to). */
	asm volatile("" : : : "memory");
	mmio_write32((u8 *)regs + offset, value);
}

void nic_pause(u32 microseconds)
{
	u64 until = rdtsc() + tsc_from_us(microseconds);

	while (rdtsc() < until)
		cpu_relax();
}
