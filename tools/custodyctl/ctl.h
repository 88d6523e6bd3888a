// SPDX-License-Identifier: Apache-2.0
// What the files of custodyctl share: the parsed command line, the connection, and how a failure is
// told.
#ifndef CUSTODYCTL_CTL_H
#define CUSTODYCTL_CTL_H

#include <stdbool.h>
#include <stdint.h>

#include "custody.h"

// The program's exit codes; the man page says the same.
enum ctl_exit {
    CTL_OK = 0,
    CTL_FAILED = 1,      // the daemon refused or failed
    CTL_USAGE = 2,       // the command line is wrong
    CTL_UNREACHABLE = 3, // there is no daemon to be had
};

struct ctl {
    const char *socket;
    bool json;
    int timeout_ms;
    char command[64]; // "key generate", for messages
    // What stood after the command.
    const char *arguments[2];
    unsigned argument_count;
    const char *ticket;    // NULL: none
    const char *reason;    // of a rotation, in words; NULL: none
    const char *vkey_out;  // NULL: none
    const char *request;   // id; NULL: none
    const char *key_file;  // NULL: none
    const char *signature; // a file; NULL: none
    const char *file;      // the trust file
    bool wait;
    bool watch;
    uint64_t generation; // 0: none
    struct custody *custody;
};

// Connects. CTL_OK, or the exit code after the reason was told.
enum ctl_exit ctl_connect(struct ctl *ctl);
// Tells on stderr why the daemon did not do what it was asked; returns CTL_FAILED.
enum ctl_exit ctl_fail(struct ctl *ctl, const struct custody_error *err);
// Tells a failure of our own, with printf's arguments; returns CTL_FAILED.
enum ctl_exit ctl_fail_here(struct ctl *ctl, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
// Parses a generation, 1 or more, in decimal; 0 for what is none.
uint64_t ctl_generation(const char *text);

// The commands. Each runs on a connected `ctl`.
enum ctl_exit token_init(struct ctl *ctl);
enum ctl_exit token_probe(struct ctl *ctl);
enum ctl_exit token_status(struct ctl *ctl);
enum ctl_exit key_generate(struct ctl *ctl);
enum ctl_exit key_list(struct ctl *ctl);
enum ctl_exit key_show(struct ctl *ctl);
enum ctl_exit key_publish(struct ctl *ctl);
enum ctl_exit key_destroy(struct ctl *ctl);
enum ctl_exit key_rotate(struct ctl *ctl);
enum ctl_exit key_suspend(struct ctl *ctl);
enum ctl_exit key_resume(struct ctl *ctl);
enum ctl_exit key_revoke(struct ctl *ctl);
enum ctl_exit key_history(struct ctl *ctl);
enum ctl_exit status_show(struct ctl *ctl);
enum ctl_exit request_list(struct ctl *ctl);
enum ctl_exit request_show(struct ctl *ctl);
enum ctl_exit approve(struct ctl *ctl);
enum ctl_exit log_accept_loss(struct ctl *ctl);

// These need no daemon.
enum ctl_exit trust_add_host(struct ctl *ctl);
enum ctl_exit trust_list_hosts(struct ctl *ctl);
enum ctl_exit trust_remove_host(struct ctl *ctl);

// Says that the output could not be written, where `result` is not 0.
enum ctl_exit ctl_written(struct ctl *ctl, int result);

// Tells that a request has to be approved first, and how.
enum ctl_exit request_made(struct ctl *ctl, const struct custody_request *request);
// Gets one request from the daemon.
enum ctl_exit request_fetch(struct ctl *ctl, const char *id, struct custody_request *request);

#endif
