// SPDX-License-Identifier: Apache-2.0
// What the daemon tells its operator: lines on standard error, with the journal's priorities when
// it reads them.
#ifndef CUSTODY_SAY_H
#define CUSTODY_SAY_H

#include <syslog.h>

// `priority` is LOG_ERR, LOG_WARNING, LOG_NOTICE or LOG_INFO. Never holds a secret.
void say(int priority, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
