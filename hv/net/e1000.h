/*
 * Intel's gigabit NICs with legacy descriptors, polled: the 8254x on PCI (manual 317453) and the
 * 8257x on PCI Express (82574: datasheet 317694). One queue each way. Interrupts only while
 * somebody sleeps.
 *
 * The driver gets one block of memory; rings and buffers lie in it, and the NIC is told of no other
 * address than those and the payloads of frames that it is given to send. All functions: one
 * caller at a time.
 */
#pragma once

#include "lib/types.h"
#include "net/e1000_regs.h"

#define E1000_VENDOR	0x8086
#define E1000_REGISTERS 0x20000ull /* bytes of the register BAR */

#define E1000_RX	128u /* descriptors; multiples of 8 */
#define E1000_TX	256u
#define E1000_RX_BUFFER 8192u /* a frame that is longer is dropped */
#define E1000_FRAME_MIN 14u   /* bytes: an Ethernet header */
#define E1000_RX_GIVE	16u   /* buffers that are given back together */
#define E1000_RX_AT	10u   /* frames begin so many bytes behind a multiple of 16 */
#define E1000_TX_SLOT	512u  /* of each TX descriptor, for what is copied */

struct e1000_model {
	u16 id; /* PCI device ID */
	const char *name;
	u8 bus;	 /* enum e1000_bus */
	u8 eerd; /* enum e1000_eerd */
};

enum e1000_bus {
	E1000_PCI,
	E1000_PCIE
};

enum e1000_eerd {     /* layout of EERD */
	E1000_EERD_8, /* done: bit 4, address from bit 8 */
	E1000_EERD_2, /* done: bit 1, address from bit 2 */
};

/* Legacy descriptors: 317453, 3.2.3 and 3.3.3. */
struct e1000_rx_desc {
	u64 address;
	union {
		struct {
			u16 length, checksum;
			u8 status, errors;
			u16 special;
		};
		u64 rest; /* all of these at once */
	};
};

struct e1000_tx_desc {
	u64 address;
	union {
		struct {
			u16 length;
			u8 checksum_offset, command, status, checksum_start;
			u16 special;
		};
		u64 rest; /* all of these at once */
	};
};

_Static_assert(sizeof(struct e1000_rx_desc) == 16, "RX descriptor");
_Static_assert(sizeof(struct e1000_tx_desc) == 16, "TX descriptor");

struct e1000_stats {
	u64 rx_frames, rx_bytes, tx_frames, tx_bytes;
	u64 rx_errors;	  /* frames that the NIC marked bad, or of a length that cannot be */
	u64 rx_missed;	  /* frames that found no buffer, as the NIC counts them */
	u64 tx_full;	  /* e1000_transmit() found no room */
	u64 link_changes; /* after the first */
	u64 resets;	  /* of a NIC that did not send any more */
};

struct e1000 {
	void *regs;
	const struct e1000_model *model;
	u8 mac[6];
	bool link;
	volatile struct e1000_rx_desc *rx;
	volatile struct e1000_tx_desc *tx;
	u8 *rx_buffer, *tx_slot;
	u64 rx_bus, tx_bus, rx_buffer_bus, tx_slot_bus;
	u32 rx_next;			/* looked at next */
	u32 rx_given;			/* RDT as the NIC knows it */
	bool rx_dropping;		/* within a frame that is too long */
	u32 tx_tail, tx_clean, tx_told; /* [clean, tail) belong to the NIC, which knows of told */
	bool tx_last[E1000_TX];		/* last descriptor of a frame */
	u64 tx_since; /* e1000_service()'s time at which something was first seen unsent; 0: nothing
			 is */
	u64 looked;   /* when the link was looked at */
	struct e1000_stats stats;
};

/* NULL: this driver does not know the device. */
const struct e1000_model *e1000_model(u16 device_id);

/*
 * The block that e1000_init() wants: bytes, and their alignment, so that no frame crosses a
 * multiple of 64 KiB (82545 and 82546 do not like it).
 */
#define E1000_MEMORY                                                                   \
	(E1000_RX * (E1000_RX_BUFFER + sizeof(struct e1000_rx_desc)) + E1000_TX_SLOT + \
	 E1000_TX * (E1000_TX_SLOT + sizeof(struct e1000_tx_desc)))
#define E1000_ALIGN 65536u

/*
 * Resets the NIC and starts it. `regs` is its mapped register BAR, `bus` the address by which the
 * device reaches `memory`. ERR_NODEV: it does not answer; ERR_IO: it has no MAC address.
 */
int e1000_init(struct e1000 *nic, const struct e1000_model *model, void *regs, void *memory,
	       u64 bus);
/* Stops it: it writes nowhere any more. */
void e1000_stop(struct e1000 *nic);

/*
 * The next received frame, without its checksum; it stays until e1000_release(), which must follow.
 * NULL: none.
 */
static inline const u8 *e1000_receive(struct e1000 *nic, size_t *len);
static inline void e1000_release(struct e1000 *nic);

/* A piece of a frame: where `bus` is 0 it is copied, else the NIC fetches it from there later. */
struct e1000_piece {
	const void *data;
	u32 len;
	u64 bus;
};

/* Frames of 14 bytes to E1000_RX_BUFFER. ERR_BUSY: no room; ERR_NODEV: no link; ERR_INVAL: length.
 */
int e1000_transmit(struct e1000 *nic, const struct e1000_piece *piece, u32 pieces);

/*
 * The same piece by piece: e1000_begin(), which says whether so many descriptors are free, then for
 * each e1000_put(), where up to E1000_TX_SLOT bytes are to be copied to, or e1000_put_bus(), then
 * e1000_end(). At least E1000_FRAME_MIN bytes in all.
 */
int e1000_begin(struct e1000 *nic, u32 descriptors);
u8 *e1000_put(struct e1000 *nic, u32 len);
void e1000_put_bus(struct e1000 *nic, u64 bus, u32 len);
void e1000_end(struct e1000 *nic);

/* Whether a frame would be taken: one of 1,514 bytes, or of head, payload and tail. */
bool e1000_tx_room(struct e1000 *nic);
/* Nothing that was given to e1000_transmit() is needed any more. */
bool e1000_tx_idle(struct e1000 *nic);

/* Tells the NIC of frames to send. */
void e1000_kick(struct e1000 *nic);
/*
 * The same, and of buffers that are free, and looks at the link now and then.
 * `now` in nanoseconds. True: the link has changed.
 */
bool e1000_service(struct e1000 *nic, u64 now);
/*
 * From now on the NIC interrupts when a frame or a change of the link arrives. True: something has
 * arrived already, for which no interrupt may come.
 */
bool e1000_arm(struct e1000 *nic);
void e1000_disarm(struct e1000 *nic);
/* Reads the NIC's counters into stats. */
void e1000_count(struct e1000 *nic);

/* --- the way of every frame ----------------------------------------------------------------- */

/* Drops what is not right. */
const u8 *e1000_receive_slowly(struct e1000 *nic, size_t *len);
void e1000_give_buffers(struct e1000 *nic);

static inline bool e1000_whole(u64 rest)
{
	u64 done = (u64)(RX_DONE | RX_END) << RX_STATUS_AT, wrong = (u64)RX_ERRORS << RX_ERRORS_AT;

	return (rest & (done | wrong)) == done &&
	       (u16)rest - E1000_FRAME_MIN <= E1000_RX_BUFFER - E1000_FRAME_MIN;
}

static inline const u8 *e1000_receive(struct e1000 *nic, size_t *len)
{
	u32 i = nic->rx_next;
	/* In one access, lest the rest be older than the status. */
	u64 rest = nic->rx[i].rest;

	if (likely(!(rest & (u64)RX_DONE << RX_STATUS_AT)))
		return NULL;
	if (unlikely(!e1000_whole(rest)) || unlikely(nic->rx_dropping) ||
	    unlikely(i == nic->rx_given))
		return e1000_receive_slowly(nic, len);
	nic->stats.rx_frames++;
	nic->stats.rx_bytes += (u16)rest;
	*len = (u16)rest;
	return nic->rx_buffer + i * E1000_RX_BUFFER;
}

static inline void e1000_release(struct e1000 *nic)
{
	u32 i = nic->rx_next;
	volatile struct e1000_rx_desc *d = &nic->rx[i];

	/* The address too: a device that broke it does not get away with it twice. */
	d->address = nic->rx_buffer_bus + i * E1000_RX_BUFFER;
	d->status = 0;
	nic->rx_next = (i + 1) % E1000_RX;
	if (unlikely((i + 1) % E1000_RX_GIVE == 0))
		e1000_give_buffers(nic);
}
