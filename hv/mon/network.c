/* The command `network`: the machine's card, and its links to memory nodes. */
#include "mon/mon.h"
#include "remote/service.h"
#include "x86/asm.h"
#include "x86/tsc.h"

typedef unsigned long long ull;

#define PATIENCE_US 100000

static const char *const states[] = {
	[NET_ABSENT] = "absent",
	[NET_DOWN] = "no link",
	[NET_ASKING] = "asks for an address",
	[NET_UP] = "up",
};

static const char *const link_states[] = {
	[LINK_UNUSED] = "unused", [LINK_WAITING] = "waits", [LINK_CONNECTING] = "connects",
	[LINK_UP] = "up",	  [LINK_DOWN] = "down",	    [LINK_LEAVING] = "leaves",
};

static void show_card(const struct service_view *v)
{
	const struct net_stats *n = &v->net;
	const u8 *m = v->mac;

	mon_print("card        %s, %02x:%02x:%02x:%02x:%02x:%02x, %s\n", v->nic, m[0], m[1], m[2],
		  m[3], m[4], m[5], states[v->state]);
	mon_print("address     %u.%u.%u.%u\n", v->ip >> 24, v->ip >> 16 & 255, v->ip >> 8 & 255,
		  v->ip & 255);
	mon_print("received    %llu frames, %llu bytes; %llu bad, %llu found no buffer\n",
		  (ull)n->rx_frames, (ull)n->rx_bytes, (ull)n->rx_errors, (ull)n->rx_missed);
	mon_print("sent        %llu frames, %llu bytes; ring full %llu times\n", (ull)n->tx_frames,
		  (ull)n->tx_bytes, (ull)n->tx_full);
	mon_print("link        changed %llu times\n", (ull)n->link_changes);
}

static void show_link(const struct service_view *v, u32 i)
{
	u32 ip = v->link[i].ip;

	mon_print("node        %u.%u.%u.%u:%u %s; %llu connections, %llu failures", ip >> 24,
		  ip >> 16 & 255, ip >> 8 & 255, ip & 255, v->link[i].port,
		  link_states[v->link[i].state], (ull)v->link[i].connections,
		  (ull)v->link[i].failures);
	if (v->link[i].refused)
		mon_print(", refused (%u)", v->link[i].refused);
	mon_print("\n");
	if (v->link[i].connections)
		mon_print("            slice %u of %llu MiB, round trip %llu us\n",
			  v->link[i].slice, (ull)(v->link[i].length / MIB),
			  (ull)(v->link[i].round_trip / 1000));
}

/* The card first, then a link in each step. */
static enum step network_step(struct job *job)
{
	struct service_view v;
	int err = service_view(&v);

	if (err == ERR_BUSY && rdtsc() < job->deadline)
		return STEP_WAIT;
	if (err) {
		mon_print(err == ERR_BUSY ? "the network is busy\n" : "there is no network\n");
		return STEP_DONE;
	}
	if (!job->phase++) {
		show_card(&v);
		return STEP_MORE;
	}
	while (job->at < FABRIC_LINKS && v.link[job->at].state == LINK_UNUSED)
		job->at++;
	if (job->at == FABRIC_LINKS)
		return STEP_DONE;
	show_link(&v, (u32)job->at++);
	return STEP_MORE;
}

bool show_network(const struct words *w, struct job *job)
{
	if (w->count)
		return false;
	job->at = 0;
	job->deadline = rdtsc() + tsc_from_us(PATIENCE_US);
	job->step = network_step;
	return true;
}
