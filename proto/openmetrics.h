// SPDX-License-Identifier: Apache-2.0
// Writing metrics as text: OpenMetrics 1.0, and the older Prometheus text format (0.0.4), which is
// all that node_exporter's textfile collector reads. They differ in the names of counters'
// families, in UNIT lines and in how they end.
#ifndef PROTO_OPENMETRICS_H
#define PROTO_OPENMETRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum openmetrics_format {
    OPENMETRICS_PROMETHEUS, // text/plain; version=0.0.4
    OPENMETRICS_TEXT,       // application/openmetrics-text; version=1.0.0
};
// The Content-Type of that format.
const char *openmetrics_content_type(enum openmetrics_format format);

enum openmetrics_type {
    OPENMETRICS_GAUGE,
    OPENMETRICS_COUNTER, // only rises while the process lives; samples end in _total
    OPENMETRICS_HISTOGRAM,
};

// A text under construction. Begin with openmetrics_begin.
struct openmetrics {
    enum openmetrics_format format;
    char *text;
    size_t length, room;
    bool failed; // out of memory
    char family[96];
    enum openmetrics_type type;
};

void openmetrics_begin(struct openmetrics *metrics, enum openmetrics_format format);

// Begins a family; its samples follow. `name` has no suffix _total, and ends in "_UNIT" where
// `unit` ("seconds", "bytes"; NULL = none) is given. `help` is a sentence for people.
void openmetrics_family(struct openmetrics *metrics, enum openmetrics_type type, const char *name,
                        const char *unit, const char *help);

// Labels of a sample: names and values in turn, NULL at the end; NULL for none. Values are escaped.
#define OPENMETRICS_LABELS(...) ((const char *const[]){__VA_ARGS__, NULL})

// A sample of a gauge or counter.
void openmetrics_sample(struct openmetrics *metrics, const char *const *labels, double value);

// How often what took how long.
#define OPENMETRICS_BUCKETS_MAX 16
struct openmetrics_histogram {
    const double *bounds; // upper ones, rising; the last is followed by +Inf. Not owned
    size_t bound_count;   // at most OPENMETRICS_BUCKETS_MAX
    uint64_t buckets[OPENMETRICS_BUCKETS_MAX + 1]; // each its own, not cumulated
    double sum;
};
void openmetrics_observe(struct openmetrics_histogram *histogram, double value);
void openmetrics_histogram(struct openmetrics *metrics, const char *const *labels,
                           const struct openmetrics_histogram *histogram);

// Ends the text: NUL-terminated, `*length` without the NUL, for the caller to free(). NULL when out
// of memory.
char *openmetrics_end(struct openmetrics *metrics, size_t *length);

#endif
