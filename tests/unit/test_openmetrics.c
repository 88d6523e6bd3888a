// SPDX-License-Identifier: Apache-2.0
// Metrics as text, byte for byte, in both formats; and what a request over HTTP may be.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "openmetrics.h"
#include "scrape.h"
#include "tap.h"

static const double bounds[] = {0.5, 1, 10};

static char *write_all(enum openmetrics_format format)
{
    struct openmetrics metrics;
    struct openmetrics_histogram histogram = {.bounds = bounds, .bound_count = 3};
    size_t length = 0;
    openmetrics_begin(&metrics, format);
    openmetrics_family(&metrics, OPENMETRICS_COUNTER, "a_releases", NULL, "Releases.");
    openmetrics_sample(&metrics, OPENMETRICS_LABELS("outcome", "granted", "key", "wg0"), 3);
    openmetrics_family(&metrics, OPENMETRICS_GAUGE, "an_age_seconds", "seconds", "So \"old\" \\.");
    openmetrics_sample(&metrics, OPENMETRICS_LABELS("host", "a\"b\\c\nd"), 0.1);
    openmetrics_sample(&metrics, NULL, 1700000000.25);
    for (int i = 0; i < 3; i++)
        openmetrics_observe(&histogram, 0.5);
    openmetrics_observe(&histogram, 2);
    openmetrics_observe(&histogram, 11);
    openmetrics_family(&metrics, OPENMETRICS_HISTOGRAM, "a_wait_seconds", "seconds", "Waits.");
    openmetrics_histogram(&metrics, OPENMETRICS_LABELS("op", "commit"), &histogram);
    char *text = openmetrics_end(&metrics, &length);
    CU_ASSERT_PTR_NOT_NULL_FATAL(text);
    CU_ASSERT_EQUAL(strlen(text), length);
    return text;
}

static void openmetrics_text(void)
{
    char *text = write_all(OPENMETRICS_TEXT);
    CU_ASSERT_STRING_EQUAL(text, "# HELP a_releases Releases.\n"
                                 "# TYPE a_releases counter\n"
                                 "a_releases_total{outcome=\"granted\",key=\"wg0\"} 3\n"
                                 "# HELP an_age_seconds So \\\"old\\\" \\\\.\n"
                                 "# TYPE an_age_seconds gauge\n"
                                 "# UNIT an_age_seconds seconds\n"
                                 "an_age_seconds{host=\"a\\\"b\\\\c\\nd\"} 0.1\n"
                                 "an_age_seconds 1700000000.25\n"
                                 "# HELP a_wait_seconds Waits.\n"
                                 "# TYPE a_wait_seconds histogram\n"
                                 "# UNIT a_wait_seconds seconds\n"
                                 "a_wait_seconds_bucket{op=\"commit\",le=\"0.5\"} 3\n"
                                 "a_wait_seconds_bucket{op=\"commit\",le=\"1.0\"} 3\n"
                                 "a_wait_seconds_bucket{op=\"commit\",le=\"10.0\"} 4\n"
                                 "a_wait_seconds_bucket{op=\"commit\",le=\"+Inf\"} 5\n"
                                 "a_wait_seconds_count{op=\"commit\"} 5\n"
                                 "a_wait_seconds_sum{op=\"commit\"} 14.5\n"
                                 "# EOF\n");
    free(text);
}

static void prometheus_text(void)
{
    char *text = write_all(OPENMETRICS_PROMETHEUS);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "# HELP a_releases_total Releases.\n"
                                        "# TYPE a_releases_total counter\n"
                                        "a_releases_total{"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "# HELP an_age_seconds So \"old\" \\\\.\n"));
    CU_ASSERT_PTR_NULL(strstr(text, "# UNIT"));
    CU_ASSERT_PTR_NULL(strstr(text, "# EOF"));
    free(text);
}

static void numbers_read_back(void)
{
    static const double values[] = {0, -1, 1e300, 0.1 + 0.2, 9007199254740991.0, 1.0 / 3, 5e-324};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        struct openmetrics metrics;
        size_t length;
        openmetrics_begin(&metrics, OPENMETRICS_TEXT);
        openmetrics_family(&metrics, OPENMETRICS_GAUGE, "a", NULL, "A.");
        openmetrics_sample(&metrics, NULL, values[i]);
        char *text = openmetrics_end(&metrics, &length);
        CU_ASSERT_PTR_NOT_NULL_FATAL(text);
        CU_ASSERT_EQUAL(strtod(strstr(text, "\na ") + 3, NULL), values[i]);
        free(text);
    }
}

static void what_is_no_number(void)
{
    struct openmetrics metrics;
    size_t length;
    openmetrics_begin(&metrics, OPENMETRICS_TEXT);
    openmetrics_family(&metrics, OPENMETRICS_GAUGE, "a", NULL, "A.");
    openmetrics_sample(&metrics, NULL, NAN);
    openmetrics_sample(&metrics, NULL, INFINITY);
    openmetrics_sample(&metrics, NULL, -INFINITY);
    char *text = openmetrics_end(&metrics, &length);
    CU_ASSERT_PTR_NOT_NULL_FATAL(text);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "\na NaN\na +Inf\na -Inf\n"));
    free(text);
}

static void requests(void)
{
    static const struct {
        const char *head;
        int status;
        enum openmetrics_format format;
    } cases[] = {
        {"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 200, OPENMETRICS_PROMETHEUS},
        {"GET /metrics HTTP/1.0\n\n", 200, OPENMETRICS_PROMETHEUS},
        {"GET /metrics?name=a HTTP/1.0\n\n", 200, OPENMETRICS_PROMETHEUS},
        {"GET /metrics HTTP/1.1\r\naccept: text/plain;q=0.5, "
         "Application/OpenMetrics-Text;version=1.0.0\r\n\r\n",
         200, OPENMETRICS_TEXT},
        {"GET /metrics HTTP/1.1\r\nX-Accept: application/openmetrics-text\r\n\r\n", 200,
         OPENMETRICS_PROMETHEUS},
        {"GET /metric HTTP/1.1\r\n\r\n", 404, 0},
        {"GET /metrics/ HTTP/1.1\r\n\r\n", 404, 0},
        {"GET / HTTP/1.1\r\n\r\n", 404, 0},
        {"POST /metrics HTTP/1.1\r\n\r\n", 405, 0},
        {"GET /metrics\r\n\r\n", 400, 0},
        {"GET /metrics HTTP/2\r\n\r\n", 400, 0},
        {"\r\n\r\n", 400, 0},
        {"", 400, 0},
        {"GET\r\nA: b HTTP/1.0\r\n\r\n", 400, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        enum openmetrics_format format;
        CU_ASSERT_EQUAL(scrape_parse(cases[i].head, &format), cases[i].status);
        if (cases[i].status == 200)
            CU_ASSERT_EQUAL(format, cases[i].format);
    }
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"OpenMetrics, byte for byte", openmetrics_text},
        {"the older format's differences", prometheus_text},
        {"numbers read back as they were", numbers_read_back},
        {"what is no number has its own words", what_is_no_number},
        {"requests: what is answered, and in which format", requests},
        CU_TEST_INFO_NULL,
    };
    return tap_run("openmetrics", tests);
}
