// SPDX-License-Identifier: Apache-2.0
// The commands of custody-audit and what they exit with.
#ifndef TOOLS_AUDIT_AUDIT_H
#define TOOLS_AUDIT_AUDIT_H

enum audit_exit {
    AUDIT_SOUND = 0,    // all that was looked at is as it should be
    AUDIT_FINDINGS = 1, // something is not
    AUDIT_FAILED = 2,   // it could not be looked at: usage, a file that cannot be read
};

// Each runs one command with its own argument vector, argv[0] being "custody-audit COMMAND", and
// returns the exit status.
int audit_verify(int argc, char **argv);
int audit_show(int argc, char **argv);
int audit_prove(int argc, char **argv);
int audit_check(int argc, char **argv);
int audit_query(int argc, char **argv);
int audit_follow(int argc, char **argv);
int audit_stats(int argc, char **argv);
int audit_export(int argc, char **argv);

#endif
