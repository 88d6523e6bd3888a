// SPDX-License-Identifier: Apache-2.0
// Runs one CUnit suite as a program of its own and prints each test's result as TAP, for automake's
// harness.
#ifndef TESTS_UNIT_TAP_H
#define TESTS_UNIT_TAP_H

#include <CUnit/CUnit.h>

// Runs `tests` (ended by CU_TEST_INFO_NULL). Returns what main should: 0 when all passed.
int tap_run(const char *suite, CU_TestInfo *tests);

#endif
