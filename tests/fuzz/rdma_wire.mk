FUZZ_rdma_wire := $(addprefix hv/rdma/,packet.c qp.c requester.c responder.c cm.c cm_message.c) \
	$(CRC32_HOST)
