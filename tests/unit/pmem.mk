UNIT_pmem := hv/pmem/pmem.c hv/pmem/flush.c hv/pmem/cut.c hv/pmem/medium.c hv/pmem/model.c hv/pmem/nfit.c hv/pmem/vnfit.c \
	hv/vm/space.c hv/ept/ept.c hv/ept/ept_table.c hv/ept/ept_gen.c hv/mem/frame.c hv/lib/print.c \
	tests/unit/ept_hw.c
