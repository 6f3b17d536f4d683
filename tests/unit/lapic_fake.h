/*
 * A local APIC with the platform's side of it (dev/lapic.h): what it asks for is noted. For one
 * test file each.
 */
#pragma once

#include <string.h>

#include "dev/lapic.h"
#include "x86/tsc.h"

u64 tsc_hz = 1000000000;

static u8 page[4096] __aligned(4096);
static struct lapic l;
static u64 clock_now, guest_offset, deadline_seen;
static u32 sent_icr, sent_dest, sends, eois, nmis, changes, modes;
static u8 eoi_vector;

void lapic_bus_send(struct lapic *from, u32 icr, u32 dest)
{
	sent_icr = icr;
	sent_dest = dest;
	sends++;
}

void lapic_bus_eoi(struct lapic *a, u8 vector)
{
	eoi_vector = vector;
	eois++;
}

void lapic_bus_nmi(struct lapic *a)
{
	nmis++;
}

void lapic_changed(struct lapic *a)
{
	changes++;
}

void lapic_timer_changed(struct lapic *a, u64 deadline)
{
	deadline_seen = deadline;
}

void lapic_mode_changed(struct lapic *a)
{
	modes++;
}

u64 lapic_clock(const struct lapic *a)
{
	return clock_now;
}

u64 lapic_clock_at(const struct lapic *a, u64 guest)
{
	return guest - guest_offset;
}

static bool hardware; /* run everything with and without the word summaries */

static inline void fresh(u32 id)
{
	clock_now = 1000000;
	guest_offset = 0;
	lapic_create(&l, page, NULL, id, id == 0, true, hardware);
	sends = eois = nmis = changes = modes = 0;
	deadline_seen = LAPIC_NEVER;
}

static inline int setup(void **state)
{
	fresh(3);
	return 0;
}

static inline u32 rd(u32 offset)
{
	u64 v = ~0ull;

	assert_true(lapic_mmio_read(&l, offset, 4, &v));
	return (u32)v;
}

static inline void wr(u32 offset, u32 value)
{
	assert_true(lapic_mmio_write(&l, offset, 4, value));
}

static inline void enable(void)
{
	wr(LAPIC_SVR, 0x1ff);
}

static inline void x2apic(void)
{
	assert_true(lapic_msr_write(&l, 0x1b, l.base | 0x400));
}

static inline bool wrmsr_ok(u32 msr, u64 v)
{
	return lapic_msr_write(&l, msr, v);
}

static inline u64 rdmsr_ok(u32 msr)
{
	u64 v = 0;

	assert_true(lapic_msr_read(&l, msr, &v));
	return v;
}

static inline u32 esr(void)
{
	wr(LAPIC_ESR, 0);
	return rd(LAPIC_ESR);
}
