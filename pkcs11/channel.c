// SPDX-License-Identifier: Apache-2.0
// The keeper's channel: sends and receives one fixed struct a packet, and trusts nothing that came.
#include "channel.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#define REQUEST_HEAD offsetof(struct keeper_request, body)
#define REPLY_HEAD   offsetof(struct keeper_reply, body)

// A string in a struct: where it begins and how much room it has.
struct text_field {
    size_t offset;
    size_t size;
};

#define TEXT_FIELD(type, member)                                                                   \
    {                                                                                              \
        offsetof(type, member), sizeof(((type *)NULL)->member)                                     \
    }

static const struct text_field record_texts[] = {
    TEXT_FIELD(struct record, host),          TEXT_FIELD(struct record, actor.unit),
    TEXT_FIELD(struct record, actor.exe),     TEXT_FIELD(struct record, actor.exe_sha256),
    TEXT_FIELD(struct record, key),           TEXT_FIELD(struct record, ticket),
    TEXT_FIELD(struct record, lease),         TEXT_FIELD(struct record, request),
    TEXT_FIELD(struct record, detail),        TEXT_FIELD(struct record, token.label),
    TEXT_FIELD(struct record, token.serial),  TEXT_FIELD(struct record, token.manufacturer),
    TEXT_FIELD(struct record, token.model),   TEXT_FIELD(struct record, suite),
    TEXT_FIELD(struct record, log_vkey),      TEXT_FIELD(struct record, host_vkey),
    TEXT_FIELD(struct record, version),       TEXT_FIELD(struct record, policy_sha256),
    TEXT_FIELD(struct record, sha256),        TEXT_FIELD(struct record, request_id),
    TEXT_FIELD(struct record, operator_name), TEXT_FIELD(struct record, operator_key),
    TEXT_FIELD(struct record, signature),     TEXT_FIELD(struct record, peer),
    TEXT_FIELD(struct record, peer_key),      TEXT_FIELD(struct record, address),
    TEXT_FIELD(struct record, previous),      TEXT_FIELD(struct record, move_sha256),
    TEXT_FIELD(struct record, method),
};

static const size_t record_flags[] = {
    offsetof(struct record, actor.present),
    offsetof(struct record, actor.exe_unavailable),
    offsetof(struct record, token.present),
    offsetof(struct record, token.weak),
};

static const struct text_field status_texts[] = {
    TEXT_FIELD(struct keeper_status, token.label),
    TEXT_FIELD(struct keeper_status, token.serial),
    TEXT_FIELD(struct keeper_status, token.manufacturer),
    TEXT_FIELD(struct keeper_status, token.model),
    TEXT_FIELD(struct keeper_status, suite),
    TEXT_FIELD(struct keeper_status, log_vkey),
    TEXT_FIELD(struct keeper_status, host_vkey),
    TEXT_FIELD(struct keeper_status, head),
};

static const size_t status_flags[] = {
    offsetof(struct keeper_status, initialised),
    offsetof(struct keeper_status, has_head),
    offsetof(struct keeper_status, token.present),
    offsetof(struct keeper_status, token.weak),
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static bool terminated(const char *text, size_t size)
{
    return memchr(text, '\0', size) != NULL;
}

static bool texts_terminated(const void *base, const struct text_field *fields, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!terminated((const char *)base + fields[i].offset, fields[i].size))
            return false;
    return true;
}

// A bool that holds anything but 0 and 1 is undefined behaviour to read: look at its byte.
static bool flags_sane(const void *base, const size_t *offsets, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        unsigned char byte;
        memcpy(&byte, (const unsigned char *)base + offsets[i], 1);
        if (byte > 1)
            return false;
    }
    return true;
}

size_t channel_request_size(enum keeper_op op)
{
    switch (op) {
    case KEEPER_STATUS:
    case KEEPER_PROBE:
    case KEEPER_INIT:
        return REQUEST_HEAD;
    case KEEPER_LIST:
        return REQUEST_HEAD + sizeof(struct keeper_list_request);
    case KEEPER_GENERATE:
        return REQUEST_HEAD + sizeof(struct keeper_generate);
    case KEEPER_RECEIVE:
        return REQUEST_HEAD + sizeof(struct keeper_receive);
    case KEEPER_OFFER:
    case KEEPER_IMPORT:
        return REQUEST_HEAD + sizeof(struct keeper_import);
    case KEEPER_LOG_OPEN:
        return REQUEST_HEAD + sizeof(struct keeper_log_open);
    case KEEPER_ENTRY:
        return REQUEST_HEAD + sizeof(struct keeper_entry);
    case KEEPER_COMMIT:
        return REQUEST_HEAD + sizeof(struct keeper_commit);
    }
    return 0;
}

size_t channel_reply_size(const struct keeper_reply *reply)
{
    if (reply->error.code != ERROR_OK)
        return REPLY_HEAD;
    switch ((enum keeper_op)reply->header.op) {
    case KEEPER_STATUS:
    case KEEPER_INIT:
        return REPLY_HEAD + sizeof(struct keeper_status);
    case KEEPER_PROBE:
        return REPLY_HEAD + sizeof(struct keeper_probe);
    case KEEPER_LIST:
        return REPLY_HEAD + sizeof(struct keeper_list);
    case KEEPER_OFFER:
        return REPLY_HEAD + sizeof(struct keeper_offered);
    case KEEPER_GENERATE:
    case KEEPER_IMPORT:
        return REPLY_HEAD + sizeof(struct keeper_generated);
    case KEEPER_RECEIVE:
        return REPLY_HEAD;
    case KEEPER_LOG_OPEN:
        return REPLY_HEAD + sizeof(struct keeper_log_opened);
    case KEEPER_ENTRY:
        // Its note is the longest part, and seldom there.
        return REPLY_HEAD + offsetof(struct keeper_entry_result, note) +
               strnlen(reply->body.result.note, sizeof(reply->body.result.note)) + 1;
    case KEEPER_COMMIT:
        return REPLY_HEAD + sizeof(struct keeper_committed);
    }
    return 0;
}

static int send_packet(int fd, const void *packet, size_t size, struct error *err)
{
    for (;;) {
        ssize_t sent = send(fd, packet, size, MSG_NOSIGNAL);
        if (sent == (ssize_t)size)
            return 0;
        if (sent >= 0)
            return error_set(err, ERROR_INTERNAL, "keeper channel: %zd of %zu bytes were sent",
                             sent, size);
        if (errno == EINTR)
            continue;
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return 1;
        return error_set(err, ERROR_UNAVAILABLE, "keeper channel: send: %s", strerror(errno));
    }
}

// Receives one packet of at most `size` bytes. Descriptors that a sender attached are dropped by
// the kernel, since there is no room for them.
static int receive_packet(int fd, void *packet, size_t size, size_t *length, struct error *err)
{
    memset(packet, 0, size);
    struct iovec part = {.iov_base = packet, .iov_len = size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    ssize_t got;
    do
        got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return 1;
    if (got < 0)
        return error_set(err, ERROR_UNAVAILABLE, "keeper channel: recvmsg: %s", strerror(errno));
    // An empty packet reads as the end of file does; nobody sends one on purpose.
    if (got == 0)
        return error_set(err, ERROR_UNAVAILABLE, "keeper channel: the other end closed it");
    if (message.msg_flags & MSG_TRUNC)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "keeper channel: a packet is larger than any message");
    *length = (size_t)got;
    return 0;
}

static int check_header(const struct keeper_header *header, size_t length, struct error *err)
{
    if (length < sizeof(*header))
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "keeper channel: a packet of %zu bytes is shorter than its header",
                         length);
    if (header->magic != KEEPER_MAGIC)
        return error_set(err, ERROR_INVALID_ARGUMENT, "keeper channel: bad magic %08x",
                         (unsigned)header->magic);
    if (header->version != KEEPER_VERSION)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "keeper channel: version %u, this program speaks %u; custodyd and "
                         "custody-keeper must be of one release",
                         (unsigned)header->version, (unsigned)KEEPER_VERSION);
    return 0;
}

int channel_send_request(int fd, const struct keeper_request *request, struct error *err)
{
    size_t size = channel_request_size((enum keeper_op)request->header.op);
    if (size == 0)
        return error_set(err, ERROR_INTERNAL, "keeper channel: operation %u is unknown",
                         (unsigned)request->header.op);
    return send_packet(fd, request, size, err);
}

int channel_send_reply(int fd, const struct keeper_reply *reply, struct error *err)
{
    size_t size = channel_reply_size(reply);
    if (size == 0)
        return error_set(err, ERROR_INTERNAL, "keeper channel: operation %u is unknown",
                         (unsigned)reply->header.op);
    return send_packet(fd, reply, size, err);
}

static bool request_sane(const struct keeper_request *request)
{
    switch ((enum keeper_op)request->header.op) {
    case KEEPER_GENERATE:
        return terminated(request->body.generate.key, sizeof(request->body.generate.key));
    case KEEPER_RECEIVE:
        return terminated(request->body.receive.key, sizeof(request->body.receive.key)) &&
               terminated(request->body.receive.peer, sizeof(request->body.receive.peer)) &&
               terminated(request->body.receive.peer_key, sizeof(request->body.receive.peer_key));
    case KEEPER_OFFER:
    case KEEPER_IMPORT:
        return terminated(request->body.import.key, sizeof(request->body.import.key));
    case KEEPER_LOG_OPEN:
        return terminated(request->body.log_open.checkpoint,
                          sizeof(request->body.log_open.checkpoint)) &&
               request->body.log_open.edge_length <= MERKLE_LEVELS &&
               request->body.log_open.proof_length <= MERKLE_PROOF_MAX;
    case KEEPER_ENTRY:
        return texts_terminated(&request->body.entry.record, record_texts, COUNT(record_texts)) &&
               flags_sane(&request->body.entry.record, record_flags, COUNT(record_flags));
    default:
        return true;
    }
}

int channel_receive_request(int fd, struct keeper_request *request, struct error *err)
{
    size_t length = 0;
    int result = receive_packet(fd, request, sizeof(*request), &length, err);
    if (result != 0)
        return result;
    if (check_header(&request->header, length, err) != 0)
        return -1;
    size_t expected = channel_request_size((enum keeper_op)request->header.op);
    if (expected == 0)
        return error_set(err, ERROR_INVALID_ARGUMENT, "keeper channel: operation %u is unknown",
                         (unsigned)request->header.op);
    if (length != expected)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "keeper channel: operation %u takes %zu bytes, not %zu",
                         (unsigned)request->header.op, expected, length);
    if (!request_sane(request))
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "keeper channel: operation %u: a string without its end, a flag that is "
                         "neither 0 nor 1, or a count beyond its limit",
                         (unsigned)request->header.op);
    return 0;
}

static bool probe_sane(const struct keeper_probe *probe)
{
    if (probe->count > KEEPER_PROBE_MAX)
        return false;
    static const size_t flags[] = {offsetof(struct keeper_probe_check, passed),
                                   offsetof(struct keeper_probe_check, required)};
    for (uint32_t i = 0; i < probe->count; i++) {
        const struct keeper_probe_check *check = &probe->checks[i];
        if (!terminated(check->name, sizeof(check->name)) ||
            !terminated(check->detail, sizeof(check->detail)) ||
            !flags_sane(check, flags, COUNT(flags)))
            return false;
    }
    return true;
}

static bool list_sane(const struct keeper_list *list)
{
    if (list->count > KEEPER_LIST_MAX)
        return false;
    static const size_t flags[] = {offsetof(struct keeper_blob, adopted)};
    for (uint32_t i = 0; i < list->count; i++)
        if (!terminated(list->blobs[i].key, sizeof(list->blobs[i].key)) ||
            !flags_sane(&list->blobs[i], flags, COUNT(flags)))
            return false;
    return true;
}

static bool reply_sane(const struct keeper_reply *reply)
{
    if (!terminated(reply->error.message, sizeof(reply->error.message)))
        return false;
    if (reply->error.code != ERROR_OK)
        return true;
    switch ((enum keeper_op)reply->header.op) {
    case KEEPER_STATUS:
    case KEEPER_INIT:
        return texts_terminated(&reply->body.status, status_texts, COUNT(status_texts)) &&
               flags_sane(&reply->body.status, status_flags, COUNT(status_flags));
    case KEEPER_PROBE:
        return probe_sane(&reply->body.probe);
    case KEEPER_LIST:
        return list_sane(&reply->body.list);
    case KEEPER_OFFER:
        return terminated(reply->body.offered.note, sizeof(reply->body.offered.note));
    case KEEPER_ENTRY:
        return terminated(reply->body.result.note, sizeof(reply->body.result.note));
    case KEEPER_COMMIT:
        return terminated(reply->body.committed.checkpoint,
                          sizeof(reply->body.committed.checkpoint));
    default:
        return true;
    }
}

int channel_receive_reply(int fd, struct keeper_reply *reply, struct error *err)
{
    size_t length = 0;
    int result = receive_packet(fd, reply, sizeof(*reply), &length, err);
    if (result != 0)
        return result;
    if (check_header(&reply->header, length, err) != 0)
        return -1;
    if (length < REPLY_HEAD || length != channel_reply_size(reply))
        return error_set(err, ERROR_INTERNAL,
                         "keeper channel: an answer to operation %u has %zu bytes",
                         (unsigned)reply->header.op, length);
    if (!reply_sane(reply))
        return error_set(err, ERROR_INTERNAL,
                         "keeper channel: an answer to operation %u is malformed",
                         (unsigned)reply->header.op);
    return 0;
}
