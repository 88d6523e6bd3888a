// SPDX-License-Identifier: Apache-2.0
// What the probe can send and receive: numbered datagrams both ways, or one way a stream. Times are
// nanoseconds of CLOCK_MONOTONIC, one clock for all namespaces of a machine.
#ifndef TESTS_ROTATION_FLOW_H
#define TESTS_ROTATION_FLOW_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define SEND_MIN 64   // bytes a packet or write
#define SEND_MAX 1400 // fits a WireGuard device's MTU
#define NEVER    INT64_MAX

// What the command line says.
struct flow_options {
    const char *local, *peer; // IPv4 addresses; a stream's receiver has no peer
    uint16_t port;            // both ends'
    uint64_t run;             // of this run: packets of another are strangers
    int64_t interval;         // ns between two sends; 0: a stream sends all it can
    uint32_t size;            // bytes a send
    int64_t patience;         // ns after `stop` that the tail may take
};

struct flow;

// A kind of flow. Functions that return bool report on standard error what failed.
struct flow_kind {
    struct flow *(*open)(const struct flow_options *options); // NULL when it failed
    void (*close)(struct flow *flow);
    int (*fd)(const struct flow *flow);       // what to poll
    short (*events)(const struct flow *flow); // and for what
    int64_t (*due)(const struct flow *flow);  // when `tick` is to be called; NEVER: not now
    bool (*tick)(struct flow *flow, int64_t now);
    bool (*ready)(struct flow *flow, int64_t now); // the descriptor is
    void (*start)(struct flow *flow, int64_t now);
    bool (*mark)(struct flow *flow); // a new window begins; false: too many
    void (*stop)(struct flow *flow, int64_t now);
    bool (*finished)(const struct flow *flow, int64_t now); // all has arrived, or patience is out
    // Members of a JSON object, without its braces; names[i] is window i's.
    void (*report)(const struct flow *flow, char *const *names, uint32_t windows, FILE *to);
};

extern const struct flow_kind datagrams_kind;
extern const struct flow_kind stream_sender_kind, stream_receiver_kind;

#endif
