/* Forced into every file of the events test: the VMCS is an array, registers are variables. */
#pragma once

#include "host.h"
#include "vm/internal.h"
#include "x86/asm.h"

extern u64 fake_vmcs[0x8000];
extern u64 fake_cr2, fake_dr6;

#define vmcs_read(field)	 (fake_vmcs[field])
#define vmcs_write(field, value) ((void)(fake_vmcs[field] = (value)))
#define write_cr2(value)	 ((void)(fake_cr2 = (value)))
#define read_dr6()		 (fake_dr6)
#define write_dr6(value)	 ((void)(fake_dr6 = (value)))
