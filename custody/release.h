// SPDX-License-Identifier: Apache-2.0
// Releasing a key to an applier, and taking the outcome it reports.
#ifndef CUSTODY_RELEASE_H
#define CUSTODY_RELEASE_H

#include "service.h"

void release_key(struct call *call, const Custody__V1__ReleaseKey *request);
void release_preshared(struct call *call, const Custody__V1__ReleasePsk *request);
void release_outcome(struct call *call, const Custody__V1__ReportOutcome *request);

#endif
