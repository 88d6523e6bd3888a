// SPDX-License-Identifier: Apache-2.0
// custodyctl host trust ...: whose signed notes this host believes.
#include <stdio.h>
#include <string.h>

#include "ctl.h"
#include "print.h"
#include "trust.h"

static enum ctl_exit fail(struct ctl *ctl, const struct error *err)
{
    return ctl_fail_here(ctl, "%s: %s", error_code_name(err->code), err->message);
}

enum ctl_exit trust_add_host(struct ctl *ctl)
{
    struct error err;
    if (trust_add(ctl->file, ctl->arguments[0], ctl->arguments[1], &err) < 0)
        return fail(ctl, &err);
    if (ctl->json)
        return ctl_written(
            ctl, print_json(json_pack("{so so}", "host", print_json_text(ctl->arguments[0]), "vkey",
                                      print_json_text(ctl->arguments[1]))));
    printf("What %s signs is believed here from now on. Compare its key with what\n"
           "'custodyctl token status' prints there:\n  %s\n",
           ctl->arguments[0], ctl->arguments[1]);
    return CTL_OK;
}

enum ctl_exit trust_remove_host(struct ctl *ctl)
{
    struct error err;
    if (trust_remove(ctl->file, ctl->arguments[0], &err) < 0)
        return fail(ctl, &err);
    if (ctl->json)
        return ctl_written(
            ctl, print_json(json_pack("{so}", "host", print_json_text(ctl->arguments[0]))));
    printf("What %s signs is not believed here any more.\n"
           "Its peers stay on the interfaces until somebody removes them.\n",
           ctl->arguments[0]);
    return CTL_OK;
}

static enum ctl_exit print_trust(struct ctl *ctl, const struct trust *trust)
{
    json_t *list = ctl->json ? json_array() : NULL;
    if (!ctl->json && trust_count(trust) == 0)
        printf("No host is trusted in %s.\n", ctl->file);
    for (size_t i = 0; i < trust_count(trust); i++) {
        const struct trust_entry *entry = trust_at(trust, i);
        char vkey[NOTE_VKEY_MAX];
        note_key_format(&entry->key, vkey);
        if (ctl->json)
            json_array_append_new(list, json_pack("{so so}", "host", print_json_text(entry->host),
                                                  "vkey", print_json_text(vkey)));
        else
            print_long(entry->host, vkey);
    }
    return ctl->json ? ctl_written(ctl, print_json(list)) : CTL_OK;
}

enum ctl_exit trust_list_hosts(struct ctl *ctl)
{
    struct error err;
    struct trust *trust = trust_read(ctl->file, false, &err);
    if (trust == NULL)
        return fail(ctl, &err);
    enum ctl_exit result = print_trust(ctl, trust);
    trust_free(trust);
    return result;
}
