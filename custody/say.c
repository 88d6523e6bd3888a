// SPDX-License-Identifier: Apache-2.0
// One write a line, so that lines of several processes do not mix.
#include "say.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void say(int priority, const char *format, ...)
{
    char line[1024];
    int used = getenv("JOURNAL_STREAM") != NULL ? snprintf(line, sizeof(line), "<%d>", priority)
                                                : snprintf(line, sizeof(line), "custodyd: ");
    va_list args;
    va_start(args, format);
    int more = vsnprintf(line + used, sizeof(line) - (size_t)used - 1, format, args);
    va_end(args);
    used += more < 0 ? 0 : more;
    if ((size_t)used > sizeof(line) - 2)
        used = sizeof(line) - 2;
    line[used++] = '\n';
    // A full or closed standard error is no reason to stop releasing keys.
    ssize_t n = write(STDERR_FILENO, line, (size_t)used);
    (void)n;
}
