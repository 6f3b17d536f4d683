/*
 * Messages of the communication manager: MADs of management class 7 on QP 1 (IBTA 13.4.3 for the
 * header, 12.6 and 12.7 for the messages), and the IP header that RDMA-CM puts in front of a REQ's
 * private data (annex A11).
 */
#pragma once

#include "rdma/wire.h"

#define CM_MAD_SIZE	    256u
#define CM_QPN		    1u
#define CM_QKEY		    0x80010000u
#define CM_PRIVATE_MAX	    224u /* RTU, DREP */
#define CM_REQ_PRIVATE	    92u
#define CM_REP_PRIVATE	    196u
#define CM_IP_HEADER	    36u
#define CM_REQ_USER_PRIVATE (CM_REQ_PRIVATE - CM_IP_HEADER)
#define CM_SERVICE_TCP	    0x0000000001060000ull /* RDMA_PS_TCP; the port is in the low 16 bits */

enum cm_attribute {
	CM_REQ = 0x10,
	CM_MRA = 0x11,
	CM_REJ = 0x12,
	CM_REP = 0x13,
	CM_RTU = 0x14,
	CM_DREQ = 0x15,
	CM_DREP = 0x16,
};

/* Reasons of a REJ, IBTA 12.6.7.2. */
enum cm_reason {
	CM_REJ_NO_QP = 1,
	CM_REJ_TIMEOUT = 4,
	CM_REJ_INVALID_COMM_ID = 6,
	CM_REJ_INVALID_SERVICE = 8,
	CM_REJ_INVALID_TRANSPORT = 9,
	CM_REJ_STALE = 10,
	CM_REJ_REMOTE_GID = 12,
	CM_REJ_INVALID_MTU = 26,
	CM_REJ_CONSUMER = 28,
};

/* A message's fields in host byte order; each has its meaning in the messages named only. */
struct cm_message {
	u16 attribute;
	u64 tid;
	u32 local_id, remote_id;   /* sender's, receiver's; a REQ has no remote_id */
	u64 service_id;		   /* REQ */
	u64 guid;		   /* REQ, REP */
	u32 qpn;		   /* REQ, REP: sender's. DREQ: receiver's */
	u32 psn;		   /* REQ, REP: of the first request that the receiver will send */
	u8 responder_resources;	   /* REQ, REP */
	u8 initiator_depth;	   /* REQ, REP */
	u8 remote_timeout;	   /* REQ: 5 bits, for the receiver to answer */
	u8 local_timeout;	   /* REQ: 5 bits, for the sender to answer */
	u8 transport;		   /* REQ: 2 bits, 0 is RC */
	u8 retry_count;		   /* REQ: 3 bits */
	u8 rnr_retry;		   /* REQ, REP: 3 bits */
	u8 max_cm_retries;	   /* REQ: 4 bits */
	u8 mtu;			   /* REQ: 1 to 5, 256 to 4096 bytes */
	u16 pkey;		   /* REQ */
	u16 local_lid, remote_lid; /* REQ: 0xffff in Ethernet */
	u8 local_gid[16], remote_gid[16];
	u32 flow_label; /* REQ: 20 bits */
	u8 rate;	/* REQ: 6 bits */
	u8 traffic_class, hop_limit;
	u8 ack_timeout;	    /* REQ: 5 bits, for the receiver's QP */
	u8 ack_delay;	    /* REP: 5 bits */
	u8 which;	    /* MRA, REJ: 0 REQ, 1 REP, 2 other */
	u8 service_timeout; /* MRA: 5 bits */
	u16 reason;	    /* REJ */
	u32 private_len;    /* what the message has room for */
	u8 private_data[CM_PRIVATE_MAX];
};

/* ERR_INVAL: not a MAD of the communication manager, or none of the messages above. */
int cm_decode(struct cm_message *m, const u8 *mad, u32 len);

/* Encodes to CM_MAD_SIZE bytes; private_len is not looked at, private_data is taken whole. */
int cm_encode(const struct cm_message *m, u8 *mad);

struct cm_ip_header {
	u16 src_port;
	u32 src_ip, dst_ip;
};

/* ERR_INVAL: another version, or not IPv4. `data` has CM_IP_HEADER bytes. */
int cm_ip_decode(struct cm_ip_header *h, const u8 *data);
void cm_ip_encode(const struct cm_ip_header *h, u8 *data);

/* ::ffff:a.b.c.d */
void cm_gid_from_ip(u8 gid[16], u32 ip);
bool cm_gid_is_ip(const u8 gid[16], u32 ip);
