/*
 * Sealing of pages that leave the machine: AES-256-OCB (RFC 7253, remote/ocb.h), with AES-NI where
 * the CPU has it, otherwise in constant time without tables.
 *
 * The nonce is the VM's number and the version: no version may be used twice with a key and VM. The
 * page's number is authenticated with the data. Tags and versions stay with whoever seals, so that
 * what comes back is the page as it was last written, or is refused: altered, older and misplaced
 * pages are.
 */
#pragma once

#include "lib/types.h"
#include "remote/ocb.h"

#define SEAL_KEY OCB_KEY
#define SEAL_TAG OCB_TAG

struct seal {
	struct ocb ocb;
};

/* What is sealed. */
struct seal_name {
	u32 vm, page;
	u64 version;
};

void seal_init(struct seal *s, const u8 key[SEAL_KEY]);
/* The same without the CPU's instructions for it, or with them (they must be there). */
void seal_init_as(struct seal *s, const u8 key[SEAL_KEY], bool hardware);
bool seal_hardware(void);

/* Encrypts the PAGE_SIZE bytes at `data` in place. */
void seal_page(const struct seal *s, const struct seal_name *name, u8 *data, u8 tag[SEAL_TAG]);
/* True: `data` is what `tag` was made of. It is not changed. */
bool seal_check(const struct seal *s, const struct seal_name *name, const u8 *data,
		const u8 tag[SEAL_TAG]);
/* The same, and `data` is decrypted in place; what is refused is wiped. */
bool seal_open(const struct seal *s, const struct seal_name *name, u8 *data,
	       const u8 tag[SEAL_TAG]);

/*
 * A new key, another one at each call: SHA-256 of what the CPU's generator (x86/entropy.h) and the
 * TSC say. With RDSEED or RDRAND it is as good as those, and true is returned. Without, there is
 * only the jitter of the TSC over memory accesses and CPUID, and the time since power-on: tens of
 * bits perhaps on real machines, and next to nothing in an emulator that counts instructions.
 */
bool seal_new_key(u8 key[SEAL_KEY]);
