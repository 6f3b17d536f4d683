UNIT_net := hv/net/net.c hv/net/e1000.c hv/rdma/packet.c $(CRC32_HOST) hv/lib/print.c
