// SPDX-License-Identifier: Apache-2.0
// Fuzzes what the kernel's WireGuard answers: datagrams of any bytes, to each of the three
// questions.
#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "tools/applier/netlink.h"

#define SEQ    7
#define PORTID 4242
#define FAMILY 0x1c

static void require_sane(const struct netlink_answer *answer)
{
    REQUIRE(answer->error >= 0 && (answer->error <= 4095 || answer->error == EPROTO));
    REQUIRE(memchr(answer->text, '\0', sizeof(answer->text)) != NULL);
    REQUIRE(answer->done || answer->error == 0);
}

static void require_name(const char *name, void *context)
{
    REQUIRE(name != NULL && strlen(name) < UINT16_MAX);
}

// The same datagram is one for our question only when it bears our numbers.
static void parse(const void *datagram, size_t length, uint32_t seq, netlink_reader *reader,
                  void *context)
{
    struct netlink_answer answer = {.done = false};
    struct error err = {.code = ERROR_OK};
    if (netlink_parse(datagram, length, seq, PORTID, reader, context, &answer, &err) != 0)
        fuzz_require_refusal(&err);
    require_sane(&answer);
}

static void fuzz_answers(const void *datagram, size_t length)
{
    uint16_t family = 0;
    struct netlink_device device = {.interface = "wg0"};
    struct netlink_links links = {.found = require_name};
    parse(datagram, length, SEQ, NULL, NULL);
    parse(datagram, length, SEQ, netlink_read_family, &family);
    parse(datagram, length, SEQ, netlink_read_device, &device);
    parse(datagram, length, SEQ, netlink_read_link, &links);
    struct netlink_device none = {.interface = "wg0"};
    const uint8_t zero[DEVICE_KEY_SIZE] = {0};
    parse(datagram, length, SEQ ^ 0x80000000u, netlink_read_device, &none);
    if (length >= sizeof(struct nlmsghdr) &&
        ((const struct nlmsghdr *)datagram)->nlmsg_seq == SEQ &&
        ((const struct nlmsghdr *)datagram)->nlmsg_len >= length)
        REQUIRE(!none.seen && memcmp(none.public_key, zero, sizeof(zero)) == 0);
}

// What we ask stands in its buffer, whole.
static void fuzz_requests(const uint8_t *data, size_t size)
{
    _Alignas(8) uint8_t buffer[NETLINK_REQUEST_SIZE];
    uint8_t key[DEVICE_KEY_SIZE] = {0};
    char name[IFNAMSIZ] = "";
    memcpy(key, data, size < sizeof(key) ? size : sizeof(key));
    memcpy(name, data, size < sizeof(name) - 1 ? size : sizeof(name) - 1);
    struct nlmsghdr *message = netlink_set_private_key(buffer, FAMILY, SEQ, name, key);
    REQUIRE((uint8_t *)message == buffer && message->nlmsg_len <= sizeof(buffer));
    REQUIRE(netlink_fits(message, sizeof(buffer)));
    REQUIRE(memmem(buffer, message->nlmsg_len, key, sizeof(key)) != NULL);
    message = netlink_ask_device(buffer, FAMILY, SEQ, name);
    REQUIRE(netlink_fits(message, sizeof(buffer)));
    REQUIRE(memmem(buffer, message->nlmsg_len, name, strlen(name) + 1) != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_answers(data, size);
    fuzz_requests(data, size);
    return 0;
}
