UNIT_blk_gpt := hv/blk/gpt.c hv/blk/part.c $(CRC32_HOST)
