// SPDX-License-Identifier: Apache-2.0
// Fuzzes packets of the keeper's channel: what is received holds no string without its end and no
// flag that is none, and is sent on as it came.
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "channel.h"
#include "fuzz.h"

// Both kinds of message, as bytes that may be anything.
union packet {
    struct keeper_request request;
    struct keeper_reply reply;
    uint8_t bytes[sizeof(struct keeper_request) + sizeof(struct keeper_reply)];
};

enum form { RAW, REQUEST, REPLY, FORMS };

// ---- making a packet ----

// Fills runs of bytes: each run's place, length and value are taken from the input.
static void scribble(uint8_t *bytes, size_t size, struct input *input)
{
    while (input->left > 0 && size > 0) {
        size_t at = ((size_t)input_byte(input) << 8 | input_byte(input)) % size;
        size_t length = ((size_t)input_byte(input) << 8 | input_byte(input)) % (size - at + 1);
        memset(bytes + at, input_byte(input), length);
    }
}

static struct keeper_header header_of(uint8_t op)
{
    return (struct keeper_header){
        .magic = KEEPER_MAGIC, .version = KEEPER_VERSION, .op = 1 + op % KEEPER_COMMIT, .id = 9};
}

// Returns the packet's length.
static size_t make_packet(union packet *packet, enum form form, struct input *input)
{
    size_t length = input->left < sizeof(packet->bytes) ? input->left : sizeof(packet->bytes);
    memset(packet, 0, sizeof(*packet));
    switch (form) {
    case REQUEST:
        packet->request.header = header_of(input_byte(input));
        length = channel_request_size(packet->request.header.op);
        scribble(packet->bytes + offsetof(struct keeper_request, body),
                 length - offsetof(struct keeper_request, body), input);
        return length;
    case REPLY:
        packet->reply.header = header_of(input_byte(input));
        length = channel_reply_size(&packet->reply);
        scribble(packet->bytes + sizeof(packet->reply.header),
                 length - sizeof(packet->reply.header), input);
        return length;
    default:
        memcpy(packet->bytes, input->at, length);
        return length;
    }
}

// ---- what must hold ----

#define REQUIRE_TEXT(member) REQUIRE(memchr(member, '\0', sizeof(member)) != NULL)
#define REQUIRE_FLAG(member) REQUIRE(*(const uint8_t *)&(member) <= 1)

static void require_token(const struct record_token *token)
{
    REQUIRE_FLAG(token->present);
    REQUIRE_FLAG(token->weak);
    REQUIRE_TEXT(token->label);
    REQUIRE_TEXT(token->serial);
    REQUIRE_TEXT(token->manufacturer);
    REQUIRE_TEXT(token->model);
}

static void require_record(const struct record *record)
{
    REQUIRE_FLAG(record->actor.present);
    REQUIRE_FLAG(record->actor.exe_unavailable);
    require_token(&record->token);
    REQUIRE_TEXT(record->actor.unit);
    REQUIRE_TEXT(record->actor.exe);
    REQUIRE_TEXT(record->actor.exe_sha256);
    REQUIRE_TEXT(record->host);
    REQUIRE_TEXT(record->key);
    REQUIRE_TEXT(record->ticket);
    REQUIRE_TEXT(record->lease);
    REQUIRE_TEXT(record->request);
    REQUIRE_TEXT(record->detail);
    REQUIRE_TEXT(record->suite);
    REQUIRE_TEXT(record->log_vkey);
    REQUIRE_TEXT(record->host_vkey);
    REQUIRE_TEXT(record->version);
    REQUIRE_TEXT(record->policy_sha256);
    REQUIRE_TEXT(record->sha256);
    REQUIRE_TEXT(record->request_id);
    REQUIRE_TEXT(record->operator_name);
    REQUIRE_TEXT(record->operator_key);
    REQUIRE_TEXT(record->signature);
    REQUIRE_TEXT(record->peer);
    REQUIRE_TEXT(record->peer_key);
    REQUIRE_TEXT(record->address);
    REQUIRE_TEXT(record->previous);
    REQUIRE_TEXT(record->move_sha256);
    REQUIRE_TEXT(record->method);
}

static void require_request(const struct keeper_request *request)
{
    switch (request->header.op) {
    case KEEPER_GENERATE:
        REQUIRE_TEXT(request->body.generate.key);
        break;
    case KEEPER_OFFER:
    case KEEPER_IMPORT:
        REQUIRE_TEXT(request->body.import.key);
        break;
    case KEEPER_LOG_OPEN:
        REQUIRE_TEXT(request->body.log_open.checkpoint);
        REQUIRE(request->body.log_open.edge_length <= MERKLE_LEVELS);
        REQUIRE(request->body.log_open.proof_length <= MERKLE_PROOF_MAX);
        break;
    case KEEPER_ENTRY:
        require_record(&request->body.entry.record);
        break;
    }
}

static void require_status(const struct keeper_status *status)
{
    REQUIRE_FLAG(status->initialised);
    REQUIRE_FLAG(status->has_head);
    require_token(&status->token);
    REQUIRE_TEXT(status->suite);
    REQUIRE_TEXT(status->log_vkey);
    REQUIRE_TEXT(status->host_vkey);
    REQUIRE_TEXT(status->head);
}

static void require_probe(const struct keeper_probe *probe)
{
    REQUIRE(probe->count <= KEEPER_PROBE_MAX);
    for (uint32_t i = 0; i < probe->count; i++) {
        REQUIRE_TEXT(probe->checks[i].name);
        REQUIRE_TEXT(probe->checks[i].detail);
        REQUIRE_FLAG(probe->checks[i].passed);
        REQUIRE_FLAG(probe->checks[i].required);
    }
}

static void require_list(const struct keeper_list *list)
{
    REQUIRE(list->count <= KEEPER_LIST_MAX);
    for (uint32_t i = 0; i < list->count; i++) {
        REQUIRE_TEXT(list->blobs[i].key);
        REQUIRE_FLAG(list->blobs[i].adopted);
    }
}

static void require_reply(const struct keeper_reply *reply)
{
    REQUIRE_TEXT(reply->error.message);
    if (reply->error.code != ERROR_OK)
        return;
    switch (reply->header.op) {
    case KEEPER_STATUS:
    case KEEPER_INIT:
        require_status(&reply->body.status);
        break;
    case KEEPER_PROBE:
        require_probe(&reply->body.probe);
        break;
    case KEEPER_LIST:
        require_list(&reply->body.list);
        break;
    case KEEPER_ENTRY:
        REQUIRE_TEXT(reply->body.result.note);
        break;
    case KEEPER_COMMIT:
        REQUIRE_TEXT(reply->body.committed.checkpoint);
        break;
    }
}

// ---- over a socket ----

static void fuzz_request(const int ends[2], const union packet *packet, size_t length)
{
    struct keeper_request got, again;
    struct error err = {.code = ERROR_OK};
    if (send(ends[0], packet->bytes, length, 0) != (ssize_t)length)
        abort();
    if (channel_receive_request(ends[1], &got, &err) != 0) {
        fuzz_require_refusal(&err);
        return;
    }
    REQUIRE(memcmp(&got, packet, length) == 0);
    require_request(&got);
    REQUIRE(channel_send_request(ends[0], &got, &err) == 0);
    REQUIRE(channel_receive_request(ends[1], &again, &err) == 0);
    REQUIRE(memcmp(&got, &again, sizeof(got)) == 0);
}

static void fuzz_reply(const int ends[2], const union packet *packet, size_t length)
{
    struct keeper_reply got, again;
    struct error err = {.code = ERROR_OK};
    if (send(ends[0], packet->bytes, length, 0) != (ssize_t)length)
        abort();
    if (channel_receive_reply(ends[1], &got, &err) != 0) {
        fuzz_require_refusal(&err);
        return;
    }
    REQUIRE(memcmp(&got, packet, length) == 0);
    require_reply(&got);
    REQUIRE(channel_send_reply(ends[0], &got, &err) == 0);
    REQUIRE(channel_receive_reply(ends[1], &again, &err) == 0);
    REQUIRE(memcmp(&got, &again, sizeof(got)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static union packet packet;
    static int ends[2] = {-1, -1};
    struct input input = {data, size};
    enum form form = input_byte(&input) % FORMS;
    if (ends[0] < 0 && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends) != 0)
        abort();
    size_t length = make_packet(&packet, form, &input);
    fuzz_request(ends, &packet, length);
    fuzz_reply(ends, &packet, length);
    return 0;
}
