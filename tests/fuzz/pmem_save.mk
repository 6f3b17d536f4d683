FUZZ_pmem_save := hv/pmem/save.c hv/blk/part.c hv/lib/crc32.c
