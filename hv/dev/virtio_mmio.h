/*
 * The register block of virtio over MMIO, version 2 (Virtual I/O Device 1.2, 4.2.2), at the start
 * of each device's page. Registers are 32 bits wide and aligned; the configuration space behind
 * them takes any aligned size.
 */
#pragma once

#include "dev/virtio.h"

#define VIRTIO_MAGIC   0x74726976u /* "virt" */
#define VIRTIO_VERSION 2
#define VIRTIO_VENDOR  0x41424d55u /* "UMBA" */

enum virtio_register {
	REG_MAGIC = 0x000,
	REG_VERSION = 0x004,
	REG_DEVICE_ID = 0x008,
	REG_VENDOR_ID = 0x00c,
	REG_OFFERED = 0x010,
	REG_OFFERED_SEL = 0x014,
	REG_ACCEPTED = 0x020,
	REG_ACCEPTED_SEL = 0x024,
	REG_QUEUE_SEL = 0x030,
	REG_QUEUE_MAX = 0x034,
	REG_QUEUE_SIZE = 0x038,
	REG_QUEUE_READY = 0x044,
	REG_NOTIFY = 0x050,
	REG_ISR = 0x060,
	REG_ACK = 0x064,
	REG_STATUS = 0x070,
	REG_DESC_LOW = 0x080,
	REG_DESC_HIGH = 0x084,
	REG_DRIVER_LOW = 0x090,
	REG_DRIVER_HIGH = 0x094,
	REG_DEVICE_LOW = 0x0a0,
	REG_DEVICE_HIGH = 0x0a4,
	REG_SHM_LEN_LOW = 0x0b0,
	REG_SHM_LEN_HIGH = 0x0b4,
	REG_SHM_BASE_LOW = 0x0b8,
	REG_SHM_BASE_HIGH = 0x0bc,
	REG_GENERATION = 0x0fc,
	REG_CONFIG = 0x100,
};
