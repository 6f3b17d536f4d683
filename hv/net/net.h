/*
 * The machine's network: one NIC, polled, with lwIP (NO_SYS) behind it for ARP, IPv4, ICMP, UDP and
 * DHCP. RoCEv2 goes past lwIP both ways.
 *
 * Single context: everything but net_init(), net_state(), net_service(), net_deadline(),
 * net_poll(), net_busy(), net_sleep() and net_now() is called with the lock of net_lock() held,
 * which is held for short times and never while waiting. Nothing allocates after net_init().
 */
#pragma once

#include <umbra/boot_info.h>

#include "rdma/qp.h"

enum net_state {
	NET_ABSENT, /* not configured, or no NIC that the driver knows */
	NET_DOWN,   /* no link */
	NET_ASKING, /* no address yet */
	NET_UP,
};

struct net_stats {
	u64 rx_frames, rx_bytes, tx_frames, tx_bytes;
	u64 rx_errors; /* frames that the NIC marked bad */
	u64 rx_missed; /* frames that found no buffer, as the NIC counts them */
	u64 tx_full;   /* net_transmit() found no descriptor */
	u64 link_changes;
};

/*
 * Finds and starts the NIC if boot->options.network says so; once, on the boot CPU, before VMs run.
 * 0 also if there is none to start; ERR_NODEV: one is configured and there is none, which is
 * logged.
 */
int net_init(const struct boot_info *boot);

enum net_state net_state(void);
u32 net_ip(void); /* host byte order, 0: none yet */
const u8 *net_mac(void);
const char *net_nic_name(void); /* "82540EM at 00:03.0" */
void net_stats(struct net_stats *out);

/*
 * The MAC address of a machine, or of the gateway if it is not on this network. 0; ERR_BUSY: asked,
 * call again later (it is asked again at most once a second); ERR_NODEV: no network.
 */
int net_resolve(u32 ip, u8 mac[6]);

/*
 * Transmits head, payload and tail; head and tail are copied, the payload must stay until it has
 * left: until net_service() has returned at least once with no frame queued. ERR_BUSY: the ring is
 * full, ERR_NODEV: no link.
 */
int net_transmit(const struct rdma_frame *f);

/* Lets RoCE transmit what has been posted just now, without a look at anything else. */
void net_send(u64 now);
/* The next round looks at everything: RoCE's deadline is nearer than it was. */
void net_look(void);

void net_lock(void);
bool net_trylock(void);
void net_unlock(void);

/*
 * Receives what has arrived, runs lwIP's timers, and lets RoCE transmit. Any CPU; returns at once
 * if another one is at it. True if anything was received or sent.
 */
bool net_service(void);

/*
 * TSC by which net_service() must be called at the latest, as of the last time: a timer is due, or
 * it is time to look whether something has arrived; ~0: never.
 */
u64 net_deadline(void);
/*
 * For a CPU that looks in now and then, whether anybody waits for the network or not: serves it if
 * its deadline has passed. Peers ask whether we live, leases run out, links go. True: frames have
 * come or gone just now, net_busy().
 */
bool net_poll(void);
/*
 * For a CPU 0 that has nothing else to do: sleeps until a frame arrives or a timer is due, or some
 * other interrupt comes. False, at once: the NIC cannot wake anybody, or something is there.
 */
bool net_sleep(void);
/*
 * For a CPU 0 that sleeps in its own way (cpu_idle()): from now on the NIC wakes it by VECTOR_KICK
 * when a frame arrives. False: it cannot, or something is there already: do not sleep for long.
 * Then net_disarm(), in any case.
 */
bool net_arm(void);
void net_disarm(void);
/* Frames have come or gone just now: who is idle calls net_service() without sleeping between. */
bool net_busy(void);

/*
 * RoCE, which remote/ defines (bound at link time), called with the lock held; time is net_now().
 *
 * Each received frame, valid during the call, is offered to roce_take() first, which takes those
 * that are just what is expected next and finds out quickly. Others to UDP port 4791 go to
 * roce_receive(). After RDMA_COMPLETES roce_completed() follows, which is true if there is
 * something to transmit then.
 */
enum rdma_taken roce_take(u64 now, const u8 *frame, size_t len);
void roce_receive(u64 now, const u8 *frame, size_t len);
bool roce_completed(u64 now);
/* In each round that looks at everything, before it transmits. */
void roce_serviced(u64 now);
/* The next frame to transmit, or false. */
bool roce_transmit(u64 now, struct rdma_frame *f);
/* When all has been transmitted: by when the next round has to look at everything though nothing
 * arrives; RDMA_NEVER. */
u64 roce_deadline(void);

/* Nanoseconds, monotonic. */
u64 net_now(void);
