#include "rdma/packet.h"

#include "lib/crc32.h"
#include "lib/string.h"

/*
 * __builtin_memcpy() and __builtin_memset() here: of constant sizes, and inline although the
 * hypervisor is built freestanding. They are on the way of every packet.
 */

/* Extended headers with their lengths, for the table. */
#define WORDS(size) (u32)((size) / 4 << OPF_WORDS_AT)
#define RETH	    (OPF_RETH | WORDS(sizeof(struct reth)))
#define AETH	    (OPF_AETH | WORDS(sizeof(struct aeth)))
#define IMM	    (OPF_IMM | WORDS(sizeof(struct imm_hdr)))
#define DETH	    (OPF_DETH | WORDS(sizeof(struct deth)))
#define CNP	    (OPF_CNP | WORDS(CNP_RESERVED_SIZE))
#define RETH_IMM    (RETH + IMM)

/* Of IBTA table 38 (9.2.1) and A17.9.3 (CNP). */
static const u16 op_flags[256] = {
	[OP_SEND_FIRST] = OPF_REQUEST | OPF_SEND | OPF_FIRST | OPF_PAYLOAD,
	[OP_SEND_MIDDLE] = OPF_REQUEST | OPF_SEND | OPF_PAYLOAD,
	[OP_SEND_LAST] = OPF_REQUEST | OPF_SEND | OPF_LAST | OPF_PAYLOAD,
	[OP_SEND_LAST_IMM] = OPF_REQUEST | OPF_SEND | OPF_LAST | IMM | OPF_PAYLOAD,
	[OP_SEND_ONLY] = OPF_REQUEST | OPF_SEND | OPF_FIRST | OPF_LAST | OPF_PAYLOAD,
	[OP_SEND_ONLY_IMM] = OPF_REQUEST | OPF_SEND | OPF_FIRST | OPF_LAST | IMM | OPF_PAYLOAD,
	[OP_WRITE_FIRST] = OPF_REQUEST | OPF_WRITE | OPF_FIRST | RETH | OPF_PAYLOAD,
	[OP_WRITE_MIDDLE] = OPF_REQUEST | OPF_WRITE | OPF_PAYLOAD,
	[OP_WRITE_LAST] = OPF_REQUEST | OPF_WRITE | OPF_LAST | OPF_PAYLOAD,
	[OP_WRITE_LAST_IMM] = OPF_REQUEST | OPF_WRITE | OPF_LAST | IMM | OPF_PAYLOAD,
	[OP_WRITE_ONLY] = OPF_REQUEST | OPF_WRITE | OPF_FIRST | OPF_LAST | RETH | OPF_PAYLOAD,
	[OP_WRITE_ONLY_IMM] =
		OPF_REQUEST | OPF_WRITE | OPF_FIRST | OPF_LAST | RETH_IMM | OPF_PAYLOAD,
	[OP_READ_REQUEST] = OPF_REQUEST | OPF_READ | OPF_FIRST | OPF_LAST | RETH,
	[OP_READ_FIRST] = OPF_RESPONSE | OPF_READ | OPF_FIRST | AETH | OPF_PAYLOAD,
	[OP_READ_MIDDLE] = OPF_RESPONSE | OPF_READ | OPF_PAYLOAD,
	[OP_READ_LAST] = OPF_RESPONSE | OPF_READ | OPF_LAST | AETH | OPF_PAYLOAD,
	[OP_READ_ONLY] = OPF_RESPONSE | OPF_READ | OPF_FIRST | OPF_LAST | AETH | OPF_PAYLOAD,
	[OP_ACK] = OPF_RESPONSE | AETH,
	[OP_UD_SEND_ONLY] = DETH | OPF_PAYLOAD,
	[OP_CNP] = CNP,
};

u32 rdma_op_flags(u8 opcode)
{
	return op_flags[opcode];
}

static u32 extended_len(u32 flags)
{
	return (flags >> OPF_WORDS_AT) * 4;
}

#define DATAGRAM     sizeof(struct eth_hdr) /* where it begins in a frame */
#define FIXED_LEN    (sizeof(struct ipv4_hdr) + sizeof(struct udp_hdr) + sizeof(struct bth))
#define BEHIND_FIXED (CRC32_HEAD - RDMA_LRH_LEN - (u32)FIXED_LEN) /* of the first 64 bytes */

/*
 * The invariant CRC, A17.3.3: eight bytes of ones stand for a local route header, and what routers
 * may change counts as ones. The eight bytes before the datagram are the Ethernet header's, so that
 * all is in one piece.
 */
const _Alignas(16) u8 rdma_icrc_mask[CRC32_MASK] = {
	[0 ... RDMA_LRH_LEN - 1] = 0xff,
	[RDMA_LRH_LEN + offsetof(struct ipv4_hdr, tos)] = 0xff,
	[RDMA_LRH_LEN + offsetof(struct ipv4_hdr, ttl)] = 0xff,
	[RDMA_LRH_LEN + offsetof(struct ipv4_hdr, checksum)] = 0xff,
	[RDMA_LRH_LEN + offsetof(struct ipv4_hdr, checksum) + 1] = 0xff,
	[RDMA_LRH_LEN + sizeof(struct ipv4_hdr) + offsetof(struct udp_hdr, checksum)] = 0xff,
	[RDMA_LRH_LEN + sizeof(struct ipv4_hdr) + offsetof(struct udp_hdr, checksum) + 1] = 0xff,
	[RDMA_LRH_LEN + FIXED_LEN - sizeof(struct bth) + offsetof(struct bth, congestion)] = 0xff,
};

_Static_assert(RDMA_LRH_LEN + FIXED_LEN == CRC32_MASK, "all before the extended headers");

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
	if (ip->version_ihl != 0x45 || be16(ip->fragment) & IPV4_FRAGMENT ||
	    !rdma_ipv4_sum_right(datagram))
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
	p->dest_qp = bth_dest_qp(bth);
	p->psn = bth_psn(bth);
}

/* In this order on the wire. */
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

static int decode_ipv4(struct rdma_packet *p, const u8 *frame, size_t len)
{
	const u8 *datagram = frame + DATAGRAM;
	const struct bth *bth = (const struct bth *)(datagram + FIXED_LEN) - 1;
	u32 flags, header, pad, size;
	int n;

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
	if (!rdma_icrc_right(frame, size + (u32)(FIXED_LEN - sizeof(*bth))))
		return ERR_IO;
	decode_bth(p, bth);
	decode_extended(p, flags, (const u8 *)(bth + 1));
	p->payload = (const u8 *)bth + header;
	return 0;
}

int rdma_decode(struct rdma_packet *p, const u8 *frame, size_t len)
{
	const struct eth_hdr *eth = (const struct eth_hdr *)frame;

	__builtin_memset(p, 0, sizeof(*p));
	if (len < sizeof(*eth) || be16(eth->type) != ETHERTYPE_IPV4)
		return ERR_NOENT;
	__builtin_memcpy(p->dst_mac, eth->dst, sizeof(p->dst_mac));
	__builtin_memcpy(p->src_mac, eth->src, sizeof(p->src_mac));
	return decode_ipv4(p, frame, len - sizeof(*eth));
}

/* --- encoding ------------------------------------------------------------------------------- */

void rdma_template_init(struct rdma_template *t, const struct rdma_packet *p)
{
	struct eth_hdr *eth = (struct eth_hdr *)t->head;
	struct ipv4_hdr *ip = (struct ipv4_hdr *)(eth + 1);
	struct udp_hdr *udp = (struct udp_hdr *)(ip + 1);
	struct bth *bth = (struct bth *)(udp + 1);
	u32 i;

	memset(t, 0, sizeof(*t));
	memcpy(eth->dst, p->dst_mac, sizeof(eth->dst));
	memcpy(eth->src, p->src_mac, sizeof(eth->src));
	put_be16(eth->type, ETHERTYPE_IPV4);
	ip->version_ihl = 0x45;
	ip->tos = p->tos;
	put_be16(ip->fragment, p->dont_fragment ? IPV4_DF : 0);
	ip->ttl = p->ttl;
	ip->protocol = IPV4_PROTO_UDP;
	put_be32(ip->src, p->src_ip);
	put_be32(ip->dst, p->dst_ip);
	for (i = 0; i < sizeof(*ip); i += 2)
		t->ip_sum += be16((const u8 *)ip + i);
	put_be16(udp->src, p->src_port);
	put_be16(udp->dst, ROCE_UDP_PORT);
	put_be16(udp->checksum, p->udp_checksum);
	put_be16(bth->pkey, p->pkey);
	put_be24(bth->dest_qp, p->dest_qp);
}

/* The lengths, the identification, and the checksum of all of the header. */
static void encode_lengths(const struct rdma_template *t, u16 id, u8 *datagram, u32 len)
{
	struct ipv4_hdr *ip = (struct ipv4_hdr *)datagram;
	struct udp_hdr *udp = (struct udp_hdr *)(ip + 1);
	u32 sum = t->ip_sum + len + id;

	sum = (sum & 0xffff) + (sum >> 16);
	sum += sum >> 16;
	put_be16(ip->length, len);
	put_be16(ip->id, id);
	put_be16(ip->checksum, ~sum);
	put_be16(udp->length, len - (u32)sizeof(*ip));
}

static void encode_bth(const struct rdma_packet *p, struct bth *bth, u32 pad)
{
	bth->opcode = p->opcode;
	bth->flags = (u8)((p->solicited ? BTH_SOLICITED : 0) | (p->migrated ? BTH_MIGREQ : 0) |
			  pad << BTH_PAD_SHIFT);
	bth->congestion = p->congestion;
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

/* Of the frame but its end; head has BEHIND_FIXED bytes of room behind its end. */
static u32 icrc_of(struct rdma_frame *f)
{
	const u8 *head = f->head + RDMA_ICRC_AT;
	u32 extended = f->head_len - (u32)(DATAGRAM + FIXED_LEN), n = BEHIND_FIXED - extended;
	u32 crc;

	if (extended > BEHIND_FIXED) {
		crc = crc32_masked(rdma_icrc_mask, head, head + CRC32_HEAD,
				   extended - BEHIND_FIXED);
		return crc32(crc, f->payload, f->payload_len);
	}
	if (!n)
		return crc32_masked(rdma_icrc_mask, head, f->payload_len ? f->payload : head,
				    f->payload_len);
	if (f->payload_len < BEHIND_FIXED) {
		crc = crc32_masked_short(rdma_icrc_mask, head, CRC32_MASK + extended);
		return f->payload_len ? crc32(crc, f->payload, f->payload_len) : crc;
	}
	/* More than n, as copying a constant size is quicker. */
	__builtin_memcpy(f->head + f->head_len, f->payload, BEHIND_FIXED);
	return crc32_masked(rdma_icrc_mask, head, f->payload + n, f->payload_len - n);
}

int rdma_encode_as(const struct rdma_template *t, const struct rdma_packet *p, struct rdma_frame *f)
{
	u32 flags = rdma_op_flags(p->opcode), extended = extended_len(flags);
	u8 *datagram = f->head + DATAGRAM;
	struct bth *bth = (struct bth *)(datagram + FIXED_LEN) - 1;
	u32 pad = -p->payload_len & 3, crc;

	if (!flags || p->payload_len > RDMA_MTU_MAX || (p->payload_len && !(flags & OPF_PAYLOAD)))
		return ERR_INVAL;
	f->head_len = (u32)(DATAGRAM + FIXED_LEN) + extended;
	f->payload = p->payload;
	f->payload_len = p->payload_len;
	f->tail_len = pad + ROCE_ICRC_SIZE;

	__builtin_memcpy(f->head, t->head, sizeof(t->head));
	encode_lengths(t, p->ip_id, datagram, rdma_frame_len(f) - (u32)DATAGRAM);
	encode_bth(p, bth, pad);
	if (extended)
		encode_extended(p, flags, (u8 *)(bth + 1));
	crc = icrc_of(f);
	if (pad) {
		put_le32(f->tail, 0);
		crc = crc32(crc, f->tail, pad);
	}
	put_le32(f->tail + pad, crc);
	return 0;
}

int rdma_encode(const struct rdma_packet *p, struct rdma_frame *f)
{
	struct rdma_template t = {.ip_sum = 0};

	rdma_template_init(&t, p);
	return rdma_encode_as(&t, p, f);
}

u32 rdma_frame_copy(const struct rdma_frame *f, u8 *to)
{
	memcpy(to, f->head, f->head_len);
	if (f->payload_len)
		memcpy(to + f->head_len, f->payload, f->payload_len);
	memcpy(to + f->head_len + f->payload_len, f->tail, f->tail_len);
	return rdma_frame_len(f);
}
