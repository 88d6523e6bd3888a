// SPDX-License-Identifier: Apache-2.0
// Families, samples and escapes of the two text formats.
#include "openmetrics.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *openmetrics_content_type(enum openmetrics_format format)
{
    return format == OPENMETRICS_TEXT ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                                      : "text/plain; version=0.0.4; charset=utf-8";
}

void openmetrics_begin(struct openmetrics *metrics, enum openmetrics_format format)
{
    *metrics = (struct openmetrics){.format = format};
}

static void append(struct openmetrics *metrics, const char *bytes, size_t length)
{
    if (metrics->failed)
        return;
    if (metrics->room - metrics->length <= length) {
        size_t room = 2 * metrics->room + length + 4096;
        char *grown = realloc(metrics->text, room);
        if (grown == NULL) {
            metrics->failed = true;
            return;
        }
        metrics->text = grown;
        metrics->room = room;
    }
    memcpy(metrics->text + metrics->length, bytes, length);
    metrics->length += length;
    metrics->text[metrics->length] = '\0';
}

static void put(struct openmetrics *metrics, const char *text)
{
    append(metrics, text, strlen(text));
}

// Escapes what would end a label's value or a line. The older format has no \" in HELP.
static void put_escaped(struct openmetrics *metrics, const char *text, bool quotes)
{
    for (; *text != '\0'; text++) {
        if (*text == '\n')
            put(metrics, "\\n");
        else if (*text == '\\')
            put(metrics, "\\\\");
        else if (*text == '"' && quotes)
            put(metrics, "\\\"");
        else
            append(metrics, text, 1);
    }
}

// The shortest decimal that reads back as the same number.
static void put_number(struct openmetrics *metrics, double value)
{
    char text[40];
    if (isnan(value)) {
        put(metrics, "NaN");
        return;
    }
    if (isinf(value)) {
        put(metrics, value > 0 ? "+Inf" : "-Inf");
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    put(metrics, text);
}

static void put_comment(struct openmetrics *metrics, const char *kind, const char *name)
{
    bool total = metrics->type == OPENMETRICS_COUNTER && metrics->format == OPENMETRICS_PROMETHEUS;
    put(metrics, "# ");
    put(metrics, kind);
    put(metrics, " ");
    put(metrics, name);
    put(metrics, total ? "_total " : " ");
}

void openmetrics_family(struct openmetrics *metrics, enum openmetrics_type type, const char *name,
                        const char *unit, const char *help)
{
    static const char *const types[] = {[OPENMETRICS_GAUGE] = "gauge",
                                        [OPENMETRICS_COUNTER] = "counter",
                                        [OPENMETRICS_HISTOGRAM] = "histogram"};
    snprintf(metrics->family, sizeof(metrics->family), "%s", name);
    metrics->type = type;
    put_comment(metrics, "HELP", name);
    put_escaped(metrics, help, metrics->format == OPENMETRICS_TEXT);
    put(metrics, "\n");
    put_comment(metrics, "TYPE", name);
    put(metrics, types[type]);
    put(metrics, "\n");
    if (unit == NULL || metrics->format != OPENMETRICS_TEXT)
        return;
    put_comment(metrics, "UNIT", name);
    put(metrics, unit);
    put(metrics, "\n");
}

// `le` is a bucket's upper bound as text; NULL = no bucket.
static void put_sample(struct openmetrics *metrics, const char *suffix, const char *const *labels,
                       const char *le, double value)
{
    const char *before = "{";
    put(metrics, metrics->family);
    put(metrics, suffix);
    for (; labels != NULL && labels[0] != NULL; labels += 2) {
        put(metrics, before);
        put(metrics, labels[0]);
        put(metrics, "=\"");
        put_escaped(metrics, labels[1], true);
        put(metrics, "\"");
        before = ",";
    }
    if (le != NULL) {
        put(metrics, before);
        put(metrics, "le=\"");
        put(metrics, le);
        put(metrics, "\"");
        before = ",";
    }
    put(metrics, before[0] == ',' ? "} " : " ");
    put_number(metrics, value);
    put(metrics, "\n");
}

void openmetrics_sample(struct openmetrics *metrics, const char *const *labels, double value)
{
    put_sample(metrics, metrics->type == OPENMETRICS_COUNTER ? "_total" : "", labels, NULL, value);
}

void openmetrics_observe(struct openmetrics_histogram *histogram, double value)
{
    size_t i = 0;
    while (i < histogram->bound_count && value > histogram->bounds[i])
        i++;
    histogram->buckets[i]++;
    histogram->sum += value;
}

void openmetrics_histogram(struct openmetrics *metrics, const char *const *labels,
                           const struct openmetrics_histogram *histogram)
{
    uint64_t count = 0;
    char le[40];
    for (size_t i = 0; i < histogram->bound_count; i++) {
        count += histogram->buckets[i];
        // OpenMetrics wants bounds as floats, "1.0": then both formats name the same series.
        snprintf(le, sizeof(le), "%.15g", histogram->bounds[i]);
        if (strpbrk(le, ".e") == NULL)
            strcat(le, ".0");
        put_sample(metrics, "_bucket", labels, le, (double)count);
    }
    count += histogram->buckets[histogram->bound_count];
    put_sample(metrics, "_bucket", labels, "+Inf", (double)count);
    put_sample(metrics, "_count", labels, NULL, (double)count);
    put_sample(metrics, "_sum", labels, NULL, histogram->sum);
}

char *openmetrics_end(struct openmetrics *metrics, size_t *length)
{
    put(metrics, metrics->format == OPENMETRICS_TEXT ? "# EOF\n" : "");
    if (metrics->failed) {
        free(metrics->text);
        metrics->text = NULL;
        return NULL;
    }
    *length = metrics->length;
    return metrics->text;
}
