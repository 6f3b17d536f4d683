/*
 * What a kernel that looks for a PC's BIOS finds: no services, but the tables that say so. Kernels
 * made for QEMU (Xen is one) size low memory by the BIOS data area and call a few interrupts on
 * their way through real mode. Phoenix, "System BIOS for IBM PCs, Compatibles, and EISA Computers".
 */
#include "vm/internal.h"

#define BIOS_SEGMENT 0xf000u
#define IRET_STUB    0xff53u /* where BIOSes have it */
#define FAIL_STUB    0xff60u
#define RESET_VECTOR 0xfff0u
#define IVT_VECTORS  0x78

#define BDA_COM1     0x400u
#define BDA_EBDA     0x40eu /* segment of the extended BIOS data area */
#define BDA_BASE_MEM 0x413u /* KiB */
#define BASE_MEM_KIB 639
#define INT_DISK     0x13
#define INT_SYSTEM   0x15

static const u8 iret_stub[] = {0xcf};
/* Returns with CF set and AH = 0x86, "function not supported". */
static const u8 fail_stub[] = {
	0x55,			/* push %bp */
	0x89, 0xe5,		/* mov %sp, %bp */
	0x80, 0x4e, 0x06, 0x01, /* orb $1, 6(%bp): CF of the pushed flags */
	0x5d,			/* pop %bp */
	0xb4, 0x86,		/* mov $0x86, %ah */
	0xcf,			/* iret */
};
/* Resets by the keyboard controller. */
static const u8 reset_stub[] = {
	0xb0, 0xfe, /* mov $0xfe, %al */
	0xe6, 0x64, /* out %al, $0x64 */
	0xf4,	    /* hlt */
	0xeb, 0xfd, /* jmp to it */
};

static int put(struct vm *vm, u32 at, const void *data, size_t bytes)
{
	return guest_write(vm, gpa(at), data, bytes);
}

int bios_install(struct vm *vm)
{
	static const u16 com1 = 0x3f8, ebda = BASE_MEM_KIB * 1024 / 16, base = BASE_MEM_KIB;
	int err = 0;

	for (u32 vector = 0; vector < IVT_VECTORS; vector++) {
		bool fails = vector == INT_DISK || vector == INT_SYSTEM;
		u32 entry = BIOS_SEGMENT << 16 | (fails ? FAIL_STUB : IRET_STUB);

		err |= put(vm, vector * 4, &entry, sizeof(entry));
	}
	err |= put(vm, BDA_COM1, &com1, sizeof(com1));
	err |= put(vm, BDA_EBDA, &ebda, sizeof(ebda));
	err |= put(vm, BDA_BASE_MEM, &base, sizeof(base));
	err |= put(vm, (BIOS_SEGMENT << 4) + IRET_STUB, iret_stub, sizeof(iret_stub));
	err |= put(vm, (BIOS_SEGMENT << 4) + FAIL_STUB, fail_stub, sizeof(fail_stub));
	err |= put(vm, (BIOS_SEGMENT << 4) + RESET_VECTOR, reset_stub, sizeof(reset_stub));
	return err;
}
