UNIT_crc32 :=
INCLUDED_crc32 := hv/lib/crc32.c
