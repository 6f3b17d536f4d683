/*
 * REP STOS and REP MOVS that cover a page which is not here: the page need not be fetched. All of
 * the page is written here, as if the instruction had come so far (SDM 2B REP: it can be
 * interrupted after each iteration), so that nobody sees the rest of a page half written. 64-bit
 * mode only.
 */
#include "lib/string.h"
#include "remote/internal.h"
#include "vm/linear.h"
#include "vmx/vmx.h"
#include "x86/regs.h"

#define CS_L	   BIT(13) /* VMX access rights: 64-bit code */
#define DR7_ENABLE 0xffu

struct string_write {
	u32 length; /* of the instruction */
	u32 size;   /* of an element */
	bool moves;
};

/* F3 [REX.W] AA, AB, A4, A5. Prefixes that change operands, addresses or segments: not these. */
static bool decode(const u8 *byte, u32 n, struct string_write *out)
{
	u32 at = 1;
	bool wide;

	if (n < 3 || byte[0] != 0xf3)
		return false;
	wide = byte[at] == 0x48;
	at += wide;
	out->moves = byte[at] == 0xa4 || byte[at] == 0xa5;
	if (!out->moves && byte[at] != 0xaa && byte[at] != 0xab)
		return false;
	out->size = !(byte[at] & 1) ? 1 : wide ? 8 : 4;
	out->length = at + 1;
	return true;
}

/* The bytes of a page that is here, from `at` on; NULL: it is not. The lock held. */
static u8 *bytes_at(struct vm_remote *r, gpa_t at)
{
	const struct region *region = space_find(&r->vm->space, at);
	struct pager_place place;
	struct pager_access a = {.door = true};

	if (!region || region->kind != REGION_REMOTE)
		return NULL;
	a.page = away_page(region, at);
	if (pager_state(r->pager, a.page) != PAGER_HERE ||
	    pager_access(r->pager, &a, &place) != PAGER_READY)
		return NULL;
	return (u8 *)phys_to_ptr(remote_frame(r, place.frame)) + at.v % PAGE_SIZE;
}

static bool is_candidate(struct vcpu *vcpu, const struct ept_fault *fault,
			 const struct walk_state *state)
{
	return !vcpu->event.info && (state->efer & EFER_LMA) &&
	       (vmcs_read(VMCS_GUEST_CS_AR) & CS_L) &&
	       !(vmcs_read(VMCS_GUEST_RFLAGS) & (RFLAGS_DF | RFLAGS_TF)) &&
	       !(vmcs_read(VMCS_GUEST_DR7) & DR7_ENABLE) && vcpu->gpr[RDI] == fault->linear.v;
}

static bool read_instruction(struct vcpu *vcpu, const struct walk_state *state,
			     struct string_write *out)
{
	u64 rip = vmcs_read(VMCS_GUEST_RIP);
	struct vm_remote *r = vcpu->vm->remote;
	struct walk_result found;
	u8 byte[4] = {0};
	u32 n = (u32)MIN(sizeof(byte), PAGE_SIZE - rip % PAGE_SIZE);
	const u8 *p;

	if (walk(vcpu->vm, state, gva(rip), WALK_FETCH | WALK_PROBE, &found))
		return false;
	spin_lock(remote_lock(r));
	p = bytes_at(r, found.addr);
	if (p)
		memcpy(byte, p, n);
	spin_unlock(remote_lock(r));
	return p && decode(byte, n, out);
}

/* Where the 4 KiB from RSI on lie; they may straddle two pages. */
static bool find_source(struct vcpu *vcpu, const struct walk_state *state, gpa_t part[2])
{
	u64 rsi = vcpu->gpr[RSI];
	struct walk_result found;

	for (u32 i = 0; i < 2; i++) {
		if (walk(vcpu->vm, state, gva(i ? (rsi & PAGE_MASK) + PAGE_SIZE : rsi), WALK_READ,
			 &found))
			return false;
		part[i] = found.addr;
		if (rsi % PAGE_SIZE == 0)
			break;
	}
	return true;
}

static void fill(u8 *to, u64 value, u32 size)
{
	u64 pattern = size == 1	  ? (value & 0xff) * 0x0101010101010101ull
		      : size == 4 ? (value & 0xffffffff) * 0x0000000100000001ull
				  : value;
	u64 *word = (u64 *)(void *)to;

	for (u32 i = 0; i < PAGE_SIZE / 8; i++)
		word[i] = pattern;
}

/* The lock held. */
static bool write_page(struct vm_remote *r, struct vcpu *vcpu, const struct pager_access *a,
		       const struct string_write *w, const gpa_t part[2])
{
	u32 first = (u32)(PAGE_SIZE - part[0].v % PAGE_SIZE);
	const u8 *from[2] = {NULL, NULL};
	struct pager_place place;
	u8 *to;

	if (pager_state(r->pager, a->page) != PAGER_AWAY)
		return false;
	if (w->moves) {
		from[0] = bytes_at(r, part[0]);
		from[1] = first < PAGE_SIZE ? bytes_at(r, part[1]) : from[0];
		if (!from[0] || !from[1])
			return false;
	}
	if (pager_access(r->pager, a, &place) != PAGER_READY)
		return false;
	to = phys_to_ptr(remote_frame(r, place.frame));
	if (w->moves) {
		memcpy(to, from[0], first);
		memcpy(to + first, from[1], PAGE_SIZE - first);
	} else {
		fill(to, vcpu->gpr[RAX], w->size);
	}
	return true;
}

bool remote_overwrite(struct vcpu *vcpu, const struct ept_fault *fault, struct pager_access a)
{
	struct vm_remote *r = vcpu->vm->remote;
	struct walk_state state;
	struct walk_result found;
	struct string_write w;
	gpa_t part[2] = {gpa(0), gpa(0)};
	u64 perms;
	bool done;

	walk_state_load(vcpu, &state);
	if (!is_candidate(vcpu, fault, &state) || !read_instruction(vcpu, &state, &w) ||
	    vcpu->gpr[RCX] < PAGE_SIZE / w.size ||
	    walk(vcpu->vm, &state, fault->linear, WALK_WRITE, &found) ||
	    found.addr.v != fault->addr.v || (w.moves && !find_source(vcpu, &state, part)))
		return false;
	a.whole = a.door = true;
	spin_lock(remote_lock(r));
	perms = space_perms(&vcpu->vm->space, fault->addr);
	if (w.moves)
		perms &= space_perms(&vcpu->vm->space, part[0]) &
			 (part[1].v ? space_perms(&vcpu->vm->space, part[1]) : EPT_RWX);
	done = (perms & (EPT_R | EPT_W)) == (EPT_R | EPT_W) && write_page(r, vcpu, &a, &w, part);
	spin_unlock(remote_lock(r));
	if (!done)
		return false;
	vcpu->gpr[RDI] += PAGE_SIZE;
	vcpu->gpr[RSI] += w.moves ? PAGE_SIZE : 0;
	vcpu->gpr[RCX] -= PAGE_SIZE / w.size;
	vcpu_skip_bytes(vcpu, vcpu->gpr[RCX] ? 0 : w.length);
	return true;
}
