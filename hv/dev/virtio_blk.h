/*
 * A block device (Virtual I/O Device 1.2, 5.2) on an image in memory: read-only, or copy-on-write
 * in pages of 4 KiB that belong to the VM and are allocated when they are first written to. Nothing
 * is ever lost but by the VM's end, so that a flush has nothing to do.
 */
#pragma once

#include "dev/virtio.h"

#define VIRTIO_BLK_F_SEG_MAX	  BIT64(2)
#define VIRTIO_BLK_F_RO		  BIT64(5)
#define VIRTIO_BLK_F_BLK_SIZE	  BIT64(6)
#define VIRTIO_BLK_F_FLUSH	  BIT64(9)
#define VIRTIO_BLK_F_WRITE_ZEROES BIT64(14)

enum virtio_blk_type { /* 5.2.6 */
	VIRTIO_BLK_T_IN = 0,
	VIRTIO_BLK_T_OUT = 1,
	VIRTIO_BLK_T_FLUSH = 4,
	VIRTIO_BLK_T_GET_ID = 8,
	VIRTIO_BLK_T_WRITE_ZEROES = 13,
};

enum {
	VIRTIO_BLK_S_OK = 0,
	VIRTIO_BLK_S_IOERR = 1,
	VIRTIO_BLK_S_UNSUPP = 2,
};

#define VIRTIO_SECTOR 512

/* Sectors that one WRITE_ZEROES may clear, and its flag. */
#define VIRTIO_BLK_MAX_ZEROES 0x10000
#define VIRTIO_BLK_UNMAP      BIT(0)

/* 0 or ERR_NOMEM. */
int virtio_blk_create(struct virtio_dev *dev, struct virtio_blk *b, const struct boot_file *image,
		      bool read_only);
void virtio_blk_destroy(struct vm *vm, struct virtio_blk *b);
/* The device was reset: the request that was being served is forgotten. */
void virtio_blk_reset(struct virtio_blk *b);
void virtio_blk_serve(struct vm *vm, struct virtio *v, struct virtio_dev *dev,
		      struct virtio_blk *b);
