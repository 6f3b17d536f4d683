/* What the files of the VM-entry checker share; for hv/vmx/entry_*.c alone. */
#pragma once

#include "vmx/entry_check.h"
#include "vmx/vmcs.h"
#include "x86/regs.h"

struct entry_state {
	const struct entry_source *source;
	const struct vmx_caps *caps;
	entry_report_fn report;
	void *report_ctx;
	unsigned int faults;
	/* Controls, read once; proc2 is 0 unless the secondary controls are activated. */
	u32 pin, proc, proc2, exit, entry;
	u32 intr_info;	   /* VM-entry interruption information; 0 if not valid */
	u64 phys_reserved; /* bits beyond the physical-address width */
};

static inline u64 entry_read(const struct entry_state *s, u32 field)
{
	return s->source->read(s->source->ctx, field);
}

/* Reports `field` if `ok` is false; returns ok. */
bool entry_require(struct entry_state *s, bool ok, u32 field, const char *rule,
		   const char *section);

/* Reports `field` if its value has any of `forbidden` set or any of `required` clear. */
bool entry_bits(struct entry_state *s, u32 field, u64 required, u64 forbidden, const char *rule,
		const char *section);

/* Sign-extended from the processor's linear-address width? */
bool entry_canonical(const struct entry_state *s, u64 address);

/* Every byte a memory type that IA32_PAT takes (SDM 3A 12.12.2)? */
bool entry_pat_valid(u64 pat);

/* An MSR area of `count` entries: address rules (27.2.1.2, 27.2.1.3), then each entry (27.4). */
void entry_check_msr_area(struct entry_state *s, u32 address_field, u32 count_field, bool load,
			  const char *section);

void entry_check_execution(struct entry_state *s); /* 27.2.1.1 */
void entry_check_exit(struct entry_state *s);	   /* 27.2.1.2 */
void entry_check_entry(struct entry_state *s);	   /* 27.2.1.3 */
void entry_check_host(struct entry_state *s);	   /* 27.2.2 to 27.2.4 */
void entry_check_guest(struct entry_state *s);	   /* 27.3.1.1, 27.3.1.4 to 27.3.1.6 */
void entry_check_segments(struct entry_state *s);  /* 27.3.1.2 and 27.3.1.3 */
