/* The SMBIOS tables, walked as DSP0134 says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "dev/smbios.h"
#include "vm/vm.h"

static u8 ram[0x100000], touched[0x100000];

int guest_write(struct vm *vm, gpa_t to, const void *from, size_t len)
{
	assert_in_range(to.v, 0xe8000, sizeof(ram) - len);
	memcpy(ram + to.v, from, len);
	memset(touched + to.v, 1, len);
	return 0;
}

static void install(const char *name)
{
	static struct boot_vm config;
	static struct vm vm;

	memset(ram, 0xee, sizeof(ram));
	memset(touched, 0, sizeof(touched));
	strncpy(config.name, name, sizeof(config.name) - 1);
	config.name[strlen(name)] = 0;
	vm.config = &config;
	assert_int_equal(smbios_install(&vm), 0);
}

static u32 get(u32 at, unsigned int bytes)
{
	u32 v = 0;

	memcpy(&v, ram + at, bytes);
	return v;
}

static u8 sum(u32 at, u32 bytes)
{
	u8 total = 0;

	for (u32 i = 0; i < bytes; i++)
		total += ram[at + i];
	return total;
}

/* String n of the structure at `at`. */
static const char *string(u32 at, u32 n)
{
	const char *s = (const char *)ram + at + ram[at + 1];

	for (; n > 1; n--)
		s += strlen(s) + 1;
	return s;
}

/* Walks all structures and checks the entry's numbers; returns where the one of this type is. */
static u32 find(u8 type)
{
	u32 at = get(0xf0018, 4), end = at + get(0xf0016, 2), found = 0, count = 0, longest = 0;

	while (at < end) {
		u32 next = at + ram[at + 1];

		assert_in_range(ram[at + 1], 4, 64);
		assert_int_equal(get(at + 2, 2), count);
		while (get(next, 2))
			next++;
		next += 2;
		if (ram[at] == type)
			found = at;
		longest = next - at > longest ? next - at : longest;
		count++;
		if (ram[at] == 127)
			assert_int_equal(next, end);
		at = next;
	}
	assert_int_equal(at, end);
	assert_int_equal(count, get(0xf001c, 2));
	assert_int_equal(longest, get(0xf0008, 2));
	for (u32 i = 0; i < sizeof(touched); i++)
		if (touched[i])
			assert_true((i >= 0xe8000 && i < end) || (i >= 0xf0000 && i < 0xf001f));
	assert_int_not_equal(found, 0);
	return found;
}

static void entry_point(void **state)
{
	install("linux");
	assert_memory_equal(ram + 0xf0000, "_SM_", 4);
	assert_int_equal(ram[0xf0005], 0x1f);
	assert_int_equal(sum(0xf0000, 0x1f), 0);
	assert_int_equal(get(0xf0006, 2), 0x0802);
	assert_memory_equal(ram + 0xf0010, "_DMI_", 5);
	assert_int_equal(sum(0xf0010, 0x0f), 0);
	assert_int_equal(ram[0xf001e], 0x28);
	find(127);
}

static void structures(void **state)
{
	u32 at;

	install("linux");
	at = find(0);
	assert_string_equal(string(at, ram[at + 4]), "Umbra");
	/* month/day/year: Linux reads the year from the last slash on. */
	assert_int_equal(strlen(string(at, ram[at + 8])), 10);
	assert_true(strcmp(strrchr(string(at, ram[at + 8]), '/'), "/2015") > 0);
	assert_int_equal(ram[at + 0x13] & 0x10, 0x10); /* a virtual machine */
	at = find(1);
	assert_string_equal(string(at, ram[at + 4]), "Umbra");
	assert_string_equal(string(at, ram[at + 5]), "Umbra virtual machine");
	assert_string_equal(string(at, ram[at + 7]), "linux");
	at = find(3);
	assert_string_equal(string(at, ram[at + 4]), "Umbra");
	find(32);
}

/* The longest name, and none: no string, not an empty one. */
static void names(void **state)
{
	u32 at;

	install("a-name-that-fills-all-31-bytes.");
	at = find(1);
	assert_string_equal(string(at, ram[at + 7]), "a-name-that-fills-all-31-bytes.");
	assert_in_range(get(0xf0016, 2), 0, SMBIOS_TABLE_MAX);
	install("");
	at = find(1);
	assert_int_equal(ram[at + 7], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(entry_point),
		cmocka_unit_test(structures),
		cmocka_unit_test(names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
