// SPDX-License-Identifier: Apache-2.0
// A userspace WireGuard (wireguard-go), by its UAPI socket.
#include "device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <sodium.h>

#include "device_backend.h"
#include "uapi.h"
#include "uapi_peers.h"
#include "uapi_talk.h"

static const char get_request[] = "get=1\n\n";

static int userspace_find(const char *interface, struct device_identity *identity,
                          struct error *err)
{
    char path[UAPI_TALK_PATH_MAX + 1];
    struct stat status;
    uapi_talk_path(path, interface);
    int rc = stat(path, &status);
    if (rc != 0 && errno != ENOENT && errno != ENOTDIR)
        return error_set(err, ERROR_PERMISSION_DENIED, "%s: %s", path, strerror(errno));
    if (rc != 0 || !S_ISSOCK(status.st_mode))
        return error_set(err, ERROR_NOT_FOUND,
                         "there is no userspace WireGuard '%s' (no socket %s)", interface, path);
    *identity = (struct device_identity){.number = status.st_ino, .made = status.st_ctim};
    return 0;
}

static int userspace_set_private_key(const char *interface,
                                     const uint8_t private_key[DEVICE_KEY_SIZE], struct error *err)
{
    int rc = -1;
    const struct uapi_answer *answer;
    struct uapi_talk *talk = NULL;
    char *request = sodium_malloc(UAPI_SET_SIZE);
    if (request == NULL)
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "no guarded memory for a request: %s",
                  strerror(errno));
    else if (uapi_talk_open(&talk, interface, err) == 0)
        rc = uapi_talk_ask(talk, request, uapi_set_private_key(request, private_key), NULL, NULL,
                           "setting the private key", &answer, err);
    uapi_talk_close(talk);
    sodium_free(request); // wipes
    return rc;
}

// Reads the device once. The public key of its private key, or that itself; either may be NULL.
static int read_keys(const char *interface, uint8_t *public_key, uint8_t *private_key,
                     struct error *err)
{
    const struct uapi_answer *answer;
    struct uapi_talk *talk;
    if (uapi_talk_open(&talk, interface, err) != 0)
        return -1;
    int rc = uapi_talk_ask(talk, get_request, sizeof get_request - 1, NULL, NULL,
                           "reading the device", &answer, err);
    if (rc == 0 && private_key != NULL)
        uapi_answer_private_key(answer, private_key);
    if (rc == 0 && public_key != NULL)
        rc = uapi_answer_public_key(answer, public_key, err);
    uapi_talk_close(talk);
    return rc;
}

static int userspace_get_public_key(const char *interface, uint8_t public_key[DEVICE_KEY_SIZE],
                                    struct error *err)
{
    return read_keys(interface, public_key, NULL, err);
}

static int userspace_get_private_key(const char *interface, uint8_t *private_key, struct error *err)
{
    return read_keys(interface, NULL, private_key, err);
}

const struct device_ops device_userspace = {
    .name = "userspace",
    .find = userspace_find,
    .set_private_key = userspace_set_private_key,
    .get_public_key = userspace_get_public_key,
    .get_private_key = userspace_get_private_key,
    .list = uapi_talk_list,
};

// ---- a device held open ----

struct device_session {
    char interface[DEVICE_NAME_MAX + 1];
    struct device_identity identity; // of the socket
    struct uapi_talk *talk;
    struct device_messages messages;
};

static void session_close(struct device_session *session)
{
    if (session == NULL)
        return;
    uapi_talk_close(session->talk);
    free(session);
}

static int session_open(struct device_session **out, const char *interface,
                        const struct device_identity *identity, struct error *err)
{
    struct device_session *session = calloc(1, sizeof *session);
    if (session == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "interface '%s': out of memory", interface);
    snprintf(session->interface, sizeof session->interface, "%s", interface);
    session->identity = *identity;
    if (uapi_talk_open(&session->talk, interface, err) != 0) {
        session_close(session);
        return -1;
    }
    *out = session;
    return 0;
}

// One request and its answer, if the socket is still the one it was.
static int session_ask(struct device_session *session, const char *request, size_t length,
                       struct uapi_view *into, const char *doing, const struct uapi_answer **answer,
                       struct error *err)
{
    struct device_identity now;
    if (userspace_find(session->interface, &now, err) != 0)
        return -1;
    if (!device_identity_equal(&now, &session->identity))
        return error_set(err, ERROR_NOT_FOUND,
                         "interface '%s' is not the one it was: it was made anew meanwhile",
                         session->interface);
    session->messages.sent++;
    if (uapi_talk_ask(session->talk, request, length, into != NULL ? uapi_read_view : NULL, into,
                      doing, answer, err) != 0)
        return -1;
    session->messages.received++;
    return 0;
}

static int session_read(struct device_session *session, struct device_view *view,
                        struct preshared *wanted, struct error *err)
{
    const struct uapi_answer *answer;
    struct uapi_view into = {.view = view, .wanted = wanted, .key = uapi_talk_key(session->talk)};
    int rc = session_ask(session, get_request, sizeof get_request - 1, &into, "reading the device",
                         &answer, err);
    if (rc == 0)
        rc = uapi_answer_public_key(answer, view->public_key, err);
    uapi_talk_forget(session->talk);
    return rc;
}

static int session_set(struct device_session *session, const struct device_change *change,
                       struct error *err)
{
    int rc = -1;
    const struct uapi_answer *answer;
    size_t size = uapi_change_size(change);
    char *request = sodium_malloc(size);
    if (request == NULL)
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "no guarded memory for a request: %s",
                  strerror(errno));
    else
        rc = session_ask(session, request, uapi_put_change(request, size, change), NULL,
                         "changing the device", &answer, err);
    sodium_free(request); // wipes
    return rc;
}

static struct device_messages session_messages(const struct device_session *session)
{
    return session->messages;
}

const struct device_backend_ops device_backend_userspace = {
    .device = &device_userspace,
    .open = session_open,
    .close = session_close,
    .read = session_read,
    .set = session_set,
    .messages = session_messages,
};
