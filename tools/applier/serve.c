// SPDX-License-Identifier: Apache-2.0
// The reconciler's loop: one thread, woken by links, custodyd, the registry, datagrams and time.
#include "serve.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <sodium.h>

#include "link_watch.h"
#include "metrics.h"
#include "retry.h"
#include "tended.h"

#define PASSES_IN_A_ROW 16   // of one interface that finds more to do each time; then it waits
#define REST_MS         1000 // so long
#define CALL_TIMEOUT_MS 5000 // for custodyd's answers

struct server {
    const char *path;
    const struct apply_settings *given; // on the command line
    struct apply_settings settings;
    struct setup *setup;
    struct trust *trust;
    struct registry *registry;
    struct tended_world world;
    struct tended **tended;
    size_t count;
    struct metrics *metrics; // NULL: none
    struct metrics_source told;
    struct link_watch *links;
    int signals; // signalfd
    bool ended, ready;
    // custodyd
    char log_vkey[NOTE_VKEY_MAX];
    int64_t connect_ms; // when to try again
    unsigned failures;
    struct error last;
    int64_t rescan_ms;
    bool registry_told; // its descriptor is readable
};

static void say(struct server *server, const struct error *err)
{
    if (strcmp(err->message, server->last.message) == 0)
        return;
    server->last = *err;
    fprintf(stderr, "%s\n", err->message);
}

static void mark_all(struct server *server)
{
    for (size_t i = 0; i < server->count; i++)
        server->tended[i]->dirty = true;
}

// ---- the configuration ----

static void unload(struct server *server)
{
    for (size_t i = 0; i < server->count; i++)
        tended_free(server->tended[i]);
    free(server->tended);
    registry_close(server->registry);
    trust_free(server->trust);
    setup_free(server->setup);
    server->tended = NULL;
    server->count = 0;
    server->registry = NULL;
    server->trust = NULL;
    server->setup = NULL;
}

// Says which folders of the registry concern us. One that is gone is watched once it is back.
static int watch_registry(struct server *server, struct error *err)
{
    size_t count = 0, room = 0;
    for (size_t i = 0; i < server->setup->interface_count; i++)
        room += 1 + server->setup->interfaces[i].peer_count;
    char(*folders)[REGISTRY_PATH_MAX + 1] = calloc(room + 1, sizeof *folders);
    const char **pointers = calloc(room + 1, sizeof *pointers);
    int rc = -1;
    if (folders == NULL || pointers == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for %zu folders", room);
        goto cleanup;
    }
    for (size_t i = 0; i < server->setup->interface_count; i++) {
        const struct setup_interface *interface = &server->setup->interfaces[i];
        if (server->world.own_host[0] != '\0')
            registry_folder(folders[count++], server->world.own_host, interface->key);
        for (size_t j = 0; j < interface->peer_count; j++)
            registry_folder(folders[count++], interface->peers[j].host, interface->peers[j].key);
    }
    for (size_t i = 0; i < count; i++)
        pointers[i] = folders[i];
    rc = registry_watch(server->registry, pointers, count, err);
    if (rc != 0 && err->code == ERROR_UNAVAILABLE) {
        say(server, err);
        rc = 0;
    }
cleanup:
    free(pointers);
    free(folders);
    return rc;
}

static int load_parts(struct server *server, struct error *err)
{
    server->setup = setup_read(server->path, err);
    if (server->setup == NULL)
        return -1;
    server->trust = trust_read(server->setup->trust_file, server->setup->registry[0] != '\0', err);
    if (server->trust == NULL)
        return -1;
    if (server->setup->registry[0] != '\0') {
        server->registry = registry_open(server->setup->registry, err);
        if (server->registry == NULL)
            return -1;
    }
    server->settings = *server->given;
    if (server->settings.socket == NULL)
        server->settings.socket = server->setup->socket;
    if (server->settings.log_vkey_file == NULL)
        server->settings.log_vkey_file = server->setup->log_vkey_file;
    server->tended = calloc(server->setup->interface_count + 1, sizeof(struct tended *));
    if (server->tended == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for %zu interfaces",
                         server->setup->interface_count);
    for (size_t i = 0; i < server->setup->interface_count; i++) {
        server->tended[i] = tended_new(&server->world, &server->setup->interfaces[i], err);
        if (server->tended[i] == NULL)
            return -1;
        server->count++;
    }
    return 0;
}

// What is told is what is tended now.
static int open_metrics(struct server *server, struct error *err)
{
    server->told = (struct metrics_source){
        .world = &server->world, .tended = server->tended, .count = server->count};
    server->metrics = metrics_open(server->setup, &server->told, err);
    return server->metrics != NULL ? 0 : -1;
}

static int load(struct server *server, struct error *err)
{
    if (load_parts(server, err) != 0)
        return -1;
    server->world.setup = server->setup;
    server->world.trust = server->trust;
    server->world.registry = server->registry;
    server->world.settings = &server->settings;
    return server->registry != NULL ? watch_registry(server, err) : 0;
}

static void reload(struct server *server)
{
    struct error err;
    struct server fresh = {.path = server->path, .given = server->given};
    struct tended_world world = server->world;
    if (load_parts(&fresh, &err) != 0) {
        unload(&fresh);
        error_prefix(&err, "the configuration stays as it was");
        fprintf(stderr, "%s\n", err.message);
        return;
    }
    unload(&fresh); // it was right: now in place
    metrics_close(server->metrics);
    server->metrics = NULL;
    unload(server);
    server->world = world;
    if (load(server, &err) != 0) {
        fprintf(stderr, "%s\n", err.message);
        server->ended = true; // it changed between two readings; whoever supervises starts anew
        return;
    }
    if (open_metrics(server, &err) != 0)
        fprintf(stderr, "%s\n", err.message);
    custody_close(server->world.custody);
    server->world.custody = NULL;
    server->connect_ms = 0;
    fprintf(stderr, "the configuration was read anew\n");
}

// ---- custodyd ----

static void disconnect(struct server *server)
{
    custody_close(server->world.custody);
    server->world.custody = NULL;
    server->connect_ms =
        device_now_ms() + retry_wait_ms(false, ++server->failures, randombytes_random());
}

static int connect_and_watch(struct server *server, struct error *err)
{
    struct note_key key;
    struct custody_error theirs = {0};
    struct custody_status *status;
    struct custody_options options = {.socket = server->settings.socket,
                                      .log_vkey = server->log_vkey,
                                      .client = "custody-applier " PACKAGE_VERSION,
                                      .timeout_ms = CALL_TIMEOUT_MS};
    if (note_key_read(&key, server->settings.log_vkey_file, err) != 0)
        return error_prefix(err, "the log's verifier key (custodyctl token init prints it; it must "
                                 "be pinned here)");
    note_key_format(&key, server->log_vkey);
    if (custody_connect(&options, &server->world.custody, &theirs) != 0)
        goto theirs;
    bool known = strcmp(server->world.own_host, custody_host(server->world.custody)) == 0;
    snprintf(server->world.own_host, sizeof server->world.own_host, "%s",
             custody_host(server->world.custody));
    status = calloc(1, sizeof *status);
    if (status != NULL && custody_status(server->world.custody, status, NULL) == 0)
        snprintf(server->world.own_host_vkey, sizeof server->world.own_host_vkey, "%s",
                 status->host_vkey);
    free(status);
    if (custody_watch(server->world.custody, 0, &theirs) != 0)
        goto theirs;
    return server->registry != NULL && !known ? watch_registry(server, err) : 0;
theirs:
    return error_set(err, (enum error_code)theirs.code, "custodyd: %s: %s",
                     custody_code_name(theirs.code), theirs.message);
}

static void try_to_connect(struct server *server)
{
    struct error err;
    if (server->world.custody != NULL || device_now_ms() < server->connect_ms)
        return;
    if (connect_and_watch(server, &err) != 0) {
        say(server, &err);
        disconnect(server);
        return;
    }
    server->failures = 0;
    server->last.message[0] = '\0';
    mark_all(server);
}

static void take_watch(struct server *server)
{
    struct custody_error theirs = {0};
    int rc = server->world.custody != NULL ? custody_watch_take(server->world.custody, &theirs) : 0;
    if (rc == 0)
        return;
    if (rc > 0) {
        uint64_t seq = 0;
        for (size_t i = 0; i < server->count; i++)
            if (server->tended[i]->view != NULL && server->tended[i]->view->seq > seq)
                seq = server->tended[i]->view->seq;
        if (rc == 1)
            mark_all(server);
        if (custody_watch(server->world.custody, seq, &theirs) == 0)
            return;
    }
    struct error err;
    error_set(&err, (enum error_code)theirs.code, "custodyd: %s: %s",
              custody_code_name(theirs.code), theirs.message);
    say(server, &err);
    disconnect(server);
}

// ---- what wakes the loop ----

static void mark_changed(const char *interface, void *context)
{
    struct server *server = context;
    for (size_t i = 0; i < server->count; i++)
        if (strcmp(server->tended[i]->setup->name, interface) == 0 ||
            strcmp(server->tended[i]->setup->pair, interface) == 0)
            server->tended[i]->dirty = true;
}

static void find_all(struct server *server)
{
    for (size_t i = 0; i < server->count; i++)
        tended_find(server->tended[i]);
}

static void take_signals(struct server *server)
{
    struct signalfd_siginfo info;
    while (read(server->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGHUP) {
            reload(server);
            find_all(server);
        } else {
            server->ended = true;
        }
    }
}

static void changed(const char *folder, void *context)
{
    struct server *server = context;
    for (size_t i = 0; i < server->count; i++)
        tended_changed(server->tended[i], folder);
}

static void take_registry(struct server *server)
{
    struct error err;
    if (server->registry == NULL)
        return;
    bool rescan = device_now_ms() >= server->rescan_ms;
    if (!rescan && !server->registry_told && !server->world.registry_gone)
        return;
    server->world.registry_gone = registry_drain(server->registry, changed, server, &err) != 0;
    if (server->world.registry_gone)
        say(server, &err);
    if (!rescan)
        return;
    server->rescan_ms = device_now_ms() + server->setup->rescan_s * INT64_C(1000);
    changed(NULL, server);
}

// ---- the loop ----

static int64_t earliest(const struct server *server)
{
    int64_t due = INT64_MAX;
    for (size_t i = 0; i < server->count; i++) {
        const struct tended *tended = server->tended[i];
        if (!tended->present)
            continue;
        if (tended->dirty)
            return 0;
        if (tended_pass_due(tended) < due)
            due = tended_pass_due(tended);
        if (tended->follow_ms < due)
            due = tended->follow_ms;
    }
    if (server->world.custody == NULL && server->connect_ms < due)
        due = server->connect_ms;
    if (server->registry != NULL && server->rescan_ms < due)
        due = server->rescan_ms;
    int64_t metrics = metrics_due_ms(server->metrics);
    return metrics < due ? metrics : due;
}

// Returns -1 when a watch is broken for good.
static int wait_for_something(struct server *server, struct error *err)
{
    size_t used = 0;
    struct pollfd *fds = calloc(LINK_WATCH_FDS + 4 + 2 * server->count, sizeof *fds);
    if (fds == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for %zu interfaces",
                         server->count);
    link_watch_fds(server->links, fds);
    used = LINK_WATCH_FDS;
    fds[used++] = (struct pollfd){.fd = server->signals, .events = POLLIN};
    size_t registry = used;
    fds[used++] = (struct pollfd){
        .fd = server->registry != NULL ? registry_fd(server->registry) : -1, .events = POLLIN};
    fds[used++] = (struct pollfd){
        .fd = server->world.custody != NULL ? custody_fd(server->world.custody) : -1,
        .events = POLLIN};
    fds[used++] = (struct pollfd){.fd = metrics_fd(server->metrics), .events = POLLIN};
    for (size_t i = 0; i < server->count; i++)
        fds[used++] = (struct pollfd){
            .fd = server->tended[i]->moves != NULL ? moves_fd(server->tended[i]->moves) : -1,
            .events = POLLIN};
    for (size_t i = 0; i < server->count; i++)
        fds[used++] = (struct pollfd){.fd = server->tended[i]->pair != NULL
                                                ? moves_fd(pair_moves(server->tended[i]->pair))
                                                : -1,
                                      .events = POLLIN};
    int64_t due = earliest(server), now = device_now_ms();
    int timeout = due <= now ? 0 : due - now > 60000 ? 60000 : (int)(due - now);
    int n = poll(fds, used, timeout);
    server->registry_told = n > 0 && fds[registry].revents != 0;
    bool links = n > 0 && (fds[0].revents != 0 || fds[1].revents != 0);
    free(fds);
    if (!links)
        return 0;
    if (link_watch_drain(server->links, mark_changed, server, err) != 0)
        return -1;
    find_all(server);
    return 0;
}

static void work_on(struct tended *tended)
{
    int64_t now = device_now_ms();
    tended_datagrams(tended);
    if (now >= tended->follow_ms)
        tended_follow(tended);
    if (!tended->present || (!tended->dirty && now < tended->due_ms)) {
        tended->in_a_row = 0;
        return;
    }
    if (now < tended_pass_due(tended))
        return;
    tended_pass(tended);
    if (tended->dirty && ++tended->in_a_row >= PASSES_IN_A_ROW) {
        tended->dirty = false;
        tended->view_old = true;
        tended->due_ms = now + REST_MS;
        tended->in_a_row = 0;
    }
}

static int loop(struct server *server, struct error *err)
{
    find_all(server);
    while (!server->ended) {
        try_to_connect(server);
        for (size_t i = 0; i < server->count; i++)
            work_on(server->tended[i]);
        if (!server->ready) {
            sd_notify(0, "READY=1");
            server->ready = true;
        }
        // Its answer may have come with another one, and so wake nobody.
        take_watch(server);
        if (wait_for_something(server, err) != 0)
            return -1;
        take_signals(server);
        take_watch(server);
        take_registry(server);
        metrics_work(server->metrics);
    }
    sd_notify(0, "STOPPING=1");
    return 0;
}

static int open_signals(struct server *server, struct error *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0 ||
        (server->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)) < 0)
        return error_set(err, ERROR_UNAVAILABLE, "signals: %s", strerror(errno));
    return 0;
}

int serve(const char *path, const struct apply_settings *settings, struct error *err)
{
    struct server server = {.path = path, .given = settings, .signals = -1};
    int rc = -1;
    if (open_signals(&server, err) == 0 && link_watch_open(&server.links, err) == 0 &&
        load(&server, err) == 0 && open_metrics(&server, err) == 0)
        rc = loop(&server, err);
    metrics_close(server.metrics);
    unload(&server);
    custody_close(server.world.custody);
    link_watch_close(server.links);
    if (server.signals >= 0)
        close(server.signals);
    return rc;
}
