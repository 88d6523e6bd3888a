// SPDX-License-Identifier: Apache-2.0
// custody-applier's command line: one table of commands, and what each of them takes.
#ifndef APPLIER_COMMAND_LINE_H
#define APPLIER_COMMAND_LINE_H

#include <stdbool.h>
#include <stddef.h>

#include "apply.h"
#include "hold.h"
#include "retry.h"
#include "run.h"

#define COMMAND_LINE_TARGETS_MAX 256

enum command {
    COMMAND_NONE,
    COMMAND_APPLY,
    COMMAND_RUN,
    COMMAND_UP,
    COMMAND_ADOPT,
    COMMAND_DRIFT,
    COMMAND_STATUS,
    COMMANDS
};

struct command_line {
    enum command command;
    struct apply_settings settings; // log_vkey_file NULL: not given
    struct apply_task task;         // of apply
    struct rate rate;               // of run
    enum hold_kind hold;            // of up
    const char *config;
    bool json, watch, repair;
    struct run_target targets[COMMAND_LINE_TARGETS_MAX];
    size_t count;
    // Inside.
    char names[COMMAND_LINE_TARGETS_MAX][DEVICE_NAME_MAX + 1];
    unsigned long given; // options, by bits
};

// Parses; ends the program with exit status `usage` and a message where the line is wrong. `line`
// is zero; what it holds of `argv` lives as long as that.
void command_line_parse(struct command_line *line, int argc, char **argv, int usage);

#endif
