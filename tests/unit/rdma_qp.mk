UNIT_rdma_qp := $(addprefix hv/rdma/,packet.c qp.c requester.c responder.c) $(CRC32_HOST)
