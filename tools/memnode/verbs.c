/*
 * memnode-verbs: a memory node for Linux with an RDMA NIC or rdma_rxe, on librdmacm and libibverbs.
 *
 * The same service as hv/rdma/node.h, with the same private data: slices of equal size, one client
 * each, that keep their content when the client goes, and an incarnation that says whether they
 * did. The NIC does the work; this process only answers connections, and asks clients whether they
 * live by empty WRITEs.
 *
 * A slice has a protection domain of its own, so that a key opens nothing to other clients. It is
 * registered, and so pinned, once: what is left of an old connection cannot reach it, as its queue
 * pair is gone.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <rdma/rdma_cma.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>

#include "rdma/node.h"

static const char usage[] =
	"memnode-verbs --ip A.B.C.D [--port N] [--size MIB] [--slices N] [--token TEXT]\n"
	"The address is that of the RDMA NIC's network interface.\n";

#define BACKLOG 16

struct slice {
	u8 *memory;
	struct ibv_pd *pd;
	struct ibv_mr *mr;
	struct rdma_cm_id *id; /* of the connection; NULL: free */
	struct ibv_cq *cq;
	u32 client_ip; /* who has it, or had it last; 0: nobody yet */
	u64 client;    /* and his number */
	u32 clients;   /* that followed one another */
	bool established;
	bool probing; /* a probe is not answered yet */
	u64 probe;    /* when the next one goes out */
};

struct server {
	struct rdma_event_channel *events;
	struct rdma_cm_id *listener;
	struct slice slice[NODE_SLICES];
	u32 slices;
	u64 length; /* of a slice */
	u64 incarnation;
	u8 token[NODE_TOKEN];
};

static volatile sig_atomic_t ending;

static void end(int signal)
{
	ending = signal;
}

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "memnode-verbs: %s: %s\n", what, strerror(errno));
	exit(1);
}

static u64 now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (u64)t.tv_sec * 1000000000 + (u64)t.tv_nsec;
}

static u32 address_of(struct rdma_cm_id *id)
{
	const struct sockaddr_in *at = (const void *)rdma_get_peer_addr(id);

	return at->sin_family == AF_INET ? ntohl(at->sin_addr.s_addr) : 0;
}

static void say(const struct server *server, const struct slice *s, const char *what)
{
	u32 ip = address_of(s->id);

	printf("slice %u: %u.%u.%u.%u %s\n", (unsigned int)(s - server->slice), ip >> 24,
	       ip >> 16 & 255, ip >> 8 & 255, ip & 255, what);
	fflush(stdout);
}

static void open_slices(struct server *server, u64 length)
{
	struct ibv_context *device = server->listener->verbs;
	u8 *memory;
	u32 i;

	memory = mmap(NULL, length, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		die("memory");
	madvise(memory, length, MADV_HUGEPAGE);
	for (i = 0; i < server->slices; i++) {
		struct slice *s = &server->slice[i];

		s->memory = memory + i * server->length;
		s->pd = ibv_alloc_pd(device);
		if (!s->pd)
			die("protection domain");
		s->mr = ibv_reg_mr(s->pd, s->memory, server->length,
				   IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ |
					   IBV_ACCESS_REMOTE_WRITE);
		if (!s->mr)
			die("cannot pin the memory (too much of it, or see ulimit -l)");
	}
}

static void open_server(struct server *server, u32 ip, u16 port, u64 length)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};

	at.sin_addr.s_addr = htonl(ip);
	if (getrandom(&server->incarnation, sizeof(server->incarnation), 0) !=
	    sizeof(server->incarnation))
		die("getrandom");
	server->events = rdma_create_event_channel();
	if (!server->events)
		die("no RDMA in this kernel (module rdma_ucm)");
	if (rdma_create_id(server->events, &server->listener, NULL, RDMA_PS_TCP) ||
	    rdma_bind_addr(server->listener, (struct sockaddr *)&at))
		die("the address and port");
	if (!server->listener->verbs) {
		errno = ENODEV;
		die("the address");
	}
	server->length = ALIGN_DOWN(length / server->slices, PAGE_SIZE);
	open_slices(server, length);
	if (rdma_listen(server->listener, BACKLOG))
		die("listening");
}

static void free_slice(struct server *server, struct slice *s, const char *why)
{
	say(server, s, why);
	rdma_disconnect(s->id);
	rdma_destroy_qp(s->id);
	rdma_destroy_id(s->id); /* its events have been acknowledged */
	ibv_destroy_cq(s->cq);
	s->id = NULL;
	s->established = s->probing = false;
}

static bool is_clients(const struct slice *s, u32 ip, u64 client)
{
	return s->client_ip == ip && s->client == client;
}

/* The slice that a request gets, or NULL; as in node.c. */
static struct slice *choose(struct server *server, u32 ip, u64 client, u32 wanted)
{
	struct slice *s, *free = NULL;
	u32 i;

	if (wanted < server->slices) {
		s = &server->slice[wanted];
		return !s->id || is_clients(s, ip, client) ? s : NULL;
	}
	for (i = 0; i < server->slices && wanted == NODE_ANY_SLICE; i++) {
		s = &server->slice[i];
		if (client && is_clients(s, ip, client))
			return s;
		if (!s->id && (!free || (free->client_ip && !s->client_ip)))
			free = s;
	}
	return free;
}

static bool request_right(const struct server *server, const struct rdma_conn_param *param)
{
	const struct node_request *r = param->private_data;
	u32 i, differ = 0;

	if (param->private_data_len < sizeof(*r) || be32(r->magic) != NODE_MAGIC ||
	    be16(r->version) != NODE_VERSION)
		return false;
	for (i = 0; i < NODE_TOKEN; i++)
		differ |= server->token[i] ^ r->token[i];
	return !differ;
}

static void fill_answer(const struct server *server, const struct slice *s, struct node_answer *a)
{
	u32 i, used = 0;

	for (i = 0; i < server->slices; i++)
		used += server->slice[i].id != NULL;
	memset(a, 0, sizeof(*a));
	put_be32(a->magic, NODE_MAGIC);
	put_be16(a->version, NODE_VERSION);
	put_be16(a->slice, (u32)(s - server->slice));
	put_be64(a->incarnation, server->incarnation + s->clients);
	put_be64(a->va, (u64)s->memory);
	put_be64(a->length, server->length);
	put_be32(a->rkey, s->mr->rkey);
	put_be16(a->slices, server->slices);
	put_be16(a->slices_used, used);
}

/* 0, or -1 with nothing left of the connection but `id`. */
static int accept_client(struct server *server, struct slice *s, struct rdma_cm_id *id,
			 const struct rdma_conn_param *wish)
{
	struct ibv_qp_init_attr qp = {
		.qp_type = IBV_QPT_RC,
		.cap = {.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1},
	};
	struct node_answer answer;
	struct rdma_conn_param param = {
		.private_data = &answer,
		.private_data_len = sizeof(answer),
		/* The READs that the client wants to have outstanding: rdma_get_cm_event(3). */
		.responder_resources = MIN(wish->responder_resources, RDMA_READ_MAX),
		.rnr_retry_count = 7,
	};

	s->cq = ibv_create_cq(id->verbs, 2, NULL, NULL, 0);
	if (!s->cq)
		return -1;
	qp.send_cq = qp.recv_cq = s->cq;
	if (rdma_create_qp(id, s->pd, &qp)) {
		ibv_destroy_cq(s->cq);
		return -1;
	}
	s->id = id;
	fill_answer(server, s, &answer);
	if (rdma_accept(id, &param)) {
		s->id = NULL;
		rdma_destroy_qp(id);
		ibv_destroy_cq(s->cq);
		return -1;
	}
	id->context = s;
	return 0;
}

/* Takes over `id`. */
static void decide(struct server *server, struct rdma_cm_id *id, const struct rdma_conn_param *wish)
{
	const struct node_request *r = wish->private_data;
	u32 ip = address_of(id);
	struct slice *s = NULL;

	if (request_right(server, wish))
		s = choose(server, ip, be64(r->client), be16(r->slice));
	if (s && s->id)
		free_slice(server, s, "connects anew");
	if (s && !is_clients(s, ip, be64(r->client))) {
		s->clients += s->client_ip != 0;
		s->client_ip = ip;
		s->client = be64(r->client);
	}
	if (!s || accept_client(server, s, id, wish)) {
		rdma_reject(id, NULL, 0);
		rdma_destroy_id(id);
		puts("refused a client");
		fflush(stdout);
	}
}

static void follow(struct server *server, const struct rdma_cm_event *event)
{
	struct slice *s = event->id == server->listener ? NULL : event->id->context;

	if (!s || s->id != event->id)
		return;
	switch (event->event) {
	case RDMA_CM_EVENT_ESTABLISHED:
		s->established = true;
		s->probe = now() + NODE_KEEPALIVE;
		say(server, s, "connected");
		break;
	case RDMA_CM_EVENT_DISCONNECTED:
	case RDMA_CM_EVENT_CONNECT_ERROR:
	case RDMA_CM_EVENT_UNREACHABLE:
	case RDMA_CM_EVENT_REJECTED:
	case RDMA_CM_EVENT_DEVICE_REMOVAL:
		free_slice(server, s, rdma_event_str(event->event));
		break;
	default:
		break;
	}
}

static void receive_event(struct server *server)
{
	u8 private_data[256];
	struct rdma_cm_event *event, copy;

	if (rdma_get_cm_event(server->events, &event))
		return;
	/* Acknowledged before its connection can be destroyed. */
	copy = *event;
	if (copy.event == RDMA_CM_EVENT_CONNECT_REQUEST) {
		struct rdma_conn_param *param = &copy.param.conn;

		if (param->private_data)
			memcpy(private_data, param->private_data, param->private_data_len);
		else
			param->private_data_len = 0;
		param->private_data = private_data;
	}
	rdma_ack_cm_event(event);
	if (copy.event == RDMA_CM_EVENT_CONNECT_REQUEST)
		decide(server, copy.id, &copy.param.conn);
	else
		follow(server, &copy);
}

/* The NIC does not say what it hears, so that every client is asked, busy or not. */
static void probe(struct server *server, struct slice *s)
{
	struct ibv_send_wr empty = {.opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED};
	struct ibv_send_wr *bad;
	struct ibv_wc done;

	while (s->id && ibv_poll_cq(s->cq, 1, &done) > 0) {
		s->probing = false;
		if (done.status != IBV_WC_SUCCESS)
			free_slice(server, s, "does not answer");
	}
	if (!s->id || !s->established || s->probing || now() < s->probe)
		return;
	s->probe = now() + NODE_KEEPALIVE;
	s->probing = ibv_post_send(s->id->qp, &empty, &bad) == 0;
}

static void serve(struct server *server)
{
	struct pollfd fd = {server->events->fd, POLLIN, 0};
	u32 i;

	while (!ending) {
		if (poll(&fd, 1, 500) > 0)
			receive_event(server);
		for (i = 0; i < server->slices; i++)
			if (server->slice[i].id)
				probe(server, &server->slice[i]);
	}
	for (i = 0; i < server->slices; i++)
		if (server->slice[i].id)
			free_slice(server, &server->slice[i], "is left, as this node ends");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"ip", 1, NULL, 'i'},	  {"port", 1, NULL, 'p'},  {"size", 1, NULL, 's'},
		{"slices", 1, NULL, 'n'}, {"token", 1, NULL, 't'}, {NULL, 0, NULL, 0},
	};
	static struct server server = {.slices = 1};
	u64 length = 64 * MIB;
	u16 port = NODE_PORT;
	struct in_addr ip = {0};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'i':
			if (!inet_aton(optarg, &ip))
				goto bad;
			break;
		case 'p':
			port = (u16)atoi(optarg);
			break;
		case 's':
			length = strtoull(optarg, NULL, 0) * MIB;
			break;
		case 'n':
			server.slices = (u32)atoi(optarg);
			break;
		case 't':
			memcpy(server.token, optarg, strnlen(optarg, NODE_TOKEN));
			break;
		default:
			goto bad;
		}
	}
	if (!ip.s_addr || !server.slices || server.slices > NODE_SLICES ||
	    length / server.slices < PAGE_SIZE)
		goto bad;
	signal(SIGTERM, end);
	signal(SIGINT, end);
	open_server(&server, ntohl(ip.s_addr), port, length);
	printf("memnode-verbs: %llu MiB in %u slices, port %u, incarnation %016llx\n",
	       (unsigned long long)(length / MIB), server.slices, port,
	       (unsigned long long)server.incarnation);
	fflush(stdout);
	serve(&server);
	return 0;
bad:
	fputs(usage, stderr);
	return 2;
}
