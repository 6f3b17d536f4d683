UNIT_virtio_console := $(addprefix hv/dev/virtio,.c _ring.c _mmio.c _blk.c _console.c)
