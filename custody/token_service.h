// SPDX-License-Identifier: Apache-2.0
// What operators ask of the token and of the daemon itself: initialise, probe, status.
#ifndef CUSTODY_TOKEN_SERVICE_H
#define CUSTODY_TOKEN_SERVICE_H

#include "service.h"

void token_service_init(struct call *call);
void token_service_probe(struct call *call);
void token_service_status(struct call *call);

#endif
