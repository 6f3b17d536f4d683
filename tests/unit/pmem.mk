UNIT_pmem := hv/pmem/pmem.c hv/pmem/flush.c hv/pmem/cut.c hv/pmem/medium.c hv/pmem/model.c hv/pmem/nfit.c hv/pmem/vnfit.c \
	hv/pmem/backing.c hv/pmem/save.c hv/blk/gpt.c hv/blk/part.c $(CRC32_HOST) \
	hv/vm/space.c hv/vm/memory.c hv/ept/ept.c hv/ept/ept_table.c hv/ept/ept_gen.c hv/ept/ept_overlay.c hv/mem/frame.c hv/lib/print.c \
	tests/unit/ept_hw.c
