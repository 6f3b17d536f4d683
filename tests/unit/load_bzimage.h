/* A small bzImage for tests of its loader: setup of three sectors, two pages of code. */
#pragma once

#include <string.h>

#include "lib/types.h"

#define BZ_SETUP      (4 * 512u)
#define BZ_CODE	      0x2000u
#define BZ_BYTES      (BZ_SETUP + BZ_CODE)
#define BZ_PREF	      0x400000u
#define BZ_INIT_SIZE  0x123000u
#define BZ_HEADER_END 0x26cu

static void bz_put(u8 *image, u32 at, u64 value, u32 bytes)
{
	memcpy(image + at, &value, bytes);
}

/* Offsets as "The Linux/x86 Boot Protocol" lists them. */
static void bz_build(u8 image[BZ_BYTES])
{
	static const struct {
		u32 at, bytes;
		u64 value;
	} fields[] = {
		{0x1f1, 1, 3},
		{0x1f4, 4, BZ_CODE / 16},
		{0x1fe, 2, 0xaa55},
		{0x200, 2, 0x6aeb},
		{0x206, 2, 0x20f},
		{0x211, 1, 1},
		{0x22c, 4, 0x7fffffff},
		{0x230, 4, 0x200000},
		{0x234, 1, 1},
		{0x235, 1, 21},
		{0x236, 2, 0x7f},
		{0x238, 4, 2047},
		{0x248, 4, 0x300},
		{0x24c, 4, 0x1d00},
		{0x258, 8, BZ_PREF},
		{0x260, 4, BZ_INIT_SIZE},
		{0x264, 8, 0x1122334455667788},
	};

	for (u32 i = 0; i < BZ_BYTES; i++)
		image[i] = (u8)(i * 11 + i / 256);
	memset(image + 0x1f1, 0, 0x290 - 0x1f1);
	memcpy(image + 0x202, "HdrS", 4);
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		bz_put(image, fields[i].at, fields[i].value, fields[i].bytes);
}
