// SPDX-License-Identifier: Apache-2.0
// Speaks the keeper's channel as a custodyd would that an attacker runs: it sends whatever it is
// told to.
//
// keeper_client FD reads commands from standard input, one a line with words separated by spaces,
// and prints one line of JSON for each. It keeps one record, which `set` fills and `line` and
// `entry` use; nothing ties what it sends to what is in the log, which its caller writes.
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <jansson.h>
#include <sodium.h>

#include "channel.h"

#define WORDS_MAX   8
#define COMMAND_MAX 65536
#define ANSWER_MS   60000
#define PACKET_MAX  65536

static struct record current;
static uint64_t next_id = 1;
static int channel;

static json_t *failure(const char *code, const char *message)
{
    return json_pack("{s:s, s:s}", "code", code, "message", message);
}

static json_t *hex(const void *data, size_t length)
{
    char text[2 * KEEPER_BOX_SIZE + 1];
    sodium_bin2hex(text, sizeof(text), data, length);
    return json_string(text);
}

// The fields of a record that tests set.
enum kind { NUMBER32, NUMBER64, TEXT, BYTES, FLAG };
static const struct {
    const char *name;
    enum kind kind;
    size_t offset;
    size_t size;
} fields[] = {
#define FIELD(name, kind, member)                                                                  \
    {                                                                                              \
        name, kind, offsetof(struct record, member), sizeof(((struct record *)NULL)->member)       \
    }
    FIELD("seq", NUMBER64, seq),
    FIELD("time_us", NUMBER64, time_us),
    FIELD("host", TEXT, host),
    FIELD("key", TEXT, key),
    FIELD("generation", NUMBER64, generation),
    FIELD("purpose", NUMBER32, purpose),
    FIELD("public_key", BYTES, public_key),
    FIELD("applier_public_key", BYTES, applier_public_key),
    FIELD("reason", NUMBER32, reason),
    FIELD("lease", TEXT, lease),
    FIELD("expires_us", NUMBER64, expires_us),
    FIELD("not_before_us", NUMBER64, not_before_us),
    FIELD("not_after_us", NUMBER64, not_after_us),
    FIELD("detail", TEXT, detail),
    FIELD("sha256", TEXT, sha256),
    FIELD("peer", TEXT, peer),
    FIELD("peer_key", TEXT, peer_key),
    FIELD("peer_generation", NUMBER64, peer_generation),
    FIELD("peer_public_key", BYTES, peer_public_key),
    FIELD("bundle_state", NUMBER32, bundle_state),
    FIELD("receive_key", BYTES, receive_key),
    FIELD("address", TEXT, address),
    FIELD("port", NUMBER32, port),
    FIELD("count", NUMBER64, count),
    FIELD("previous", TEXT, previous),
    FIELD("move_sha256", TEXT, move_sha256),
    FIELD("method", TEXT, method),
    FIELD("epoch", NUMBER64, epoch),
    FIELD("request_id", TEXT, request_id),
    FIELD("operation", NUMBER32, operation),
    FIELD("operator_name", TEXT, operator_name),
    FIELD("operator_key", TEXT, operator_key),
    FIELD("signature", TEXT, signature),
    FIELD("old_size", NUMBER64, old_size),
    FIELD("old_root", BYTES, old_root),
    FIELD("new_size", NUMBER64, new_size),
    FIELD("new_root", BYTES, new_root),
    FIELD("actor.present", FLAG, actor.present),
    FIELD("actor.uid", NUMBER32, actor.uid),
    FIELD("token.present", FLAG, token.present),
    FIELD("token.label", TEXT, token.label),
    FIELD("token.serial", TEXT, token.serial),
    FIELD("token.manufacturer", TEXT, token.manufacturer),
    FIELD("token.model", TEXT, token.model),
    FIELD("suite", TEXT, suite),
    FIELD("log_vkey", TEXT, log_vkey),
    FIELD("host_vkey", TEXT, host_vkey),
    FIELD("version", TEXT, version),
    FIELD("old_signature", BYTES, old_signature),
    FIELD("new_signature", BYTES, new_signature),
};

// set FIELD HEX: the value's bytes in hexadecimal; numbers in decimal; "event" takes the event's
// name.
static json_t *set_field(const char *name, const char *value)
{
    if (strcmp(name, "event") == 0) {
        current.event = record_event_from_name(value);
        return failure("OK", "");
    }
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (strcmp(fields[i].name, name) != 0)
            continue;
        unsigned char *at = (unsigned char *)&current + fields[i].offset;
        uint64_t number = strtoull(value, NULL, 10);
        memset(at, 0, fields[i].size);
        if (fields[i].kind == NUMBER64)
            memcpy(at, &number, sizeof(number));
        else if (fields[i].kind == NUMBER32)
            memcpy(at, &(uint32_t){(uint32_t)number}, sizeof(uint32_t));
        else if (fields[i].kind == FLAG)
            memcpy(at, &(bool){number != 0}, sizeof(bool));
        else
            sodium_hex2bin(at, fields[i].size, value, strlen(value), NULL, NULL, NULL);
        return failure("OK", "");
    }
    return failure("CLIENT", "no such field");
}

static json_t *describe_status(const struct keeper_status *status)
{
    return json_pack("{s:b, s:b, s:i, s:i, s:{s:s, s:s, s:s, s:s}, s:s, s:s, s:s, s:s}",
                     "initialised", status->initialised, "has_head", status->has_head, "blobs",
                     (int)status->blobs, "leftovers", (int)status->leftovers, "token", "label",
                     status->token.label, "serial", status->token.serial, "manufacturer",
                     status->token.manufacturer, "model", status->token.model, "suite",
                     status->suite, "log_vkey", status->log_vkey, "host_vkey", status->host_vkey,
                     "head", status->head);
}

static json_t *describe_probe(const struct keeper_probe *probe)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < probe->count; i++)
        json_array_append_new(list, json_pack("{s:s, s:b, s:b, s:s}", "name", probe->checks[i].name,
                                              "passed", probe->checks[i].passed, "required",
                                              probe->checks[i].required, "detail",
                                              probe->checks[i].detail));
    return list;
}

static json_t *describe_list(const struct keeper_list *list)
{
    json_t *blobs = json_array();
    for (uint32_t i = 0; i < list->count; i++)
        json_array_append_new(blobs, json_pack("{s:s, s:I, s:i, s:b}", "key", list->blobs[i].key,
                                               "generation", (json_int_t)list->blobs[i].generation,
                                               "purpose", (int)list->blobs[i].purpose, "adopted",
                                               list->blobs[i].adopted));
    return blobs;
}

static json_t *describe_body(const struct keeper_reply *reply)
{
    switch ((enum keeper_op)reply->header.op) {
    case KEEPER_STATUS:
    case KEEPER_INIT:
        return describe_status(&reply->body.status);
    case KEEPER_PROBE:
        return describe_probe(&reply->body.probe);
    case KEEPER_LIST:
        return describe_list(&reply->body.list);
    case KEEPER_OFFER:
        return json_string(reply->body.offered.note);
    case KEEPER_GENERATE:
    case KEEPER_IMPORT:
        return hex(reply->body.generated.public_key, RECORD_KEY_SIZE);
    case KEEPER_RECEIVE:
        return json_null();
    case KEEPER_LOG_OPEN:
        return json_pack("{s:I, s:I}", "size", (json_int_t)reply->body.log_opened.size, "offset",
                         (json_int_t)reply->body.log_opened.offset);
    case KEEPER_ENTRY:
        return json_pack("{s:i, s:o, s:s}", "index", (int)reply->body.result.index, "box",
                         hex(reply->body.result.box, KEEPER_BOX_SIZE), "note",
                         reply->body.result.note);
    case KEEPER_COMMIT:
        return json_pack("{s:I, s:s}", "size", (json_int_t)reply->body.committed.size, "checkpoint",
                         reply->body.committed.checkpoint);
    }
    return json_null();
}

static json_t *describe(const struct keeper_reply *reply)
{
    json_t *out = failure(error_code_name(reply->error.code), reply->error.message);
    json_object_set_new(out, "op", json_integer(reply->header.op));
    json_object_set_new(out, "id", json_integer((json_int_t)reply->header.id));
    if (reply->error.code == ERROR_OK)
        json_object_set_new(out, "body", describe_body(reply));
    return out;
}

// Waits for one answer; NULL in `*reply` when none came.
static json_t *receive(struct keeper_reply *reply)
{
    struct pollfd readable = {.fd = channel, .events = POLLIN};
    if (poll(&readable, 1, ANSWER_MS) != 1)
        return failure("CLIENT", "the keeper does not answer");
    struct error err;
    if (channel_receive_reply(channel, reply, &err) != 0)
        return failure("CHANNEL", err.message);
    return NULL;
}

static json_t *send_request(struct keeper_request *request, enum keeper_op op)
{
    struct error err;
    request->header = (struct keeper_header){KEEPER_MAGIC, KEEPER_VERSION, (uint16_t)op, next_id++};
    if (channel_send_request(channel, request, &err) != 0)
        return failure("CHANNEL", err.message);
    return NULL;
}

// Sends a request and waits for its answer.
static json_t *ask(struct keeper_request *request, enum keeper_op op)
{
    static struct keeper_reply reply;
    json_t *out = send_request(request, op);
    if (out == NULL)
        out = receive(&reply);
    return out != NULL ? out : describe(&reply);
}

// Reads the answers of a commit: those of entries, then its own.
static json_t *await_commit(struct keeper_request *request)
{
    static struct keeper_reply reply;
    json_t *results = json_array();
    json_t *out = send_request(request, KEEPER_COMMIT);
    while (out == NULL) {
        out = receive(&reply);
        if (out != NULL)
            break;
        if (reply.header.op == KEEPER_ENTRY && reply.header.id != request->header.id)
            json_array_append_new(results, describe(&reply));
        else
            out = describe(&reply);
    }
    json_object_set_new(out, "results", results);
    return out;
}

static void parse_hashes(const char *text, struct merkle_hash *hashes, size_t max, uint32_t *count)
{
    size_t length = 0;
    if (strcmp(text, "-") != 0)
        sodium_hex2bin((unsigned char *)hashes, max * sizeof(*hashes), text, strlen(text), NULL,
                       &length, NULL);
    *count = (uint32_t)(length / sizeof(*hashes));
}

// log_open FIRST CHECKPOINT EDGE PROOF, all but the first in hexadecimal, "-" for nothing.
static json_t *log_open(char **words)
{
    static struct keeper_request request;
    memset(&request, 0, sizeof(request));
    struct keeper_log_open *body = &request.body.log_open;
    body->first = strtoull(words[1], NULL, 10);
    if (strcmp(words[2], "-") != 0)
        sodium_hex2bin((unsigned char *)body->checkpoint, sizeof(body->checkpoint) - 1, words[2],
                       strlen(words[2]), NULL, NULL, NULL);
    parse_hashes(words[3], body->edge, MERKLE_LEVELS, &body->edge_length);
    parse_hashes(words[4], body->proof, MERKLE_PROOF_MAX, &body->proof_length);
    return ask(&request, KEEPER_LOG_OPEN);
}

// offer KEY GENERATION PUBLIC-KEY, import KEY GENERATION PUBLIC-KEY BOX, the last two in
// hexadecimal.
static json_t *import(char **words, int count)
{
    static struct keeper_request request;
    memset(&request, 0, sizeof(request));
    struct keeper_import *body = &request.body.import;
    snprintf(body->key, sizeof(body->key), "%s", words[1]);
    body->generation = strtoull(words[2], NULL, 10);
    sodium_hex2bin(body->public_key, sizeof(body->public_key), words[3], strlen(words[3]), NULL,
                   NULL, NULL);
    if (count == 5)
        sodium_hex2bin(body->box, sizeof(body->box), words[4], strlen(words[4]), NULL, NULL, NULL);
    return ask(&request, count == 5 ? KEEPER_IMPORT : KEEPER_OFFER);
}

// log_loss FIRST SIZE EDGE: opens the log as it stands.
static json_t *log_loss(char **words)
{
    static struct keeper_request request;
    memset(&request, 0, sizeof(request));
    struct keeper_log_open *body = &request.body.log_open;
    body->first = strtoull(words[1], NULL, 10);
    body->accept_loss = 1;
    body->size = strtoull(words[2], NULL, 10);
    parse_hashes(words[3], body->edge, MERKLE_LEVELS, &body->edge_length);
    return ask(&request, KEEPER_LOG_OPEN);
}

// receive KEY PEER PEER_KEY EPOCH GENERATION BOX, the box in hexadecimal.
static json_t *receive_psk(char **words)
{
    static struct keeper_request request;
    memset(&request, 0, sizeof(request));
    struct keeper_receive *body = &request.body.receive;
    snprintf(body->key, sizeof(body->key), "%s", words[1]);
    snprintf(body->peer, sizeof(body->peer), "%s", words[2]);
    snprintf(body->peer_key, sizeof(body->peer_key), "%s", words[3]);
    body->epoch = strtoull(words[4], NULL, 10);
    body->receive_generation = strtoull(words[5], NULL, 10);
    sodium_hex2bin(body->box, sizeof(body->box), words[6], strlen(words[6]), NULL, NULL, NULL);
    return ask(&request, KEEPER_RECEIVE);
}

// raw HEX: a packet of these bytes, and the answer to it.
static json_t *raw(const char *text)
{
    static unsigned char packet[PACKET_MAX];
    static struct keeper_reply reply;
    size_t length = 0;
    sodium_hex2bin(packet, sizeof(packet), text, strlen(text), NULL, &length, NULL);
    if (send(channel, packet, length, MSG_NOSIGNAL) != (ssize_t)length)
        return failure("CHANNEL", strerror(errno));
    json_t *out = receive(&reply);
    return out != NULL ? out : describe(&reply);
}

// header OP: the bytes of a valid header in hexadecimal, and the size that the operation takes.
static json_t *header(const char *op)
{
    struct keeper_header bytes = {KEEPER_MAGIC, KEEPER_VERSION, (uint16_t)atoi(op), next_id++};
    return json_pack("{s:s, s:o, s:i}", "code", "OK", "header", hex(&bytes, sizeof(bytes)), "size",
                     (int)channel_request_size((enum keeper_op)atoi(op)));
}

static json_t *encode_line(void)
{
    static char line[RECORD_LINE_MAX];
    size_t length = 0;
    struct error err;
    if (record_encode(&current, line, sizeof(line), &length, &err) != 0)
        return failure("CLIENT", err.message);
    return json_pack("{s:s, s:s%}", "code", "OK", "line", line, length);
}

static json_t *send_entry(const char *action)
{
    static struct keeper_request request;
    memset(&request, 0, sizeof(request));
    request.body.entry.action = (uint32_t)atoi(action);
    request.body.entry.record = current;
    json_t *out = send_request(&request, KEEPER_ENTRY);
    return out != NULL ? out : failure("OK", "");
}

static json_t *run(char **words, size_t count)
{
    static struct keeper_request request;
    memset(&request, 0, sizeof(request));
    const char *verb = words[0];
    if (strcmp(verb, "status") == 0)
        return ask(&request, KEEPER_STATUS);
    if (strcmp(verb, "probe") == 0)
        return ask(&request, KEEPER_PROBE);
    if (strcmp(verb, "init") == 0)
        return ask(&request, KEEPER_INIT);
    if (strcmp(verb, "reset") == 0) {
        memset(&current, 0, sizeof(current));
        return failure("OK", "");
    }
    if (strcmp(verb, "line") == 0)
        return encode_line();
    if (strcmp(verb, "list") == 0 && count == 2) {
        request.body.list.first = (uint32_t)atoi(words[1]);
        return ask(&request, KEEPER_LIST);
    }
    if (strcmp(verb, "set") == 0 && count == 3)
        return set_field(words[1], words[2]);
    if (strcmp(verb, "generate") == 0 && count == 4) {
        snprintf(request.body.generate.key, sizeof(request.body.generate.key), "%s", words[1]);
        request.body.generate.generation = strtoull(words[2], NULL, 10);
        request.body.generate.purpose = (uint32_t)atoi(words[3]);
        return ask(&request, KEEPER_GENERATE);
    }
    if (strcmp(verb, "receive") == 0 && count == 7)
        return receive_psk(words);
    if ((strcmp(verb, "offer") == 0 && count == 4) || (strcmp(verb, "import") == 0 && count == 5))
        return import(words, count);
    if (strcmp(verb, "log_open") == 0 && count == 5)
        return log_open(words);
    if (strcmp(verb, "log_loss") == 0 && count == 4)
        return log_loss(words);
    if (strcmp(verb, "entry") == 0 && count == 2)
        return send_entry(words[1]);
    if (strcmp(verb, "commit") == 0 && count == 2) {
        request.body.commit.count = (uint32_t)atoi(words[1]);
        return await_commit(&request);
    }
    if (strcmp(verb, "header") == 0 && count == 2)
        return header(words[1]);
    if (strcmp(verb, "raw") == 0 && count == 2)
        return raw(words[1]);
    return failure("CLIENT", "no such command");
}

int main(int argc, char **argv)
{
    static char command[COMMAND_MAX * 3];
    if (argc != 2 || sodium_init() < 0) {
        fprintf(stderr, "usage: keeper_client FD\n");
        return 2;
    }
    channel = atoi(argv[1]);
    while (fgets(command, sizeof(command), stdin) != NULL) {
        char *words[WORDS_MAX] = {NULL};
        size_t count = 0;
        for (char *word = strtok(command, " \n"); word != NULL && count < WORDS_MAX;
             word = strtok(NULL, " \n"))
            words[count++] = word;
        if (count == 0)
            continue;
        json_t *answer = run(words, count);
        char *text = json_dumps(answer, JSON_COMPACT);
        printf("%s\n", text != NULL ? text : "{\"code\":\"CLIENT\"}");
        fflush(stdout);
        free(text);
        json_decref(answer);
    }
    return 0;
}
