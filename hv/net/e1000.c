#include "net/e1000.h"

#include "lib/log.h"
#include "lib/string.h"
#include "net/e1000_regs.h"
#include "net/nic_hw.h"

#define MAC_WORDS   3
#define PATIENCE_US 20000
#define STEP_US	    20
#define LOOK_PERIOD 10000000ull	  /* ns between two looks at the link */
#define SEND_PERIOD 2000000000ull /* ns after which a NIC that does not send is reset */
#define TX_ROOM	    4u		  /* descriptors: 1,514 bytes copied, or head, payload, tail */
#define RX_BUFFERS                                                                    \
	(E1000_RX * E1000_RX_BUFFER + E1000_TX_SLOT) /* bytes; the rest stays aligned \
						      */

/*
 * QEMU's e1000 and Bochs's e1000 are 82540EM, QEMU's e1000e is an 82574L. The others have the same
 * registers and descriptors according to their manuals and have not been tried.
 */
static const struct e1000_model models[] = {
	{0x100e, "82540EM", E1000_PCI, E1000_EERD_8},
	{0x1015, "82540EM", E1000_PCI, E1000_EERD_8},
	{0x1016, "82540EP", E1000_PCI, E1000_EERD_8},
	{0x1017, "82540EP", E1000_PCI, E1000_EERD_8},
	{0x101e, "82540EP", E1000_PCI, E1000_EERD_8},
	{0x100f, "82545EM", E1000_PCI, E1000_EERD_8},
	{0x1026, "82545GM", E1000_PCI, E1000_EERD_8},
	{0x1010, "82546EB", E1000_PCI, E1000_EERD_8},
	{0x1079, "82546GB", E1000_PCI, E1000_EERD_8},
	{0x1076, "82541GI", E1000_PCI, E1000_EERD_2},
	{0x107c, "82541PI", E1000_PCI, E1000_EERD_2},
	{0x105e, "82571EB", E1000_PCIE, E1000_EERD_2},
	{0x107d, "82572EI", E1000_PCIE, E1000_EERD_2},
	{0x108b, "82573V", E1000_PCIE, E1000_EERD_2},
	{0x109a, "82573L", E1000_PCIE, E1000_EERD_2},
	{0x10d3, "82574L", E1000_PCIE, E1000_EERD_2},
	{0x10f6, "82574LA", E1000_PCIE, E1000_EERD_2},
	{0x150c, "82583V", E1000_PCIE, E1000_EERD_2},
};

const struct e1000_model *e1000_model(u16 device_id)
{
	for (u32 i = 0; i < ARRAY_SIZE(models); i++)
		if (models[i].id == device_id)
			return &models[i];
	return NULL;
}

static u32 rd(const struct e1000 *nic, u32 offset)
{
	return nic_read(nic->regs, offset);
}

static void wr(const struct e1000 *nic, u32 offset, u32 value)
{
	nic_write(nic->regs, offset, value);
}

/* Waits until the bits of a register that `mask` has are `want`; false: they are not in time. */
static bool await(const struct e1000 *nic, u32 offset, u32 mask, u32 want)
{
	for (u32 waited = 0; waited < PATIENCE_US; waited += STEP_US) {
		if ((rd(nic, offset) & mask) == want)
			return true;
		nic_pause(STEP_US);
	}
	return false;
}

/* --- start ---------------------------------------------------------------------------------- */

static void quiet(const struct e1000 *nic)
{
	wr(nic, REG_IMC, ~0u);
	wr(nic, REG_RCTL, 0);
	wr(nic, REG_TCTL, TCTL_PSP);
	rd(nic, REG_STATUS);
	nic_pause(10); /* for what is on its way */
}

/* 82574, 5.2 and 4.6.1. Bochs 2.7 and 3.0 do not reset anything: no register is relied on. */
static void reset(const struct e1000 *nic)
{
	quiet(nic);
	if (nic->model->bus == E1000_PCIE) {
		wr(nic, REG_CTRL, rd(nic, REG_CTRL) | CTRL_GIO_MASTER_DISABLE);
		await(nic, REG_STATUS, STATUS_GIO_MASTER, 0);
	}
	wr(nic, REG_CTRL, rd(nic, REG_CTRL) | CTRL_RST);
	nic_pause(1000); /* no access before: 82574, 4.6.1 */
	await(nic, REG_CTRL, CTRL_RST, 0);
	if (nic->model->bus == E1000_PCIE) {
		await(nic, REG_EECD, EECD_AUTO_READ, EECD_AUTO_READ);
		wr(nic, REG_CTRL_EXT, rd(nic, REG_CTRL_EXT) | CTRL_EXT_DRIVER);
	}
	wr(nic, REG_IMC, ~0u);
	rd(nic, REG_ICR);
}

static bool mac_valid(const u8 mac[6])
{
	static const u8 none[6];

	return !(mac[0] & 1) && memcmp(mac, none, sizeof(none));
}

static bool eeprom_read(const struct e1000 *nic, u32 word, u16 *out)
{
	bool old = nic->model->eerd == E1000_EERD_8;
	u32 done = old ? EERD_DONE_8 : EERD_DONE_2;

	wr(nic, REG_EERD, EERD_START | word << (old ? EERD_ADDRESS_8 : EERD_ADDRESS_2));
	if (!await(nic, REG_EERD, done, done))
		return false;
	*out = (u16)(rd(nic, REG_EERD) >> EERD_DATA);
	return true;
}

/* What the reset has loaded (317453, 13.5.2), or what the EEPROM says. */
static bool read_mac(struct e1000 *nic)
{
	u32 low = rd(nic, REG_RAL(0)), high = rd(nic, REG_RAH(0));
	u16 word;

	memcpy(nic->mac, &low, 4);
	memcpy(nic->mac + 4, &high, 2);
	if ((high & RAH_VALID) && mac_valid(nic->mac))
		return true;
	for (u32 i = 0; i < MAC_WORDS; i++) {
		if (!eeprom_read(nic, i, &word))
			return false;
		memcpy(nic->mac + 2 * i, &word, 2);
	}
	return mac_valid(nic->mac);
}

static void set_filters(const struct e1000 *nic)
{
	u32 low, high = 0;

	memcpy(&low, nic->mac, 4);
	memcpy(&high, nic->mac + 4, 2);
	wr(nic, REG_RAL(0), low);
	wr(nic, REG_RAH(0), high | RAH_VALID);
	for (u32 i = 1; i < RAL_COUNT; i++) {
		wr(nic, REG_RAL(i), 0);
		wr(nic, REG_RAH(i), 0);
	}
	for (u32 i = 0; i < MTA_COUNT; i++)
		wr(nic, REG_MTA(i), 0);
}

static bool phy_access(const struct e1000 *nic, u32 command, u16 *data)
{
	u32 value;

	wr(nic, REG_MDIC, command | MDIC_PHY_1);
	if (!await(nic, REG_MDIC, MDIC_READY, MDIC_READY))
		return false;
	value = rd(nic, REG_MDIC);
	*data = (u16)value;
	return !(value & MDIC_ERROR);
}

/* The firmware may have put the PHY to sleep, or never looked at it: it negotiates by itself then.
 */
static void wake_phy(const struct e1000 *nic)
{
	u32 control = MII_CONTROL << MDIC_REGISTER;
	u16 value, done;

	if (!phy_access(nic, MDIC_READ | control, &value))
		return;
	if (!(value & (MII_POWER_DOWN | MII_ISOLATE)) && (value & MII_NEGOTIATE))
		return;
	value &= (u16) ~(MII_POWER_DOWN | MII_ISOLATE);
	value |= MII_NEGOTIATE | MII_RESTART;
	phy_access(nic, MDIC_WRITE | control | value, &done);
}

static void start_rx(struct e1000 *nic)
{
	for (u32 i = 0; i < E1000_RX; i++) {
		nic->rx[i].address = nic->rx_buffer_bus + i * E1000_RX_BUFFER;
		nic->rx[i].status = 0;
	}
	nic->rx_next = 0;
	nic->rx_dropping = false;
	/* Head = tail means empty: one descriptor stays with us. */
	nic->rx_given = E1000_RX - 1;
	wr(nic, REG_RDBAL, (u32)nic->rx_bus);
	wr(nic, REG_RDBAH, (u32)(nic->rx_bus >> 32));
	wr(nic, REG_RDLEN, E1000_RX * sizeof(struct e1000_rx_desc));
	wr(nic, REG_RDTR, 0);
	wr(nic, REG_RADV, 0);
	wr(nic, REG_RDH, 0);
	wr(nic, REG_RDT, 0);
	wr(nic, REG_RXCSUM, 0);
	if (nic->model->bus == E1000_PCIE) {
		wr(nic, REG_RFCTL, 0); /* legacy descriptors */
		wr(nic, REG_MRQC, 0);  /* one queue */
	}
	wr(nic, REG_RCTL,
	   RCTL_ENABLE | RCTL_LONG | RCTL_BROADCAST | RCTL_BUFFER_8K | RCTL_STRIP_CRC);
	wr(nic, REG_RDT, nic->rx_given);
}

static void start_tx(struct e1000 *nic)
{
	bool pcie = nic->model->bus == E1000_PCIE;

	for (u32 i = 0; i < E1000_TX; i++) {
		nic->tx[i].command = 0;
		nic->tx[i].status = 0;
		nic->tx_last[i] = false;
	}
	nic->tx_tail = nic->tx_clean = nic->tx_told = 0;
	nic->tx_since = 0;
	wr(nic, REG_TDBAL, (u32)nic->tx_bus);
	wr(nic, REG_TDBAH, (u32)(nic->tx_bus >> 32));
	wr(nic, REG_TDLEN, E1000_TX * sizeof(struct e1000_tx_desc));
	wr(nic, REG_TDH, 0);
	wr(nic, REG_TDT, 0);
	wr(nic, REG_TIDV, 0);
	/* Write back each descriptor as it is done; bit 22 must be one there (82574, 10.2.6.10). */
	wr(nic, REG_TXDCTL, TXDCTL_BY_DESCRIPTOR | (pcie ? TXDCTL_COUNT : 0));
	wr(nic, REG_TIPG, pcie ? TIPG_PCIE : TIPG_PCI);
	wr(nic, REG_TCTL, TCTL_ENABLE | TCTL_PSP | TCTL_COLLISIONS | (pcie ? TCTL_MULTIPLE : 0));
}

static int start(struct e1000 *nic)
{
	u32 control;

	reset(nic);
	if (rd(nic, REG_STATUS) == ~0u)
		return ERR_NODEV;
	if (!mac_valid(nic->mac) && !read_mac(nic))
		return ERR_IO;
	/* Speed and duplex are what the PHY has negotiated. */
	control = rd(nic, REG_CTRL) &
		  ~(CTRL_FORCE_SPEED | CTRL_FORCE_DUPLEX | CTRL_LINK_RESET | CTRL_INVERT_LOS |
		    CTRL_PHY_RST | CTRL_VLAN | CTRL_FLOW | CTRL_GIO_MASTER_DISABLE | CTRL_RST);
	wr(nic, REG_CTRL, control | CTRL_LINK_UP);
	wake_phy(nic);
	set_filters(nic);
	start_rx(nic);
	start_tx(nic);
	nic->link = rd(nic, REG_STATUS) & STATUS_LINK;
	return 0;
}

int e1000_init(struct e1000 *nic, const struct e1000_model *model, void *regs, void *memory,
	       u64 bus)
{
	u8 *at = memory;

	memset(nic, 0, sizeof(*nic));
	memset(memory, 0, E1000_MEMORY);
	nic->regs = regs;
	nic->model = model;
	nic->rx_buffer = at + E1000_RX_AT;
	nic->tx_slot = at + RX_BUFFERS;
	at = nic->tx_slot + E1000_TX * E1000_TX_SLOT;
	nic->rx = (struct e1000_rx_desc *)at;
	nic->tx = (struct e1000_tx_desc *)(at + E1000_RX * sizeof(struct e1000_rx_desc));
	nic->rx_buffer_bus = bus + E1000_RX_AT;
	nic->tx_slot_bus = bus + RX_BUFFERS;
	nic->rx_bus = nic->tx_slot_bus + E1000_TX * E1000_TX_SLOT;
	nic->tx_bus = nic->rx_bus + E1000_RX * sizeof(struct e1000_rx_desc);
	return start(nic);
}

void e1000_stop(struct e1000 *nic)
{
	reset(nic);
	nic->link = false;
}

/* --- receive -------------------------------------------------------------------------------- */

const u8 *e1000_receive_slowly(struct e1000 *nic, size_t *len)
{
	/* The NIC fills what it was given, and no more: the descriptor at RDT is ours. */
	while (nic->rx_next != nic->rx_given) {
		volatile struct e1000_rx_desc *d = &nic->rx[nic->rx_next];
		u8 status = d->status;

		if (!(status & RX_DONE))
			return NULL;
		if (!nic->rx_dropping && e1000_whole(d->rest))
			return e1000_receive(nic, len);
		nic->rx_dropping = !(status & RX_END);
		nic->stats.rx_errors += !nic->rx_dropping;
		e1000_release(nic);
	}
	return NULL;
}

void e1000_give_buffers(struct e1000 *nic)
{
	u32 tail = (nic->rx_next + E1000_RX - 1) % E1000_RX;

	if (tail == nic->rx_given)
		return;
	nic->rx_given = tail;
	wr(nic, REG_RDT, tail);
}

/* --- transmit ------------------------------------------------------------------------------- */

static u32 next_tx(u32 i)
{
	return (i + 1) % E1000_TX;
}

static void clean_tx(struct e1000 *nic)
{
	u32 i = nic->tx_clean;

	while (i != nic->tx_told) {
		while (!nic->tx_last[i])
			i = next_tx(i);
		if (!(nic->tx[i].status & TX_DONE))
			return;
		i = next_tx(i);
		nic->tx_clean = i;
		nic->tx_since = 0;
	}
}

static u32 tx_free(const struct e1000 *nic)
{
	return (nic->tx_clean + E1000_TX - 1 - nic->tx_tail) % E1000_TX;
}

bool e1000_tx_room(struct e1000 *nic)
{
	if (likely(tx_free(nic) >= TX_ROOM))
		return true;
	clean_tx(nic);
	return tx_free(nic) >= TX_ROOM;
}

bool e1000_tx_idle(struct e1000 *nic)
{
	clean_tx(nic);
	return nic->tx_clean == nic->tx_tail;
}

/* Descriptors for the pieces: what is copied is put together in slots. */
static u32 tx_wanted(const struct e1000_piece *piece, u32 pieces, u32 *bytes)
{
	u32 copied = 0, wanted = 0;

	*bytes = 0;
	for (u32 i = 0; i < pieces; i++) {
		*bytes += piece[i].len;
		if (!piece[i].len)
			continue;
		if (!piece[i].bus) {
			copied += piece[i].len;
			continue;
		}
		wanted += 1 + (copied + E1000_TX_SLOT - 1) / E1000_TX_SLOT;
		copied = 0;
	}
	return wanted + (copied + E1000_TX_SLOT - 1) / E1000_TX_SLOT;
}

int e1000_begin(struct e1000 *nic, u32 descriptors)
{
	if (unlikely(!nic->link))
		return ERR_NODEV;
	if (likely(descriptors <= tx_free(nic)))
		return 0;
	clean_tx(nic);
	if (descriptors <= tx_free(nic))
		return 0;
	nic->stats.tx_full++;
	return ERR_BUSY;
}

void e1000_put_bus(struct e1000 *nic, u64 bus, u32 len)
{
	volatile struct e1000_tx_desc *d = &nic->tx[nic->tx_tail];

	d->address = bus;
	d->rest = len | (u64)(TX_INSERT_FCS | TX_REPORT) << TX_COMMAND_AT;
	nic->tx_last[nic->tx_tail] = false;
	nic->tx_tail = next_tx(nic->tx_tail);
	nic->stats.tx_bytes += len;
}

u8 *e1000_put(struct e1000 *nic, u32 len)
{
	u32 at = nic->tx_tail * E1000_TX_SLOT;

	e1000_put_bus(nic, nic->tx_slot_bus + at, len);
	return nic->tx_slot + at;
}

void e1000_end(struct e1000 *nic)
{
	u32 last = (nic->tx_tail + E1000_TX - 1) % E1000_TX;

	nic->tx[last].command = TX_END | TX_INSERT_FCS | TX_REPORT;
	nic->tx_last[last] = true;
	nic->stats.tx_frames++;
}

/* What is copied is collected in slots, of which the one at the tail has `used` bytes. */
static void put_slot(struct e1000 *nic, u32 *used)
{
	if (*used)
		e1000_put(nic, *used);
	*used = 0;
}

static void put_copy(struct e1000 *nic, const u8 *data, u32 len, u32 *used)
{
	while (len) {
		u32 n = MIN(len, E1000_TX_SLOT - *used);

		memcpy(nic->tx_slot + nic->tx_tail * E1000_TX_SLOT + *used, data, n);
		*used += n;
		data += n;
		len -= n;
		if (*used == E1000_TX_SLOT)
			put_slot(nic, used);
	}
}

int e1000_transmit(struct e1000 *nic, const struct e1000_piece *piece, u32 pieces)
{
	u32 bytes, used = 0;
	u32 wanted = tx_wanted(piece, pieces, &bytes);
	int err;

	if (bytes < E1000_FRAME_MIN || bytes > E1000_RX_BUFFER)
		return ERR_INVAL;
	err = e1000_begin(nic, wanted);
	if (err)
		return err;
	for (u32 i = 0; i < pieces; i++) {
		if (!piece[i].bus) {
			put_copy(nic, piece[i].data, piece[i].len, &used);
		} else if (piece[i].len) {
			put_slot(nic, &used);
			e1000_put_bus(nic, piece[i].bus, piece[i].len);
		}
	}
	put_slot(nic, &used);
	e1000_end(nic);
	return 0;
}

/* --- now and then --------------------------------------------------------------------------- */

/* What was to be sent would leave when the link is back, late, and its payload is needed no more.
 */
static void drop_tx(struct e1000 *nic)
{
	wr(nic, REG_TCTL, TCTL_PSP);
	rd(nic, REG_STATUS);
	nic_pause(10);
	start_tx(nic);
}

static bool look_at_link(struct e1000 *nic)
{
	bool link = rd(nic, REG_STATUS) & STATUS_LINK;

	if (link == nic->link)
		return false;
	nic->link = link;
	nic->stats.link_changes++;
	if (!link)
		drop_tx(nic);
	return true;
}

/* Sends nothing though it could: start it anew. */
static void watch_tx(struct e1000 *nic, u64 now)
{
	if (e1000_tx_idle(nic) || !nic->link) {
		nic->tx_since = 0;
	} else if (!nic->tx_since) {
		nic->tx_since = now;
	} else if (now - nic->tx_since > SEND_PERIOD) {
		nic->stats.resets++;
		log_warn("%s: has sent nothing for two seconds and is reset", nic->model->name);
		if (start(nic))
			log_warn("%s: does not answer any more", nic->model->name);
	}
}

void e1000_kick(struct e1000 *nic)
{
	if (nic->tx_told == nic->tx_tail)
		return;
	nic->tx_told = nic->tx_tail;
	wr(nic, REG_TDT, nic->tx_tail);
}

bool e1000_service(struct e1000 *nic, u64 now)
{
	bool changed;

	e1000_kick(nic);
	if (likely(now - nic->looked < LOOK_PERIOD))
		return false;
	nic->looked = now;
	e1000_give_buffers(nic);
	changed = look_at_link(nic);
	watch_tx(nic, now);
	return changed;
}

bool e1000_arm(struct e1000 *nic)
{
	bool link;

	wr(nic, REG_IMS, IRQ_LINK | IRQ_RX_FEW | IRQ_RX_OVERRUN | IRQ_RX);
	link = rd(nic, REG_STATUS) & STATUS_LINK; /* and the write is at the device */
	return (nic->rx[nic->rx_next].status & RX_DONE) || link != nic->link;
}

void e1000_disarm(struct e1000 *nic)
{
	wr(nic, REG_IMC, ~0u);
	if (rd(nic, REG_ICR) & IRQ_LINK)
		nic->looked = 0;
}

void e1000_count(struct e1000 *nic)
{
	/* Cleared when they are read. */
	nic->stats.rx_missed += rd(nic, REG_MPC);
	nic->stats.rx_errors += rd(nic, REG_CRCERRS);
}
