UNIT_emu_store := hv/emu/emu_decode.c hv/vm/walk.c $(ZYDIS_SRC:%=$(ZYDIS_DIR)/src/%.c)
INCLUDED_emu_store := hv/emu/store.c
$(BUILD)/unit/emu_store: HOST_CFLAGS += -isystem $(ZYDIS_DIR)/src -Wno-cast-qual
