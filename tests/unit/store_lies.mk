UNIT_store_lies = $(UNIT_store)
