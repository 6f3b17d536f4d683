UNIT_rdma_answers := $(addprefix hv/rdma/,packet.c qp.c requester.c responder.c) hv/lib/crc32.c
