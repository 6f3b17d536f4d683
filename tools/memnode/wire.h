/*
 * Ethernet for a host process without privileges: frames in UDP datagrams, as QEMU's `-netdev
 * dgram` and Bochs's `ethmod=socket` carry them. Answers ARP, and can lose frames.
 */
#pragma once

#include "rdma/packet.h"

struct wire {
	int fd;
	u16 remote_port;
	u8 mac[6];
	u32 ip;
	u32 loss; /* in 1/1000, both ways */
	u64 seed;
	u64 lost;
	u32 arp_ip; /* what the last ARP reply said */
	u8 arp_mac[6];
};

/* UDP on 127.0.0.1; exits with a message if that fails. */
void wire_open(struct wire *w, u16 local_port, u16 remote_port, const u8 mac[6], u32 ip);
void wire_send(struct wire *w, const void *frame, size_t len);
/* The next frame that is not ARP, 0 after `timeout_us` without one. */
size_t wire_receive(struct wire *w, u8 *frame, size_t size, u32 timeout_us);
/* False: nobody has answered for ten seconds. */
bool wire_resolve(struct wire *w, u32 ip, u8 mac[6]);
/* Nanoseconds since some start. */
u64 wire_now(void);
