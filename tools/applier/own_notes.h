// SPDX-License-Identifier: Apache-2.0
// Our own notes in the registry: a bundle for each generation that others need to know of, and the
// freshness note.
#ifndef APPLIER_OWN_NOTES_H
#define APPLIER_OWN_NOTES_H

#include "tended.h"

// Has signed what is missing or says something else, and puts it there; what the registry lost or
// holds something else for is put back as it was signed. Sets `fresh_due_us`.
int own_notes_tend(struct tended *tended, struct error *err);

#endif
