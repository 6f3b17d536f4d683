UNIT_pmem_medium := hv/pmem/medium.c hv/pmem/model.c hv/pmem/nfit.c
