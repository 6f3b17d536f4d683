EMU_SRC := $(addprefix hv/emu/,emu.c emu_alu.c emu_decode.c emu_exec.c emu_mem.c emu_string.c)
EMU_ZYDIS := $(ZYDIS_SRC:%=$(ZYDIS_DIR)/src/%.c)
# Not to be deleted as intermediate files.
.SECONDARY: $(EMU_ZYDIS)

UNIT_emu_native := $(EMU_SRC) $(EMU_ZYDIS)
$(BUILD)/unit/emu_native: HOST_CFLAGS += -isystem $(ZYDIS_DIR)/src -Wno-cast-qual
