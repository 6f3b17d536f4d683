/* SMBIOS tables: see smbios.h. Section numbers are those of DSP0134. */
#include "dev/smbios.h"

#include "lib/string.h"
#include "vm/vm.h"

#define VENDOR	"Umbra"
#define PRODUCT "Umbra virtual machine"
#define VERSION "0.1"
/* Any day that is later than what kernels take for too old. */
#define RELEASE_DATE "01/01/2026"

enum {
	TYPE_BIOS = 0,
	TYPE_SYSTEM = 1,
	TYPE_CHASSIS = 3,
	TYPE_BOOT = 32,
	TYPE_END = 127
};

struct header { /* 6.1.2; strings are numbers, from 1 */
	u8 type, length;
	u16 handle;
} __packed;

struct bios { /* 7.1 */
	struct header header;
	u8 vendor, version;
	u16 segment;
	u8 date, rom_size; /* in 64 KiB, minus 1 */
	u64 characteristics;
	u8 extension[2], major, minor, ec_major, ec_minor;
} __packed;
#define BIOS_NO_CHARACTERISTICS BIT64(3)
#define BIOS_VIRTUAL_MACHINE	BIT(4) /* second extension byte */
#define NOT_SUPPORTED		0xff

struct system { /* 7.2 */
	struct header header;
	u8 manufacturer, product, version, serial;
	u8 uuid[16]; /* all 0: not set */
	u8 wake_up, sku, family;
} __packed;
#define WAKE_UP_POWER_SWITCH 6

struct chassis { /* 7.4 */
	struct header header;
	u8 manufacturer, type, version, serial, asset;
	u8 boot_state, power_state, thermal_state, security;
	u32 oem;
	u8 height, cords, contained_count, contained_bytes;
} __packed;
#define CHASSIS_OTHER 1
#define STATE_SAFE    3
#define SECURITY_NONE 3

struct boot { /* 7.33 */
	struct header header;
	u8 reserved[6], status;
} __packed;

_Static_assert(sizeof(struct bios) == 0x18 && sizeof(struct system) == 0x1b &&
		       sizeof(struct chassis) == 0x15 && sizeof(struct boot) == 0x0b,
	       "7.1, 7.2, 7.4, 7.33");

struct builder {
	u8 *table;
	struct smbios_entry *entry;
	u16 at;
};

/* A structure and its strings (6.1.3): each ended by a zero, and one more after the last. */
static void add(struct builder *b, void *structure, u8 type, u8 length, const char *const *strings)
{
	struct header *h = structure;
	u16 start = b->at;

	*h = (struct header){type, length, b->entry->count};
	memcpy(b->table + b->at, structure, length);
	b->at += length;
	for (; strings && *strings; strings++) {
		size_t bytes = strlen(*strings) + 1;

		memcpy(b->table + b->at, *strings, bytes);
		b->at += (u16)bytes;
	}
	b->at += strings ? 1 : 2;
	b->entry->count++;
	b->entry->longest = MAX(b->entry->longest, (u16)(b->at - start));
}

static u8 checksum(const void *data, size_t bytes)
{
	const u8 *p = data;
	u8 sum = 0;

	for (size_t i = 0; i < bytes; i++)
		sum += p[i];
	return (u8)-sum;
}

static void add_structures(struct builder *b, const char *name)
{
	const char *const bios_strings[] = {VENDOR, VERSION, RELEASE_DATE, NULL};
	const char *const system_strings[] = {VENDOR, PRODUCT, VERSION, *name ? name : NULL, NULL};
	const char *const chassis_strings[] = {VENDOR, NULL};
	struct bios bios = {
		.vendor = 1,
		.version = 2,
		.segment = 0xf000,
		.date = 3,
		.characteristics = BIOS_NO_CHARACTERISTICS,
		.extension = {0, BIOS_VIRTUAL_MACHINE},
		.major = NOT_SUPPORTED,
		.minor = NOT_SUPPORTED,
		.ec_major = NOT_SUPPORTED,
		.ec_minor = NOT_SUPPORTED,
	};
	struct system system = {.manufacturer = 1,
				.product = 2,
				.version = 3,
				.serial = *name ? 4 : 0,
				.wake_up = WAKE_UP_POWER_SWITCH};
	struct chassis chassis = {.manufacturer = 1,
				  .type = CHASSIS_OTHER,
				  .boot_state = STATE_SAFE,
				  .power_state = STATE_SAFE,
				  .thermal_state = STATE_SAFE,
				  .security = SECURITY_NONE};
	struct boot boot = {.status = 0};
	struct header end;

	add(b, &bios, TYPE_BIOS, sizeof(bios), bios_strings);
	add(b, &system, TYPE_SYSTEM, sizeof(system), system_strings);
	add(b, &chassis, TYPE_CHASSIS, sizeof(chassis), chassis_strings);
	add(b, &boot, TYPE_BOOT, sizeof(boot), NULL);
	add(b, &end, TYPE_END, sizeof(end), NULL);
}

void smbios_build(const char *name, u8 table[SMBIOS_TABLE_MAX], struct smbios_entry *entry)
{
	struct builder b = {.table = table, .entry = entry};

	memset(table, 0, SMBIOS_TABLE_MAX);
	*entry = (struct smbios_entry){
		.length = sizeof(*entry), .major = 2, .minor = 8, .bcd_revision = 0x28};
	add_structures(&b, name);
	entry->table = SMBIOS_TABLE_BASE;
	entry->table_bytes = b.at;
	memcpy(entry->anchor, "_SM_", 4);
	memcpy(entry->anchor2, "_DMI_", 5);
	entry->checksum2 =
		checksum(entry->anchor2, sizeof(*entry) - offsetof(struct smbios_entry, anchor2));
	entry->checksum = checksum(entry, sizeof(*entry));
}

int smbios_install(struct vm *vm)
{
	u8 table[SMBIOS_TABLE_MAX];
	struct smbios_entry entry;
	int err;

	smbios_build(vm->config->name, table, &entry);
	err = guest_write(vm, gpa(SMBIOS_TABLE_BASE), table, entry.table_bytes);
	return err ? err : guest_write(vm, gpa(SMBIOS_ENTRY_BASE), &entry, sizeof(entry));
}
