// SPDX-License-Identifier: Apache-2.0
// Importing the private key that an interface has already: passed on, boxed, from the applier to
// the keeper. It is never plain here.
#ifndef CUSTODY_IMPORTING_H
#define CUSTODY_IMPORTING_H

#include "service.h"

// Without a box: answers with the keeper's offer. With one: has it sealed, recorded as imported,
// and activated, since it is on the interface already. What was imported already is answered as it
// is.
void importing_import(struct call *call, const Custody__V1__ImportKey *request);

#endif
