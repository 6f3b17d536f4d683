/*
 * Plain stores that are trapped again and again, by the shortest way: the instruction has been
 * emulated before, its bytes and the way to them are as they were then, and so all that is needed
 * is its operand. See vm/platform.h. That is a few loads and comparisons without a branch; what can
 * be worked out beforehand is, when the store is emulated.
 *
 * The processor reports where the store goes, and it has made all checks. What has to be made sure
 * of is that the bytes are those that it has executed. Their translation is that of the walk before
 * as long as CR3 and the entries on the way are the same; and an instruction whose operand lies
 * elsewhere than the processor says is another one.
 */
#include "emu/emu.h"
#include "emu/emu_insn.h"
#include "vm/internal.h"
#include "vm/linear.h"
#include "x86/regs.h"

#define AR_CODE_64     BIT(13)
#define ACCESSED_DIRTY (BIT64(5) | BIT64(6)) /* of paging-structure entries */

_Static_assert(EMU_KNOWN_STEPS == WALK_LEVELS, "4-level paging");

static inline struct emu_known *known_slot(struct emu_cache *cache, u64 rip)
{
	return &cache->known[(rip ^ rip >> 4) % EMU_KNOWN_SLOTS];
}

/* Neither RSP, which is in the VMCS, nor AH to BH, nor a segment with a base. */
static bool is_plain(const struct emu_insn *insn)
{
	if (insn->op != OP_STORE || insn->sub != EXTEND_NONE || insn->size > 8 ||
	    (insn->flags & ~(INSN_REX | INSN_IMM | INSN_RIP)) || insn->address_size != 8 ||
	    insn->seg == EMU_FS || insn->seg == EMU_GS)
		return false;
	if (insn->base == EMU_RSP || insn->index == EMU_RSP)
		return false;
	if (insn->flags & INSN_IMM)
		return true;
	return insn->reg < EMU_GPR_COUNT && insn->reg != EMU_RSP &&
	       (insn->size > 1 || insn->reg < 4 || (insn->flags & INSN_REX));
}

/* Where the bytes at `rip` lie, and how that is known. False: not in RAM that stays where it is. */
static bool remember_way(struct vcpu *vcpu, const struct walk_state *state, u64 rip,
			 struct emu_known *k)
{
	struct walk_step step[WALK_LEVELS];
	struct walk_result found;
	unsigned int count;

	if (walk_explain(vcpu->vm, state, gva(rip), step, &count, &found) || !count)
		return false;
	for (unsigned int i = 0; i < WALK_LEVELS; i++) {
		const struct walk_step *s = &step[MIN(i, count - 1)];

		k->entry[i] = guest_ram_view(vcpu->vm, s->at, sizeof(u64));
		k->entry_value[i] = s->value & ~ACCESSED_DIRTY;
		if (!k->entry[i])
			return false;
	}
	k->code = guest_ram_view(vcpu->vm, found.addr, sizeof(k->bytes));
	k->cr3 = state->cr3;
	return k->code;
}

static void remember_operand(struct vcpu *vcpu, const struct emu_insn *insn, u64 rip,
			     struct emu_known *k)
{
	k->zero = 0;
	k->base = insn->base != NO_REG ? &vcpu->gpr[insn->base] : &k->zero;
	k->index = insn->index != NO_REG ? &vcpu->gpr[insn->index] : &k->zero;
	k->shift = (u8)__builtin_ctz(insn->scale | 8); /* log2; without an index, whatever */
	k->disp = (u64)insn->disp;
	if (insn->flags & INSN_RIP) {
		k->base = k->index = &k->zero;
		k->disp += rip + insn->length;
	}
	k->last = PAGE_SIZE - insn->size;
	k->imm = insn->imm;
	k->store.from = insn->flags & INSN_IMM ? &k->imm : &vcpu->gpr[insn->reg];
}

void emu_remember(struct vcpu *vcpu, const struct walk_state *state, u64 rip)
{
	const struct emu_cache_slot *slot = emu_slot(vcpu->emu_cache, rip);
	const struct emu_insn *insn = &slot->insn;
	struct emu_known *k = known_slot(vcpu->emu_cache, rip);

	k->store.size = 0;
	if (slot->mode != EMU_MODE_64 || !is_plain(insn))
		return;
	/* Two words are compared, which must not reach into another page. */
	if ((rip & ~PAGE_MASK) > PAGE_SIZE - sizeof(k->bytes) || !remember_way(vcpu, state, rip, k))
		return;
	k->mask[0] = size_mask(insn->length);
	k->mask[1] = insn->length > 8 ? size_mask(insn->length - 8) : 0;
	for (u32 i = 0; i < 2; i++)
		k->bytes[i] = slot->bytes.word[i] & k->mask[i];
	remember_operand(vcpu, insn, rip, k);
	k->rip = rip;
	k->store.length = insn->length;
	k->store.size = insn->size;
}

/* CS.L counts in IA-32e mode only. */
static bool in_64_bit_mode(void)
{
	return (vmcs_read(VMCS_GUEST_CS_AR) & AR_CODE_64) &&
	       (vmcs_read(VMCS_GUEST_EFER) & EFER_LMA);
}

static bool same_way(const struct emu_known *k)
{
	u64 difference = 0;

#pragma GCC unroll 4
	for (u32 i = 0; i < EMU_KNOWN_STEPS; i++)
		difference |= __atomic_load_n(k->entry[i], __ATOMIC_RELAXED) ^ k->entry_value[i];
	return !(difference & ~ACCESSED_DIRTY);
}

static bool same_bytes_there(const struct emu_known *k)
{
	return !(((__atomic_load_n(&k->code[0], __ATOMIC_RELAXED) & k->mask[0]) ^ k->bytes[0]) |
		 ((__atomic_load_n(&k->code[1], __ATOMIC_RELAXED) & k->mask[1]) ^ k->bytes[1]));
}

const struct known_store *mmio_known_store(struct vcpu *vcpu, gva_t linear)
{
	u64 rip = vmcs_read(VMCS_GUEST_RIP);
	const struct emu_known *k = known_slot(vcpu->emu_cache, rip);

	if (k->rip != rip || !k->store.size || k->cr3 != vmcs_read(VMCS_GUEST_CR3) ||
	    !in_64_bit_mode() || !same_way(k) || !same_bytes_there(k))
		return NULL;
	if (*k->base + (*k->index << k->shift) + k->disp != linear.v ||
	    (linear.v & ~PAGE_MASK) > k->last)
		return NULL;
	return &k->store;
}
