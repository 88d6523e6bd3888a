// SPDX-License-Identifier: Apache-2.0
// custodyctl approve: an operator's signature over a request, made by ssh-keygen here or elsewhere.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "approval.h"
#include "ctl.h"
#include "print.h"
#include "sshsig.h"

#define ARMOUR_MAX 4096 // bytes of what ssh-keygen writes

extern char **environ;

// Reads to the end of the file. CTL_OK, or the exit code after the reason was told.
static enum ctl_exit read_all(struct ctl *ctl, int fd, const char *what, char *text, size_t *length)
{
    *length = 0;
    for (;;) {
        ssize_t got = read(fd, text + *length, ARMOUR_MAX - *length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return ctl_fail_here(ctl, "%s: %s", what, strerror(errno));
        if (got == 0)
            return CTL_OK;
        *length += (size_t)got;
        if (*length == ARMOUR_MAX)
            return ctl_fail_here(ctl, "%s: longer than any SSH signature", what);
    }
}

static enum ctl_exit read_signature(struct ctl *ctl, const char *path, char *text, size_t *length)
{
    int fd = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return ctl_fail_here(ctl, "%s: %s", path, strerror(errno));
    enum ctl_exit result = read_all(ctl, fd, path, text, length);
    if (fd != STDIN_FILENO)
        close(fd);
    return result;
}

// Starts ssh-keygen with `in` and `out` as its standard input and output.
static int spawn(const char *key, int in, int out, pid_t *pid)
{
    const char *argv[] = {"ssh-keygen", "-Y", "sign", "-n", APPROVAL_NAMESPACE, "-f", key, NULL};
    posix_spawn_file_actions_t actions;
    int failure = posix_spawn_file_actions_init(&actions);
    if (failure != 0)
        return failure;
    failure = posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
    if (failure == 0)
        failure = posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    if (failure == 0)
        failure = posix_spawnp(pid, argv[0], &actions, NULL, (char *const *)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    return failure;
}

static enum ctl_exit wait_signer(struct ctl *ctl, pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return ctl_fail_here(ctl, "waitpid: %s", strerror(errno));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return CTL_OK;
    return ctl_fail_here(ctl, "ssh-keygen has not signed: its own message is above");
}

// Has ssh-keygen sign the text, which fits into a pipe. A passphrase it asks for at the terminal, a
// security key it tells its user to touch.
static enum ctl_exit sign(struct ctl *ctl, const char *key, const char *request, char *text,
                          size_t *length)
{
    int in[2] = {-1, -1}, out[2] = {-1, -1};
    pid_t pid = 0;
    enum ctl_exit result = CTL_OK;
    size_t size = strlen(request);
    signal(SIGPIPE, SIG_IGN);
    if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) {
        result = ctl_fail_here(ctl, "pipe: %s", strerror(errno));
        goto cleanup;
    }
    int failure = spawn(key, in[0], out[1], &pid);
    if (failure != 0) {
        result = ctl_fail_here(ctl, "ssh-keygen: %s: it is in the package openssh-client",
                               strerror(failure));
        goto cleanup;
    }
    // What ssh-keygen does not read it will complain of itself.
    bool sent = write(in[1], request, size) == (ssize_t)size;
    close(in[1]);
    close(out[1]);
    in[1] = out[1] = -1;
    result = read_all(ctl, out[0], "ssh-keygen", text, length);
    enum ctl_exit ended = wait_signer(ctl, pid);
    if (result == CTL_OK)
        result = ended;
    if (result == CTL_OK && !sent)
        result = ctl_fail_here(ctl, "ssh-keygen has not read the text");
cleanup:
    for (int i = 0; i < 2; i++) {
        if (in[i] >= 0)
            close(in[i]);
        if (out[i] >= 0)
            close(out[i]);
    }
    return result;
}

static enum ctl_exit told(struct ctl *ctl, const struct custody_request *request, const char *name)
{
    if (ctl->json)
        return print_json(json_pack("{so so sI sI}", "request", print_json_text(request->id),
                                    "operator", print_json_text(name), "approvals",
                                    (json_int_t)request->operator_count, "needed",
                                    (json_int_t)request->needed)) == 0
                   ? CTL_OK
                   : ctl_fail_here(ctl, "it was done, but the output could not be written");
    printf("Approved by operator %s: %zu of %u.\n", name, request->operator_count, request->needed);
    if (request->operator_count < request->needed)
        return CTL_OK;
    if (request->key[0] != '\0')
        printf("Now run\n  custodyctl key destroy %s %" PRIu64 " --request %s\n", request->key,
               request->generation, request->id);
    else
        printf("Now run\n  custodyctl log accept-loss\n");
    return CTL_OK;
}

enum ctl_exit approve(struct ctl *ctl)
{
    char armour[ARMOUR_MAX], signature[ARMOUR_MAX], name[64];
    size_t length = 0;
    struct custody_request request;
    struct custody_error err;
    struct error error;
    const char *id = ctl->arguments[0];
    bool by_uid = ctl->key_file == NULL && ctl->signature == NULL;
    enum ctl_exit result = CTL_OK;
    if (ctl->key_file != NULL && ctl->signature != NULL)
        return ctl_fail_here(ctl, "--key and --signature exclude each other");
    if (ctl->key_file != NULL) {
        result = request_fetch(ctl, id, &request);
        if (result != CTL_OK)
            return result;
        fprintf(stderr, "This is signed:\n%s", request.text);
        result = sign(ctl, ctl->key_file, request.text, armour, &length);
    } else if (ctl->signature != NULL) {
        result = read_signature(ctl, ctl->signature, armour, &length);
    }
    if (result != CTL_OK)
        return result;
    if (!by_uid && sshsig_from_armour(armour, length, signature, sizeof(signature), &error) != 0)
        return ctl_fail_here(ctl, "%s", error.message);
    if (custody_approve(ctl->custody, id, by_uid ? NULL : signature, &request, name, &err) < 0)
        return ctl_fail(ctl, &err);
    return told(ctl, &request, name);
}
