/*
 * What of lwIP (2.1.3) is used: ARP, IPv4, ICMP echo, UDP and DHCP, in a single context. Little
 * goes through it: RoCE passes it by, so its pools are small.
 */
#pragma once

#define NO_SYS		     1
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_TIMERS	     1

#define LWIP_NETCONN 0
#define LWIP_SOCKET  0
#define LWIP_TCP     0
#define LWIP_RAW     0
#define LWIP_IPV6    0
#define LWIP_IGMP    0
#define LWIP_DNS     0
#define LWIP_STATS   0

#define LWIP_IPV4     1
#define LWIP_ARP      1
#define LWIP_ETHERNET 1
#define LWIP_ICMP     1
#define LWIP_UDP      1
#define LWIP_DHCP     1
#define LWIP_AUTOIP   0
#define IP_FORWARD    0
/* No fragments: what peers of ours send fits into a frame, and half of one is no use. */
#define IP_REASSEMBLY	    0
#define IP_FRAG		    0
#define LWIP_BROADCAST_PING 0

#define MEM_ALIGNMENT	  8
#define MEM_SIZE	  (16 * 1024)
#define MEMP_NUM_UDP_PCB  4
#define MEMP_NUM_PBUF	  16
#define PBUF_POOL_SIZE	  32
#define PBUF_POOL_BUFSIZE 1536
#define ARP_TABLE_SIZE	  16
#define ARP_QUEUEING	  0

#define LWIP_NETIF_TX_SINGLE_PBUF  1
#define LWIP_NUM_NETIF_CLIENT_DATA 0
#define LWIP_SINGLE_NETIF	   1
