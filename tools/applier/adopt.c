// SPDX-License-Identifier: Apache-2.0
// The steps of an adoption. What was done is read from the log and the interface, never remembered:
// so each can be the first.
#include "adopt.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "adopt_told.h"
#include "counterparts.h"
#include "session.h"

#define SERVED_MS  15000 // for the running applier to publish a bundle
#define CONTACT_MS 5000  // for it to take up what counterparts have published
#define AFTER_MS   15000 // beyond a rotation's window
#define PIECE_MS   500   // between two looks
#define KEY_TEXT   sodium_base64_ENCODED_LEN(DEVICE_KEY_SIZE, sodium_base64_VARIANT_ORIGINAL)

enum { ADOPTED = 0, TO_CHANGE = 1 };

struct adoption {
    struct session session;
    const char *path; // of the configuration
    const struct setup_interface *setup;
    struct tended *tended;
};

static int fail(const struct error *err, int status)
{
    fprintf(stderr, "custody-applier: %s\n", err->message);
    return status;
}

static bool is_on_device(const struct adoption *adoption, const struct custody_key *key)
{
    return key != NULL && sodium_memcmp(key->public_key, adoption->tended->there->public_key,
                                        DEVICE_KEY_SIZE) == 0;
}

static const struct custody_key *active(const struct adoption *adoption)
{
    return plan_in_state(adoption->tended->view, CUSTODY_KEY_ACTIVE);
}

// Reads log and interface anew.
static int look(struct adoption *adoption, struct error *err)
{
    if (tended_ask(adoption->tended, err) != 0)
        return -1;
    return tended_read(adoption->tended, err);
}

// Looks until `reached` says so (1), or the time is over (0).
static int wait_until(struct adoption *adoption, bool (*reached)(const struct adoption *), int ms,
                      struct error *err)
{
    int64_t until = device_now_ms() + ms;
    for (;;) {
        if (look(adoption, err) != 0)
            return -1;
        if (reached(adoption))
            return 1;
        if (device_now_ms() >= until)
            return 0;
        poll(NULL, 0, PIECE_MS);
    }
}

// ---- the interface as it was made by hand ----

static const struct device_peer *find_by_hand(const struct adoption *adoption,
                                              const struct setup_peer *setup)
{
    const struct device_view *there = adoption->tended->there;
    for (size_t i = 0; i < there->peer_count; i++)
        if (plan_has_allowed_ips(&there->peers[i], setup))
            return &there->peers[i];
    return NULL;
}

static bool is_managed(const struct adoption *adoption, const struct device_peer *peer)
{
    for (size_t i = 0; i < adoption->setup->peer_count; i++)
        if (plan_has_allowed_ips(peer, &adoption->setup->peers[i]))
            return true;
    return false;
}

static int check_peers(const struct adoption *adoption)
{
    const struct device_view *there = adoption->tended->there;
    int rc = 0;
    for (size_t i = 0; i < adoption->setup->peer_count; i++) {
        const struct setup_peer *peer = &adoption->setup->peers[i];
        if (find_by_hand(adoption, peer) != NULL)
            continue;
        fprintf(stderr,
                "custody-applier: %s has no peer with exactly the allowed-ips that %s says of "
                "peer \"%s\" (the first is %s/%d): make them alike (wg show %s allowed-ips)\n",
                adoption->setup->name, adoption->path, peer->host,
                peer->allowed_ips[0].address.text, peer->allowed_ips[0].bits,
                adoption->setup->name);
        rc = -1;
    }
    for (size_t i = 0; i < there->peer_count; i++) {
        char text[KEY_TEXT];
        if (is_managed(adoption, &there->peers[i]))
            continue;
        sodium_bin2base64(text, sizeof text, there->peers[i].public_key, DEVICE_KEY_SIZE,
                          sodium_base64_VARIANT_ORIGINAL);
        printf("%s: peer %s is in no section of %s: it stays as it is, managed by nobody (its "
               "configuration has to follow our rotations by hand)\n",
               adoption->setup->name, text, adoption->path);
    }
    return rc;
}

// ---- importing ----

static int import(struct adoption *adoption, struct error *err)
{
    const char *key = adoption->setup->key;
    struct custody_error theirs = {0};
    struct custody_key imported;
    uint8_t *private_key = sodium_malloc(DEVICE_KEY_SIZE);
    const struct device_ops *device =
        device_select(adoption->session.settings.backend, adoption->setup->name);
    if (private_key == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "no guarded memory for a private key");
    int rc = device->get_private_key(adoption->setup->name, private_key, err);
    if (rc == 0 && custody_key_import(adoption->session.custody, key, NULL, private_key, &imported,
                                      &theirs) != 0)
        rc = error_set(err, (enum error_code)theirs.code, "key '%s': importing: %s: %s%s", key,
                       custody_code_name(theirs.code), theirs.message,
                       theirs.code == CUSTODY_PERMISSION_DENIED
                           ? " (adoption needs a grant with the reason ROTATION)"
                           : "");
    sodium_free(private_key); // wipes
    if (rc != 0)
        return -1;
    printf("%s: its private key is imported, as key %s generation %" PRIu64
           ": it is active until the rotation off it\n",
           adoption->setup->name, key, imported.generation);
    return look(adoption, err);
}

// Whether the key is to be imported still: 1; 0: it was; -1: neither can be.
static int needs_import(const struct adoption *adoption, struct error *err)
{
    const char *key = adoption->setup->key;
    const struct custody_key *next = plan_in_state(adoption->tended->view, CUSTODY_KEY_PRE_ACTIVE);
    if (sodium_is_zero(adoption->tended->there->public_key, DEVICE_KEY_SIZE))
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "interface '%s' has no private key: there is nothing to adopt "
                         "(custodyctl key generate %s, then custody-applier run)",
                         adoption->setup->name, key);
    if (active(adoption) != NULL) {
        bool rotating = adoption->tended->view->rotation_generation != 0;
        if (is_on_device(adoption, active(adoption)) || (rotating && is_on_device(adoption, next)))
            return 0;
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "interface '%s' has another private key than key '%s' generation %" PRIu64
                         ", which the log says is active: see custody-applier drift",
                         adoption->setup->name, key, active(adoption)->generation);
    }
    if (next != NULL && !is_on_device(adoption, next))
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "key '%s' has generation %" PRIu64 ", which was never used: custodyctl "
                         "key destroy %s %" PRIu64 ", then adopt again",
                         key, next->generation, key, next->generation);
    return 1;
}

// ---- the applier that runs, and the counterparts ----

static bool is_published(const struct adoption *adoption)
{
    const struct custody_view *view = adoption->tended->view;
    return active(adoption) != NULL && view->bundle_generation >= active(adoption)->generation;
}

static const char *not_served(void)
{
    return "no custody-applier run publishes its bundle: start one here with this configuration "
           "(systemctl start custody-applier), then adopt again: it carries on";
}

static bool is_ready(const struct adoption *adoption, const struct setup_peer *peer)
{
    return peer->required == SETUP_REQUIRED_NO ||
           plan_current(adoption->tended->view, peer->host, peer->key) != NULL;
}

static bool all_ready(const struct adoption *adoption)
{
    for (size_t i = 0; i < adoption->setup->peer_count; i++)
        if (!is_ready(adoption, &adoption->setup->peers[i]))
            return false;
    return true;
}

// Why nothing is known of a counterpart yet, and what is to be done about it.
static void explain(struct adoption *adoption, const struct tended_peer *peer)
{
    const char *host = peer->setup->host, *trust = adoption->session.setup->trust_file;
    const struct refusals *refusals = counterpart_refusals(peer->counterpart);
    fprintf(stderr, "custody-applier: %s is not ready:\n", host);
    if (trust_find(adoption->session.trust, host) == NULL)
        fprintf(stderr,
                "  it is not trusted here: custodyctl host trust add %s VKEY --file=%s (its "
                "custodyctl status shows VKEY), then reload custody-applier\n",
                host, trust);
    else if (refusals->count > 0)
        fprintf(stderr, "  a note of it is refused: %s: %s: %s\n", refusals->items[0].path,
                refusal_kind_name(refusals->items[0].kind), refusals->items[0].message);
    else if (!peer->says.has_active)
        fprintf(stderr,
                "  its registry folder %s/%s has no bundle of an active key: on %s, run "
                "custody-applier adopt (or give it a key of custody's) and custody-applier run, "
                "with the same registry\n",
                host, peer->setup->key, host);
    else
        fprintf(stderr, "  its bundle is there, but no custody-applier run has taken it up here\n");
}

static int check_ready(struct adoption *adoption, struct error *err)
{
    int rc = wait_until(adoption, all_ready, CONTACT_MS, err);
    if (rc < 0)
        return -1;
    if (rc > 0)
        return 0;
    if (counterparts_read(adoption->tended, err) != 0)
        return -1;
    for (size_t i = 0; i < adoption->tended->peer_count; i++)
        if (!is_ready(adoption, adoption->tended->peers[i].setup))
            explain(adoption, &adoption->tended->peers[i]);
    return error_set(err, ERROR_FAILED_PRECONDITION,
                     "%s stays on its old key until that is changed; then adopt again: it "
                     "carries on",
                     adoption->setup->name);
}

// ---- rotating ----

static int start_rotation(struct adoption *adoption, struct error *err)
{
    const char *key = adoption->setup->key;
    struct custody_error theirs = {0};
    struct custody_view *view = NULL;
    if (adoption->tended->view->rotation_generation != 0)
        return 0;
    if (custody_key_rotate(adoption->session.custody, key, NULL, "adoption", &view, &theirs) == 0) {
        custody_view_free(view);
        return look(adoption, err);
    }
    // One that custodyd began by its schedule a moment ago does as well.
    if (look(adoption, err) == 0 && adoption->tended->view->rotation_generation != 0)
        return 0;
    if (theirs.code == CUSTODY_PERMISSION_DENIED)
        return error_set(err, ERROR_PERMISSION_DENIED,
                         "key '%s': a rotation is an operator's to begin; let one run\n"
                         "  custodyctl key rotate %s --wait\n"
                         "and then adopt again: it carries on",
                         key, key);
    return error_set(err, (enum error_code)theirs.code, "key '%s': beginning the rotation: %s: %s",
                     key, custody_code_name(theirs.code), theirs.message);
}

static bool has_acknowledged(const struct custody_view *view, const struct setup_peer *peer)
{
    for (size_t i = 0; i < view->step_count; i++)
        if (strcmp(view->steps[i].event, "peer.acknowledged") == 0 &&
            strcmp(view->steps[i].peer, peer->host) == 0)
            return true;
    return false;
}

// Whose acknowledgement the rotation lacks, and what that counterpart needs.
static void explain_missing(const struct adoption *adoption)
{
    const struct tended_world *world = adoption->tended->world;
    for (size_t i = 0; i < adoption->setup->peer_count; i++) {
        const struct setup_peer *peer = &adoption->setup->peers[i];
        if (peer->required == SETUP_REQUIRED_NO || has_acknowledged(adoption->tended->view, peer))
            continue;
        fprintf(stderr,
                "custody-applier: %s has not staged our next key. There, check that\n"
                "  - it trusts us: custodyctl host trust add %s '%s'\n"
                "  - its applier.conf has, in its interface, peer \"%s\" { key = \"%s\" ... }\n"
                "  - custody-applier run is running, and no rotation of its own is under way\n",
                peer->host, world->own_host, world->own_host_vkey, world->own_host,
                adoption->setup->key);
    }
}

static bool has_ended(const struct adoption *adoption)
{
    return adoption->tended->view->rotation_generation == 0;
}

static const char *last_detail(const struct custody_view *view)
{
    for (size_t i = view->step_count; i > 0; i--)
        if (strcmp(view->steps[i - 1].event, "rotation.rolled-back") == 0)
            return view->steps[i - 1].detail;
    return "see custodyctl key history";
}

static int follow_rotation(struct adoption *adoption, struct error *err)
{
    const struct setup_interface *setup = adoption->setup;
    uint32_t window_s = setup->window_s != 0 ? setup->window_s : adoption->tended->view->window_s;
    uint64_t generation = adoption->tended->view->rotation_generation;
    printf("%s: rotating to generation %" PRIu64 "\n", setup->name, generation);
    fflush(stdout);
    int rc = wait_until(adoption, has_ended, (int)(window_s * 1000) + AFTER_MS, err);
    if (rc < 0)
        return -1;
    if (rc == 0 && adoption->tended->view->bundle_generation < generation)
        return error_set(err, ERROR_FAILED_PRECONDITION, "%s: %s", setup->name, not_served());
    if (rc == 0) {
        explain_missing(adoption);
        return error_set(err, ERROR_DEADLINE_EXCEEDED,
                         "%s: the rotation to generation %" PRIu64 " has not ended within its "
                         "window: custodyctl key history %s",
                         setup->name, generation, setup->key);
    }
    if (active(adoption) != NULL && !active(adoption)->imported)
        return 0;
    explain_missing(adoption);
    return error_set(err, ERROR_FAILED_PRECONDITION,
                     "%s: the rotation was rolled back, and nothing was lost: %s; once that is "
                     "changed, adopt again",
                     setup->name, last_detail(adoption->tended->view));
}

// ---- all of it ----

static int rotate_off(struct adoption *adoption, struct error *err)
{
    int rc = wait_until(adoption, is_published, SERVED_MS, err);
    if (rc < 0)
        return -1;
    if (rc == 0)
        return error_set(err, ERROR_FAILED_PRECONDITION, "%s: %s", adoption->setup->name,
                         not_served());
    if (check_ready(adoption, err) != 0 || start_rotation(adoption, err) != 0)
        return -1;
    return follow_rotation(adoption, err);
}

static int status_of(const struct error *err)
{
    switch (err->code) {
    case ERROR_UNAVAILABLE:
        return SESSION_UNREACHABLE;
    case ERROR_NOT_FOUND:
        return SESSION_NO_DEVICE;
    default:
        return TO_CHANGE;
    }
}

static int adopt(struct adoption *adoption)
{
    struct error err = {.code = ERROR_OK};
    if (adoption->tended->view->suspended) {
        error_set(&err, ERROR_FAILED_PRECONDITION,
                  "key '%s' is suspended by an operator: custodyctl key resume %s",
                  adoption->setup->key, adoption->setup->key);
        return fail(&err, TO_CHANGE);
    }
    int needed = needs_import(adoption, &err);
    if (needed < 0)
        return fail(&err, TO_CHANGE);
    if (needed > 0) {
        if (check_peers(adoption) != 0)
            return TO_CHANGE;
        if (import(adoption, &err) != 0)
            return fail(&err, status_of(&err));
    }
    if ((active(adoption) == NULL || active(adoption)->imported) && rotate_off(adoption, &err) != 0)
        return fail(&err, status_of(&err));
    adopt_tell_done(adoption->setup, adoption->tended->view);
    return fflush(stdout) == 0 ? ADOPTED : TO_CHANGE;
}

static int begin(struct adoption *adoption, const char *interface)
{
    enum session_status status;
    struct error err = {.code = ERROR_OK};
    adoption->setup = setup_find(adoption->session.setup, interface);
    if (adoption->setup == NULL) {
        error_set(&err, ERROR_NOT_FOUND, "%s: no interface \"%s\" is configured", adoption->path,
                  interface);
        return fail(&err, SESSION_NO_DEVICE);
    }
    if (adoption->session.registry == NULL) {
        error_set(&err, ERROR_INVALID_ARGUMENT,
                  "%s: 'registry' is missing: without one no counterpart can follow a rotation",
                  adoption->path);
        return fail(&err, SESSION_WRONG);
    }
    adoption->tended = session_look(&adoption->session, adoption->setup, &status, &err);
    if (adoption->tended == NULL)
        return fail(&err, (int)status);
    int rc = adopt(adoption);
    tended_free(adoption->tended);
    return rc;
}

int adopt_command(const char *path, const struct apply_settings *settings, const char *interface)
{
    struct adoption adoption = {.path = path};
    struct error err = {.code = ERROR_OK};
    enum session_status status = session_open(&adoption.session, path, settings, &err);
    int rc = status == SESSION_OK ? begin(&adoption, interface) : fail(&err, (int)status);
    session_close(&adoption.session);
    return rc;
}
