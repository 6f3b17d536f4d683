UNIT_load_linux := hv/vm/load.c hv/vm/load_elf.c hv/vm/load_multiboot.c hv/vm/load_pvh.c \
	hv/vm/load_linux.c hv/lib/print.c tests/unit/load_target.h tests/unit/load_bzimage.h
