FUZZ_emu_step := $(addprefix hv/emu/,emu.c emu_alu.c emu_decode.c emu_exec.c emu_mem.c \
	emu_string.c) $(ZYDIS_SRC:%=$(ZYDIS_DIR)/src/%.c)
$(BUILD)/fuzz/emu_step: HOST_CFLAGS += -isystem $(ZYDIS_DIR)/src -Wno-cast-qual -Wno-implicit-fallthrough
