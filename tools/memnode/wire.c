#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "wire.h"

/* RFC 826, Ethernet and IPv4. */
struct arp {
	struct eth_hdr eth;
	u8 hardware[2], protocol[2], hardware_len, protocol_len, operation[2];
	u8 src_mac[6], src_ip[4], dst_mac[6], dst_ip[4];
};

_Static_assert(sizeof(struct arp) == 42, "ARP");

#define ETHERTYPE_ARP 0x0806
#define ARP_REQUEST   1
#define ARP_REPLY     2

u64 wire_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (u64)t.tv_sec * 1000000000 + (u64)t.tv_nsec;
}

void wire_open(struct wire *w, u16 local_port, u16 remote_port, const u8 mac[6], u32 ip)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(local_port)};
	int size = 4 << 20;

	memset(w, 0, sizeof(*w));
	memcpy(w->mac, mac, 6);
	w->ip = ip;
	w->remote_port = remote_port;
	w->seed = 1;
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	w->fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (w->fd < 0 || bind(w->fd, (struct sockaddr *)&at, sizeof(at))) {
		perror("UDP socket");
		exit(1);
	}
	setsockopt(w->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
}

static bool lose(struct wire *w)
{
	w->seed = w->seed * 6364136223846793005ull + 1442695040888963407ull;
	if ((u32)(w->seed >> 33) % 1000 >= w->loss)
		return false;
	w->lost++;
	return true;
}

static void transmit(struct wire *w, const void *frame, size_t len)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(w->remote_port)};

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	/* Nobody there yet: lost, as on any wire. */
	if (sendto(w->fd, frame, len, 0, (struct sockaddr *)&to, sizeof(to)) < 0)
		w->lost++;
}

void wire_send(struct wire *w, const void *frame, size_t len)
{
	if (!lose(w))
		transmit(w, frame, len);
}

static void arp_send(struct wire *w, u32 operation, const u8 mac[6], u32 ip)
{
	static const u8 everyone[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	struct arp a;

	memset(&a, 0, sizeof(a));
	memcpy(a.eth.dst, mac ? mac : everyone, 6);
	memcpy(a.eth.src, w->mac, 6);
	put_be16(a.eth.type, ETHERTYPE_ARP);
	put_be16(a.hardware, 1);
	put_be16(a.protocol, ETHERTYPE_IPV4);
	a.hardware_len = 6;
	a.protocol_len = 4;
	put_be16(a.operation, operation);
	memcpy(a.src_mac, w->mac, 6);
	put_be32(a.src_ip, w->ip);
	if (mac)
		memcpy(a.dst_mac, mac, 6);
	put_be32(a.dst_ip, ip);
	transmit(w, &a, sizeof(a));
}

static void arp_receive(struct wire *w, const struct arp *a)
{
	if (be32(a->dst_ip) != w->ip)
		return;
	if (be16(a->operation) == ARP_REQUEST) {
		arp_send(w, ARP_REPLY, a->src_mac, be32(a->src_ip));
	} else if (be16(a->operation) == ARP_REPLY) {
		w->arp_ip = be32(a->src_ip);
		memcpy(w->arp_mac, a->src_mac, 6);
	}
}

size_t wire_receive(struct wire *w, u8 *frame, size_t size, u32 timeout_us)
{
	u64 end = wire_now() + timeout_us * 1000ull;

	for (;;) {
		u64 now = wire_now();
		struct timespec wait = {0, now < end ? (long)(end - now) : 0};
		struct pollfd poll_fd = {w->fd, POLLIN, 0};
		ssize_t n;

		n = recv(w->fd, frame, size, MSG_DONTWAIT);
		if (n < (ssize_t)sizeof(struct eth_hdr)) {
			if (now >= end)
				return 0;
			ppoll(&poll_fd, 1, &wait, NULL);
			continue;
		}
		if (be16(((struct eth_hdr *)frame)->type) == ETHERTYPE_ARP &&
		    n >= (ssize_t)sizeof(struct arp))
			arp_receive(w, (const struct arp *)frame);
		else if (!lose(w))
			return (size_t)n;
	}
}

bool wire_resolve(struct wire *w, u32 ip, u8 mac[6])
{
	u8 frame[RDMA_FRAME_MAX];
	int i;

	for (i = 0; i < 100; i++) {
		arp_send(w, ARP_REQUEST, NULL, ip);
		wire_receive(w, frame, sizeof(frame), 100000);
		if (w->arp_ip == ip) {
			memcpy(mac, w->arp_mac, 6);
			return true;
		}
	}
	return false;
}
