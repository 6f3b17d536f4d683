/*
 * Plain stores that are trapped again and again, by the shortest way: the instruction has been
 * emulated before, its bytes and the way to them are as they were then, and so all that is needed
 * is its operand. See vm/platform.h.
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

_Static_assert(EMU_CODE_STEPS == WALK_LEVELS, "4-level paging");

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

void emu_remember(struct vcpu *vcpu, const struct walk_state *state, u64 rip)
{
	struct emu_cache *cache = vcpu->emu_cache;
	struct emu_code *code = &cache->code;
	struct emu_cache_slot *slot = emu_slot(cache, rip);
	struct walk_step step[WALK_LEVELS];
	struct walk_result found;
	unsigned int count;

	code->steps = 0;
	slot->plain = slot->mode == EMU_MODE_64 && is_plain(&slot->insn);
	if (!slot->plain ||
	    walk_explain(vcpu->vm, state, gva(rip & PAGE_MASK), step, &count, &found))
		return;
	for (unsigned int i = 0; i < count; i++) {
		code->entry[i] = guest_ram_view(vcpu->vm, step[i].at, sizeof(u64));
		code->value[i] = step[i].value & ~ACCESSED_DIRTY;
		if (!code->entry[i])
			return;
	}
	code->bytes = guest_ram_view(vcpu->vm, found.addr, PAGE_SIZE);
	if (!code->bytes)
		return;
	code->page = rip & PAGE_MASK;
	code->cr3 = state->cr3;
	code->steps = count;
}

static bool same_way(const struct emu_code *code)
{
	for (u32 i = 0; i < code->steps; i++)
		if ((__atomic_load_n(code->entry[i], __ATOMIC_RELAXED) & ~ACCESSED_DIRTY) !=
		    code->value[i])
			return false;
	return true;
}

static bool same_bytes_there(const struct emu_code *code, u64 offset,
			     const struct emu_cache_slot *slot)
{
	const u64 *word = (const u64 *)(const void *)(code->bytes + offset);
	u32 len = slot->insn.length;

	if ((__atomic_load_n(&word[0], __ATOMIC_RELAXED) ^ slot->bytes.word[0]) & size_mask(len))
		return false;
	return len <= 8 || !((__atomic_load_n(&word[1], __ATOMIC_RELAXED) ^ slot->bytes.word[1]) &
			     size_mask(len - 8));
}

static u64 operand_address(const struct emu_insn *insn, const u64 *gpr, u64 rip)
{
	u64 at = (u64)insn->disp;

	if (insn->flags & INSN_RIP)
		return at + rip + insn->length;
	if (insn->base != NO_REG)
		at += gpr[insn->base];
	if (insn->index != NO_REG)
		at += gpr[insn->index] * insn->scale;
	return at;
}

bool mmio_known_store(struct vcpu *vcpu, const struct ept_fault *fault, struct known_store *out)
{
	const struct emu_code *code = &vcpu->emu_cache->code;
	u64 rip = vmcs_read(VMCS_GUEST_RIP), offset = rip & ~PAGE_MASK;
	const struct emu_cache_slot *slot = emu_slot(vcpu->emu_cache, rip);
	const struct emu_insn *insn = &slot->insn;

	if (!code->steps || code->page != (rip & PAGE_MASK) || !slot->plain ||
	    offset > PAGE_SIZE - sizeof(slot->bytes) || code->cr3 != vmcs_read(VMCS_GUEST_CR3) ||
	    !(vmcs_read(VMCS_GUEST_CS_AR) & AR_CODE_64) || !same_way(code) ||
	    !same_bytes_there(code, offset, slot))
		return false;
	if (operand_address(insn, vcpu->gpr, rip) != fault->linear.v ||
	    (fault->linear.v & ~PAGE_MASK) > PAGE_SIZE - insn->size)
		return false;
	out->value = insn->flags & INSN_IMM ? insn->imm : vcpu->gpr[insn->reg];
	out->size = insn->size;
	out->length = insn->length;
	return true;
}
