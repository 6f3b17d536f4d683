UNIT_pmem_nfit := hv/pmem/nfit.c
