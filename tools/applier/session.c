// SPDX-License-Identifier: Apache-2.0
// Opens what the commands need, in the order in which it is found wrong.
#include "session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "note.h"

#define CALL_TIMEOUT_MS 15000 // for custodyd's answers

static int read_files(struct session *session, const char *path, struct error *err)
{
    struct note_key key;
    struct apply_settings *settings = &session->settings;
    session->setup = setup_read(path, err);
    if (session->setup == NULL)
        return -1;
    bool rotates = session->setup->registry[0] != '\0';
    session->trust = trust_read(session->setup->trust_file, rotates, err);
    if (session->trust == NULL)
        return -1;
    if (rotates && (session->registry = registry_open(session->setup->registry, err)) == NULL)
        return -1;
    if (settings->socket == NULL)
        settings->socket = session->setup->socket;
    if (settings->log_vkey_file == NULL)
        settings->log_vkey_file = session->setup->log_vkey_file;
    if (note_key_read(&key, settings->log_vkey_file, err) != 0)
        return error_prefix(err, "the log's verifier key (custodyctl token init prints it; it must "
                                 "be pinned here)");
    note_key_format(&key, session->log_vkey);
    return 0;
}

static int connect_custody(struct session *session, struct error *err)
{
    struct custody_error theirs = {0};
    struct custody_options options = {.socket = session->settings.socket,
                                      .log_vkey = session->log_vkey,
                                      .client = "custody-applier " PACKAGE_VERSION,
                                      .timeout_ms = CALL_TIMEOUT_MS};
    struct custody_status *status = calloc(1, sizeof *status);
    if (status == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for custodyd's status");
    int rc = custody_connect(&options, &session->custody, &theirs);
    if (rc == 0) {
        snprintf(session->world.own_host, sizeof session->world.own_host, "%s",
                 custody_host(session->custody));
        if (custody_status(session->custody, status, NULL) == 0)
            snprintf(session->world.own_host_vkey, sizeof session->world.own_host_vkey, "%s",
                     status->host_vkey);
    } else {
        error_set(err, (enum error_code)theirs.code, "custodyd: %s: %s",
                  custody_code_name(theirs.code), theirs.message);
    }
    free(status);
    return rc;
}

enum session_status session_open(struct session *session, const char *path,
                                 const struct apply_settings *given, struct error *err)
{
    memset(session, 0, sizeof *session);
    session->settings = *given;
    if (read_files(session, path, err) != 0)
        return SESSION_WRONG;
    if (connect_custody(session, err) != 0)
        return SESSION_UNREACHABLE;
    session->world.setup = session->setup;
    session->world.registry = session->registry;
    session->world.trust = session->trust;
    session->world.settings = &session->settings;
    session->world.custody = session->custody;
    return SESSION_OK;
}

void session_close(struct session *session)
{
    custody_close(session->custody);
    registry_close(session->registry);
    trust_free(session->trust);
    setup_free(session->setup);
    memset(session, 0, sizeof *session);
}

struct tended *session_look(struct session *session, const struct setup_interface *setup,
                            enum session_status *status, struct error *err)
{
    struct tended *tended = tended_new(&session->world, setup, err);
    *status = SESSION_WRONG;
    if (tended == NULL)
        return NULL;
    *status = SESSION_NO_DEVICE;
    if (device_open(&tended->device, setup->name, session->settings.backend, err) != 0 ||
        tended_read(tended, err) != 0)
        goto failed;
    tended->present = true;
    *status = SESSION_UNREACHABLE;
    if (tended_ask(tended, err) != 0)
        goto failed;
    *status = SESSION_OK;
    return tended;
failed:
    tended_free(tended);
    return NULL;
}
