UNIT_emu_rules := $(addprefix hv/emu/,emu.c emu_alu.c emu_decode.c emu_exec.c emu_mem.c \
	emu_string.c) $(ZYDIS_SRC:%=$(ZYDIS_DIR)/src/%.c)
$(BUILD)/unit/emu_rules: HOST_CFLAGS += -isystem $(ZYDIS_DIR)/src -Wno-cast-qual
