// SPDX-License-Identifier: Apache-2.0
// Gathering how things stand, and judging what needs attention.
#include "status.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "plan.h"
#include "registry.h"
#include "tended.h"
#include "trust.h"

#define TIMEOUT_MS    5000
#define ALIVE_S       180 // a tunnel in use shakes hands more often
#define WATCH_S       2
#define EXIT_WELL     0
#define EXIT_REMARK   1
#define EXIT_CUSTODYD 3
#define EXIT_DEVICE   4

__attribute__((format(printf, 2, 3))) static void remark(struct status *status, const char *format,
                                                         ...)
{
    va_list arguments;
    if (status->remark_count < STATUS_REMARKS_MAX) {
        va_start(arguments, format);
        vsnprintf(status->remarks[status->remark_count], sizeof status->remarks[0], format,
                  arguments);
        va_end(arguments);
    }
    status->remark_count++;
}

// ---- custodyd ----

static int open_custody(struct status *status, const struct apply_settings *given,
                        struct custody **custody, struct error *err)
{
    struct note_key key;
    char vkey[NOTE_VKEY_MAX];
    struct custody_error theirs = {0};
    const char *file =
        given->log_vkey_file != NULL ? given->log_vkey_file : status->setup->log_vkey_file;
    struct custody_options options = {.socket = given->socket != NULL ? given->socket
                                                                      : status->setup->socket,
                                      .log_vkey = vkey,
                                      .client = "custody-applier " PACKAGE_VERSION,
                                      .timeout_ms = TIMEOUT_MS};
    if (note_key_read(&key, file, err) != 0)
        return -1;
    note_key_format(&key, vkey);
    if (custody_connect(&options, custody, &theirs) != 0)
        return error_set(err, (enum error_code)theirs.code, "custodyd is not reached: %s",
                         theirs.message);
    snprintf(status->host, sizeof status->host, "%s", custody_host(*custody));
    return 0;
}

static void ask_views(struct status *status, const struct apply_settings *given)
{
    struct custody *custody = NULL;
    struct error err;
    if (open_custody(status, given, &custody, &err) != 0) {
        remark(status, "%s", err.message);
        return;
    }
    status->custodyd_reached = true;
    for (size_t i = 0; i < status->setup->interface_count; i++) {
        struct status_interface *interface = &status->interfaces[i];
        struct custody_error theirs = {0};
        if (custody_get_view(custody, interface->setup->key, &interface->view, &theirs) == 0)
            continue;
        interface->view = NULL;
        remark(status, "%s: custodyd: %s", interface->setup->name, theirs.message);
    }
    custody_close(custody);
}

// ---- the interfaces and the registry ----

static void read_device(struct status *status, struct status_interface *interface,
                        enum device_backend backend)
{
    struct device *device = NULL;
    struct error err;
    if (device_open(&device, interface->setup->name, backend, &err) != 0 ||
        device_read(device, &interface->device, &err) != 0) {
        interface->device = NULL;
        interface->missing = err.code == ERROR_NOT_FOUND;
        remark(status, "%s: %s", interface->setup->name, err.message);
    }
    device_close(device);
}

static void look_at_registry(struct status *status, struct registry *registry,
                             const struct trust *trust, struct status_interface *interface)
{
    struct counterpart_times times = {
        .now_us = status->now_us,
        .tolerance_us = status->setup->clock_tolerance_s * INT64_C(1000000),
        .max_stale_us = status->setup->max_stale_s * INT64_C(1000000)};
    for (size_t p = 0; p < interface->setup->peer_count && interface->view != NULL; p++) {
        struct status_peer *peer = &interface->peers[p];
        struct error err;
        struct counterpart *counterpart = counterpart_new(peer->setup->host, peer->setup->key);
        if (counterpart == NULL)
            continue;
        if (counterpart_look(counterpart, registry, trust, interface->view, &times, &peer->says,
                             &err) != 0 &&
            status->registry_reached) {
            status->registry_reached = false;
            remark(status, "%s", err.message);
        }
        counterpart_free(counterpart);
    }
}

static void ask_registry(struct status *status)
{
    struct error err;
    const struct setup *setup = status->setup;
    if (setup->registry[0] == '\0')
        return;
    struct trust *trust = trust_read(setup->trust_file, true, &err);
    struct registry *registry = trust != NULL ? registry_open(setup->registry, &err) : NULL;
    status->registry_reached = registry != NULL;
    if (registry == NULL)
        remark(status, "%s", err.message);
    for (size_t i = 0; i < setup->interface_count && registry != NULL; i++)
        look_at_registry(status, registry, trust, &status->interfaces[i]);
    registry_close(registry);
    trust_free(trust);
}

// ---- judging ----

static void look_at_handshake(struct status *status, const struct status_interface *interface,
                              struct status_peer *peer)
{
    const struct custody_peer *current =
        plan_current(interface->view, peer->setup->host, peer->setup->key);
    const struct device_peer *there = current != NULL && interface->device != NULL
                                          ? device_view_peer(interface->device, current->public_key)
                                          : NULL;
    bool expected = peer->setup->keepalive_s > 0 || peer->setup->required == SETUP_REQUIRED_YES;
    peer->generation = current != NULL ? current->generation : 0;
    if (there != NULL)
        peer->handshake_us = there->latest_handshake.tv_sec * INT64_C(1000000) +
                             there->latest_handshake.tv_nsec / 1000;
    if (current == NULL)
        remark(status, "%s: %s: no key of it is in use yet", interface->setup->name,
               peer->setup->host);
    else if (interface->device != NULL && there == NULL)
        remark(status, "%s: %s: its generation %" PRIu64 " is not on the interface",
               interface->setup->name, peer->setup->host, current->generation);
    else if (expected && there != NULL &&
             status->now_us - peer->handshake_us > ALIVE_S * INT64_C(1000000))
        remark(status, "%s: %s: no handshake for more than %d s", interface->setup->name,
               peer->setup->host, ALIVE_S);
}

static void judge_peer(struct status *status, const struct status_interface *interface,
                       struct status_peer *peer)
{
    const char *name = interface->setup->name, *host = peer->setup->host;
    look_at_handshake(status, interface, peer);
    peer->leftovers = plan_leftovers(interface->view, &peer->says, host, peer->setup->key);
    if (peer->leftovers > 0)
        remark(status, "%s: %s: %u generation(s) staged that it does not announce", name, host,
               peer->leftovers);
    if (status->registry_reached && peer->says.stale)
        remark(status, "%s: %s: its freshness note is too old, or missing", name, host);
    if (peer->says.withheld)
        remark(status, "%s: %s: the registry does not show the bundle that it published last", name,
               host);
}

static void judge_rotation(struct status *status, const struct status_interface *interface)
{
    const struct custody_view *view = interface->view;
    const char *name = interface->setup->name;
    if (view->suspended)
        remark(status, "%s: an operator holds the key: no release, no rotation", name);
    if (view->rotation_failures > 0)
        remark(status, "%s: the last %u rotation(s) were rolled back", name,
               view->rotation_failures);
    if (view->rotation_generation != 0 &&
        status->now_us - view->rotation_started_us > view->window_s * INT64_C(1000000))
        remark(status, "%s: the rotation to generation %" PRIu64 " is open beyond its window, %u s",
               name, view->rotation_generation, view->window_s);
}

static void judge_key(struct status *status, const struct status_interface *interface)
{
    const struct custody_view *view = interface->view;
    const struct custody_key *active = plan_in_state(view, CUSTODY_KEY_ACTIVE);
    const char *name = interface->setup->name;
    if (active == NULL) {
        remark(status, "%s: no generation of key '%s' is active", name, view->key);
        return;
    }
    if (view->lifetime_s > 0 &&
        status->now_us - active->activated_us > view->lifetime_s * INT64_C(1000000))
        remark(status, "%s: generation %" PRIu64 " is older than its lifetime", name,
               active->generation);
    if (interface->device != NULL && view->rotation_generation == 0 &&
        memcmp(interface->device->public_key, active->public_key, DEVICE_KEY_SIZE) != 0)
        remark(status, "%s: the interface does not have the active generation, %" PRIu64, name,
               active->generation);
}

static void judge(struct status *status)
{
    for (size_t i = 0; i < status->setup->interface_count; i++) {
        struct status_interface *interface = &status->interfaces[i];
        if (interface->view == NULL)
            continue;
        judge_key(status, interface);
        judge_rotation(status, interface);
        for (size_t p = 0; p < interface->setup->peer_count; p++)
            judge_peer(status, interface, &interface->peers[p]);
    }
}

// ---- all of it ----

static int make_interfaces(struct status *status, struct error *err)
{
    const struct setup *setup = status->setup;
    status->interfaces = calloc(setup->interface_count + 1, sizeof *status->interfaces);
    for (size_t i = 0; status->interfaces != NULL && i < setup->interface_count; i++) {
        struct status_interface *interface = &status->interfaces[i];
        interface->setup = &setup->interfaces[i];
        interface->peers = calloc(interface->setup->peer_count + 1, sizeof *interface->peers);
        if (interface->peers == NULL)
            return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        for (size_t p = 0; p < interface->setup->peer_count; p++)
            interface->peers[p].setup = &interface->setup->peers[p];
    }
    return status->interfaces != NULL ? 0
                                      : error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
}

struct status *status_look(const char *path, const struct apply_settings *given, struct error *err)
{
    struct status *status = calloc(1, sizeof *status);
    if (status == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        return NULL;
    }
    status->setup = setup_read(path, err);
    if (status->setup == NULL || make_interfaces(status, err) != 0) {
        status_free(status);
        return NULL;
    }
    status->now_us = tended_now_us();
    ask_views(status, given);
    for (size_t i = 0; i < status->setup->interface_count; i++)
        read_device(status, &status->interfaces[i], given->backend);
    ask_registry(status);
    judge(status);
    return status;
}

void status_free(struct status *status)
{
    if (status == NULL)
        return;
    for (size_t i = 0; status->interfaces != NULL && i < status->setup->interface_count; i++) {
        custody_view_free(status->interfaces[i].view);
        device_view_free(status->interfaces[i].device);
        free(status->interfaces[i].peers);
    }
    free(status->interfaces);
    setup_free(status->setup);
    free(status);
}

static int exit_status(const struct status *status)
{
    if (!status->custodyd_reached)
        return EXIT_CUSTODYD;
    for (size_t i = 0; i < status->setup->interface_count; i++)
        if (status->interfaces[i].missing)
            return EXIT_DEVICE;
    return status->remark_count > 0 ? EXIT_REMARK : EXIT_WELL;
}

int status_show(const char *path, const struct apply_settings *given, bool json, bool watch)
{
    bool screen = watch && !json && isatty(STDOUT_FILENO);
    for (;;) {
        struct error err;
        struct status *status = status_look(path, given, &err);
        if (status == NULL) {
            fprintf(stderr, "custody-applier: %s\n", err.message);
            return EXIT_REMARK;
        }
        if (screen)
            fputs("\033[H\033[2J", stdout);
        int rc = json ? status_print_json(status) : status_print(status);
        int code = exit_status(status);
        status_free(status);
        if (rc != 0) {
            fprintf(stderr, "custody-applier: the output could not be written\n");
            return EXIT_REMARK;
        }
        if (!watch)
            return code;
        if (!json && !screen)
            putchar('\n');
        sleep(WATCH_S);
    }
}
