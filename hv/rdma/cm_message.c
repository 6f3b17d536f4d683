#include "rdma/cm_message.h"

#include "lib/string.h"

struct mad_hdr {
	u8 base_version, mgmt_class, class_version, method;
	u8 status[2], class_specific[2];
	u8 tid[8];
	u8 attribute[2], reserved[2];
	u8 modifier[4];
};

#define MAD_BASE_VERSION  1
#define MAD_CLASS_CM	  7
#define MAD_CLASS_VERSION 2
#define MAD_METHOD_SEND	  3

/* IBTA tables 106 (REQ), 111 (REP), 108 to 110 and 112 to 114. Pairs of fields share bytes. */
struct req_data {
	u8 local_id[4], reserved0[4];
	u8 service_id[8];
	u8 guid[8];
	u8 reserved1[4], qkey[4];
	u8 qpn[3], responder_resources;
	u8 eecn[3], initiator_depth;
	u8 remote_eecn[3], remote_timeout; /* 7:3 time-out, 2:1 transport, 0 flow control */
	u8 psn[3], local_timeout;	   /* 7:3 time-out, 2:0 retry count */
	u8 pkey[2];
	u8 mtu;		   /* 7:4 MTU, 3 RDC exists, 2:0 RNR retry count */
	u8 max_cm_retries; /* 7:4 */
	u8 local_lid[2], remote_lid[2];
	u8 local_gid[16], remote_gid[16];
	u8 flow_label[4]; /* 31:12 flow label, 5:0 rate */
	u8 traffic_class, hop_limit, sl, ack_timeout /* 7:3 */;
	u8 alternate[44];
	u8 private_data[CM_REQ_PRIVATE];
};

struct rep_data {
	u8 local_id[4], remote_id[4];
	u8 qkey[4];
	u8 qpn[3], reserved0;
	u8 eecn[3], reserved1;
	u8 psn[3], reserved2;
	u8 responder_resources, initiator_depth;
	u8 ack_delay; /* 7:3 */
	u8 rnr_retry; /* 7:5 */
	u8 guid[8];
	u8 private_data[CM_REP_PRIVATE];
};

struct rtu_data { /* and DREP */
	u8 local_id[4], remote_id[4];
	u8 private_data[224];
};

struct rej_data {
	u8 local_id[4], remote_id[4];
	u8 which; /* 7:6 */
	u8 info_length;
	u8 reason[2];
	u8 info[72];
	u8 private_data[148];
};

struct mra_data {
	u8 local_id[4], remote_id[4];
	u8 which;	    /* 7:6 */
	u8 service_timeout; /* 7:3 */
	u8 private_data[222];
};

struct dreq_data {
	u8 local_id[4], remote_id[4];
	u8 qpn[3], reserved;
	u8 private_data[220];
};

struct ip_data {
	u8 version;    /* 0 */
	u8 ip_version; /* 7:4 */
	u8 src_port[2];
	u8 src_zero[12], src[4];
	u8 dst_zero[12], dst[4];
};

#define MAD_DATA (CM_MAD_SIZE - sizeof(struct mad_hdr))

_Static_assert(sizeof(struct mad_hdr) == 24 && MAD_DATA == 232, "MAD header");
_Static_assert(sizeof(struct req_data) == MAD_DATA && offsetof(struct req_data, qpn) == 32 &&
		       offsetof(struct req_data, psn) == 44 &&
		       offsetof(struct req_data, local_gid) == 56 &&
		       offsetof(struct req_data, flow_label) == 88 &&
		       offsetof(struct req_data, private_data) == 140,
	       "REQ");
_Static_assert(sizeof(struct rep_data) == MAD_DATA && offsetof(struct rep_data, psn) == 20 &&
		       offsetof(struct rep_data, guid) == 28,
	       "REP");
_Static_assert(sizeof(struct rtu_data) == MAD_DATA && sizeof(struct rej_data) == MAD_DATA &&
		       sizeof(struct mra_data) == MAD_DATA && sizeof(struct dreq_data) == MAD_DATA,
	       "RTU, REJ, MRA, DREQ");
_Static_assert(offsetof(struct rej_data, private_data) == 84, "REJ");
_Static_assert(sizeof(struct ip_data) == CM_IP_HEADER, "RDMA-CM IP header");

static void decode_req(struct cm_message *m, const struct req_data *d)
{
	m->remote_id = 0; /* the place is reserved */
	m->service_id = be64(d->service_id);
	m->guid = be64(d->guid);
	m->qpn = be24(d->qpn);
	m->responder_resources = d->responder_resources;
	m->initiator_depth = d->initiator_depth;
	m->remote_timeout = d->remote_timeout >> 3;
	m->transport = d->remote_timeout >> 1 & 3;
	m->psn = be24(d->psn);
	m->local_timeout = d->local_timeout >> 3;
	m->retry_count = d->local_timeout & 7;
	m->pkey = (u16)be16(d->pkey);
	m->mtu = d->mtu >> 4;
	m->rnr_retry = d->mtu & 7;
	m->max_cm_retries = d->max_cm_retries >> 4;
	m->local_lid = (u16)be16(d->local_lid);
	m->remote_lid = (u16)be16(d->remote_lid);
	memcpy(m->local_gid, d->local_gid, 16);
	memcpy(m->remote_gid, d->remote_gid, 16);
	m->flow_label = be32(d->flow_label) >> 12;
	m->rate = d->flow_label[3] & 0x3f;
	m->traffic_class = d->traffic_class;
	m->hop_limit = d->hop_limit;
	m->ack_timeout = d->ack_timeout >> 3;
}

static void encode_req(const struct cm_message *m, struct req_data *d)
{
	put_be32(d->reserved0, 0);
	put_be64(d->service_id, m->service_id);
	put_be64(d->guid, m->guid);
	put_be24(d->qpn, m->qpn);
	d->responder_resources = m->responder_resources;
	d->initiator_depth = m->initiator_depth;
	d->remote_timeout = (u8)(m->remote_timeout << 3 | (m->transport & 3) << 1);
	put_be24(d->psn, m->psn);
	d->local_timeout = (u8)(m->local_timeout << 3 | (m->retry_count & 7));
	put_be16(d->pkey, m->pkey);
	d->mtu = (u8)(m->mtu << 4 | (m->rnr_retry & 7));
	d->max_cm_retries = (u8)(m->max_cm_retries << 4);
	put_be16(d->local_lid, m->local_lid);
	put_be16(d->remote_lid, m->remote_lid);
	memcpy(d->local_gid, m->local_gid, 16);
	memcpy(d->remote_gid, m->remote_gid, 16);
	put_be32(d->flow_label, m->flow_label << 12 | (m->rate & 0x3f));
	d->traffic_class = m->traffic_class;
	d->hop_limit = m->hop_limit;
	d->ack_timeout = (u8)(m->ack_timeout << 3);
}

static void decode_rep(struct cm_message *m, const struct rep_data *d)
{
	m->qpn = be24(d->qpn);
	m->psn = be24(d->psn);
	m->responder_resources = d->responder_resources;
	m->initiator_depth = d->initiator_depth;
	m->ack_delay = d->ack_delay >> 3;
	m->rnr_retry = d->rnr_retry >> 5;
	m->guid = be64(d->guid);
}

static void encode_rep(const struct cm_message *m, struct rep_data *d)
{
	put_be24(d->qpn, m->qpn);
	put_be24(d->psn, m->psn);
	d->responder_resources = m->responder_resources;
	d->initiator_depth = m->initiator_depth;
	d->ack_delay = (u8)(m->ack_delay << 3);
	d->rnr_retry = (u8)(m->rnr_retry << 5);
	put_be64(d->guid, m->guid);
}

/* Where a message's private data begins; 0: not a message that is known. It ends with the MAD. */
static u32 private_offset(u16 attribute)
{
	switch (attribute) {
	case CM_REQ:
		return offsetof(struct req_data, private_data);
	case CM_REP:
		return offsetof(struct rep_data, private_data);
	case CM_RTU:
	case CM_DREP:
		return offsetof(struct rtu_data, private_data);
	case CM_REJ:
		return offsetof(struct rej_data, private_data);
	case CM_MRA:
		return offsetof(struct mra_data, private_data);
	case CM_DREQ:
		return offsetof(struct dreq_data, private_data);
	default:
		return 0;
	}
}

int cm_decode(struct cm_message *m, const u8 *mad, u32 len)
{
	const struct mad_hdr *h = (const struct mad_hdr *)mad;
	const u8 *data = mad + sizeof(*h);
	u32 private;

	memset(m, 0, sizeof(*m));
	if (len != CM_MAD_SIZE || h->base_version != MAD_BASE_VERSION ||
	    h->mgmt_class != MAD_CLASS_CM || h->class_version != MAD_CLASS_VERSION ||
	    h->method != MAD_METHOD_SEND)
		return ERR_INVAL;
	m->attribute = (u16)be16(h->attribute);
	private = private_offset(m->attribute);
	if (!private)
		return ERR_INVAL;
	m->tid = be64(h->tid);
	m->local_id = be32(data);
	m->remote_id = be32(data + 4);
	m->private_len = (u32)MAD_DATA - private;
	memcpy(m->private_data, data + private, m->private_len);
	switch (m->attribute) {
	case CM_REQ:
		decode_req(m, (const struct req_data *)data);
		break;
	case CM_REP:
		decode_rep(m, (const struct rep_data *)data);
		break;
	case CM_REJ:
		m->which = ((const struct rej_data *)data)->which >> 6;
		m->reason = (u16)be16(((const struct rej_data *)data)->reason);
		break;
	case CM_MRA:
		m->which = ((const struct mra_data *)data)->which >> 6;
		m->service_timeout = ((const struct mra_data *)data)->service_timeout >> 3;
		break;
	case CM_DREQ:
		m->qpn = be24(((const struct dreq_data *)data)->qpn);
		break;
	default:
		break;
	}
	return 0;
}

int cm_encode(const struct cm_message *m, u8 *mad)
{
	struct mad_hdr *h = (struct mad_hdr *)mad;
	u8 *data = mad + sizeof(*h);
	u32 private = private_offset(m->attribute);

	if (!private)
		return ERR_INVAL;
	memset(mad, 0, CM_MAD_SIZE);
	h->base_version = MAD_BASE_VERSION;
	h->mgmt_class = MAD_CLASS_CM;
	h->class_version = MAD_CLASS_VERSION;
	h->method = MAD_METHOD_SEND;
	put_be64(h->tid, m->tid);
	put_be16(h->attribute, m->attribute);
	put_be32(data, m->local_id);
	put_be32(data + 4, m->remote_id);
	memcpy(data + private, m->private_data, MAD_DATA - private);
	switch (m->attribute) {
	case CM_REQ:
		encode_req(m, (struct req_data *)data);
		break;
	case CM_REP:
		encode_rep(m, (struct rep_data *)data);
		break;
	case CM_REJ:
		((struct rej_data *)data)->which = (u8)(m->which << 6);
		put_be16(((struct rej_data *)data)->reason, m->reason);
		break;
	case CM_MRA:
		((struct mra_data *)data)->which = (u8)(m->which << 6);
		((struct mra_data *)data)->service_timeout = (u8)(m->service_timeout << 3);
		break;
	case CM_DREQ:
		put_be24(((struct dreq_data *)data)->qpn, m->qpn);
		break;
	default:
		break;
	}
	return 0;
}

int cm_ip_decode(struct cm_ip_header *h, const u8 *data)
{
	const struct ip_data *d = (const struct ip_data *)data;

	if (d->version || d->ip_version >> 4 != 4)
		return ERR_INVAL;
	h->src_port = (u16)be16(d->src_port);
	h->src_ip = be32(d->src);
	h->dst_ip = be32(d->dst);
	return 0;
}

void cm_ip_encode(const struct cm_ip_header *h, u8 *data)
{
	struct ip_data *d = (struct ip_data *)data;

	memset(d, 0, sizeof(*d));
	d->ip_version = 4 << 4;
	put_be16(d->src_port, h->src_port);
	put_be32(d->src, h->src_ip);
	put_be32(d->dst, h->dst_ip);
}

void cm_gid_from_ip(u8 gid[16], u32 ip)
{
	memset(gid, 0, 10);
	gid[10] = gid[11] = 0xff;
	put_be32(gid + 12, ip);
}

bool cm_gid_is_ip(const u8 gid[16], u32 ip)
{
	u8 want[16];

	cm_gid_from_ip(want, ip);
	return memcmp(gid, want, sizeof(want)) == 0;
}
