FUZZ_rdma_wire := $(addprefix hv/rdma/,packet.c qp.c requester.c responder.c cm.c cm_message.c) \
	hv/lib/crc32.c
