UNIT_seal := hv/remote/seal.c hv/x86/simd.c $(BEARSSL_HOST)
