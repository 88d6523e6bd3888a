// SPDX-License-Identifier: Apache-2.0
// custodyctl token …: initialising and looking at the token.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl.h"
#include "note.h"
#include "print.h"

#define PINNED SYSCONFDIR "/custody/log.vkey"

static int write_all(int fd, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, text, length);
        if (n < 0 && errno != EINTR)
            return -1;
        if (n > 0) {
            text += n;
            length -= (size_t)n;
        }
    }
    return fsync(fd);
}

// Whether the file holds this key already. Another key there is never overwritten: who pinned it
// must decide.
static enum ctl_exit compare_vkey(struct ctl *ctl, const char *vkey)
{
    struct note_key pinned, told;
    struct error err;
    if (note_key_read(&pinned, ctl->vkey_out, &err) < 0)
        return ctl_fail_here(ctl, "--vkey-out: it exists, and is no key: %s", err.message);
    if (note_key_parse(&told, vkey, &err) < 0)
        return ctl_fail_here(ctl, "custodyd told no verifier key: %s", err.message);
    if (strcmp(pinned.name, told.name) != 0 ||
        memcmp(pinned.public_key, told.public_key, sizeof(told.public_key)) != 0)
        return ctl_fail_here(ctl,
                             "--vkey-out: %s holds another log's key (%s+%08x); it was left as it "
                             "is. If the new one is to be trusted, move that file away first",
                             ctl->vkey_out, pinned.name, pinned.id);
    return CTL_OK;
}

static enum ctl_exit write_vkey(struct ctl *ctl, const char *vkey)
{
    int fd = open(ctl->vkey_out, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0 && errno == EEXIST)
        return compare_vkey(ctl, vkey);
    if (fd < 0)
        return ctl_fail_here(ctl, "--vkey-out: cannot make %s: %s", ctl->vkey_out, strerror(errno));
    char line[NOTE_VKEY_MAX + 1];
    int length = snprintf(line, sizeof(line), "%s\n", vkey);
    int failed = write_all(fd, line, (size_t)length) < 0 ? errno : 0;
    if (close(fd) < 0 && failed == 0)
        failed = errno;
    if (failed == 0)
        return CTL_OK;
    unlink(ctl->vkey_out);
    return ctl_fail_here(ctl, "--vkey-out: cannot write %s: %s", ctl->vkey_out, strerror(failed));
}

static void print_token(const struct custody_token_info *token)
{
    print_field("token", "'%s', serial %s", token->label, token->serial);
    print_field("model", "%s %s", token->manufacturer, token->model);
    print_field("sealing", "%s", token->suite[0] != '\0' ? token->suite : "not chosen yet");
    print_field("sealed keys", "%u", token->blobs);
    if (token->leftovers > 0)
        print_field("leftovers", "%u generated but never recorded; nothing can release them",
                    token->leftovers);
}

// `file` holds the log's key now; NULL: none was asked for, or could be written.
static void print_initialised(const struct custody_token_initialised *done, const char *file)
{
    if (done->already)
        printf("The token was initialised before; nothing was changed.\n\n");
    else
        printf("The token is initialised, and that is record 0 of the log.\n\n");
    print_token(&done->token);
    print_long("host key", done->host_vkey);
    print_long("log key", done->log_vkey);
    printf("\nPin the log key: everything that checks this host's log checks it with that.\n");
    if (file == NULL)
        printf("Put that line into the file below on this host, and give it to the auditors.\n");
    else if (strcmp(file, PINNED) == 0)
        printf("It is in the file below, where appliers look for it; give it to the auditors.\n");
    else
        printf("It is in %s;\nappliers look for it in the file below. Give it to the auditors.\n",
               file);
    printf("  %s\n", PINNED);
}

enum ctl_exit token_init(struct ctl *ctl)
{
    struct custody_token_initialised done;
    struct custody_error err;
    if (custody_token_init(ctl->custody, &done, &err) < 0)
        return ctl_fail(ctl, &err);
    enum ctl_exit written = ctl->vkey_out != NULL ? write_vkey(ctl, done.log_vkey) : CTL_OK;
    if (!ctl->json)
        print_initialised(&done, written == CTL_OK ? ctl->vkey_out : NULL);
    else if (print_json(json_pack("{sb so so so}", "already", (int)done.already, "token",
                                  print_json_token(&done.token), "log_vkey",
                                  print_json_text(done.log_vkey), "host_vkey",
                                  print_json_text(done.host_vkey))) < 0)
        return ctl_fail_here(ctl, "it was done, but the output could not be written");
    return written;
}

static bool print_checks(const struct custody_probe_check *checks, size_t count)
{
    bool fit = true;
    for (size_t i = 0; i < count; i++) {
        const char *result = checks[i].passed ? "yes" : checks[i].required ? "NO" : "no";
        print_field(result, "%s%s%s%s", checks[i].name, checks[i].required ? "" : " (not needed)",
                    checks[i].detail[0] != '\0' ? ": " : "", checks[i].detail);
        fit = fit && (checks[i].passed || !checks[i].required);
    }
    printf(fit ? "\nThe token can do all that custody needs.\n"
               : "\nThe token cannot do all that custody needs: see the lines that say NO.\n");
    return fit;
}

static bool print_checks_json(const struct custody_probe_check *checks, size_t count, bool *written)
{
    bool fit = true;
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        json_array_append_new(
            list, json_pack("{so sb sb so}", "name", print_json_text(checks[i].name), "passed",
                            (int)checks[i].passed, "required", (int)checks[i].required, "detail",
                            print_json_text(checks[i].detail)));
        fit = fit && (checks[i].passed || !checks[i].required);
    }
    *written = print_json(json_pack("{sb so}", "fit", (int)fit, "checks", list)) == 0;
    return fit;
}

enum ctl_exit token_probe(struct ctl *ctl)
{
    struct custody_probe_check *checks = NULL;
    struct custody_error err;
    size_t count = 0;
    bool written = true;
    if (custody_token_probe(ctl->custody, &checks, &count, &err) < 0)
        return ctl_fail(ctl, &err);
    bool fit = ctl->json ? print_checks_json(checks, count, &written) : print_checks(checks, count);
    free(checks);
    if (!written)
        return ctl_fail_here(ctl, "the output could not be written");
    return fit ? CTL_OK : CTL_FAILED;
}

enum ctl_exit token_status(struct ctl *ctl)
{
    struct custody_status status;
    struct custody_error err;
    if (custody_status(ctl->custody, &status, &err) < 0)
        return ctl_fail(ctl, &err);
    if (ctl->json) {
        json_t *value = json_pack(
            "{sb sb so so so so}", "initialised", (int)status.initialised, "keeper_ready",
            (int)status.keeper_ready, "keeper_message", print_json_text(status.keeper_message),
            "token", print_json_token(&status.token), "log_vkey", print_json_text(status.log_vkey),
            "host_vkey", print_json_text(status.host_vkey));
        return print_json(value) == 0 ? CTL_OK
                                      : ctl_fail_here(ctl, "the output could not be written");
    }
    print_field("initialised", "%s",
                status.initialised ? "yes" : "no: run 'custodyctl token init'");
    print_ready("keeper", status.keeper_ready, status.keeper_message);
    if (status.token.label[0] != '\0')
        print_token(&status.token);
    print_long("log key", status.log_vkey);
    print_long("host key", status.host_vkey);
    return CTL_OK;
}
