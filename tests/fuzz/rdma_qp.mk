FUZZ_rdma_qp := hv/rdma/packet.c hv/rdma/qp.c hv/rdma/requester.c hv/rdma/responder.c $(CRC32_HOST)
