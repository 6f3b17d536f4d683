#include "config.h"

#include "config_parser.h"
#include "text.h"

void __format(3, 4)
	config_error_at(struct config_parser *p, unsigned int line, const char *fmt, ...)
{
	char text[600];
	va_list ap;

	if (p->errors++ >= CONFIG_MAX_ERRORS)
		return;
	va_start(ap, fmt);
	text_vprint(text, sizeof(text), fmt, ap);
	va_end(ap);
	p->report(p->ctx, line, text);
}

bool config_good_name(const char *s, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (!((s[i] | 32) >= 'a' && (s[i] | 32) <= 'z') && !(s[i] >= '0' && s[i] <= '9') &&
		    s[i] != '-' && s[i] != '_' && s[i] != '.')
			return false;
	return len >= 1 && len < BOOT_NAME_LEN;
}

/* The value as meant: quotes and escapes resolved, or comment and blanks taken off. */
static bool read_value(struct config_parser *p, const char *s, size_t len, char *out,
		       size_t *out_len)
{
	size_t i, n = 0;

	config_trim(&s, &len);
	if (!len || *s != '"') {
		for (i = 0; i < len; i++)
			if ((s[i] == '#' || s[i] == ';') && (!i || config_is_blank(s[i - 1])))
				break;
		config_trim(&s, &i);
		config_copy(out, s, i);
		*out_len = i;
		return true;
	}
	for (i = 1; i < len && s[i] != '"'; i++) {
		if (s[i] == '\\' && ++i < len && s[i] != '"' && s[i] != '\\') {
			config_error(p, "unknown escape in a quoted value; expected \\\" or \\\\");
			return false;
		}
		if (i < len)
			out[n++] = s[i];
	}
	if (i >= len) {
		config_error(p, "the quoted value has no closing quote; expected \" at its end");
		return false;
	}
	out[n] = 0;
	*out_len = n;
	s += i + 1;
	len -= i + 1;
	if (len && !config_is_blank(*s)) {
		config_error(p, "text follows the closing quote; expected the end of the line or a "
				"comment");
		return false;
	}
	config_trim(&s, &len);
	if (len && *s != '#' && *s != ';') {
		config_error(p, "text follows the closing quote; expected the end of the line or a "
				"comment");
		return false;
	}
	return true;
}

static void unknown_key(struct config_parser *p, const char *name)
{
	char names[400];
	size_t used = 0;

	for (size_t i = 0; config_key_name(p, i); i++)
		used += (size_t)text_print(names + used, sizeof(names) - used, "%s%s",
					   i ? ", " : "", config_key_name(p, i));
	config_error(p, "unknown key \"%.40s\" in [%s]; expected one of %s", name,
		     p->section == CONFIG_UMBRA ? "umbra" : "vm", names);
}

static void parse_key(struct config_parser *p, const char *s, size_t len)
{
	char name[CONFIG_MAX_LINE + 1], value[CONFIG_MAX_LINE + 1];
	size_t i, equals, name_len, value_len;
	const char *start = s;

	for (equals = 0; equals < len && s[equals] != '='; equals++)
		;
	if (equals == len) {
		config_error(p,
			     "\"%.*s\" is neither a section nor a setting; expected KEY = VALUE or "
			     "[SECTION]",
			     (int)MIN(len, (size_t)40), s);
		return;
	}
	name_len = equals;
	config_trim(&start, &name_len);
	config_copy(name, start, name_len);
	if (!name_len) {
		config_error(p, "no key before \"=\"; expected KEY = VALUE");
		return;
	}
	if (!read_value(p, s + equals + 1, len - equals - 1, value, &value_len))
		return;
	if (p->section == CONFIG_BROKEN)
		return;
	if (p->section == CONFIG_NOWHERE) {
		config_error(
			p,
			"\"%.40s\" stands before any section; expected [umbra] or [vm NAME] first",
			name);
		return;
	}
	for (i = 0; config_key_name(p, i) && !text_equal(config_key_name(p, i), name); i++)
		;
	if (!config_key_name(p, i)) {
		unknown_key(p, name);
		return;
	}
	if (p->seen_keys & BIT(i)) {
		config_error(p, "%s is set a second time in this section; expected it once", name);
		return;
	}
	p->seen_keys |= BIT(i);
	config_set_value(p, i, value, value_len);
}

static void end_section(struct config_parser *p)
{
	if (p->section == CONFIG_VM) {
		/* The bit also says that a bad one was complained about. */
		if (!(p->seen_keys & BIT(CONFIG_KEY_KERNEL)))
			config_error_at(p, p->section_line,
					"[vm %s] has no kernel; expected kernel = PATH",
					p->vms[p->vm_count - 1].name);
		config_end_vm(p);
	}
	p->section = CONFIG_BROKEN;
	p->section_line = p->line;
	p->seen_keys = 0;
}

static void start_vm(struct config_parser *p, const char *name, size_t len)
{
	struct boot_vm *vm;
	u32 i;

	if (!config_good_name(name, len)) {
		config_error(
			p,
			"\"%.*s\" is not a VM name; expected 1 to 31 letters, digits, \"-\", \"_\" "
			"or "
			"\".\"",
			(int)MIN(len, (size_t)40), name);
		return;
	}
	if (p->vm_count == BOOT_MAX_VMS) {
		config_error(p, "too many VMs; expected at most %u", BOOT_MAX_VMS);
		return;
	}
	vm = &p->vms[p->vm_count];
	*vm = (struct boot_vm){.memory = 64 * MIB,
			       .vcpus = 1,
			       .x2apic = 1,
			       .replicas = 1,
			       .seal = 1,
			       .prefetch = 1};
	config_copy(vm->name, name, len);
	for (i = 0; i < p->vm_count; i++) {
		if (text_equal(p->vms[i].name, vm->name)) {
			config_error(p, "a VM named \"%s\" exists already; expected another name",
				     vm->name);
			return;
		}
	}
	p->vm_count++;
	p->section = CONFIG_VM;
}

static void parse_section(struct config_parser *p, const char *s, size_t len)
{
	const char *rest;
	size_t close, n;

	end_section(p);
	for (close = 0; close < len && s[close] != ']'; close++)
		;
	n = close < len ? len - close - 1 : 0;
	rest = s + len - n;
	config_trim(&rest, &n);
	if (close == len || (n && *rest != '#' && *rest != ';')) {
		config_error(p, "malformed section header; expected [umbra] or [vm NAME]");
		return;
	}
	s++;
	len = close - 1;
	config_trim(&s, &len);
	if (len == 5 && s[0] == 'u' && s[1] == 'm' && s[2] == 'b' && s[3] == 'r' && s[4] == 'a') {
		if (p->seen_umbra || p->vm_count)
			config_error(p, p->seen_umbra
						? "[umbra] appears a second time; expected it once"
						: "[umbra] follows a [vm]; expected it first");
		else
			p->section = CONFIG_UMBRA;
		p->seen_umbra = true;
	} else if (len > 2 && s[0] == 'v' && s[1] == 'm' && config_is_blank(s[2])) {
		s += 2;
		len -= 2;
		config_trim(&s, &len);
		start_vm(p, s, len);
	} else {
		config_error(p, "unknown section \"%.*s\"; expected [umbra] or [vm NAME]",
			     (int)MIN(len, (size_t)40), s);
	}
}

/* Whether the line is text: UTF-8 without control characters other than the tab. */
static bool is_text(struct config_parser *p, const char *s, size_t len)
{
	unsigned int n;
	size_t i;
	u32 c;

	for (i = 0; i < len; i += n) {
		n = text_utf8(s + i, len - i, &c);
		if (!n) {
			config_error(p,
				     "byte %u of the line is not UTF-8 (0x%02x); expected ASCII or "
				     "UTF-8",
				     (unsigned int)i + 1, (u8)s[i]);
			return false;
		}
		if ((c < 32 && c != '\t') || c == 127) {
			config_error(p,
				     "byte %u of the line is a control character (0x%02x); "
				     "expected text",
				     (unsigned int)i + 1, c);
			return false;
		}
	}
	return true;
}

static void parse_line(struct config_parser *p, const char *s, size_t len)
{
	if (len && s[len - 1] == '\r')
		len--;
	if (len > CONFIG_MAX_LINE) {
		config_error(p, "the line is %u bytes long; expected at most %u", (unsigned int)len,
			     CONFIG_MAX_LINE);
		return;
	}
	if (!is_text(p, s, len))
		return;
	config_trim(&s, &len);
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
	struct config_parser p = {.options = options, .vms = vms, .report = report, .ctx = ctx};
	size_t start = 0, end;

	*options = (struct boot_options){
		.log_level = BOOT_LOG_INFO,
		.poweroff = BOOT_POWEROFF_HALT,
		.order = BOOT_ORDER_TOGETHER,
		.tick_us = 4000,
		.quantum_us = 4000,
		.node_slices = 4,
		.console_port = 0x3f8,
		.log_port = 0x3f8,
		.screen = 1,
		.pmem_controllers = 4,
		.pmem_seed = 1,
		.pmem_cut_within = 50000000,
		.pmem_save_budget = 1024,
	};
	*vm_count = 0;
	if (len >= 2 && ((u8)text[0] == 0xff || (u8)text[0] == 0xfe) &&
	    (u8)(text[0] ^ text[1]) == 1) {
		config_error_at(&p, 0, "the file is UTF-16; expected ASCII or UTF-8: save it so");
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
	config_end_file(&p);
	*vm_count = p.vm_count;
	return p.errors;
}

unsigned int config_check_cpus(const struct boot_vm *vms, u32 vm_count, u32 cpus,
			       config_report_fn report, void *ctx)
{
	struct config_parser p = {.report = report, .ctx = ctx};
	u32 v, i;

	for (v = 0; v < vm_count; v++) {
		for (i = 0; i < vms[v].pin_count; i++) {
			if (vms[v].pin[i] < cpus)
				continue;
			config_error_at(
				&p, 0,
				"[vm %s] cpus names CPU %u, but there are %u; expected 0 to %u",
				vms[v].name, vms[v].pin[i], cpus, cpus - 1);
			break;
		}
	}
	return p.errors;
}
