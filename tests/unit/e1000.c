/*
 * The NIC driver against a model of the NIC at the level of registers and descriptors. The model
 * touches memory only by the addresses that it was told, and each must lie in the driver's block or
 * in a payload that is being sent.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "net/e1000.h"
#include "net/e1000_regs.h"
#include "net/nic_hw.h"

#define BUS	 0x40000000ull /* where the device sees the driver's block */
#define PAYLOAD	 0x90000000ull /* and a payload */
#define SENT	 512u
#define SECOND	 1000000000ull
#define NO_FRAME 0xffffffffu

static const u8 mac[6] = {0x52, 0x54, 0, 1, 2, 3};

/* The model. */
static struct {
	u32 reg[0x6000 / 4];
	bool gone;	  /* all reads give ones */
	bool link, stuck; /* stuck: sends nothing */
	bool lazy;	  /* sends when told to by flush() */
	u16 eeprom[3];
	u16 phy;
	u8 *block, *payload;
	size_t payload_len;
	u32 resets, doorbells;
	struct {
		u8 bytes[E1000_RX_BUFFER];
		u32 len;
	} sent[SENT];
	u32 sent_count;
} hw;

static struct e1000 nic;

static void *dma(u64 bus, size_t len)
{
	if (bus >= BUS && bus + len <= BUS + E1000_MEMORY)
		return hw.block + (bus - BUS);
	if (bus >= PAYLOAD && bus + len <= PAYLOAD + hw.payload_len)
		return hw.payload + (bus - PAYLOAD);
	fail_msg("DMA to %#llx, %zu bytes", (unsigned long long)bus, len);
	return NULL;
}

static u32 *reg(u32 offset)
{
	assert_true(offset < sizeof(hw.reg) && offset % 4 == 0);
	return &hw.reg[offset / 4];
}

static u64 reg64(u32 low)
{
	return *reg(low) | (u64)*reg(low + 4) << 32;
}

static void send_all(void)
{
	u64 ring = reg64(REG_TDBAL);
	u32 count = *reg(REG_TDLEN) / 16, *head = reg(REG_TDH);
	static u8 frame[65536];
	static u32 len;

	if (!(*reg(REG_TCTL) & TCTL_ENABLE) || !hw.link || hw.stuck)
		return;
	while (*head != *reg(REG_TDT)) {
		struct e1000_tx_desc *d = dma(ring + *head * 16, 16);

		assert_true(d->length > 0);
		memcpy(frame + len, dma(d->address, d->length), d->length);
		len += d->length;
		if (d->command & TX_END) {
			assert_true(d->command & TX_INSERT_FCS);
			assert_true(hw.sent_count < SENT);
			memcpy(hw.sent[hw.sent_count].bytes, frame, len);
			hw.sent[hw.sent_count++].len = len;
			len = 0;
		}
		if (d->command & TX_REPORT)
			d->status |= TX_DONE;
		*head = (*head + 1) % count;
	}
}

static void control(u32 value)
{
	if (value & CTRL_RST) {
		hw.resets++;
		*reg(REG_RCTL) = *reg(REG_TCTL) = 0;
		*reg(REG_TDH) = *reg(REG_TDT) = *reg(REG_RDH) = *reg(REG_RDT) = 0;
		value &= ~CTRL_RST;
	}
	*reg(REG_CTRL) = value;
}

static void eerd(u32 value)
{
	bool old = nic.model->eerd == E1000_EERD_8;
	u32 word = old ? value >> EERD_ADDRESS_8 & 0xff : value >> EERD_ADDRESS_2 & 0x3fff;

	if (!(value & EERD_START) || word > 2)
		return;
	*reg(REG_EERD) = (u32)hw.eeprom[word] << EERD_DATA | (old ? EERD_DONE_8 : EERD_DONE_2);
}

static void mdic(u32 value)
{
	if (value & MDIC_WRITE)
		hw.phy = (u16)value;
	*reg(REG_MDIC) = (value & 0xffff0000u) | hw.phy | MDIC_READY;
}

u32 nic_read(void *regs, u32 offset)
{
	u32 value = *reg(offset);

	assert_ptr_equal(regs, &hw);
	if (hw.gone)
		return ~0u;
	if (offset == REG_STATUS)
		return hw.link ? STATUS_LINK : 0;
	if (offset == REG_EECD)
		return EECD_AUTO_READ;
	if (offset == REG_MPC || offset == REG_CRCERRS)
		*reg(offset) = 0; /* cleared by reading */
	return value;
}

void nic_write(void *regs, u32 offset, u32 value)
{
	assert_ptr_equal(regs, &hw);
	if (offset == REG_CTRL) {
		control(value);
	} else if (offset == REG_EERD) {
		eerd(value);
	} else if (offset == REG_MDIC) {
		mdic(value);
	} else {
		*reg(offset) = value;
		if (offset == REG_TDT) {
			hw.doorbells++;
			assert_true(value < E1000_TX);
			if (!hw.lazy)
				send_all();
		}
	}
}

void nic_pause(u32 microseconds)
{
	assert_true(microseconds <= 20000);
}

/* A frame arrives; `errors` of its last descriptor. False: dropped. */
static bool arrive(const void *frame, u32 len, u8 errors)
{
	u64 ring = reg64(REG_RDBAL);
	u32 count = *reg(REG_RDLEN) / 16, *head = reg(REG_RDH), at = 0;

	if (!(*reg(REG_RCTL) & RCTL_ENABLE) || !hw.link)
		return false;
	do {
		u32 n = MIN(len - at, E1000_RX_BUFFER);
		struct e1000_rx_desc *d;

		if (*head == *reg(REG_RDT)) {
			(*reg(REG_MPC))++;
			return false;
		}
		d = dma(ring + *head * 16, 16);
		memcpy(dma(d->address, n), (const u8 *)frame + at, n);
		at += n;
		d->length = (u16)n;
		d->errors = at == len ? errors : 0;
		d->status = RX_DONE | (at == len ? RX_END : 0);
		*head = (*head + 1) % count;
	} while (at < len);
	return true;
}

static u8 *frame_of(u32 number, u32 len)
{
	static u8 frame[65536];

	for (u32 i = 0; i < len; i++)
		frame[i] = (u8)(number * 31 + i * 7 + (i >> 8));
	return frame;
}

/* --- tests ---------------------------------------------------------------------------------- */

static int start(u16 id)
{
	static u8 *memory;

	free(memory);
	memory = aligned_alloc(4096, ALIGN_UP(E1000_MEMORY, 4096));
	memset(memory, 0xee, E1000_MEMORY);
	hw.block = memory;
	nic.model = e1000_model(id); /* which the model looks at */
	return e1000_init(&nic, e1000_model(id), &hw, memory, BUS);
}

static int setup(void **state)
{
	memset(&hw, 0, sizeof(hw));
	memset(&nic, 0, sizeof(nic));
	hw.link = true;
	hw.phy = MII_NEGOTIATE;
	memcpy(reg(REG_RAL(0)), mac, 4);
	*reg(REG_RAH(0)) = RAH_VALID | mac[4] | (u32)mac[5] << 8;
	assert_int_equal(start(0x100e), 0);
	return 0;
}

/* The next frame is this one, or there is none. */
static void expect(u32 number, u32 len)
{
	size_t got;
	const u8 *frame = e1000_receive(&nic, &got);

	if (number == NO_FRAME) {
		assert_null(frame);
		return;
	}
	assert_non_null(frame);
	assert_int_equal(got, len);
	assert_memory_equal(frame, frame_of(number, len), len);
	e1000_release(&nic);
}

static int send(u32 number, u32 len)
{
	struct e1000_piece piece = {.data = frame_of(number, len), .len = len};

	return e1000_transmit(&nic, &piece, 1);
}

static void expect_sent(u32 index, u32 number, u32 len)
{
	assert_true(index < hw.sent_count);
	assert_int_equal(hw.sent[index].len, len);
	assert_memory_equal(hw.sent[index].bytes, frame_of(number, len), len);
}

static void test_start(void **state)
{
	assert_null(e1000_model(0x1234));
	assert_string_equal(e1000_model(0x10d3)->name, "82574L");
	assert_memory_equal(nic.mac, mac, 6);
	assert_true(nic.link);
	assert_int_equal(*reg(REG_IMC), ~0u);
	assert_int_equal(*reg(REG_IMS), 0);
	assert_int_equal(*reg(REG_RDLEN), E1000_RX * 16);
	assert_int_equal(*reg(REG_RCTL) & (RCTL_ENABLE | RCTL_STRIP_CRC | RCTL_BROADCAST),
			 RCTL_ENABLE | RCTL_STRIP_CRC | RCTL_BROADCAST);
	/* No promiscuous mode, no loopback. */
	assert_int_equal(*reg(REG_RCTL) & (3u << 3 | 3u << 6), 0);
	assert_true(*reg(REG_CTRL) & CTRL_LINK_UP);
	e1000_stop(&nic);
	assert_false(arrive(frame_of(0, 60), 60, 0));
	hw.gone = true;
	assert_int_equal(start(0x100e), ERR_NODEV);
}

/* Where the reset has loaded no address it is in the EEPROM, by two layouts of its register. */
static void test_mac_of_eeprom(void **state)
{
	static const u16 ids[] = {0x100e, 0x10d3};

	for (u32 i = 0; i < 2; i++) {
		*reg(REG_RAL(0)) = *reg(REG_RAH(0)) = 0;
		memcpy(hw.eeprom, mac, 6);
		assert_int_equal(start(ids[i]), 0);
		assert_memory_equal(nic.mac, mac, 6);
		/* The filter lets it in. */
		assert_memory_equal(reg(REG_RAL(0)), mac, 4);
		assert_int_equal(*reg(REG_RAH(0)), RAH_VALID | mac[4] | (u32)mac[5] << 8);
		*reg(REG_RAH(0)) = 0;
		memset(hw.eeprom, 0xff, 6);
		assert_int_equal(start(ids[i]), ERR_IO);
		memset(hw.eeprom, 0, 6);
		assert_int_equal(start(ids[i]), ERR_IO);
	}
}

static void test_phy_is_woken(void **state)
{
	hw.phy = MII_POWER_DOWN | MII_ISOLATE;
	assert_int_equal(start(0x10d3), 0);
	assert_int_equal(hw.phy, MII_NEGOTIATE | MII_RESTART);
	hw.phy = MII_NEGOTIATE | 0x0140;
	assert_int_equal(start(0x10d3), 0);
	assert_int_equal(hw.phy, MII_NEGOTIATE | 0x0140); /* left alone */
}

static void test_receive_wraps(void **state)
{
	u32 in = 0, out = 0;

	srand(1);
	while (out < 5 * E1000_RX) {
		for (u32 n = (u32)rand() % 40; n; n--, in++)
			assert_true(arrive(frame_of(in, 60 + in % 1455), 60 + in % 1455, 0));
		while (out < in) {
			expect(out, 60 + out % 1455);
			out++;
		}
		expect(NO_FRAME, 0);
		e1000_service(&nic, 1);
	}
	assert_int_equal(nic.stats.rx_frames, out);
	assert_int_equal(nic.stats.rx_errors, 0);
	e1000_count(&nic);
	assert_int_equal(nic.stats.rx_missed, 0);
}

static void test_receive_full(void **state)
{
	u32 i, taken = 0;

	for (i = 0; i < 2 * E1000_RX; i++)
		taken += arrive(frame_of(i, 100), 100, 0);
	assert_int_equal(taken, E1000_RX - 1);
	for (i = 0; i < taken; i++)
		expect(i, 100);
	expect(NO_FRAME, 0);
	e1000_service(&nic, 1);
	e1000_count(&nic);
	assert_int_equal(nic.stats.rx_missed, 2 * E1000_RX - taken);
	assert_true(arrive(frame_of(7, 100), 100, 0));
	expect(7, 100);
	expect(NO_FRAME, 0);
}

/* Jumbo frames fit; what the NIC marks bad, or what is longer than a buffer, is dropped as a whole.
 */
static void test_receive_bad(void **state)
{
	struct e1000_rx_desc *d = dma(reg64(REG_RDBAL), 16);
	u32 round;

	for (round = 0; round < 100; round++) {
		assert_true(arrive(frame_of(1, 4200), 4200, 0));
		assert_true(arrive(frame_of(2, 100), 100, 0x01));
		assert_true(arrive(frame_of(3, 100), 100, 0x80));
		assert_true(arrive(frame_of(4, 20000), 20000, 0));
		assert_true(arrive(frame_of(5, 13), 13, 0));
		assert_true(arrive(frame_of(6, 100), 100, 0x60)); /* checksums: not asked for */
		expect(1, 4200);
		expect(6, 100);
		expect(NO_FRAME, 0);
		e1000_service(&nic, 1);
	}
	assert_int_equal(nic.stats.rx_errors, 4 * round);
	/* A device that claims more than there is. */
	d += nic.rx_next;
	assert_true(arrive(frame_of(1, 100), 100, 0));
	d->length = 0xffff;
	assert_true(arrive(frame_of(2, 100), 100, 0));
	expect(2, 100);
	expect(NO_FRAME, 0);
}

static void test_transmit_pieces(void **state)
{
	static u8 payload[4096], whole[4096 + 100];
	u8 head[74], tail[7];
	struct e1000_piece piece[3] = {
		{.data = head, .len = sizeof(head)},
		{.data = payload, .len = 1024, .bus = PAYLOAD},
		{.data = tail, .len = 4},
	};

	memcpy(head, frame_of(1, sizeof(head)), sizeof(head));
	memcpy(payload, frame_of(2, sizeof(payload)), sizeof(payload));
	memcpy(tail, frame_of(3, sizeof(tail)), sizeof(tail));
	hw.payload = payload;
	hw.payload_len = sizeof(payload);
	assert_int_equal(e1000_transmit(&nic, piece, 3), 0);
	/* Copied: the caller may have them back. */
	memset(head, 0, sizeof(head));
	memset(tail, 0, sizeof(tail));
	assert_int_equal(hw.sent_count, 0);
	e1000_service(&nic, 1);
	memcpy(whole, frame_of(1, sizeof(head)), sizeof(head));
	memcpy(whole + sizeof(head), payload, 1024);
	memcpy(whole + sizeof(head) + 1024, frame_of(3, 4), 4);
	assert_int_equal(hw.sent_count, 1);
	assert_int_equal(hw.sent[0].len, sizeof(head) + 1024 + 4);
	assert_memory_equal(hw.sent[0].bytes, whole, hw.sent[0].len);
	assert_true(e1000_tx_idle(&nic));
	/* Nothing to fetch: one descriptor. */
	piece[1] = (struct e1000_piece){.data = payload, .len = 100};
	assert_int_equal(e1000_transmit(&nic, piece, 3), 0);
	assert_int_equal((nic.tx_tail + E1000_TX - nic.tx_clean) % E1000_TX, 1);
	piece[0].len = piece[1].len = 5;
	piece[2].len = 3;
	assert_int_equal(e1000_transmit(&nic, piece, 3), ERR_INVAL);
	piece[1].len = E1000_RX_BUFFER;
	assert_int_equal(e1000_transmit(&nic, piece, 3), ERR_INVAL);
}

static void test_transmit_wraps(void **state)
{
	for (u32 i = 0; i < SENT; i++) {
		u32 len = 14 + i * 37 % 1500;

		assert_true(e1000_tx_room(&nic));
		assert_int_equal(send(i, len), 0);
		if (i % 5 == 0)
			e1000_service(&nic, i + 1);
	}
	e1000_service(&nic, SENT);
	assert_int_equal(hw.sent_count, SENT);
	for (u32 i = 0; i < SENT; i++)
		expect_sent(i, i, 14 + i * 37 % 1500);
	assert_true(e1000_tx_idle(&nic));
	assert_true(hw.doorbells < SENT / 4);
}

static void test_transmit_full(void **state)
{
	u32 taken = 0;

	hw.lazy = true;
	while (e1000_tx_room(&nic)) {
		assert_int_equal(send(taken, 1514), 0);
		taken++;
		e1000_service(&nic, 1);
	}
	assert_in_range(taken, E1000_TX / 3 - 2, E1000_TX / 3);
	while (!send(taken, 100))
		taken++;
	assert_int_equal(send(taken, 100), ERR_BUSY);
	assert_int_equal(nic.stats.tx_full, 2);
	assert_false(e1000_tx_idle(&nic));
	e1000_service(&nic, 1);
	send_all();
	assert_int_equal(hw.sent_count, taken);
	assert_true(e1000_tx_idle(&nic));
	assert_int_equal(send(0, 100), 0);
	e1000_service(&nic, 1);
	send_all();
	expect_sent(taken, 0, 100);
}

static void test_link(void **state)
{
	u64 now = SECOND;

	hw.lazy = true;
	assert_int_equal(send(1, 100), 0);
	hw.link = false;
	assert_true(e1000_service(&nic, now));
	assert_false(nic.link);
	assert_int_equal(send(2, 100), ERR_NODEV);
	/* Nobody's memory is needed any more. */
	assert_true(e1000_tx_idle(&nic));
	assert_false(e1000_service(&nic, now += SECOND));
	hw.link = true;
	hw.lazy = false;
	assert_true(e1000_service(&nic, now += SECOND));
	assert_int_equal(hw.sent_count, 0);
	assert_int_equal(send(3, 100), 0);
	e1000_service(&nic, now);
	assert_int_equal(hw.sent_count, 1);
	expect_sent(0, 3, 100);
	assert_int_equal(nic.stats.link_changes, 2);
	assert_true(arrive(frame_of(4, 100), 100, 0));
	expect(4, 100);
}

/* Before somebody sleeps: what has come already brings no interrupt any more. */
static void test_arm(void **state)
{
	assert_false(e1000_arm(&nic));
	assert_true(*reg(REG_IMS) & IRQ_RX);
	assert_true(*reg(REG_IMS) & IRQ_LINK);
	e1000_disarm(&nic);
	assert_int_equal(*reg(REG_IMC), ~0u);
	assert_true(arrive(frame_of(1, 100), 100, 0));
	assert_true(e1000_arm(&nic));
	expect(1, 100);
	assert_false(e1000_arm(&nic));
	hw.link = false;
	assert_true(e1000_arm(&nic));
}

/* A NIC that sends nothing for two seconds is started anew; one that has nothing to send is not. */
static void test_hang(void **state)
{
	u64 now = SECOND;
	u32 resets = hw.resets;

	for (u32 i = 0; i < 10; i++)
		e1000_service(&nic, now += SECOND);
	hw.stuck = true;
	assert_int_equal(send(1, 100), 0);
	e1000_service(&nic, now += SECOND);
	e1000_service(&nic, now += SECOND);
	assert_int_equal(hw.resets, resets);
	hw.stuck = false;
	e1000_service(&nic, now += 2 * SECOND);
	assert_int_equal(hw.resets, resets + 1);
	assert_int_equal(nic.stats.resets, 1);
	assert_int_equal(send(2, 100), 0);
	e1000_service(&nic, now);
	assert_int_equal(hw.sent_count, 1);
	expect_sent(0, 2, 100);
	assert_true(arrive(frame_of(3, 100), 100, 0));
	expect(3, 100);
	for (u32 i = 0; i < 10; i++)
		e1000_service(&nic, now += SECOND);
	assert_int_equal(hw.resets, resets + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_start, setup),
		cmocka_unit_test_setup(test_mac_of_eeprom, setup),
		cmocka_unit_test_setup(test_phy_is_woken, setup),
		cmocka_unit_test_setup(test_receive_wraps, setup),
		cmocka_unit_test_setup(test_receive_full, setup),
		cmocka_unit_test_setup(test_receive_bad, setup),
		cmocka_unit_test_setup(test_transmit_pieces, setup),
		cmocka_unit_test_setup(test_transmit_wraps, setup),
		cmocka_unit_test_setup(test_transmit_full, setup),
		cmocka_unit_test_setup(test_link, setup),
		cmocka_unit_test_setup(test_arm, setup),
		cmocka_unit_test_setup(test_hang, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
