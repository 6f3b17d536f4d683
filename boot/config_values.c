/* The keys of umbra.conf and their values. */
#include <umbra/features.h>

#include "config_parser.h"
#include "text.h"

enum kind {
	CHOICE,	 /* one of choices[], into a u32 */
	NUMBER,	 /* min to max, into a u32 */
	SIZE,	 /* bytes with K, M, G; min to max, a multiple of 2 MiB; into a u64 */
	PORT,	 /* UART: com1 to com4, a port, none; into a u16 */
	PATH,	 /* into a boot_file's path */
	TEXT,	 /* BOOT_CMDLINE_LEN bytes */
	HIDE,	 /* list of features, into a bit set */
	PINS,	 /* list of CPU indices, into pin[] and pin_count */
	MODULES, /* list of PATH [ARGUMENTS] */
	DISKS,	 /* list of PATH [ro|cow] */
	PMEM,	 /* list of ram SIZE [saved], model SIZE, host RANGE [direct] */
	FOCUS,	 /* all, monitor, or the name of a VM, which stands further down */
	NETWORK, /* none, dhcp, or IP/LEN [GATEWAY] */
	REMOTE,	 /* list of IP[:PORT] */
	TOKEN,	 /* up to BOOT_TOKEN_LEN bytes, the rest of them zero */
};

struct choice {
	const char *name;
	u32 value;
};

struct key {
	const char *name;
	enum kind kind;
	size_t offset; /* in struct boot_options or struct boot_vm */
	const char *expected;
	const struct choice *choices; /* ends with a NULL name */
	u64 min, max;
};

static const struct choice yes_no[] = {{"yes", 1}, {"no", 0}, {NULL, 0}};
static const struct choice log_levels[] = {{"error", BOOT_LOG_ERROR},
					   {"warn", BOOT_LOG_WARN},
					   {"info", BOOT_LOG_INFO},
					   {"debug", BOOT_LOG_DEBUG},
					   {NULL, 0}};
static const struct choice poweroffs[] = {{"halt", BOOT_POWEROFF_HALT},
					  {"bochs", BOOT_POWEROFF_BOCHS},
					  {"qemu", BOOT_POWEROFF_QEMU},
					  {"reset", BOOT_POWEROFF_RESET},
					  {NULL, 0}};
static const struct choice orders[] = {
	{"together", BOOT_ORDER_TOGETHER}, {"sequence", BOOT_ORDER_SEQUENCE}, {NULL, 0}};
static const struct choice protocols[] = {{"auto", BOOT_PROTO_AUTO},
					  {"multiboot", BOOT_PROTO_MULTIBOOT},
					  {"pvh", BOOT_PROTO_PVH},
					  {"linux", BOOT_PROTO_LINUX},
					  {NULL, 0}};
static const struct choice disk_modes[] = {{"cow", BOOT_DISK_COW}, {"ro", BOOT_DISK_RO}, {NULL, 0}};
static const struct choice ports[] = {{"com1", 0x3f8}, {"com2", 0x2f8}, {"com3", 0x3e8},
				      {"com4", 0x2e8}, {"none", 0},	{NULL, 0}};

static const struct choice roles[] = {
	{"hypervisor", BOOT_ROLE_HYPERVISOR}, {"memory-node", BOOT_ROLE_MEMORY_NODE}, {NULL, 0}};

static const struct choice partitions[] = {
	{"auto", BOOT_PMEM_PARTITION_AUTO}, {"none", BOOT_PMEM_PARTITION_NONE}, {NULL, 0}};

#define OPTION(field) offsetof(struct boot_options, field)
#define VM(field)     offsetof(struct boot_vm, field)
#define PMEM_TEXT                                                                      \
	"up to 4 of ram SIZE [saved], model SIZE [CONTROLLERS], host RANGE [direct], " \
	"separated by commas; a SIZE is a multiple of 2M"
#define NETWORK_TEXT "none, dhcp, or ADDRESS/LENGTH [GATEWAY], such as 10.0.0.2/24 10.0.0.1"
#define REMOTE_TEXT  "up to 4 of ADDRESS[:PORT], separated by commas"
#define PORT_TEXT    "com1 to com4, none, or a port number from 0x100 to 0xfff8, a multiple of 8"

static const struct key umbra_keys[] = {
	{"log_level", CHOICE, OPTION(log_level), "error, warn, info or debug", log_levels, 0, 0},
	{"console", PORT, OPTION(console_port), PORT_TEXT, ports, 0x100, 0xfff8},
	{"log", PORT, OPTION(log_port), PORT_TEXT, ports, 0x100, 0xfff8},
	{"screen", CHOICE, OPTION(screen), "yes or no", yes_no, 0, 0},
	{"poweroff", CHOICE, OPTION(poweroff), "halt, bochs, qemu or reset", poweroffs, 0, 0},
	{"order", CHOICE, OPTION(order), "together or sequence", orders, 0, 0},
	{"cpus", NUMBER, OPTION(cpus), "a number from 1 to 64", NULL, 1, BOOT_MAX_CPUS},
	{"hide", HIDE, OPTION(hide), "a list of optional features", NULL, 0, 0},
	{"tick_us", NUMBER, OPTION(tick_us), "a number from 100 to 100000", NULL, 100, 100000},
	{"quantum_us", NUMBER, OPTION(quantum_us), "a number from 100 to 100000", NULL, 100,
	 100000},
	{"trace", CHOICE, OPTION(trace), "yes or no", yes_no, 0, 0},
	{"report", CHOICE, OPTION(report), "yes or no", yes_no, 0, 0},
	{"focus", FOCUS, OPTION(focus), "all, monitor or the name of a VM", NULL, 0, 0},
	{"pmem_controllers", NUMBER, OPTION(pmem_controllers), "a number from 1 to 16", NULL, 1,
	 16},
	{"pmem_seed", NUMBER, OPTION(pmem_seed), "a number from 0 to 0xffffffff", NULL, 0,
	 0xffffffff},
	{"pmem_cuts", NUMBER, OPTION(pmem_cuts), "a number from 0 to 1000000", NULL, 0, 1000000},
	{"pmem_cut_within", NUMBER, OPTION(pmem_cut_within), "a number from 1 to 0xffffffff", NULL,
	 1, 0xffffffff},
	{"pmem_partition", CHOICE, OPTION(pmem_partition), "auto or none", partitions, 0, 0},
	{"pmem_save_budget", NUMBER, OPTION(pmem_save_budget), "a number from 64 to 1048576", NULL,
	 64, 1048576},
	{"pmem_power_loss_sectors", NUMBER, OPTION(pmem_power_loss_sectors),
	 "a number from 0 to 0xffffffff", NULL, 0, 0xffffffff},
	{"role", CHOICE, OPTION(role), "hypervisor or memory-node", roles, 0, 0},
	{"network", NETWORK, OPTION(network), NETWORK_TEXT, NULL, 0, 0},
	{"node_memory", SIZE, OPTION(node_memory), "a size from 2M to 512G, a multiple of 2M", NULL,
	 SIZE_2M, 512 * GIB},
	{"node_slices", NUMBER, OPTION(node_slices), "a number from 1 to 8", NULL, 1, 8},
	{"node_token", TOKEN, OPTION(node_token), "up to 16 bytes", NULL, 0, 0},
};

static const struct key vm_keys[] = {
	{"kernel", PATH, VM(kernel), "a path of 1 to 127 bytes", NULL, 0, 0},
	{"modules", MODULES, 0, "up to 8 of PATH [ARGUMENTS], separated by commas", NULL, 0, 0},
	{"cmdline", TEXT, VM(cmdline), "up to 1023 bytes", NULL, 0, 0},
	{"memory", SIZE, VM(memory), "a size from 4M to 512G, a multiple of 2M", NULL, 4 * MIB,
	 512 * GIB},
	{"vcpus", NUMBER, VM(vcpus), "a number from 1 to 16", NULL, 1, BOOT_MAX_VCPUS},
	{"cpus", PINS, 0, "up to 16 CPU indices from 0 to 63, separated by commas", NULL, 0,
	 BOOT_MAX_CPUS - 1},
	{"protocol", CHOICE, VM(protocol), "auto, multiboot, pvh or linux", protocols, 0, 0},
	{"intercept", NUMBER, VM(intercept), "a number from 0 to 0xffffffff", NULL, 0, 0xffffffff},
	{"x2apic", CHOICE, VM(x2apic), "yes or no", yes_no, 0, 0},
	{"disks", DISKS, 0, "up to 4 of PATH [ro|cow], separated by commas", NULL, 0, 0},
	{"virtio_console", CHOICE, VM(virtio_console), "yes or no", yes_no, 0, 0},
	{"pmem", PMEM, 0, PMEM_TEXT, NULL, SIZE_2M, 512 * GIB},
	{"remote", REMOTE, 0, REMOTE_TEXT, NULL, 0, 0},
	{"remote_token", TOKEN, VM(remote_token), "up to 16 bytes", NULL, 0, 0},
	{"local", SIZE, VM(local), "a size from 2M to 512G, a multiple of 2M", NULL, SIZE_2M,
	 512 * GIB},
	{"replicas", NUMBER, VM(replicas), "a number from 1 to 4", NULL, 1, BOOT_MAX_REMOTE},
	{"seal", CHOICE, VM(seal), "yes or no", yes_no, 0, 0},
	{"prefetch", CHOICE, VM(prefetch), "yes or no", yes_no, 0, 0},
	{"async_pf", CHOICE, VM(async_pf), "yes or no", yes_no, 0, 0},
};

static bool find_choice(const struct choice *choice, const char *value, u32 *out)
{
	for (; choice->name; choice++) {
		if (text_equal(choice->name, value)) {
			*out = choice->value;
			return true;
		}
	}
	return false;
}

static void set_hide(struct config_parser *p, const char *value, u64 *out)
{
	char item[CONFIG_MAX_LINE + 1], names[300];
	size_t len, used = 0;
	unsigned int i;
	int f;

	while (config_item(&value, item, &len, false)) {
		f = feature_find(item, (unsigned int)len);
		if (f >= 0) {
			*out |= BIT64(f);
			continue;
		}
		for (i = 0; i < FEAT_COUNT; i++)
			used += (size_t)text_print(names + used, sizeof(names) - used, "%s%s",
						   i ? ", " : "", feature_name(i));
		config_error(p, "hide: \"%.40s\" is not an optional feature; expected one of %s",
			     item, names);
		return;
	}
}

static void set_pins(struct config_parser *p, const struct key *key, const char *value)
{
	struct boot_vm *vm = &p->vms[p->vm_count - 1];
	char item[CONFIG_MAX_LINE + 1];
	size_t len;
	u64 cpu;

	while (config_item(&value, item, &len, false)) {
		if (!config_number(item, len, &cpu) || cpu > key->max) {
			config_error(p, "cpus: \"%.40s\" is not a CPU index; expected %s", item,
				     key->expected);
			return;
		}
		if (vm->pin_count == BOOT_MAX_VCPUS) {
			config_error(p, "cpus: too many entries; expected %s", key->expected);
			return;
		}
		vm->pin[vm->pin_count++] = (u16)cpu;
	}
}

static bool good_path(struct config_parser *p, const char *key, u32 entry, size_t len)
{
	if (len && len < BOOT_PATH_LEN)
		return true;
	config_error(p, "%s: the path of entry %u is %s; expected a path of 1 to 127 bytes", key,
		     entry + 1, len ? "too long" : "empty");
	return false;
}

/* An item is a path and what follows it, which is *rest then, of *n bytes: the path's length. */
static size_t cut_path(const char *item, size_t len, const char **rest, size_t *n)
{
	size_t path = 0;

	while (path < len && !config_is_blank(item[path]))
		path++;
	*rest = item + path;
	*n = len - path;
	config_trim(rest, n);
	return path;
}

static void set_modules(struct config_parser *p, const struct key *key, const char *value)
{
	struct boot_vm *vm = &p->vms[p->vm_count - 1];
	char item[CONFIG_MAX_LINE + 1];
	const char *args;
	size_t len, path, n;

	if (!*value)
		return;
	while (config_item(&value, item, &len, true)) {
		path = cut_path(item, len, &args, &n);
		if (vm->module_count == BOOT_MAX_MODULES) {
			config_error(p, "modules: too many; expected %s", key->expected);
			return;
		}
		if (!good_path(p, "modules", vm->module_count, path))
			return;
		if (n >= BOOT_CMDLINE_LEN) {
			config_error(
				p,
				"modules: the arguments of entry %u are %u bytes; expected up to "
				"1023",
				vm->module_count + 1, (unsigned int)n);
			return;
		}
		config_copy(vm->module[vm->module_count].path, item, path);
		config_copy(vm->module_args[vm->module_count++], args, n);
	}
}

static bool set_focus(struct config_parser *p, const char *value, size_t len)
{
	if (text_equal(value, "all"))
		p->options->focus = BOOT_FOCUS_ALL;
	else if (text_equal(value, "monitor"))
		p->options->focus = BOOT_FOCUS_MONITOR;
	else if (config_good_name(value, len))
		config_copy(p->focus, value, len);
	else
		return false;
	p->focus_line = p->line;
	return true;
}

static void set_disks(struct config_parser *p, const struct key *key, const char *value)
{
	struct boot_vm *vm = &p->vms[p->vm_count - 1];
	char item[CONFIG_MAX_LINE + 1];
	size_t len, path, n;
	const char *mode;
	u32 chosen;

	if (!*value)
		return;
	while (config_item(&value, item, &len, true)) {
		path = cut_path(item, len, &mode, &n);
		if (vm->disk_count == BOOT_MAX_DISKS) {
			config_error(p, "disks: too many; expected %s", key->expected);
			return;
		}
		if (!good_path(p, "disks", vm->disk_count, path))
			return;
		chosen = BOOT_DISK_COW;
		if (n && !find_choice(disk_modes, mode, &chosen)) {
			config_error(
				p,
				"disks: \"%.40s\" follows the path of entry %u; expected ro or cow",
				mode, vm->disk_count + 1);
			return;
		}
		config_copy(vm->disk[vm->disk_count].path, item, path);
		vm->disk_mode[vm->disk_count++] = chosen;
	}
}

static const struct choice pmem_sources[] = {
	{"host", BOOT_PMEM_HOST}, {"ram", BOOT_PMEM_RAM}, {"model", BOOT_PMEM_MODEL}, {NULL, 0}};

static bool parse_pmem(const struct key *key, const char *item, struct boot_pmem *out)
{
	char word[CONFIG_MAX_LINE + 1];
	size_t len;
	u64 range;

	config_word(&item, word);
	if (!find_choice(pmem_sources, word, &out->source))
		return false;
	len = config_word(&item, word);
	if (out->source == BOOT_PMEM_HOST) {
		if (!config_number(word, len, &range) || !range || range > 0xffff)
			return false;
		out->range = (u32)range;
		len = config_word(&item, word);
		out->direct = text_equal(word, "direct");
		return !len || (out->direct && !config_word(&item, word));
	}
	if (!config_size(word, len, &out->bytes) || out->bytes < key->min ||
	    out->bytes > key->max || !IS_ALIGNED(out->bytes, SIZE_2M))
		return false;
	len = config_word(&item, word);
	if (len && out->source == BOOT_PMEM_MODEL) {
		if (!config_number(word, len, &range) || !range || range > 16)
			return false;
		out->controllers = (u32)range;
		return !config_word(&item, word);
	}
	out->saved = out->source == BOOT_PMEM_RAM && text_equal(word, "saved");
	return !len || (out->saved && !config_word(&item, word));
}

static void set_pmem(struct config_parser *p, const struct key *key, const char *value)
{
	struct boot_vm *vm = &p->vms[p->vm_count - 1];
	char item[CONFIG_MAX_LINE + 1];
	size_t len;

	if (!*value)
		return;
	while (config_item(&value, item, &len, false)) {
		struct boot_pmem pmem = {0};

		if (vm->pmem_count == BOOT_MAX_PMEM) {
			config_error(p, "pmem: too many; expected %s", key->expected);
			return;
		}
		if (!parse_pmem(key, item, &pmem)) {
			config_error(p, "pmem: \"%.60s\" is not a region; expected %s", item,
				     key->expected);
			return;
		}
		vm->pmem[vm->pmem_count++] = pmem;
	}
}

/* An address that a machine can have: not 0.x, not multicast, not broadcast, not this machine's. */
static bool good_ip(u32 ip)
{
	return ip >> 24 && ip >> 24 != 127 && ip >> 28 < 14;
}

static bool parse_network(const char *value, struct boot_network *out)
{
	u32 prefix = 0, digits = 0, mask;

	if (text_equal(value, "none") || text_equal(value, "dhcp")) {
		out->mode = *value == 'd' ? BOOT_NETWORK_DHCP : BOOT_NETWORK_NONE;
		return true;
	}
	if (!config_ip(&value, &out->address) || *value++ != '/')
		return false;
	for (; *value >= '0' && *value <= '9' && digits < 2; digits++)
		prefix = prefix * 10 + (u32)(*value++ - '0');
	if (!digits || prefix < 1 || prefix > 30)
		return false;
	mask = ~0u << (32 - prefix);
	/* Neither the network's own address nor its broadcast address. */
	if (!good_ip(out->address) || !(out->address & ~mask) || !(~out->address & ~mask))
		return false;
	out->mode = BOOT_NETWORK_STATIC;
	out->prefix = prefix;
	if (!*value)
		return true;
	if (!config_is_blank(*value))
		return false;
	while (config_is_blank(*value))
		value++;
	return config_ip(&value, &out->gateway) && !*value && good_ip(out->gateway) &&
	       (out->gateway & mask) == (out->address & mask) && out->gateway != out->address;
}

static bool parse_node(const char *item, struct boot_node *out)
{
	u64 port = BOOT_NODE_PORT;
	size_t len = 0;

	if (!config_ip(&item, &out->ip) || !good_ip(out->ip))
		return false;
	if (*item) {
		while (item[len])
			len++;
		if (*item != ':' || !config_number(item + 1, len - 1, &port))
			return false;
	}
	out->port = (u16)port;
	return port && port <= 0xffff;
}

static void set_remote(struct config_parser *p, const struct key *key, const char *value)
{
	struct boot_vm *vm = &p->vms[p->vm_count - 1];
	char item[CONFIG_MAX_LINE + 1];
	size_t len;

	if (!*value)
		return;
	while (config_item(&value, item, &len, false)) {
		struct boot_node node = {0};

		if (vm->remote_count == BOOT_MAX_REMOTE) {
			config_error(p, "remote: too many; expected %s", key->expected);
			return;
		}
		if (!parse_node(item, &node)) {
			config_error(p, "remote: \"%.60s\" is not a memory node; expected %s", item,
				     key->expected);
			return;
		}
		for (u32 i = 0; i < vm->remote_count; i++) {
			if (vm->remote[i].ip == node.ip && vm->remote[i].port == node.port) {
				config_error(p,
					     "remote: \"%.60s\" is named twice; expected each "
					     "memory node once",
					     item);
				return;
			}
		}
		vm->remote[vm->remote_count++] = node;
	}
}

static void bad_value(struct config_parser *p, const struct key *key, const char *value)
{
	if (*value)
		config_error(p, "%s: \"%.60s\" is not a valid value; expected %s", key->name, value,
			     key->expected);
	else
		config_error(p, "%s: the value is empty; expected %s", key->name, key->expected);
}

static const struct key *find_key(const struct config_parser *p, size_t key)
{
	if (p->section == CONFIG_UMBRA)
		return key < ARRAY_SIZE(umbra_keys) ? &umbra_keys[key] : NULL;
	return key < ARRAY_SIZE(vm_keys) ? &vm_keys[key] : NULL;
}

const char *config_key_name(const struct config_parser *p, size_t key)
{
	const struct key *k = find_key(p, key);

	return k ? k->name : NULL;
}

void config_set_value(struct config_parser *p, size_t index, const char *value, size_t len)
{
	const struct key *key = find_key(p, index);
	void *base =
		p->section == CONFIG_UMBRA ? (void *)p->options : (void *)&p->vms[p->vm_count - 1];
	void *field = (char *)base + key->offset;
	struct boot_file *file = field;
	u32 chosen = 0;
	u64 number = 0;
	bool ok = true;

	switch (key->kind) {
	case CHOICE:
		ok = find_choice(key->choices, value, &chosen);
		*(u32 *)field = chosen;
		break;
	case NUMBER:
		ok = config_number(value, len, &number) && number >= key->min && number <= key->max;
		*(u32 *)field = (u32)number;
		break;
	case SIZE:
		ok = config_size(value, len, &number) && number >= key->min && number <= key->max &&
		     IS_ALIGNED(number, SIZE_2M);
		*(u64 *)field = number;
		break;
	case PORT:
		if (find_choice(key->choices, value, &chosen))
			number = chosen;
		else
			ok = config_number(value, len, &number) && number >= key->min &&
			     number <= key->max && IS_ALIGNED(number, 8ull);
		*(u16 *)field = (u16)number;
		break;
	case PATH:
		ok = len && len < sizeof(file->path);
		if (ok)
			config_copy(file->path, value, len);
		break;
	case TEXT:
		if (len < BOOT_CMDLINE_LEN)
			config_copy(field, value, len);
		else
			config_error(p, "%s: the text is %u bytes long; expected %s", key->name,
				     (unsigned int)len, key->expected);
		break;
	case HIDE:
		set_hide(p, value, field);
		break;
	case PINS:
		set_pins(p, key, value);
		break;
	case MODULES:
		set_modules(p, key, value);
		break;
	case DISKS:
		set_disks(p, key, value);
		break;
	case PMEM:
		set_pmem(p, key, value);
		break;
	case FOCUS:
		ok = set_focus(p, value, len);
		break;
	case NETWORK:
		ok = parse_network(value, field);
		break;
	case REMOTE:
		set_remote(p, key, value);
		break;
	case TOKEN:
		ok = len <= BOOT_TOKEN_LEN;
		for (size_t i = 0; ok && i < BOOT_TOKEN_LEN; i++)
			((u8 *)field)[i] = i < len ? (u8)value[i] : 0;
		break;
	}
	if (!ok)
		bad_value(p, key, value);
}

/* --- what only shows at the end ------------------------------------------------------------------
 */

void config_end_vm(struct config_parser *p)
{
	struct boot_vm *vm = &p->vms[p->vm_count - 1];

	/* After an error these would be guesses. */
	if (!vm->remote_count || p->errors)
		return;
	if (p->options->network.mode == BOOT_NETWORK_NONE)
		config_error_at(p, p->section_line,
				"[vm %s] has remote memory, and there is no network; expected "
				"network = dhcp or an address in [umbra]",
				vm->name);
	if (!vm->local)
		vm->local = MAX(ALIGN_DOWN(vm->memory / 2, SIZE_2M), SIZE_2M);
	if (vm->local > vm->memory)
		config_error_at(p, p->section_line,
				"[vm %s] local is more than memory; expected at most as much",
				vm->name);
	if (vm->replicas > vm->remote_count)
		config_error_at(p, p->section_line,
				"[vm %s] replicas is %u, and remote names %u; expected at most one "
				"replica for each memory node",
				vm->name, vm->replicas, vm->remote_count);
}

static void find_focus(struct config_parser *p)
{
	u32 i;

	if (!p->focus[0])
		return;
	for (i = 0; i < p->vm_count && !text_equal(p->vms[i].name, p->focus); i++)
		;
	p->options->focus = BOOT_FOCUS_VM + i;
	if (i == p->vm_count)
		config_error_at(
			p, p->focus_line,
			"focus: there is no [vm %s]; expected all, monitor or the name of a VM",
			p->focus);
}

void config_end_file(struct config_parser *p)
{
	find_focus(p);
	if (p->options->role == BOOT_ROLE_MEMORY_NODE) {
		if (p->vm_count)
			config_error_at(p, 0,
					"a memory node runs no guests; expected no [vm NAME] "
					"section, or role = hypervisor");
		if (p->options->network.mode == BOOT_NETWORK_NONE)
			config_error_at(p, 0,
					"a memory node needs a network; expected network = "
					"dhcp or an address in [umbra]");
	} else if (!p->vm_count && !p->errors) {
		config_error_at(p, 0,
				"no guest is configured; expected at least one [vm NAME] section");
	}
}
