// SPDX-License-Identifier: Apache-2.0
// custody-head: the last signed head of the log, kept in the token so that the token remembers the
// log.
#ifndef PKCS11_HEAD_H
#define PKCS11_HEAD_H

#include <stdbool.h>

#include "checkpoint.h"
#include "token.h"

#define HEAD_OBJECTS_MAX 16

struct head {
    bool present; // a valid one is there
    struct checkpoint checkpoint;
    char note[NOTE_MAX];
    size_t objects; // custody-head objects in the token, valid or not
    CK_OBJECT_HANDLE handles[HEAD_OBJECTS_MAX];
};

// Finds the largest head whose signature `verifier` accepts; NULL (the token has no signing key)
// accepts none.
int head_load(struct token *token, const struct note_key *verifier, struct head *head,
              struct error *err);

// Stores the head that counts from now on, which is a newer one, or after an accepted loss perhaps
// a smaller one (a crash before the larger one is gone leaves that in force): created anew and read
// back before the older objects are destroyed (a data object cannot be changed in place), so that
// at any instant the token holds a whole one. Older objects that the token cannot destroy are no
// failure while the new head is the largest and there are fewer than HEAD_OBJECTS_MAX.
int head_store(struct token *token, const struct checkpoint *checkpoint, const char *note,
               struct head *head, struct error *err);

#endif
