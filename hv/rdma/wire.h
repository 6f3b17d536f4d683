/*
 * RoCEv2 on the wire: the bit layouts, one structure per header, and big-endian access.
 *
 * InfiniBand Architecture Specification volume 1 (IBTA), chapter 9 (transport layer), annex A17
 * (RoCEv2); RFC 768, RFC 791. Every member is bytes, so that no structure has an alignment.
 */
#pragma once

#include "lib/types.h"

#define ETHERTYPE_IPV4 0x0800
#define IPV4_PROTO_UDP 17
#define IPV4_DF	       0x4000 /* do not fragment */
#define IPV4_FRAGMENT  0x3fff /* more fragments, or an offset */
#define IPV4_ECN       0x03   /* of the type of service, RFC 3168 */
#define IPV4_CE	       0x03   /* a switch has met congestion */
#define ROCE_UDP_PORT  4791
#define ROCE_ICRC_SIZE 4u

struct eth_hdr {
	u8 dst[6];
	u8 src[6];
	u8 type[2];
};

struct ipv4_hdr {
	u8 version_ihl;
	u8 tos;
	u8 length[2];
	u8 id[2];
	u8 fragment[2];
	u8 ttl;
	u8 protocol;
	u8 checksum[2];
	u8 src[4];
	u8 dst[4];
};

struct udp_hdr {
	u8 src[2];
	u8 dst[2];
	u8 length[2];
	u8 checksum[2];
};

/* Base transport header, IBTA 9.2. */
struct bth {
	u8 opcode;
	u8 flags; /* BTH_* */
	u8 pkey[2];
	u8 congestion; /* BTH_FECN, BTH_BECN; the rest is reserved and not in the ICRC */
	u8 dest_qp[3];
	u8 ack_request; /* BTH_ACK_REQUEST */
	u8 psn[3];
};

#define BTH_SOLICITED	0x80
#define BTH_MIGREQ	0x40
#define BTH_PAD_SHIFT	4
#define BTH_PAD_MASK	0x30
#define BTH_VERSION	0x0f
#define BTH_FECN	0x80
#define BTH_BECN	0x40
#define BTH_ACK_REQUEST 0x80

/* RDMA extended transport header, IBTA 9.3.3. */
struct reth {
	u8 va[8];
	u8 rkey[4];
	u8 length[4];
};

/* ACK extended transport header, IBTA 9.3.5. */
struct aeth {
	u8 syndrome; /* AETH_* */
	u8 msn[3];
};

#define AETH_KIND	  0xe0
#define AETH_ACK	  0x00
#define AETH_RNR	  0x20
#define AETH_NAK	  0x60
#define AETH_VALUE	  0x1f
#define AETH_NO_CREDIT	  0x1f /* an ACK's value: no end-to-end credits are counted */
#define NAK_SEQUENCE	  0x60
#define NAK_INVALID	  0x61
#define NAK_REMOTE_ACCESS 0x62
#define NAK_REMOTE_ERROR  0x63

struct imm_hdr {
	u8 value[4];
};

/* Datagram extended transport header, IBTA 9.3.2. */
struct deth {
	u8 qkey[4];
	u8 reserved;
	u8 src_qp[3];
};

/* What a congestion notification packet carries in place of a header, A17.9.3. */
#define CNP_RESERVED_SIZE 16

_Static_assert(sizeof(struct eth_hdr) == 14 && offsetof(struct eth_hdr, type) == 12, "Ethernet");
_Static_assert(sizeof(struct ipv4_hdr) == 20 && offsetof(struct ipv4_hdr, ttl) == 8 &&
		       offsetof(struct ipv4_hdr, checksum) == 10 &&
		       offsetof(struct ipv4_hdr, src) == 12,
	       "IPv4");
_Static_assert(sizeof(struct udp_hdr) == 8 && offsetof(struct udp_hdr, checksum) == 6, "UDP");
_Static_assert(sizeof(struct bth) == 12 && offsetof(struct bth, congestion) == 4 &&
		       offsetof(struct bth, dest_qp) == 5 && offsetof(struct bth, psn) == 9,
	       "BTH");
_Static_assert(sizeof(struct reth) == 16 && offsetof(struct reth, length) == 12, "RETH");
_Static_assert(sizeof(struct aeth) == 4 && sizeof(struct imm_hdr) == 4, "AETH and immediate");
_Static_assert(sizeof(struct deth) == 8 && offsetof(struct deth, src_qp) == 5, "DETH");

static inline u32 be16(const u8 p[2])
{
	return (u32)p[0] << 8 | p[1];
}

static inline u32 be24(const u8 p[3])
{
	return (u32)p[0] << 16 | (u32)p[1] << 8 | p[2];
}

static inline u32 be32(const u8 p[4])
{
	return (u32)p[0] << 24 | be24(p + 1);
}

static inline u64 be64(const u8 p[8])
{
	return (u64)be32(p) << 32 | be32(p + 4);
}

static inline void put_be16(u8 p[2], u32 v)
{
	p[0] = (u8)(v >> 8);
	p[1] = (u8)v;
}

static inline void put_be24(u8 p[3], u32 v)
{
	p[0] = (u8)(v >> 16);
	put_be16(p + 1, v);
}

static inline void put_be32(u8 p[4], u32 v)
{
	p[0] = (u8)(v >> 24);
	put_be24(p + 1, v);
}

static inline void put_be64(u8 p[8], u64 v)
{
	put_be32(p, (u32)(v >> 32));
	put_be32(p + 4, (u32)v);
}

static inline u32 le32(const u8 p[4])
{
	return (u32)p[3] << 24 | (u32)p[2] << 16 | (u32)p[1] << 8 | p[0];
}

static inline void put_le32(u8 p[4], u32 v)
{
	p[0] = (u8)v;
	p[1] = (u8)(v >> 8);
	p[2] = (u8)(v >> 16);
	p[3] = (u8)(v >> 24);
}

/* The 24-bit members of a BTH, by a load of the 32 bits that they are part of. */
static inline u32 bth_dest_qp(const struct bth *bth)
{
	return be32((const u8 *)bth + offsetof(struct bth, congestion)) & 0xffffff;
}

static inline u32 bth_psn(const struct bth *bth)
{
	return be32((const u8 *)bth + offsetof(struct bth, ack_request)) & 0xffffff;
}
