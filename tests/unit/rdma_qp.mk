UNIT_rdma_qp := hv/rdma/packet.c hv/rdma/qp.c hv/rdma/requester.c hv/rdma/responder.c \
	hv/lib/crc32.c tests/unit/rdma_pair.h
