// SPDX-License-Identifier: Apache-2.0
// Move datagrams: what two appliers tell each other inside the tunnel while a key is replaced.
//
// READY? and READY go before it: both appliers are there now. LAST is the last that goes over the
// old session: WireGuard delivers in order what comes from one peer, but each peer's by a thread of
// its own, and the old key and the new one are two peers. MOVED comes over the new session and
// shows the secret whose SHA-256 the counterpart's signed acknowledgement named: its sender has
// given the allowed-ips to the new public key. The tunnel is what proves the sender of the first
// three, and they lead to nothing but a moment's closer look, or a move a moment earlier; the
// secret proves MOVED.
#ifndef APPLIER_MOVES_H
#define APPLIER_MOVES_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

#include "device_view.h"
#include "error.h"
#include "name.h"

#define MOVES_SECRET_SIZE  32
#define MOVES_DATAGRAM_MAX 256 // bytes

enum move_kind {
    MOVE_ASK = 1,   // "are you there?": the rotating side, before it cuts over
    MOVE_READY = 2, // "yes, and I look closely now"
    MOVE_MOVED = 3, // "the allowed-ips are the new key's": shows the secret
    MOVE_LAST = 4,  // "nothing comes under the old key after this": before packets are held
};

// A datagram: "custody-move1", the kind, then the rotating host and its key (a length byte and the
// text each), the generation (8 bytes, big-endian) and 32 bytes: a nonce (ASK, READY), the secret
// (MOVED) or zeros (LAST).
struct move {
    enum move_kind kind;
    char host[HOST_MAX + 1]; // whose key is replaced
    char key[KEY_MAX + 1];
    uint64_t generation; // that takes over
    uint8_t bytes[MOVES_SECRET_SIZE];
};

// Returns the length written.
size_t move_format(const struct move *move, uint8_t datagram[MOVES_DATAGRAM_MAX]);
// Accepts exactly what move_format makes. 0, or -1.
int move_parse(struct move *move, const uint8_t *datagram, size_t length);

// A socket at our own move address, for datagrams that come through `interface` and no other.
struct moves;
int moves_open(struct moves **out, const char *interface, const union device_endpoint *own,
               struct error *err);
void moves_close(struct moves *moves); // NULL is fine
int moves_fd(const struct moves *moves);
// Sends to a counterpart's move address. A datagram that cannot be sent is as one that was lost.
void moves_send(struct moves *moves, const struct move *move, const union device_endpoint *to);
// Takes one that has come: 1 with `move` and `from` filled, 0 when there is none. What is no move
// datagram is passed over.
int moves_take(struct moves *moves, struct move *move, union device_endpoint *from);

#endif
