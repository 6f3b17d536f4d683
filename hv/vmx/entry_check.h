/*
 * The processor's VM-entry checks in software: when an entry fails, names the field and the rule.
 *
 * SDM volume 3C: 27.2 (controls, host state), 27.3 (guest state), 27.4 (MSR loading). Run after a
 * VM-instruction error 7 or 8, or an exit for reason 33 or 34; never on a fast path. Portable: the
 * VMCS is read through a function, so that host tests can bring their own.
 *
 * A field that exists only with a control or a feature is read only if that control is set.
 */
#pragma once

#include "lib/types.h"
#include "vmx/caps.h"

struct entry_source {
	void *ctx;
	u64 (*read)(void *ctx, u32 field); /* enum vmcs_field */
	/* Copies physical memory (MSR areas, virtual-APIC page); NULL: those are not looked into.
	 */
	bool (*read_phys)(void *ctx, hpa_t from, void *dst, u32 len);
	u8 phys_bits;	/* CPUID.80000008H:EAX[7:0] */
	u8 linear_bits; /* CPUID.80000008H:EAX[15:8], 48 or 57 */
};

struct entry_fault {
	u32 field;	     /* enum vmcs_field */
	u64 value;	     /* its value */
	u64 bits;	     /* the offending bits, where the rule is about single bits; else 0 */
	const char *rule;    /* what must hold, in words */
	const char *section; /* of SDM volume 3C */
};

/* The fault is valid during the call only. */
typedef void (*entry_report_fn)(void *ctx, const struct entry_fault *fault);

/* Calls report once per broken rule; returns how many. 0: the entry should have worked. */
unsigned int entry_check(const struct entry_source *source, const struct vmx_caps *caps,
			 entry_report_fn report, void *report_ctx);

/* The SDM's name of a field ("guest CS access rights"), or "unknown field". */
const char *vmcs_field_name(u32 field);

/* The SDM's name of a basic exit reason (bits 15:0 are used), or "unknown exit reason". */
const char *exit_reason_name(u32 reason);

/* The text of a VM-instruction error number (SDM 31.4), or "unknown error". */
const char *instruction_error_name(u32 error);
