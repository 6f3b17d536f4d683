/*
 * One request at a time of a virtio block device (Virtual I/O Device 1.2, 5.2), for tests: each
 * step apart, so that they can spoil what the last one has made.
 */
#pragma once

#include "virtio.h"

#define BLK_F_RO     BIT64(5)
#define BLK_F_FLUSH  BIT64(9)
#define BLK_F_ZEROES BIT64(14)

#define BLK_IN	   0
#define BLK_OUT	   1
#define BLK_FLUSH  4
#define BLK_GET_ID 8
#define BLK_ZEROES 13

#define BLK_OK	   0
#define BLK_IOERR  1
#define BLK_UNSUPP 2
#define BLK_NONE   0xee /* the device has written no status */

#define BLK_SECTOR 512

struct blk_header {
	u32 type, reserved;
	u64 sector;
};

/* The request that is being made, and where the device writes how it went. */
extern struct blk_header *blk_header;
extern volatile u8 *blk_status;
extern u32 blk_written; /* bytes, as the last used element says */

void blk_init(void);
/* Header, data in `parts` pieces, status; in the queue's table or in an indirect one. */
void blk_request(struct vq *q, u32 type, u64 sector, u8 *data, u32 bytes, u32 parts);
/*
 * Notifies the device and waits for one used element, of the chain at 0; the device does everything
 * before the notification returns. The status, or BLK_NONE.
 */
u32 blk_finish(struct vio *d);
/* All of it. */
u32 blk_transfer(struct vio *d, u32 type, u64 sector, void *data, u32 bytes, u32 parts);
