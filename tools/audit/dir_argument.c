// SPDX-License-Identifier: Apache-2.0
// Taking the argument DIR.
#include "dir_argument.h"

error_t dir_argument(int key, char *arg, struct argp_state *state, const char **dir)
{
    switch (key) {
    case ARGP_KEY_ARG:
        if (state->arg_num > 0)
            argp_error(state, "only one DIR can be given");
        *dir = arg;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "DIR is missing");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}
