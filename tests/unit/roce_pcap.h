/* Reads the frames of tests/data/roce/NAME (classic pcap, little endian, Ethernet). */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/types.h"

struct pcap {
	u8 *data;
	size_t size, at;
};

static inline u32 pcap_word(const u8 *p)
{
	return p[0] | (u32)p[1] << 8 | (u32)p[2] << 16 | (u32)p[3] << 24;
}

/* False if the file cannot be read or is none. */
static inline bool pcap_open(struct pcap *pcap, const char *name)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", ROCE_DATA, name);
	f = fopen(path, "rb");
	if (!f)
		return false;
	pcap->data = malloc(1 << 20);
	pcap->size = fread(pcap->data, 1, 1 << 20, f);
	pcap->at = 24;
	fclose(f);
	return pcap->size > 24 && pcap_word(pcap->data) == 0xa1b2c3d4;
}

static inline const u8 *pcap_next(struct pcap *pcap, size_t *len)
{
	const u8 *record = pcap->data + pcap->at;

	if (pcap->at + 16 > pcap->size)
		return NULL;
	*len = pcap_word(record + 8);
	if (pcap->at + 16 + *len > pcap->size)
		return NULL;
	pcap->at += 16 + *len;
	return record + 16;
}

static inline void pcap_close(struct pcap *pcap)
{
	free(pcap->data);
}
