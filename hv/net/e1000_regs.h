/* Registers of the 8254x and 8257x: manual 317453, chapter 13; 82574 datasheet 317694, chapter 10.
 */
#pragma once

#define REG_CTRL     0x0000
#define REG_STATUS   0x0008
#define REG_EECD     0x0010
#define REG_EERD     0x0014
#define REG_CTRL_EXT 0x0018
#define REG_MDIC     0x0020
#define REG_ICR	     0x00c0
#define REG_IMS	     0x00d0
#define REG_IMC	     0x00d8
#define REG_RCTL     0x0100
#define REG_TCTL     0x0400
#define REG_TIPG     0x0410
#define REG_RDBAL    0x2800
#define REG_RDBAH    0x2804
#define REG_RDLEN    0x2808
#define REG_RDH	     0x2810
#define REG_RDT	     0x2818
#define REG_RDTR     0x2820
#define REG_RADV     0x282c
#define REG_TDBAL    0x3800
#define REG_TDBAH    0x3804
#define REG_TDLEN    0x3808
#define REG_TDH	     0x3810
#define REG_TDT	     0x3818
#define REG_TIDV     0x3820
#define REG_TXDCTL   0x3828
#define REG_CRCERRS  0x4000
#define REG_MPC	     0x4010
#define REG_RXCSUM   0x5000
#define REG_RFCTL    0x5008
#define REG_MTA(n)   (0x5200 + 4 * (n))
#define MTA_COUNT    128
#define REG_RAL(n)   (0x5400 + 8 * (n))
#define REG_RAH(n)   (0x5404 + 8 * (n))
#define RAL_COUNT    16
#define REG_MRQC     0x5818

#define CTRL_GIO_MASTER_DISABLE (1u << 2) /* 8257x */
#define CTRL_LINK_RESET		(1u << 3)
#define CTRL_LINK_UP		(1u << 6)
#define CTRL_INVERT_LOS		(1u << 7)
#define CTRL_FORCE_SPEED	(1u << 11)
#define CTRL_FORCE_DUPLEX	(1u << 12)
#define CTRL_RST		(1u << 26)
#define CTRL_FLOW		(3u << 27) /* pause frames, both ways */
#define CTRL_VLAN		(1u << 30)
#define CTRL_PHY_RST		(1u << 31)

#define STATUS_LINK	  (1u << 1)
#define STATUS_GIO_MASTER (1u << 19)

#define EECD_AUTO_READ (1u << 9)

#define EERD_START     (1u << 0)
#define EERD_DONE_8    (1u << 4)
#define EERD_ADDRESS_8 8
#define EERD_DONE_2    (1u << 1)
#define EERD_ADDRESS_2 2
#define EERD_DATA      16

#define CTRL_EXT_DRIVER (1u << 28)

#define MDIC_REGISTER 16
#define MDIC_PHY_1    (1u << 21)
#define MDIC_WRITE    (1u << 26)
#define MDIC_READ     (2u << 26)
#define MDIC_READY    (1u << 28)
#define MDIC_ERROR    (1u << 30)

/* IEEE 802.3, 22.2.4.1: the PHY's control register. */
#define MII_CONTROL    0u
#define MII_RESTART    (1u << 9)
#define MII_ISOLATE    (1u << 10)
#define MII_POWER_DOWN (1u << 11)
#define MII_NEGOTIATE  (1u << 12)

/* 317453, 13.4.17 */
#define IRQ_LINK       (1u << 2)
#define IRQ_RX_FEW     (1u << 4)
#define IRQ_RX_OVERRUN (1u << 6)
#define IRQ_RX	       (1u << 7)

#define RCTL_ENABLE    (1u << 1)
#define RCTL_LONG      (1u << 5)
#define RCTL_BROADCAST (1u << 15)
#define RCTL_BUFFER_8K (2u << 16 | 1u << 25) /* BSIZE with BSEX */
#define RCTL_STRIP_CRC (1u << 26)

#define TCTL_ENABLE	(1u << 1)
#define TCTL_PSP	(1u << 3)		   /* short frames are padded */
#define TCTL_COLLISIONS (0x0fu << 4 | 0x40u << 12) /* full duplex */
#define TCTL_MULTIPLE	(1u << 28)		   /* 8257x: several reads at a time */

/* Inter-packet gaps: IPGT, IPGR1, IPGR2. */
#define TIPG_PCI  (10u | 8u << 10 | 6u << 20)
#define TIPG_PCIE (8u | 8u << 10 | 6u << 20)

#define TXDCTL_COUNT	     (1u << 22) /* 8257x: must be one */
#define TXDCTL_BY_DESCRIPTOR (1u << 24)

#define RAH_VALID (1u << 31)

/* Descriptors: 317453, 3.2.3.1, 3.2.3.2 and 3.3.3. */
#define RX_DONE	  0x01
#define RX_END	  0x02
#define RX_ERRORS 0x97 /* CRC, symbol, sequence, carrier extension, data */

#define RX_STATUS_AT 32 /* bits behind `length` */
#define RX_ERRORS_AT 40

#define TX_COMMAND_AT 24 /* bits behind `length` */
#define TX_END	      0x01
#define TX_INSERT_FCS 0x02
#define TX_REPORT     0x08
#define TX_DONE	      0x01
