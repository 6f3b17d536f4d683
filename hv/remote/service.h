/*
 * What the machine does with RoCE (net/net.h's roce_* hooks): as a hypervisor it has links to
 * memory nodes, one fabric for the stores of all VMs (remote.h); as a memory node it answers
 * clients.
 */
#pragma once

#include <umbra/boot_info.h>

#include "net/net.h"
#include "rdma/fabric.h"

/* After net_init(), before VMs run. Nothing without a network. */
void service_init(const struct boot_info *boot);

/* For the monitor. */
struct service_view {
	enum net_state state;
	char nic[48];
	u8 mac[6];
	u32 ip;
	struct net_stats net;
	struct {
		enum link_state state; /* LINK_UNUSED: none */
		u32 ip;
		u16 port, slice;
		u16 refused; /* enum cm_reason of the last attempt, 0: none */
		u64 length, connections, failures, round_trip;
	} link[FABRIC_LINKS];
};
/* No lock held. ERR_NODEV: there is no network; ERR_BUSY: somebody is just at it, try again. */
int service_view(struct service_view *out);
