UNIT_blk_ata := hv/blk/ata.c hv/blk/disk.c
$(BUILD)/unit/blk_ata: HOST_CFLAGS += -include tests/unit/blk_ata_hook.h
$(BUILD)/unit/blk_ata: tests/unit/blk_ata_hook.h
