/*
 * Any bytes typed at the monitor: no crash, nothing that the contracts of hv/vm/ forbid
 * (mon_fake.h), only text and what the line editor sends on the terminal, and an end.
 */
#include "mon_fake.h"

static void check_output(void)
{
	for (const char *s = fake_out; *s; s++) {
		if (*s == 0x1b) {
			FAKE_CHECK(s[1] == '[' && s[2] == 'K');
			continue;
		}
		FAKE_CHECK((*s >= ' ' && *s < 0x7f) || *s == '\r' || *s == '\n' || *s == '\b' ||
			   *s == '\a');
	}
	fake_out_len = 0;
	fake_out[0] = 0;
}

/* VMs come and go meanwhile, too. */
static void stir(u32 n)
{
	struct vm *vm = &fake_vm[n % 2];

	if (n % 16 == 15)
		vm->state = vm->state == VM_RUNNING ? VM_FREE : VM_RUNNING;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char stop[] = "\x03\x03\r";
	bool quiet;

	fake_start();
	fake.log_bytes = 5000;
	memcpy(fake_ram, data, MIN(size, (size_t)FAKE_RAM));
	if (size)
		memcpy(&fake_regs, data, MIN(size, sizeof(fake_regs)));
	fake_input = data;
	fake_input_left = size;
	for (u32 i = 0; i < 200; i++) {
		fake_poll(1);
		check_output();
		stir(i);
	}
	/* Whatever is at work: Ctrl-C ends it, and the next line is a line again. */
	fake_input = (const u8 *)stop;
	fake_input_left = 3;
	fake_poll(10);
	quiet = !fake_input_left;
	FAKE_CHECK(quiet);
	check_output();
	return 0;
}
