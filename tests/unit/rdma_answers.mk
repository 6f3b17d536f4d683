UNIT_rdma_answers := $(addprefix hv/rdma/,packet.c qp.c requester.c responder.c) $(CRC32_HOST)
