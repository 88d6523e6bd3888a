// SPDX-License-Identifier: Apache-2.0
// custodyctl request …: what waits for two operators' approval.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "print.h"

static json_t *request_json(const struct custody_request *request)
{
    json_t *operators = json_array();
    for (size_t i = 0; i < request->operator_count; i++)
        json_array_append_new(operators, print_json_text(request->operators[i]));
    return json_pack("{so so so so sI sI so so sI sI sI so}", "id", print_json_text(request->id),
                     "operation", print_json_text(request->operation), "text",
                     print_json_text(request->text), "key", print_json_text(request->key),
                     "generation", (json_int_t)request->generation, "uid", (json_int_t)request->uid,
                     "requested", print_json_time(request->requested_us), "expires",
                     print_json_time(request->expires_us), "old_size",
                     (json_int_t)request->old_size, "new_size", (json_int_t)request->new_size,
                     "needed", (json_int_t)request->needed, "approved_by", operators);
}

static void print_what(const struct custody_request *request)
{
    if (request->key[0] != '\0')
        print_field("  operation", "%s %s %" PRIu64, request->operation, request->key,
                    request->generation);
    else
        print_field("  operation",
                    "%s: the token remembers %" PRIu64
                    " records, the log that is there has %" PRIu64,
                    request->operation, request->old_size, request->new_size);
}

static void print_approvals(const struct custody_request *request)
{
    print_field("  approved by", "%zu of %u", request->operator_count, request->needed);
    for (size_t i = 0; i < request->operator_count; i++)
        print_field("", "%s", request->operators[i]);
}

static void print_request(const struct custody_request *request)
{
    char text[PRINT_TIME_SIZE];
    printf("%s\n", request->id);
    print_what(request);
    if (request->requested_us != 0)
        print_field("  requested", "%s, by uid %u", print_time(request->requested_us, text),
                    request->uid);
    if (request->expires_us != 0)
        print_field("  expires", "%s", print_time(request->expires_us, text));
    print_approvals(request);
}

enum ctl_exit request_made(struct ctl *ctl, const struct custody_request *request)
{
    if (ctl->json)
        return print_json(json_pack("{so}", "request", request_json(request))) == 0
                   ? CTL_OK
                   : ctl_fail_here(ctl, "the output could not be written");
    printf("%u operators have to approve this first. The request is:\n\n", request->needed);
    print_request(request);
    printf("\nEach of them runs\n  custodyctl approve %s --key KEYFILE\n", request->id);
    if (request->key[0] != '\0')
        printf("and then run\n  custodyctl key destroy %s %" PRIu64 " --request %s\n", request->key,
               request->generation, request->id);
    else
        printf("and then run\n  custodyctl log accept-loss\n");
    return CTL_OK;
}

enum ctl_exit request_list(struct ctl *ctl)
{
    struct custody_request *requests = NULL;
    struct custody_error err;
    size_t count = 0;
    if (custody_list_requests(ctl->custody, NULL, &requests, &count, &err) < 0)
        return ctl_fail(ctl, &err);
    enum ctl_exit result = CTL_OK;
    json_t *list = ctl->json ? json_array() : NULL;
    for (size_t i = 0; i < count; i++) {
        if (ctl->json)
            json_array_append_new(list, request_json(&requests[i]));
        else
            print_request(&requests[i]);
    }
    if (ctl->json && print_json(list) != 0)
        result = ctl_fail_here(ctl, "the output could not be written");
    else if (!ctl->json && count == 0)
        printf("Nothing waits for approval.\n");
    free(requests);
    return result;
}

enum ctl_exit request_fetch(struct ctl *ctl, const char *id, struct custody_request *request)
{
    struct custody_request *requests = NULL;
    struct custody_error err;
    size_t count = 0;
    if (custody_list_requests(ctl->custody, id, &requests, &count, &err) < 0)
        return ctl_fail(ctl, &err);
    enum ctl_exit result = CTL_OK;
    if (count == 1)
        *request = requests[0];
    else
        result = ctl_fail_here(ctl, "the daemon does not show request %s", id);
    free(requests);
    return result;
}

// The text alone, so that it can be piped into what signs it, here or elsewhere.
enum ctl_exit request_show(struct ctl *ctl)
{
    struct custody_request request;
    enum ctl_exit result = request_fetch(ctl, ctl->arguments[0], &request);
    if (result != CTL_OK)
        return result;
    if (ctl->json)
        return print_json(request_json(&request)) == 0
                   ? CTL_OK
                   : ctl_fail_here(ctl, "the output could not be written");
    fputs(request.text, stdout);
    return CTL_OK;
}
