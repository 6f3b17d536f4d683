UNIT_rdma_packet := hv/rdma/packet.c $(CRC32_HOST) tests/unit/roce_pcap.h
$(BUILD)/unit/rdma_packet: HOST_CFLAGS += -DROCE_DATA='"$(CURDIR)/tests/data/roce"'
