/*
 * memnode: a memory node in a host process, for development. It speaks Ethernet in UDP datagrams on
 * 127.0.0.1, as QEMU's `-netdev dgram` and Bochs's `ethmod=socket` do, and needs no privileges.
 */
#include <arpa/inet.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "rdma/node.h"
#include "wire.h"

static const char usage[] =
	"memnode [--udp LOCAL:REMOTE] [--ip A.B.C.D] [--port N] [--size MIB] [--slices N]\n"
	"        [--token TEXT] [--loss PER-MILLE]\n";

static struct node node;
static struct wire wire;

static u64 entropy(void)
{
	u64 v = 0;
	FILE *f = fopen("/dev/urandom", "rb");

	if (!f || fread(&v, sizeof(v), 1, f) != 1) {
		perror("/dev/urandom");
		exit(1);
	}
	fclose(f);
	return v;
}

static void serve(void)
{
	u8 bytes[RDMA_FRAME_MAX];
	struct rdma_frame f;
	size_t n;

	for (;;) {
		u32 wait = 20000;

		while (node_transmit(&node, wire_now(), &f))
			wire_send(&wire, bytes, rdma_frame_copy(&f, bytes));
		while ((n = wire_receive(&wire, bytes, sizeof(bytes), wait)) > 0) {
			node_receive(&node, wire_now(), bytes, n);
			wait = 0;
		}
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"udp", 1, NULL, 'u'},	{"ip", 1, NULL, 'i'},	  {"port", 1, NULL, 'p'},
		{"size", 1, NULL, 's'}, {"slices", 1, NULL, 'n'}, {"token", 1, NULL, 't'},
		{"loss", 1, NULL, 'l'}, {NULL, 0, NULL, 0},
	};
	struct node_config config = {
		.mac = {2, 'm'},
		.ip = 0x0a4d0002,
		.guid = entropy(),
		.port = NODE_PORT,
		.length = 64 * MIB,
		.slices = 1,
		.entropy = entropy(),
	};
	unsigned int local = 17782, remote = 17781, loss = 0;
	struct in_addr address;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'u':
			if (sscanf(optarg, "%5u:%5u", &local, &remote) != 2)
				goto bad;
			break;
		case 'i':
			if (!inet_aton(optarg, &address))
				goto bad;
			config.ip = ntohl(address.s_addr);
			break;
		case 'p':
			config.port = (u16)atoi(optarg);
			break;
		case 's':
			config.length = strtoull(optarg, NULL, 0) * MIB;
			break;
		case 'n':
			config.slices = (u32)atoi(optarg);
			break;
		case 't':
			memcpy(config.token, optarg, strnlen(optarg, NODE_TOKEN));
			break;
		case 'l':
			loss = (unsigned int)atoi(optarg);
			break;
		default:
			goto bad;
		}
	}
	/* Several nodes on one switch have an address each. */
	put_be32(config.mac + 2, config.ip);
	config.memory = mmap(NULL, config.length, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (config.memory == MAP_FAILED || node_init(&node, &config))
		goto bad;
	wire_open(&wire, (u16)local, (u16)remote, config.mac, config.ip);
	wire.loss = loss;
	printf("memnode: %llu MiB in %u slices, port %u, incarnation %016llx\n",
	       (unsigned long long)(config.length / MIB), config.slices, config.port,
	       (unsigned long long)node.incarnation);
	fflush(stdout);
	serve();
bad:
	fputs(usage, stderr);
	return 2;
}
