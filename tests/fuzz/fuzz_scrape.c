// SPDX-License-Identifier: Apache-2.0
// Fuzzes what a client may send to the metrics' socket, and metrics with any label.
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "openmetrics.h"
#include "scrape.h"

// A label's value, whatever it is, leaves a sample one line.
static void write_label(const char *value, enum openmetrics_format format)
{
    struct openmetrics metrics;
    size_t length = 0, lines = 0;
    openmetrics_begin(&metrics, format);
    openmetrics_family(&metrics, OPENMETRICS_GAUGE, "a", NULL, value);
    openmetrics_sample(&metrics, OPENMETRICS_LABELS("b", value), 1);
    char *text = openmetrics_end(&metrics, &length);
    REQUIRE(text != NULL && strlen(text) == length);
    for (const char *at = text; (at = strchr(at, '\n')) != NULL; at++)
        lines++;
    REQUIRE(lines == (format == OPENMETRICS_TEXT ? 4 : 3));
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum openmetrics_format format = OPENMETRICS_TEXT;
    char *head = malloc(size + 1);
    REQUIRE(head != NULL);
    memcpy(head, data, size);
    head[size] = '\0';
    int status = scrape_parse(head, &format);
    REQUIRE(status == 200 || status == 400 || status == 404 || status == 405);
    REQUIRE(status != 200 || strncmp(head, "GET /metrics", strlen("GET /metrics")) == 0);
    REQUIRE(format == OPENMETRICS_PROMETHEUS || status == 200);
    write_label(head, OPENMETRICS_TEXT);
    write_label(head, OPENMETRICS_PROMETHEUS);
    free(head);
    return 0;
}
