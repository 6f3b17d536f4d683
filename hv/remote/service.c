#include "remote/service.h"

#include "lib/log.h"
#include "lib/string.h"
#include "net/net.h"
#include "rdma/take.h"
#include "remote/memnode.h"
#include "remote/remote.h"
#include "x86/entropy.h"

#define ROCE_MTU 1024 /* the largest power of two that fits into Ethernet's 1,500 bytes */

static struct fabric fabric;
static bool have_fabric;

void service_init(const struct boot_info *boot)
{
	if (net_state() == NET_ABSENT || boot->options.role == BOOT_ROLE_MEMORY_NODE)
		return;
	net_lock();
	fabric_init(&fabric, ROCE_MTU, entropy_word());
	have_fabric = true;
	net_unlock();
}

struct fabric *service_fabric(void)
{
	return have_fabric ? &fabric : NULL;
}

static void view_links(struct service_view *out)
{
	for (u32 i = 0; i < FABRIC_LINKS; i++) {
		const struct fabric_link *l = &fabric.link[i];

		out->link[i].state = l->state;
		out->link[i].ip = l->peer.ip;
		out->link[i].port = l->peer.port;
		out->link[i].slice = l->slice;
		out->link[i].refused = l->refused;
		out->link[i].length = l->length;
		out->link[i].connections = l->connections;
		out->link[i].failures = l->failures;
		out->link[i].round_trip = l->round_trip;
	}
}

int service_view(struct service_view *out)
{
	if (net_state() == NET_ABSENT)
		return ERR_NODEV;
	if (!net_trylock())
		return ERR_BUSY;
	memset(out, 0, sizeof(*out));
	out->state = net_state();
	str_copy(out->nic, sizeof(out->nic), net_nic_name());
	memcpy(out->mac, net_mac(), sizeof(out->mac));
	out->ip = net_ip();
	net_stats(&out->net);
	if (have_fabric)
		view_links(out);
	net_unlock();
	return 0;
}

int fabric_resolve(u32 ip, u8 mac[6])
{
	return net_resolve(ip, mac);
}

enum rdma_taken roce_take(u64 now, const u8 *frame, size_t len)
{
	return likely(have_fabric) ? fabric_take(&fabric, now, frame, len) : RDMA_OTHER;
}

void roce_receive(u64 now, const u8 *frame, size_t len)
{
	if (memnode_active())
		memnode_receive(now, frame, len);
	else if (have_fabric)
		fabric_receive(&fabric, now, frame, len);
}

bool roce_transmit(u64 now, struct rdma_frame *f)
{
	if (likely(have_fabric))
		return !fabric_rests(&fabric, now) && fabric_transmit(&fabric, now, f);
	return memnode_active() && memnode_transmit(now, f);
}

u64 roce_deadline(void)
{
	if (memnode_active())
		return memnode_deadline();
	if (!have_fabric)
		return RDMA_NEVER;
	return MIN(fabric_deadline(&fabric), remote_deadline());
}

bool roce_completed(u64 now)
{
	remote_work(now);
	return fabric.pending;
}

void roce_serviced(u64 now)
{
	if (memnode_active()) {
		memnode_serviced(now);
	} else if (have_fabric) {
		if (unlikely(fabric.ip != net_ip()))
			fabric_set_address(&fabric, net_mac(), net_ip());
		fabric_work(&fabric, now);
		remote_work(now);
	}
}
