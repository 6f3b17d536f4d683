/* What qp.c, requester.c and responder.c share. */
#pragma once

#include "rdma/qp.h"

#define DEFAULT_PKEY 0xffff
#define PKEY_MASK    0x7fff /* the top bit says full or limited member */

/* Packets of a message or of a READ's response; an empty one takes one. */
static inline u32 rdma_packets(const struct rdma_qp *qp, u32 length)
{
	return length ? (length - 1) / qp->config.mtu + 1 : 1;
}

void requester_init(struct rdma_qp *qp);
/* Completes the oldest request with `status` and the others as flushed. */
void requester_fail(struct rdma_qp *qp, enum rdma_status status);
void requester_receive(struct rdma_qp *qp, u64 now, const struct rdma_packet *p);
void requester_cnp(struct rdma_qp *qp);
/* Fills opcode, PSN, headers and payload; false: nothing to send now. */
bool requester_transmit(struct rdma_qp *qp, u64 now, struct rdma_packet *p);

void responder_init(struct rdma_qp *qp);
/* Flushes the receives; answers that are queued are still sent. */
void responder_fail(struct rdma_qp *qp);
void responder_receive(struct rdma_qp *qp, const struct rdma_packet *p);
bool responder_transmit(struct rdma_qp *qp, struct rdma_packet *p);
