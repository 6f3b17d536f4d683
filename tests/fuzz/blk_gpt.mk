FUZZ_blk_gpt := hv/blk/gpt.c hv/lib/crc32.c
