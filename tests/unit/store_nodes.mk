UNIT_store_nodes = $(UNIT_store)
