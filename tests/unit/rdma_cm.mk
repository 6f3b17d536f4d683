UNIT_rdma_cm := $(addprefix hv/rdma/,packet.c qp.c requester.c responder.c cm.c cm_message.c) \
	$(CRC32_HOST) tests/unit/roce_pcap.h tests/unit/rdma_pair.h
$(BUILD)/unit/rdma_cm: HOST_CFLAGS += -DROCE_DATA='"$(CURDIR)/tests/data/roce"'
