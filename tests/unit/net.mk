UNIT_net := hv/net/net.c hv/net/e1000.c hv/rdma/packet.c hv/lib/crc32.c hv/lib/print.c
