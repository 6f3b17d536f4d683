/* umbra.conf against docs/configuration.md: every key, every default, every error and its line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "config.h"

#include <umbra/features.h>

static struct boot_options options;
static struct boot_vm vms[BOOT_MAX_VMS];
static u32 vm_count;
static char reports[8192];
static unsigned int report_lines[64], report_count;

static void report(void *ctx, unsigned int line, const char *text)
{
	size_t used = strlen(reports);

	assert_ptr_equal(ctx, reports);
	assert_true(report_count < 64);
	report_lines[report_count++] = line;
	snprintf(reports + used, sizeof(reports) - used, "%u: %s\n", line, text);
}

/* Parses a copy of exactly `len` bytes, so that ASan sees a read beyond it. */
static unsigned int parse_bytes(const char *text, size_t len)
{
	char *copy = malloc(len ? len : 1);
	unsigned int errors;

	memcpy(copy, text, len);
	memset(vms, 0xa5, sizeof(vms));
	reports[0] = 0;
	report_count = 0;
	errors = config_parse(copy, len, &options, vms, &vm_count, report, reports);
	free(copy);
	assert_int_equal(MIN(errors, (unsigned int)CONFIG_MAX_ERRORS), report_count);
	return errors;
}

static unsigned int parse(const char *text)
{
	return parse_bytes(text, strlen(text));
}

static void assert_good(const char *text)
{
	if (parse(text))
		fail_msg("refused: %s\n%s", text, reports);
}

/* Exactly one error, at `line`, whose text contains `part`. */
static void assert_bad(const char *text, unsigned int line, const char *part)
{
	unsigned int errors = parse(text);

	if (errors != 1 || report_lines[0] != line || !strstr(reports, part))
		fail_msg("%u errors for: %s\n%s (wanted: line %u, \"%s\")", errors, text, reports,
			 line, part);
}

#define VM_A "[vm a]\nkernel = k\n"

static void test_defaults(void **state)
{
	assert_good("[umbra]\n" VM_A);
	assert_int_equal(options.log_level, BOOT_LOG_INFO);
	assert_int_equal(options.console_port, 0x3f8);
	assert_int_equal(options.log_port, 0x3f8);
	assert_int_equal(options.screen, 1);
	assert_int_equal(options.poweroff, BOOT_POWEROFF_HALT);
	assert_int_equal(options.order, BOOT_ORDER_TOGETHER);
	assert_int_equal(options.cpus, 0);
	assert_int_equal(options.hide, 0);
	assert_int_equal(options.tick_us, 4000);
	assert_int_equal(options.quantum_us, 4000);
	assert_int_equal(options.trace, 0);
	assert_int_equal(options.report, 0);
	assert_int_equal(options.focus, BOOT_FOCUS_DEFAULT);
	assert_int_equal(vm_count, 1);
	assert_string_equal(vms[0].name, "a");
	assert_string_equal(vms[0].kernel.path, "k");
	assert_string_equal(vms[0].cmdline, "");
	assert_int_equal(vms[0].memory, 64 * MIB);
	assert_int_equal(vms[0].vcpus, 1);
	assert_int_equal(vms[0].pin_count, 0);
	assert_int_equal(vms[0].protocol, BOOT_PROTO_AUTO);
	assert_int_equal(vms[0].intercept, 0);
	assert_int_equal(vms[0].x2apic, 1);
	assert_int_equal(vms[0].module_count, 0);
	assert_int_equal(vms[0].disk_count, 0);
	assert_int_equal(vms[0].virtio_console, 0);
	assert_int_equal(vms[0].pmem_count, 0);
	assert_int_equal(vms[0].remote_count, 0);
	assert_int_equal(vms[0].replicas, 1);
	assert_int_equal(vms[0].seal, 1);
	assert_int_equal(vms[0].prefetch, 1);
	assert_int_equal(vms[0].async_pf, 0);
	assert_int_equal(options.role, BOOT_ROLE_HYPERVISOR);
	assert_int_equal(options.network.mode, BOOT_NETWORK_NONE);
	assert_int_equal(options.node_memory, 0);
	assert_int_equal(options.node_slices, 4);
	assert_int_equal(options.pmem_controllers, 4);
	assert_int_equal(options.pmem_seed, 1);
	assert_int_equal(options.pmem_cuts, 0);
	assert_int_equal(options.pmem_cut_within, 50000000);
	assert_int_equal(options.pmem_partition, BOOT_PMEM_PARTITION_AUTO);
	assert_int_equal(options.pmem_save_budget, 1024);
	assert_int_equal(options.pmem_power_loss_sectors, 0);
	assert_good(VM_A);
}

static void test_pmem(void **state)
{
	assert_good("[umbra]\npmem_controllers = 16\npmem_seed = 0xffffffff\n"
		    "pmem_cuts = 100\npmem_cut_within = 1000000\n"
		    "[vm a]\nkernel = k\n"
		    "pmem = ram 2M,model\t1G , host 7,  host 65535 direct\n"
		    "[vm b]\nkernel = k\npmem = model 2M 16, model 4M\n");
	assert_int_equal(vms[1].pmem[0].controllers, 16);
	assert_int_equal(vms[1].pmem[1].controllers, 0);
	assert_int_equal(options.pmem_controllers, 16);
	assert_int_equal(options.pmem_seed, 0xffffffff);
	assert_int_equal(options.pmem_cuts, 100);
	assert_int_equal(options.pmem_cut_within, 1000000);
	assert_int_equal(vms[0].pmem_count, 4);
	assert_int_equal(vms[0].pmem[0].source, BOOT_PMEM_RAM);
	assert_int_equal(vms[0].pmem[0].bytes, 2 * MIB);
	assert_int_equal(vms[0].pmem[1].source, BOOT_PMEM_MODEL);
	assert_int_equal(vms[0].pmem[1].bytes, GIB);
	assert_int_equal(vms[0].pmem[2].source, BOOT_PMEM_HOST);
	assert_int_equal(vms[0].pmem[2].range, 7);
	assert_int_equal(vms[0].pmem[2].direct, 0);
	assert_int_equal(vms[0].pmem[3].range, 65535);
	assert_int_equal(vms[0].pmem[3].direct, 1);
	assert_good("[vm a]\nkernel = k\npmem =\n");
	assert_int_equal(vms[0].pmem_count, 0);
}

static void test_pmem_saved(void **state)
{
	assert_good("[umbra]\npmem_partition = none\npmem_save_budget = 64\n"
		    "pmem_power_loss_sectors = 77\n"
		    "[vm a]\nkernel = k\npmem = ram 2M saved, ram 4M\n");
	assert_int_equal(options.pmem_partition, BOOT_PMEM_PARTITION_NONE);
	assert_int_equal(options.pmem_save_budget, 64);
	assert_int_equal(options.pmem_power_loss_sectors, 77);
	assert_int_equal(vms[0].pmem[0].saved, 1);
	assert_int_equal(vms[0].pmem[0].bytes, 2 * MIB);
	assert_int_equal(vms[0].pmem[1].saved, 0);
}

#define IP(a, b, c, d) ((u32)(a) << 24 | (b) << 16 | (c) << 8 | (d))

static void test_network(void **state)
{
	assert_good("[umbra]\nnetwork = dhcp\n" VM_A);
	assert_int_equal(options.network.mode, BOOT_NETWORK_DHCP);
	assert_good("[umbra]\nnetwork = none\n" VM_A);
	assert_int_equal(options.network.mode, BOOT_NETWORK_NONE);
	assert_good("[umbra]\nnetwork = 10.0.0.2/24\n" VM_A);
	assert_int_equal(options.network.mode, BOOT_NETWORK_STATIC);
	assert_int_equal(options.network.address, IP(10, 0, 0, 2));
	assert_int_equal(options.network.prefix, 24);
	assert_int_equal(options.network.gateway, 0);
	assert_good("[umbra]\nnetwork = 192.168.255.254/30 \t 192.168.255.253\n" VM_A);
	assert_int_equal(options.network.address, IP(192, 168, 255, 254));
	assert_int_equal(options.network.prefix, 30);
	assert_int_equal(options.network.gateway, IP(192, 168, 255, 253));
}

static void test_memory_node(void **state)
{
	assert_good("[umbra]\nnetwork = dhcp\nrole = memory-node\nnode_memory = 6M\n"
		    "node_slices = 3\nnode_token = 0123456789abcdef\n");
	assert_int_equal(options.role, BOOT_ROLE_MEMORY_NODE);
	assert_int_equal(options.node_memory, 6 * MIB);
	assert_int_equal(options.node_slices, 3);
	assert_memory_equal(options.node_token, "0123456789abcdef", BOOT_TOKEN_LEN);
	assert_int_equal(vm_count, 0);
	assert_bad("[umbra]\nrole = memory-node\n", 0, "a memory node needs a network");
	assert_bad("[umbra]\nrole = memory-node\nnetwork = dhcp\n" VM_A, 0,
		   "a memory node runs no guests");
}

#define NET "[umbra]\nnetwork = dhcp\n"

static void test_remote(void **state)
{
	assert_good(NET VM_A "memory = 10M\nremote = 10.0.0.1, 10.0.0.1:80 ,10.0.0.3:65535\n"
			     "remote_token = x\nreplicas = 3\nseal = no\nprefetch = no\n"
			     "async_pf = yes\n");
	assert_int_equal(vms[0].remote_count, 3);
	assert_int_equal(vms[0].remote[0].ip, IP(10, 0, 0, 1));
	assert_int_equal(vms[0].remote[0].port, BOOT_NODE_PORT);
	assert_int_equal(vms[0].remote[1].port, 80);
	assert_int_equal(vms[0].remote[2].ip, IP(10, 0, 0, 3));
	assert_int_equal(vms[0].remote[2].port, 65535);
	assert_memory_equal(vms[0].remote_token, "x\0\0\0\0\0\0\0\0\0\0\0\0\0\0", BOOT_TOKEN_LEN);
	assert_int_equal(vms[0].local, 4 * MIB);
	assert_int_equal(vms[0].replicas, 3);
	assert_int_equal(vms[0].seal, 0);
	assert_int_equal(vms[0].prefetch, 0);
	assert_int_equal(vms[0].async_pf, 1);
	assert_good(NET VM_A "memory = 10M\nlocal = 10M\nremote = 10.0.0.1\n");
	assert_int_equal(vms[0].local, 10 * MIB);
	assert_bad(VM_A "remote = 10.0.0.1\n", 1,
		   "[vm a] has remote memory, and there is no network");
	assert_bad(NET VM_A "memory = 10M\nlocal = 12M\nremote = 10.0.0.1\n", 3,
		   "local is more than memory");
	assert_bad(NET VM_A "replicas = 2\nremote = 10.0.0.1\n", 3,
		   "replicas is 2, and remote names 1");
	assert_bad(NET VM_A "remote = 10.0.0.1, 10.0.0.1:7471\n", 5, "named twice");
}

static void test_every_key(void **state)
{
	assert_good("[umbra]\nreport = yes\n" VM_A);
	assert_int_equal(options.report, 1);
	assert_int_equal(options.trace, 0);
	assert_good(
		"[umbra]\nlog_level = debug\nconsole = com2\nlog = 0x3e8\nscreen = no\n"
		"poweroff = qemu\norder = sequence\ncpus = 3\nhide = pml, ept_1g\n"
		"tick_us = 100\nquantum_us = 100000\ntrace = yes\n"
		"[vm one.-_9]\nkernel = /dir/a kernel.elf\nmodules = m1, \\m2 with  args ,m3 a,,b\n"
		"cmdline = console=ttyS0 # comment\nmemory = 4M\nvcpus = 16\ncpus = 1,0 , 63\n"
		"protocol = pvh\nintercept = 0xffffffff\nx2apic = no\n"
		"disks = root.img, /a,,b.img   ro ,c cow,d\nvirtio_console = yes\n"
		"[vm b]\nkernel = x\nmemory = 512G\nprotocol = linux\n");
	assert_int_equal(options.log_level, BOOT_LOG_DEBUG);
	assert_int_equal(options.console_port, 0x2f8);
	assert_int_equal(options.log_port, 0x3e8);
	assert_int_equal(options.screen, 0);
	assert_int_equal(options.poweroff, BOOT_POWEROFF_QEMU);
	assert_int_equal(options.order, BOOT_ORDER_SEQUENCE);
	assert_int_equal(options.cpus, 3);
	assert_int_equal(options.hide, 1 << FEAT_PML | 1 << FEAT_EPT_1G);
	assert_int_equal(options.tick_us, 100);
	assert_int_equal(options.quantum_us, 100000);
	assert_int_equal(options.trace, 1);
	assert_int_equal(options.report, 0);
	assert_int_equal(vm_count, 2);
	assert_string_equal(vms[0].name, "one.-_9");
	assert_string_equal(vms[0].kernel.path, "/dir/a kernel.elf");
	assert_int_equal(vms[0].module_count, 3);
	assert_string_equal(vms[0].module[0].path, "m1");
	assert_string_equal(vms[0].module_args[0], "");
	assert_string_equal(vms[0].module[1].path, "\\m2");
	assert_string_equal(vms[0].module_args[1], "with  args");
	assert_string_equal(vms[0].module[2].path, "m3");
	assert_string_equal(vms[0].module_args[2], "a,b");
	assert_string_equal(vms[0].cmdline, "console=ttyS0");
	assert_int_equal(vms[0].memory, 4 * MIB);
	assert_int_equal(vms[0].vcpus, 16);
	assert_int_equal(vms[0].pin_count, 3);
	assert_int_equal(vms[0].pin[0], 1);
	assert_int_equal(vms[0].pin[1], 0);
	assert_int_equal(vms[0].pin[2], 63);
	assert_int_equal(vms[0].protocol, BOOT_PROTO_PVH);
	assert_int_equal(vms[0].intercept, 0xffffffff);
	assert_int_equal(vms[0].x2apic, 0);
	assert_int_equal(vms[0].virtio_console, 1);
	assert_int_equal(vms[0].disk_count, 4);
	assert_string_equal(vms[0].disk[0].path, "root.img");
	assert_int_equal(vms[0].disk_mode[0], BOOT_DISK_COW);
	assert_string_equal(vms[0].disk[1].path, "/a,b.img");
	assert_int_equal(vms[0].disk_mode[1], BOOT_DISK_RO);
	assert_int_equal(vms[0].disk_mode[2], BOOT_DISK_COW);
	assert_string_equal(vms[0].disk[3].path, "d");
	assert_int_equal(vms[0].disk_mode[3], BOOT_DISK_COW);
	assert_int_equal(vms[1].memory, 512 * GIB);
	assert_int_equal(vms[1].protocol, BOOT_PROTO_LINUX);
	assert_int_equal(vms[1].module_count, 0);
}

static void test_every_choice(void **state)
{
	static const struct {
		const char *value;
		u16 port;
	} ports[] = {{"com1", 0x3f8}, {"com2", 0x2f8}, {"com3", 0x3e8},	  {"com4", 0x2e8},
		     {"none", 0},     {"256", 0x100},  {"0xfff8", 0xfff8}};
	static const char *const levels[] = {"error", "warn", "info", "debug"};
	static const char *const offs[] = {"halt", "bochs", "qemu", "reset"};
	static const char *const protocols[] = {"auto", "multiboot", "pvh", "linux"};
	char text[200];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(ports); i++) {
		snprintf(text, sizeof(text), "[umbra]\nlog=%s\n" VM_A, ports[i].value);
		assert_good(text);
		assert_int_equal(options.log_port, ports[i].port);
		assert_int_equal(options.console_port, 0x3f8);
	}
	for (i = 0; i < 4; i++) {
		snprintf(text, sizeof(text),
			 "[umbra]\nlog_level=%s\npoweroff=%s\n" VM_A "protocol=%s\n", levels[i],
			 offs[i], protocols[i]);
		assert_good(text);
		assert_int_equal(options.log_level, i);
		assert_int_equal(options.poweroff, i);
		assert_int_equal(vms[0].protocol, i);
	}
	for (i = 0; i < FEAT_COUNT; i++) {
		snprintf(text, sizeof(text), "[umbra]\nhide=%s\n" VM_A, feature_name(i));
		assert_good(text);
		assert_int_equal(options.hide, 1ull << i);
	}
}

static void test_focus(void **state)
{
	assert_good("[umbra]\nfocus = all\n" VM_A);
	assert_int_equal(options.focus, BOOT_FOCUS_ALL);
	assert_good("[umbra]\nfocus = monitor\n" VM_A);
	assert_int_equal(options.focus, BOOT_FOCUS_MONITOR);
	assert_good("[umbra]\nfocus = a\n" VM_A "[vm b]\nkernel = k\n");
	assert_int_equal(options.focus, BOOT_FOCUS_VM);
	assert_good("[umbra]\nfocus = b\n" VM_A "[vm b]\nkernel = k\n");
	assert_int_equal(options.focus, BOOT_FOCUS_VM + 1);
	assert_bad("[umbra]\n\nfocus = c\n" VM_A, 3,
		   "focus: there is no [vm c]; expected all, monitor or the name of a VM");
	assert_bad("[umbra]\nfocus = a b\n" VM_A, 2, "focus: \"a b\" is not a valid value");
	assert_bad("[umbra]\nfocus =\n" VM_A, 2, "focus: the value is empty");
}

static void test_syntax(void **state)
{
	assert_good("\xef\xbb\xbf# comment\r\n; another\r\n\r\n  [umbra]  ; c\r\n\t "
		    "screen\t=\tno\t# x\r\n"
		    "[ vm \t a ] # c\r\nkernel=a#b;c\r\ncmdline=");
	assert_int_equal(options.screen, 0);
	assert_string_equal(vms[0].name, "a");
	assert_string_equal(vms[0].kernel.path, "a#b;c");
	assert_string_equal(vms[0].cmdline, "");
	assert_good(VM_A "cmdline = \" a # b ; \\\"c\\\" \\\\ \" # comment\n");
	assert_string_equal(vms[0].cmdline, " a # b ; \"c\" \\ ");
	assert_good(VM_A "cmdline = dyndbg=\"file x +p\" a=b\n");
	assert_string_equal(vms[0].cmdline, "dyndbg=\"file x +p\" a=b");
	assert_good(VM_A "cmdline = # nothing\nmodules =\n");
	assert_string_equal(vms[0].cmdline, "");
	assert_int_equal(vms[0].module_count, 0);
	assert_good(VM_A "cmdline = \"\"");
	assert_good(VM_A "cmdline = gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80\n");
	assert_good(VM_A "memory = 0x400000\n");
	assert_int_equal(vms[0].memory, 4 * MIB);
	assert_good(VM_A "memory = 8192K\n");
	assert_int_equal(vms[0].memory, 8 * MIB);
	assert_good(VM_A "modules = \"a b # c, d\"\n");
	assert_int_equal(vms[0].module_count, 2);
	assert_string_equal(vms[0].module_args[0], "b # c");
}

static void test_bad_structure(void **state)
{
	assert_bad("", 0, "no guest is configured; expected at least one [vm NAME]");
	assert_bad("# only a comment\n", 0, "no guest is configured");
	assert_bad("[umbra]\n", 0, "no guest is configured");
	assert_bad("screen = no\n" VM_A, 1,
		   "\"screen\" stands before any section; expected [umbra]");
	assert_bad("[umbra]\n[umbra]\n" VM_A, 2, "[umbra] appears a second time");
	assert_bad(VM_A "[umbra]\nscreen=no\n", 3, "[umbra] follows a [vm]; expected it first");
	assert_bad("[umbrella]\n" VM_A, 1,
		   "unknown section \"umbrella\"; expected [umbra] or [vm NAME]");
	assert_bad("[vm]\nkernel=k\n" VM_A, 1, "unknown section \"vm\"");
	assert_bad("[]\n" VM_A, 1, "unknown section \"\"");
	assert_bad("[umbra\n" VM_A, 1, "malformed section header");
	assert_bad("[umbra] x\n" VM_A, 1, "malformed section header");
	assert_bad("[vm a b]\nkernel=k\n" VM_A, 1, "\"a b\" is not a VM name");
	assert_bad("[vm \xc3\xbc]\n" VM_A, 1, "is not a VM name; expected 1 to 31 letters");
	assert_bad("[vm abcdefghijklmnopqrstuvwxyz012345]\n" VM_A, 1, "is not a VM name");
	assert_good("[vm abcdefghijklmnopqrstuvwxyz01234]\nkernel=k\n");
	assert_bad(VM_A "[vm b]\nkernel=l\n" VM_A, 5, "a VM named \"a\" exists already");
	assert_bad("\n[vm a]\nmemory=4M\n", 2, "[vm a] has no kernel; expected kernel = PATH");
	assert_bad("[vm b]\n" VM_A, 1, "[vm b] has no kernel");
	assert_bad(VM_A "kernel\n", 3, "\"kernel\" is neither a section nor a setting");
	assert_bad(VM_A " = 3\n", 3, "no key before \"=\"");
	assert_bad(VM_A "color = red\n", 3,
		   "unknown key \"color\" in [vm]; expected one of kernel, ");
	assert_bad("[umbra]\nkernel = k\n" VM_A, 2,
		   "unknown key \"kernel\" in [umbra]; expected one of log_level, console");
	assert_bad(VM_A "x2apic = yes\nx2apic = yes\n", 4, "x2apic is set a second time");
	assert_bad(VM_A "kernel = l\n", 3, "kernel is set a second time");
}

static void test_bad_values(void **state)
{
	static const struct {
		const char *line, *part;
	} umbra[] = {
		{"log_level = loud",
		 "log_level: \"loud\" is not a valid value; expected error, warn"},
		{"log_level =", "log_level: the value is empty; expected error"},
		{"log_level = Info", "expected error, warn, info or debug"},
		{"console = com5", "console: \"com5\""},
		{"console = 0", "expected com1 to com4, none, or a port number from 0x100"},
		{"console = 0xf8", "console"},
		{"console = 0x3f9", "a multiple of 8"},
		{"console = 0x10000", "console"},
		{"log = 0xfff9", "log"},
		{"screen = maybe", "expected yes or no"},
		{"poweroff = off", "expected halt, bochs, qemu or reset"},
		{"order = random", "expected together or sequence"},
		{"cpus = 0", "expected a number from 1 to 64"},
		{"cpus = 65", "cpus"},
		{"cpus = -1", "cpus"},
		{"hide = pmx",
		 "hide: \"pmx\" is not an optional feature; expected one of ept_1g, "},
		{"hide = pml,,ve", "hide: \"\""},
		{"hide =", "hide"},
		{"hide = pm", "hide"},
		{"hide = pml ve", "hide"},
		{"tick_us = 99", "expected a number from 100 to 100000"},
		{"tick_us = 100001", "tick_us"},
		{"quantum_us = 4K", "quantum_us"},
		{"quantum_us = 0x", "quantum_us"},
		{"role = node", "expected hypervisor or memory-node"},
		{"network = 10.0.0.2", "network: \"10.0.0.2\" is not a valid value; expected none"},
		{"network = 10.0.0.0/24", "network"},
		{"network = 10.0.0.255/24", "network"},
		{"network = 10.0.0.2/0", "network"},
		{"network = 10.0.0.2/31", "network"},
		{"network = 10.0.0.2/024", "network"},
		{"network = 10.0.0.2/", "network"},
		{"network = 239.0.0.2/24", "network"},
		{"network = 10.0.0.2/24x", "network"},
		{"network = 10.0.0.2/24 10.0.1.1", "network"},
		{"network = 10.0.0.2/24 10.0.0.2", "network"},
		{"network = 10.0.0.2/24 10.0.0.1 x", "network"},
		{"network = 10..0.2/24", "network"},
		{"network = static", "network"},
		{"node_memory = 1M", "expected a size from 2M to 512G"},
		{"node_slices = 9", "expected a number from 1 to 8"},
		{"node_token = 0123456789abcdef0", "expected up to 16 bytes"},
		{"trace = 1", "trace"},
		{"report = 1", "report"},
	};
	static const struct {
		const char *line, *part;
	} vm[] = {
		{"memory = 2M",
		 "memory: \"2M\" is not a valid value; expected a size from 4M to 512G"},
		{"memory = 5M", "a multiple of 2M"},
		{"memory = 514G", "memory"},
		{"memory = 64m", "memory"},
		{"memory = 64MB", "memory"},
		{"memory = M", "memory"},
		{"memory = 17592186044417M", "memory"},
		/* 64 MiB, if the product wrapped at 2^64. */
		{"memory = 17592186044480M", "memory"},
		{"memory = 18446744073709551615G", "memory"},
		{"vcpus = 0", "expected a number from 1 to 16"},
		{"vcpus = 17", "vcpus"},
		{"vcpus = 4294967297", "vcpus"},
		{"cpus = 64", "cpus: \"64\" is not a CPU index; expected up to 16 CPU indices"},
		{"cpus = 0,", "cpus: \"\""},
		{"cpus =", "cpus"},
		{"cpus = 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16", "cpus: too many entries"},
		{"protocol = elf", "expected auto, multiboot, pvh or linux"},
		{"intercept = 0x100000000", "expected a number from 0 to 0xffffffff"},
		{"x2apic = on", "expected yes or no"},
		{"modules = a,b,c,d,e,f,g,h,i", "modules: too many; expected up to 8"},
		{"modules = a, ", "the path of entry 2 is empty"},
		{"disks = a, b, c, d, e", "disks: too many; expected up to 4"},
		{"disks = a, , b", "disks: the path of entry 2 is empty"},
		{"disks = a rw", "\"rw\" follows the path of entry 1; expected ro or cow"},
		{"virtio_console = maybe", "expected yes or no"},
		{"pmem = ram 2M, ram 2M, ram 2M, ram 2M, ram 2M",
		 "pmem: too many; expected up to 4"},
		{"pmem = disk 2M",
		 "pmem: \"disk 2M\" is not a region; expected up to 4 of ram SIZE [saved]"},
		{"pmem = ram 2M lost", "is not a region"},
		{"pmem = ram 2M saved 1", "is not a region"},
		{"pmem = model 2M saved", "is not a region"},
		{"pmem = ram", "is not a region"},
		{"pmem = ram 1M", "is not a region"},
		{"pmem = ram 3M", "is not a region"},
		{"pmem = ram 2M 3", "is not a region"},
		{"pmem = model 513G", "is not a region"},
		{"pmem = model 2M 0", "is not a region"},
		{"pmem = model 2M 17", "is not a region"},
		{"pmem = model 2M 1 1", "is not a region"},
		{"pmem = host", "is not a region"},
		{"pmem = host 0", "is not a region"},
		{"pmem = host 65536", "is not a region"},
		{"pmem = host 1 indirect", "is not a region"},
		{"pmem = host 1 direct 2", "is not a region"},
		{"pmem = ram 2M,", "\"\" is not a region"},
		{"remote = 10.0.0.1,", "\"\" is not a memory node"},
		{"remote = 10.0.0", "is not a memory node"},
		{"remote = 10.0.0.256", "is not a memory node"},
		{"remote = 10.0.0.0001", "is not a memory node"},
		{"remote = 10.0.0.1.2", "is not a memory node"},
		{"remote = 224.0.0.1", "is not a memory node"},
		{"remote = 127.0.0.1", "is not a memory node"},
		{"remote = 0.1.2.3", "is not a memory node"},
		{"remote = 10.0.0.1:", "is not a memory node"},
		{"remote = 10.0.0.1:0", "is not a memory node"},
		{"remote = 10.0.0.1:65536", "is not a memory node"},
		{"remote = 10.0.0.1 80", "is not a memory node"},
		{"remote = 10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4, 10.0.0.5",
		 "remote: too many; expected up to 4"},
		{"replicas = 0", "expected a number from 1 to 4"},
		{"replicas = 5", "expected a number from 1 to 4"},
		{"local = 1M", "expected a size from 2M"},
		{"remote_token = 0123456789abcdef0", "expected up to 16 bytes"},
		{"cmdline = \"a", "the quoted value has no closing quote"},
		{"cmdline = \"", "the quoted value has no closing quote"},
		{"cmdline = \"a\\", "the quoted value has no closing quote"},
		{"cmdline = \"a\\n\"", "unknown escape"},
		{"cmdline = \"a\" b", "text follows the closing quote"},
		{"cmdline = \"a\"#b", "text follows the closing quote"},
		{"cmdline = a\tb\x01", "is a control character (0x01)"},
		{"cmdline = \x7f", "is a control character (0x7f)"},
		{"cmdline = a\xffz", "byte 12 of the line is not UTF-8 (0xff)"},
		{"cmdline = \xc0\x80", "is not UTF-8"},
		{"cmdline = \xed\xa0\x80", "is not UTF-8"},
		{"cmdline = \xf4\x90\x80\x80", "is not UTF-8"},
		{"cmdline = \xe2\x82", "is not UTF-8"},
		{"cmdline = a\rb", "is a control character (0x0d)"},
	};
	char text[300];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(umbra); i++) {
		snprintf(text, sizeof(text), "\n[umbra]\n%s\n" VM_A, umbra[i].line);
		assert_bad(text, 3, umbra[i].part);
	}
	for (i = 0; i < ARRAY_SIZE(vm); i++) {
		snprintf(text, sizeof(text), VM_A "%s\n[vm b]\nkernel = k\n", vm[i].line);
		assert_bad(text, 3, vm[i].part);
	}
	assert_bad("[vm a]\nkernel =\n", 2, "kernel: the value is empty; expected a path");
}

/* A line `head` + n times 'x' + `tail`, after VM_A. */
static char *long_line(const char *head, size_t n, const char *tail)
{
	static char text[4096];
	size_t used = (size_t)snprintf(text, sizeof(text), "%s%s", VM_A, head);

	memset(text + used, 'x', n);
	snprintf(text + used + n, sizeof(text) - used - n, "%s\n", tail);
	return text;
}

static void test_lengths(void **state)
{
	assert_good(long_line("cmdline=", 1023, ""));
	assert_int_equal(strlen(vms[0].cmdline), 1023);
	assert_bad(long_line("cmdline=", 1024, ""), 3,
		   "cmdline: the text is 1024 bytes long; expected up");
	assert_good(long_line("#", 1499, ""));
	assert_bad(long_line("#", 1500, ""), 3,
		   "the line is 1501 bytes long; expected at most 1500");
	assert_good(long_line("#", 1499, "\r"));
	assert_good(long_line("modules=a,", 127, " z"));
	assert_int_equal(strlen(vms[0].module[1].path), 127);
	assert_bad(long_line("modules=a,", 128, " z"), 3, "the path of entry 2 is too long");
	assert_good(long_line("modules=a ", 1023, ",b"));
	assert_int_equal(strlen(vms[0].module_args[0]), 1023);
	assert_bad(long_line("modules=a ", 1024, ",b"), 3,
		   "the arguments of entry 1 are 1024 bytes");
	assert_good(long_line("[vm b]\nkernel=", 127, ""));
	assert_bad(long_line("[vm b]\nkernel=", 128, ""), 4, "expected a path of 1 to 127 bytes");
	assert_bad(long_line("", 1400, "=1"), 3, "unknown key");
	assert_bad(long_line("[vm ", 1400, "]"), 3, "is not a VM name");
	assert_bad(long_line("[", 1400, "]"), 3, "unknown section");
}

static void test_many(void **state)
{
	char text[4096] = "";
	unsigned int i;

	for (i = 0; i < BOOT_MAX_VMS; i++)
		snprintf(text + strlen(text), 64, "[vm v%u]\nkernel=k%u\n", i, i);
	assert_good(text);
	assert_int_equal(vm_count, 32);
	assert_string_equal(vms[31].kernel.path, "k31");
	strcat(text, "[vm more]\nkernel=k\nmemory=nonsense\n");
	assert_bad(text, 65, "too many VMs; expected at most 32");
	text[0] = 0;
	for (i = 0; i < 30; i++)
		strcat(text, "nonsense\n");
	assert_int_equal(parse(text), 30);
	assert_int_equal(report_lines[19], 20);
}

static void test_all_errors_reported(void **state)
{
	assert_int_equal(parse("[umbra]\nscreen=x\ncpus=0\n[vm a]\nmemory=1\n[vm a]\n"), 5);
	assert_int_equal(report_lines[0], 2);
	assert_int_equal(report_lines[1], 3);
	assert_int_equal(report_lines[2], 5);
	/* The missing kernel of the first [vm a] is told with its header's line when it ends. */
	assert_non_null(strstr(reports, "4: [vm a] has no kernel"));
	assert_non_null(strstr(reports, "6: a VM named \"a\" exists already"));
}

static void test_not_text(void **state)
{
	assert_int_equal(parse_bytes("\xff\xfe[\0u\0", 6), 1);
	assert_non_null(strstr(reports, "0: the file is UTF-16; expected ASCII or UTF-8"));
	assert_int_equal(parse_bytes("\xfe\xff\0[\0u", 6), 1);
	assert_non_null(strstr(reports, "UTF-16"));
	/* A character that the end of the file cuts off. */
	assert_int_equal(parse("[vm a]\nkernel=k\ncmdline=\xe2\x82"), 1);
	assert_non_null(strstr(reports, "3: byte 9 of the line is not UTF-8 (0xe2)"));
	assert_int_equal(parse_bytes("[vm a]\nkernel=a\0b\n", 18), 2);
	assert_non_null(strstr(reports, "2: byte 9 of the line is a control character (0x00)"));
}

static void test_pins(void **state)
{
	assert_good("[vm a]\nkernel=k\ncpus=0,1\n[vm b]\nkernel=k\ncpus=3,2\n");
	report_count = 0;
	assert_int_equal(config_check_cpus(vms, vm_count, 4, report, reports), 0);
	assert_int_equal(config_check_cpus(vms, vm_count, 3, report, reports), 1);
	assert_non_null(
		strstr(reports, "[vm b] cpus names CPU 3, but there are 3; expected 0 to 2"));
	assert_int_equal(config_check_cpus(vms, vm_count, 1, report, reports), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_every_key),
		cmocka_unit_test(test_pmem),
		cmocka_unit_test(test_pmem_saved),
		cmocka_unit_test(test_network),
		cmocka_unit_test(test_memory_node),
		cmocka_unit_test(test_remote),
		cmocka_unit_test(test_every_choice),
		cmocka_unit_test(test_focus),
		cmocka_unit_test(test_syntax),
		cmocka_unit_test(test_bad_structure),
		cmocka_unit_test(test_bad_values),
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_all_errors_reported),
		cmocka_unit_test(test_not_text),
		cmocka_unit_test(test_pins),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
