/*
 * `role = memory-node`: this machine runs no guests and lends its RAM by rdma/node.h. The RAM is
 * one contiguous range, the largest that there is up to what the configuration asks for, zeroed.
 */
#pragma once

#include <umbra/boot_info.h>

#include "rdma/packet.h"

/* After net_init(). ERR_NODEV: no network; ERR_NOMEM: nothing to lend. Both are logged. */
int memnode_init(const struct boot_info *boot);

/* The boot CPU's life as a node: serves the network for ever. */
__noreturn void memnode_run(void);

/* For service.c, with the network's lock held. */
bool memnode_active(void);
void memnode_receive(u64 now, const u8 *frame, size_t len);
bool memnode_transmit(u64 now, struct rdma_frame *f);
u64 memnode_deadline(void);
/* Logs clients that have come and gone. */
void memnode_serviced(u64 now);
