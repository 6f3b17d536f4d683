/*
 * Any bytes as umbra.conf: no crash, and what is accepted keeps every promise that the hypervisor
 * relies on.
 */
#include <stdlib.h>
#include <string.h>

#include <umbra/features.h>

#include "config.h"

#define CHECK(cond)              \
	do {                     \
		if (!(cond))     \
			abort(); \
	} while (0)

static struct boot_options options;
static struct boot_vm vms[BOOT_MAX_VMS];
static unsigned int reported;

static void report(void *ctx, unsigned int line, const char *text)
{
	CHECK(strlen(text) > 10 && strlen(text) < 400);
	CHECK(strstr(text, "expected") != NULL);
	reported++;
}

static bool is_string(const char *s, size_t room)
{
	return memchr(s, 0, room) != NULL;
}

static void check_vm(const struct boot_vm *vm)
{
	u32 i;

	CHECK(is_string(vm->name, sizeof(vm->name)) && vm->name[0]);
	CHECK(is_string(vm->kernel.path, sizeof(vm->kernel.path)) && vm->kernel.path[0]);
	CHECK(is_string(vm->cmdline, sizeof(vm->cmdline)));
	CHECK(IS_ALIGNED(vm->memory, SIZE_2M) && vm->memory >= 4 * MIB && vm->memory <= 512 * GIB);
	CHECK(vm->vcpus >= 1 && vm->vcpus <= BOOT_MAX_VCPUS);
	CHECK(vm->protocol <= BOOT_PROTO_LINUX && vm->x2apic <= 1);
	CHECK(vm->pin_count <= BOOT_MAX_VCPUS);
	for (i = 0; i < vm->pin_count; i++)
		CHECK(vm->pin[i] < BOOT_MAX_CPUS);
	CHECK(vm->module_count <= BOOT_MAX_MODULES);
	for (i = 0; i < vm->module_count; i++) {
		CHECK(is_string(vm->module[i].path, BOOT_PATH_LEN) && vm->module[i].path[0]);
		CHECK(is_string(vm->module_args[i], BOOT_CMDLINE_LEN));
	}
}

static void check_disks(const struct boot_vm *vm)
{
	CHECK(vm->disk_count <= BOOT_MAX_DISKS && vm->virtio_console <= 1);
	for (u32 i = 0; i < vm->disk_count; i++)
		CHECK(is_string(vm->disk[i].path, BOOT_PATH_LEN) && vm->disk[i].path[0] &&
		      vm->disk_mode[i] <= BOOT_DISK_RO);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned int errors;
	u32 count, i, j;

	if (size > CONFIG_MAX_BYTES)
		return 0;
	reported = 0;
	errors = config_parse((const char *)data, size, &options, vms, &count, report, NULL);
	CHECK(reported == MIN(errors, (unsigned int)CONFIG_MAX_ERRORS));
	if (errors)
		return 0;
	CHECK(count >= 1 && count <= BOOT_MAX_VMS);
	CHECK(options.log_level <= BOOT_LOG_DEBUG && options.poweroff <= BOOT_POWEROFF_RESET);
	CHECK(options.order <= BOOT_ORDER_SEQUENCE && options.cpus <= BOOT_MAX_CPUS);
	CHECK(options.tick_us >= 100 && options.tick_us <= 100000);
	CHECK(options.quantum_us >= 100 && options.quantum_us <= 100000);
	CHECK(options.screen <= 1 && options.trace <= 1 && options.hide >> FEAT_COUNT == 0);
	for (i = 0; i < count; i++) {
		check_vm(&vms[i]);
		check_disks(&vms[i]);
		for (j = 0; j < i; j++)
			CHECK(strcmp(vms[i].name, vms[j].name));
	}
	return 0;
}
