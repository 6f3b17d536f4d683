FUZZ_remote_store := $(UNIT_store)
