/* The binding of the emulator to a vCPU, with a scripted emulator in place of the real one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fake_vcpu.h"
/* With the fake VMCS in place of the real one. */
#include "vm/linear.c"
#include "emu/mmio.c"

static u8 vector_register[16][32];
static unsigned int vector_moves;

void vector_store16(unsigned int reg, void *to)
{
	vector_moves++;
	memcpy(to, vector_register[reg], 16);
}

void vector_store32(unsigned int reg, void *to)
{
	vector_moves++;
	memcpy(to, vector_register[reg], 32);
}

void vector_load16(unsigned int reg, const void *from)
{
	vector_moves++;
	memcpy(vector_register[reg], from, 16);
}

void vector_load_vex16(unsigned int reg, const void *from)
{
	vector_moves++;
	memcpy(vector_register[reg], from, 16);
	memset(vector_register[reg] + 16, 0, 16);
}

void vector_load32(unsigned int reg, const void *from)
{
	vector_moves++;
	memcpy(vector_register[reg], from, 32);
}

void *heap_alloc(u64 bytes)
{
	return calloc(1, bytes);
}

void heap_free(void *p, u64 bytes)
{
	free(p);
}

/* What the emulator does in a test. */
static enum emu_status (*script)(const struct emu_ops *o, void *ctx, struct emu_cpu *cpu,
				 struct emu_report *report);

enum emu_status emu_step(const struct emu_ops *o, void *ctx, struct emu_cpu *cpu,
			 struct emu_cache *cache, struct emu_report *report)
{
	assert_non_null(cache);
	report->length = 0;
	report->reason = NULL;
	return script(o, ctx, cpu, report);
}

static struct emu_cache the_cache;
static struct ept_fault the_fault;

/* 64-bit mode at CPL 0; page 5 of RAM is page 0x5000, linear 0x7000 is the device. */
static int reset(void **state)
{
	fake_reset();
	vector_moves = 0;
	memset(vector_register, 0x5a, sizeof(vector_register));
	fake.emu_cache = &the_cache;
	the_fault = (struct ept_fault){.addr = {FAKE_MMIO + 0x10},
				       .linear = {0x7010},
				       .access = EPT_R,
				       .linear_valid = true};
	vmcs_field[VMCS_GUEST_CR0] = CR0_PE | CR0_PG | CR0_WP;
	vmcs_field[VMCS_GUEST_CR3] = 0x10000;
	vmcs_field[VMCS_GUEST_CR4] = CR4_PAE;
	vmcs_field[VMCS_GUEST_EFER] = EFER_LME | EFER_LMA;
	vmcs_field[VMCS_GUEST_CS_AR] = 0xa09b;
	vmcs_field[VMCS_GUEST_SS_AR] = 0xc093;
	vmcs_field[VMCS_GUEST_RIP] = 0x1000;
	vmcs_field[VMCS_GUEST_RSP] = 0x9ff0;
	vmcs_field[VMCS_GUEST_RFLAGS] = RFLAGS_FIXED;
	put_ram(0x10000, 0x11007, 8);
	put_ram(0x11000, 0x12007, 8);
	put_ram(0x12000, 0x13007, 8);
	for (unsigned int i = 0; i < 7; i++)
		put_ram(0x13000 + 8 * i, i << 12 | 7, 8);
	put_ram(0x13038, FAKE_MMIO | 7, 8);
	return 0;
}

static enum emulate_result run(enum emu_status (*what)(const struct emu_ops *, void *,
						       struct emu_cpu *, struct emu_report *))
{
	script = what;
	return mmio_emulate(&fake, &the_fault);
}

static void expect_still(void)
{
	assert_int_equal(vmcs_field[VMCS_GUEST_RIP], 0x1000);
	assert_int_equal(seen.vector, -1);
	assert_int_equal(seen.fatal, 0);
}

/* --- state in and out ----------------------------------------------------------------------------
 */

static enum emu_status do_state(const struct emu_ops *o, void *ctx, struct emu_cpu *cpu,
				struct emu_report *report)
{
	assert_int_equal(cpu->mode, EMU_MODE_64);
	assert_int_equal(cpu->cpl, 0);
	assert_false(cpu->real);
	assert_int_equal(cpu->gpr[EMU_RSP], 0x9ff0);
	assert_int_equal(cpu->gpr[EMU_R9], 0x99);
	cpu->gpr[EMU_RSP] -= 8;
	cpu->gpr[EMU_R9] = 0x77;
	cpu->rip += 4;
	cpu->rflags |= RFLAGS_CF;
	return EMU_DONE;
}

static void state_in_and_out(void **state)
{
	fake.gpr[R9] = 0x99;
	assert_int_equal(run(do_state), EMULATE_DONE);
	assert_int_equal(vmcs_field[VMCS_GUEST_RIP], 0x1004);
	assert_int_equal(vmcs_field[VMCS_GUEST_RSP], 0x9fe8);
	assert_int_equal(vmcs_field[VMCS_GUEST_RFLAGS], RFLAGS_FIXED | RFLAGS_CF);
	assert_int_equal(fake.gpr[R9], 0x77);
	assert_int_equal(seen.skipped_none, 0);
}

static u8 mode_seen, cpl_seen;
static bool real_seen;

static enum emu_status do_note_mode(const struct emu_ops *o, void *ctx, struct emu_cpu *cpu,
				    struct emu_report *report)
{
	mode_seen = cpu->mode;
	cpl_seen = cpu->cpl;
	real_seen = cpu->real;
	return EMU_RETRY;
}

static void modes(void **state)
{
	vmcs_field[VMCS_GUEST_CS_AR] = 0xc09b; /* compatibility mode */
	vmcs_field[VMCS_GUEST_SS_AR] = 0xc0f3;
	run(do_note_mode);
	assert_int_equal(mode_seen, EMU_MODE_32);
	assert_int_equal(cpl_seen, 3);
	vmcs_field[VMCS_GUEST_EFER] = 0;
	vmcs_field[VMCS_GUEST_CS_AR] = 0xa09b; /* L means nothing outside IA-32e mode */
	run(do_note_mode);
	assert_int_equal(mode_seen, EMU_MODE_16);
	assert_false(real_seen);
	vmcs_field[VMCS_GUEST_CR0] = 0;
	vmcs_field[VMCS_GUEST_CS_AR] = 0x9b;
	run(do_note_mode);
	assert_int_equal(mode_seen, EMU_MODE_16);
	assert_true(real_seen);
	expect_still();
}

static enum emu_status do_segments(const struct emu_ops *o, void *ctx, struct emu_cpu *cpu,
				   struct emu_report *report)
{
	for (unsigned int i = 0; i < EMU_SEG_COUNT; i++) {
		struct emu_segment s;

		assert_int_equal(o->segment(ctx, i, &s), 0);
		assert_int_equal(s.base, 0x1000 + i);
		assert_int_equal(s.limit, 0x2000 + i);
		assert_int_equal(s.ar, 0x3000 + i);
	}
	return EMU_RETRY;
}

static void segments(void **state)
{
	static const u32 base[] = {VMCS_GUEST_ES_BASE, VMCS_GUEST_CS_BASE, VMCS_GUEST_SS_BASE,
				   VMCS_GUEST_DS_BASE, VMCS_GUEST_FS_BASE, VMCS_GUEST_GS_BASE};
	static const u32 limit[] = {VMCS_GUEST_ES_LIMIT, VMCS_GUEST_CS_LIMIT, VMCS_GUEST_SS_LIMIT,
				    VMCS_GUEST_DS_LIMIT, VMCS_GUEST_FS_LIMIT, VMCS_GUEST_GS_LIMIT};
	static const u32 ar[] = {VMCS_GUEST_ES_AR, VMCS_GUEST_CS_AR, VMCS_GUEST_SS_AR,
				 VMCS_GUEST_DS_AR, VMCS_GUEST_FS_AR, VMCS_GUEST_GS_AR};

	for (unsigned int i = 0; i < EMU_SEG_COUNT; i++) {
		vmcs_field[base[i]] = 0x1000 + i;
		vmcs_field[limit[i]] = 0x2000 + i;
		vmcs_field[ar[i]] = 0x3000 + i;
	}
	run(do_segments);
}

/* --- memory
 * ---------------------------------------------------------------------------------------- */

static enum emu_status do_translate(const struct emu_ops *o, void *ctx, struct emu_cpu *cpu,
				    struct emu_report *report)
{
	struct emu_exception e;
	gpa_t at;

	/* The page that the CPU has translated is not walked again: its entry is gone by now. */
	put_ram(0x13038, 0, 8);
	assert_int_equal(o->translate(ctx, 0x7ff8, EMU_READ, &at, &e), EMU_TRANSLATE_OK);
	assert_int_equal(at.v, FAKE_MMIO + 0xff8);
	/* But for another kind of access it is. */
	assert_int_equal(o->translate(ctx, 0x7010, EMU_READ | EMU_WRITE, &at, &e),
			 EMU_TRANSLATE_FAULT);
	assert_int_equal(e.vector, VEC_PF);
	assert_true(e.has_error);
	assert_int_equal(e.error, PF_W);
	assert_int_equal(e.cr2, 0x7010);
	assert_int_equal(o->translate(ctx, 0x5123, EMU_WRITE, &at, &e), EMU_TRANSLATE_OK);
	assert_int_equal(at.v, 0x5123);
	assert_int_equal(get_ram(0x13028, 8), 0x5067);
	report->exception = e;
	return EMU_EXCEPTION;
}

static void translation(void **state)
{
	assert_int_equal(run(do_translate), EMULATE_DONE);
	assert_int_equal(seen.vector, VEC_PF);
	assert_int_equal(seen.error_code, PF_W);
	assert_int_equal(seen.addr, 0x7010);
	assert_int_equal(vmcs_field[VMCS_GUEST_RIP], 0x1000);
}

static enum emu_status do_translate_table(const struct emu_ops *o, void *ctx, struct emu_cpu *cpu,
					  struct emu_report *report)
{
	struct emu_exception e;
	gpa_t at;

	assert_int_equal(o->translate(ctx, 0x7010, EMU_READ, &at, &e), EMU_TRANSLATE_OK);
	assert_int_equal(at.v, FAKE_MMIO | 0x10);
	return EMU_RETRY;
}

static enum emu_status do_protected(const struct emu_ops *o, void *ctx, struct emu_cpu *cpu,
				    struct emu_report *report)
{
	gpa_t at;

	assert_int_equal(o->translate(ctx, 0x5008, EMU_READ, &at, &report->exception),
			 EMU_TRANSLATE_OK);
	assert_int_equal(o->translate(ctx, 0x5008, EMU_WRITE, &at, &report->exception),
			 EMU_TRANSLATE_FAULT);
	return EMU_EXCEPTION;
}

static void protection(void **state)
{
	fake_protect(0x5000, EPT_R);
	run(do_protected);
	assert_int_equal(seen.vector, VEC_PF);
	assert_int_equal(seen.error_code, HC_PF_EPT | PF_P | PF_W);
	assert_int_equal(seen.addr, 0x5008);
}

/* A fault on a paging structure says nothing about where the linear address leads. */
static void fault_in_walk(void **state)
{
	the_fault.walk = true;
	the_fault.addr = gpa(0x99990000);
	run(do_translate_table);
	the_fault.walk = false;
	the_fault.linear_valid = false;
	run(do_translate_table);
}

static enum emu_status do_access(const struct emu_ops *o, void *ctx, struct emu_cpu *cpu,
				 struct emu_report *report)
{
	u8 code[4];
	u64 value = 0;

	seen.mmio_value = 0x1122334455667788;
	assert_int_equal(o->read(ctx, gpa(FAKE_MMIO + 8), &value, 8), 0);
	assert_int_equal(value, 0x1122334455667788);
	assert_int_equal(seen.mmio_reads, 1);
	assert_int_equal(seen.mmio_size, 8);
	/* Unaligned: in pieces that are aligned. */
	value = 0x4444333322221111;
	assert_int_equal(o->write(ctx, gpa(FAKE_MMIO + 6), &value, 4), 0);
	assert_int_equal(seen.mmio_writes, 2);
	assert_int_equal(seen.mmio_offset, 8);
	assert_int_equal(seen.mmio_size, 2);
	assert_int_equal(seen.mmio_value, 0x2222);
	assert_int_equal(o->write(ctx, gpa(0x5000), &value, 8), 0);
	assert_int_equal(get_ram(0x5000, 8), 0x4444333322221111);
	value = 0;
	assert_int_equal(o->read(ctx, gpa(0x99990000), &value, 4), 0);
	assert_int_equal(value, 0xffffffff);
	assert_int_equal(o->write(ctx, gpa(0x99990000), &value, 4), 0);
	assert_true(o->inert(ctx, gpa(0x99990000), EMU_WRITE));
	assert_true(o->inert(ctx, gpa(0x99990000), EMU_READ));
	assert_true(o->inert(ctx, gpa(0x5000), EMU_READ));
	assert_false(o->inert(ctx, gpa(0x5000), EMU_WRITE));
	assert_false(o->inert(ctx, gpa(FAKE_MMIO + 8), EMU_READ));
	assert_false(o->inert(ctx, gpa(FAKE_MMIO + 8), EMU_WRITE));
	put_ram(0x1000, 0xdeadbeef, 4);
	assert_int_equal(o->fetch(ctx, gpa(0x1000), code, 4), 0);
	assert_memory_equal(code, "\xef\xbe\xad\xde", 4);
	assert_int_equal(o->fetch(ctx, gpa(0x99990000), code, 4), 0);
	assert_memory_equal(code, "\xff\xff\xff\xff", 4);
	return EMU_UNDECODABLE;
}

static void accesses(void **state)
{
	assert_int_equal(run(do_access), EMULATE_DONE);
	assert_int_equal(seen.vector, VEC_UD);
	assert_false(seen.has_error);
}

static enum emu_status do_cmpxchg(const struct emu_ops *o, void *ctx, struct emu_cpu *cpu,
				  struct emu_report *report)
{
	u64 old[2] = {0x1111, 0}, new[2] = {0x2222, 0};

	put_ram(0x5000, 0xaaaa1111bbbb, 8);
	assert_int_equal(o->cmpxchg(ctx, gpa(0x5002), old, new, 2), 0);
	assert_int_equal(get_ram(0x5000, 8), 0xaaaa2222bbbb);
	assert_true(o->cmpxchg(ctx, gpa(0x5002), old, new, 2) > 0);
	assert_int_equal(get_ram(0x5000, 8), 0xaaaa2222bbbb);
	/* What cannot be done atomically is left to the guest. */
	assert_true(o->cmpxchg(ctx, gpa(0x5007), old, new, 2) > 0);
	assert_true(o->cmpxchg(ctx, gpa(0x5010), old, new, 16) > 0);
	assert_int_equal(o->cmpxchg(ctx, gpa(FAKE_MMIO + 4), old, new, 4), 0);
	assert_int_equal(seen.mmio_writes, 1);
	assert_int_equal(seen.mmio_value, 0x2222);
	return EMU_RETRY;
}

static void locked(void **state)
{
	run(do_cmpxchg);
	expect_still();
}

/* --- vector registers ----------------------------------------------------------------------------
 */

static int vector_result;
static bool vector_vex;
static unsigned int vector_len;

static enum emu_status do_vector_write(const struct emu_ops *o, void *ctx, struct emu_cpu *cpu,
				       struct emu_report *report)
{
	static const u8 value[32] = {1, 2, 3};

	vector_result = o->vector_write(ctx, 3, value, vector_len, vector_vex);
	return vector_result ? EMU_FAILED : EMU_DONE;
}

static void vectors(void **state)
{
	static const struct {
		unsigned int len;
		bool vex;
		u64 xcr0, cr0;
		bool ok;
		u8 above; /* what bits 255:128 have to be */
	} tries[] = {
		{16, false, 1, 0, true, 0x5a},	     {16, false, 7, 0, true, 0x5a},
		{16, true, 7, 0, true, 0},	     {32, true, 7, 0, true, 0},
		{16, true, 3, 0, false, 0x5a},	     {32, true, 1, 0, false, 0x5a},
		{16, false, 7, CR0_TS, false, 0x5a}, {32, true, 7, CR0_TS, false, 0x5a},
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(tries); i++) {
		reset(NULL);
		vector_len = tries[i].len;
		vector_vex = tries[i].vex;
		fake.xcr0 = tries[i].xcr0;
		vmcs_field[VMCS_GUEST_CR0] |= tries[i].cr0;
		/* Refused means: the guest executes it itself and gets what is due. */
		assert_int_equal(run(do_vector_write), EMULATE_DONE);
		assert_int_equal(seen.fatal, 0);
		assert_int_equal(vector_result == 0, tries[i].ok);
		assert_int_equal(vector_moves, tries[i].ok ? 1 : 0);
		assert_int_equal(vector_register[3][0], tries[i].ok ? 1 : 0x5a);
		assert_int_equal(vector_register[3][20], tries[i].above);
	}
}

/* --- other ends
 * ------------------------------------------------------------------------------------ */

static enum emu_status do_partial(const struct emu_ops *o, void *ctx, struct emu_cpu *cpu,
				  struct emu_report *report)
{
	cpu->gpr[EMU_RCX] = 5;
	return EMU_PARTIAL;
}

static enum emu_status do_unsupported(const struct emu_ops *o, void *ctx, struct emu_cpu *cpu,
				      struct emu_report *report)
{
	report->length = 15;
	report->reason = "test";
	return EMU_UNSUPPORTED;
}

static enum emu_status do_fail(const struct emu_ops *o, void *ctx, struct emu_cpu *cpu,
			       struct emu_report *report)
{
	return EMU_FAILED;
}

static void ends(void **state)
{
	assert_int_equal(run(do_partial), EMULATE_DONE);
	expect_still();
	assert_int_equal(fake.gpr[RCX], 5);
	assert_int_equal(seen.skipped_none, 1); /* debug trap, end of STI's shadow */
	assert_int_equal(run(do_unsupported), EMULATE_FATAL);
	assert_int_equal(seen.fatal, 1);
	assert_int_equal(run(do_fail), EMULATE_FATAL);
	assert_int_equal(seen.fatal, 2);
}

static void creation(void **state)
{
	struct vcpu vcpu = {.emu_cache = NULL};

	assert_int_equal(mmio_vcpu_create(&vcpu), 0);
	assert_non_null(vcpu.emu_cache);
	mmio_vcpu_destroy(&vcpu);
	assert_null(vcpu.emu_cache);
	mmio_vcpu_destroy(&vcpu);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(state_in_and_out, reset),
		cmocka_unit_test_setup(modes, reset),
		cmocka_unit_test_setup(segments, reset),
		cmocka_unit_test_setup(translation, reset),
		cmocka_unit_test_setup(protection, reset),
		cmocka_unit_test_setup(fault_in_walk, reset),
		cmocka_unit_test_setup(accesses, reset),
		cmocka_unit_test_setup(locked, reset),
		cmocka_unit_test_setup(vectors, reset),
		cmocka_unit_test_setup(ends, reset),
		cmocka_unit_test_setup(creation, reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
