#include "net/netif.h"

/* lwIP has an error of the same name as lib/types.h, and nothing here needs it. */
#define ERR_TIMEOUT LWIP_ERR_TIMEOUT
#include <lwip/dhcp.h>
#include <lwip/etharp.h>
#include <lwip/init.h>
#include <lwip/netif.h>
#include <lwip/sys.h>
#include <lwip/timeouts.h>
#include <netif/ethernet.h>
#undef ERR_TIMEOUT

#include "lib/panic.h"
#include "lib/string.h"

#define ETHERNET_MTU 1500
#define TX_PIECES    4

static struct netif netif;
static u64 random_state;

/* Names that lwIP has from a C library. */
int atoi(const char *s);
int strncmp(const char *a, const char *b, size_t n);

int atoi(const char *s)
{
	int v = 0;

	while (*s >= '0' && *s <= '9')
		v = v * 10 + (*s++ - '0');
	return v;
}

int strncmp(const char *a, const char *b, size_t n)
{
	for (; n; n--, a++, b++)
		if (*a != *b || !*a)
			return (unsigned char)*a - (unsigned char)*b;
	return 0;
}

u32_t sys_now(void)
{
	return netif_port_ms();
}

/* splitmix64: identifiers that do not repeat, no secrets. */
unsigned int lwip_port_random(void)
{
	u64 z = random_state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return (unsigned int)(z ^ z >> 31);
}

void lwip_port_assert(const char *what, const char *file, int line)
{
	panic("lwIP: %s (%s:%d)", what, file, line);
}

static err_t output(struct netif *unused, struct pbuf *p)
{
	struct netif_piece piece[TX_PIECES];
	u32 n = 0;

	for (; p && n < TX_PIECES; p = p->next)
		piece[n++] = (struct netif_piece){p->payload, p->len};
	if (p)
		return ERR_MEM;
	netif_port_transmit(piece, n);
	return ERR_OK;
}

static err_t start(struct netif *n)
{
	n->name[0] = 'e';
	n->name[1] = '0';
	n->mtu = ETHERNET_MTU;
	n->hwaddr_len = ETH_HWADDR_LEN;
	n->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET;
	n->output = etharp_output;
	n->linkoutput = output;
	return ERR_OK;
}

void netif_port_init(const struct boot_network *config, const u8 mac[6], u64 seed)
{
	bool fixed = config->mode == BOOT_NETWORK_STATIC;
	ip4_addr_t ip = {fixed ? lwip_htonl(config->address) : 0};
	ip4_addr_t mask = {fixed ? lwip_htonl(~0u << (32 - config->prefix)) : 0};
	ip4_addr_t gateway = {fixed ? lwip_htonl(config->gateway) : 0};

	random_state = seed;
	lwip_init();
	memcpy(netif.hwaddr, mac, ETH_HWADDR_LEN);
	netif_add(&netif, &ip, &mask, &gateway, NULL, start, ethernet_input);
	netif_set_default(&netif);
	netif_set_up(&netif);
	if (config->mode == BOOT_NETWORK_DHCP)
		dhcp_start(&netif);
}

void netif_port_link(bool up)
{
	if (up)
		netif_set_link_up(&netif);
	else
		netif_set_link_down(&netif);
}

void netif_port_receive(const u8 *frame, size_t len)
{
	struct pbuf *p;

	if (len > ETHERNET_MTU + SIZEOF_ETH_HDR)
		return;
	p = pbuf_alloc(PBUF_RAW, (u16_t)len, PBUF_POOL);
	if (!p)
		return;
	pbuf_take(p, frame, (u16_t)len);
	if (netif.input(p, &netif) != ERR_OK)
		pbuf_free(p);
}

void netif_port_timers(void)
{
	sys_check_timeouts();
}

u32 netif_port_wait(void)
{
	return sys_timeouts_sleeptime();
}

u32 netif_port_ip(void)
{
	return lwip_ntohl(netif_ip4_addr(&netif)->addr);
}

u32 netif_port_mask(void)
{
	return lwip_ntohl(netif_ip4_netmask(&netif)->addr);
}

u32 netif_port_gateway(void)
{
	return lwip_ntohl(netif_ip4_gw(&netif)->addr);
}

bool netif_port_find(u32 ip, u8 mac[6], bool ask)
{
	const ip4_addr_t wanted = {lwip_htonl(ip)}, *found_ip;
	struct eth_addr *found;

	if (etharp_find_addr(&netif, &wanted, &found, &found_ip) >= 0) {
		memcpy(mac, found, ETH_HWADDR_LEN);
		return true;
	}
	if (ask)
		etharp_request(&netif, &wanted);
	return false;
}
