// SPDX-License-Identifier: Apache-2.0
// Fuzzes move datagrams, which strangers inside the tunnel may send: each that is taken has one
// form.
#include <string.h>

#include "fuzz.h"
#include "tools/applier/moves.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct move move;
    uint8_t datagram[MOVES_DATAGRAM_MAX];
    if (move_parse(&move, data, size) != 0)
        return 0;
    REQUIRE(move.kind >= MOVE_ASK && move.kind <= MOVE_LAST);
    REQUIRE(name_is_host(move.host) && name_is_key(move.key));
    REQUIRE(move_format(&move, datagram) == size && memcmp(datagram, data, size) == 0);
    return 0;
}
