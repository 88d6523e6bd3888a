// SPDX-License-Identifier: Apache-2.0
// custodyctl key …: generations of keys, and their public halves.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "note.h"
#include "print.h"
#include "views.h"

enum ctl_exit key_generate(struct ctl *ctl)
{
    struct custody_key key;
    struct custody_error err;
    char base64[PRINT_BASE64_SIZE];
    if (custody_key_generate(ctl->custody, ctl->arguments[0], ctl->ticket, &key, &err) < 0)
        return ctl_fail(ctl, &err);
    if (ctl->json)
        return ctl_written(ctl, print_json(print_json_key(&key)));
    printf("%s generation %" PRIu64 " is sealed in the token. Its public key:\n%s\n", key.name,
           key.generation, print_key(key.public_key, base64));
    return CTL_OK;
}

static void print_in_full(const struct custody_key *key)
{
    char text[PRINT_TIME_SIZE], base64[PRINT_BASE64_SIZE];
    printf("%s generation %" PRIu64 "\n", key->name, key->generation);
    print_field("  state", "%s", custody_key_state_name(key->state));
    print_field("  public key", "%s", print_key(key->public_key, base64));
    print_field("  generated", "%s", print_time(key->generated_us, text));
    print_field("  activated", "%s", print_time(key->activated_us, text));
    if (key->deactivated_us != 0)
        print_field("  deactivated", "%s", print_time(key->deactivated_us, text));
    print_field("  releases", "%" PRIu64, key->releases);
    print_field("  last release", "%s", print_time(key->released_us, text));
}

static void print_table(const struct custody_key *keys, size_t count)
{
    char base64[PRINT_BASE64_SIZE];
    int width = 4;
    for (size_t i = 0; i < count; i++)
        if ((int)strlen(keys[i].name) > width)
            width = (int)strlen(keys[i].name);
    printf("%-*s  %3s  %-11s  %s\n", width, "NAME", "GEN", "STATE", "PUBLIC KEY");
    for (size_t i = 0; i < count; i++)
        printf("%-*s  %3" PRIu64 "  %-11s  %s\n", width, keys[i].name, keys[i].generation,
               custody_key_state_name(keys[i].state), print_key(keys[i].public_key, base64));
}

// A generation, and what is true of its key as a whole where that could be had.
static json_t *key_json(const struct custody_key *key, const struct views *views)
{
    json_t *value = print_json_key(key);
    const struct custody_view *view = views_find(views, key->name);
    if (value == NULL)
        return NULL;
    json_object_set_new(value, "rotation",
                        view != NULL && view->rotation_generation != 0
                            ? json_integer((json_int_t)view->rotation_generation)
                            : json_null());
    json_object_set_new(value, "suspended",
                        view != NULL ? json_boolean(view->suspended) : json_null());
    json_object_set_new(value, "next_rotation",
                        print_json_time(view != NULL ? view->next_rotation_us : 0));
    return value;
}

static enum ctl_exit print_list(struct ctl *ctl, const struct custody_key *keys, size_t count,
                                const struct views *views)
{
    if (ctl->json) {
        json_t *list = json_array();
        for (size_t i = 0; i < count; i++)
            json_array_append_new(list, key_json(&keys[i], views));
        return ctl_written(ctl, print_json(list));
    }
    if (ctl->argument_count > 0)
        for (size_t i = 0; i < count; i++)
            print_in_full(&keys[i]);
    else if (count > 0)
        print_table(keys, count);
    else
        printf("There is no key yet: 'custodyctl key generate NAME' makes one.\n");
    if (views_count(views) > 0 && ctl->argument_count == 0)
        putchar('\n');
    for (size_t i = 0; i < views_count(views); i++)
        views_print_line(views_at(views, i));
    return CTL_OK;
}

enum ctl_exit key_list(struct ctl *ctl)
{
    struct custody_key *keys = NULL;
    struct custody_error err;
    size_t count = 0;
    const char *name = ctl->argument_count > 0 ? ctl->arguments[0] : NULL;
    if (custody_list_keys(ctl->custody, name, &keys, &count, &err) < 0)
        return ctl_fail(ctl, &err);
    struct views *views = views_get(ctl->custody, keys, count);
    enum ctl_exit result = name != NULL && count == 0
                               ? ctl_fail_here(ctl, "there is no key '%s'", name)
                               : print_list(ctl, keys, count, views);
    views_free(views);
    free(keys);
    return result;
}

// The generation asked for; without one the active, else the pre-active.
static const struct custody_key *choose(const struct custody_key *keys, size_t count,
                                        uint64_t generation)
{
    const struct custody_key *chosen = NULL;
    for (size_t i = 0; i < count; i++) {
        if (generation != 0 && keys[i].generation == generation)
            return &keys[i];
        if (generation == 0 && keys[i].state == CUSTODY_KEY_ACTIVE)
            return &keys[i];
        if (generation == 0 && keys[i].state == CUSTODY_KEY_PRE_ACTIVE)
            chosen = &keys[i];
    }
    return chosen;
}

enum ctl_exit key_show(struct ctl *ctl)
{
    struct custody_key *keys = NULL;
    struct custody_error err;
    char base64[PRINT_BASE64_SIZE];
    size_t count = 0;
    enum ctl_exit result = CTL_OK;
    const char *name = ctl->arguments[0];
    if (custody_list_keys(ctl->custody, name, &keys, &count, &err) < 0)
        return ctl_fail(ctl, &err);
    const struct custody_key *key = choose(keys, count, ctl->generation);
    if (count == 0)
        result = ctl_fail_here(ctl, "there is no key '%s': 'custodyctl key list' shows all", name);
    else if (key == NULL && ctl->generation != 0)
        result = ctl_fail_here(ctl, "key '%s' has no generation %" PRIu64, name, ctl->generation);
    else if (key == NULL)
        result = ctl_fail_here(ctl, "key '%s' has no active or pre-active generation", name);
    else if (ctl->json)
        result = ctl_written(ctl, print_json(print_json_key(key)));
    else
        puts(print_key(key->public_key, base64));
    free(keys);
    return result;
}

enum ctl_exit key_publish(struct ctl *ctl)
{
    struct custody_error err;
    char bundle[NOTE_MAX];
    if (custody_key_publish(ctl->custody, ctl->arguments[0], ctl->generation, ctl->ticket, NULL, 0,
                            0, bundle, sizeof(bundle), &err) < 0)
        return ctl_fail(ctl, &err);
    if (ctl->json)
        return ctl_written(ctl, print_json(json_pack("{so}", "bundle", print_json_text(bundle))));
    fputs(bundle, stdout);
    return CTL_OK;
}

enum ctl_exit key_destroy(struct ctl *ctl)
{
    struct custody_key key;
    struct custody_request request;
    struct custody_error err;
    int done = custody_key_destroy(ctl->custody, ctl->arguments[0], ctl->generation, ctl->ticket,
                                   ctl->request, &key, &request, &err);
    if (done < 0)
        return ctl_fail(ctl, &err);
    if (done == 1)
        return request_made(ctl, &request);
    if (ctl->json)
        return ctl_written(ctl, print_json(print_json_key(&key)));
    printf("%s generation %" PRIu64 " is destroyed.\n", key.name, key.generation);
    return CTL_OK;
}
