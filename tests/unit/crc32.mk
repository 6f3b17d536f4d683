UNIT_crc32 := hv/lib/zmm.c $(BUILD)/host/lib/crc32_fold.S.o
INCLUDED_crc32 := hv/lib/crc32.c
