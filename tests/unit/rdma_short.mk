UNIT_rdma_short := $(addprefix hv/rdma/,packet.c qp.c requester.c responder.c) $(CRC32_HOST)
