#include "config.h"

#include <umbra/features.h>

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
	PMEM,	 /* list of ram SIZE, model SIZE, host RANGE [direct] */
	FOCUS,	 /* all, monitor, or the name of a VM, which stands further down */
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

#define OPTION(field) offsetof(struct boot_options, field)
#define VM(field)     offsetof(struct boot_vm, field)
#define PMEM_TEXT                                                                     \
	"up to 4 of ram SIZE, model SIZE, host RANGE [direct], separated by commas; " \
	"a SIZE is a multiple of 2M"
#define PORT_TEXT "com1 to com4, none, or a port number from 0x100 to 0xfff8, a multiple of 8"

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
};

enum section {
	NOWHERE,
	UMBRA,
	VM_SECTION,
	BROKEN
};

struct parser {
	struct boot_options *options;
	struct boot_vm *vms;
	u32 vm_count;
	config_report_fn report;
	void *ctx;
	unsigned int errors;
	unsigned int line;
	enum section section;
	unsigned int section_line;
	bool seen_umbra;
	char focus[BOOT_NAME_LEN]; /* the VM that has to turn up */
	unsigned int focus_line;
	u32 seen_keys; /* bit set of the section's keys that have had a value */
};

static void __format(3, 4) error_at(struct parser *p, unsigned int line, const char *fmt, ...)
{
	char text[400];
	va_list ap;

	if (p->errors++ >= CONFIG_MAX_ERRORS)
		return;
	va_start(ap, fmt);
	text_vprint(text, sizeof(text), fmt, ap);
	va_end(ap);
	p->report(p->ctx, line, text);
}

#define error(p, ...) error_at(p, (p)->line, __VA_ARGS__)

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static void copy(char *to, const char *from, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		to[i] = from[i];
	to[len] = 0;
}

/* Takes blanks off both ends of [*s, *s + *len). */
static void trim(const char **s, size_t *len)
{
	while (*len && is_blank(**s)) {
		(*s)++;
		(*len)--;
	}
	while (*len && is_blank((*s)[*len - 1]))
		(*len)--;
}

/* Decimal or 0x hexadecimal, the whole of it; false if it is anything else or exceeds 64 bits. */
static bool parse_number(const char *s, size_t len, u64 *out)
{
	unsigned int base = 10, digit;
	u64 value = 0;
	size_t i = 0;

	if (len > 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X')) {
		base = 16;
		i = 2;
	}
	if (i == len)
		return false;
	for (; i < len; i++) {
		if (s[i] >= '0' && s[i] <= '9')
			digit = (unsigned int)(s[i] - '0');
		else if (base == 16 && (s[i] | 32) >= 'a' && (s[i] | 32) <= 'f')
			digit = (unsigned int)((s[i] | 32) - 'a') + 10;
		else
			return false;
		if (value > (~0ull - digit) / base)
			return false;
		value = value * base + digit;
	}
	*out = value;
	return true;
}

static bool parse_size(const char *s, size_t len, u64 *out)
{
	unsigned int shift = 0;
	u64 value;

	if (len && s[len - 1] == 'K')
		shift = 10;
	else if (len && s[len - 1] == 'M')
		shift = 20;
	else if (len && s[len - 1] == 'G')
		shift = 30;
	if (!parse_number(s, shift ? len - 1 : len, &value) || value > ~0ull >> shift)
		return false;
	*out = value << shift;
	return true;
}

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

/*
 * Cuts the next item of a comma-separated list off *s (NUL-terminated); returns false at the end.
 * With `literal`, two commas in a row are one comma of the item; it is copied to item[len].
 */
static bool next_item(const char **s, char *item, size_t *len, bool literal)
{
	const char *start;
	size_t n = 0;

	if (!*s)
		return false;
	while (**s && (**s != ',' || (literal && (*s)[1] == ','))) {
		if (**s == ',')
			(*s)++;
		item[n++] = *(*s)++;
	}
	*s = **s ? *s + 1 : NULL;
	start = item;
	trim(&start, &n);
	copy(item, start, n);
	*len = n;
	return true;
}

static void set_hide(struct parser *p, const char *value, u64 *out)
{
	char item[CONFIG_MAX_LINE + 1], names[300];
	size_t len, used = 0;
	unsigned int i;
	int f;

	while (next_item(&value, item, &len, false)) {
		f = feature_find(item, (unsigned int)len);
		if (f >= 0) {
			*out |= BIT64(f);
			continue;
		}
		for (i = 0; i < FEAT_COUNT; i++)
			used += (size_t)text_print(names + used, sizeof(names) - used, "%s%s",
						   i ? ", " : "", feature_name(i));
		error(p, "hide: \"%.40s\" is not an optional feature; expected one of %s", item,
		      names);
		return;
	}
}

static void set_pins(struct parser *p, const struct key *key, const char *value)
{
	struct boot_vm *vm = &p->vms[p->vm_count - 1];
	char item[CONFIG_MAX_LINE + 1];
	size_t len;
	u64 cpu;

	while (next_item(&value, item, &len, false)) {
		if (!parse_number(item, len, &cpu) || cpu > key->max) {
			error(p, "cpus: \"%.40s\" is not a CPU index; expected %s", item,
			      key->expected);
			return;
		}
		if (vm->pin_count == BOOT_MAX_VCPUS) {
			error(p, "cpus: too many entries; expected %s", key->expected);
			return;
		}
		vm->pin[vm->pin_count++] = (u16)cpu;
	}
}

static bool good_path(struct parser *p, const char *key, u32 entry, size_t len)
{
	if (len && len < BOOT_PATH_LEN)
		return true;
	error(p, "%s: the path of entry %u is %s; expected a path of 1 to 127 bytes", key,
	      entry + 1, len ? "too long" : "empty");
	return false;
}

static void set_modules(struct parser *p, const struct key *key, const char *value)
{
	struct boot_vm *vm = &p->vms[p->vm_count - 1];
	char item[CONFIG_MAX_LINE + 1];
	const char *args;
	size_t len, path, n;

	if (!*value)
		return;
	while (next_item(&value, item, &len, true)) {
		for (path = 0; path < len && !is_blank(item[path]); path++)
			;
		args = item + path;
		n = len - path;
		trim(&args, &n);
		if (vm->module_count == BOOT_MAX_MODULES) {
			error(p, "modules: too many; expected %s", key->expected);
			return;
		}
		if (!good_path(p, "modules", vm->module_count, path))
			return;
		if (n >= BOOT_CMDLINE_LEN) {
			error(p,
			      "modules: the arguments of entry %u are %u bytes; expected up to "
			      "1023",
			      vm->module_count + 1, (unsigned int)n);
			return;
		}
		copy(vm->module[vm->module_count].path, item, path);
		copy(vm->module_args[vm->module_count++], args, n);
	}
}

static bool good_name(const char *s, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (!((s[i] | 32) >= 'a' && (s[i] | 32) <= 'z') && !(s[i] >= '0' && s[i] <= '9') &&
		    s[i] != '-' && s[i] != '_' && s[i] != '.')
			return false;
	return len >= 1 && len < BOOT_NAME_LEN;
}

static bool set_focus(struct parser *p, const char *value, size_t len)
{
	if (text_equal(value, "all"))
		p->options->focus = BOOT_FOCUS_ALL;
	else if (text_equal(value, "monitor"))
		p->options->focus = BOOT_FOCUS_MONITOR;
	else if (good_name(value, len))
		copy(p->focus, value, len);
	else
		return false;
	p->focus_line = p->line;
	return true;
}

/* At the end, when all VMs are known. */
static void find_focus(struct parser *p)
{
	u32 i;

	if (!p->focus[0])
		return;
	for (i = 0; i < p->vm_count && !text_equal(p->vms[i].name, p->focus); i++)
		;
	p->options->focus = BOOT_FOCUS_VM + i;
	if (i == p->vm_count)
		error_at(p, p->focus_line,
			 "focus: there is no [vm %s]; expected all, monitor or the name of a VM",
			 p->focus);
}

static void set_disks(struct parser *p, const struct key *key, const char *value)
{
	struct boot_vm *vm = &p->vms[p->vm_count - 1];
	char item[CONFIG_MAX_LINE + 1];
	size_t len, path, n;
	const char *mode;
	u32 chosen;

	if (!*value)
		return;
	while (next_item(&value, item, &len, true)) {
		for (path = 0; path < len && !is_blank(item[path]); path++)
			;
		mode = item + path;
		n = len - path;
		trim(&mode, &n);
		if (vm->disk_count == BOOT_MAX_DISKS) {
			error(p, "disks: too many; expected %s", key->expected);
			return;
		}
		if (!good_path(p, "disks", vm->disk_count, path))
			return;
		chosen = BOOT_DISK_COW;
		if (n && !find_choice(disk_modes, mode, &chosen)) {
			error(p,
			      "disks: \"%.40s\" follows the path of entry %u; expected ro or cow",
			      mode, vm->disk_count + 1);
			return;
		}
		copy(vm->disk[vm->disk_count].path, item, path);
		vm->disk_mode[vm->disk_count++] = chosen;
	}
}

static const struct choice pmem_sources[] = {
	{"host", BOOT_PMEM_HOST}, {"ram", BOOT_PMEM_RAM}, {"model", BOOT_PMEM_MODEL}, {NULL, 0}};

/* Cuts the next word off [*s, NUL) into word[]; its length, 0 at the end. */
static size_t next_word(const char **s, char *word)
{
	size_t n = 0;

	while (is_blank(**s))
		(*s)++;
	while ((*s)[n] && !is_blank((*s)[n]))
		n++;
	copy(word, *s, n);
	*s += n;
	return n;
}

static bool parse_pmem(const struct key *key, const char *item, struct boot_pmem *out)
{
	char word[CONFIG_MAX_LINE + 1];
	size_t len;
	u64 range;

	next_word(&item, word);
	if (!find_choice(pmem_sources, word, &out->source))
		return false;
	len = next_word(&item, word);
	if (out->source == BOOT_PMEM_HOST) {
		if (!parse_number(word, len, &range) || !range || range > 0xffff)
			return false;
		out->range = (u32)range;
		len = next_word(&item, word);
		out->direct = text_equal(word, "direct");
		return !len || (out->direct && !next_word(&item, word));
	}
	return parse_size(word, len, &out->bytes) && out->bytes >= key->min &&
	       out->bytes <= key->max && IS_ALIGNED(out->bytes, SIZE_2M) && !next_word(&item, word);
}

static void set_pmem(struct parser *p, const struct key *key, const char *value)
{
	struct boot_vm *vm = &p->vms[p->vm_count - 1];
	char item[CONFIG_MAX_LINE + 1];
	size_t len;

	if (!*value)
		return;
	while (next_item(&value, item, &len, false)) {
		struct boot_pmem pmem = {0};

		if (vm->pmem_count == BOOT_MAX_PMEM) {
			error(p, "pmem: too many; expected %s", key->expected);
			return;
		}
		if (!parse_pmem(key, item, &pmem)) {
			error(p, "pmem: \"%.60s\" is not a region; expected %s", item,
			      key->expected);
			return;
		}
		vm->pmem[vm->pmem_count++] = pmem;
	}
}

static void bad_value(struct parser *p, const struct key *key, const char *value)
{
	if (*value)
		error(p, "%s: \"%.60s\" is not a valid value; expected %s", key->name, value,
		      key->expected);
	else
		error(p, "%s: the value is empty; expected %s", key->name, key->expected);
}

static void set_value(struct parser *p, const struct key *key, const char *value, size_t len)
{
	void *base = p->section == UMBRA ? (void *)p->options : (void *)&p->vms[p->vm_count - 1];
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
		ok = parse_number(value, len, &number) && number >= key->min && number <= key->max;
		*(u32 *)field = (u32)number;
		break;
	case SIZE:
		ok = parse_size(value, len, &number) && number >= key->min && number <= key->max &&
		     IS_ALIGNED(number, SIZE_2M);
		*(u64 *)field = number;
		break;
	case PORT:
		if (find_choice(key->choices, value, &chosen))
			number = chosen;
		else
			ok = parse_number(value, len, &number) && number >= key->min &&
			     number <= key->max && IS_ALIGNED(number, 8ull);
		*(u16 *)field = (u16)number;
		break;
	case PATH:
		ok = len && len < sizeof(file->path);
		if (ok)
			copy(file->path, value, len);
		break;
	case TEXT:
		if (len < BOOT_CMDLINE_LEN)
			copy(field, value, len);
		else
			error(p, "%s: the text is %u bytes long; expected %s", key->name,
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
	}
	if (!ok)
		bad_value(p, key, value);
}

/* The value as meant: quotes and escapes resolved, or comment and blanks taken off. */
static bool read_value(struct parser *p, const char *s, size_t len, char *out, size_t *out_len)
{
	size_t i, n = 0;

	trim(&s, &len);
	if (!len || *s != '"') {
		for (i = 0; i < len; i++)
			if ((s[i] == '#' || s[i] == ';') && (!i || is_blank(s[i - 1])))
				break;
		trim(&s, &i);
		copy(out, s, i);
		*out_len = i;
		return true;
	}
	for (i = 1; i < len && s[i] != '"'; i++) {
		if (s[i] == '\\' && ++i < len && s[i] != '"' && s[i] != '\\') {
			error(p, "unknown escape in a quoted value; expected \\\" or \\\\");
			return false;
		}
		if (i < len)
			out[n++] = s[i];
	}
	if (i >= len) {
		error(p, "the quoted value has no closing quote; expected \" at its end");
		return false;
	}
	out[n] = 0;
	*out_len = n;
	s += i + 1;
	len -= i + 1;
	if (len && !is_blank(*s)) {
		error(p,
		      "text follows the closing quote; expected the end of the line or a comment");
		return false;
	}
	trim(&s, &len);
	if (len && *s != '#' && *s != ';') {
		error(p,
		      "text follows the closing quote; expected the end of the line or a comment");
		return false;
	}
	return true;
}

static void unknown_key(struct parser *p, const char *name, const struct key *keys, size_t count)
{
	char names[200];
	size_t i, used = 0;

	for (i = 0; i < count; i++)
		used += (size_t)text_print(names + used, sizeof(names) - used, "%s%s",
					   i ? ", " : "", keys[i].name);
	error(p, "unknown key \"%.40s\" in [%s]; expected one of %s", name,
	      p->section == UMBRA ? "umbra" : "vm", names);
}

static void parse_key(struct parser *p, const char *s, size_t len)
{
	const struct key *keys = p->section == UMBRA ? umbra_keys : vm_keys;
	size_t count = p->section == UMBRA ? ARRAY_SIZE(umbra_keys) : ARRAY_SIZE(vm_keys);
	char name[CONFIG_MAX_LINE + 1], value[CONFIG_MAX_LINE + 1];
	size_t i, equals, name_len, value_len;
	const char *start = s;

	for (equals = 0; equals < len && s[equals] != '='; equals++)
		;
	if (equals == len) {
		error(p,
		      "\"%.*s\" is neither a section nor a setting; expected KEY = VALUE or "
		      "[SECTION]",
		      (int)MIN(len, (size_t)40), s);
		return;
	}
	name_len = equals;
	trim(&start, &name_len);
	copy(name, start, name_len);
	if (!name_len) {
		error(p, "no key before \"=\"; expected KEY = VALUE");
		return;
	}
	if (!read_value(p, s + equals + 1, len - equals - 1, value, &value_len))
		return;
	if (p->section == BROKEN)
		return;
	if (p->section == NOWHERE) {
		error(p, "\"%.40s\" stands before any section; expected [umbra] or [vm NAME] first",
		      name);
		return;
	}
	for (i = 0; i < count && !text_equal(keys[i].name, name); i++)
		;
	if (i == count) {
		unknown_key(p, name, keys, count);
		return;
	}
	if (p->seen_keys & BIT(i)) {
		error(p, "%s is set a second time in this section; expected it once", name);
		return;
	}
	p->seen_keys |= BIT(i);
	set_value(p, &keys[i], value, value_len);
}

static void end_section(struct parser *p)
{
	/* Key 0 of a VM is its kernel; the bit also says that a bad one was complained about. */
	if (p->section == VM_SECTION && !(p->seen_keys & BIT(0)))
		error_at(p, p->section_line, "[vm %s] has no kernel; expected kernel = PATH",
			 p->vms[p->vm_count - 1].name);
	p->section = BROKEN;
	p->section_line = p->line;
	p->seen_keys = 0;
}

static void start_vm(struct parser *p, const char *name, size_t len)
{
	struct boot_vm *vm;
	u32 i;

	if (!good_name(name, len)) {
		error(p,
		      "\"%.*s\" is not a VM name; expected 1 to 31 letters, digits, \"-\", \"_\" "
		      "or "
		      "\".\"",
		      (int)MIN(len, (size_t)40), name);
		return;
	}
	if (p->vm_count == BOOT_MAX_VMS) {
		error(p, "too many VMs; expected at most %u", BOOT_MAX_VMS);
		return;
	}
	vm = &p->vms[p->vm_count];
	*vm = (struct boot_vm){.memory = 64 * MIB, .vcpus = 1, .x2apic = 1};
	copy(vm->name, name, len);
	for (i = 0; i < p->vm_count; i++) {
		if (text_equal(p->vms[i].name, vm->name)) {
			error(p, "a VM named \"%s\" exists already; expected another name",
			      vm->name);
			return;
		}
	}
	p->vm_count++;
	p->section = VM_SECTION;
}

static void parse_section(struct parser *p, const char *s, size_t len)
{
	const char *rest;
	size_t close, n;

	end_section(p);
	for (close = 0; close < len && s[close] != ']'; close++)
		;
	n = close < len ? len - close - 1 : 0;
	rest = s + len - n;
	trim(&rest, &n);
	if (close == len || (n && *rest != '#' && *rest != ';')) {
		error(p, "malformed section header; expected [umbra] or [vm NAME]");
		return;
	}
	s++;
	len = close - 1;
	trim(&s, &len);
	if (len == 5 && s[0] == 'u' && s[1] == 'm' && s[2] == 'b' && s[3] == 'r' && s[4] == 'a') {
		if (p->seen_umbra || p->vm_count)
			error(p, p->seen_umbra ? "[umbra] appears a second time; expected it once"
					       : "[umbra] follows a [vm]; expected it first");
		else
			p->section = UMBRA;
		p->seen_umbra = true;
	} else if (len > 2 && s[0] == 'v' && s[1] == 'm' && is_blank(s[2])) {
		s += 2;
		len -= 2;
		trim(&s, &len);
		start_vm(p, s, len);
	} else {
		error(p, "unknown section \"%.*s\"; expected [umbra] or [vm NAME]",
		      (int)MIN(len, (size_t)40), s);
	}
}

/* Whether the line is text: UTF-8 without control characters other than the tab. */
static bool is_text(struct parser *p, const char *s, size_t len)
{
	unsigned int n;
	size_t i;
	u32 c;

	for (i = 0; i < len; i += n) {
		n = text_utf8(s + i, len - i, &c);
		if (!n) {
			error(p,
			      "byte %u of the line is not UTF-8 (0x%02x); expected ASCII or UTF-8",
			      (unsigned int)i + 1, (u8)s[i]);
			return false;
		}
		if ((c < 32 && c != '\t') || c == 127) {
			error(p,
			      "byte %u of the line is a control character (0x%02x); expected text",
			      (unsigned int)i + 1, c);
			return false;
		}
	}
	return true;
}

static void parse_line(struct parser *p, const char *s, size_t len)
{
	if (len && s[len - 1] == '\r')
		len--;
	if (len > CONFIG_MAX_LINE) {
		error(p, "the line is %u bytes long; expected at most %u", (unsigned int)len,
		      CONFIG_MAX_LINE);
		return;
	}
	if (!is_text(p, s, len))
		return;
	trim(&s, &len);
	if (!len || *s == '#' || *s == ';')
		return;
	if (*s == '[')
		parse_section(p, s, len);
	else
		parse_key(p, s, len);
}

unsigned int config_parse(const char *text, size_t len, struct boot_options *options,
			  struct boot_vm *vms, u32 *vm_count, config_report_fn report, void *ctx)
{
	struct parser p = {.options = options, .vms = vms, .report = report, .ctx = ctx};
	size_t start = 0, end;

	*options = (struct boot_options){
		.log_level = BOOT_LOG_INFO,
		.poweroff = BOOT_POWEROFF_HALT,
		.order = BOOT_ORDER_TOGETHER,
		.tick_us = 4000,
		.quantum_us = 4000,
		.console_port = 0x3f8,
		.log_port = 0x3f8,
		.screen = 1,
		.pmem_controllers = 4,
		.pmem_seed = 1,
	};
	*vm_count = 0;
	if (len >= 2 && ((u8)text[0] == 0xff || (u8)text[0] == 0xfe) &&
	    (u8)(text[0] ^ text[1]) == 1) {
		error_at(&p, 0, "the file is UTF-16; expected ASCII or UTF-8: save it so");
		return p.errors;
	}
	/* The byte-order mark that some editors put before UTF-8. */
	if (len >= 3 && (u8)text[0] == 0xef && (u8)text[1] == 0xbb && (u8)text[2] == 0xbf)
		start = 3;
	for (; start < len; start = end + 1) {
		for (end = start; end < len && text[end] != '\n'; end++)
			;
		p.line++;
		parse_line(&p, text + start, end - start);
	}
	end_section(&p);
	find_focus(&p);
	if (!p.vm_count && !p.errors)
		error_at(&p, 0, "no guest is configured; expected at least one [vm NAME] section");
	*vm_count = p.vm_count;
	return p.errors;
}

unsigned int config_check_cpus(const struct boot_vm *vms, u32 vm_count, u32 cpus,
			       config_report_fn report, void *ctx)
{
	struct parser p = {.report = report, .ctx = ctx};
	u32 v, i;

	for (v = 0; v < vm_count; v++) {
		for (i = 0; i < vms[v].pin_count; i++) {
			if (vms[v].pin[i] < cpus)
				continue;
			error_at(&p, 0,
				 "[vm %s] cpus names CPU %u, but there are %u; expected 0 to %u",
				 vms[v].name, vms[v].pin[i], cpus, cpus - 1);
			break;
		}
	}
	return p.errors;
}
