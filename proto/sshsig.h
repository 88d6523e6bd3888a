// SPDX-License-Identifier: Apache-2.0
// Verification of SSH signatures as `ssh-keygen -Y sign` makes them (OpenSSH's PROTOCOL.sshsig,
// PROTOCOL.u2f): ed25519 and ecdsa P-256, in software or on a security key.
#ifndef PROTO_SSHSIG_H
#define PROTO_SSHSIG_H

#include <stdbool.h>
#include <stddef.h>

#include "error.h"

#define SSHSIG_BLOB_MAX 1024 // bytes of a signature or a public key, decoded

// Verifies `signature` (canonical base64 of the whole SSHSIG blob, no armour) over the message, by
// `public_key` ("TYPE BASE64", without a comment) in namespace `name_space`. A security key must
// have seen its user touch it.
int sshsig_verify(const char *public_key, const char *name_space, const void *message,
                  size_t length, const char *signature, struct error *err);

// The public key ("TYPE BASE64") that a signature says it is by; nothing is verified.
int sshsig_signer(const char *signature, char *public_key, size_t size, struct error *err);

// Whether the text is a public key of a type that sshsig_verify knows: "TYPE BASE64", one blank,
// nothing else.
int sshsig_check_key(const char *public_key, struct error *err);

// Takes the base64 out of the armoured file that ssh-keygen writes ("-----BEGIN SSH
// SIGNATURE-----"). `base64` (room for `size` bytes) becomes NUL-terminated.
int sshsig_from_armour(const char *text, size_t length, char *base64, size_t size,
                       struct error *err);

#endif
