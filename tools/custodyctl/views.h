// SPDX-License-Identifier: Apache-2.0
// What is true of keys as a whole: their rotations, what holds them, and their counterparts.
#ifndef CUSTODYCTL_VIEWS_H
#define CUSTODYCTL_VIEWS_H

#include <stddef.h>

#include <jansson.h>

#include "custody.h"

struct views; // opaque: of several keys

// The views of the keys that `keys` names, as far as the caller may have them. NULL when out of
// memory; the functions below take that for none.
struct views *views_get(struct custody *custody, const struct custody_key *keys, size_t count);
void views_free(struct views *views);
size_t views_count(const struct views *views);
const struct custody_view *views_at(const struct views *views, size_t i);
const struct custody_view *views_find(const struct views *views, const char *key);

// One or a few lines: "wg0   rotating to generation 2 since ...".
void views_print_line(const struct custody_view *view);
json_t *views_json(const struct custody_view *view);

// "staged", "moved", "retired"; "unknown" for what is none of them.
const char *views_peer_state(enum custody_peer_state state);
// What a step was, for people, without its time: "acknowledged by beta wg0: staged".
#define VIEWS_STEP_SIZE 1024
const char *views_step(const struct custody_step *step, char text[VIEWS_STEP_SIZE]);
// Prints "HH:MM:SS  STEP" for each step after the record `seq`; returns the last one's, or `seq`.
uint64_t views_print_steps(const struct custody_view *view, uint64_t seq);

#endif
