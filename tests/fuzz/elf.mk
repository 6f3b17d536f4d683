FUZZ_elf := boot/elf.c boot/text.c
