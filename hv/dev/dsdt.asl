/*
 * The DSDT of every VM (ACPI specification 6.5). What differs between VMs is in a block of guest
 * memory that acpi_tables.c writes (struct acpi_info): a device is there if the block says so.
 * This file goes through the C preprocessor before it is compiled.
 */
#include "dev/acpi_layout.h"
#include "pmem/pmem_layout.h"

DefinitionBlock ("", "DSDT", 2, "UMBRA", "UMBRAVM", 1)
{
	/* Soft-off: SLP_TYP of PM1a and PM1b (acpi_pm.h). */
	Name (\_S5, Package () { ACPI_SLP_TYP_S5, ACPI_SLP_TYP_S5, 0, 0 })

	Scope (\_SB)
	{
		OperationRegion (INFO, SystemMemory, ACPI_INFO_BASE, ACPI_INFO_BYTES)
		Field (INFO, DWordAcc, NoLock, Preserve)
		{
			SIGN, 32,	/* "UMBR" */
			CPUS, 32,	/* vCPUs */
			VIOS, 32,	/* bit n: virtio-mmio device n */
			NVDS, 32,	/* bit n: NVDIMM n */
		}

		/* _STA of a device that is there if bit Arg1 of Arg0 is set. */
		Method (STAT, 2, NotSerialized)
		{
			If (SIGN == ACPI_INFO_MAGIC && ((Arg0 >> Arg1) & 1))
			{
				Return (0x0F)
			}
			Return (0)
		}

		/* _STA of processor Arg0. */
		Method (CSTA, 1, NotSerialized)
		{
			Return (STAT ((1 << CPUS) - 1, Arg0))
		}

#define PROCESSOR(name, index)						\
		Device (name)						\
		{							\
			Name (_HID, "ACPI0007")				\
			Name (_UID, index)				\
			Method (_STA, 0, NotSerialized)			\
			{						\
				Return (CSTA (index))			\
			}						\
		}

		PROCESSOR (CPU0, 0x00)
		PROCESSOR (CPU1, 0x01)
		PROCESSOR (CPU2, 0x02)
		PROCESSOR (CPU3, 0x03)
		PROCESSOR (CPU4, 0x04)
		PROCESSOR (CPU5, 0x05)
		PROCESSOR (CPU6, 0x06)
		PROCESSOR (CPU7, 0x07)
		PROCESSOR (CPU8, 0x08)
		PROCESSOR (CPU9, 0x09)
		PROCESSOR (CPUA, 0x0A)
		PROCESSOR (CPUB, 0x0B)
		PROCESSOR (CPUC, 0x0C)
		PROCESSOR (CPUD, 0x0D)
		PROCESSOR (CPUE, 0x0E)
		PROCESSOR (CPUF, 0x0F)

		Device (COM1)
		{
			Name (_HID, EisaId ("PNP0501"))	/* 16550A */
			Name (_UID, 1)
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, 0x03F8, 0x03F8, 0x00, 0x08)
				IRQNoFlags () { 4 }
			})
		}

		Device (RTC)
		{
			Name (_HID, EisaId ("PNP0B00"))
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, 0x0070, 0x0070, 0x00, 0x02)
				IRQNoFlags () { 8 }
			})
		}

/* iasl (20200925) makes a wrong table of expressions in resources: hence numbers. */
#define VIRTIO(name, index, base, gsi)					\
		Device (name)						\
		{							\
			Name (_HID, "LNRO0005")				\
			Name (_UID, index)				\
			Name (_CCA, 1)					\
			Name (_CRS, ResourceTemplate ()			\
			{						\
				Memory32Fixed (ReadWrite, base, 0x1000)	\
				Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive) \
				{					\
					gsi				\
				}					\
			})						\
			Method (_STA, 0, NotSerialized)			\
			{						\
				Return (STAT (VIOS, index))		\
			}						\
		}

		VIRTIO (VIO0, 0, 0xD0000000, 16)
		VIRTIO (VIO1, 1, 0xD0001000, 17)
		VIRTIO (VIO2, 2, 0xD0002000, 18)
		VIRTIO (VIO3, 3, 0xD0003000, 19)
		VIRTIO (VIO4, 4, 0xD0004000, 20)
		VIRTIO (VIO5, 5, 0xD0005000, 21)
		VIRTIO (VIO6, 6, 0xD0006000, 22)
		VIRTIO (VIO7, 7, 0xD0007000, 23)

/*
 * An NVDIMM (9.20.3). Its label storage area is memory that _LSR and _LSW copy from and to (6.5.10).
 * Linux (6.1) asks for these only if the NVDIMM has a _DSM of a family that it knows, and with Intel's
 * asks that for labels instead. The ndctl that comes with it (76) takes no answer of another
 * family's for a success. So labels are there in both ways.
 */
#define NVDIMM(name, index, handle, labels)				\
		Device (name)						\
		{							\
			Name (_ADR, handle)				\
			Method (_STA, 0, NotSerialized)			\
			{						\
				Return (STAT (NVDS, index))		\
			}						\
			Method (_DSM, 4, NotSerialized)			\
			{						\
				Return (LDSM (labels, Arg0, Arg2, Arg3)) \
			}						\
			Method (_LSI, 0, NotSerialized)			\
			{						\
				Return (Package () { 0, PMEM_LABELS_BYTES, PMEM_LABEL_TRANSFER }) \
			}						\
			Method (_LSR, 2, NotSerialized)			\
			{						\
				Return (LREA (labels, Arg0, Arg1))	\
			}						\
			Method (_LSW, 3, NotSerialized)			\
			{						\
				Return (LWRI (labels, Arg0, Arg1, Arg2)) \
			}						\
		}

		Device (NVDR)
		{
			Name (_HID, "ACPI0012")
			Method (_STA, 0, NotSerialized)
			{
				If (SIGN == ACPI_INFO_MAGIC && NVDS)
				{
					Return (0x0F)
				}
				Return (0)
			}

			/*
			 * _DSM of area Arg0: UUID, function, arguments. Intel's family ("NVDIMM DSM
			 * Interface", revision 1.8): functions 4 to 6, whose first answer is a status:
			 * 0 = well, 1 = no such function, 3 = bad arguments.
			 */
			Method (LDSM, 4, Serialized)
			{
				If (Arg1 != ToUUID ("4309ac30-0d11-11e4-9191-0800200c9a66"))
				{
					Return (Buffer () { 0 })
				}
				If (Arg2 == 0)
				{
					Return (Buffer () { 0x71 })
				}
				If (Arg2 == 4)
				{
					Name (RSIZ, Buffer (12) {})
					CreateDWordField (RSIZ, 4, LSIZ)
					CreateDWordField (RSIZ, 8, LMAX)
					LSIZ = PMEM_LABELS_BYTES
					LMAX = PMEM_LABEL_TRANSFER
					Return (RSIZ)
				}
				If (Arg2 == 5)
				{
					Local0 = DerefOf (Arg3 [0])
					If (SizeOf (Local0) < 8)
					{
						Return (Buffer () { 3, 0, 0, 0 })
					}
					CreateDWordField (Local0, 0, ROFF)
					CreateDWordField (Local0, 4, RLEN)
					Local1 = LREA (Arg0, ROFF, RLEN)
					If (DerefOf (Local1 [0]))
					{
						Return (Buffer () { 3, 0, 0, 0 })
					}
					Return (Concatenate (Buffer () { 0, 0, 0, 0 }, DerefOf (Local1 [1])))
				}
				If (Arg2 == 6)
				{
					Local0 = DerefOf (Arg3 [0])
					If (SizeOf (Local0) < 8)
					{
						Return (Buffer () { 3, 0, 0, 0 })
					}
					CreateDWordField (Local0, 0, WOFF)
					CreateDWordField (Local0, 4, WLEN)
					If (LWRI (Arg0, WOFF, WLEN, Mid (Local0, 8, SizeOf (Local0) - 8)))
					{
						Return (Buffer () { 3, 0, 0, 0 })
					}
					Return (Buffer () { 0, 0, 0, 0 })
				}
				Return (Buffer () { 1, 0, 0, 0 })
			}

			/* Is there anything wrong with offset Arg0 and length Arg1? */
			Method (LBAD, 2, NotSerialized)
			{
				Return (Arg1 > PMEM_LABEL_TRANSFER || Arg0 > PMEM_LABELS_BYTES ||
					Arg1 > PMEM_LABELS_BYTES - Arg0)
			}

			/* Area, offset, length: status and data. */
			Method (LREA, 3, Serialized)
			{
				Name (RESU, Package (2) { 2, Buffer (1) { 0 } })
				If (LBAD (Arg1, Arg2))
				{
					Return (RESU)
				}
				Local0 = Arg0 + Arg1
				OperationRegion (LSTO, SystemMemory, Local0, PMEM_LABEL_TRANSFER)
				Field (LSTO, QWordAcc, NoLock, Preserve)
				{
					LDAT, 8192	/* bits: PMEM_LABEL_TRANSFER bytes */
				}
				RESU [0] = 0
				RESU [1] = Mid (LDAT, 0, Arg2)
				Return (RESU)
			}

			/* Area, offset, length, data: status. */
			Method (LWRI, 4, Serialized)
			{
				If (LBAD (Arg1, Arg2) || SizeOf (Arg3) < Arg2)
				{
					Return (2)
				}
				If (Arg2 == 0)
				{
					Return (0)
				}
				Local0 = Arg0 + Arg1
				OperationRegion (LSTO, SystemMemory, Local0, PMEM_LABEL_TRANSFER)
				Field (LSTO, QWordAcc, NoLock, Preserve)
				{
					LDAT, 8192
				}
				/* What is behind the part that changes stays as it is. */
				Local1 = LDAT
				Local2 = Arg2 << 3
				CreateField (Local1, 0, Local2, LNEW)
				LNEW = Arg3
				LDAT = Local1
				Return (0)
			}

			NVDIMM (NV00, 0, 1, 0xD1000000)
			NVDIMM (NV01, 1, 2, 0xD1021000)
			NVDIMM (NV02, 2, 3, 0xD1042000)
			NVDIMM (NV03, 3, 4, 0xD1063000)
		}
	}
}
