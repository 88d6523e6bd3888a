// SPDX-License-Identifier: Apache-2.0
// fdatasync in a thread of its own, so that the token works meanwhile.
#ifndef PKCS11_DURABLE_H
#define PKCS11_DURABLE_H

#include "error.h"

struct durable;

int durable_start(struct durable **durable, struct error *err);
// Ends the thread; NULL is allowed. A disk that hangs is not waited for.
void durable_stop(struct durable *durable);

// Begins to make the file behind `fd` durable. ERROR_UNAVAILABLE while an earlier call still hangs.
int durable_begin(struct durable *durable, int fd, struct error *err);
// Waits for that, up to `timeout_ms`. Returns 0 once the bytes are durable.
int durable_wait(struct durable *durable, int timeout_ms, struct error *err);

#endif
