// SPDX-License-Identifier: Apache-2.0
// How things stand, as a table for people and as JSON for programs.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>
#include <sodium.h>

#include "plan.h"
#include "record.h"
#include "status.h"

#define WIDTH 80

// ---- the table ----

// "35 s", "12 min", "5 h", "3 d".
static const char *print_duration(int64_t us, char text[24])
{
    static const struct {
        int64_t seconds;
        const char *unit;
    } units[] = {{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}};
    int64_t seconds = us > 0 ? us / 1000000 : 0;
    size_t i = 0;
    // From two of a unit on; what is less is told in the next smaller.
    while (i < 3 && seconds < 2 * units[i].seconds)
        i++;
    snprintf(text, 24, "%" PRId64 " %s", seconds / units[i].seconds, units[i].unit);
    return text;
}

static const char *print_age(int64_t now_us, int64_t then_us, char text[24])
{
    return then_us == 0 ? "never" : print_duration(now_us - then_us, text);
}

// A name in a column of `width`, at most 64: one that is too long ends in '~'.
static const char *fit(const char *name, size_t width, char text[64 + 1])
{
    size_t length = strlen(name);
    bool cut = length > width;
    if (cut)
        length = width - 1;
    memcpy(text, name, length);
    if (cut)
        text[length++] = '~';
    text[length] = '\0';
    return text;
}

static void print_key(const struct status *status, const struct status_interface *interface)
{
    char name[65], key[65], age[24], next[24] = "-";
    const struct custody_view *view = interface->view;
    const struct custody_key *shown = NULL;
    if (view != NULL) {
        shown = plan_in_state(view, CUSTODY_KEY_ACTIVE);
        if (shown == NULL)
            shown = plan_in_state(view, CUSTODY_KEY_PRE_ACTIVE);
        if (view->next_rotation_us != 0)
            print_duration(view->next_rotation_us - status->now_us, next);
    }
    printf("%-15s %-28s", fit(interface->setup->name, 15, name),
           fit(interface->setup->key, 28, key));
    if (shown == NULL) {
        printf(" %s\n", view == NULL ? "unknown" : "no generation");
        return;
    }
    printf(" %5" PRIu64 " %-11s %-8s %s\n", shown->generation, custody_key_state_name(shown->state),
           print_age(status->now_us,
                     shown->activated_us != 0 ? shown->activated_us : shown->generated_us, age),
           view->suspended ? "held" : next);
}

static void print_rotation(const struct status *status, const struct custody_view *view)
{
    char open[24];
    const char *step = view->step_count > 0 ? view->steps[view->step_count - 1].event : "";
    if (view->rotation_generation == 0)
        return;
    printf("  rotation to generation %" PRIu64 ", open for %s%s%.24s\n", view->rotation_generation,
           print_duration(status->now_us - view->rotation_started_us, open),
           step[0] != '\0' ? ", last step: " : "", step);
}

static void print_peers(const struct status *status, const struct status_interface *interface)
{
    if (interface->setup->peer_count > 0)
        printf("  %-40s %5s %-10s %-9s %s\n", "COUNTERPART", "GEN", "HANDSHAKE", "FRESH",
               "LEFTOVER");
    for (size_t p = 0; p < interface->setup->peer_count; p++) {
        const struct status_peer *peer = &interface->peers[p];
        char name[65], handshake[24], fresh[24];
        printf("  %-40s %5" PRIu64 " %-10s %-9s %u\n", fit(peer->setup->host, 40, name),
               peer->generation, print_age(status->now_us, peer->handshake_us, handshake),
               print_age(status->now_us, peer->says.fresh.time_us, fresh), peer->leftovers);
    }
}

// "attention: TEXT", broken at spaces.
static void print_remark(const char *text)
{
    static const char first[] = "attention: ", further[] = "           ";
    const char *before = first;
    size_t room = WIDTH - (sizeof first - 1);
    while (*text != '\0') {
        size_t length = strlen(text);
        if (length > room) {
            length = room;
            while (length > 0 && text[length] != ' ')
                length--;
            if (length == 0)
                length = room;
        }
        printf("%s%.*s\n", before, (int)length, text);
        text += length;
        text += strspn(text, " ");
        before = further;
    }
}

int status_print(const struct status *status)
{
    char host[65];
    printf("host %s, custodyd %s, registry %s\n\n",
           status->host[0] != '\0' ? fit(status->host, 30, host) : "unknown",
           status->custodyd_reached ? "reached" : "NOT REACHED",
           status->setup->registry[0] == '\0' ? "none"
           : status->registry_reached         ? "reached"
                                              : "NOT REACHED");
    printf("%-15s %-28s %5s %-11s %-8s %s\n", "INTERFACE", "KEY", "GEN", "STATE", "AGE", "NEXT");
    for (size_t i = 0; i < status->setup->interface_count; i++) {
        const struct status_interface *interface = &status->interfaces[i];
        print_key(status, interface);
        if (interface->view != NULL)
            print_rotation(status, interface->view);
        print_peers(status, interface);
    }
    if (status->remark_count > 0)
        putchar('\n');
    for (size_t i = 0; i < status->remark_count && i < STATUS_REMARKS_MAX; i++)
        print_remark(status->remarks[i]);
    if (status->remark_count > STATUS_REMARKS_MAX)
        printf("attention: and %zu more\n", status->remark_count - STATUS_REMARKS_MAX);
    return fflush(stdout) != 0 || ferror(stdout) ? -1 : 0;
}

// ---- JSON ----

static json_t *json_time(int64_t time_us)
{
    char text[RECORD_TIME_SIZE];
    if (time_us == 0 || record_time_format(time_us, text) != 0)
        return json_null();
    return json_string(text);
}

// Bytes that are no UTF-8 (of a path in a message) become '?'.
static json_t *json_text(const char *text)
{
    json_t *value = json_string(text);
    char plain[sizeof(((struct status *)NULL)->remarks[0])];
    if (value != NULL)
        return value;
    snprintf(plain, sizeof plain, "%s", text);
    for (char *c = plain; *c != '\0'; c++)
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    return json_string(plain);
}

static json_t *json_key(const struct custody_key *key)
{
    char base64[sodium_base64_ENCODED_LEN(CUSTODY_KEY_SIZE, sodium_base64_VARIANT_ORIGINAL)];
    if (key == NULL)
        return json_null();
    sodium_bin2base64(base64, sizeof base64, key->public_key, CUSTODY_KEY_SIZE,
                      sodium_base64_VARIANT_ORIGINAL);
    return json_pack("{sI ss ss so}", "generation", (json_int_t)key->generation, "state",
                     custody_key_state_name(key->state), "public_key", base64, "activated",
                     json_time(key->activated_us));
}

static json_t *json_rotation(const struct custody_view *view)
{
    if (view->rotation_generation == 0)
        return json_null();
    return json_pack("{sI so ss}", "generation", (json_int_t)view->rotation_generation, "started",
                     json_time(view->rotation_started_us), "step",
                     view->step_count > 0 ? view->steps[view->step_count - 1].event : "");
}

static json_t *json_peers(const struct status_interface *interface)
{
    json_t *list = json_array();
    for (size_t p = 0; p < interface->setup->peer_count; p++) {
        const struct status_peer *peer = &interface->peers[p];
        json_array_append_new(
            list,
            json_pack("{ss ss sI so so sb si}", "host", peer->setup->host, "key", peer->setup->key,
                      "generation", (json_int_t)peer->generation, "handshake",
                      json_time(peer->handshake_us), "fresh", json_time(peer->says.fresh.time_us),
                      "stale", (int)peer->says.stale, "leftovers", (int)peer->leftovers));
    }
    return list;
}

static json_t *json_interface(const struct status_interface *interface)
{
    const struct custody_view *view = interface->view;
    json_t *value = json_pack("{ss ss sb so}", "interface", interface->setup->name, "key",
                              interface->setup->key, "present", interface->device != NULL,
                              "counterparts", json_peers(interface));
    if (value == NULL || view == NULL)
        return value;
    json_object_set_new(value, "active", json_key(plan_in_state(view, CUSTODY_KEY_ACTIVE)));
    json_object_set_new(value, "pre_active", json_key(plan_in_state(view, CUSTODY_KEY_PRE_ACTIVE)));
    json_object_set_new(value, "rotation", json_rotation(view));
    json_object_set_new(value, "next_rotation", json_time(view->next_rotation_us));
    json_object_set_new(value, "failures", json_integer(view->rotation_failures));
    json_object_set_new(value, "suspended", json_boolean(view->suspended));
    return value;
}

int status_print_json(const struct status *status)
{
    json_t *interfaces = json_array(), *attention = json_array();
    for (size_t i = 0; i < status->setup->interface_count; i++)
        json_array_append_new(interfaces, json_interface(&status->interfaces[i]));
    for (size_t i = 0; i < status->remark_count && i < STATUS_REMARKS_MAX; i++)
        json_array_append_new(attention, json_text(status->remarks[i]));
    json_t *value =
        json_pack("{ss so sb sb so so}", "host", status->host, "time", json_time(status->now_us),
                  "custodyd_reached", (int)status->custodyd_reached, "registry_reached",
                  (int)status->registry_reached, "interfaces", interfaces, "attention", attention);
    if (value == NULL)
        return -1;
    int rc = json_dumpf(value, stdout, JSON_COMPACT);
    json_decref(value);
    putchar('\n');
    return rc != 0 || fflush(stdout) != 0 || ferror(stdout) ? -1 : 0;
}
