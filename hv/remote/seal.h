/*
 * Sealing of pages that leave the machine: AES-256-GCM (NIST SP 800-38D) of BearSSL. With AES-NI
 * and PCLMULQDQ where the CPU has them, otherwise in constant time without tables.
 *
 * The nonce is the VM's number and the version: no version may be used twice with a key and VM. The
 * page's number is authenticated with the data. Tags and versions stay with whoever seals, so that
 * what comes back is the page as it was last written, or is refused: altered, older and misplaced
 * pages are.
 */
#pragma once

#include "lib/types.h"

#define SEAL_KEY 32u
#define SEAL_TAG 16u

struct seal {
	u64 schedule[36]; /* of BearSSL */
	u8 h[16];	  /* GHASH's key */
	bool hardware;
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
/* True: `data` was what `tag` was made of. It is decrypted by seal_open() only, and only then. */
bool seal_check(const struct seal *s, const struct seal_name *name, const u8 *data,
		const u8 tag[SEAL_TAG]);
bool seal_open(const struct seal *s, const struct seal_name *name, u8 *data,
	       const u8 tag[SEAL_TAG]);

/* GCM itself with a nonce of 12 bytes: the tag of what is encrypted, and encryption in place. */
void seal_gcm_tag(const struct seal *s, const u8 nonce[12], const void *extra, size_t extra_len,
		  const void *data, size_t len, u8 tag[SEAL_TAG]);
void seal_gcm_crypt(const struct seal *s, const u8 nonce[12], void *data, size_t len);

/*
 * A new key, another one at each call: SHA-256 of what the CPU's generator (x86/entropy.h) and the
 * TSC say. With RDSEED or RDRAND it is as good as those, and true is returned. Without, there is
 * only the jitter of the TSC over memory accesses and CPUID, and the time since power-on: tens of
 * bits perhaps on real machines, and next to nothing in an emulator that counts instructions.
 */
bool seal_new_key(u8 key[SEAL_KEY]);
