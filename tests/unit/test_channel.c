// SPDX-License-Identifier: Apache-2.0
// The keeper's channel: sizes, and that nothing malformed is handed on.
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "channel.h"
#include "tap.h"

static int ends[2];
static struct keeper_request request, got_request;
static struct keeper_reply reply, got_reply;
static struct error err;

static void fresh_pair(void)
{
    CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends), 0);
    memset(&request, 0, sizeof(request));
    memset(&reply, 0, sizeof(reply));
    memset(&err, 0, sizeof(err));
}

static void close_pair(void)
{
    close(ends[0]);
    close(ends[1]);
}

static struct keeper_header header(enum keeper_op op)
{
    return (struct keeper_header){KEEPER_MAGIC, KEEPER_VERSION, (uint16_t)op, 42};
}

// Sends `size` bytes of `packet` as they are, and receives them as a request.
static int receive_as_request(const void *packet, size_t size)
{
    CU_ASSERT_EQUAL_FATAL(send(ends[0], packet, size, 0), (ssize_t)size);
    return channel_receive_request(ends[1], &got_request, &err);
}

static void test_every_request_passes(void)
{
    fresh_pair();
    for (int op = KEEPER_STATUS; op <= KEEPER_COMMIT; op++) {
        request.header = header((enum keeper_op)op);
        CU_ASSERT_EQUAL(channel_send_request(ends[0], &request, &err), 0);
        CU_ASSERT_EQUAL(channel_receive_request(ends[1], &got_request, &err), 0);
        CU_ASSERT_EQUAL(got_request.header.op, op);
        CU_ASSERT_EQUAL(got_request.header.id, 42);
    }
    CU_ASSERT_EQUAL(channel_request_size((enum keeper_op)0), 0);
    CU_ASSERT_EQUAL(channel_request_size((enum keeper_op)99), 0);
    close_pair();
}

static void test_every_reply_passes(void)
{
    fresh_pair();
    for (int op = KEEPER_STATUS; op <= KEEPER_COMMIT; op++) {
        for (int failed = 0; failed < 2; failed++) {
            reply.header = header((enum keeper_op)op);
            reply.error.code = failed ? ERROR_NOT_FOUND : ERROR_OK;
            CU_ASSERT_EQUAL(channel_send_reply(ends[0], &reply, &err), 0);
            CU_ASSERT_EQUAL(channel_receive_reply(ends[1], &got_reply, &err), 0);
            CU_ASSERT_EQUAL(got_reply.error.code, reply.error.code);
        }
    }
    close_pair();
}

static void test_wrong_sizes(void)
{
    fresh_pair();
    for (int op = KEEPER_STATUS; op <= KEEPER_COMMIT; op++) {
        request.header = header((enum keeper_op)op);
        size_t size = channel_request_size((enum keeper_op)op);
        CU_ASSERT_EQUAL(receive_as_request(&request, size - 1), -1);
        CU_ASSERT_EQUAL(err.code, ERROR_INVALID_ARGUMENT);
        if (size < sizeof(request))
            CU_ASSERT_EQUAL(receive_as_request(&request, size + 1), -1);
    }
    CU_ASSERT_EQUAL(receive_as_request(&request, 1), -1);
    static char large[sizeof(struct keeper_request) + 1];
    CU_ASSERT_EQUAL(receive_as_request(large, sizeof(large)), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_INVALID_ARGUMENT);
    close_pair();
}

static void test_headers(void)
{
    fresh_pair();
    size_t size = channel_request_size(KEEPER_STATUS);
    request.header = header(KEEPER_STATUS);
    request.header.magic ^= 1;
    CU_ASSERT_EQUAL(receive_as_request(&request, size), -1);
    request.header = header(KEEPER_STATUS);
    request.header.version++;
    CU_ASSERT_EQUAL(receive_as_request(&request, size), -1);
    request.header = header((enum keeper_op)77);
    CU_ASSERT_EQUAL(receive_as_request(&request, size), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_INVALID_ARGUMENT);
    close_pair();
}

static void test_strings_without_end(void)
{
    fresh_pair();
    struct record *record = &request.body.entry.record;
    char *const texts[] = {
        record->host,        record->key,           record->lease,        record->actor.unit,
        record->ticket,      record->detail,        record->log_vkey,     record->token.label,
        record->suite,       record->version,       record->sha256,       record->request,
        record->request_id,  record->operator_name, record->operator_key, record->signature,
        record->peer,        record->peer_key,      record->address,      record->previous,
        record->move_sha256, record->method};
    const size_t sizes[] = {
        sizeof(record->host),       sizeof(record->key),           sizeof(record->lease),
        sizeof(record->actor.unit), sizeof(record->ticket),        sizeof(record->detail),
        sizeof(record->log_vkey),   sizeof(record->token.label),   sizeof(record->suite),
        sizeof(record->version),    sizeof(record->sha256),        sizeof(record->request),
        sizeof(record->request_id), sizeof(record->operator_name), sizeof(record->operator_key),
        sizeof(record->signature),  sizeof(record->peer),          sizeof(record->peer_key),
        sizeof(record->address),    sizeof(record->previous),      sizeof(record->move_sha256),
        sizeof(record->method)};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        memset(&request, 0, sizeof(request));
        request.header = header(KEEPER_ENTRY);
        CU_ASSERT_EQUAL(receive_as_request(&request, channel_request_size(KEEPER_ENTRY)), 0);
        memset(texts[i], 'x', sizes[i]);
        CU_ASSERT_EQUAL(receive_as_request(&request, channel_request_size(KEEPER_ENTRY)), -1);
    }
    close_pair();
}

static void test_flags_and_counts(void)
{
    fresh_pair();
    request.header = header(KEEPER_ENTRY);
    memset(&request.body.entry.record.token.weak, 2, 1);
    CU_ASSERT_EQUAL(receive_as_request(&request, channel_request_size(KEEPER_ENTRY)), -1);
    memset(&request, 0, sizeof(request));
    request.header = header(KEEPER_LOG_OPEN);
    request.body.log_open.edge_length = MERKLE_LEVELS + 1;
    CU_ASSERT_EQUAL(receive_as_request(&request, channel_request_size(KEEPER_LOG_OPEN)), -1);
    request.body.log_open.edge_length = 0;
    request.body.log_open.proof_length = UINT32_MAX;
    CU_ASSERT_EQUAL(receive_as_request(&request, channel_request_size(KEEPER_LOG_OPEN)), -1);
    close_pair();
}

static void test_replies_that_lie(void)
{
    fresh_pair();
    reply.header = header(KEEPER_LIST);
    reply.body.list.count = KEEPER_LIST_MAX + 1;
    CU_ASSERT_EQUAL(channel_send_reply(ends[0], &reply, &err), 0);
    CU_ASSERT_EQUAL(channel_receive_reply(ends[1], &got_reply, &err), -1);
    memset(&reply, 0, sizeof(reply));
    reply.header = header(KEEPER_COMMIT);
    memset(reply.body.committed.checkpoint, 'x', sizeof(reply.body.committed.checkpoint));
    CU_ASSERT_EQUAL(channel_send_reply(ends[0], &reply, &err), 0);
    CU_ASSERT_EQUAL(channel_receive_reply(ends[1], &got_reply, &err), -1);
    memset(&reply, 0, sizeof(reply));
    reply.header = header(KEEPER_COMMIT);
    reply.error.code = ERROR_INTERNAL;
    memset(reply.error.message, 'x', sizeof(reply.error.message));
    CU_ASSERT_EQUAL(channel_send_reply(ends[0], &reply, &err), 0);
    CU_ASSERT_EQUAL(channel_receive_reply(ends[1], &got_reply, &err), -1);
    close_pair();
}

static void test_end_and_emptiness(void)
{
    fresh_pair();
    CU_ASSERT_EQUAL(channel_receive_request(ends[1], &got_request, &err), 1);
    request.header = header(KEEPER_ENTRY);
    int full = 0;
    for (int i = 0; i < 100000 && full == 0; i++)
        full = channel_send_request(ends[0], &request, &err);
    CU_ASSERT_EQUAL(full, 1);
    close(ends[1]);
    CU_ASSERT_EQUAL(channel_send_request(ends[0], &request, &err), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_UNAVAILABLE);
    close(ends[0]);
    fresh_pair();
    close(ends[0]);
    CU_ASSERT_EQUAL(channel_receive_request(ends[1], &got_request, &err), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_UNAVAILABLE);
    close(ends[1]);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"every request passes", test_every_request_passes},
        {"every reply passes, and every refusal", test_every_reply_passes},
        {"a wrong size is refused", test_wrong_sizes},
        {"a wrong magic, version or operation is refused", test_headers},
        {"a string without its end is refused", test_strings_without_end},
        {"a flag that is no bool and a count beyond are refused", test_flags_and_counts},
        {"a reply that lies is refused", test_replies_that_lie},
        {"end of file, a full socket and an empty one", test_end_and_emptiness},
        CU_TEST_INFO_NULL,
    };
    return tap_run("channel", tests);
}
