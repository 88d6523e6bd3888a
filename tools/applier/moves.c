// SPDX-License-Identifier: Apache-2.0
// Formats, parses, sends and takes move datagrams.
#include "moves.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char magic[] = "custody-move1";
#define MAGIC_SIZE (sizeof magic - 1)

// ---- the format ----

static uint8_t *put_text(uint8_t *at, const char *text)
{
    size_t length = strlen(text);
    *at++ = (uint8_t)length;
    memcpy(at, text, length);
    return at + length;
}

size_t move_format(const struct move *move, uint8_t datagram[MOVES_DATAGRAM_MAX])
{
    uint8_t *at = datagram;
    memcpy(at, magic, MAGIC_SIZE);
    at += MAGIC_SIZE;
    *at++ = (uint8_t)move->kind;
    at = put_text(at, move->host);
    at = put_text(at, move->key);
    for (int shift = 56; shift >= 0; shift -= 8)
        *at++ = (uint8_t)(move->generation >> shift);
    memcpy(at, move->bytes, sizeof move->bytes);
    return (size_t)(at + sizeof move->bytes - datagram);
}

struct in {
    const uint8_t *at, *end;
};

static int take_text(struct in *in, char *text, size_t size)
{
    if (in->at == in->end)
        return -1;
    size_t length = *in->at++;
    if (length >= size || (size_t)(in->end - in->at) < length ||
        memchr(in->at, '\0', length) != NULL)
        return -1;
    memcpy(text, in->at, length);
    text[length] = '\0';
    in->at += length;
    return 0;
}

int move_parse(struct move *move, const uint8_t *datagram, size_t length)
{
    struct in in = {datagram, datagram + length};
    memset(move, 0, sizeof *move);
    if (length < MAGIC_SIZE + 1 || memcmp(datagram, magic, MAGIC_SIZE) != 0)
        return -1;
    in.at += MAGIC_SIZE;
    move->kind = (enum move_kind) * in.at++;
    if (move->kind < MOVE_ASK || move->kind > MOVE_LAST ||
        take_text(&in, move->host, sizeof move->host) != 0 || !name_is_host(move->host) ||
        take_text(&in, move->key, sizeof move->key) != 0 || !name_is_key(move->key) ||
        (size_t)(in.end - in.at) != 8 + sizeof move->bytes)
        return -1;
    for (int i = 0; i < 8; i++)
        move->generation = move->generation << 8 | *in.at++;
    memcpy(move->bytes, in.at, sizeof move->bytes);
    return 0;
}

// ---- the socket ----

struct moves {
    int fd;
};

static socklen_t address_size(const union device_endpoint *address)
{
    return address->any.sa_family == AF_INET6 ? sizeof address->v6 : sizeof address->v4;
}

int moves_open(struct moves **out, const char *interface, const union device_endpoint *own,
               struct error *err)
{
    int yes = 1;
    struct moves *moves = calloc(1, sizeof *moves);
    if (moves == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a socket");
    moves->fd = socket(own->any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    // The address may be given to the interface later than this.
    int level = own->any.sa_family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP;
    int freebind = own->any.sa_family == AF_INET6 ? IPV6_FREEBIND : IP_FREEBIND;
    if (moves->fd < 0 || setsockopt(moves->fd, level, freebind, &yes, sizeof yes) != 0 ||
        setsockopt(moves->fd, SOL_SOCKET, SO_BINDTODEVICE, interface,
                   (socklen_t)strlen(interface)) != 0 ||
        bind(moves->fd, &own->any, address_size(own)) != 0) {
        error_set(err, ERROR_UNAVAILABLE,
                  "interface '%s': no UDP socket at its move-address and move-port: %s", interface,
                  strerror(errno));
        moves_close(moves);
        return -1;
    }
    *out = moves;
    return 0;
}

void moves_close(struct moves *moves)
{
    if (moves == NULL)
        return;
    if (moves->fd >= 0)
        close(moves->fd);
    free(moves);
}

int moves_fd(const struct moves *moves)
{
    return moves->fd;
}

void moves_send(struct moves *moves, const struct move *move, const union device_endpoint *to)
{
    uint8_t datagram[MOVES_DATAGRAM_MAX];
    size_t length = move_format(move, datagram);
    (void)sendto(moves->fd, datagram, length, MSG_DONTWAIT | MSG_NOSIGNAL, &to->any,
                 address_size(to));
}

int moves_take(struct moves *moves, struct move *move, union device_endpoint *from)
{
    uint8_t datagram[MOVES_DATAGRAM_MAX + 1];
    for (;;) {
        socklen_t size = sizeof *from;
        memset(from, 0, sizeof *from);
        ssize_t length =
            recvfrom(moves->fd, datagram, sizeof datagram, MSG_DONTWAIT, &from->any, &size);
        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0)
            return 0; // nothing there; or an ICMP error of an earlier send, which is as a loss
        if (move_parse(move, datagram, (size_t)length) == 0)
            return 1;
    }
}
