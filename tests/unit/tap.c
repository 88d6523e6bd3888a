// SPDX-License-Identifier: Apache-2.0
// CUnit results as TAP.
#include "tap.h"

#include <stdio.h>
#include <stdlib.h>

#include <CUnit/TestRun.h>

static unsigned test_number;

static void print_result(const CU_pTest test, const CU_pSuite suite,
                         const CU_pFailureRecord failures)
{
    (void)suite;
    printf("%s %u - %s\n", failures == NULL ? "ok" : "not ok", ++test_number, test->pName);
    for (const CU_FailureRecord *f = failures; f != NULL; f = f->pNext)
        printf("# %s:%u: %s\n", f->strFileName, f->uiLineNumber, f->strCondition);
    fflush(stdout);
}

int tap_run(const char *suite, CU_TestInfo *tests)
{
    CU_SuiteInfo suites[] = {
        {suite, NULL, NULL, NULL, NULL, tests},
        CU_SUITE_INFO_NULL,
    };
    if (CU_initialize_registry() != CUE_SUCCESS || CU_register_suites(suites) != CUE_SUCCESS) {
        printf("Bail out! CUnit: %s\n", CU_get_error_msg());
        return EXIT_FAILURE;
    }
    unsigned count = 0;
    while (tests[count].pName != NULL)
        count++;
    printf("1..%u\n", count);
    CU_set_test_complete_handler(print_result);
    CU_run_all_tests();
    unsigned failed = CU_get_number_of_tests_failed();
    CU_cleanup_registry();
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
