/*
 * Fuzz target: any bytes as a kernel, by every protocol. The RAM's callbacks abort on a byte
 * outside of it; ASan watches the image. A loaded kernel must lie in RAM with its entry point and
 * information; a refused one must say why.
 */
#include "../unit/load_target.h"

#define RAM_LOW	 (4 * MIB)
#define RAM_HIGH 0x10000u

static struct test_ram ram;

static void require(bool ok)
{
	if (!ok)
		abort();
}

/* Kernel, RAM disk and tables are in RAM and apart from each other. */
static void check_linux(const struct load_result *out)
{
	u32 initrd[2], params = (u32)out->rsi;

	require(params + PAGE_SIZE <= MIB && out->cr3 + PAGE_SIZE <= MIB);
	require(out->gdt_base + out->gdt_limit < MIB && out->stack <= MIB);
	require(out->kernel_base >= MIB && out->kernel_end <= RAM_LOW);
	memcpy(initrd, ram.low + params + 0x218, sizeof(initrd));
	require(!initrd[1] || (initrd[0] >= out->kernel_end && initrd[0] % PAGE_SIZE == 0 &&
			       (u64)initrd[0] + initrd[1] <= RAM_LOW));
}

static void check(const struct load_request *req, struct load_target *target)
{
	struct load_result out;
	int err = guest_load(req, target, &out);

	if (err) {
		require(err < 0 && out.reason[0]);
		require(memchr(out.reason, 0, sizeof(out.reason)) != NULL);
		return;
	}
	require(!out.reason[0]);
	require(out.entry >= out.kernel_base && out.entry < out.kernel_end);
	require(out.ebx < RAM_LOW && out.end <= RAM_LOW);
	require(out.long64 == (out.protocol == BOOT_PROTO_LINUX));
	if (out.protocol == BOOT_PROTO_LINUX)
		check_linux(&out);
	else
		require(out.protocol == BOOT_PROTO_MULTIBOOT || out.protocol == BOOT_PROTO_PVH);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct guest_image module = {.name = "m", .args = "a"};
	struct load_request req = {.modules = &module, .cmdline = "c"};
	struct load_target target;

	if (!ram.low) {
		ram = (struct test_ram){.low = malloc(RAM_LOW),
					.low_bytes = RAM_LOW,
					.high = malloc(RAM_HIGH),
					.high_bytes = RAM_HIGH};
		require(ram.low && ram.high);
	}
	if (!size)
		return 0;
	target = test_ram_target(&ram);
	req.protocol = data[0] % 5; /* 4 is none */
	req.module_count = data[0] >> 7;
	req.kernel = (struct guest_image){.data = data + 1, .bytes = size - 1, .name = "k"};
	module.data = data;
	module.bytes = size;
	check(&req, &target);
	return 0;
}
