// SPDX-License-Identifier: Apache-2.0
// Looks at each interface, repairs on demand, prints.
#include "drift_command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <sodium.h>

#include "counterparts.h"
#include "drifts.h"
#include "session.h"

struct comparison {
    struct session session;
    bool repair;
    json_t *all; // NULL: plain words
    size_t drifts;
    int status; // the worst so far
};

// ---- printing ----

static json_t *as_json(const struct setup_interface *setup, const struct drift_finding *finding)
{
    char key[sodium_base64_ENCODED_LEN(DEVICE_KEY_SIZE, sodium_base64_VARIANT_ORIGINAL)] = "";
    if (finding->has_public_key)
        sodium_bin2base64(key, sizeof key, finding->public_key, DEVICE_KEY_SIZE,
                          sodium_base64_VARIANT_ORIGINAL);
    return json_pack("{s:s, s:s, s:s, s:b, s:b, s:s*, s:s*, s:I, s:s, s:s}", "interface",
                     setup->name, "key", setup->key, "kind", drift_kind_name(finding->kind),
                     "drift", finding->drift, "repairable", finding->repairable, "peer",
                     finding->host, "peer_key", finding->peer_key, "generation",
                     (json_int_t)finding->generation, "public_key", key, "words", finding->words);
}

static void print(struct comparison *comparison, const struct setup_interface *setup,
                  const struct drift *drift)
{
    for (size_t i = 0; i < drift->count; i++) {
        const struct drift_finding *finding = &drift->items[i];
        if (comparison->all != NULL)
            json_array_append_new(comparison->all, as_json(setup, finding));
        else
            printf("%s: %s: %s\n", setup->name, drift_kind_name(finding->kind), finding->words);
    }
    if (drift->cut)
        fprintf(stderr, "custody-applier: %s: there is more than is shown here\n", setup->name);
    if (comparison->all == NULL && drift_count(drift) == 0)
        printf("%s: no drift\n", setup->name);
}

// ---- comparing ----

static void fail(struct comparison *comparison, int status, const struct error *err)
{
    fprintf(stderr, "custody-applier: %s\n", err->message);
    if (status > comparison->status)
        comparison->status = status;
}

// Compares; after a repair once more.
static int look(struct comparison *comparison, struct tended *tended, struct drift *drift,
                struct error *err)
{
    if (tended->world->registry != NULL && counterparts_read(tended, err) != 0)
        fprintf(stderr, "custody-applier: %s: what counterparts say is not compared: %s\n",
                tended->setup->name, err->message);
    if (drifts_look(tended, drift, err) != 0)
        return -1;
    // In the middle of a rotation nothing is drift for good, and nothing is to be meddled with.
    if (!comparison->repair || drift_count(drift) == 0)
        return 0;
    if (tended->view->rotation_generation != 0)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "%s: a rotation is under way: repair it afterwards", tended->setup->name);
    if (drifts_repair(tended, drift, err) < 0 || tended_read(tended, err) != 0 ||
        tended_ask(tended, err) != 0)
        return -1;
    return drifts_look(tended, drift, err);
}

static void compare(struct comparison *comparison, const struct setup_interface *setup)
{
    enum session_status status;
    struct error err = {.code = ERROR_OK};
    struct tended *tended = session_look(&comparison->session, setup, &status, &err);
    struct drift *drift = calloc(1, sizeof *drift);
    if (tended == NULL || drift == NULL) {
        fail(comparison, tended == NULL ? (int)status : SESSION_WRONG, &err);
    } else {
        if (look(comparison, tended, drift, &err) != 0)
            fail(comparison, 1, &err);
        print(comparison, setup, drift);
        comparison->drifts += drift_count(drift);
    }
    free(drift);
    tended_free(tended);
}

static void compare_all(struct comparison *comparison, const char *path, const char *interface)
{
    const struct setup *setup = comparison->session.setup;
    struct error err;
    if (interface != NULL && setup_find(setup, interface) == NULL) {
        error_set(&err, ERROR_NOT_FOUND, "%s: no interface \"%s\" is configured", path, interface);
        fail(comparison, SESSION_NO_DEVICE, &err);
        return;
    }
    for (size_t i = 0; i < setup->interface_count; i++)
        if (interface == NULL || strcmp(setup->interfaces[i].name, interface) == 0)
            compare(comparison, &setup->interfaces[i]);
}

int drift_command(const char *path, const struct apply_settings *settings, const char *interface,
                  bool json, bool repair)
{
    struct comparison comparison = {.repair = repair, .all = json ? json_array() : NULL};
    struct error err = {.code = ERROR_OK};
    enum session_status status = session_open(&comparison.session, path, settings, &err);
    if (status != SESSION_OK)
        fail(&comparison, (int)status, &err);
    else
        compare_all(&comparison, path, interface);
    session_close(&comparison.session);
    if (comparison.status == 0 && comparison.drifts > 0)
        comparison.status = 1;
    if (comparison.all != NULL) {
        json_dumpf(comparison.all, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(comparison.all);
    }
    return fflush(stdout) == 0 ? comparison.status : 1;
}
