/*
 * Checks a capture: each RoCEv2 frame decodes, with a right ICRC, and encodes again byte for byte.
 *
 *   frames FILE.pcap     prints `frames: N RoCEv2, M others`; 1 and a line at the first that fails
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rdma/packet.h"

#define PCAP_MAGIC    0xa1b2c3d4u /* this machine's byte order, microseconds */
#define PCAP_ETHERNET 1u

struct pcap_head {
	u32 magic, version, zone, accuracy, length, type;
};

struct pcap_frame {
	u32 seconds, microseconds, stored, length;
};

static bool same(const u8 *frame, u32 len)
{
	u8 again[RDMA_FRAME_MAX];
	struct rdma_packet p;
	struct rdma_frame f;

	return rdma_decode(&p, frame, len) == 0 && rdma_encode(&p, &f) == 0 &&
	       rdma_frame_copy(&f, again) == len && memcmp(again, frame, len) == 0;
}

int main(int argc, char **argv)
{
	FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
	unsigned int roce = 0, others = 0;
	struct pcap_head head;
	struct pcap_frame at;
	static u8 frame[65536];
	struct rdma_packet p;

	if (!file || fread(&head, sizeof(head), 1, file) != 1 || head.magic != PCAP_MAGIC ||
	    head.type != PCAP_ETHERNET) {
		fprintf(stderr, "frames: no pcap file of Ethernet\n");
		return 2;
	}
	while (fread(&at, sizeof(at), 1, file) == 1) {
		if (at.stored != at.length || at.stored > sizeof(frame) ||
		    fread(frame, 1, at.stored, file) != at.stored) {
			printf("frames: cut off behind %u\n", roce + others);
			return 1;
		}
		if (rdma_decode(&p, frame, at.stored) == ERR_NOENT) {
			others++;
		} else if (same(frame, at.stored)) {
			roce++;
		} else {
			printf("frames: frame %u differs or does not decode\n", roce + others + 1);
			return 1;
		}
	}
	fclose(file);
	printf("frames: %u RoCEv2, %u others\n", roce, others);
	return 0;
}
