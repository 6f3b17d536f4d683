/*
 * What a kernel that looks for a PC's BIOS finds: no services, but the tables that say so. Kernels
 * made for QEMU (Xen is one) size low memory by the BIOS data area and call a few interrupts on
 * their way through real mode. Phoenix, "System BIOS for IBM PCs, Compatibles, and EISA Computers".
 */
#include "vm/internal.h"

#define BIOS_SEGMENT 0xf000u
#define IRET_STUB    0xff53u /* where BIOSes have it */
#define FAIL_STUB    0xff60u
#define RESET_STUB   0xff70u
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
/*
 * Where a boot processor goes after INIT, and a jump to F000:FFF0 leads. The shutdown status in
 * CMOS register 0x0f asks for a warm start by the vector at 40:67 (5: with an EOI before; 0x0a);
 * without one the machine is reset by its keyboard controller.
 */
static const u8 reset_stub[] = {
	0xb0, 0x0f, 0xe6, 0x70, /* mov $0x0f, %al; out %al, $0x70 */
	0xe4, 0x71, 0x88, 0xc4, /* in $0x71, %al; mov %al, %ah */
	0xb0, 0x0f, 0xe6, 0x70, /* the same register: 0 */
	0xb0, 0x00, 0xe6, 0x71, /* mov $0, %al; out %al, $0x71 */
	0x80, 0xfc, 0x0a,	/* cmp $0x0a, %ah */
	0x74, 0x0b,		/* je 2f */
	0x80, 0xfc, 0x05,	/* cmp $0x05, %ah */
	0x75, 0x0e,		/* jne 3f */
	0xb0, 0x20,		/* mov $0x20, %al */
	0xe6, 0xa0, 0xe6, 0x20, /* out %al, $0xa0; out %al, $0x20 */
	0x31, 0xc0, 0x8e, 0xd8, /* 2: xor %ax, %ax; mov %ax, %ds */
	0xff, 0x2e, 0x67, 0x04, /* ljmp *0x467 */
	0xb0, 0xfe, 0xe6, 0x64, /* 3: mov $0xfe, %al; out %al, $0x64 */
	0xf4, 0xeb, 0xfd,	/* hlt; jmp to it */
};
/* jmp to reset_stub */
static const u8 reset_jump[] = {0xe9, (RESET_STUB - RESET_VECTOR - 3) & 0xff,
				(RESET_STUB - RESET_VECTOR - 3) >> 8 & 0xff};
_Static_assert(RESET_STUB + sizeof(reset_stub) <= RESET_VECTOR, "the stubs do not overlap");

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
	err |= put(vm, (BIOS_SEGMENT << 4) + RESET_STUB, reset_stub, sizeof(reset_stub));
	err |= put(vm, (BIOS_SEGMENT << 4) + RESET_VECTOR, reset_jump, sizeof(reset_jump));
	return err;
}
