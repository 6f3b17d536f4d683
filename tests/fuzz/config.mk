FUZZ_config := boot/config.c boot/config_text.c boot/config_values.c boot/text.c hv/lib/features.c
