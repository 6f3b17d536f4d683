/* The monitor: its line editor, its commands, and that it never does much at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "mon_fake.h"
#include "pmem/backing.h"

static void put64(u64 at, u64 value)
{
	memcpy(fake_ram + at, &value, 8);
}

/* 4-level paging with a 4-KByte page at 0x5000 and a 2-MByte one at 0x200000. */
static void make_tables(void)
{
	memset(fake_ram, 0, sizeof(fake_ram));
	put64(0x1000, 0x3023);
	put64(0x3000, 0x4027);
	put64(0x4000, 0x6003);
	put64(0x4008, 0x2000e3);
	put64(0x6000 + 5 * 8, 0x8000000000007001);
	strcpy((char *)fake_ram + 0x7000, "text in memory\x01!");
	fake_regs = (struct vcpu_regs){
		.rip = 0xffffffff81000000,
		.rflags = 0x202,
		.gpr = {[RSP] = 0x1234, [R15] = 0xfedc},
		.walk = {.cr0 = CR0_PE | CR0_PG,
			 .cr3 = 0x1000,
			 .cr4 = CR4_PAE,
			 .efer = EFER_LMA | EFER_LME | EFER_NXE,
			 .phys_bits = 39,
			 .cpl = 3},
	};
}

static void type(const char *keys)
{
	fake_out_len = 0;
	fake_out[0] = 0;
	fake_input = (const u8 *)keys;
	fake_input_left = strlen(keys);
	for (int i = 0; i < 1000; i++)
		fake_poll(1);
	assert_int_equal(fake_input_left, 0);
}

/* The answer to a line, without its echo and the prompt after it; \n for \r\n. */
static const char *ask(const char *command)
{
	static char text[100000];
	char keys[200], *to = text, *prompt;
	const char *from;
	size_t column = 0;

	snprintf(keys, sizeof(keys), "%s\r", command);
	type(keys);
	from = strchr(fake_out, '\n');
	assert_non_null(from);
	for (from++; *from; from++) {
		if (*from != '\r' || from[1] != '\n')
			*to++ = *from;
		column = *from == '\n' ? 0 : column + 1;
		/* The prompt clears the line first. */
		assert_true(column <= 84);
	}
	*to = 0;
	prompt = strstr(text, "\r\x1b[Kumbra ");
	assert_non_null(prompt);
	*prompt = 0;
	return text;
}

#define assert_answer(command, part)                                               \
	do {                                                                       \
		const char *answer_ = ask(command);                                \
		if (!strstr(answer_, part))                                        \
			fail_msg("%s: no \"%s\" in:\n%s", command, part, answer_); \
	} while (0)

static int setup(void **state)
{
	fake_start();
	make_tables();
	type("\x03vm 1\r");
	return 0;
}

static void test_vms(void **state)
{
	fake_vm[1].state = VM_FREE;
	fake_vm[1].exit_status = 71;
	strcpy(fake_vm[1].reason, "some fault");
	fake_vm[1].restarts = 3;
	fake_vm[0].pause.on = 1;
	assert_string_equal(ask("vms"),
			    "  #  name                     state    vCPUs     memory restarts\n"
			    "* 1  alpha                    paused       2     64 MiB        0\n"
			    "  2  beta                     ended        1      4 MiB        3\n"
			    "     status 71: some fault\n"
			    "  3  alphabet                 waits        1      4 MiB        0\n");
	fake_vm[0].state = VM_ENDING;
	assert_answer("vms", "ends");
	fake_vm[0].restart = true;
	assert_answer("vms", "restarts  ");
}

static void test_which_vm(void **state)
{
	assert_answer("pause beta", "");
	assert_true(fake_vm[1].pause.on);
	assert_answer("pause 2", "beta is paused already");
	assert_answer("resume 2", "");
	assert_false(fake_vm[1].pause.on);
	assert_answer("resume beta", "beta is not paused");
	assert_answer("vm beta", "");
	assert_non_null(strstr(fake_out, "\r\x1b[Kumbra beta> "));
	assert_answer("pause", "");
	assert_true(fake_vm[1].pause.on && !fake_vm[0].pause.on);
	assert_answer("pause gamma", "there is no VM gamma");
	assert_answer("pause 0", "there is no VM 0");
	assert_answer("pause 4", "there is no VM 4");
	assert_answer("pause 3", "does not run");
	assert_answer("vm", "usage: vm VM");
	/* Names come before numbers. */
	strcpy(fake_config[1].name, "1");
	assert_answer("resume 1", "");
	assert_false(fake_vm[1].pause.on);
	strcpy(fake_config[1].name, "beta");
}

static void test_acts(void **state)
{
	assert_answer("kill", "usage: kill VM");
	assert_answer("kill alpha beta", "usage: kill VM");
	assert_int_equal(fake.ends, 0);
	assert_answer("kill alpha", "");
	assert_int_equal(fake.ends, 1);
	assert_int_equal(fake_vm[0].exit_status, 137);
	assert_answer("kill alpha", "does not run");
	assert_answer("regs", "does not run");
	assert_answer("stats", "does not run");
	assert_answer("mem 0", "does not run");
	assert_answer("ept 0", "does not run");
	assert_answer("restart", "usage: restart VM");
	assert_answer("restart beta", "");
	assert_int_equal(fake.restarts, 1);
	assert_answer("restart alpha", "cannot be started now");
	fake_vm[0].state = VM_FREE;
	assert_string_equal(ask("restart alpha"), "");
	assert_int_equal(fake.starts, 2);
	assert_answer("nmi beta 0", "");
	assert_answer("nmi beta 1", "vCPUs of beta are 0 to 0");
	assert_answer("nmi beta x", "usage: nmi");
	assert_int_equal(fake.nmis, 1);
	assert_string_equal(ask("power beta"), "");
	assert_int_equal(fake.powers, 1);
	ask("pause beta");
	assert_answer("power beta", "beta is paused: resume it first");
	assert_answer("outage beta", "usage: outage");
	assert_int_equal(fake.shut_downs, 0);
	ask("outage");
	assert_int_equal(fake.shut_downs, 1);
	ask("focus beta");
	assert_int_equal(fake.focus, BOOT_FOCUS_VM + 1);
	ask("focus all");
	assert_int_equal(fake.focus, BOOT_FOCUS_ALL);
	ask("quit");
	assert_int_equal(fake.focus, BOOT_FOCUS_VM + 1);
	fake.focus = BOOT_FOCUS_MONITOR;
	type("\x04");
	assert_int_equal(fake.focus, BOOT_FOCUS_VM + 1);
}

static void test_pmem(void **state)
{
	static u64 marks[3] = {0x11, 0};
	static struct vm_pmem pmem = {.count = 3};
	static struct backing backing = {.dirty = 3,
					 .budget = 64,
					 .most = 9,
					 .last_pages = 5,
					 .last_sectors = 50,
					 .outcome = SAVE_OLDER};

	assert_string_equal(ask("pmem"), "alpha has no persistent memory\n");
	assert_answer("pmem alpha mode trap", "alpha has no persistent memory");
	assert_answer("pmem alpha cut", "alpha has no persistent memory");
	pmem.region[0] = (struct pmem_region){.base = gpa(4 * GIB),
					      .mode = 2,
					      .writes = 12,
					      .hints = hpa(0x1000),
					      .medium = {.kind = MEDIUM_MODEL,
							 .bytes = 2 * MIB,
							 .controllers = 5,
							 .flushes = {1, 2, 3, 4, ~0ull},
							 .lines_flushed = 7,
							 .lines_lost = 8}};
	marks_init(&pmem.region[0].opened, marks, 64);
	pmem.region[1] = (struct pmem_region){.base = gpa(5 * GIB),
					      .medium = {.kind = MEDIUM_RAM, .bytes = 4 * MIB}};
	pmem.region[2] = (struct pmem_region){.base = gpa(6 * GIB),
					      .hints = hpa(0x1000),
					      .backing = &backing,
					      .medium = {.kind = MEDIUM_RAM, .bytes = GIB}};
	fake_vm[0].pmem = &pmem;
	assert_string_equal(
		ask("pmem alpha"),
		"0: 2 MiB at 0x100000000, modelled\n"
		"   stores to its hints 12, mode trap; flushes of 5 controllers:\n"
		"     1 2 3 4\n"
		"     18446744073709551615\n"
		"   pages written since the last flush: 2\n"
		"   lines flushed 7, drained 0, lost 8\n"
		"1: 4 MiB at 0x140000000, lent RAM, volatile\n"
		"2: 1024 MiB at 0x180000000, lent RAM that is saved\n"
		"   stores to its hints 0, mode none; flushes of 0 controllers:\n"
		"   dirty pages 3 of 64, most 9\n"
		"   last save: 5 pages, 50 sectors; the last was damaged, the one before good\n");
	assert_string_equal(ask("pmem alpha mode none"), "");
	assert_int_equal(pmem.region[0].mode, 0);
	assert_string_equal(ask("pmem 1 mode trap 1"), "");
	assert_int_equal(pmem.region[1].mode, 2);
	assert_answer("pmem alpha mode direct", "does not allow");
	assert_answer("pmem alpha mode trap 3", "there is no region 3");
	assert_answer("pmem alpha mode fast", "usage: pmem");
	assert_answer("pmem alpha mode", "usage: pmem");
	assert_answer("pmem alpha mode trap 0 0", "usage: pmem");
	assert_string_equal(ask("pmem alpha cut"), "");
	assert_int_equal(pmem.cuts, 1);
	assert_string_equal(ask("pmem alpha cut 1000 5"), "");
	assert_int_equal(pmem.cut_at, 1000);
	assert_int_equal(pmem.random, 5);
	assert_answer("pmem alpha cut 1000001", "modelled NVDIMMs only");
	assert_answer("pmem alpha cut 0", "usage: pmem");
	assert_answer("pmem alpha", "power has failed 1 times");
	assert_answer("pmem alphabet", "does not run");
	fake_vm[0].pmem = NULL;
}

static void test_regs(void **state)
{
	const char *answer = ask("regs");

	assert_non_null(strstr(answer, "RIP ffffffff81000000  RFLAGS 00000202  CPL 3\n"));
	assert_non_null(strstr(answer, "RSP 0000000000001234"));
	assert_non_null(strstr(answer, "R15 000000000000fedc\n"));
	assert_non_null(strstr(answer, "CR3 0000000000001000"));
	assert_non_null(strstr(answer, "\nTR   0000"));
	assert_int_equal(fake.looks, 1);
	assert_answer("regs alpha 1", "RIP");
	assert_answer("regs alpha 2", "vCPUs of alpha are 0 to 1");
	assert_answer("regs alpha -1", "usage: regs");
	/* The VM ends while its registers are awaited. */
	fake_input = (const u8 *)"regs\r";
	fake_input_left = 5;
	fake_poll(1);
	fake_vm[0].state = VM_ENDING;
	fake_poll(10);
	assert_non_null(strstr(fake_out, "the VM does not run"));
	/* A CPU that does not answer. */
	fake_vm[0].state = VM_RUNNING;
	tsc_hz = 1;
	assert_answer("regs", "does not answer");
	tsc_hz = 1000000000;
}

static void test_mem(void **state)
{
	assert_string_equal(
		ask("mem 7000 17"),
		"000000007000  74 65 78 74 20 69 6e 20  6d 65 6d 6f 72 79 01 21  text in memory.!\n"
		"000000007010  00                                                .\n");
	assert_answer("mem 0xfff0 64", "\n000000010000  nothing there\n");
	assert_answer("mem fee00000", "0000fee00000  a device\n");
	assert_answer("mem ffffffffffffffff 100", "nothing there\n");
	assert_string_equal(ask("mem 0 0"), "");
	assert_answer("mem", "usage: mem GPA [BYTES]");
	assert_answer("mem 1g", "usage: mem");
	assert_answer("mem 10000000000000000", "usage: mem");
	assert_answer("mem 1 1 1", "usage: mem");
	/* A long answer waits for the line. */
	fake_out_len = 0;
	fake_input = (const u8 *)"mem 0 10000\r";
	fake_input_left = 12;
	fake_unsent = 0;
	for (int i = 0; i < 100; i++)
		monitor_poll();
	assert_in_range(fake_unsent, 2048, 3500);
	type("\x03");
	assert_string_equal(fake_out, "^C\r\n\r\x1b[Kumbra alpha> ");
}

static void test_walk(void **state)
{
	assert_string_equal(ask("walk 5123"), "CR3   0000000000001000\n"
					      "PML4E 0000000000003023 at 000000001000: P W A\n"
					      "PDPTE 0000000000004027 at 000000003000: P W U A\n"
					      "PDE   0000000000006003 at 000000004000: P W\n"
					      "PTE   8000000000007001 at 000000006028: P NX\n"
					      "GPA   0000000000007123, in a page of 4 KiB\n");
	assert_answer("walk 0x212345", "GPA   0000000000212345, in a page of 2 MiB\n");
	assert_answer("walk 6000", "PTE   0000000000000000 at 000000006030:\n"
				   "not present: error code 0\n");
	put64(0x6000 + 6 * 8, 1ull << 50 | 1);
	assert_answer("walk 6000", "a reserved bit is set: error code 9\n");
	fake_regs.walk.cr0 = CR0_PE;
	assert_answer("walk 6000", "no paging: 6000 is guest-physical\n");
	fake_regs.walk.cr0 |= CR0_PG;
	fake_regs.walk.cr4 = CR4_PAE | CR4_LA57;
	assert_answer("walk 6000", "a kind of paging that guests do not have\n");
	fake_regs.walk.cr4 = CR4_PAE;
	fake_regs.walk.efer = 0;
	fake_regs.walk.pdpte[0] = 0x4001;
	assert_answer("walk 212345", "CR3   0000000000001000\n"
				     "PDPTE 0000000000004001 in the processor: P\n"
				     "PDE   00000000002000e3 at 000000004008: P W A D PS\n"
				     "GPA   0000000000212345, in a page of 2 MiB\n");
	fake_regs.walk.cr4 = CR4_PSE;
	put64(0x1000, 0x4000e3);
	assert_answer("walk 12345", "PDE   00000000004000e3 at 000000001000: P W A D PS\n"
				    "GPA   0000000000412345, in a page of 4 MiB\n");
	assert_answer("walk", "usage: walk GVA [VCPU]");
}

static void test_ept(void **state)
{
	assert_string_equal(
		ask("ept 2008"),
		"000000002008  RAM from 0 to ffff, allowed: r--\n"
		"default view: r--, page of 4 KiB, WB, dirty, at host address 5002008\n");
	assert_answer("ept 3000", "default view: rwx, page of 2 MiB, WB");
	assert_answer("ept fee00000",
		      "a device from fee00000 to fee00fff\ndefault view: not mapped");
	assert_answer("ept 10000", "nothing there\ndefault view: not mapped");
	assert_answer("ept 1000000000000", "addresses end at ffffffffffff");
}

static void test_stats_and_trace(void **state)
{
	const char *answer = ask("stats beta");

	assert_non_null(strstr(answer, "beta: 100 exits\n            60  60%  VMCALL\n"
				       "            30  30%  HLT\n            10  10%  CPUID\n"
				       "7 injections"));
	assert_answer("vcpus", "vCPU  CPU  state");
	assert_non_null(strstr(ask("vcpus"), "   1    0  runs                   5            100"));
	assert_answer("trace", "1000 recorded, newest last; `trace on` records");
	answer = ask("trace alpha 2");
	assert_non_null(strstr(answer, "alpha vCPU 1: 1000"));
	assert_non_null(strstr(answer, "      999000 0000000000001001    1234  leaf 40000000     "
				       " CPUID\n     1000000 0000000000001000"));
	ask("trace beta on");
	assert_true(fake.trace_on);
	ask("trace off");
	assert_false(fake.trace_on);
	assert_answer("trace 2 3 4", "usage: trace");
	assert_answer("trace beta x", "usage: trace");
	assert_answer("trace x", "there is no VM x");
	assert_answer("trace on on", "there is no VM on");
}

static void test_remote(void **state)
{
	const char *answer = ask("remote beta");

	assert_non_null(strstr(answer,
			       "2048: 500 in 512 frames, 1000 on 2 nodes (1 up), copies: 2, "
			       "sealed\n"));
	assert_non_null(strstr(answer, "answers: has 990 pages, room for 3000\n"));
	assert_non_null(strstr(answer, "does not answer: has 10 pages, room for 0\n"));
	assert_non_null(strstr(answer, "50 pages: 60% touched"));
	assert_non_null(strstr(answer, "150 us on average\n"));
	assert_non_null(strstr(answer, "<      128 us       64 ################################\n"
				       "  <      512 us       16 ########\n"));
	assert_answer("remote alpha", "all its memory is here");
	assert_answer("remote x", "there is no VM x");
	assert_answer("remote beta beta", "usage: remote");
}

static void test_network(void **state)
{
	const char *answer;

	fake.network = false;
	assert_answer("network", "there is no network");
	fake.network = true;
	fake.network_busy = 2;
	answer = ask("network");
	assert_non_null(strstr(answer, "82574L at 00:02.0, 02:00:00:00:00:07, up\n"
				       "address     10.77.0.1\n"));
	assert_non_null(strstr(answer, "10 frames, 1000 bytes; 1 bad, 2 found no buffer\n"));
	assert_non_null(strstr(answer,
			       "node        10.77.0.2:7471 up; 2 connections, 1 failures\n"
			       "            slice 1 of 64 MiB, round trip 150 us\n"
			       "node        10.77.0.3:7000 waits; 0 connections, 0 failures, "
			       "refused (28)\n"));
	assert_answer("network x", "usage: network");
}

static void test_log(void **state)
{
	const char *answer;

	fake.log_bytes = 32 * 100;
	assert_int_equal(strlen(ask("log 3")), 3 * 32);
	assert_int_equal(strlen(ask("log")), 20 * 32);
	assert_int_equal(strlen(ask("log 1000")), 100 * 32);
	assert_int_equal(strlen(ask("log 0")), 0);
	/* A long line is wrapped. */
	fake.log_line = 200;
	fake.log_bytes = 400;
	answer = ask("log 1");
	assert_int_equal(strlen(answer), 199 + 2 * 4 + 3);
	assert_int_equal(strcspn(answer, "\n"), 79);
	assert_int_equal(strcspn(answer + 80, "\n"), 79);
	assert_int_equal(strspn(answer + 80, " "), 4);
	fake.log_line = 32;
	/* The oldest line is shown whole or not at all. */
	fake.log_bytes = 32 * 1000;
	assert_int_equal(strlen(ask("log 1000")) % 32, 0);
	assert_answer("log x", "usage: log [LINES]");
}

static void test_help(void **state)
{
	const char *answer = ask("help");

	assert_non_null(strstr(answer, "\nmem     GPA [BYTES]          guest-physical memory\n"));
	assert_non_null(strstr(answer, "\nquit "));
	assert_answer("nonsense", "unknown command nonsense; try help");
	assert_answer("helpx", "unknown command helpx");
	assert_answer("hel", "unknown command hel");
	assert_answer("1 2 3 4 5 6 7", "too many words");
	assert_string_equal(ask("   "), "");
	assert_string_equal(ask("  pause   beta  "), "");
	assert_true(fake_vm[1].pause.on);
}

static void test_editing(void **state)
{
	type("vmx\x7fs");
	assert_string_equal(fake_out, "vmx\b \bs");
	type("\x15");
	assert_string_equal(fake_out, "\b \b\b \b\b \b");
	type("\x7f\b");
	assert_string_equal(fake_out, "");
	type("a bc \x17");
	assert_string_equal(fake_out, "a bc \b \b\b \b\b \b");
	type("\x0c");
	assert_string_equal(fake_out, "\r\x1b[Kumbra alpha> a ");
	type("\x03");
	assert_string_equal(fake_out, "^C\r\n\r\x1b[Kumbra alpha> ");
	/* A carriage return with its newline is one end of line; bytes that are no text are none.
	 */
	type("\r\n");
	assert_string_equal(fake_out, "\r\n\r\x1b[Kumbra alpha> ");
	type("\x80\xff\x01\x1b[5~\x1b[1;5C\x1bxv");
	assert_string_equal(fake_out, "v");
	type("\x15\x80");
	/* A line that is too long is cut, with a bell. */
	for (int i = 0; i < 200; i++)
		type("y");
	assert_string_equal(fake_out, "\a");
	type("\r");
	assert_non_null(strstr(fake_out, "unknown command yyy"));
}

static void test_history(void **state)
{
	ask("pause 1");
	ask("pause 2");
	ask("pause 2"); /* not twice */
	type("\x1b[A");
	assert_string_equal(fake_out, "pause 2");
	type("\x1bOA");
	assert_non_null(strstr(fake_out, "pause 1"));
	type("\x1b[B");
	assert_non_null(strstr(fake_out, "pause 2"));
	type("\x0e");
	assert_string_equal(fake_out, "\b \b\b \b\b \b\b \b\b \b\b \b\b \b");
	type("\x0e");
	assert_string_equal(fake_out, "\a");
	for (int i = 0; i < 40; i++) {
		char line[16];

		snprintf(line, sizeof(line), "x%d", i);
		ask(line);
	}
	for (int i = 0; i < 16; i++)
		type("\x10");
	assert_non_null(strstr(fake_out, "x24"));
	type("\x10");
	assert_string_equal(fake_out, "\a");
	type("\x03");
}

static void test_completion(void **state)
{
	type("st\t");
	assert_string_equal(fake_out, "stats ");
	type("b\t");
	assert_string_equal(fake_out, "beta ");
	type("\t");
	assert_string_equal(fake_out, "\a");
	type("\x15vc\tal\t");
	assert_non_null(strstr(fake_out, "vcpus alpha"));
	type("\t");
	assert_string_equal(fake_out, "\r\nalpha alphabet\r\n\r\x1b[Kumbra alpha> vcpus alpha");
	type("b\t");
	assert_string_equal(fake_out, "bet ");
	type("\x15q\t");
	assert_non_null(strstr(fake_out, "quit "));
	type("\x15zzz\t");
	assert_string_equal(fake_out + strlen(fake_out) - 1, "\a");
	type("\x15mem \t");
	assert_string_equal(fake_out + strlen(fake_out) - 1, "\a");
	type("\x15\t");
	assert_non_null(strstr(fake_out, "\r\nhelp vms vm vcpus"));
	type("\x03");
}

/* The VM of the prompt is shown, and the line so far, when the terminal comes back. */
static void test_comes_back(void **state)
{
	static const u8 zero[1];

	type("half");
	fake_out_len = 0;
	fake_input = zero;
	fake_input_left = 1;
	fake_poll(1);
	assert_string_equal(fake_out, "\r\x1b[Kumbra alpha> half");
	type("\x03");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_vms, setup),
		cmocka_unit_test_setup(test_which_vm, setup),
		cmocka_unit_test_setup(test_acts, setup),
		cmocka_unit_test_setup(test_pmem, setup),
		cmocka_unit_test_setup(test_regs, setup),
		cmocka_unit_test_setup(test_mem, setup),
		cmocka_unit_test_setup(test_walk, setup),
		cmocka_unit_test_setup(test_ept, setup),
		cmocka_unit_test_setup(test_stats_and_trace, setup),
		cmocka_unit_test_setup(test_remote, setup),
		cmocka_unit_test_setup(test_network, setup),
		cmocka_unit_test_setup(test_log, setup),
		cmocka_unit_test_setup(test_help, setup),
		cmocka_unit_test_setup(test_editing, setup),
		cmocka_unit_test_setup(test_history, setup),
		cmocka_unit_test_setup(test_completion, setup),
		cmocka_unit_test_setup(test_comes_back, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
