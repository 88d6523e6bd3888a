// SPDX-License-Identifier: Apache-2.0
// custodyctl log …: going on with a log that lacks what the token remembers.
#include <inttypes.h>
#include <stdio.h>

#include "ctl.h"
#include "print.h"

enum ctl_exit log_accept_loss(struct ctl *ctl)
{
    struct custody_request request;
    struct custody_error err;
    int done = custody_accept_loss(ctl->custody, &request, &err);
    if (done < 0)
        return ctl_fail(ctl, &err);
    if (done == 1)
        return request_made(ctl, &request);
    if (ctl->json)
        return print_json(json_pack("{sb sI sI}", "accepted", 1, "old_size",
                                    (json_int_t)request.old_size, "new_size",
                                    (json_int_t)request.new_size)) == 0
                   ? CTL_OK
                   : ctl_fail_here(ctl, "it was done, but the output could not be written");
    printf("The loss is accepted and recorded: the token remembered %" PRIu64
           " records, and the log\ngoes on after record %" PRIu64 ".\n",
           request.old_size, request.new_size - 1);
    return CTL_OK;
}
