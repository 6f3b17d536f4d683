UNIT_crc32 := hv/lib/crc32.c
