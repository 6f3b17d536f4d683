/* The door to guest RAM that is not all here: see away.h. */
#include "vm/away.h"

#include "lib/string.h"
#include "vm/internal.h"

u32 vcpu_misses(struct vm *vm, u32 away)
{
	struct vcpu *vcpu = sched_current();

	if (!vcpu || vcpu->vm != vm)
		return 0;
	vcpu->away = away;
	vcpu_request(vcpu, REQ_PAGE);
	return BIT(vcpu->index);
}

static size_t within_page(gpa_t at, size_t len)
{
	return MIN(len, PAGE_SIZE - at.v % PAGE_SIZE);
}

int away_read(struct vm *vm, const struct region *region, gpa_t from, void *to, size_t len)
{
	u8 *out = to;

	while (len) {
		size_t n = within_page(from, len);
		const u8 *p = remote_open(vm, region, from, false, false);

		if (!p)
			return ERR_AGAIN;
		memcpy(out, p, n);
		remote_close(vm);
		out += n;
		len -= n;
		from = gpa_add(from, n);
	}
	return 0;
}

int away_write(struct vm *vm, const struct region *region, gpa_t to, const void *from, size_t len)
{
	const u8 *in = from;

	while (len) {
		size_t n = within_page(to, len);
		u8 *p = remote_open(vm, region, to, true, n == PAGE_SIZE);

		if (!p)
			return ERR_AGAIN;
		if (in)
			memcpy(p, in, n);
		else
			memset(p, 0, n);
		remote_close(vm);
		in = in ? in + n : NULL;
		len -= n;
		to = gpa_add(to, n);
	}
	return 0;
}

int away_zero(struct vm *vm, const struct region *region, gpa_t to, size_t len)
{
	size_t head = IS_ALIGNED(to.v, PAGE_SIZE) ? 0 : within_page(to, len);
	int err = away_write(vm, region, to, NULL, head);

	to = gpa_add(to, head);
	len -= head;
	if (!err && len % PAGE_SIZE)
		err = away_write(vm, region, gpa_add(to, len & PAGE_MASK), NULL, len % PAGE_SIZE);
	return err ? err : remote_zero(vm, region, to, len & PAGE_MASK);
}
