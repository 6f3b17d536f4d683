UNIT_pmem_save := hv/pmem/save.c hv/blk/part.c $(CRC32_HOST)
