// SPDX-License-Identifier: Apache-2.0
// The log's head in the token.
#include "head.h"

#include <stdio.h>
#include <string.h>

#include "object.h"

#define HEAD_LABEL "custody-head"

int head_load(struct token *token, const struct note_key *verifier, struct head *head,
              struct error *err)
{
    memset(head, 0, sizeof(*head));
    CK_OBJECT_CLASS class = CKO_DATA;
    CK_ATTRIBUTE attributes[] = {
        {CKA_CLASS, &class, sizeof(class)},
        {CKA_APPLICATION, (void *)OBJECT_APPLICATION, sizeof(OBJECT_APPLICATION) - 1},
        {CKA_LABEL, (void *)HEAD_LABEL, sizeof(HEAD_LABEL) - 1},
    };
    if (object_find(token, attributes, 3, head->handles, HEAD_OBJECTS_MAX, &head->objects, err) !=
        0)
        return -1;
    for (size_t i = 0; verifier != NULL && i < head->objects; i++) {
        char note[NOTE_MAX];
        size_t length = 0;
        int got =
            object_read(token, head->handles[i], CKA_VALUE, note, sizeof(note) - 1, &length, err);
        if (got < 0)
            return -1;
        struct checkpoint checkpoint;
        if (got == 1 || checkpoint_open(&checkpoint, note, length, verifier, NULL) != 0)
            continue; // torn by a crash: the one before it is still there
        if (head->present && checkpoint.size <= head->checkpoint.size)
            continue;
        note[length] = '\0';
        head->present = true;
        head->checkpoint = checkpoint;
        memcpy(head->note, note, length + 1);
    }
    return 0;
}

int head_store(struct token *token, const struct checkpoint *checkpoint, const char *note,
               struct head *head, struct error *err)
{
    CK_OBJECT_HANDLE fresh;
    if (object_create_data(token, HEAD_LABEL, note, strlen(note), &fresh, err) != 0)
        return -1;
    // An older one that stays counts for nothing beside a larger one. (SoftHSM cannot destroy an
    // object whose file a power cut tore.) One that is larger must go.
    bool may_stay = !head->present || head->checkpoint.size < checkpoint->size;
    head->present = true;
    head->checkpoint = *checkpoint;
    snprintf(head->note, sizeof(head->note), "%s", note);
    CK_OBJECT_HANDLE old[HEAD_OBJECTS_MAX];
    size_t count = head->objects < HEAD_OBJECTS_MAX ? head->objects : HEAD_OBJECTS_MAX - 1;
    memcpy(old, head->handles, sizeof(old));
    head->objects = 1;
    head->handles[0] = fresh;
    for (size_t i = 0; i < count; i++) {
        if (object_destroy(token, old[i], err) == 0)
            continue;
        head->handles[head->objects++] = old[i]; // to be tried again with the next one
        if (may_stay && head->objects < HEAD_OBJECTS_MAX)
            continue;
        memcpy(head->handles + head->objects, old + i + 1, (count - i - 1) * sizeof(old[0]));
        head->objects += count - i - 1;
        return -1;
    }
    return 0;
}
