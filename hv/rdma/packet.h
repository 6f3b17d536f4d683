/*
 * RoCEv2 packets: decoding with full validation, encoding, and the invariant CRC.
 *
 * A packet is what the headers say in host byte order; a frame is bytes for the wire. Neither is
 * kept: a packet's payload points into the frame it was decoded from, a frame's payload into the
 * memory that is sent. IPv4 without options only.
 */
#pragma once

#include "lib/crc32.h"
#include "rdma/wire.h"

/* BTH opcodes: reliable connection, the unreliable datagram that RDMA-CM uses, and CNP. */
enum rdma_opcode {
	OP_SEND_FIRST = 0x00,
	OP_SEND_MIDDLE = 0x01,
	OP_SEND_LAST = 0x02,
	OP_SEND_LAST_IMM = 0x03,
	OP_SEND_ONLY = 0x04,
	OP_SEND_ONLY_IMM = 0x05,
	OP_WRITE_FIRST = 0x06,
	OP_WRITE_MIDDLE = 0x07,
	OP_WRITE_LAST = 0x08,
	OP_WRITE_LAST_IMM = 0x09,
	OP_WRITE_ONLY = 0x0a,
	OP_WRITE_ONLY_IMM = 0x0b,
	OP_READ_REQUEST = 0x0c,
	OP_READ_FIRST = 0x0d,
	OP_READ_MIDDLE = 0x0e,
	OP_READ_LAST = 0x0f,
	OP_READ_ONLY = 0x10,
	OP_ACK = 0x11,
	OP_UD_SEND_ONLY = 0x64,
	OP_CNP = 0x81,
};

/* Properties of an opcode. An opcode without any is none that this transport knows. */
#define OPF_RETH     0x0001
#define OPF_AETH     0x0002
#define OPF_IMM	     0x0004
#define OPF_DETH     0x0008
#define OPF_CNP	     0x0010 /* CNP_RESERVED_SIZE bytes follow the BTH */
#define OPF_PAYLOAD  0x0020 /* may carry a payload */
#define OPF_REQUEST  0x0040
#define OPF_RESPONSE 0x0080
#define OPF_FIRST    0x0100 /* begins a message; an ONLY packet begins and ends it */
#define OPF_LAST     0x0200
#define OPF_SEND     0x0400
#define OPF_WRITE    0x0800
#define OPF_READ     0x1000
/* And how long its extended headers are in all, in words of four bytes. */
#define OPF_WORDS_AT 13

u32 rdma_op_flags(u8 opcode);

struct rdma_packet {
	u8 dst_mac[6], src_mac[6];
	u32 dst_ip, src_ip;
	u16 ip_id;
	u8 tos, ttl;
	bool dont_fragment;
	u16 src_port, udp_checksum; /* the checksum is passed through, see rdma_decode() */
	u8 opcode;
	bool solicited, migrated, ack_request;
	u8 congestion; /* BTH_FECN, BTH_BECN */
	u16 pkey;
	u32 dest_qp, psn; /* 24 bits */
	/* Of these, what rdma_op_flags() says the opcode carries. */
	struct {
		u64 va;
		u32 rkey, length;
	} reth;
	struct {
		u8 syndrome;
		u32 msn;
	} aeth;
	u32 imm;
	struct {
		u32 qkey, src_qp;
	} deth;
	const u8 *payload; /* without pad */
	u32 payload_len;
};

/* Ethernet to the longest extended headers; pad and ICRC. */
#define RDMA_HEAD_MAX  (14 + 20 + 8 + 12 + 20)
#define RDMA_TAIL_MAX  (3 + 4)
#define RDMA_MTU_MAX   4096
#define RDMA_FRAME_MAX (RDMA_HEAD_MAX + RDMA_MTU_MAX + RDMA_TAIL_MAX)

/*
 * A frame in three pieces, so that a NIC can fetch the payload from where it lies. What is behind
 * head_len and tail_len is nothing, but may be read.
 */
struct rdma_frame {
	u8 head[RDMA_HEAD_MAX + 16]; /* from the Ethernet header on */
	u32 head_len;
	const u8 *payload;
	u32 payload_len;
	u8 tail[RDMA_TAIL_MAX + 1];
	u32 tail_len;
};

/*
 * Decodes an Ethernet frame of `len` bytes. What follows the IPv4 datagram (padding) is ignored.
 * ERR_NOENT: not RoCEv2 (other protocol or port). ERR_INVAL: malformed, a fragment, or an opcode
 * that is not known. ERR_IO: the ICRC is wrong. The UDP checksum is not verified, whether zero or
 * not: the ICRC covers what it covers.
 */
int rdma_decode(struct rdma_packet *p, const u8 *frame, size_t len);
/* Whether the checksum of an IPv4 header without options is right. */
static inline bool rdma_ipv4_sum_right(const u8 *ip)
{
	u32 a, b, c, d, e;

	__builtin_memcpy(&a, ip, 4);
	__builtin_memcpy(&b, ip + 4, 4);
	__builtin_memcpy(&c, ip + 8, 4);
	__builtin_memcpy(&d, ip + 12, 4);
	__builtin_memcpy(&e, ip + 16, 4);
	/* The one's complement sum is 0xffff; its bytes are in the order of memory (RFC 1071, 2 B),
	 * and 2^16 is 1 modulo 0xffff. It would be 0 of zeroes only, and a version is none. */
	return ((u64)a + b + c + d + e) % 0xffff == 0;
}

/* The ICRC begins with eight bytes that stand for a local route header; in a frame, these lie so.
 */
#define RDMA_LRH_LEN 8u
#define RDMA_ICRC_AT (sizeof(struct eth_hdr) - RDMA_LRH_LEN)
extern const u8 rdma_icrc_mask[CRC32_MASK]; /* of crc32_masked() */

/* Whether the ICRC is, with a datagram of at least 44 bytes, as long as its headers say. */
static inline bool rdma_icrc_right(const u8 *frame, u32 datagram_len)
{
	const u8 *head = frame + RDMA_ICRC_AT;
	u32 len = RDMA_LRH_LEN + datagram_len - ROCE_ICRC_SIZE, crc;

	if (likely(len >= CRC32_HEAD))
		crc = crc32_masked(rdma_icrc_mask, head, head + CRC32_HEAD, len - CRC32_HEAD);
	else
		crc = crc32_masked_short(rdma_icrc_mask, head, len);
	/* The one little-endian field of the packet. */
	return crc == le32(head + len);
}

/*
 * Encodes; the payload must stay as it is until the frame has left. ERR_INVAL: an opcode that is
 * not known, or a payload that it cannot carry or that is longer than RDMA_MTU_MAX.
 */
int rdma_encode(const struct rdma_packet *p, struct rdma_frame *f);

/* What is the same in all packets of a connection. */
struct rdma_template {
	u8 head[14 + 20 + 8 + 12];
	u32 ip_sum; /* of the IPv4 header's 16-bit words */
};

/* From the addresses, tos, ttl, dont_fragment, the UDP header, pkey and dest_qp of `p`. */
void rdma_template_init(struct rdma_template *t, const struct rdma_packet *p);
/* As rdma_encode(), but does not look at those of `p`. */
int rdma_encode_as(const struct rdma_template *t, const struct rdma_packet *p,
		   struct rdma_frame *f);

static inline u32 rdma_frame_len(const struct rdma_frame *f)
{
	return f->head_len + f->payload_len + f->tail_len;
}

/* Copies a frame's pieces to `to`, which holds RDMA_FRAME_MAX bytes; returns the length. */
u32 rdma_frame_copy(const struct rdma_frame *f, u8 *to);
