// SPDX-License-Identifier: Apache-2.0
// Carries one key from the daemon to the interface.
#include "apply.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "name.h"
#include "note.h"
#include "proof.h"

// One task under way.
struct errand {
    struct apply_settings *settings;
    const struct apply_task *task;
    const struct device_ops *device;
    struct custody_options options;
    char log_vkey[NOTE_VKEY_MAX];
    struct custody *custody;
    struct custody_released *released;
    struct apply_report *report;
};

// The library's error as ours: the codes are the same numbers.
static int from_library(const struct errand *errand, const struct custody_error *theirs,
                        const char *doing, struct error *err)
{
    return error_set(err, (enum error_code)theirs->code, "interface '%s', key '%s': %s: %s: %s",
                     errand->task->interface, errand->task->key, doing,
                     custody_code_name(theirs->code), theirs->message);
}

static int read_log_vkey(struct errand *errand, struct error *err)
{
    struct note_key key;
    if (note_key_read(&key, errand->settings->log_vkey_file, err) != 0)
        return error_prefix(
            err,
            "the log's verifier key (custodyctl token init prints it; it must be pinned here)");
    note_key_format(&key, errand->log_vkey);
    return 0;
}

static int connect_daemon(struct errand *errand, struct error *err)
{
    struct custody_error theirs = {0};
    custody_close(errand->custody);
    errand->custody = NULL;
    if (custody_connect(&errand->options, &errand->custody, &theirs) != 0)
        return from_library(errand, &theirs, "cannot reach custodyd", err);
    return 0;
}

// Finds the device and the key that it has now, before anything is released for it.
static int find_device(struct errand *errand, uint8_t before[DEVICE_KEY_SIZE], struct error *err)
{
    const char *interface = errand->task->interface;
    struct device_identity identity;
    errand->device = device_select(errand->settings->backend, interface);
    errand->report->backend = errand->device->name;
    if (errand->device->find(interface, &identity, err) != 0) {
        char others[256];
        device_describe_all(errand->device, others, sizeof others);
        if (err->code != ERROR_NOT_FOUND)
            return -1;
        size_t used = strlen(err->message);
        snprintf(err->message + used, sizeof err->message - used, "; WireGuard interfaces here: %s",
                 others);
        return -1;
    }
    return errand->device->get_public_key(interface, before, err);
}

// The public key of the generation that a release would give: the active one, else the pre-active.
// False when it cannot be told: policy may let a caller have a key released and not list it.
static bool current_public_key(struct errand *errand, uint8_t public_key[DEVICE_KEY_SIZE])
{
    struct custody_key *keys = NULL;
    size_t count = 0;
    struct custody_error theirs = {0};
    enum custody_key_state best = 0;
    if (!errand->settings->may_list)
        return false;
    if (custody_list_keys(errand->custody, errand->task->key, &keys, &count, &theirs) != 0) {
        if (theirs.code == CUSTODY_PERMISSION_DENIED)
            errand->settings->may_list = false; // each denial is a record in the log: one is enough
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if ((keys[i].state != CUSTODY_KEY_ACTIVE && keys[i].state != CUSTODY_KEY_PRE_ACTIVE) ||
            strcmp(keys[i].name, errand->task->key) != 0 || best == CUSTODY_KEY_ACTIVE)
            continue;
        best = keys[i].state;
        memcpy(public_key, keys[i].public_key, DEVICE_KEY_SIZE);
    }
    free(keys);
    return best != 0;
}

static bool is_current(struct errand *errand, const uint8_t before[DEVICE_KEY_SIZE])
{
    uint8_t current[DEVICE_KEY_SIZE];
    return errand->task->skip_current && !sodium_is_zero(before, DEVICE_KEY_SIZE) &&
           current_public_key(errand, current) &&
           sodium_memcmp(before, current, DEVICE_KEY_SIZE) == 0;
}

static int release(struct errand *errand, struct error *err)
{
    const struct apply_task *task = errand->task;
    struct apply_report *report = errand->report;
    struct custody_error theirs = {0};
    struct proof proof;
    report->asked = true;
    if (custody_release(errand->custody, task->key, task->generation, task->reason, task->ticket,
                        &errand->released, &theirs) != 0)
        return from_library(errand, &theirs, "release refused", err);
    const char *receipt = custody_released_receipt(errand->released);
    if (proof_parse(&proof, receipt, strlen(receipt), NULL) == 0)
        report->log_index = proof.index;
    report->generation = custody_released_generation(errand->released);
    snprintf(report->lease, sizeof report->lease, "%s", custody_released_lease(errand->released));
    sodium_bin2base64(report->public_key, sizeof report->public_key,
                      custody_released_public_key(errand->released), CUSTODY_KEY_SIZE,
                      sodium_base64_VARIANT_ORIGINAL);
    return 0;
}

static int set_and_confirm(struct errand *errand, struct error *err)
{
    const char *interface = errand->task->interface;
    uint8_t after[DEVICE_KEY_SIZE];
    char after_text[APPLY_PUBLIC_KEY_TEXT];
    int rc = errand->device->set_private_key(interface,
                                             custody_released_private_key(errand->released), err);
    custody_released_wipe(errand->released);
    if (rc != 0)
        return -1;
    if (errand->device->get_public_key(interface, after, err) != 0)
        return error_prefix(err, "the key was set, but the interface cannot be read back");
    if (sodium_memcmp(after, custody_released_public_key(errand->released), DEVICE_KEY_SIZE) == 0)
        return 0;
    sodium_bin2base64(after_text, sizeof after_text, after, sizeof after,
                      sodium_base64_VARIANT_ORIGINAL);
    return error_set(
        err, ERROR_DATA_LOSS,
        "interface '%s': the key was set, but the device has %s%s instead of public key %s",
        interface, sodium_is_zero(after, sizeof after) ? "no key" : "public key ",
        sodium_is_zero(after, sizeof after) ? "" : after_text, errand->report->public_key);
}

// Closes the lease; once more on a new connection if the daemon was restarted meanwhile.
static int report_outcome(struct errand *errand, bool applied, const char *detail,
                          struct error *err)
{
    struct custody_error theirs = {0};
    struct error ignored;
    char cut[DETAIL_MAX + 1];
    snprintf(cut, sizeof cut, "%s", detail);
    for (int attempt = 0; attempt < 2; attempt++) {
        if (attempt > 0 && connect_daemon(errand, &ignored) != 0)
            break;
        if (custody_report_outcome(errand->custody, errand->report->lease, applied, cut, &theirs) ==
            0)
            return 0;
        if (theirs.code != CUSTODY_UNAVAILABLE && theirs.code != CUSTODY_DEADLINE_EXCEEDED)
            break;
    }
    return from_library(errand, &theirs, "the outcome could not be reported", err);
}

static enum apply_outcome carry(struct errand *errand, struct error *err)
{
    uint8_t before[DEVICE_KEY_SIZE];
    struct error unreported;
    if (find_device(errand, before, err) != 0)
        return err->code == ERROR_NOT_FOUND ? APPLY_NO_DEVICE : APPLY_FAILED;
    if (read_log_vkey(errand, err) != 0)
        return APPLY_FAILED;
    if (connect_daemon(errand, err) != 0)
        return APPLY_UNREACHABLE;
    if (is_current(errand, before))
        return APPLY_CURRENT;
    if (release(errand, err) != 0)
        return APPLY_FAILED;
    if (set_and_confirm(errand, err) == 0) {
        if (report_outcome(errand, true, "", err) == 0)
            return APPLY_CONFIRMED;
        error_prefix(err, "the key is set and confirmed on interface '%s'",
                     errand->task->interface);
        return APPLY_UNRECORDED;
    }
    if (report_outcome(errand, false, err->message, &unreported) != 0) {
        size_t used = strlen(err->message);
        snprintf(err->message + used, sizeof err->message - used, "; and %s", unreported.message);
    }
    return APPLY_FAILED;
}

enum apply_outcome apply_once(struct apply_settings *settings, const struct apply_task *task,
                              struct apply_report *report, struct error *err)
{
    struct errand errand = {.settings = settings, .task = task, .report = report};
    memset(report, 0, sizeof *report);
    errand.options = (struct custody_options){.socket = settings->socket,
                                              .log_vkey = errand.log_vkey,
                                              .client = "custody-applier " PACKAGE_VERSION};
    enum apply_outcome outcome = carry(&errand, err);
    custody_released_free(errand.released);
    custody_close(errand.custody);
    return outcome;
}
