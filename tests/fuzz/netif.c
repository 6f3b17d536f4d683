/*
 * lwIP as hv/net/netif.c sets it up: any frames and any time between them, first while it asks for
 * an address. An assertion of lwIP's would be a panic of the hypervisor's, caused by a packet.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "net/netif.h"

#define FRAME_MAX 1514u
#define DHCP_PORT 67
#define PORT_AT	  36 /* UDP's, the destination */
#define XID_AT	  46 /* DHCP's transaction */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const u8 mac[6] = {0x52, 0x54, 0, 1, 2, 3};
static u32 ms;
static u8 xid[4]; /* of the last question */

void netif_port_transmit(const struct netif_piece *piece, u32 pieces)
{
	u8 frame[FRAME_MAX];
	u32 bytes = 0;

	for (u32 i = 0; i < pieces; i++) {
		if (piece[i].len > FRAME_MAX - bytes)
			abort();
		memcpy(frame + bytes, piece[i].data, piece[i].len);
		bytes += piece[i].len;
	}
	if (bytes < 14)
		abort();
	if (bytes > XID_AT + 4 && frame[PORT_AT + 1] == DHCP_PORT)
		memcpy(xid, frame + XID_AT, 4);
}

u32 netif_port_ms(void)
{
	return ms;
}

/* Each step: its kind, a length, and bytes. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct boot_network dhcp = {.mode = BOOT_NETWORK_DHCP};
	static bool started;
	u8 *frame, found[6];

	if (!started) {
		netif_port_init(&dhcp, mac, 1);
		netif_port_link(true);
		started = true;
	}
	while (size >= 2) {
		u32 kind = data[0], n = (u32)MIN((size_t)data[1] * 6, size - 2);

		data += 2;
		size -= 2;
		switch (kind & 7) {
		case 0: /* time passes: the answers to DHCP and ARP are awaited for seconds */
			ms += 500;
			netif_port_timers();
			n = 0;
			break;
		case 1:
			netif_port_link(kind & 8);
			n = 0;
			break;
		case 2:
			netif_port_find(netif_port_ip() ^ kind, found, true);
			n = 0;
			break;
		default: /* of its own size, so that reading beyond it is noticed; mostly for us */
			frame = malloc(n ? n : 1);
			memcpy(frame, data, n);
			if (n >= 6 && (kind & 8))
				memcpy(frame, mac, 6);
			if (n >= XID_AT + 4 && (kind & 16))
				memcpy(frame + XID_AT, xid, 4);
			netif_port_receive(frame, n);
			free(frame);
			break;
		}
		data += n;
		size -= n;
	}
	return 0;
}
