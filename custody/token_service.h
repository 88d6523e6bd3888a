// SPDX-License-Identifier: Apache-2.0
// What operators ask of the token and of the daemon itself: initialise, probe, status.
#ifndef CUSTODY_TOKEN_SERVICE_H
#define CUSTODY_TOKEN_SERVICE_H

#include "service.h"

void token_service_init(struct call *call);
void token_service_probe(struct call *call);
void token_service_status(struct call *call);
// Records that are signed and that the head in the token does not cover.
uint64_t token_service_head_lag(const struct daemon *daemon);

#endif
