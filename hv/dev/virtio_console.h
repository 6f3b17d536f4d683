/*
 * A console with one port (Virtual I/O Device 1.2, 5.3): queue 0 receives, queue 1 transmits. It
 * shares the VM's console (vm/console.h) with the UART: output of both is shown; input goes to the
 * UART until the guest has written to this device, and from then on, until its reset, to this one.
 */
#pragma once

#include "dev/virtio.h"

#define VIRTIO_CONSOLE_F_EMERG_WRITE BIT64(2)

/* Offset of emerg_wr in the configuration space. */
#define VIRTIO_CONSOLE_EMERG 8

#define VIRTIO_CONSOLE_RX 0
#define VIRTIO_CONSOLE_TX 1

void virtio_console_create(struct virtio_dev *dev);
void virtio_console_reset(struct virtio_console *c);
/* Moves input into receive buffers. */
void virtio_console_receive(struct vm *vm, struct virtio *v, struct virtio_dev *dev,
			    struct virtio_console *c);
void virtio_console_transmit(struct vm *vm, struct virtio *v, struct virtio_dev *dev,
			     struct virtio_console *c);
