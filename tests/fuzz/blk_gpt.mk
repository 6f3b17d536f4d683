FUZZ_blk_gpt := hv/blk/gpt.c $(CRC32_HOST)
