// SPDX-License-Identifier: Apache-2.0
// Chooses the backend of an interface, and what both backends share.
#include "device.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device_backend.h"
#include "preshared.h"

const struct device_ops *device_select(enum device_backend backend, const char *interface)
{
    struct device_identity identity;
    if (backend == DEVICE_AUTO)
        backend = device_userspace.find(interface, &identity, NULL) == 0 ? DEVICE_USERSPACE
                                                                         : DEVICE_KERNEL;
    return backend == DEVICE_USERSPACE ? &device_userspace : &device_kernel;
}

int device_backend_from_name(const char *name)
{
    static const char *const names[] = {
        [DEVICE_AUTO] = "auto", [DEVICE_KERNEL] = "kernel", [DEVICE_USERSPACE] = "userspace"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], name) == 0)
            return (int)i;
    return -1;
}

bool device_name_is_valid(const char *interface)
{
    size_t length = strlen(interface);
    if (length == 0 || length > DEVICE_NAME_MAX || strcmp(interface, ".") == 0 ||
        strcmp(interface, "..") == 0)
        return false;
    for (const char *c = interface; *c != '\0'; c++)
        if (!isgraph((unsigned char)*c) || *c == '/' || *c == ':')
            return false;
    return true;
}

bool device_identity_equal(const struct device_identity *a, const struct device_identity *b)
{
    return a->number == b->number && a->made.tv_sec == b->made.tv_sec &&
           a->made.tv_nsec == b->made.tv_nsec;
}

struct description {
    char *text;
    size_t size, used;
};

static void describe_one(const char *interface, void *context)
{
    struct description *description = context;
    if (description->used + 1 >= description->size)
        return;
    int n = snprintf(description->text + description->used, description->size - description->used,
                     "%s%s", description->used == 0 ? "" : ", ", interface);
    if (n > 0)
        description->used += (size_t)n;
}

void device_describe_all(const struct device_ops *ops, char *text, size_t size)
{
    struct description description = {text, size, 0};
    if (ops->list(describe_one, &description, NULL) == 0 && description.used == 0)
        snprintf(text, size, "none");
    else if (description.used == 0)
        snprintf(text, size, "unknown");
}

int64_t device_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

// ---- a device held open ----

struct device {
    char interface[DEVICE_NAME_MAX + 1];
    const struct device_backend_ops *backend;
    struct device_session *session;
};

int device_open(struct device **out, const char *interface, enum device_backend backend,
                struct error *err)
{
    struct device_identity identity;
    if (!device_name_is_valid(interface))
        return error_set(err, ERROR_INVALID_ARGUMENT, "'%s' cannot be an interface's name",
                         interface);
    struct device *device = calloc(1, sizeof *device);
    if (device == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "interface '%s': out of memory", interface);
    snprintf(device->interface, sizeof device->interface, "%s", interface);
    device->backend = device_select(backend, interface) == &device_userspace
                          ? &device_backend_userspace
                          : &device_backend_kernel;
    if (device->backend->device->find(interface, &identity, err) != 0 ||
        device->backend->open(&device->session, interface, &identity, err) != 0) {
        device_close(device);
        return -1;
    }
    *out = device;
    return 0;
}

void device_close(struct device *device)
{
    if (device == NULL)
        return;
    device->backend->close(device->session);
    free(device);
}

const char *device_interface(const struct device *device)
{
    return device->interface;
}

const char *device_backend_name(const struct device *device)
{
    return device->backend->device->name;
}

struct device_messages device_messages(const struct device *device)
{
    return device->backend->messages(device->session);
}

static int read_view(struct device *device, struct device_view **out, struct preshared *wanted,
                     struct error *err)
{
    struct device_view *view = device_view_new();
    if (view == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "interface '%s': out of memory",
                         device->interface);
    if (device->backend->read(device->session, view, wanted, err) != 0)
        goto fail;
    if (device_view_finish(view, err) != 0) {
        error_prefix(err, "interface '%s'", device->interface);
        goto fail;
    }
    *out = view;
    return 0;
fail:
    device_view_free(view);
    return -1;
}

int device_read(struct device *device, struct device_view **view, struct error *err)
{
    return read_view(device, view, NULL, err);
}

// ---- changes ----

static bool is_endpoint(const union device_endpoint *endpoint)
{
    return endpoint->any.sa_family == AF_INET || endpoint->any.sa_family == AF_INET6;
}

static bool is_allowed_ip(const struct device_allowed_ip *allowed)
{
    return (allowed->family == AF_INET && allowed->cidr <= 32) ||
           (allowed->family == AF_INET6 && allowed->cidr <= 128);
}

static int check_peer(const struct device *device, const struct device_peer_change *peer,
                      struct error *err)
{
    const char *wrong = NULL;
    if (peer->preshared != NULL && peer->copy_preshared_from != NULL)
        wrong = "a preshared key both given and to be copied";
    if (peer->set_endpoint && !is_endpoint(&peer->endpoint))
        wrong = "an endpoint that is neither IPv4 nor IPv6";
    for (size_t i = 0; i < peer->allowed_count; i++)
        if (!is_allowed_ip(&peer->allowed_ips[i]))
            wrong = "an allowed-ip that is none";
    if (wrong == NULL || peer->remove)
        return 0;
    return error_set(err, ERROR_INVALID_ARGUMENT, "interface '%s': a change of a peer with %s",
                     device->interface, wrong);
}

// Reads the preshared keys that `peers` are to have from other peers, and points each at its own.
static int copy_preshared(struct device *device, struct device_peer_change *peers, size_t count,
                          struct preshared *wanted, struct error *err)
{
    struct device_view *view;
    for (size_t i = 0; i < count; i++)
        if (peers[i].copy_preshared_from != NULL && !peers[i].remove)
            preshared_want(wanted, peers[i].copy_preshared_from);
    preshared_ready(wanted);
    if (read_view(device, &view, wanted, err) != 0)
        return -1;
    device_view_free(view);
    for (size_t i = 0; i < count; i++) {
        if (peers[i].copy_preshared_from == NULL || peers[i].remove)
            continue;
        peers[i].preshared = preshared_of(wanted, peers[i].copy_preshared_from);
        peers[i].copy_preshared_from = NULL;
        if (peers[i].preshared == NULL)
            return error_set(err, ERROR_FAILED_PRECONDITION,
                             "interface '%s': the peer whose preshared key is to be copied is not "
                             "there",
                             device->interface);
    }
    return 0;
}

static int set_with_copies(struct device *device, const struct device_change *change, size_t copies,
                           struct error *err)
{
    int rc = -1;
    struct device_change resolved = *change;
    struct preshared *wanted = preshared_new(copies);
    struct device_peer_change *peers = calloc(change->peer_count, sizeof *peers);
    if (wanted == NULL || peers == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED,
                  "interface '%s': no guarded memory for preshared keys", device->interface);
        goto cleanup;
    }
    memcpy(peers, change->peers, change->peer_count * sizeof *peers);
    resolved.peers = peers;
    if (copy_preshared(device, peers, change->peer_count, wanted, err) == 0)
        rc = device->backend->set(device->session, &resolved, err);
cleanup:
    free(peers);
    preshared_free(wanted);
    return rc;
}

int device_set(struct device *device, const struct device_change *change, struct error *err)
{
    size_t copies = 0;
    if (change->private_key == NULL && change->peer_count == 0)
        return 0;
    for (size_t i = 0; i < change->peer_count; i++) {
        if (check_peer(device, &change->peers[i], err) != 0)
            return -1;
        copies += change->peers[i].copy_preshared_from != NULL && !change->peers[i].remove;
    }
    if (copies > 0)
        return set_with_copies(device, change, copies, err);
    return device->backend->set(device->session, change, err);
}

static int set_preshared(struct device *to, const struct preshared *wanted,
                         const uint8_t (*public_keys)[DEVICE_KEY_SIZE], size_t count,
                         struct error *err)
{
    struct device_peer_change *changes = calloc(count, sizeof *changes);
    struct device_change change = {.peers = changes};
    if (changes == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "interface '%s': out of memory",
                         to->interface);
    for (size_t i = 0; i < count; i++) {
        struct device_peer_change *one = &changes[change.peer_count];
        one->preshared = preshared_of(wanted, public_keys[i]);
        if (one->preshared == NULL)
            continue;
        memcpy(one->public_key, public_keys[i], DEVICE_KEY_SIZE);
        one->update_only = true;
        change.peer_count++;
    }
    int rc = device_set(to, &change, err);
    free(changes);
    return rc;
}

int device_copy_preshared(struct device *from, struct device *to,
                          const uint8_t (*public_keys)[DEVICE_KEY_SIZE], size_t count,
                          struct error *err)
{
    struct device_view *view = NULL;
    if (count == 0)
        return 0;
    struct preshared *wanted = preshared_new(count);
    if (wanted == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED,
                         "interface '%s': no guarded memory for preshared keys", from->interface);
    for (size_t i = 0; i < count; i++)
        preshared_want(wanted, public_keys[i]);
    preshared_ready(wanted);
    int rc = read_view(from, &view, wanted, err);
    if (rc == 0)
        rc = set_preshared(to, wanted, public_keys, count, err);
    device_view_free(view);
    preshared_free(wanted); // wipes
    return rc;
}
