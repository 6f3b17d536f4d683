/* The bzImage loader: the contract of the 64-bit entry point, and that bad images are refused. */
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "load_bzimage.h"
#include "load_target.h"

#define RAM_LOW (16 * MIB)
#define PARAMS	0x7000u

static struct test_ram ram;
static u8 image[BZ_BYTES];
static u64 image_bytes, rsdp;
static const char *cmdline;
static struct guest_image modules[BOOT_MAX_MODULES];
static u32 module_count, protocol;
static struct load_result out;

static u64 ram_at(u64 at, u32 bytes)
{
	u64 v = 0;

	assert_true(at + bytes <= ram.low_bytes);
	memcpy(&v, ram.low + at, bytes);
	return v;
}

/* A field of boot_params. */
static u64 field(u32 at, u32 bytes)
{
	return ram_at(out.rsi + at, bytes);
}

static int setup_ram(u64 low)
{
	free(ram.low);
	free(ram.high);
	ram = (struct test_ram){.low = malloc(low), .low_bytes = low};
	assert_non_null(ram.low);
	memset(ram.low, 0xcc, low);
	return 0;
}

static int setup(void **state)
{
	setup_ram(RAM_LOW);
	bz_build(image);
	image_bytes = BZ_BYTES;
	cmdline = NULL;
	module_count = 0;
	protocol = BOOT_PROTO_AUTO;
	rsdp = 0;
	return 0;
}

static int load_image(const u8 *data, u64 bytes)
{
	struct load_target target = test_ram_target(&ram);
	struct load_request req = {.kernel = {.data = data, .bytes = bytes, .name = "vmlinuz"},
				   .modules = modules,
				   .module_count = module_count,
				   .protocol = protocol,
				   .cmdline = cmdline,
				   .rsdp = rsdp};
	int err = guest_load(&req, &target, &out);

	if (err)
		assert_true(strlen(out.reason) > 10);
	else
		assert_int_equal(out.reason[0], 0);
	return err;
}

static int load(void)
{
	u8 *exact = malloc(image_bytes ? image_bytes : 1); /* so that ASan sees over-reads */
	int err;

	memcpy(exact, image, image_bytes);
	err = load_image(exact, image_bytes);
	free(exact);
	return err;
}

static void refused(int error, const char *why)
{
	int err = load();

	if (err != error || !strstr(out.reason, why))
		fail_msg("wanted %d \"%s\", got %d \"%s\"", error, why, err, out.reason);
}

static void loads(void)
{
	int err = load();

	if (err)
		fail_msg("refused: %d %s", err, out.reason);
}

static void put(u32 at, u64 value, u32 bytes)
{
	bz_put(image, at, value, bytes);
}

/* Follows the tables as the processor does; fails unless `va` is mapped to itself, writable. */
static void check_identity(u64 va)
{
	u64 table = out.cr3, entry = 0;

	for (u32 shift = 39; shift >= 21; shift -= 9) {
		entry = ram_at(table + (va >> shift & 511) * 8, 8);
		assert_int_equal(entry & 3, 3);
		assert_int_equal(entry >> 63, 0);
		table = entry & 0x000ffffffffff000;
		if (shift > 21)
			assert_int_equal(entry & BIT(7), 0);
	}
	assert_int_equal(entry & BIT(7), BIT(7));
	assert_int_equal(table, ALIGN_DOWN(va, SIZE_2M));
}

static void entry_state(void **state)
{
	static const u64 gdt[] = {0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff};

	loads();
	assert_int_equal(out.protocol, BOOT_PROTO_LINUX);
	assert_true(out.long64);
	assert_int_equal(out.entry, BZ_PREF + 0x200);
	assert_int_equal(out.rsi, PARAMS);
	assert_int_equal(out.gdt_limit, sizeof(gdt) - 1);
	assert_memory_equal(ram.low + out.gdt_base, gdt, sizeof(gdt));
	assert_true(out.stack > out.gdt_base + sizeof(gdt) && out.stack <= PARAMS);
	assert_int_equal(out.stack % 16, 0);
	assert_int_equal(out.kernel_base, BZ_PREF);
	assert_int_equal(out.kernel_end, BZ_PREF + BZ_INIT_SIZE);
	assert_memory_equal(ram.low + BZ_PREF, image + BZ_SETUP, BZ_CODE);
	assert_int_equal(ram.low[BZ_PREF - 1], 0xcc);
	assert_int_equal(ram.low[BZ_PREF + BZ_CODE], 0xcc);
	for (u64 va = 0; va < 4 * GIB; va += SIZE_2M)
		check_identity(va);
	assert_int_equal(ram_at(out.cr3 + 8, 8), 0);
}

static void parameters(void **state)
{
	static const u64 e820[][3] = {{0, 0x9fc00, 1},
				      {0x9fc00, 0x400, 2},
				      {0xe0000, 0x20000, 2},
				      {MIB, RAM_LOW - MIB, 1}};

	cmdline = "console=ttyS0 x";
	rsdp = 0xe0010;
	put(0x228, 0x12345678, 4);
	put(0x218, 0x12345678, 4);
	put(0x21c, 0x12345678, 4);
	put(0x250, 0x12345678, 8);
	loads();
	assert_int_equal(field(0x1f1, 1), 3);
	assert_int_equal(field(0x1fe, 2), 0xaa55);
	assert_int_equal(field(0x202, 4), 0x53726448);
	assert_int_equal(field(0x206, 2), 0x20f);
	assert_int_equal(field(0x210, 1), 0xff);
	assert_int_equal(field(0x211, 1), 1);
	assert_int_equal(field(0x214, 4), BZ_PREF);
	assert_int_equal(field(0x218, 8), 0); /* no RAM disk */
	assert_int_equal(field(0x236, 2), 0x7f);
	assert_int_equal(field(0x250, 8), 0);
	assert_int_equal(field(0x260, 4), BZ_INIT_SIZE);
	/* Fields behind the known ones are kept, up to the end that the jump gives, and no more. */
	assert_int_equal(field(0x264, 8), 0x1122334455667788);
	assert_string_equal((char *)ram.low + field(0x228, 4), "console=ttyS0 x");
	assert_int_equal(field(0x70, 8), 0xe0010);
	assert_int_equal(field(0x1ef, 1), 0); /* sentinel */
	assert_int_equal(field(0x1e8, 1), ARRAY_SIZE(e820));
	for (u32 i = 0; i < ARRAY_SIZE(e820); i++) {
		assert_int_equal(field(0x2d0 + 20 * i, 8), e820[i][0]);
		assert_int_equal(field(0x2d0 + 20 * i + 8, 8), e820[i][1]);
		assert_int_equal(field(0x2d0 + 20 * i + 16, 4), e820[i][2]);
	}
	for (u32 i = 0; i < 0x1f1; i++)
		if (i != 0x1e8 && (i < 0x70 || i >= 0x78))
			assert_int_equal(field(i, 1), 0);
	for (u32 i = 0x2d0 + 20 * ARRAY_SIZE(e820); i < 4096; i++)
		assert_int_equal(field(i, 1), 0);
	/* A header that ends earlier: what lies behind it is not taken for a part of it. */
	put(0x201, 0x62, 1);
	loads();
	assert_int_equal(field(0x264, 8), 0);
}

static void initrd(void **state)
{
	u8 data[9000];
	u64 at;

	for (u32 i = 0; i < sizeof(data); i++)
		data[i] = (u8)(i * 3 + 1);
	modules[0] = (struct guest_image){data, 5, "one", "ignored"};
	modules[1] = (struct guest_image){data + 100, 4098, "two", NULL};
	modules[2] = (struct guest_image){data + 7, 8, "three", NULL};
	module_count = 3;
	loads();
	at = field(0x218, 4);
	assert_int_equal(field(0x21c, 4), 8 + 4100 + 8);
	assert_int_equal(at, RAM_LOW - 2 * 4096);
	assert_memory_equal(ram.low + at, data, 5);
	assert_int_equal(ram_at(at + 5, 3), 0);
	assert_memory_equal(ram.low + at + 8, data + 100, 4098);
	assert_int_equal(ram_at(at + 8 + 4098, 2), 0);
	assert_memory_equal(ram.low + at + 8 + 4100, data + 7, 8);
	assert_int_equal(out.end, RAM_LOW);

	/* The kernel's limit: the address of the last byte. */
	put(0x22c, 0x7fffff, 4);
	loads();
	assert_int_equal(field(0x218, 4), 0x800000 - 2 * 4096);
	put(0x22c, 0x7ffffe, 4);
	modules[0] = (struct guest_image){data, 4096, "one", NULL};
	module_count = 1;
	loads();
	assert_int_equal(field(0x218, 4), 0x800000 - 2 * 4096);

	/* Down to the last byte of what the kernel needs to unpack itself, and no further. */
	put(0x22c, BZ_PREF + BZ_INIT_SIZE + 4096 - 1, 4);
	loads();
	assert_int_equal(field(0x218, 4), BZ_PREF + BZ_INIT_SIZE);
	put(0x22c, BZ_PREF + BZ_INIT_SIZE + 4096 - 2, 4);
	refused(ERR_NOMEM, "the initial RAM disk (4 KiB) does not fit");
	put(0x22c, 100, 4);
	refused(ERR_NOMEM, "the initial RAM disk (4 KiB) does not fit");
	put(0x22c, 0xffffffff, 4);
	loads();
	assert_int_equal(field(0x218, 4), RAM_LOW - 4096);
}

static void placement(void **state)
{
	/* Not at a multiple of its alignment: a relocatable kernel goes up, another stays. */
	put(0x258, 0x500000, 8);
	put(0x230, 0x400000, 4);
	loads();
	assert_int_equal(out.kernel_base, 0x800000);
	put(0x234, 0, 1);
	loads();
	assert_int_equal(out.kernel_base, 0x500000);
	assert_int_equal(out.entry, 0x500200);
	assert_int_equal(field(0x214, 4), 0x500000);
	put(0x230, 3, 4); /* says nothing then */
	loads();
	put(0x258, 0x1000, 8);
	refused(ERR_NOSYS, "can only run at 0x1000, in the first MiB");
	put(0x234, 1, 1);
	put(0x230, 0x1000, 4);
	loads();
	assert_int_equal(out.kernel_base, MIB);

	/* All of init_size must be RAM. */
	put(0x258, RAM_LOW - BZ_INIT_SIZE, 8);
	loads();
	assert_int_equal(out.kernel_end, RAM_LOW);
	put(0x258, RAM_LOW - BZ_INIT_SIZE + 0x1000, 8);
	refused(ERR_NOMEM, "at least 18M");
	put(0x260, 0xffffffff, 4);
	refused(ERR_NOMEM, "the kernel needs 4096 MiB at");
	put(0x258, 3 * GIB, 8);
	refused(ERR_NOSYS, "wants to run at 0xc0000000");
	put(0x258, ~0ull, 8);
	refused(ERR_NOSYS, "wants to run at");
	put(0x258, 3 * GIB - 1, 8);
	put(0x230, 0x40000000, 4);
	refused(ERR_NOMEM, "the kernel needs");
}

static void refusals(void **state)
{
	static const struct {
		u32 at, bytes;
		u64 value;
		const char *why;
		int error;
	} cases[] = {
		{0x1fe, 2, 0xaa54, "boot flag 0xaa54", ERR_INVAL},
		{0x206, 2, 0x20b, "boot protocol 2.11;", ERR_NOSYS},
		{0x206, 2, 0x105, "boot protocol 1.05;", ERR_NOSYS},
		{0x200, 1, 0xe9, "setup header does not end", ERR_INVAL},
		{0x201, 1, 0x61, "setup header does not end", ERR_INVAL},
		{0x201, 1, 0x80, "setup header does not end", ERR_INVAL},
		{0x201, 1, 0xff, "setup header does not end", ERR_INVAL},
		{0x1f4, 4, 0x20, "only 512 bytes", ERR_INVAL},
		{0x1f4, 4, 0, "only 0 bytes", ERR_INVAL},
		{0x1f4, 4, BZ_CODE / 16 + 1, "truncated", ERR_INVAL},
		{0x1f4, 4, 0xffffffff, "truncated", ERR_INVAL},
		{0x1f1, 1, 0, "truncated", ERR_INVAL}, /* means 4 */
		{0x1f1, 1, 255, "truncated", ERR_INVAL},
		{0x248, 4, 0x301, "payload", ERR_INVAL},
		{0x248, 4, 0x2001, "payload", ERR_INVAL},
		{0x248, 4, 0xffffffff, "payload", ERR_INVAL},
		{0x24c, 4, 0xffffff00, "payload", ERR_INVAL},
		{0x211, 1, 0, "zImage", ERR_NOSYS},
		{0x236, 2, 0x7e, "no 64-bit entry point", ERR_NOSYS},
		{0x260, 4, BZ_CODE - 1, "init_size", ERR_INVAL},
		{0x260, 4, 0, "init_size", ERR_INVAL},
		{0x230, 4, 0, "kernel_alignment", ERR_INVAL},
		{0x230, 4, 0x300000, "kernel_alignment", ERR_INVAL},
		{0x230, 4, 0x80000000, "kernel_alignment", ERR_INVAL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		setup(state);
		put(cases[i].at, cases[i].value, cases[i].bytes);
		refused(cases[i].error, cases[i].why);
		assert_int_equal(ram.writes, 0);
	}
	setup(state);
	put(0x206, 0x20c, 2);
	loads();
	ram.fail = true;
	refused(ERR_FAULT, "could not be written");
	setup(state);
	put(0x24c, 0x1cf1, 4);
	image_bytes -= 15; /* of the last unit of 16 bytes one is enough */
	loads();
	put(0x24c, 0x1cf2, 4);
	refused(ERR_INVAL, "payload");
	image_bytes--;
	refused(ERR_INVAL, "truncated");
	image_bytes = 0x1000;
	refused(ERR_INVAL, "truncated");
	image_bytes = 0x264;
	refused(ERR_INVAL, "setup header does not end");
	image_bytes = 0x263;
	refused(ERR_INVAL, "not a Linux bzImage"); /* by `linux` */
	protocol = BOOT_PROTO_LINUX;
	refused(ERR_INVAL, "not a Linux bzImage");
	image_bytes = BZ_BYTES;
	loads();
	protocol = BOOT_PROTO_PVH;
	refused(ERR_INVAL, "not an ELF file");
	protocol = BOOT_PROTO_MULTIBOOT;
	refused(ERR_INVAL, "no Multiboot header");
}

/* setup_sects 0 means 4. */
static void old_setup_size(void **state)
{
	put(0x1f1, 0, 1);
	put(0x1f4, (BZ_CODE - 512) / 16, 4);
	put(0x248, 0, 8);
	loads();
	assert_memory_equal(ram.low + BZ_PREF, image + 5 * 512, BZ_CODE - 512);
}

static void command_line(void **state)
{
	static char text[5000];

	memset(text, 'x', sizeof(text) - 1);
	cmdline = text;
	text[2047] = 0;
	loads();
	assert_string_equal((char *)ram.low + field(0x228, 4), text);
	text[2047] = 'x';
	text[2048] = 0;
	refused(ERR_INVAL, "the command line has 2048 bytes, this kernel takes 2047");
	put(0x238, 0xffffffff, 4);
	text[2048] = 'x';
	text[4095] = 0;
	loads();
	assert_string_equal((char *)ram.low + field(0x228, 4), text);
	text[4095] = 'x';
	text[4096] = 0;
	refused(ERR_INVAL, "this kernel takes 4095");
	cmdline = NULL;
	put(0x238, 0, 4);
	loads();
	assert_int_equal(ram.low[field(0x228, 4)], 0);
}

/* Much RAM above 4 GiB: all of it is mapped, by tables that are RAM and hurt nothing else. */
static void memory_above_4g(void **state)
{
	static const u64 high[] = {1, SIZE_1G, 100 * GIB, 509 * GIB};
	u8 data[100] = {1};

	modules[0] = (struct guest_image){data, sizeof(data), "one", NULL};
	module_count = 1;
	for (u32 i = 0; i < ARRAY_SIZE(high); i++) {
		struct load_target target;
		struct load_request req = {
			.kernel = {.data = image, .bytes = image_bytes, .name = "k"},
			.modules = modules,
			.module_count = 1};
		u64 end = 4 * GIB + high[i], tables, pages;

		setup_ram(RAM_LOW);
		target = test_ram_target(&ram);
		target.ram_high = high[i]; /* nothing is written there */
		assert_int_equal(guest_load(&req, &target, &out), 0);
		for (u64 va = 0; va < end; va += 64 * MIB)
			check_identity(va);
		check_identity(end - 1);
		pages = 2 + (end + SIZE_1G - 1) / SIZE_1G + (end > 512 * GIB);
		tables = out.cr3;
		assert_true(tables >= 0x10000);
		if (tables < MIB)
			assert_true(tables + pages * 4096 <= 0x80000);
		else
			assert_true(tables >= BZ_PREF + BZ_INIT_SIZE &&
				    tables + pages * 4096 <= RAM_LOW);
		assert_true(field(0x218, 4) + 4096 <= tables || tables < MIB);
		assert_int_equal(ram.low[field(0x218, 4)], 1);
		assert_int_equal(field(0x1e8, 1), 5);
		assert_int_equal(field(0x2d0 + 80, 8), 4 * GIB);
		assert_int_equal(field(0x2d0 + 88, 8), high[i]);
	}
	assert_true(out.cr3 > MIB); /* the largest did not fit into low memory */
}

/* Multiboot and ELF come first. */
static void choice(void **state)
{
	put(0x40, 0x1badb002, 4);
	put(0x44, 0, 4);
	put(0x48, -0x1badb002u, 4);
	refused(ERR_INVAL, "not an ELF file");
	protocol = BOOT_PROTO_LINUX;
	loads();
	protocol = BOOT_PROTO_AUTO;
	put(0x40, 0, 4);
	loads();
	memcpy(image, "\177ELF", 4);
	refused(ERR_INVAL, "little-endian");
}

static u8 *read_file(const char *path, u64 *bytes)
{
	FILE *f = fopen(path, "rb");
	u8 *data;
	long size;

	assert_non_null(f);
	assert_int_equal(fseek(f, 0, SEEK_END), 0);
	size = ftell(f);
	assert_true(size > 0);
	rewind(f);
	data = malloc((size_t)size);
	assert_non_null(data);
	assert_int_equal(fread(data, 1, (size_t)size, f), (size_t)size);
	fclose(f);
	*bytes = (u64)size;
	return data;
}

/* Debian's kernels as scripts/run keeps them; where there are none nothing is tested. */
static void each_file(const char *name, void (*check)(const u8 *data, u64 bytes))
{
	static const char *const folders[] = {"linux", "linux/*", "linux/*/boot"};
	const char *build = getenv("BUILD");
	glob_t found = {0};

	for (u32 i = 0; i < ARRAY_SIZE(folders); i++) {
		char pattern[300];

		snprintf(pattern, sizeof(pattern), "%s/%s/%s", build ? build : "build", folders[i],
			 name);
		glob(pattern, i ? GLOB_APPEND : 0, NULL, &found);
	}
	if (!found.gl_pathc)
		print_message("no %s\n", name);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		u64 bytes;
		u8 *data = read_file(found.gl_pathv[i], &bytes);

		print_message("%s\n", found.gl_pathv[i]);
		setup_ram(256 * MIB);
		if (load_image(data, bytes))
			fail_msg("%s: %s", found.gl_pathv[i], out.reason);
		check(data, bytes);
		free(data);
	}
	globfree(&found);
}

static void check_bzimage(const u8 *data, u64 bytes)
{
	u64 code = 0, offset = (data[0x1f1] + 1) * 512u;

	assert_int_equal(out.protocol, BOOT_PROTO_LINUX);
	assert_int_equal(out.kernel_base, 16 * MIB);
	memcpy(&code, data + 0x1f4, 4);
	assert_memory_equal(ram.low + 16 * MIB, data + offset, code * 16);
	assert_true(out.kernel_end - out.kernel_base > code * 16);
}

/* The ELF inside: segments where the program headers say, zeroes behind, start_info version 1. */
static void check_vmlinux(const u8 *data, u64 bytes)
{
	u64 phoff, map;
	u16 phnum;

	assert_int_equal(out.protocol, BOOT_PROTO_PVH);
	assert_int_equal(out.kernel_base, 16 * MIB);
	assert_in_range(out.entry, out.kernel_base, out.kernel_end - 1);
	memcpy(&phoff, data + 32, 8);
	memcpy(&phnum, data + 56, 2);
	for (u32 i = 0; i < phnum; i++) {
		u64 v[6]; /* offset, vaddr, paddr, filesz, memsz, align */
		u32 type;

		memcpy(&type, data + phoff + i * 56, 4);
		memcpy(v, data + phoff + i * 56 + 8, sizeof(v));
		if (type != 1)
			continue;
		assert_memory_equal(ram.low + v[2], data + v[0], v[3]);
		for (u64 at = v[3]; at < v[4]; at++)
			assert_int_equal(ram.low[v[2] + at], 0);
		assert_true(v[2] + v[4] <= out.kernel_end);
	}
	assert_int_equal(ram_at(out.ebx, 4), 0x336ec578);
	assert_int_equal(ram_at(out.ebx + 4, 4), 1);
	assert_int_equal(ram_at(out.ebx + 32, 8), 0xe0000);
	assert_int_equal(ram_at(out.ebx + 48, 4), 4);
	map = ram_at(out.ebx + 40, 8);
	assert_int_equal(ram_at(map + 48, 8), 0xe0000);
	assert_int_equal(ram_at(map + 72 + 8, 8), 255 * MIB);
}

static void debian_kernels(void **state)
{
	u8 data[3] = {1, 2, 3};

	modules[0] = (struct guest_image){data, sizeof(data), "one", NULL};
	module_count = 1;
	rsdp = 0xe0000;
	each_file("vmlinuz*", check_bzimage);
	each_file("vmlinux*", check_vmlinux);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(entry_state, setup),
		cmocka_unit_test_setup(parameters, setup),
		cmocka_unit_test_setup(initrd, setup),
		cmocka_unit_test_setup(placement, setup),
		cmocka_unit_test_setup(refusals, setup),
		cmocka_unit_test_setup(old_setup_size, setup),
		cmocka_unit_test_setup(command_line, setup),
		cmocka_unit_test_setup(memory_above_4g, setup),
		cmocka_unit_test_setup(choice, setup),
		cmocka_unit_test_setup(debian_kernels, setup),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	free(ram.low);
	free(ram.high);
	return failed;
}
