// SPDX-License-Identifier: Apache-2.0
// Starting hooks, feeding them, and ending those that take too long.
#include "hooks.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <event2/event.h>

#include "daemon.h"
#include "say.h"

struct waiting {
    STAILQ_ENTRY(waiting) link;
    enum record_event event;
    size_t length;
    char line[]; // with its newline
};

// What is known of one hook, by its name: it outlives a configuration that is read anew.
struct hook {
    LIST_ENTRY(hook) link;
    struct hooks *hooks;
    char name[CONFIG_TITLE_MAX + 1];
    STAILQ_HEAD(, waiting) waiting;
    unsigned count;
    bool overflows;      // said so
    pid_t pid;           // 0: none runs
    bool killed;         // for it took too long
    struct event *timer; // until then
    uint64_t succeeded, failed, timed_out, dropped;
};

struct hooks {
    struct daemon *daemon;
    LIST_HEAD(, hook) list;
};

// ---- who they run as ----

int hooks_check(const struct config *config, struct error *err)
{
    uid_t own = geteuid();
    for (size_t i = 0; i < config->hook_count; i++) {
        const struct config_hook *hook = &config->hooks[i];
        if (own == 0 && hook->user == NULL)
            return error_set(err, ERROR_INVALID_ARGUMENT,
                             "hook '%s' needs 'user': custodyd runs as root, and hooks do not",
                             hook->name);
        if (own == 0 && hook->uid == 0)
            return error_set(err, ERROR_INVALID_ARGUMENT,
                             "hook '%s': 'user' is '%s': hooks do not run as root", hook->name,
                             hook->user);
        if (own != 0 && hook->user != NULL && hook->uid != own)
            return error_set(err, ERROR_INVALID_ARGUMENT,
                             "hook '%s': custodyd, as uid %u, cannot run it as user '%s': leave "
                             "'user' out, and it runs as custodyd's own user",
                             hook->name, own, hook->user);
    }
    return 0;
}

static const struct config_hook *find_config(const struct hook *hook)
{
    const struct config *config = hook->hooks->daemon->config;
    for (size_t i = 0; i < config->hook_count; i++)
        if (strcmp(config->hooks[i].name, hook->name) == 0)
            return &config->hooks[i];
    return NULL;
}

// ---- the child ----

// What it reads: a file in memory, whole from the start, so that nobody waits for anybody.
static int make_input(const struct waiting *waiting, struct error *err)
{
    int fd = memfd_create("record", MFD_CLOEXEC);
    if (fd < 0)
        return error_set(err, ERROR_UNAVAILABLE, "memfd_create: %s", strerror(errno));
    ssize_t n = write(fd, waiting->line, waiting->length);
    if (n == (ssize_t)waiting->length && lseek(fd, 0, SEEK_SET) == 0)
        return fd;
    close(fd);
    return error_set(err, ERROR_UNAVAILABLE, "the record could not be put into memory");
}

// Gives up what the daemon has, for good. The system's own calls: the child has one thread, and
// glibc's wrappers look after others.
static bool become(const struct config_hook *hook)
{
    if (hook->user == NULL || geteuid() != 0)
        return true;
    return syscall(SYS_setgroups, 0, NULL) == 0 &&
           syscall(SYS_setresgid, hook->gid, hook->gid, hook->gid) == 0 &&
           syscall(SYS_setresuid, hook->uid, hook->uid, hook->uid) == 0;
}

// Between fork and exec: only what is safe there. Exit statuses 126 and 127 are the shell's for the
// same.
static _Noreturn void run_hook(const struct config_hook *hook, int input)
{
    static char *const environment[] = {
        (char *)"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        (char *)"LC_ALL=C.UTF-8", NULL};
    struct sigaction plain = {.sa_handler = SIG_DFL};
    sigset_t none;
    sigemptyset(&none);
    for (int number = 1; number < NSIG; number++)
        sigaction(number, &plain, NULL); // SIGKILL's fails, as it must
    sigprocmask(SIG_SETMASK, &none, NULL);
    int null = open("/dev/null", O_WRONLY);
    if (null < 0 || dup2(input, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 ||
        dup2(null, STDERR_FILENO) < 0 || syscall(SYS_close_range, 3, ~0u, 0) != 0 || setsid() < 0 ||
        chdir("/") != 0 || !become(hook) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        _exit(126);
    umask(077);
    execve(hook->command[0], hook->command, environment);
    _exit(127);
}

static int start(struct hook *hook, const struct config_hook *config, const struct waiting *waiting,
                 struct error *err)
{
    struct timeval patience = {.tv_sec = config->timeout_s};
    int input = make_input(waiting, err);
    if (input < 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0)
        run_hook(config, input);
    int error = errno;
    close(input);
    if (pid < 0)
        return error_set(err, ERROR_UNAVAILABLE, "fork: %s", strerror(error));
    hook->pid = pid;
    hook->killed = false;
    event_add(hook->timer, &patience);
    return 0;
}

// ---- the queue ----

static void forget_waiting(struct hook *hook)
{
    while (!STAILQ_EMPTY(&hook->waiting)) {
        struct waiting *waiting = STAILQ_FIRST(&hook->waiting);
        STAILQ_REMOVE_HEAD(&hook->waiting, link);
        free(waiting);
    }
    hook->count = 0;
    hook->overflows = false;
}

// Runs it for what waits first, unless it runs.
static void go_on(struct hook *hook)
{
    struct error why;
    while (hook->pid == 0 && !STAILQ_EMPTY(&hook->waiting)) {
        struct waiting *waiting = STAILQ_FIRST(&hook->waiting);
        const struct config_hook *config = find_config(hook);
        STAILQ_REMOVE_HEAD(&hook->waiting, link);
        if (--hook->count == 0)
            hook->overflows = false;
        if (config != NULL && start(hook, config, waiting, &why) != 0) {
            hook->failed++;
            say(LOG_WARNING, "hook '%s' could not be run for %s: %s", hook->name,
                record_event_name(waiting->event), why.message);
        }
        free(waiting);
    }
}

static void drop(struct hook *hook, const char *why)
{
    hook->dropped++;
    if (!hook->overflows)
        say(LOG_WARNING, "hook '%s' loses records: %s", hook->name, why);
    hook->overflows = true;
}

static void enqueue(struct hook *hook, const struct record *record, const char *line, size_t length)
{
    if (hook->count == HOOKS_WAITING_MAX) {
        drop(hook, "too many wait for it");
        return;
    }
    struct waiting *waiting = malloc(sizeof(*waiting) + length + 1);
    if (waiting == NULL) {
        drop(hook, "out of memory");
        return;
    }
    waiting->event = record->event;
    waiting->length = length + 1;
    memcpy(waiting->line, line, length);
    waiting->line[length] = '\n';
    STAILQ_INSERT_TAIL(&hook->waiting, waiting, link);
    hook->count++;
    go_on(hook);
}

void hooks_note(struct hooks *hooks, const struct record *record)
{
    char *line = NULL;
    size_t length = 0;
    struct hook *hook;
    LIST_FOREACH(hook, &hooks->list, link)
    {
        const struct config_hook *config = find_config(hook);
        if (config == NULL || record->event >= RECORD_EVENTS || !config->events[record->event])
            continue;
        if (line == NULL)
            line = malloc(RECORD_LINE_MAX);
        if (line == NULL)
            drop(hook, "out of memory");
        else if (length > 0 || record_encode(record, line, RECORD_LINE_MAX, &length, NULL) == 0)
            enqueue(hook, record, line, length);
    }
    free(line);
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    struct hook *hook = context;
    (void)fd;
    (void)what;
    if (hook->pid <= 0)
        return;
    hook->killed = true;
    kill(-hook->pid, SIGKILL); // its group: it leads a session of its own
    kill(hook->pid, SIGKILL);  // should it not lead it yet
}

bool hooks_reaped(struct hooks *hooks, pid_t pid, int status)
{
    struct hook *hook;
    LIST_FOREACH(hook, &hooks->list, link)
    {
        if (hook->pid != pid)
            continue;
        hook->pid = 0;
        event_del(hook->timer);
        kill(-pid, SIGKILL); // what it left behind
        if (hook->killed) {
            hook->timed_out++;
            say(LOG_WARNING, "hook '%s' was killed: it took too long", hook->name);
        } else if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
            hook->succeeded++;
        } else {
            hook->failed++;
            say(LOG_WARNING, "hook '%s' failed: %s %d%s", hook->name,
                WIFEXITED(status) ? "exit status" : "signal",
                WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status),
                WIFEXITED(status) && WEXITSTATUS(status) == 127
                    ? " (its program cannot be run by its user)"
                    : "");
        }
        go_on(hook);
        return true;
    }
    return false;
}

// ---- life ----

static struct hook *find(const struct hooks *hooks, const char *name)
{
    struct hook *hook;
    LIST_FOREACH(hook, &hooks->list, link)
    if (strcmp(hook->name, name) == 0)
        return hook;
    return NULL;
}

static int add(struct hooks *hooks, const char *name)
{
    struct hook *hook = calloc(1, sizeof(*hook));
    if (hook == NULL)
        return -1;
    STAILQ_INIT(&hook->waiting);
    hook->hooks = hooks;
    snprintf(hook->name, sizeof(hook->name), "%s", name);
    hook->timer = evtimer_new(hooks->daemon->base, on_timer, hook);
    if (hook->timer == NULL) {
        free(hook);
        return -1;
    }
    LIST_INSERT_HEAD(&hooks->list, hook, link);
    return 0;
}

void hooks_configure(struct hooks *hooks)
{
    const struct config *config = hooks->daemon->config;
    struct hook *hook;
    for (size_t i = 0; i < config->hook_count; i++)
        if (find(hooks, config->hooks[i].name) == NULL && add(hooks, config->hooks[i].name) != 0)
            say(LOG_ERR, "hook '%s' is not run: out of memory", config->hooks[i].name);
    LIST_FOREACH(hook, &hooks->list, link)
    {
        if (find_config(hook) == NULL)
            forget_waiting(hook); // what runs ends by itself, or is killed in time
    }
}

struct hooks *hooks_new(struct daemon *daemon, struct error *err)
{
    if (hooks_check(daemon->config, err) != 0)
        return NULL;
    struct hooks *hooks = calloc(1, sizeof(*hooks));
    if (hooks == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for hooks");
        return NULL;
    }
    hooks->daemon = daemon;
    LIST_INIT(&hooks->list);
    hooks_configure(hooks);
    return hooks;
}

void hooks_free(struct hooks *hooks)
{
    if (hooks == NULL)
        return;
    while (!LIST_EMPTY(&hooks->list)) {
        struct hook *hook = LIST_FIRST(&hooks->list);
        LIST_REMOVE(hook, link);
        if (hook->pid > 0) {
            kill(-hook->pid, SIGKILL);
            kill(hook->pid, SIGKILL);
        }
        forget_waiting(hook);
        event_free(hook->timer);
        free(hook);
    }
    free(hooks);
}

void hooks_put_metrics(const struct hooks *hooks, struct openmetrics *text)
{
    const struct hook *hook;
    openmetrics_family(text, OPENMETRICS_COUNTER, "custody_hook_runs", NULL,
                       "How often a hook was run, by outcome.");
    LIST_FOREACH(hook, &hooks->list, link)
    {
        openmetrics_sample(text, OPENMETRICS_LABELS("hook", hook->name, "outcome", "succeeded"),
                           (double)hook->succeeded);
        openmetrics_sample(text, OPENMETRICS_LABELS("hook", hook->name, "outcome", "failed"),
                           (double)hook->failed);
        openmetrics_sample(text, OPENMETRICS_LABELS("hook", hook->name, "outcome", "timed-out"),
                           (double)hook->timed_out);
    }
    openmetrics_family(text, OPENMETRICS_COUNTER, "custody_hook_dropped", NULL,
                       "Records that a hook was not run for: too many waited.");
    LIST_FOREACH(hook, &hooks->list, link)
    {
        openmetrics_sample(text, OPENMETRICS_LABELS("hook", hook->name), (double)hook->dropped);
    }
}
