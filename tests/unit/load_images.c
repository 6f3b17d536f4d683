/* The guest image loaders: what a kernel finds, and that malformed images are refused by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "load_target.h"

#define RAM_LOW	   (16 * MIB)
#define IMAGE_SIZE 0x4000u
#define BASE	   0x200000u
#define MAGIC	   0x1badb002u

static struct test_ram ram;
static u8 image[IMAGE_SIZE];
static u64 image_bytes;
static const char *cmdline;
static struct guest_image modules[BOOT_MAX_MODULES];
static u32 module_count, protocol;
static u64 rsdp;
static struct load_result out;

static void put16(u32 at, u16 v)
{
	memcpy(image + at, &v, 2);
}

static void put32(u32 at, u32 v)
{
	memcpy(image + at, &v, 4);
}

static void put64(u32 at, u64 v)
{
	memcpy(image + at, &v, 8);
}

static u32 ram32(u64 at)
{
	u32 v;

	assert_true(at + 4 <= ram.low_bytes);
	memcpy(&v, ram.low + at, 4);
	return v;
}

static u64 ram64(u64 at)
{
	return ram32(at) | (u64)ram32(at + 4) << 32;
}

static const char *ram_string(u64 at)
{
	assert_true(at < ram.low_bytes);
	return (const char *)ram.low + at;
}

static int setup(void **state)
{
	free(ram.low);
	free(ram.high);
	ram = (struct test_ram){.low = malloc(RAM_LOW), .low_bytes = RAM_LOW};
	memset(ram.low, 0xcc, RAM_LOW);
	for (u32 i = 0; i < IMAGE_SIZE; i++)
		image[i] = (u8)(i * 7 + i / 256);
	memset(image, 0, 0x400);
	image_bytes = IMAGE_SIZE;
	cmdline = NULL;
	module_count = 0;
	protocol = BOOT_PROTO_AUTO;
	rsdp = 0;
	return 0;
}

static int load(void)
{
	struct load_target target = test_ram_target(&ram);
	struct load_request req = {
		.kernel = {.data = image, .bytes = image_bytes, .name = "kernels/k.elf"},
		.modules = modules,
		.module_count = module_count,
		.protocol = protocol,
		.cmdline = cmdline,
		.rsdp = rsdp};
	u8 *exact = malloc(image_bytes ? image_bytes : 1); /* so that ASan sees over-reads */
	int err;

	memcpy(exact, image, image_bytes);
	req.kernel.data = exact;
	err = guest_load(&req, &target, &out);
	free(exact);
	if (err)
		assert_true(strlen(out.reason) > 10);
	else
		assert_int_equal(out.reason[0], 0);
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

static void multiboot_header(u32 at, u32 flags)
{
	put32(at, MAGIC);
	put32(at + 4, flags);
	put32(at + 8, -(MAGIC + flags));
}

/* An image in address-header form: header at 0x40, loaded from its first byte on. */
static void address_image(void)
{
	multiboot_header(0x40, BIT(16) | 3);
	put32(0x4c, BASE + 0x40);   /* header_addr */
	put32(0x50, BASE);	    /* load_addr */
	put32(0x54, BASE + 0x3000); /* load_end_addr */
	put32(0x58, BASE + 0x5000); /* bss_end_addr */
	put32(0x5c, BASE + 0x100);  /* entry */
}

/* Program header i of an ELF image whose table lies behind the header. */
static void phdr(bool is64, u32 i, u32 type, u32 flags, const u64 v[5])
{
	u32 at = is64 ? 64 + 56 * i : 52 + 32 * i;

	put32(at, type);
	if (is64) {
		put32(at + 4, flags);
		for (u32 j = 0; j < 5; j++)
			put64(at + 8 + 8 * j, v[j]);
	} else {
		for (u32 j = 0; j < 5; j++)
			put32(at + 4 + 4 * j, (u32)v[j]);
		put32(at + 24, flags);
	}
}

static void elf_header(bool is64, u64 entry, u16 phnum)
{
	static const u8 ident[] = {0x7f, 'E', 'L', 'F', 2, 1, 1};

	memcpy(image, ident, sizeof(ident));
	image[4] = is64 ? 2 : 1;
	put16(16, 2);
	put16(18, is64 ? 62 : 3);
	put32(20, 1);
	if (is64) {
		put64(24, entry);
		put64(32, 64);
		put16(54, 56);
		put16(56, phnum);
	} else {
		put32(24, (u32)entry);
		put32(28, 52);
		put16(42, 32);
		put16(44, phnum);
	}
}

/* Two segments: code at BASE, data with bss at BASE + 0x10000; a Multiboot header in the first. */
static void elf_image(bool is64)
{
	elf_header(is64, BASE + 0x20, 2);
	phdr(is64, 0, 1, 5, (const u64[]){0x1000, BASE, BASE, 0x1000, 0x1000});
	phdr(is64, 1, 1, 6, (const u64[]){0x2000, BASE + 0x10000, BASE + 0x10000, 0x800, 0x3000});
}

static void multiboot_elf_image(bool is64)
{
	elf_image(is64);
	multiboot_header(0x1000, 3);
}

/* A PVH kernel: the ELF image with a note segment at file offset 0x3000. */
static void pvh_image(bool is64, u64 entry, u32 desc_bytes)
{
	elf_image(is64);
	elf_header(is64, 0, 3);
	phdr(is64, 2, 4, 4, (const u64[]){0x3000, 0, 0, 0x100, 0x100});
	memset(image + 0x3000, 0, 0x100);
	put32(0x3000, 4); /* some other note first */
	put32(0x3004, 5);
	put32(0x3008, 18);
	memcpy(image + 0x300c, "GNU\0hello\0\0", 12);
	put32(0x3018, 4);
	put32(0x301c, desc_bytes);
	put32(0x3020, 18);
	memcpy(image + 0x3024, "Xen", 4);
	put64(0x3028, entry);
}

static void check_bytes(u64 at, u32 offset, u32 len)
{
	assert_memory_equal(ram.low + at, image + offset, len);
}

static void check_zero(u64 at, u64 len)
{
	for (u64 i = 0; i < len; i++)
		assert_int_equal(ram.low[at + i], 0);
}

static void multiboot_addresses(void **state)
{
	address_image();
	loads();
	assert_int_equal(out.protocol, BOOT_PROTO_MULTIBOOT);
	assert_int_equal(out.entry, BASE + 0x100);
	assert_int_equal(out.eax, 0x2badb002);
	assert_int_equal(out.ebx, 0x9000);
	assert_int_equal(out.kernel_base, BASE);
	assert_int_equal(out.kernel_end, BASE + 0x5000);
	check_bytes(BASE, 0, 0x3000);
	check_zero(BASE + 0x3000, 0x2000);
	assert_int_equal(ram.low[BASE - 1], 0xcc);

	setup(state); /* load_end and bss_end 0: all of the file, no bss; code before the header cut
			 off */
	address_image();
	put32(0x50, BASE + 0x30);
	put32(0x54, 0);
	put32(0x58, 0);
	loads();
	check_bytes(BASE + 0x30, 0x30, IMAGE_SIZE - 0x30);
	assert_int_equal(out.kernel_end, BASE + IMAGE_SIZE);
	assert_int_equal(ram.low[BASE + 0x2f], 0xcc);
}

static void multiboot_elf(void **state)
{
	for (u32 is64 = 0; is64 < 2; is64++) {
		setup(state);
		multiboot_elf_image(is64);
		loads();
		assert_int_equal(out.protocol, BOOT_PROTO_MULTIBOOT);
		assert_int_equal(out.entry, BASE + 0x20);
		check_bytes(BASE, 0x1000, 0x1000);
		check_bytes(BASE + 0x10000, 0x2000, 0x800);
		check_zero(BASE + 0x10800, 0x2800);
		assert_int_equal(out.kernel_end, BASE + 0x13000);
	}
	/* Linked high, loaded low: the entry point is translated. */
	phdr(true, 0, 1, 5, (const u64[]){0x1000, 0xffffffff80000000, BASE, 0x1000, 0x1000});
	put64(24, 0xffffffff80000040);
	loads();
	assert_int_equal(out.entry, BASE + 0x40);
}

static void multiboot_information(void **state)
{
	u8 data[5000];
	u64 info, mods, map;

	memset(data, 0x5a, sizeof(data));
	address_image();
	cmdline = "a=1 b";
	modules[0] = (struct guest_image){data, 4097, "one.mod", "x y"};
	modules[1] = (struct guest_image){data, 0, "two.mod", ""};
	modules[2] = (struct guest_image){data, 5000, "three.mod", NULL};
	module_count = 3;
	loads();
	info = out.ebx;
	assert_int_equal(ram32(info), 0x24f);
	assert_int_equal(ram32(info + 4), 639);
	assert_int_equal(ram32(info + 8), 15 * 1024);
	assert_int_equal(ram32(info + 12), 0x8000ffff);
	assert_string_equal(ram_string(ram32(info + 16)), "kernels/k.elf a=1 b");
	assert_string_equal(ram_string(ram32(info + 64)), "Umbra");
	assert_int_equal(ram32(info + 20), 3);
	mods = ram32(info + 24);
	assert_int_equal(ram32(mods), BASE + 0x5000);
	assert_int_equal(ram32(mods + 4), BASE + 0x5000 + 4097);
	assert_string_equal(ram_string(ram32(mods + 8)), "one.mod x y");
	assert_int_equal(ram32(mods + 16), BASE + 0x7000);
	assert_int_equal(ram32(mods + 20), BASE + 0x7000);
	assert_string_equal(ram_string(ram32(mods + 24)), "two.mod");
	assert_int_equal(ram32(mods + 32), BASE + 0x7000);
	assert_int_equal(ram32(mods + 36), BASE + 0x7000 + 5000);
	assert_string_equal(ram_string(ram32(mods + 40)), "three.mod");
	assert_memory_equal(ram.low + BASE + 0x7000, data, 5000);
	/* Everything lies behind the kernel and below `end`; strings overlap no module. */
	assert_true(ram32(info + 16) >= BASE + 0x7000 + 5000);
	assert_true(out.end > ram32(mods + 40) && out.end % 4096 == 0);
	map = ram32(info + 48);
	assert_int_equal(ram32(info + 44), 4 * 24);
	assert_int_equal(ram32(map), 20);
	assert_int_equal(ram64(map + 4), 0);
	assert_int_equal(ram64(map + 12), 0x9fc00);
	assert_int_equal(ram32(map + 20), 1);
	assert_int_equal(ram64(map + 24 + 4), 0x9fc00);
	assert_int_equal(ram64(map + 24 + 12), 0x400);
	assert_int_equal(ram32(map + 24 + 20), 2);
	assert_int_equal(ram64(map + 48 + 4), 0xe0000);
	assert_int_equal(ram64(map + 48 + 12), 0x20000);
	assert_int_equal(ram32(map + 48 + 20), 2);
	assert_int_equal(ram64(map + 72 + 4), MIB);
	assert_int_equal(ram64(map + 72 + 12), RAM_LOW - MIB);
	assert_int_equal(ram32(map + 72 + 20), 1);
}

/* A kernel that occupies the usual place of the information gets it elsewhere. */
static void multiboot_low_kernel(void **state)
{
	address_image();
	put32(0x4c, 0x8040);
	put32(0x50, 0x8000);
	put32(0x54, 0xb000);
	put32(0x58, 0);
	put32(0x5c, 0x8100);
	loads();
	assert_true(out.ebx >= MIB);
	check_bytes(0x8000, 0, 0x3000);
	assert_string_equal(ram_string(ram32(out.ebx + 16)), "kernels/k.elf");
}

/* A position-independent image at address 0 that would cover the information: 64 KiB higher. */
static void multiboot_moved(void **state)
{
	for (u32 is64 = 0; is64 < 2; is64++) {
		setup(state);
		multiboot_elf_image(is64);
		elf_header(is64, 0x20, 2);
		put16(16, 3);
		phdr(is64, 0, 1, 5, (const u64[]){0x1000, 0, 0, 0x1000, 0x1000});
		phdr(is64, 1, 1, 6, (const u64[]){0x2000, 0x8000, 0x8000, 0x800, 0x3000});
		loads();
		assert_int_equal(out.entry, 0x10020);
		assert_int_equal(out.kernel_base, 0x10000);
		assert_int_equal(out.kernel_end, 0x1b000);
		assert_int_equal(out.ebx, 0x9000);
		check_bytes(0x10000, 0x1000, 0x1000);
		check_bytes(0x18000, 0x2000, 0x800);
		check_zero(0x18800, 0x2800);
		assert_int_equal(ram.low[0], 0xcc);
		assert_int_equal(ram.low[0x8fff], 0xcc);
	}
	/* As large as fits, and larger. */
	phdr(true, 1, 1, 6, (const u64[]){0x2000, 0x8000, 0x8000, 0x800, 0x87c00});
	loads();
	assert_int_equal(out.kernel_end, 0x9fc00);
	phdr(true, 1, 1, 6, (const u64[]){0x2000, 0x8000, 0x8000, 0x800, 0x87c01});
	loads();
	assert_int_equal(out.kernel_base, 0);
	assert_int_equal(out.entry, 0x20);
	assert_true(out.ebx >= MIB);
	/* A size that wraps is no small image. */
	phdr(true, 1, 1, 6, (const u64[]){0x2000, 0x8000, 0x8000, 0x800, ~(u64)0 - 0x7000});
	refused(ERR_INVAL, "wraps around");
}

/* Others stay: those that QEMU can start at 0, those at other addresses, those linked to it. */
static void multiboot_not_moved(void **state)
{
	static const struct {
		u64 base, bytes;
		u16 type;
	} cases[] = {{0, 0x9000, 3}, {0x1000, 0xa000, 3}, {0, 0xa000, 2}};

	for (u32 i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		u64 base = cases[i].base;

		setup(state);
		multiboot_elf_image(true);
		elf_header(true, base + 0x20, 1);
		put16(16, cases[i].type);
		phdr(true, 0, 1, 5, (const u64[]){0x1000, base, base, 0x1000, cases[i].bytes});
		loads();
		assert_int_equal(out.kernel_base, base);
		assert_int_equal(out.kernel_end, base + cases[i].bytes);
		assert_int_equal(out.entry, base + 0x20);
		check_bytes(base, 0x1000, 0x1000);
	}
}

static void multiboot_refusals(void **state)
{
	static const struct {
		u32 at, value;
		const char *why;
		int error;
	} cases[] = {
		{0x50, BASE + 0x44, "above header_addr", ERR_INVAL},
		{0x50, BASE - 0x40, "before the start", ERR_INVAL},
		{0x54, BASE - 1, "below load_addr", ERR_INVAL},
		{0x54, BASE + IMAGE_SIZE + 1, "behind the end of the file", ERR_INVAL},
		{0x58, BASE + 0x2fff, "bss_end_addr", ERR_INVAL},
		{0x58, RAM_LOW + 1, "not within the guest's RAM", ERR_NOMEM},
		{0x58, 0xffffffff, "not within the guest's RAM", ERR_NOMEM},
		{0x5c, BASE + 0x5000, "entry point", ERR_INVAL},
		{0x5c, 0, "entry point", ERR_INVAL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		setup(state);
		address_image();
		put32(cases[i].at, cases[i].value);
		refused(cases[i].error, cases[i].why);
	}
	setup(state);
	address_image();
	multiboot_header(0x40, BIT(16) | BIT(3));
	refused(ERR_NOSYS, "requires features");
	multiboot_header(0x40, BIT(16) | BIT(2)); /* video mode: ignored */
	loads();
	image_bytes = 0x40 + 31;
	refused(ERR_INVAL, "ends within the Multiboot header");
	setup(state); /* no ELF file, and no addresses either */
	multiboot_header(0x40, 0);
	refused(ERR_INVAL, "not an ELF file");
	setup(state);
	protocol = BOOT_PROTO_MULTIBOOT;
	refused(ERR_INVAL, "no Multiboot header");
	address_image();
	ram.fail = true;
	refused(ERR_FAULT, "could not be");
}

/* The header is searched in the first 8,192 bytes, on 4-byte boundaries, and checked. */
static void multiboot_search(void **state)
{
	protocol = BOOT_PROTO_MULTIBOOT;
	multiboot_elf_image(true);
	put32(0x1000, 0);
	multiboot_header(0x1ff4, 3); /* its last byte is the last one searched */
	loads();
	put32(0x1ff4, 0);
	multiboot_header(0x1ff8, 3);
	refused(ERR_INVAL, "no Multiboot header");
	put32(0x1ff8, 0);
	multiboot_header(0x1002, 3);
	refused(ERR_INVAL, "no Multiboot header");
	multiboot_header(0x1000, 3);
	put32(0x1008, 1);
	refused(ERR_INVAL, "no Multiboot header");
	image_bytes = 5;
	refused(ERR_INVAL, "no Multiboot header");
	image_bytes = 0;
	refused(ERR_INVAL, "no Multiboot header");
}

static void elf_refusals(void **state)
{
	static const struct {
		bool is64;
		u32 at, bytes;
		u64 value;
		const char *why;
	} cases[] = {
		{true, 4, 1, 3, "ELF class"},
		{true, 5, 1, 2, "little-endian"},
		{true, 16, 2, 1, "not executable"},
		{true, 18, 2, 183, "not for x86"},
		{true, 54, 2, 32, "program headers have"},
		{false, 42, 2, 56, "program headers have"},
		{true, 56, 2, 129, "more than 128"},
		{true, 56, 2, 0, "no segment to load"},
		{true, 32, 8, IMAGE_SIZE - 56, "outside the file"},
		{true, 32, 8, ~0ull - 8, "outside the file"},
		{false, 28, 4, 0xfffffff0, "outside the file"},
		{true, 64 + 8, 8, IMAGE_SIZE - 0xfff, "outside the file"},
		{true, 64 + 8, 8, ~0ull - 0xfff, "outside the file"},
		{true, 64 + 40, 8, 0xfff, "more bytes in the file than in memory"},
		{true, 64 + 40, 8, ~0ull, "wraps"},
		{true, 64 + 24, 8, RAM_LOW - 0xfff, "not within the guest's RAM"},
		{true, 64 + 24, 8, 0xc0000000, "not within the guest's RAM"},
		{true, 64 + 24, 8, ~0ull - 0xfff, "wraps"},
		{true, 64 + 40, 8, RAM_LOW - BASE + 1, "not within the guest's RAM"},
		{true, 24, 8, 0x123456789, "entry point"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int err;

		setup(state);
		multiboot_elf_image(cases[i].is64);
		loads();
		memcpy(image + cases[i].at, &cases[i].value, cases[i].bytes);
		err = load();
		if (!err || !strstr(out.reason, cases[i].why))
			fail_msg("case %zu: wanted \"%s\", got %d \"%s\"", i, cases[i].why, err,
				 out.reason);
	}
}

static void pvh(void **state)
{
	u8 data[100];

	memset(data, 0xa5, sizeof(data));
	for (u32 is64 = 0; is64 < 2; is64++) {
		u64 info, map, mods;

		setup(state);
		pvh_image(is64, BASE + 0x80, is64 ? 8 : 4);
		if (!is64)
			put32(0x302c, 0xdeadbeef); /* not part of a 4-byte descriptor */
		cmdline = "root=x";
		rsdp = 0xe0000;
		modules[0] = (struct guest_image){data, 100, "initrd", NULL};
		modules[1] = (struct guest_image){data, 7, "second", "arg"};
		module_count = 2;
		loads();
		assert_int_equal(out.protocol, BOOT_PROTO_PVH);
		assert_int_equal(out.entry, BASE + 0x80);
		assert_int_equal(out.eax, 0);
		info = out.ebx;
		assert_int_equal(ram32(info), 0x336ec578);
		assert_int_equal(ram32(info + 4), 1);
		assert_int_equal(ram32(info + 12), 2);
		assert_string_equal(ram_string(ram64(info + 24)), "root=x");
		assert_int_equal(ram64(info + 32), 0xe0000);
		mods = ram64(info + 16);
		assert_int_equal(ram64(mods), BASE + 0x13000);
		assert_int_equal(ram64(mods + 8), 100);
		assert_int_equal(ram64(mods + 16), 0);
		assert_int_equal(ram64(mods + 32), BASE + 0x14000);
		assert_int_equal(ram64(mods + 40), 7);
		assert_string_equal(ram_string(ram64(mods + 48)), "arg");
		assert_memory_equal(ram.low + BASE + 0x13000, data, 100);
		map = ram64(info + 40);
		assert_int_equal(ram32(info + 48), 4);
		assert_int_equal(ram64(map + 72), MIB);
		assert_int_equal(ram64(map + 80), RAM_LOW - MIB);
		assert_int_equal(ram32(map + 88), 1);
	}
}

static void pvh_refusals(void **state)
{
	pvh_image(true, BASE + 0x80, 8);
	put32(0x3020, 17);
	refused(ERR_INVAL, "neither a Multiboot header nor a PVH entry");
	pvh_image(true, BASE + 0x80, 8);
	memcpy(image + 0x3024, "Xem", 4);
	refused(ERR_INVAL, "neither a Multiboot header nor a PVH entry");
	pvh_image(true, BASE - 1, 8);
	refused(ERR_INVAL, "PVH entry point");
	pvh_image(true, 0x100000000 + BASE, 8);
	refused(ERR_INVAL, "PVH entry point");
	pvh_image(true, BASE, 3);
	refused(ERR_INVAL, "too short");
	pvh_image(true, BASE, 0xfffffff0);
	refused(ERR_INVAL, "longer than its segment");
	pvh_image(true, BASE, 8);
	put32(0x3000, 0xfffffff0);
	refused(ERR_INVAL, "longer than its segment");
	pvh_image(true, BASE, 8);
	put64(64 + 56 * 2 + 8, IMAGE_SIZE - 0xff);
	refused(ERR_INVAL, "note segment 2 lies outside");
}

/* More than 3 GiB: the rest appears above 4 GiB, and segments may lie there. */
static void memory_above_4g(void **state)
{
	u64 low, high, map;

	load_split_ram(5 * GIB, &low, &high);
	assert_int_equal(low, 3 * GIB);
	assert_int_equal(high, 2 * GIB);
	load_split_ram(64 * MIB, &low, &high);
	assert_int_equal(low, 64 * MIB);
	assert_int_equal(high, 0);

	multiboot_elf_image(true);
	phdr(true, 1, 1, 6, (const u64[]){0x2000, 0, 0x100000000, 0x800, 0x1000});
	refused(ERR_NOMEM, "not within the guest's RAM");
	ram.high = malloc(0x1000);
	ram.high_bytes = 0x1000;
	loads();
	assert_memory_equal(ram.high, image + 0x2000, 0x800);
	map = ram32(out.ebx + 48);
	assert_int_equal(ram32(out.ebx + 44), 5 * 24);
	assert_int_equal(ram64(map + 96 + 4), 4 * GIB);
	assert_int_equal(ram64(map + 96 + 12), 0x1000);
	phdr(true, 1, 1, 6, (const u64[]){0x2000, 0, 0x100000000, 0x800, 0x1001});
	refused(ERR_NOMEM, "not within the guest's RAM");
}

static void no_room(void **state)
{
	static u8 big[RAM_LOW];
	static char text[2000];

	address_image();
	modules[0] = (struct guest_image){big, sizeof(big), "big", NULL};
	module_count = 1;
	refused(ERR_NOMEM, "big (16384 KiB) does not fit");
	modules[0].bytes = RAM_LOW - BASE - 0x5000; /* fits, but leaves nothing for the strings */
	refused(ERR_NOMEM, "no room for the command lines");
	module_count = BOOT_MAX_MODULES + 1;
	refused(ERR_INVAL, "more than 8 modules");
	module_count = 0;
	memset(text, 'x', sizeof(text) - 1);
	cmdline = text;
	refused(ERR_INVAL, "command line is longer");
	ram.low_bytes = MIB;
	refused(ERR_INVAL, "less than 2 MiB");
}

static void unknown_images(void **state)
{
	refused(ERR_INVAL, "no Multiboot header in the first 8 KiB, not an ELF file");
	protocol = BOOT_PROTO_LINUX;
	refused(ERR_INVAL, "not a Linux bzImage");
	protocol = 99;
	refused(ERR_INVAL, "unknown boot protocol 99");
}

/* Multiboot is preferred; the protocol can be forced. */
static void choice(void **state)
{
	pvh_image(true, BASE + 0x80, 8);
	multiboot_header(0x1000, 3);
	put64(24, BASE + 0x20);
	loads();
	assert_int_equal(out.protocol, BOOT_PROTO_MULTIBOOT);
	protocol = BOOT_PROTO_PVH;
	loads();
	assert_int_equal(out.protocol, BOOT_PROTO_PVH);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(multiboot_addresses, setup),
		cmocka_unit_test_setup(multiboot_elf, setup),
		cmocka_unit_test_setup(multiboot_information, setup),
		cmocka_unit_test_setup(multiboot_low_kernel, setup),
		cmocka_unit_test_setup(multiboot_moved, setup),
		cmocka_unit_test_setup(multiboot_not_moved, setup),
		cmocka_unit_test_setup(multiboot_refusals, setup),
		cmocka_unit_test_setup(multiboot_search, setup),
		cmocka_unit_test_setup(elf_refusals, setup),
		cmocka_unit_test_setup(pvh, setup),
		cmocka_unit_test_setup(pvh_refusals, setup),
		cmocka_unit_test_setup(memory_above_4g, setup),
		cmocka_unit_test_setup(no_room, setup),
		cmocka_unit_test_setup(unknown_images, setup),
		cmocka_unit_test_setup(choice, setup),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	free(ram.low);
	free(ram.high);
	return failed;
}
