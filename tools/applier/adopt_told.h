// SPDX-License-Identifier: Apache-2.0
// What is said at the end of an adoption: what of the old configuration is to go, and what the new
// one looks like.
#ifndef APPLIER_ADOPT_TOLD_H
#define APPLIER_ADOPT_TOLD_H

#include "custody.h"
#include "setup.h"

// To standard output; what cannot be read to standard error.
void adopt_tell_done(const struct setup_interface *setup, const struct custody_view *view);

#endif
