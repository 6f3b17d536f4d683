UNIT_blk_gpt := hv/blk/gpt.c hv/blk/part.c hv/lib/crc32.c
