// SPDX-License-Identifier: Apache-2.0
// The guard: a child that reads "held" and "not held" from a pipe, and acts when that breaks.
#include "hold_guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hold.h"

#define ATTEMPTS   100 // to let go
#define ATTEMPT_US 50000

struct hold_guard {
    pid_t pid;
    int fd; // written to
};

static void let_go(const char *interface)
{
    struct error err;
    for (int i = 0; i < ATTEMPTS; i++) {
        if (hold_release_leftover(interface, &err) == 0 || err.code == ERROR_NOT_FOUND)
            return;
        usleep(ATTEMPT_US);
    }
}

// Whoever ends the whole service kills the applier and this one alike: it must outlive the other by
// the moment that it needs.
static _Noreturn void guard(int fd, const char *interface)
{
    char word = 'n', next;
    ssize_t n;
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    setsid();
    prctl(PR_SET_NAME, "hold-guard");
    while ((n = read(fd, &next, 1)) != 0)
        if (n > 0)
            word = next;
        else if (errno != EINTR)
            break;
    if (word == 'h')
        let_go(interface);
    _exit(0);
}

// What the applier has open is none of the guard's business, and must not be kept open by it.
static void close_others(int keep)
{
    close_range(3, (unsigned)keep - 1, 0);
    close_range((unsigned)keep + 1, ~0u, 0);
}

int hold_guard_start(struct hold_guard **out, const char *interface, struct error *err)
{
    int ends[2];
    struct hold_guard *made = calloc(1, sizeof *made);
    if (made == NULL || pipe2(ends, O_CLOEXEC) != 0) {
        free(made);
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "interface '%s': no pipe to a guard: %s",
                         interface, strerror(errno));
    }
    made->pid = fork();
    if (made->pid == 0) {
        close_others(ends[0]);
        guard(ends[0], interface);
    }
    close(ends[0]);
    made->fd = ends[1];
    if (made->pid < 0) {
        close(made->fd);
        free(made);
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "interface '%s': no guard: %s", interface,
                         strerror(errno));
    }
    *out = made;
    return 0;
}

void hold_guard_tell(struct hold_guard *guard, int held)
{
    ssize_t n;
    if (guard == NULL)
        return;
    do
        n = write(guard->fd, held ? "h" : "n", 1); // SIGPIPE is ignored in this program
    while (n < 0 && errno == EINTR);
}

void hold_guard_stop(struct hold_guard *guard)
{
    if (guard == NULL)
        return;
    close(guard->fd);
    while (waitpid(guard->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    free(guard);
}
