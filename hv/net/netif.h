/*
 * lwIP behind the NIC: everything that is not RoCE. One context; nothing of lwIP's types is seen
 * outside. net/ only.
 */
#pragma once

#include <umbra/boot_info.h>

#include "lib/types.h"

/* Defined by net.c: a frame in pieces to be copied. */
struct netif_piece {
	const void *data;
	u32 len;
};
void netif_port_transmit(const struct netif_piece *piece, u32 pieces);
/* Defined by net.c: milliseconds, which may wrap. */
u32 netif_port_ms(void);

/* seed: random, for identifiers of DHCP. */
void netif_port_init(const struct boot_network *config, const u8 mac[6], u64 seed);
void netif_port_link(bool up);
void netif_port_receive(const u8 *frame, size_t len);
/* Runs timers that are due. */
void netif_port_timers(void);
/* Milliseconds until the next one. */
u32 netif_port_wait(void);

/* Host byte order; 0: none yet. */
u32 netif_port_ip(void);
u32 netif_port_mask(void);
u32 netif_port_gateway(void);

/* The MAC address of a machine on this network: true, or it is asked for with `ask`. */
bool netif_port_find(u32 ip, u8 mac[6], bool ask);
