FUZZ_config := boot/config.c boot/text.c hv/lib/features.c
