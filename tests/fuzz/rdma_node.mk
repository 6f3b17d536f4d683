FUZZ_rdma_node := $(addprefix hv/rdma/,packet.c qp.c requester.c responder.c cm.c cm_message.c node.c) \
	$(CRC32_HOST)
