#include "virtio_blk.h"
#include "mem.h"

struct blk_header *blk_header;
volatile u8 *blk_status;
u32 blk_written;

void blk_init(void)
{
	blk_header = page_alloc();
	blk_status = (volatile u8 *)blk_header + 64;
}

void blk_request(struct vq *q, u32 type, u64 sector, u8 *data, u32 bytes, u32 parts)
{
	u32 write = type == BLK_IN || type == BLK_GET_ID ? VQ_WRITE : 0, each = bytes / parts;

	*blk_header = (struct blk_header){type, 0, sector};
	*blk_status = BLK_NONE;
	vq_desc(q, 0, blk_header, sizeof(*blk_header), VQ_NEXT, 1);
	for (u32 i = 0; i < parts; i++)
		vq_desc(q, 1 + i, data + i * each, i + 1 < parts ? each : bytes - i * each,
			write | VQ_NEXT, 2 + i);
	vq_desc(q, 1 + parts, blk_status, 1, VQ_WRITE, 0);
}

u32 blk_finish(struct vio *d)
{
	u32 head = 99;

	vio_notify(d, 0);
	if (!vq_used(&d->queue[0], &head, &blk_written) || head != 0)
		return BLK_NONE;
	return *blk_status;
}

u32 blk_transfer(struct vio *d, u32 type, u64 sector, void *data, u32 bytes, u32 parts)
{
	blk_request(&d->queue[0], type, sector, data, bytes, parts);
	vq_add(&d->queue[0], 0);
	return blk_finish(d);
}
