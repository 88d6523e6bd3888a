// SPDX-License-Identifier: Apache-2.0
// libcustody: the connection to custodyd, its hello, and one call after the other on it.
#include "client.h"

#include <sodium.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "connection.h"
#include "frame.h"
#include "name.h"

#define CLIENT_PROTOCOL_VERSION 1
#define CLIENT_TIMEOUT_MS       10000

struct custody {
    struct connection *connection; // NULL once it has ended
    int timeout_ms;
    uint64_t last_id;
    // The watch: its request's id (0: none is open), and its answer once that came.
    uint64_t watch_id;
    bool watch_answered, watch_changed;
    struct error watch_refused; // the code is ERROR_OK where it was not
    bool pinned;
    struct note_key log_key;
    char host[HOST_MAX + 1];
    char told_log_vkey[NOTE_VKEY_MAX];
};

_Static_assert(sizeof(((struct custody_error *)0)->message) == ERROR_MESSAGE_MAX,
               "a message of ours fits the caller's");

const char *custody_code_name(enum custody_code code)
{
    return error_code_name((enum error_code)code);
}

int client_fail(const struct error *err, struct custody_error *out)
{
    if (out != NULL) {
        out->code = (enum custody_code)err->code;
        memcpy(out->message, err->message, sizeof(out->message));
    }
    return -1;
}

bool client_text(char *out, size_t size, const char *text)
{
    size_t length = strlen(text);
    bool fits = length < size;
    if (!fits)
        length = size - 1;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        out[i] = c < 0x20 || c == 0x7f ? '?' : text[i];
    }
    out[length] = '\0';
    return fits;
}

char *client_string(const char *text)
{
    return (char *)(text != NULL ? text : "");
}

void client_free(Custody__V1__Response *answer)
{
    if (answer != NULL)
        custody__v1__response__free_unpacked(answer, NULL);
}

const struct note_key *client_log_key(const struct custody *custody)
{
    return custody->pinned ? &custody->log_key : NULL;
}

static int client_end(struct custody *custody)
{
    connection_close(custody->connection);
    custody->connection = NULL;
    return -1;
}

int client_bad_answer(struct custody *custody, const char *what, struct error *err)
{
    error_set(err, ERROR_DATA_LOSS, "custodyd's answer: %s; the connection was ended", what);
    return client_end(custody);
}

static enum error_code known_code(Custody__V1__Code code)
{
    bool known = code == CUSTODY__V1__CODE__UNKNOWN ||
                 strcmp(error_code_name((enum error_code)code), "UNKNOWN") != 0;
    return known ? (enum error_code)code : ERROR_UNKNOWN;
}

// The daemon's refusal, in its own words.
static int client_refused(const Custody__V1__Response *answer, struct error *err)
{
    char text[ERROR_MESSAGE_MAX];
    enum error_code code = known_code(answer->code);
    client_text(text, sizeof(text), answer->message);
    return error_set(err, code, "%s", text[0] != '\0' ? text : "custodyd gave no reason");
}

static int client_send(struct custody *custody, Custody__V1__Request *request, int64_t deadline,
                       struct error *err)
{
    request->id = ++custody->last_id;
    size_t length = custody__v1__request__get_packed_size(request);
    if (length > FRAME_MAX)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the request would be %zu bytes long; at most %d are allowed", length,
                         FRAME_MAX);
    custody__v1__request__pack(request, connection_outgoing(custody->connection));
    if (connection_send(custody->connection, length, deadline, err) < 0)
        return client_end(custody);
    return 0;
}

// What came about the watch is kept until custody_watch_take.
static void keep_watch(struct custody *custody, const Custody__V1__Response *answer)
{
    custody->watch_id = 0;
    custody->watch_answered = true;
    custody->watch_changed = answer->body_case == CUSTODY__V1__RESPONSE__BODY_KEYS_CHANGED &&
                             answer->keys_changed->changed;
    custody->watch_refused.code = ERROR_OK;
    if (answer->code != CUSTODY__V1__CODE__OK)
        client_refused(answer, &custody->watch_refused);
}

// Takes in a frame. Returns 1 with the answer to request `id`, which is for client_free, 0 when it
// was the watch's, -1 when it is neither.
static int client_take(struct custody *custody, uint64_t id, const uint8_t *message, size_t length,
                       Custody__V1__Response **answer, struct error *err)
{
    *answer = custody__v1__response__unpack(NULL, length, message);
    if (*answer == NULL)
        return client_bad_answer(custody, "is not a message of the protocol", err);
    // Without an id it is not about this request but about the connection, which the daemon closes.
    if ((*answer)->id == 0 && (*answer)->code != CUSTODY__V1__CODE__OK) {
        client_refused(*answer, err);
        return client_end(custody);
    }
    if (id != 0 && (*answer)->id == id)
        return 1;
    if (custody->watch_id == 0 || (*answer)->id != custody->watch_id)
        return client_bad_answer(custody, "is to another request than ours", err);
    keep_watch(custody, *answer);
    client_free(*answer);
    *answer = NULL;
    return 0;
}

static int client_receive(struct custody *custody, uint64_t id, int64_t deadline,
                          Custody__V1__Response **answer, struct error *err)
{
    int taken = 0;
    while (taken == 0) {
        const uint8_t *message = NULL;
        size_t length = 0;
        if (connection_receive(custody->connection, deadline, &message, &length, err) < 0)
            return client_end(custody);
        taken = client_take(custody, id, message, length, answer, err);
    }
    return taken < 0 ? -1 : 0;
}

static int client_ended(struct error *err)
{
    return error_set(err, ERROR_UNAVAILABLE, "the connection to custodyd has ended: connect again");
}

static int call_until(struct custody *custody, int64_t deadline, Custody__V1__Request *request,
                      Custody__V1__Response__BodyCase expected,
                      Custody__V1__Response__BodyCase other, Custody__V1__Response **answer,
                      struct error *err)
{
    *answer = NULL;
    if (custody->connection == NULL)
        return client_ended(err);
    if (client_send(custody, request, deadline, err) < 0 ||
        client_receive(custody, request->id, deadline, answer, err) < 0)
        goto cleanup;
    if ((*answer)->code != CUSTODY__V1__CODE__OK) {
        client_refused(*answer, err);
        goto cleanup;
    }
    if ((*answer)->body_case != expected && (*answer)->body_case != other) {
        client_bad_answer(custody, "is not of the kind that was asked for", err);
        goto cleanup;
    }
    return 0;

cleanup:
    client_free(*answer);
    *answer = NULL;
    return -1;
}

int client_call(struct custody *custody, Custody__V1__Request *request,
                Custody__V1__Response__BodyCase expected, Custody__V1__Response **answer,
                struct error *err)
{
    return client_call_either(custody, request, expected, expected, answer, err);
}

int client_call_either(struct custody *custody, Custody__V1__Request *request,
                       Custody__V1__Response__BodyCase expected,
                       Custody__V1__Response__BodyCase other, Custody__V1__Response **answer,
                       struct error *err)
{
    return call_until(custody, connection_deadline(custody->timeout_ms), request, expected, other,
                      answer, err);
}

// ---- the watch ----

#define WATCH_MS 60000 // the longest that custodyd lets one wait

int custody_watch(struct custody *custody, uint64_t after, struct custody_error *err)
{
    struct error error;
    Custody__V1__WatchKeys body = CUSTODY__V1__WATCH_KEYS__INIT;
    body.after = after;
    body.timeout_ms = WATCH_MS;
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_WATCH_KEYS;
    request.watch_keys = &body;
    if (custody->connection == NULL) {
        client_ended(&error);
        return client_fail(&error, err);
    }
    if (custody->watch_id != 0 || custody->watch_answered) {
        error_set(&error, ERROR_FAILED_PRECONDITION,
                  "a watch is open already: take its answer first");
        return client_fail(&error, err);
    }
    if (client_send(custody, &request, connection_deadline(custody->timeout_ms), &error) < 0)
        return client_fail(&error, err);
    custody->watch_id = request.id;
    return 0;
}

int custody_fd(const struct custody *custody)
{
    return custody->connection != NULL ? connection_fd(custody->connection) : -1;
}

// Takes in what is there without waiting for more.
static int watch_look(struct custody *custody, struct error *err)
{
    while (!custody->watch_answered) {
        const uint8_t *message = NULL;
        size_t length = 0;
        Custody__V1__Response *answer = NULL;
        if (custody->connection == NULL)
            return client_ended(err);
        int found = connection_poll(custody->connection, &message, &length, err);
        if (found == 0)
            return 0;
        if (found < 0)
            return client_end(custody);
        int taken = client_take(custody, 0, message, length, &answer, err);
        if (taken != 0) {
            client_free(answer);
            return -1;
        }
    }
    return 0;
}

int custody_watch_take(struct custody *custody, struct custody_error *err)
{
    struct error error;
    if (watch_look(custody, &error) < 0)
        return client_fail(&error, err);
    if (!custody->watch_answered)
        return 0;
    custody->watch_answered = false;
    if (custody->watch_refused.code != ERROR_OK)
        return client_fail(&custody->watch_refused, err);
    return custody->watch_changed ? 1 : 2;
}

// ---- connecting ----

static int client_hello(struct custody *custody, int64_t deadline, const char *name,
                        struct error *err)
{
    Custody__V1__Hello hello = CUSTODY__V1__HELLO__INIT;
    hello.version = CLIENT_PROTOCOL_VERSION;
    hello.client = client_string(name);
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_HELLO;
    request.hello = &hello;
    Custody__V1__Response *answer = NULL;
    if (call_until(custody, deadline, &request, CUSTODY__V1__RESPONSE__BODY_HELLO,
                   CUSTODY__V1__RESPONSE__BODY_HELLO, &answer, err) < 0)
        return -1;
    int result = 0;
    if (answer->hello->version != CLIENT_PROTOCOL_VERSION)
        result = client_bad_answer(custody, "names another version of the protocol than 1", err);
    else if (!client_text(custody->host, sizeof(custody->host), answer->hello->host) ||
             !client_text(custody->told_log_vkey, sizeof(custody->told_log_vkey),
                          answer->hello->log_vkey))
        result = client_bad_answer(custody, "names a host or a key that is too long", err);
    client_free(answer);
    return result;
}

static int client_pin(struct custody *custody, const char *log_vkey, struct error *err)
{
    if (log_vkey == NULL)
        return 0;
    if (note_key_parse(&custody->log_key, log_vkey, err) < 0)
        return error_prefix(err, "the pinned log key");
    custody->pinned = true;
    return 0;
}

int custody_connect(const struct custody_options *options, struct custody **out,
                    struct custody_error *err)
{
    static const struct custody_options defaults;
    struct error error = {.code = ERROR_UNKNOWN};
    *out = NULL;
    if (options == NULL)
        options = &defaults;
    struct custody *custody = calloc(1, sizeof(*custody));
    if (custody == NULL || sodium_init() < 0) {
        error_set(&error, ERROR_RESOURCE_EXHAUSTED, "cannot start: out of memory or no randomness");
        goto cleanup;
    }
    custody->timeout_ms = options->timeout_ms > 0 ? options->timeout_ms : CLIENT_TIMEOUT_MS;
    if (client_pin(custody, options->log_vkey, &error) < 0)
        goto cleanup;
    const char *path = options->socket != NULL ? options->socket : CUSTODY_SOCKET;
    int64_t deadline = connection_deadline(custody->timeout_ms);
    if (connection_open(path, deadline, &custody->connection, &error) < 0)
        goto cleanup;
    if (client_hello(custody, deadline, options->client, &error) < 0)
        goto cleanup;
    *out = custody;
    return 0;

cleanup:
    custody_close(custody);
    return client_fail(&error, err);
}

void custody_close(struct custody *custody)
{
    if (custody == NULL)
        return;
    connection_close(custody->connection);
    free(custody);
}

const char *custody_host(const struct custody *custody)
{
    return custody->host;
}

const char *custody_told_log_vkey(const struct custody *custody)
{
    return custody->told_log_vkey;
}
