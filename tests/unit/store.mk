UNIT_store := $(addprefix hv/rdma/,packet.c qp.c requester.c responder.c cm.c cm_message.c \
	node.c fabric.c) $(CRC32_HOST) $(addprefix hv/remote/,store.c store_map.c store_repair.c) \
	$(SEAL_HOST)
