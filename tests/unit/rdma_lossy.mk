UNIT_rdma_lossy := hv/rdma/packet.c hv/rdma/qp.c hv/rdma/requester.c hv/rdma/responder.c \
	$(CRC32_HOST) tests/unit/rdma_pair.h
