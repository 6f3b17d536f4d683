#include "rdma/packet.h"

#include "lib/crc32.h"
#include "lib/string.h"

/*
 * __builtin_memcpy() and __builtin_memset() here: of constant sizes, and inline although the
 * hypervisor is built freestanding. They are on the way of every packet.
 */

/* Of IBTA table 38 (9.2.1) and A17.9.3 (CNP). */
static const u16 op_flags[256] = {
	[OP_SEND_FIRST] = OPF_REQUEST | OPF_SEND | OPF_FIRST | OPF_PAYLOAD,
	[OP_SEND_MIDDLE] = OPF_REQUEST | OPF_SEND | OPF_PAYLOAD,
	[OP_SEND_LAST] = OPF_REQUEST | OPF_SEND | OPF_LAST | OPF_PAYLOAD,
	[OP_SEND_LAST_IMM] = OPF_REQUEST | OPF_SEND | OPF_LAST | OPF_IMM | OPF_PAYLOAD,
	[OP_SEND_ONLY] = OPF_REQUEST | OPF_SEND | OPF_FIRST | OPF_LAST | OPF_PAYLOAD,
	[OP_SEND_ONLY_IMM] = OPF_REQUEST | OPF_SEND | OPF_FIRST | OPF_LAST | OPF_IMM | OPF_PAYLOAD,
	[OP_WRITE_FIRST] = OPF_REQUEST | OPF_WRITE | OPF_FIRST | OPF_RETH | OPF_PAYLOAD,
	[OP_WRITE_MIDDLE] = OPF_REQUEST | OPF_WRITE | OPF_PAYLOAD,
	[OP_WRITE_LAST] = OPF_REQUEST | OPF_WRITE | OPF_LAST | OPF_PAYLOAD,
	[OP_WRITE_LAST_IMM] = OPF_REQUEST | OPF_WRITE | OPF_LAST | OPF_IMM | OPF_PAYLOAD,
	[OP_WRITE_ONLY] = OPF_REQUEST | OPF_WRITE | OPF_FIRST | OPF_LAST | OPF_RETH | OPF_PAYLOAD,
	[OP_WRITE_ONLY_IMM] =
		OPF_REQUEST | OPF_WRITE | OPF_FIRST | OPF_LAST | OPF_RETH | OPF_IMM | OPF_PAYLOAD,
	[OP_READ_REQUEST] = OPF_REQUEST | OPF_READ | OPF_FIRST | OPF_LAST | OPF_RETH,
	[OP_READ_FIRST] = OPF_RESPONSE | OPF_READ | OPF_FIRST | OPF_AETH | OPF_PAYLOAD,
	[OP_READ_MIDDLE] = OPF_RESPONSE | OPF_READ | OPF_PAYLOAD,
	[OP_READ_LAST] = OPF_RESPONSE | OPF_READ | OPF_LAST | OPF_AETH | OPF_PAYLOAD,
	[OP_READ_ONLY] = OPF_RESPONSE | OPF_READ | OPF_FIRST | OPF_LAST | OPF_AETH | OPF_PAYLOAD,
	[OP_ACK] = OPF_RESPONSE | OPF_AETH,
	[OP_UD_SEND_ONLY] = OPF_DETH | OPF_PAYLOAD,
	[OP_CNP] = OPF_CNP,
};

u32 rdma_op_flags(u8 opcode)
{
	return op_flags[opcode];
}

/* In this order on the wire; no opcode has all. */
static u32 extended_len(u32 flags)
{
	return (flags & OPF_DETH ? (u32)sizeof(struct deth) : 0) +
	       (flags & OPF_RETH ? (u32)sizeof(struct reth) : 0) +
	       (flags & OPF_AETH ? (u32)sizeof(struct aeth) : 0) +
	       (flags & OPF_IMM ? (u32)sizeof(struct imm_hdr) : 0) +
	       (flags & OPF_CNP ? CNP_RESERVED_SIZE : 0);
}

#define MASKED_LEN (sizeof(struct ipv4_hdr) + sizeof(struct udp_hdr) + sizeof(struct bth))

/*
 * The invariant CRC, A17.3.3: eight bytes of ones stand for a local route header, and what routers
 * may change counts as ones. `extended` are the bytes behind the BTH. Most packets
 * go through in one piece: these 48 bytes and the 16 that follow make the first 64.
 */
static u32 icrc(const u8 *datagram, const u8 *extended, u32 extended_size, const u8 *payload,
		u32 len)
{
	u8 first[8 + MASKED_LEN + 16];
	struct ipv4_hdr *ip = (struct ipv4_hdr *)(first + 8);
	struct udp_hdr *udp = (struct udp_hdr *)(ip + 1);
	struct bth *bth = (struct bth *)(udp + 1);
	u8 *more = (u8 *)(bth + 1);
	u32 n = 16 - extended_size;
	u32 crc;

	__builtin_memset(first, 0xff, 8);
	__builtin_memcpy(first + 8, datagram, MASKED_LEN);
	ip->tos = 0xff;
	ip->ttl = 0xff;
	put_be16(ip->checksum, 0xffff);
	put_be16(udp->checksum, 0xffff);
	bth->congestion = 0xff;
	if (extended_size > 16 || len < n) {
		crc = crc32(0, first, 8 + MASKED_LEN);
		return crc32(crc32(crc, extended, extended_size), payload, len);
	}
	if (extended + extended_size == payload) { /* as they have arrived */
		__builtin_memcpy(more, extended, 16);
	} else {
		if (extended_size)
			memcpy(more, extended, extended_size);
		if (n)
			memcpy(more + extended_size, payload, n);
	}
	return crc32_headed(first, n ? payload + n : payload, len - n);
}

/* The one's complement sum, whose bytes are in the order of memory (RFC 1071, 2 B). */
static u16 ipv4_sum(const struct ipv4_hdr *ip)
{
	u32 word[sizeof(*ip) / 4], i;
	u64 sum = 0;

	__builtin_memcpy(word, ip, sizeof(word));
	for (i = 0; i < ARRAY_SIZE(word); i++)
		sum += word[i];
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (u16)((sum & 0xffff) + (sum >> 16));
}

/* Checks IPv4 and UDP; the UDP payload's length, or an error. */
static int decode_udp(struct rdma_packet *p, const u8 *datagram, size_t len)
{
	const struct ipv4_hdr *ip = (const struct ipv4_hdr *)datagram;
	const struct udp_hdr *udp = (const struct udp_hdr *)(ip + 1);
	u32 total;

	if (len < sizeof(*ip) + sizeof(*udp) || ip->version_ihl >> 4 != 4 ||
	    ip->protocol != IPV4_PROTO_UDP)
		return ERR_NOENT;
	total = be16(ip->length);
	if (ip->version_ihl != 0x45 || be16(ip->fragment) & IPV4_FRAGMENT || ipv4_sum(ip) != 0xffff)
		return ERR_INVAL;
	if (be16(udp->dst) != ROCE_UDP_PORT)
		return ERR_NOENT;
	if (total > len || total < sizeof(*ip) + sizeof(*udp) ||
	    be16(udp->length) != total - sizeof(*ip))
		return ERR_INVAL;
	p->dst_ip = be32(ip->dst);
	p->src_ip = be32(ip->src);
	p->ip_id = (u16)be16(ip->id);
	p->tos = ip->tos;
	p->ttl = ip->ttl;
	p->dont_fragment = be16(ip->fragment) & IPV4_DF;
	p->src_port = (u16)be16(udp->src);
	p->udp_checksum = (u16)be16(udp->checksum);
	return (int)(total - sizeof(*ip) - sizeof(*udp));
}

static void decode_bth(struct rdma_packet *p, const struct bth *bth)
{
	p->opcode = bth->opcode;
	p->solicited = bth->flags & BTH_SOLICITED;
	p->migrated = bth->flags & BTH_MIGREQ;
	p->ack_request = bth->ack_request & BTH_ACK_REQUEST;
	p->congestion = bth->congestion & (BTH_FECN | BTH_BECN);
	p->pkey = (u16)be16(bth->pkey);
	p->dest_qp = be24(bth->dest_qp);
	p->psn = be24(bth->psn);
}

static void decode_extended(struct rdma_packet *p, u32 flags, const u8 *at)
{
	if (flags & OPF_DETH) {
		const struct deth *deth = (const struct deth *)at;

		p->deth.qkey = be32(deth->qkey);
		p->deth.src_qp = be24(deth->src_qp);
		at += sizeof(*deth);
	}
	if (flags & OPF_RETH) {
		const struct reth *reth = (const struct reth *)at;

		p->reth.va = be64(reth->va);
		p->reth.rkey = be32(reth->rkey);
		p->reth.length = be32(reth->length);
		at += sizeof(*reth);
	}
	if (flags & OPF_AETH) {
		const struct aeth *aeth = (const struct aeth *)at;

		p->aeth.syndrome = aeth->syndrome;
		p->aeth.msn = be24(aeth->msn);
		at += sizeof(*aeth);
	}
	if (flags & OPF_IMM)
		p->imm = be32(((const struct imm_hdr *)at)->value);
}

int rdma_decode_ipv4(struct rdma_packet *p, const u8 *datagram, size_t len)
{
	const u8 *udp_payload = datagram + sizeof(struct ipv4_hdr) + sizeof(struct udp_hdr);
	const struct bth *bth = (const struct bth *)udp_payload;
	u32 flags, header, pad, size;
	const u8 *end;
	u32 crc;
	int n;

	__builtin_memset(p, 0, sizeof(*p));
	n = decode_udp(p, datagram, len);
	if (n < 0)
		return n;
	/* Headers, padded payload and ICRC are each a multiple of four bytes. */
	size = (u32)n;
	if (size < sizeof(*bth) + ROCE_ICRC_SIZE || size % 4 || bth->flags & BTH_VERSION)
		return ERR_INVAL;
	flags = rdma_op_flags(bth->opcode);
	header = (u32)sizeof(*bth) + extended_len(flags);
	pad = (bth->flags & BTH_PAD_MASK) >> BTH_PAD_SHIFT;
	if (!flags || size < header + pad + ROCE_ICRC_SIZE)
		return ERR_INVAL;
	p->payload_len = size - header - pad - ROCE_ICRC_SIZE;
	if (p->payload_len && !(flags & OPF_PAYLOAD))
		return ERR_INVAL;

	end = udp_payload + size - ROCE_ICRC_SIZE;
	crc = icrc(datagram, (const u8 *)(bth + 1), extended_len(flags), udp_payload + header,
		   p->payload_len + pad);
	/* The one little-endian field of the packet. */
	if ((u8)crc != end[0] || (u8)(crc >> 8) != end[1] || (u8)(crc >> 16) != end[2] ||
	    (u8)(crc >> 24) != end[3])
		return ERR_IO;
	decode_bth(p, bth);
	decode_extended(p, flags, (const u8 *)(bth + 1));
	p->payload = udp_payload + header;
	return 0;
}

int rdma_decode(struct rdma_packet *p, const u8 *frame, size_t len)
{
	const struct eth_hdr *eth = (const struct eth_hdr *)frame;
	int ret;

	if (len < sizeof(*eth) || be16(eth->type) != ETHERTYPE_IPV4) {
		__builtin_memset(p, 0, sizeof(*p));
		return ERR_NOENT;
	}
	ret = rdma_decode_ipv4(p, frame + sizeof(*eth), len - sizeof(*eth));
	__builtin_memcpy(p->dst_mac, eth->dst, sizeof(p->dst_mac));
	__builtin_memcpy(p->src_mac, eth->src, sizeof(p->src_mac));
	return ret;
}

static void encode_ipv4(const struct rdma_packet *p, u8 *at, u32 udp_len)
{
	struct ipv4_hdr *ip = (struct ipv4_hdr *)at;
	struct udp_hdr *udp = (struct udp_hdr *)(ip + 1);
	u16 sum;

	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version_ihl = 0x45;
	ip->tos = p->tos;
	put_be16(ip->length, udp_len + (u32)sizeof(*ip));
	put_be16(ip->id, p->ip_id);
	put_be16(ip->fragment, p->dont_fragment ? IPV4_DF : 0);
	ip->ttl = p->ttl;
	ip->protocol = IPV4_PROTO_UDP;
	put_be32(ip->src, p->src_ip);
	put_be32(ip->dst, p->dst_ip);
	sum = (u16)~ipv4_sum(ip);
	__builtin_memcpy(ip->checksum, &sum, sizeof(sum));
	put_be16(udp->src, p->src_port);
	put_be16(udp->dst, ROCE_UDP_PORT);
	put_be16(udp->length, udp_len);
	put_be16(udp->checksum, p->udp_checksum);
}

static void encode_bth(const struct rdma_packet *p, struct bth *bth, u32 pad)
{
	bth->opcode = p->opcode;
	bth->flags = (u8)((p->solicited ? BTH_SOLICITED : 0) | (p->migrated ? BTH_MIGREQ : 0) |
			  pad << BTH_PAD_SHIFT);
	put_be16(bth->pkey, p->pkey);
	bth->congestion = p->congestion;
	put_be24(bth->dest_qp, p->dest_qp);
	bth->ack_request = p->ack_request ? BTH_ACK_REQUEST : 0;
	put_be24(bth->psn, p->psn);
}

static void encode_extended(const struct rdma_packet *p, u32 flags, u8 *at)
{
	if (flags & OPF_DETH) {
		struct deth *deth = (struct deth *)at;

		put_be32(deth->qkey, p->deth.qkey);
		deth->reserved = 0;
		put_be24(deth->src_qp, p->deth.src_qp);
		at += sizeof(*deth);
	}
	if (flags & OPF_RETH) {
		struct reth *reth = (struct reth *)at;

		put_be64(reth->va, p->reth.va);
		put_be32(reth->rkey, p->reth.rkey);
		put_be32(reth->length, p->reth.length);
		at += sizeof(*reth);
	}
	if (flags & OPF_AETH) {
		struct aeth *aeth = (struct aeth *)at;

		aeth->syndrome = p->aeth.syndrome;
		put_be24(aeth->msn, p->aeth.msn);
		at += sizeof(*aeth);
	}
	if (flags & OPF_IMM)
		put_be32(((struct imm_hdr *)at)->value, p->imm);
	if (flags & OPF_CNP)
		memset(at, 0, CNP_RESERVED_SIZE);
}

int rdma_encode(const struct rdma_packet *p, struct rdma_frame *f)
{
	u32 flags = rdma_op_flags(p->opcode);
	struct eth_hdr *eth = (struct eth_hdr *)f->head;
	u8 *datagram = f->head + sizeof(*eth);
	struct bth *bth = (struct bth *)(datagram + MASKED_LEN - sizeof(*bth));
	u32 pad = -p->payload_len & 3;
	u32 crc, i;

	if (!flags || p->payload_len > RDMA_MTU_MAX || (p->payload_len && !(flags & OPF_PAYLOAD)))
		return ERR_INVAL;
	f->head_len = (u32)(sizeof(*eth) + MASKED_LEN) + extended_len(flags);
	f->payload = p->payload;
	f->payload_len = p->payload_len;
	f->tail_len = pad + ROCE_ICRC_SIZE;

	__builtin_memcpy(eth->dst, p->dst_mac, sizeof(eth->dst));
	__builtin_memcpy(eth->src, p->src_mac, sizeof(eth->src));
	put_be16(eth->type, ETHERTYPE_IPV4);
	encode_ipv4(p, datagram, rdma_frame_len(f) - (u32)(sizeof(*eth) + sizeof(struct ipv4_hdr)));
	encode_bth(p, bth, pad);
	encode_extended(p, flags, (u8 *)(bth + 1));

	memset(f->tail, 0, pad);
	crc = icrc(datagram, (const u8 *)(bth + 1), extended_len(flags), f->payload,
		   f->payload_len);
	crc = crc32(crc, f->tail, pad);
	for (i = 0; i < ROCE_ICRC_SIZE; i++)
		f->tail[pad + i] = (u8)(crc >> 8 * i);
	return 0;
}

u32 rdma_frame_copy(const struct rdma_frame *f, u8 *to)
{
	memcpy(to, f->head, f->head_len);
	if (f->payload_len)
		memcpy(to + f->head_len, f->payload, f->payload_len);
	memcpy(to + f->head_len + f->payload_len, f->tail, f->tail_len);
	return rdma_frame_len(f);
}
