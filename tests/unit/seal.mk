UNIT_seal := $(SEAL_HOST)
