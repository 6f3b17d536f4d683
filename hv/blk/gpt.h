/*
 * The GUID partition table (UEFI specification 2.10, chapter 5): finds the one partition of a type.
 *
 * Portable C over disk_read() (disk.h). What is on the disk is not trusted: headers and entries are
 * used only if both checksums are right, and a partition only if it lies within the usable sectors
 * and no other one overlaps it. If the primary table is damaged the backup in the disk's last
 * sector counts.
 */
#pragma once

#include "blk/disk.h"

#define GPT_MAX_ENTRIES 1024
#define GPT_GUID_BYTES	16

/*
 * 0: *out is the partition of this type (16 bytes as they lie on the disk); *backup: the backup
 * table told. ERR_NOENT: there is no partition of this type. ERR_EXIST: more than one. ERR_INVAL:
 * there is no table, or both are damaged or contradict themselves. Or an error of disk_read(). With
 * an error *why says in words what is wrong.
 */
int gpt_find(const u8 type[GPT_GUID_BYTES], struct disk_part *out, bool *backup, const char **why);
