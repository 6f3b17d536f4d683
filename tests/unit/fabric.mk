UNIT_fabric := $(addprefix hv/rdma/,packet.c qp.c requester.c responder.c cm.c cm_message.c \
	node.c fabric.c) $(CRC32_HOST)
