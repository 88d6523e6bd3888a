// SPDX-License-Identifier: Apache-2.0
// The commit: records compared with the file, made durable, signed, and only then what they ask for
// let out.
#ifndef PKCS11_COMMIT_H
#define PKCS11_COMMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "keeper.h"
#include "vault.h"

struct commit;

// Works on `vault`, which must outlive it as the options' operators must, and on the log under the
// options' audit_dir.
int commit_open(struct vault *vault, const struct keeper_options *options, struct commit **commit,
                struct error *err);
void commit_close(struct commit *commit); // NULL is allowed; the head is not written here

// Opens the log where the signed head in `request` says it stands, and checks that against the file
// and the token.
int commit_log_open(struct commit *commit, const struct keeper_log_open *request,
                    struct keeper_log_opened *opened, struct error *err);
// Forgets the log and the entries that wait: what a client leaves is not the next one's.
void commit_log_close(struct commit *commit);

// Takes an entry, `id` being its request's. What is wrong with it is said by the commit.
void commit_add(struct commit *commit, uint64_t id, const struct keeper_entry *entry);

// Commits the entries taken. Returns 0 with `committed` filled and the results ready; -1 with `err`
// when the whole commit is refused: the log is closed then.
int commit_run(struct commit *commit, uint32_t count, struct keeper_committed *committed,
               struct error *err);

// The results of the last commit_run: how many entries there were, and the answer to each; the
// answer's code is its entry's own. Returns false for an entry whose action is NONE: that has no
// answer.
uint32_t commit_results(const struct commit *commit);
bool commit_result(const struct commit *commit, uint32_t index, struct keeper_reply *reply);

// In how many milliseconds the head that waits is due in the token; 0 = now, -1 when none waits.
int commit_head_due(const struct commit *commit);
// Writes it. Does nothing when none waits.
int commit_head_write(struct commit *commit, struct error *err);

#endif
