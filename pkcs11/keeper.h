// SPDX-License-Identifier: Apache-2.0
// The keeper behind its channel: one request in, its answers out.
#ifndef PKCS11_KEEPER_H
#define PKCS11_KEEPER_H

#include <stdbool.h>
#include <stdint.h>

#include "channel.h"
#include "operators.h"

struct keeper_options {
    const char *host;
    const char *token;     // RFC 7512 URI
    const char *audit_dir; // the folder that has log/
    uint64_t releases_per_second;
    const struct operators *operators; // whose signatures accept a loss
    bool approve_by_uid;               // two uids do so as well
    uint32_t head_interval_ms;         // how long custody-head may lag while commits are many
};

struct keeper;

// Finds the token and logs in. Errors as token_open's.
int keeper_open(const struct keeper_options *options, struct keeper **keeper, struct error *err);
// Writes the head that waits, says on standard error if that fails, and logs out. NULL is allowed.
void keeper_close(struct keeper *keeper);

// Sends one answer; 0, or -1 with `err`.
typedef int keeper_send_fn(void *context, const struct keeper_reply *reply, struct error *err);

enum keeper_outcome {
    KEEPER_GOES_ON = 0,
    KEEPER_CHANNEL_LOST, // an answer could not be sent
    KEEPER_TOKEN_LOST,   // the token no longer works: this process must end
};
// Answers one request. `err` says what went wrong unless it goes on.
enum keeper_outcome keeper_answer(struct keeper *keeper, const struct keeper_request *request,
                                  keeper_send_fn *send, void *context, struct error *err);

// How many milliseconds the channel may be idle before keeper_idle wants to be called; -1 for any.
int keeper_patience(const struct keeper *keeper);
// Writes the head that waits into the token.
enum keeper_outcome keeper_idle(struct keeper *keeper, struct error *err);
// Forgets what the client that left had begun.
void keeper_client_gone(struct keeper *keeper);

// How many blobs and which token, for the line that says that the keeper is ready.
void keeper_describe(const struct keeper *keeper, struct keeper_status *status);

#endif
