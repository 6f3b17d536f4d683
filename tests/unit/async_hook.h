/* Forced into every file of the async test: the VMCS is an array, CR2 a variable. */
#pragma once

#include "host.h"
#include "vmx/vmx.h"
#include "x86/asm.h"

extern u64 fake_vmcs[0x8000];
extern u64 fake_cr2;

#define vmcs_read(field) (fake_vmcs[field])
#define read_cr2()	 (fake_cr2)
