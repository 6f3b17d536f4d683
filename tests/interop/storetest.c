/*
 * The store of a VM's pages (hv/remote/store.h) as a process, with real memory nodes: random reads
 * and writes of random pages, each compared with what was written last.
 *
 *   storetest LOCAL:REMOTE --nodes IP[,IP...] [--ip IP] [--replicas N] [--pages N] [--seconds N]
 *             [--token TEXT] [--plain]
 *
 * SIGTERM ends it early, and in the same way. Status 1: a page came back with other bytes, or is
 * lost.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "peer.h"
#include "remote/store.h"

#define SECOND 1000000000ull
#define DEPTH  32u

static struct {
	u32 ip, pages, replicas, nodes;
	u32 node[STORE_NODES];
	u8 mac[STORE_NODES][6];
	u64 seconds;
	u8 token[NODE_TOKEN];
	bool plain;
} option = {.ip = 0x0a4d0001, .pages = 512, .replicas = 1, .seconds = 3};

static struct wire wire;
static struct fabric fabric;
static struct store *store;
static struct {
	bool used, write;
	u32 page, stamp;
	u8 data[PAGE_SIZE];
} flight[DEPTH];
static u32 *stamp, stamps; /* of the newest write of each page */
static u64 stalled_longest;
static volatile sig_atomic_t enough;

static _Noreturn void fail(const char *what, u32 page)
{
	fprintf(stderr, "storetest: page %u: %s\n", page, what);
	exit(1);
}

static u32 number_of_ip(const char *text)
{
	unsigned int a, b, c, d;

	if (sscanf(text, "%u.%u.%u.%u", &a, &b, &c, &d) != 4)
		exit(2);
	return a << 24 | b << 16 | c << 8 | d;
}

int fabric_resolve(u32 ip, u8 mac[6])
{
	u32 i;

	for (i = 0; i < option.nodes && option.node[i] != ip; i++)
		;
	memcpy(mac, option.mac[i], 6);
	return 0;
}

static void fill(u8 *data, u32 page, u32 number)
{
	u64 word = (u64)number << 32 | page, i;

	for (i = 0; i < PAGE_SIZE; i += 8, word = word * 6364136223846793005ull + 1)
		memcpy(data + i, &word, 8);
}

static void post(u64 id)
{
	u32 page = (u32)rand() % option.pages, i;
	bool write = rand() & 1;

	/* As a pager would: one operation on a page at a time. */
	for (i = 0; i < DEPTH; i++)
		if (flight[i].used && flight[i].page == page)
			return;
	flight[id].write = write;
	flight[id].page = page;
	flight[id].stamp = write ? stamps + 1 : stamp[page];
	if (write)
		fill(flight[id].data, page, flight[id].stamp);
	else
		memset(flight[id].data, 0xee, PAGE_SIZE);
	i = (u32)(write ? store_write(store, id, page, flight[id].data)
			: store_read(store, id, page, flight[id].data));
	if (i && (write || stamp[page]))
		fail("not taken", page);
	if (i)
		return;
	flight[id].used = true;
	if (write)
		stamp[page] = ++stamps;
}

static void collect(void)
{
	static u8 expected[PAGE_SIZE];
	struct store_completion c;

	while (store_done(store, &c)) {
		flight[c.id].used = false;
		if (c.result != STORE_OK)
			fail(c.result == STORE_FULL ? "no room" : "lost", flight[c.id].page);
		fill(expected, flight[c.id].page, flight[c.id].stamp);
		if (memcmp(expected, flight[c.id].data, PAGE_SIZE))
			fail("other bytes", flight[c.id].page);
	}
}

static void turn(void)
{
	static u8 frame[RDMA_FRAME_MAX];
	struct rdma_frame f;
	u32 i, timeout = 200;
	size_t len;
	u64 since;

	for (i = 0; i < 64; i++, timeout = 0) {
		len = wire_receive(&wire, frame, sizeof(frame), timeout);
		if (!len)
			break;
		fabric_receive(&fabric, wire_now(), frame, len);
	}
	fabric_work(&fabric, wire_now());
	store_work(store, wire_now());
	collect();
	since = store_stalled(store);
	if (since)
		stalled_longest = MAX(stalled_longest, wire_now() - since);
	for (i = 0; i < 64 && fabric_transmit(&fabric, wire_now(), &f); i++)
		wire_send(&wire, frame, rdma_frame_copy(&f, frame));
}

/* A line now and then, for whoever wants to know when all copies are there. */
static void report(void)
{
	static u64 next;
	struct store_stats stats;

	if (wire_now() < next)
		return;
	next = wire_now() + SECOND / 5;
	store_stats(store, &stats);
	printf("storetest: up %u lacking %u\n", stats.nodes_up, stats.under_replicated);
	fflush(stdout);
}

static bool busy(void)
{
	u32 i;

	for (i = 0; i < DEPTH; i++)
		if (flight[i].used)
			return true;
	return false;
}

static void read_all(void)
{
	u32 page;

	for (page = 0; page < option.pages; page++) {
		if (!stamp[page])
			continue;
		flight[0].write = false;
		flight[0].page = page;
		flight[0].stamp = stamp[page];
		flight[0].used = true;
		if (store_read(store, 0, page, flight[0].data))
			fail("not taken", page);
		while (busy())
			turn();
	}
}

static void end_early(int number)
{
	(void)number;
	enough = 1;
}

static void read_options(int argc, char **argv)
{
	static const struct option options[] = {
		{"nodes", 1, NULL, 'n'}, {"ip", 1, NULL, 'i'},	    {"replicas", 1, NULL, 'r'},
		{"pages", 1, NULL, 'p'}, {"seconds", 1, NULL, 's'}, {"token", 1, NULL, 't'},
		{"plain", 0, NULL, 'P'}, {NULL, 0, NULL, 0},
	};
	char *name;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		u32 number = optarg ? (u32)strtoul(optarg, NULL, 0) : 0;

		if (c == 'n')
			for (name = strtok(optarg, ","); name && option.nodes < STORE_NODES;
			     name = strtok(NULL, ","))
				option.node[option.nodes++] = number_of_ip(name);
		else if (c == 'i')
			option.ip = number_of_ip(optarg);
		else if (c == 'r')
			option.replicas = number;
		else if (c == 'p')
			option.pages = number;
		else if (c == 's')
			option.seconds = number;
		else if (c == 't')
			memcpy(option.token, optarg, strnlen(optarg, NODE_TOKEN));
		else if (c == 'P')
			option.plain = true;
		else
			exit(2);
	}
	if (optind != argc - 1 || !option.nodes)
		exit(2);
}

static void begin(const char *ports)
{
	u8 mac[6] = {2,
		     0,
		     (u8)(option.ip >> 24),
		     (u8)(option.ip >> 16),
		     (u8)(option.ip >> 8),
		     (u8)option.ip};
	struct store_config config = {.fabric = &fabric,
				      .nodes = option.nodes,
				      .replicas = option.replicas,
				      .pages = option.pages,
				      .vm = 1,
				      .seal = !option.plain};
	struct fabric_peer peer_of_link = {.port = NODE_PORT, .slice = NODE_ANY_SLICE};
	unsigned int local, remote;
	u64 entropy;
	u32 i;

	if (sscanf(ports, "%u:%u", &local, &remote) != 2)
		exit(2);
	wire_open(&wire, (u16)local, (u16)remote, mac, option.ip);
	for (i = 0; i < option.nodes; i++)
		if (!wire_resolve(&wire, option.node[i], option.mac[i]))
			fail("its node does not answer", i);
	if (getrandom(&entropy, sizeof(entropy), 0) != sizeof(entropy) ||
	    getrandom(config.key, sizeof(config.key), 0) != sizeof(config.key))
		exit(1);
	fabric_init(&fabric, 1024, entropy);
	fabric_set_address(&fabric, mac, option.ip);
	memcpy(peer_of_link.token, option.token, NODE_TOKEN);
	for (i = 0; i < option.nodes; i++) {
		peer_of_link.ip = option.node[i];
		config.link[i] = (u32)fabric_link(&fabric, &peer_of_link);
	}
	stamp = calloc(option.pages, sizeof(*stamp));
	store = store_init(calloc(1, store_bytes(&config)), &config);
	if (!store)
		exit(2);
}

int main(int argc, char **argv)
{
	struct store_stats stats;
	u64 end, started;
	u32 i;

	read_options(argc, argv);
	signal(SIGTERM, end_early);
	begin(argv[optind]);
	started = wire_now();
	do {
		turn();
		store_stats(store, &stats);
	} while (stats.nodes_up < option.nodes && wire_now() < started + 10 * SECOND);
	puts("storetest: ready");
	fflush(stdout);
	started = wire_now();
	for (end = started + option.seconds * SECOND; wire_now() < end && !enough;) {
		for (i = 0; i < DEPTH; i++)
			if (!flight[i].used)
				post(i);
		turn();
		report();
	}
	for (end = wire_now() + 120 * SECOND; busy(); turn())
		if (wire_now() > end)
			fail("waits for ever", 0);
	read_all();
	store_stats(store, &stats);
	printf("storetest: reads %llu writes %llu failovers %llu rereplicated %llu corrupt %llu "
	       "up %u lacking %u stalled %llu ms in %llu ms\n",
	       (unsigned long long)stats.reads, (unsigned long long)stats.writes,
	       (unsigned long long)stats.failovers, (unsigned long long)stats.rereplicated,
	       (unsigned long long)stats.corrupt, stats.nodes_up, stats.under_replicated,
	       (unsigned long long)stalled_longest / 1000000,
	       (unsigned long long)(wire_now() - started) / 1000000);
	store_destroy(store);
	for (i = 0; i < 10; i++)
		turn();
	return 0;
}
