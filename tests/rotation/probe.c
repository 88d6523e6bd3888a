// SPDX-License-Identifier: Apache-2.0
// Measures what a path loses, delays or sends again, from one end: `probe udp` in both ends'
// namespaces, or `probe tcp-send` in one and `probe tcp-receive` in the other.
//
// It lives through a whole run and is told what to do by lines on standard input:
//   start        sending begins
//   mark NAME    a new window of time begins ([A-Za-z0-9_.-], 63 bytes); the first is "begin"
//   stop         sending ends; when all that was sent has arrived, or patience is out, it reports
// and answers each on standard output by a line of JSON: {"event":"ready"}, then "started",
// "marked", and at last "result" with the account. What was sent in window i is in `sent` of
// windows[i] here, and how much of it arrived in `received` of the peer's windows[i]. It ends when
// standard input does, with 0; 1 after a failure that it names, 2 for a wrong command line.
#include <argp.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "account.h"
#include "flow.h"

#define NAME_LENGTH 63
#define LINE_LENGTH 128
#define MS          INT64_C(1000000)
#define SECOND      (1000 * MS)

static struct {
    const struct flow_kind *kind;
    struct flow_options options;
    unsigned long rate;
} arguments = {.options = {.port = 7000, .size = 200, .patience = 10 * SECOND}, .rate = 500};

static struct {
    struct flow *flow;
    char *names[ACCOUNT_WINDOWS_MAX];
    uint32_t windows;
    char line[LINE_LENGTH];
    size_t length; // of what has come of a line
    bool reported, input_ended;
} probe;

static int64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SECOND + now.tv_nsec;
}

static bool failed(const char *what)
{
    fprintf(stderr, "probe: %s\n", what);
    return false;
}

static bool answer(const char *event)
{
    printf("{\"event\":\"%s\"}\n", event);
    return fflush(stdout) == 0;
}

static bool name_window(const char *name)
{
    size_t length = strlen(name);

    if (length == 0 || length > NAME_LENGTH ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") != length)
        return failed("a window's name is 1 to 63 of A-Z a-z 0-9 _ . -");
    if (probe.windows >= ACCOUNT_WINDOWS_MAX || (probe.names[probe.windows] = strdup(name)) == NULL)
        return failed("too many windows");
    probe.windows++;
    return true;
}

static bool obey(const char *line)
{
    if (strcmp(line, "start") == 0) {
        arguments.kind->start(probe.flow, now_ns());
        return answer("started");
    }
    if (strncmp(line, "mark ", 5) == 0)
        return name_window(line + 5) && arguments.kind->mark(probe.flow) && answer("marked");
    if (strcmp(line, "stop") == 0) {
        arguments.kind->stop(probe.flow, now_ns());
        return true; // answered by the report
    }
    return failed("commands are start, mark NAME and stop");
}

// Takes what has come on standard input and obeys each whole line.
static bool read_lines(void)
{
    ssize_t n = read(STDIN_FILENO, probe.line + probe.length, sizeof(probe.line) - probe.length);
    char *end;

    if (n < 0)
        return errno == EINTR || errno == EAGAIN || failed(strerror(errno));
    probe.input_ended = n == 0;
    probe.length += (size_t)n;
    while ((end = memchr(probe.line, '\n', probe.length)) != NULL) {
        *end = '\0';
        if (!obey(probe.line))
            return false;
        probe.length -= (size_t)(end + 1 - probe.line);
        memmove(probe.line, end + 1, probe.length);
    }
    return probe.length < sizeof(probe.line) || failed("a line is too long");
}

static bool report(void)
{
    fputs("{\"event\":\"result\",", stdout);
    arguments.kind->report(probe.flow, probe.names, probe.windows, stdout);
    puts("}");
    probe.reported = true;
    return fflush(stdout) == 0;
}

// Waits for input, for the flow, and until it is due.
static bool wait_for_one(struct pollfd fds[2])
{
    int64_t due = arguments.kind->due(probe.flow), left = due == NEVER ? 50 * MS : due - now_ns();
    struct timespec timeout = {0};

    if (left > 50 * MS)
        left = 50 * MS; // a flow may be finished because time has passed
    if (left > 0)
        timeout = (struct timespec){.tv_nsec = (long)left};
    fds[0] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = arguments.kind->fd(probe.flow),
                             .events = arguments.kind->events(probe.flow)};
    if (fds[1].events == 0)
        fds[1].fd = -1; // POLLHUP is reported unasked, and would be for ever
    if (ppoll(fds, 2, &timeout, NULL) < 0 && errno != EINTR)
        return failed(strerror(errno));
    return true;
}

static bool step(void)
{
    const struct flow_kind *kind = arguments.kind;
    struct pollfd fds[2];

    if (!wait_for_one(fds))
        return false;
    if (fds[0].revents != 0 && !read_lines())
        return false;
    if (fds[1].revents != 0 && !kind->ready(probe.flow, now_ns()))
        return false;
    int64_t now = now_ns();
    if (kind->due(probe.flow) <= now && !kind->tick(probe.flow, now))
        return false;
    if (!probe.reported && kind->finished(probe.flow, now))
        return report();
    return true;
}

static bool run(void)
{
    if (!name_window("begin") || !answer("ready"))
        return false;
    while (!probe.input_ended) {
        if (!step())
            return false;
    }
    return true;
}

static bool parse_number(const char *text, unsigned long least, unsigned long most,
                         unsigned long *number)
{
    char *end;

    errno = 0;
    *number = strtoul(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' && *number >= least && *number <= most;
}

static error_t parse_mode(const char *word, struct argp_state *state)
{
    static const struct {
        const char *word;
        const struct flow_kind *kind;
    } modes[] = {{"udp", &datagrams_kind},
                 {"tcp-send", &stream_sender_kind},
                 {"tcp-receive", &stream_receiver_kind}};

    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
        if (strcmp(word, modes[i].word) == 0) {
            arguments.kind = modes[i].kind;
            return 0;
        }
    }
    argp_error(state, "MODE is udp, tcp-send or tcp-receive");
    return EINVAL;
}

static error_t parse_argument(char *word, struct argp_state *state)
{
    switch (state->arg_num) {
    case 0:
        return parse_mode(word, state);
    case 1:
        arguments.options.local = word;
        return 0;
    case 2:
        arguments.options.peer = word;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse_option(int key, char *value, struct argp_state *state)
{
    unsigned long number = 0;
    struct flow_options *options = &arguments.options;

    switch (key) {
    case 'p':
        if (!parse_number(value, 1, UINT16_MAX, &number))
            argp_error(state, "--port: 1 to 65535");
        options->port = (uint16_t)number;
        return 0;
    case 'r':
        if (!parse_number(value, 0, 100000, &arguments.rate))
            argp_error(state, "--rate: 0 to 100000 a second");
        return 0;
    case 's':
        if (!parse_number(value, SEND_MIN, SEND_MAX, &number))
            argp_error(state, "--size: %d to %d bytes", SEND_MIN, SEND_MAX);
        options->size = (uint32_t)number;
        return 0;
    case 'R':
        if (!parse_number(value, 0, UINT32_MAX, &number))
            argp_error(state, "--run: a number");
        options->run = number;
        return 0;
    case 'P':
        if (!parse_number(value, 1, 3600, &number))
            argp_error(state, "--patience: 1 to 3600 seconds");
        options->patience = (int64_t)number * SECOND;
        return 0;
    case ARGP_KEY_ARG:
        return parse_argument(value, state);
    case ARGP_KEY_END:
        if (state->arg_num < 2 || (state->arg_num < 3 && arguments.kind != &stream_receiver_kind))
            argp_error(state, "MODE LOCAL PEER are needed; tcp-receive goes without PEER");
        if (arguments.rate == 0 && arguments.kind == &datagrams_kind)
            argp_error(state, "--rate 0, all that goes, is for tcp-send");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"port", 'p', "PORT", 0, "of both ends [7000]", 0},
    {"rate", 'r', "N", 0, "sends a second [500]; 0: a stream sends all it can", 0},
    {"size", 's', "BYTES", 0, "of each send [200]", 0},
    {"run", 'R', "NUMBER", 0, "packets of another run are strangers [0]", 0},
    {"patience", 'P', "SECONDS", 0, "after stop, for the tail to arrive [10]", 0},
    {0},
};

int main(int argc, char **argv)
{
    static const struct argp argp = {options,
                                     parse_option,
                                     "MODE LOCAL [PEER]",
                                     "Measures loss, gaps and TCP's repeats between two ends.",
                                     NULL,
                                     NULL,
                                     NULL};
    bool good;

    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, NULL);
    arguments.options.interval = arguments.rate == 0 ? 0 : SECOND / (int64_t)arguments.rate;
    probe.flow = arguments.kind->open(&arguments.options);
    if (probe.flow == NULL)
        return 1;
    good = run();
    arguments.kind->close(probe.flow);
    for (uint32_t i = 0; i < probe.windows; i++)
        free(probe.names[i]);
    return good ? 0 : 1;
}
