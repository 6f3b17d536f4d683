#include "remote/memnode.h"

#include "lib/log.h"
#include "lib/string.h"
#include "mem/frame.h"
#include "net/net.h"
#include "rdma/node.h"
#include "x86/asm.h"
#include "x86/entropy.h"

static struct {
	struct node node;
	struct node_config config;
	bool active; /* the node runs: it has an address */
	struct {
		bool connected;
		u32 ip;
	} seen[NODE_SLICES]; /* as logged */
	u64 refused;	     /* as logged */
	u64 say_refused;     /* when the log may be told again */
} lent;

#define REFUSED_PERIOD 10000000000ull /* ns between two lines */

/* The largest contiguous range of up to `wanted` bytes. */
static u64 take_memory(u64 wanted, hpa_t *base)
{
	u64 good = 0, bad = ALIGN_DOWN(wanted, SIZE_2M) + SIZE_2M;

	while (bad - good > SIZE_2M) {
		u64 middle = ALIGN_DOWN(good + (bad - good + SIZE_2M) / 2, SIZE_2M);

		if (middle == bad)
			middle -= SIZE_2M;
		if (frame_alloc(FRAME_LENT, middle, SIZE_2M, base)) {
			bad = middle;
		} else {
			frame_free(FRAME_LENT, *base, middle);
			good = middle;
		}
	}
	if (good && frame_alloc(FRAME_LENT, good, SIZE_2M, base))
		return 0;
	return good;
}

int memnode_init(const struct boot_info *boot)
{
	const struct boot_options *o = &boot->options;
	struct frame_stats frames;
	u64 wanted = o->node_memory, got;
	hpa_t base;

	if (net_state() == NET_ABSENT) {
		log_error("memory node: no network, nobody can be served");
		return ERR_NODEV;
	}
	frame_stats(&frames);
	if (!wanted)
		wanted = frames.free * PAGE_SIZE / 2;
	got = take_memory(wanted, &base);
	if (!got) {
		log_error("memory node: no memory to lend");
		return ERR_NOMEM;
	}
	if (got < ALIGN_DOWN(wanted, SIZE_2M))
		log_warn("memory node: %llu of %llu MiB: no more in one piece", got / MIB,
			 wanted / MIB);
	memset(phys_to_ptr(base), 0, got);
	lent.config = (struct node_config){
		.guid = entropy_word(),
		.port = NODE_PORT,
		.memory = phys_to_ptr(base),
		.length = got,
		.slices = o->node_slices,
		.entropy = entropy_word(),
	};
	memcpy(lent.config.mac, net_mac(), sizeof(lent.config.mac));
	memcpy(lent.config.token, o->node_token, sizeof(lent.config.token));
	return 0;
}

/* The node begins with the first address; with another one its clients have to find it anew. */
static void follow_address(void)
{
	u32 ip = net_ip();

	if (!ip || ip == lent.config.ip)
		return;
	lent.config.ip = ip;
	if (lent.active) {
		lent.node.config.ip = ip;
		lent.node.agent.ip = ip;
	} else if (node_init(&lent.node, &lent.config)) {
		log_error("memory node: %llu MiB cannot be divided into %u slices",
			  lent.config.length / MIB, lent.config.slices);
		return;
	}
	lent.active = true;
	log_info("memory node: %llu MiB in %u slice%s at %u.%u.%u.%u port %u, incarnation %016lx",
		 lent.config.length / MIB, lent.config.slices, lent.config.slices == 1 ? "" : "s",
		 ip >> 24, ip >> 16 & 255, ip >> 8 & 255, ip & 255, lent.config.port,
		 lent.node.incarnation);
}

__noreturn void memnode_run(void)
{
	for (;;) {
		if (!net_service() && (net_busy() || !net_sleep()))
			cpu_relax();
		if (!lent.active) {
			net_lock();
			follow_address();
			net_unlock();
		}
	}
}

bool memnode_active(void)
{
	return lent.active;
}

void memnode_receive(u64 now, const u8 *frame, size_t len)
{
	node_receive(&lent.node, now, frame, len);
}

bool memnode_transmit(u64 now, struct rdma_frame *f)
{
	return node_transmit(&lent.node, now, f);
}

u64 memnode_deadline(void)
{
	return node_deadline(&lent.node);
}

static void say_client(u32 slice, u32 ip, const char *what)
{
	log_info("memory node: slice %u: %u.%u.%u.%u %s", slice, ip >> 24, ip >> 16 & 255,
		 ip >> 8 & 255, ip & 255, what);
}

void memnode_serviced(u64 now)
{
	follow_address();
	for (u32 i = 0; i < lent.config.slices; i++) {
		const struct node_slice *s = &lent.node.slice[i];
		bool connected = s->c && s->c->state == CM_ESTABLISHED;

		if (connected == lent.seen[i].connected)
			continue;
		if (connected)
			lent.seen[i].ip = s->c->remote_ip;
		lent.seen[i].connected = connected;
		say_client(i, lent.seen[i].ip, connected ? "has connected" : "has gone");
	}
	if (lent.node.refused != lent.refused && now >= lent.say_refused) {
		log_info("memory node: %lu clients refused so far", lent.node.refused);
		lent.refused = lent.node.refused;
		lent.say_refused = now + REFUSED_PERIOD;
	}
}
