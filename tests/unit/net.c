/*
 * Rounds of the network's service: what is done in which, over the driver and a small model of the
 * NIC, with lwIP and RoCE counted calls.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "mem/frame.h"
#include "net/e1000.h"
#include "net/net.h"
#include "net/netif.h"
#include "net/nic_hw.h"
#include "rdma/qp.h"
#include "x86/apic.h"
#include "x86/asm.h"
#include "x86/cpu.h"
#include "x86/entropy.h"
#include "x86/paging.h"
#include "x86/pci.h"
#include "x86/tsc.h"

#define MS    1000000ull
#define OUR   0x0a4d0001u
#define PAGES 4u

/* --- the machine ---------------------------------------------------------------------------- */

/* So slow that time stands still but for pass(). */
u64 tsc_hz = 1ull << 50, tsc_start;
struct cpu cpus[MAX_CPUS];
u32 cpu_count = 1;

static void pass(u64 ns)
{
	tsc_start -= mul_div(ns, tsc_hz, 1000000000);
}

u64 entropy_word(void)
{
	return 1;
}

int frame_alloc(frame_owner_t owner, u64 bytes, u64 align, hpa_t *out)
{
	*out = hpa(align);
	return 0;
}

void frame_free(frame_owner_t owner, hpa_t base, u64 bytes)
{
}

bool pci_next(struct pci_function *f)
{
	if (f->vendor)
		return false;
	f->vendor = E1000_VENDOR;
	f->id = 0x100e;
	return true;
}

int pci_bar(const struct pci_function *f, u32 number, struct pci_bar *out)
{
	*out = (struct pci_bar){.base = 0x1000, .bytes = E1000_REGISTERS};
	return 0;
}

void pci_enable(const struct pci_function *f)
{
}

void pci_disable_dma(const struct pci_function *f)
{
}

int pci_enable_msi(const struct pci_function *f, u32 apic_id, u8 vector)
{
	return ERR_NODEV;
}

void apic_timer_arm(u64 tsc)
{
}

void apic_timer_stop(void)
{
}

void cpu_idle(void)
{
}

hpa_t image_to_phys(const void *p)
{
	abort();
}

/* --- the NIC -------------------------------------------------------------------------------- */

static u32 regs[E1000_REGISTERS / 4];
static bool link;
static u8 sent[RDMA_FRAME_MAX];
static u32 sent_len, sent_count, given; /* given: writes of RDT */

void *paging_map_mmio(hpa_t base, u64 bytes, enum paging_type type)
{
	return regs;
}

static u64 reg64(u32 low)
{
	return regs[low / 4] | (u64)regs[low / 4 + 1] << 32;
}

static void send_all(u32 tail)
{
	struct e1000_tx_desc *ring = phys_to_ptr(hpa(reg64(REG_TDBAL)));
	u32 *head = &regs[REG_TDH / 4], len = 0;

	for (; *head != tail; *head = (*head + 1) % E1000_TX) {
		struct e1000_tx_desc *d = &ring[*head];

		assert_true(len + d->length <= sizeof(sent));
		memcpy(sent + len, phys_to_ptr(hpa(d->address)), d->length);
		len += d->length;
		d->status = TX_DONE;
		if (!(d->command & TX_END))
			continue;
		sent_len = len;
		sent_count++;
		len = 0;
	}
}

u32 nic_read(void *p, u32 offset)
{
	return offset == REG_STATUS ? (link ? STATUS_LINK : 0) : regs[offset / 4];
}

void nic_write(void *p, u32 offset, u32 value)
{
	regs[offset / 4] = offset == REG_CTRL ? value & ~CTRL_RST : value;
	if (offset == REG_MDIC)
		regs[offset / 4] = MDIC_READY | MII_NEGOTIATE;
	given += offset == REG_RDT;
	if (offset == REG_TDT)
		send_all(value);
}

void nic_pause(u32 microseconds)
{
}

static void arrive(const u8 *frame, u32 len)
{
	struct e1000_rx_desc *ring = phys_to_ptr(hpa(reg64(REG_RDBAL)));
	u32 *head = &regs[REG_RDH / 4];
	struct e1000_rx_desc *d = &ring[*head];

	assert_true(*head != regs[REG_RDT / 4]);
	memcpy(phys_to_ptr(hpa(d->address)), frame, len);
	d->length = (u16)len;
	d->errors = 0;
	d->status = RX_DONE | RX_END;
	*head = (*head + 1) % E1000_RX;
}

/* --- lwIP and RoCE -------------------------------------------------------------------------- */

static struct {
	u32 lwip, timers, links;				 /* calls */
	u32 offered, completed, received, serviced, asked, sent; /* RoCE's */
	u32 queued;						 /* frames wait */
	const u8 *at;						 /* of the last frame */
	enum rdma_taken takes;
	u64 deadline;
	struct rdma_frame frame;
} did;

static u32 lwip_ip = OUR;

void netif_port_init(const struct boot_network *config, const u8 mac[6], u64 seed)
{
}

void netif_port_link(bool up)
{
	did.links++;
}

void netif_port_receive(const u8 *frame, size_t len)
{
	did.lwip++;
}

void netif_port_timers(void)
{
	did.timers++;
}

u32 netif_port_wait(void)
{
	return 250;
}

u32 netif_port_ip(void)
{
	return lwip_ip;
}

u32 netif_port_mask(void)
{
	return 0xffffff00;
}

u32 netif_port_gateway(void)
{
	return 0;
}

bool netif_port_find(u32 ip, u8 mac[6], bool ask)
{
	return false;
}

enum rdma_taken roce_take(u64 now, const u8 *frame, size_t len)
{
	did.offered++;
	did.at = frame;
	return did.takes;
}

void roce_receive(u64 now, const u8 *frame, size_t len)
{
	did.received++;
}

bool roce_completed(u64 now)
{
	did.completed++;
	return did.queued;
}

bool roce_transmit(u64 now, struct rdma_frame *f)
{
	did.asked++;
	if (!did.queued)
		return false;
	did.queued--;
	*f = did.frame;
	return true;
}

u64 roce_deadline(void)
{
	return did.deadline;
}

void roce_serviced(u64 now)
{
	did.serviced++;
}

/* --- tests ---------------------------------------------------------------------------------- */

static u8 roce[100] = {
	[12] = 0x08,	    [14] = 0x45, [23] = 17, [30] = 10, 77, 0, 1, [36] = ROCE_UDP_PORT >> 8,
	ROCE_UDP_PORT & 255};

static int setup(void **state)
{
	static struct boot_info boot;

	host_memory_release();
	host_memory_init(16ull << 20);
	memset(regs, 0, sizeof(regs));
	regs[REG_RAL(0) / 4] = 2;
	regs[REG_RAH(0) / 4] = RAH_VALID;
	link = true;
	lwip_ip = OUR;
	boot.options.network.mode = BOOT_NETWORK_STATIC;
	assert_int_equal(net_init(&boot), 0);
	pass(20 * MS);
	memset(&did, 0, sizeof(did));
	did.deadline = RDMA_NEVER;
	net_service();
	assert_int_equal(did.serviced, 1);
	memset(&did, 0, sizeof(did));
	did.deadline = RDMA_NEVER;
	sent_count = given = 0;
	return 0;
}

/* Nothing to do: nothing is done, until it is time to look at the link, or at what is due. */
static void test_idle(void **state)
{
	u32 i;

	for (i = 0; i < 9; i++) {
		assert_false(net_service());
		pass(MS);
	}
	assert_int_equal(did.serviced + did.asked + did.timers, 0);
	pass(2 * MS);
	assert_false(net_service());
	assert_int_equal(did.serviced, 1);
	did.deadline = net_now() + 3 * MS;
	net_lock();
	net_look();
	net_unlock();
	assert_int_equal(net_deadline(), 0);
	assert_false(net_service());
	assert_int_equal(did.serviced, 2);
	pass(2 * MS);
	net_service();
	assert_int_equal(did.serviced, 2);
	pass(2 * MS);
	net_service();
	assert_int_equal(did.serviced, 3);
}

/* A frame that leaves nothing to do ends its round; it lies so that ICRC's blocks are aligned. */
static void test_receive(void **state)
{
	did.takes = RDMA_TAKEN;
	for (u32 i = 1; i <= 3 * E1000_RX; i++) {
		arrive(roce, sizeof(roce));
		assert_true(net_service());
		assert_int_equal(did.offered, i);
		assert_int_equal(((uintptr_t)did.at + 6) % 16, 0);
	}
	assert_int_equal(did.serviced + did.asked + did.received + did.completed, 0);
	assert_in_range(given, 1, 3 * E1000_RX / 16 + 1);
	/* What is complete is looked at before anything else; the rest has time until the next
	 * round, if there is nothing to send. */
	did.takes = RDMA_COMPLETES;
	arrive(roce, sizeof(roce));
	assert_true(net_service());
	assert_int_equal(did.completed, 1);
	assert_int_equal(did.serviced + did.asked, 0);
	assert_int_equal(net_deadline(), 0);
	net_service();
	assert_int_equal(did.serviced, 1);
	assert_int_equal(did.asked, 1);
	did.queued = 1;
	did.frame.head_len = 60;
	arrive(roce, sizeof(roce));
	assert_true(net_service());
	assert_int_equal(did.completed, 2);
	assert_int_equal(did.serviced, 2);
	assert_int_equal(sent_count, 1);
	/* The long way, and the look at everything that follows. */
	did.takes = RDMA_OTHER;
	arrive(roce, sizeof(roce));
	assert_true(net_service());
	assert_int_equal(did.received, 1);
	assert_int_equal(did.serviced, 3);
	assert_true(net_busy());
	pass(11 * MS);
	assert_false(net_busy());
}

/* RoCE for another address is nobody's; all that is not RoCE is lwIP's, which may change things. */
static void test_other_frames(void **state)
{
	static const struct {
		u32 at;
		u8 value;
	} change[] = {{12, 0x86}, {13, 6}, {14, 0x46}, {23, 6}, {36, 0}, {37, 0}};
	u8 frame[sizeof(roce)];
	u32 i;

	memcpy(frame, roce, sizeof(frame));
	frame[33] = 255;
	arrive(frame, sizeof(frame));
	assert_true(net_service());
	assert_int_equal(did.lwip + did.received + did.serviced, 0);
	for (i = 0; i < ARRAY_SIZE(change); i++) {
		memcpy(frame, roce, sizeof(frame));
		frame[change[i].at] = change[i].value;
		arrive(frame, sizeof(frame));
		assert_true(net_service());
		assert_int_equal(did.lwip, i + 1);
		assert_int_equal(did.serviced, i + 1);
	}
	arrive(roce, 41);
	net_service();
	assert_int_equal(did.lwip, i + 1);
	assert_int_equal(did.received, 0);
	lwip_ip = OUR + 1;
	assert_int_equal(net_ip(), OUR);
	arrive(frame, sizeof(frame));
	net_service();
	assert_int_equal(net_ip(), OUR + 1);
}

static void test_link(void **state)
{
	link = false;
	net_service();
	assert_int_equal(net_state(), NET_UP);
	pass(11 * MS);
	net_service();
	assert_int_equal(net_state(), NET_DOWN);
	assert_int_equal(did.links, 1);
	link = true;
	pass(11 * MS);
	net_service();
	assert_int_equal(net_state(), NET_UP);
}

/* What was posted leaves at once; payloads from where they lie, small ones with the headers. */
static void test_send(void **state)
{
	static const u32 lengths[] = {0, 4, 100, 384, 385, 1024, 4096};
	u8 *payload = phys_to_ptr(hpa(8ull << 20)), expected[RDMA_FRAME_MAX];
	struct rdma_frame *f = &did.frame;
	u32 i, n;

	for (i = 0; i < 8192; i++)
		payload[i] = (u8)(i * 7 + (i >> 8));
	for (i = 0; i < 200; i++) {
		f->head_len = 54 + 4 * (i % 6);
		memset(f->head, (int)i, sizeof(f->head));
		f->payload = payload + i;
		f->payload_len = lengths[i % ARRAY_SIZE(lengths)];
		f->tail_len = 4 + i % 4;
		memset(f->tail, (int)i + 1, sizeof(f->tail));
		n = rdma_frame_copy(f, expected);
		did.queued = 1;
		net_lock();
		net_send(net_now());
		net_unlock();
		assert_int_equal(sent_count, i + 1);
		assert_int_equal(sent_len, n);
		assert_memory_equal(sent, expected, n);
	}
	assert_int_equal(did.serviced, 0);
	assert_int_equal(net_deadline(), 0);
	/* More than a round takes: the next one goes on. */
	did.queued = 200;
	for (i = 0; did.queued; i++)
		assert_true(net_service());
	assert_in_range(i, 2, 10);
	assert_int_equal(sent_count, 400);
	net_service();
	assert_false(net_service());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_idle, setup),
		cmocka_unit_test_setup(test_receive, setup),
		cmocka_unit_test_setup(test_other_frames, setup),
		cmocka_unit_test_setup(test_link, setup),
		cmocka_unit_test_setup(test_send, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
