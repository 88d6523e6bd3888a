// SPDX-License-Identifier: Apache-2.0
// custodyctl's connection to the daemon, and its failures in words that say what to do.
#include "ctl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The daemon answered, if only to turn us away; every other failure to connect means that there was
// none.
static bool answered(enum custody_code code)
{
    return code == CUSTODY_RESOURCE_EXHAUSTED || code == CUSTODY_UNAUTHENTICATED ||
           code == CUSTODY_FAILED_PRECONDITION;
}

enum ctl_exit ctl_connect(struct ctl *ctl)
{
    struct custody_error err;
    struct custody_options options = {
        .socket = ctl->socket,
        .client = "custodyctl " PACKAGE_VERSION,
        .timeout_ms = ctl->timeout_ms,
    };
    if (custody_connect(&options, &ctl->custody, &err) == 0)
        return CTL_OK;
    fprintf(stderr, "custodyctl: %s: %s: %s\n", ctl->command, custody_code_name(err.code),
            err.message);
    return answered(err.code) ? CTL_FAILED : CTL_UNREACHABLE;
}

// What the operator can do about it, where the code and the daemon's state tell.
static const char *advice(struct ctl *ctl, const struct custody_error *err)
{
    struct custody_status status;
    switch (err->code) {
    case CUSTODY_PERMISSION_DENIED:
        return "the operator and auditor sections of custodyd.conf say who may do this";
    case CUSTODY_FAILED_PRECONDITION:
        if (strstr(err->message, "token init") == NULL &&
            custody_status(ctl->custody, &status, NULL) == 0 && !status.initialised)
            return "the token is not initialised: run 'custodyctl token init'";
        return NULL;
    case CUSTODY_UNAVAILABLE:
    case CUSTODY_DEADLINE_EXCEEDED:
        return "'custodyctl status' and custodyd's own messages say more";
    default:
        return NULL;
    }
}

enum ctl_exit ctl_fail(struct ctl *ctl, const struct custody_error *err)
{
    fprintf(stderr, "custodyctl: %s: %s: %s\n", ctl->command, custody_code_name(err->code),
            err->message);
    const char *what_to_do = advice(ctl, err);
    if (what_to_do != NULL)
        fprintf(stderr, "custodyctl: %s\n", what_to_do);
    return CTL_FAILED;
}

enum ctl_exit ctl_fail_here(struct ctl *ctl, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "custodyctl: %s: ", ctl->command);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return CTL_FAILED;
}

enum ctl_exit ctl_written(struct ctl *ctl, int result)
{
    return result == 0 ? CTL_OK : ctl_fail_here(ctl, "the output could not be written");
}

uint64_t ctl_generation(const char *text)
{
    char *end = NULL;
    if (strspn(text, "0123456789") != strlen(text))
        return 0;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    return errno == 0 && end != text && value <= INT64_MAX ? value : 0;
}
