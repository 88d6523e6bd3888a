// SPDX-License-Identifier: Apache-2.0
// libcustody: views of keys, the steps of a rotation, and what operators ask about keys as a whole.
#include "client.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "custody.h"

#define VIEW_PEERS_MAX 1000000 // no more are taken from a custodyd gone mad
#define VIEW_ATTEMPTS  32      // to get all parts of a view before its state changes
#define VIEW_CHANGED   2

// ---- from the wire's messages to the caller's structs; false when a field does not fit ----

static bool take_peer(struct custody_peer *out, const Custody__V1__Peer *peer)
{
    if (peer->public_key.len != sizeof(out->public_key) ||
        !client_text(out->host, sizeof(out->host), peer->host) ||
        !client_text(out->key, sizeof(out->key), peer->key))
        return false;
    memcpy(out->public_key, peer->public_key.data, sizeof(out->public_key));
    out->generation = peer->generation;
    out->state = (enum custody_peer_state)peer->state;
    out->staged_us = peer->staged_us;
    out->moved_us = peer->moved_us;
    out->retired_us = peer->retired_us;
    return true;
}

static bool take_psk(struct custody_psk *out, const Custody__V1__Psk *psk)
{
    out->made = psk->made;
    out->received = psk->received;
    out->set = psk->set;
    out->made_us = psk->made_us;
    out->received_us = psk->received_us;
    out->set_us = psk->set_us;
    out->due_us = psk->due_us;
    return client_text(out->host, sizeof(out->host), psk->host) &&
           client_text(out->key, sizeof(out->key), psk->key);
}

static bool take_receive_key(struct custody_view *out, const ProtobufCBinaryData *key)
{
    out->has_receive_key = key->len != 0;
    if (key->len == sizeof(out->receive_key))
        memcpy(out->receive_key, key->data, sizeof(out->receive_key));
    return key->len == 0 || key->len == sizeof(out->receive_key);
}

static bool is_after(const struct custody_peer *peer, const struct custody_peer *other)
{
    int order = strcmp(peer->host, other->host);
    if (order == 0)
        order = strcmp(peer->key, other->key);
    return order > 0 || (order == 0 && peer->generation > other->generation);
}

// Each after the one before, for whoever looks one up.
static bool take_peers(struct custody_view *out, const Custody__V1__KeyView *view)
{
    for (size_t i = 0; i < view->n_peers; i++) {
        struct custody_peer *peer = &out->peers[out->peer_count];
        if (!take_peer(peer, view->peers[i]) || (out->peer_count > 0 && !is_after(peer, peer - 1)))
            return false;
        out->peer_count++;
    }
    return true;
}

static bool take_psks(struct custody_view *out, const Custody__V1__KeyView *view)
{
    bool sound = true;
    for (size_t i = 0; i < view->n_psks && sound; i++)
        sound = take_psk(&out->psks[out->psk_count++], view->psks[i]);
    return sound;
}

// A detail is for people: one that is too long is cut.
static bool take_step(struct custody_step *out, const Custody__V1__Step *step)
{
    out->seq = step->seq;
    out->time_us = step->time_us;
    out->generation = step->generation;
    out->peer_state = (enum custody_peer_state)step->peer_state;
    client_text(out->detail, sizeof(out->detail), step->detail);
    return client_text(out->event, sizeof(out->event), step->event) &&
           client_text(out->peer, sizeof(out->peer), step->peer) &&
           client_text(out->peer_key, sizeof(out->peer_key), step->peer_key);
}

static bool take_rotation(struct custody_view *out, const Custody__V1__Rotation *rotation)
{
    if (rotation == NULL)
        return false;
    out->rotation_generation = rotation->generation;
    out->rotation_reason = (enum custody_reason)rotation->reason;
    out->rotation_started_us = rotation->started_us;
    out->rotation_ended_us = rotation->ended_us;
    out->rotation_failures = rotation->failures;
    out->suspended = rotation->suspended;
    out->bundle_generation = rotation->bundle_generation;
    out->bundle_state = (enum custody_bundle_state)rotation->bundle_state;
    return client_text(out->rotation_ticket, sizeof(out->rotation_ticket), rotation->ticket) &&
           client_text(out->bundle_sha256, sizeof(out->bundle_sha256), rotation->bundle_sha256);
}

static void take_policy(struct custody_view *out, const Custody__V1__RotationPolicy *policy)
{
    if (policy == NULL)
        return;
    out->lifetime_s = policy->lifetime_s;
    out->grace_s = policy->grace_s;
    out->window_s = policy->window_s;
    out->jitter_s = policy->jitter_s;
    out->psk_lifetime_s = policy->psk_lifetime_s;
    out->not_after_s = policy->not_after_s;
}

static bool take_lists(struct custody_view *out, const Custody__V1__KeyView *view)
{
    bool sound = take_peers(out, view);
    for (size_t i = 0; i < view->n_generations && sound; i++)
        sound = client_key(&out->generations[out->generation_count++], view->generations[i]);
    sound = sound && take_psks(out, view);
    for (size_t i = 0; i < view->n_steps && sound; i++)
        sound = take_step(&out->steps[out->step_count++], view->steps[i]);
    return sound;
}

static bool take_view(struct custody_view *out, const Custody__V1__KeyView *view)
{
    out->next_rotation_us = view->next_rotation_us;
    out->seq = view->seq;
    take_policy(out, view->policy);
    return client_text(out->key, sizeof(out->key), view->key) &&
           take_rotation(out, view->rotation) && take_receive_key(out, &view->receive_key) &&
           take_lists(out, view);
}

void custody_view_free(struct custody_view *view)
{
    if (view == NULL)
        return;
    free(view->generations);
    free(view->peers);
    free(view->psks);
    free(view->steps);
    free(view);
}

// Room for a view with as much in it; NULL when out of memory.
static struct custody_view *new_view(const Custody__V1__KeyView *view)
{
    struct custody_view *out = calloc(1, sizeof(*out));
    if (out == NULL)
        return NULL;
    out->generations = calloc(view->n_generations + 1, sizeof(*out->generations));
    out->peers = calloc(view->n_peers + 1, sizeof(*out->peers));
    out->steps = calloc(view->n_steps + 1, sizeof(*out->steps));
    out->psks = calloc(view->n_psks + 1, sizeof(*out->psks));
    if (out->generations != NULL && out->peers != NULL && out->steps != NULL && out->psks != NULL)
        return out;
    custody_view_free(out);
    return NULL;
}

// ---- calls that are answered with a view ----

// Asks for what comes after the peers that `view` has, and takes it. 1: there is more; 2: the state
// is another by now; -1 with `err`.
static int take_more(struct custody *custody, const char *key, uint64_t as_of,
                     struct custody_view *view, struct custody_error *err)
{
    struct error error;
    Custody__V1__Response *answer = NULL;
    Custody__V1__GetView body = CUSTODY__V1__GET_VIEW__INIT;
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    body.key = client_string(key);
    body.peers_from = view->peer_count + view->psk_count;
    body.as_of = as_of;
    request.body_case = CUSTODY__V1__REQUEST__BODY_GET_VIEW;
    request.get_view = &body;
    if (client_call(custody, &request, CUSTODY__V1__RESPONSE__BODY_KEY_VIEW, &answer, &error) < 0)
        return error.code == ERROR_ABORTED ? 2 : client_fail(&error, err);
    const Custody__V1__KeyView *page = answer->key_view;
    bool more = page->more_peers;
    struct custody_peer *peers =
        reallocarray(view->peers, view->peer_count + page->n_peers + 1, sizeof(*peers));
    if (peers != NULL)
        view->peers = peers;
    struct custody_psk *psks =
        reallocarray(view->psks, view->psk_count + page->n_psks + 1, sizeof(*psks));
    if (psks != NULL)
        view->psks = psks;
    if (peers == NULL || psks == NULL) {
        client_free(answer);
        error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory for the view of a key");
        return client_fail(&error, err);
    }
    bool sound = page->as_of == as_of && (page->n_peers + page->n_psks > 0 || !more) &&
                 view->peer_count + page->n_peers <= VIEW_PEERS_MAX &&
                 view->psk_count + page->n_psks <= VIEW_PEERS_MAX && take_peers(view, page) &&
                 take_psks(view, page);
    return client_finish(custody, answer, sound, err) < 0 ? -1 : more;
}

// Turns an answer into the view, as far as it goes. The answer is freed.
static int take_first(struct custody *custody, Custody__V1__Response *answer,
                      struct custody_view **out, uint64_t *as_of, bool *more,
                      struct custody_error *err)
{
    struct error error;
    struct custody_view *view = new_view(answer->key_view);
    if (view == NULL) {
        client_free(answer);
        error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory for the view of a key");
        return client_fail(&error, err);
    }
    *as_of = answer->key_view->as_of;
    *more = answer->key_view->more_peers;
    if (client_finish(custody, answer, take_view(view, answer->key_view), err) < 0) {
        custody_view_free(view);
        return -1;
    }
    *out = view;
    return 0;
}

// `*out` (may be NULL) becomes the view. VIEW_CHANGED: the state changed between its parts.
static int call_for_view(struct custody *custody, Custody__V1__Request *request,
                         struct custody_view **out, struct custody_error *err)
{
    struct error error;
    Custody__V1__Response *answer = NULL;
    struct custody_view *view = NULL;
    uint64_t as_of = 0;
    bool more = false;
    if (out != NULL)
        *out = NULL;
    if (client_call(custody, request, CUSTODY__V1__RESPONSE__BODY_KEY_VIEW, &answer, &error) < 0)
        return client_fail(&error, err);
    if (out == NULL)
        return client_finish(custody, answer, true, err);
    if (take_first(custody, answer, &view, &as_of, &more, err) < 0)
        return -1;
    int rc = more;
    while (rc == 1)
        rc = take_more(custody, view->key, as_of, view, err);
    if (rc == 0) {
        *out = view;
        return 0;
    }
    custody_view_free(view);
    return rc == 2 ? VIEW_CHANGED : -1;
}

int custody_get_view(struct custody *custody, const char *key, struct custody_view **out,
                     struct custody_error *err)
{
    struct error error;
    int rc = VIEW_CHANGED;
    for (int i = 0; i < VIEW_ATTEMPTS && rc == VIEW_CHANGED; i++) {
        Custody__V1__GetView body = CUSTODY__V1__GET_VIEW__INIT;
        Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
        body.key = client_string(key);
        request.body_case = CUSTODY__V1__REQUEST__BODY_GET_VIEW;
        request.get_view = &body;
        rc = call_for_view(custody, &request, out, err);
    }
    if (rc != VIEW_CHANGED)
        return rc;
    error_set(&error, ERROR_ABORTED,
              "the state of key '%s' changes faster than its view can be read: try again", key);
    return client_fail(&error, err);
}

// The same of a request that changes something, which is not made twice.
static int call_and_view(struct custody *custody, Custody__V1__Request *request, const char *key,
                         struct custody_view **out, struct custody_error *err)
{
    int rc = call_for_view(custody, request, out, err);
    return rc == VIEW_CHANGED ? custody_get_view(custody, key, out, err) : rc;
}

int custody_end_rotation(struct custody *custody, const char *key, uint64_t generation,
                         bool confirmed, const char *method, const char *detail,
                         struct custody_error *err)
{
    Custody__V1__EndRotation body = CUSTODY__V1__END_ROTATION__INIT;
    body.key = client_string(key);
    body.generation = generation;
    body.confirmed = confirmed;
    body.method = client_string(method);
    body.detail = client_string(detail);
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_END_ROTATION;
    request.end_rotation = &body;
    return call_for_view(custody, &request, NULL, err);
}

int custody_key_rotate(struct custody *custody, const char *key, const char *ticket,
                       const char *reason, struct custody_view **out, struct custody_error *err)
{
    Custody__V1__RotateKey body = CUSTODY__V1__ROTATE_KEY__INIT;
    body.key = client_string(key);
    body.ticket = client_string(ticket);
    body.reason = client_string(reason);
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_ROTATE_KEY;
    request.rotate_key = &body;
    return call_and_view(custody, &request, key, out, err);
}

int custody_key_suspend(struct custody *custody, const char *key, const char *ticket,
                        struct custody_view **out, struct custody_error *err)
{
    Custody__V1__SuspendKey body = CUSTODY__V1__SUSPEND_KEY__INIT;
    body.key = client_string(key);
    body.ticket = client_string(ticket);
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_SUSPEND_KEY;
    request.suspend_key = &body;
    return call_and_view(custody, &request, key, out, err);
}

int custody_key_resume(struct custody *custody, const char *key, const char *ticket,
                       struct custody_view **out, struct custody_error *err)
{
    Custody__V1__ResumeKey body = CUSTODY__V1__RESUME_KEY__INIT;
    body.key = client_string(key);
    body.ticket = client_string(ticket);
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_RESUME_KEY;
    request.resume_key = &body;
    return call_and_view(custody, &request, key, out, err);
}

int custody_key_revoke(struct custody *custody, const char *key, uint64_t generation,
                       const char *ticket, struct custody_view **out, struct custody_error *err)
{
    Custody__V1__RevokeKey body = CUSTODY__V1__REVOKE_KEY__INIT;
    body.key = client_string(key);
    body.ticket = client_string(ticket);
    body.generation = generation;
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_REVOKE_KEY;
    request.revoke_key = &body;
    return call_and_view(custody, &request, key, out, err);
}

// ---- calls that are answered with a note, or with nothing ----

// Hands the note of a sound answer over, and ends the call.
static int finish_note(struct custody *custody, Custody__V1__Response *answer, const char *note,
                       bool wanted, char *out, size_t size, struct custody_error *err)
{
    struct error error;
    bool sound = !wanted || note[0] != '\0';
    if (client_note(out, size, note, &error) < 0) {
        client_free(answer);
        return client_fail(&error, err);
    }
    return client_finish(custody, answer, sound, err);
}

int custody_record_peer(struct custody *custody, const struct custody_peer_step *step, char *note,
                        size_t size, struct custody_error *err)
{
    struct error error;
    Custody__V1__RecordPeer body = CUSTODY__V1__RECORD_PEER__INIT;
    body.key = client_string(step->key);
    body.state = (Custody__V1__PeerState)step->state;
    body.peer = client_string(step->peer);
    body.peer_key = client_string(step->peer_key);
    body.generation = step->generation;
    if (step->public_key != NULL)
        body.public_key = (ProtobufCBinaryData){CUSTODY_KEY_SIZE, (uint8_t *)step->public_key};
    body.move_sha256 = client_string(step->move_sha256);
    body.acknowledged = (Custody__V1__PeerState)step->acknowledged;
    body.detail = client_string(step->detail);
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_RECORD_PEER;
    request.record_peer = &body;
    Custody__V1__Response *answer = NULL;
    if (client_call(custody, &request, CUSTODY__V1__RESPONSE__BODY_PEER_RECORDED, &answer, &error) <
        0)
        return client_fail(&error, err);
    bool wanted = step->state == CUSTODY_PEER_STAGED || step->state == CUSTODY_PEER_RETIRED;
    return finish_note(custody, answer, answer->peer_recorded->note, wanted, note, size, err);
}

int custody_key_refresh(struct custody *custody, const char *key, char *note, size_t size,
                        struct custody_error *err)
{
    struct error error;
    Custody__V1__RefreshKey body = CUSTODY__V1__REFRESH_KEY__INIT;
    body.key = client_string(key);
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_REFRESH_KEY;
    request.refresh_key = &body;
    Custody__V1__Response *answer = NULL;
    if (client_call(custody, &request, CUSTODY__V1__RESPONSE__BODY_FRESHNESS, &answer, &error) < 0)
        return client_fail(&error, err);
    return finish_note(custody, answer, answer->freshness->note, true, note, size, err);
}

int custody_record_finding(struct custody *custody, const char *key, enum custody_finding finding,
                           const char *peer, const char *peer_key, const char *detail,
                           struct custody_error *err)
{
    struct error error;
    Custody__V1__RecordFinding body = CUSTODY__V1__RECORD_FINDING__INIT;
    body.key = client_string(key);
    body.finding = (Custody__V1__Finding)finding;
    body.peer = client_string(peer);
    body.peer_key = client_string(peer_key);
    body.detail = client_string(detail);
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_RECORD_FINDING;
    request.record_finding = &body;
    Custody__V1__Response *answer = NULL;
    if (client_call(custody, &request, CUSTODY__V1__RESPONSE__BODY__NOT_SET, &answer, &error) < 0)
        return client_fail(&error, err);
    return client_finish(custody, answer, true, err);
}

// ---- preshared keys ----

// Asks for what is answered with psk_recorded.
static int call_for_psk(struct custody *custody, Custody__V1__Request *request, char *note,
                        size_t size, struct custody_error *err)
{
    struct error error;
    Custody__V1__Response *answer = NULL;
    if (client_call(custody, request, CUSTODY__V1__RESPONSE__BODY_PSK_RECORDED, &answer, &error) <
        0)
        return client_fail(&error, err);
    return finish_note(custody, answer, answer->psk_recorded->note, true, note, size, err);
}

int custody_psk_make(struct custody *custody, const struct custody_link *link, uint64_t epoch,
                     const uint8_t *receive_key, char *note, size_t size, struct custody_error *err)
{
    Custody__V1__MakePsk body = CUSTODY__V1__MAKE_PSK__INIT;
    body.key = client_string(link->key);
    body.peer = client_string(link->peer);
    body.peer_key = client_string(link->peer_key);
    body.epoch = epoch;
    body.receive_key = (ProtobufCBinaryData){CUSTODY_KEY_SIZE, (uint8_t *)receive_key};
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_MAKE_PSK;
    request.make_psk = &body;
    return call_for_psk(custody, &request, note, size, err);
}

int custody_psk_take(struct custody *custody, const struct custody_link *link, uint64_t epoch,
                     const uint8_t *box, char *note, size_t size, struct custody_error *err)
{
    Custody__V1__TakePsk body = CUSTODY__V1__TAKE_PSK__INIT;
    body.key = client_string(link->key);
    body.peer = client_string(link->peer);
    body.peer_key = client_string(link->peer_key);
    body.epoch = epoch;
    body.box = (ProtobufCBinaryData){CUSTODY_BOX_SIZE, (uint8_t *)box};
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_TAKE_PSK;
    request.take_psk = &body;
    return call_for_psk(custody, &request, note, size, err);
}

int custody_psk_set(struct custody *custody, const struct custody_link *link, uint64_t epoch,
                    const char *detail, char *note, size_t size, struct custody_error *err)
{
    Custody__V1__SetPsk body = CUSTODY__V1__SET_PSK__INIT;
    body.key = client_string(link->key);
    body.peer = client_string(link->peer);
    body.peer_key = client_string(link->peer_key);
    body.epoch = epoch;
    body.detail = client_string(detail);
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_SET_PSK;
    request.set_psk = &body;
    return call_for_psk(custody, &request, note, size, err);
}
