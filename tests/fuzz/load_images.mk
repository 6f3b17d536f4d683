FUZZ_load_images := hv/vm/load.c hv/vm/load_elf.c hv/vm/load_multiboot.c hv/vm/load_pvh.c \
	hv/vm/load_linux.c hv/lib/print.c tests/unit/load_target.h
