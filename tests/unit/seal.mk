UNIT_seal := hv/remote/seal.c hv/x86/simd.c hv/x86/entropy.c $(BEARSSL_HOST)
