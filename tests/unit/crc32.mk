UNIT_crc32 :=
