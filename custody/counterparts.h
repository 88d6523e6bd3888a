// SPDX-License-Identifier: Apache-2.0
// What an applier reports about counterparts' keys and the registry, and the freshness of ours.
#ifndef CUSTODY_COUNTERPARTS_H
#define CUSTODY_COUNTERPARTS_H

#include "service.h"

void counterparts_record_peer(struct call *call, const Custody__V1__RecordPeer *request);
void counterparts_refresh(struct call *call, const Custody__V1__RefreshKey *request);
void counterparts_record_finding(struct call *call, const Custody__V1__RecordFinding *request);

#endif
