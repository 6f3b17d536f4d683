#include "net/net.h"

#include "lib/log.h"
#include "lib/panic.h"
#include "lib/spinlock.h"
#include "lib/string.h"
#include "mem/frame.h"
#include "net/e1000.h"
#include "net/netif.h"
#include "rdma/qp.h"
#include "x86/apic.h"
#include "x86/asm.h"
#include "x86/cpu.h"
#include "x86/entropy.h"
#include "x86/paging.h"
#include "x86/pci.h"
#include "x86/tsc.h"

#define NS_PER_MS     1000000ull
#define NS_PER_S      1000000000ull
#define IMAGE_BASE    0xffffffff80000000ull /* linker.ld: what is above is not in the direct map */
#define COPY_MAX      384u /* a payload up to this is copied: one descriptor instead of three */
#define RX_BUDGET     64u  /* frames in one service */
#define TX_BUDGET     64u
#define BUSY_TIME     (10 * NS_PER_MS) /* of silence, after which a look now and then will do */
#define SLEEP_MAX     (100 * NS_PER_MS)
#define LOOK_PERIOD   (10 * NS_PER_MS)
#define ASKED	      8u /* machines that are being asked for */
#define ASK_PERIOD    NS_PER_S
#define PCI_REGISTERS 0 /* BAR */

#define ETHERTYPE_AT	 12
#define IPV4_AT		 14
#define IPV4_PROTOCOL_AT (IPV4_AT + 9)
#define IPV4_TO_AT	 (IPV4_AT + 16)
#define UDP_PORT_AT	 (IPV4_AT + 20 + 2)
#define ROCE_MIN	 (IPV4_AT + 20 + 8)

struct asked {
	u32 ip;
	u64 at;
};

static struct {
	struct spinlock lock;
	bool present;
	bool wakes; /* the NIC's interrupt reaches CPU 0 */
	struct e1000 nic;
	char name[48];
	u32 ip;	      /* as lwIP had it last; logged */
	bool changed; /* lwIP has been at work */
	struct asked asked[ASKED];
	u32 asked_next;
	u64 timers_at; /* ns: lwIP's next timer */
	u64 due;     /* ns: until then rounds end with what has arrived, if that is nothing much */
	u64 wake_at; /* ns: until when one may sleep, if no frame arrives */
	/* Atomic, for those without the lock: */
	u32 state;	      /* enum net_state */
	u64 deadline, active; /* TSC; ns */
} net;

u64 net_now(void)
{
	return mul_div(rdtsc() - tsc_start, NS_PER_S, tsc_hz);
}

static u64 tsc_at(u64 ns)
{
	return ns == RDMA_NEVER ? ~0ull : tsc_start + mul_div(ns, tsc_hz, NS_PER_S);
}

u32 netif_port_ms(void)
{
	return (u32)(net_now() / NS_PER_MS);
}

void net_lock(void)
{
	spin_lock(&net.lock);
}

bool net_trylock(void)
{
	return spin_trylock(&net.lock);
}

void net_unlock(void)
{
	spin_unlock(&net.lock);
}

/* --- start ---------------------------------------------------------------------------------- */

/* Maps the registers of a NIC that the driver knows, and starts it. */
static int start_nic(const struct pci_function *f, const struct e1000_model *model)
{
	struct pci_bar bar;
	hpa_t memory;
	void *regs;
	int err;

	if (pci_bar(f, PCI_REGISTERS, &bar) || bar.io || bar.bytes < E1000_REGISTERS) {
		log_warn("network: %s has no registers", net.name);
		return ERR_NODEV;
	}
	if (frame_alloc(FRAME_NET, E1000_MEMORY, E1000_ALIGN, &memory)) {
		log_warn("network: no memory for the NIC's buffers");
		return ERR_NOMEM;
	}
	regs = paging_map_mmio(hpa(bar.base), bar.bytes, PAGING_UC);
	pci_enable(f);
	err = e1000_init(&net.nic, model, regs, phys_to_ptr(memory), memory.v);
	if (!err) {
		net.wakes = !pci_enable_msi(f, cpus[0].apic_id, VECTOR_KICK);
		return 0;
	}
	log_warn("network: %s %s", net.name,
		 err == ERR_IO ? "has no MAC address" : "does not answer");
	pci_disable_dma(f);
	frame_free(FRAME_NET, memory, ALIGN_UP(E1000_MEMORY, PAGE_SIZE));
	return err;
}

static int find_nic(void)
{
	struct pci_function f = {0};
	u32 others = 0;

	while (pci_next(&f)) {
		const struct e1000_model *model =
			f.vendor == E1000_VENDOR ? e1000_model(f.id) : NULL;

		if (!model) {
			others += f.class_code >> 8 == PCI_CLASS_ETHERNET;
			continue;
		}
		str_print(net.name, sizeof(net.name), "%s at %02x:%02x.%x", model->name, f.bus,
			  f.device, f.function);
		if (!start_nic(&f, model))
			return 0;
	}
	log_warn("network: no NIC that Umbra can drive (%u of other kinds)", others);
	return ERR_NODEV;
}

static void say_link(void)
{
	log_info("network: link %s", net.nic.link ? "up" : "down");
}

int net_init(const struct boot_info *boot)
{
	const struct boot_network *config = &boot->options.network;
	const u8 *m = net.nic.mac;

	__atomic_store_n(&net.deadline, ~0ull, __ATOMIC_RELAXED);
	if (config->mode == BOOT_NETWORK_NONE)
		return 0;
	if (find_nic())
		return ERR_NODEV;
	net.present = true;
	log_info("network: %s, %02x:%02x:%02x:%02x:%02x:%02x", net.name, m[0], m[1], m[2], m[3],
		 m[4], m[5]);
	netif_port_init(config, net.nic.mac, entropy_word());
	netif_port_link(net.nic.link);
	say_link();
	net_service();
	return 0;
}

/* --- state ---------------------------------------------------------------------------------- */

enum net_state net_state(void)
{
	return __atomic_load_n(&net.state, __ATOMIC_RELAXED);
}

u32 net_ip(void)
{
	return net.ip;
}

const u8 *net_mac(void)
{
	return net.nic.mac;
}

const char *net_nic_name(void)
{
	return net.name;
}

void net_stats(struct net_stats *out)
{
	const struct e1000_stats *s = &net.nic.stats;

	if (net.present)
		e1000_count(&net.nic);
	*out = (struct net_stats){
		.rx_frames = s->rx_frames,
		.rx_bytes = s->rx_bytes,
		.tx_frames = s->tx_frames,
		.tx_bytes = s->tx_bytes,
		.rx_errors = s->rx_errors,
		.rx_missed = s->rx_missed,
		.tx_full = s->tx_full,
		.link_changes = s->link_changes,
	};
}

/* After what may have changed it: link, DHCP. */
static void update_state(void)
{
	enum net_state state = NET_UP;
	u32 ip = netif_port_ip();

	net.changed = false;
	if (!net.nic.link)
		state = NET_DOWN;
	else if (!ip)
		state = NET_ASKING;
	__atomic_store_n(&net.state, state, __ATOMIC_RELAXED);
	if (ip == net.ip)
		return;
	net.ip = ip;
	if (ip)
		log_info("network: address %u.%u.%u.%u", ip >> 24, ip >> 16 & 255, ip >> 8 & 255,
			 ip & 255);
	else
		log_info("network: the address has expired");
}

/* --- send ----------------------------------------------------------------------------------- */

void netif_port_transmit(const struct netif_piece *from, u32 pieces)
{
	struct e1000_piece piece[4];
	u32 i;

	for (i = 0; i < pieces && i < ARRAY_SIZE(piece); i++)
		piece[i] = (struct e1000_piece){.data = from[i].data, .len = from[i].len};
	/* Lost if there is no room, as on any wire. */
	e1000_transmit(&net.nic, piece, i);
}

static u64 bus_address(const void *p)
{
	if ((u64)(uintptr_t)p >= IMAGE_BASE)
		return image_to_phys(p).v;
	return ptr_to_phys(p).v;
}

_Static_assert(RDMA_HEAD_MAX + COPY_MAX + RDMA_TAIL_MAX + 8 <= E1000_TX_SLOT, "fits into a slot");

/* Up to 7 bytes more than `len`, which is quicker. */
static void copy_words(void *to, const void *from, u32 len)
{
	u64 words = (len + 7) / 8;

	asm volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
}

int net_transmit(const struct rdma_frame *f)
{
	bool copied = f->payload_len <= COPY_MAX;
	int err;
	u8 *at;

	if (!net.present)
		return ERR_NODEV;
	err = e1000_begin(&net.nic, copied ? 1 : 3);
	if (err)
		return err;
	at = e1000_put(&net.nic, copied ? rdma_frame_len(f) : f->head_len);
	copy_words(at, f->head, f->head_len);
	at += f->head_len;
	if (!copied) {
		e1000_put_bus(&net.nic, bus_address(f->payload), f->payload_len);
		at = e1000_put(&net.nic, f->tail_len);
	} else if (f->payload_len) {
		memcpy(at, f->payload, f->payload_len);
		at += f->payload_len;
	}
	copy_words(at, f->tail, f->tail_len);
	e1000_end(&net.nic);
	return 0;
}

static struct asked *asked_for(u32 ip)
{
	struct asked *a;

	for (u32 i = 0; i < ASKED; i++)
		if (net.asked[i].ip == ip)
			return &net.asked[i];
	a = &net.asked[net.asked_next++ % ASKED];
	*a = (struct asked){.ip = ip};
	return a;
}

int net_resolve(u32 ip, u8 mac[6])
{
	u64 now = net_now();
	struct asked *a;
	bool ask;

	if (net_state() != NET_UP)
		return net_state() == NET_ASKING ? ERR_BUSY : ERR_NODEV;
	if ((ip ^ netif_port_ip()) & netif_port_mask())
		ip = netif_port_gateway();
	if (!ip)
		return ERR_NODEV;
	a = asked_for(ip);
	ask = !a->at || now - a->at >= ASK_PERIOD;
	if (netif_port_find(ip, mac, ask))
		return 0;
	if (ask)
		a->at = now;
	return ERR_BUSY;
}

/* --- service -------------------------------------------------------------------------------- */

static bool is_roce(const u8 *frame, size_t len)
{
	return len >= ROCE_MIN && be16(frame + ETHERTYPE_AT) == ETHERTYPE_IPV4 &&
	       frame[IPV4_AT] == 0x45 && frame[IPV4_PROTOCOL_AT] == IPV4_PROTO_UDP &&
	       be16(frame + UDP_PORT_AT) == ROCE_UDP_PORT;
}

static __noinline void receive_other(u64 now, const u8 *frame, size_t len)
{
	/* RoCE for nobody else than us: the NIC passes broadcasts on. */
	if (!is_roce(frame, len)) {
		netif_port_receive(frame, len);
		net.changed = true;
		net_look();
	} else if (be32(frame + IPV4_TO_AT) == net.ip) {
		roce_receive(now, frame, len);
		net_look();
	}
}

/* How many frames; whether they complete something. */
static inline u32 receive(u64 now, bool *completes)
{
	const u8 *frame;
	size_t len;
	u32 n = 0;

	*completes = false;
	for (; n < RX_BUDGET && (frame = e1000_receive(&net.nic, &len)); n++) {
		enum rdma_taken taken = roce_take(now, frame, len);

		if (unlikely(taken == RDMA_OTHER))
			receive_other(now, frame, len);
		*completes |= taken == RDMA_COMPLETES;
		e1000_release(&net.nic);
	}
	return n;
}

/* Without a link or an address RoCE talks to nobody, and its time-outs go on. */
static u32 transmit(u64 now, bool *all)
{
	struct rdma_frame f;
	u32 n = 0;

	*all = false;
	while (n < TX_BUDGET && (e1000_tx_room(&net.nic) || !net.nic.link)) {
		*all = !roce_transmit(now, &f);
		if (*all)
			break;
		net_transmit(&f);
		n++;
	}
	return n;
}

static void run_timers(u64 now)
{
	if (now < net.timers_at)
		return;
	netif_port_timers();
	net.timers_at = now + netif_port_wait() * NS_PER_MS;
	net.changed = true;
}

static void set_deadline(u64 now)
{
	u64 next = roce_deadline();

	next = MIN(next, net.timers_at);
	net.wake_at = MIN(next, now + SLEEP_MAX);
	net.due = MIN(next, now + LOOK_PERIOD);
	__atomic_store_n(&net.deadline, tsc_at(net.due), __ATOMIC_RELAXED);
}

void net_look(void)
{
	net.due = 0;
	__atomic_store_n(&net.deadline, 0, __ATOMIC_RELAXED);
}

static u32 transmit_all(u64 now, bool *all)
{
	u32 sent = transmit(now, all);

	if (sent)
		__atomic_store_n(&net.active, now, __ATOMIC_RELAXED);
	e1000_kick(&net.nic);
	return sent;
}

static bool service(u64 now)
{
	bool completes, sent, all;
	u32 received = receive(now, &completes);

	if (received)
		__atomic_store_n(&net.active, now, __ATOMIC_RELAXED);
	/* Mostly: nothing, or a packet that only its QP is concerned with. */
	if (likely(now < net.due) && !completes)
		return received;
	/* Who waits for a page need not wait for the next round's timers and deadlines. */
	if (completes) {
		net_look();
		if (!roce_completed(now))
			return true;
	}
	run_timers(now);
	if (e1000_service(&net.nic, now)) {
		say_link();
		netif_port_link(net.nic.link);
		net.timers_at = now;
		net.changed = true;
	}
	if (net.changed)
		update_state();
	roce_serviced(now);
	sent = transmit_all(now, &all);
	if (likely(all))
		set_deadline(now);
	else
		net_look();
	return sent || received;
}

void net_send(u64 now)
{
	bool all;

	if (!net.present)
		return;
	transmit_all(now, &all);
	net_look(); /* for the deadline, while the answers travel */
}

bool net_service(void)
{
	bool any;

	if (!net.present || !net_trylock())
		return false;
	any = service(net_now());
	net_unlock();
	return any;
}

bool net_poll(void)
{
	if (likely(rdtsc() < net_deadline()))
		return net_busy();
	net_service();
	return net_busy();
}

u64 net_deadline(void)
{
	return __atomic_load_n(&net.deadline, __ATOMIC_RELAXED);
}

bool net_arm(void)
{
	bool armed = false;

	if (!net.wakes || this_cpu()->index)
		return false;
	net_lock();
	if (e1000_tx_idle(&net.nic))
		armed = !e1000_arm(&net.nic);
	net_unlock();
	return armed;
}

void net_disarm(void)
{
	if (!net.wakes || this_cpu()->index)
		return;
	net_lock();
	e1000_disarm(&net.nic);
	net_unlock();
}

bool net_sleep(void)
{
	bool armed = net_arm();

	if (armed) {
		apic_timer_arm(tsc_at(net.wake_at));
		cpu_idle();
		apic_timer_stop();
	}
	net_disarm();
	return armed;
}

bool net_busy(void)
{
	u64 active = __atomic_load_n(&net.active, __ATOMIC_RELAXED);

	return active && net_now() - active < BUSY_TIME;
}
