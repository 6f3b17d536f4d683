/*
 * nbd A.B.C.D PORT DEVICE: connect DEVICE (/dev/nbd0) to an NBD server's default export, by the
 * fixed newstyle negotiation of the NBD protocol. "nbd: BYTES bytes" when the device is ready; a
 * child stays for as long as the connection lives. Static and small, where Debian's nbd-client
 * would bring megabytes of libraries into memory that is to be measured.
 */
#include "sys.h"

enum {
	SYS_READ = 0,
	SYS_OPEN = 2,
	SYS_IOCTL = 16,
	SYS_SOCKET = 41,
	SYS_CONNECT = 42,
	SYS_SETSOCKOPT = 54,
	SYS_FORK = 57,
};

/* linux/nbd.h */
#define NBD_SET_SOCK	    0xab00
#define NBD_SET_BLKSIZE	    0xab01
#define NBD_DO_IT	    0xab03
#define NBD_SET_SIZE_BLOCKS 0xab07
#define NBD_SET_FLAGS	    0xab0a

#define BLOCK		4096ul
#define IHAVEOPT	0x49484156454f5054ul
#define NBDMAGIC	0x4e42444d41474943ul
#define FIXED_NO_ZEROES 3u
#define EXPORT_NAME	1u

struct address {
	uint16_t family;
	uint8_t port[2], ip[4], zero[8];
};

struct greeting {
	uint8_t magic[8], option[8], flags[2];
};

struct choice {
	uint8_t flags[4], magic[8], option[4], length[4];
};

struct export
{
	uint8_t size[8], flags[2];
};

_Static_assert(sizeof(struct choice) == 20 && sizeof(struct greeting) == 18, "bytes only");

static u64 get(const uint8_t *p, unsigned int bytes)
{
	u64 v = 0;

	while (bytes--)
		v = v << 8 | *p++;
	return v;
}

static void put(uint8_t *p, unsigned int bytes, u64 v)
{
	while (bytes--) {
		p[bytes] = (uint8_t)v;
		v >>= 8;
	}
}

static bool receive(long fd, void *to, size_t bytes)
{
	char *at = to;

	while (bytes) {
		long n = sys(SYS_READ, (u64)fd, (u64)(uintptr_t)at, bytes, 0);

		if (n <= 0)
			return false;
		at += n;
		bytes -= (size_t)n;
	}
	return true;
}

/* Requests are small and must not wait for one another. setsockopt() takes five arguments. */
static long set_no_delay(long fd)
{
	static const int on = 1;
	register u64 value asm("r10") = (u64)(uintptr_t)&on;
	register u64 length asm("r8") = sizeof(on);
	long result;

	asm volatile("syscall"
		     : "=a"(result)
		     : "a"((long)SYS_SETSOCKOPT), "D"(fd), "S"(6 /* TCP */),
		       "d"(1 /* TCP_NODELAY */), "r"(value), "r"(length)
		     : "rcx", "r11", "memory");
	return result;
}

static bool parse_ip(const char *text, uint8_t *ip)
{
	for (int i = 0; i < 4; i++) {
		ip[i] = (uint8_t)parse_u64(text);
		while (*text >= '0' && *text <= '9')
			text++;
		if (*text++ != (i < 3 ? '.' : 0))
			return false;
	}
	return true;
}

static long connect_to(const char *ip, const char *port)
{
	struct address to = {.family = 2};
	long fd = sys(SYS_SOCKET, 2, 1, 0, 0);

	put(to.port, 2, parse_u64(port));
	if (fd < 0 || !parse_ip(ip, to.ip) ||
	    sys(SYS_CONNECT, (u64)fd, (u64)(uintptr_t)&to, sizeof(to), 0) || set_no_delay(fd))
		return -1;
	return fd;
}

static bool negotiate(long fd, struct export *e)
{
	struct greeting g;
	struct choice c;

	put(c.flags, 4, FIXED_NO_ZEROES);
	put(c.magic, 8, IHAVEOPT);
	put(c.option, 4, EXPORT_NAME);
	put(c.length, 4, 0);
	return receive(fd, &g, sizeof(g)) && get(g.magic, 8) == NBDMAGIC &&
	       get(g.option, 8) == IHAVEOPT &&
	       (get(g.flags, 2) & FIXED_NO_ZEROES) == FIXED_NO_ZEROES &&
	       sys(SYS_WRITE, (u64)fd, (u64)(uintptr_t)&c, sizeof(c), 0) == sizeof(c) &&
	       receive(fd, e, sizeof(*e));
}

static bool set_up(long device, long fd, const struct export *e)
{
	return !sys(SYS_IOCTL, (u64)device, NBD_SET_BLKSIZE, BLOCK, 0) &&
	       !sys(SYS_IOCTL, (u64)device, NBD_SET_SIZE_BLOCKS, get(e->size, 8) / BLOCK, 0) &&
	       !sys(SYS_IOCTL, (u64)device, NBD_SET_FLAGS, get(e->flags, 2), 0) &&
	       !sys(SYS_IOCTL, (u64)device, NBD_SET_SOCK, (u64)fd, 0);
}

int run(int argc, char **argv)
{
	struct export e;
	long fd, device;

	if (argc != 4) {
		print("nbd A.B.C.D PORT DEVICE\n");
		return 2;
	}
	fd = connect_to(argv[1], argv[2]);
	if (fd < 0 || !negotiate(fd, &e)) {
		print("nbd: no export\n");
		return 1;
	}
	device = sys(SYS_OPEN, (u64)(uintptr_t)argv[3], 2, 0, 0);
	if (device < 0 || !set_up(device, fd, &e)) {
		print("nbd: the device cannot be set up\n");
		return 1;
	}
	if (sys(SYS_FORK, 0, 0, 0, 0) == 0)
		return sys(SYS_IOCTL, (u64)device, NBD_DO_IT, 0, 0) ? 1 : 0;
	print("nbd: ");
	print_u64(get(e.size, 8));
	print(" bytes\n");
	return 0;
}
