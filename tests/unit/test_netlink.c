// SPDX-License-Identifier: Apache-2.0
// WireGuard's netlink messages: bytes that are built, and answers, whole, cut short and hostile,
// that are parsed.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/netlink.h>

#include "datagram.h"
#include "tap.h"
#include "tools/applier/netlink.h"

#define FAMILY 0x1c
#define SEQ    7
#define PORTID 4242

static const uint8_t KEY[DEVICE_KEY_SIZE] = {0xa0, 1,  2,  3,  4,  5,  6,  7,  8,  9,   10,
                                             11,   12, 13, 14, 15, 16, 17, 18, 19, 20,  21,
                                             22,   23, 24, 25, 26, 27, 28, 29, 30, 0xaf};

static void put_part(struct datagram *d, uint16_t flags)
{
    put_message(d, FAMILY, NLM_F_MULTI | flags, SEQ, PORTID);
    put(d, (const uint8_t[]){0 /* WG_CMD_GET_DEVICE */, 1, 0, 0}, 4);
}

// The first part of a device: WGDEVICE_A_IFNAME is 2, PRIVATE_KEY 3, PUBLIC_KEY 4, PEERS 8
// (linux/wireguard.h).
static void put_device(struct datagram *d, uint16_t flags, const char *name)
{
    const uint8_t private_key[DEVICE_KEY_SIZE] = {0x5e};
    put_part(d, flags);
    put_attr(d, 2, name, (uint16_t)(strlen(name) + 1));
    put_attr(d, 3, private_key, sizeof private_key);
    put_attr(d, 4, KEY, sizeof KEY);
}

static void put_done(struct datagram *d, int error)
{
    put_message(d, NLMSG_DONE, NLM_F_MULTI, SEQ, PORTID);
    put(d, &error, sizeof error);
}

static int parse(const struct datagram *d, struct netlink_device *device,
                 struct netlink_answer *answer)
{
    *device = (struct netlink_device){.interface = "wg0"};
    *answer = (struct netlink_answer){0};
    return netlink_parse(d->bytes, d->length, SEQ, PORTID, netlink_read_device, device, answer,
                         NULL);
}

// ---- building ----

static void builds_set_device(void)
{
    _Alignas(8) uint8_t buffer[NETLINK_REQUEST_SIZE];
    static const uint8_t head[] = {
        64, 0,   0, 0, FAMILY, 0,   NLM_F_REQUEST | NLM_F_ACK,
        0,  SEQ, 0, 0, 0,      0,   0,
        0,  0,         // nlmsghdr
        1,  1,   0, 0, // WG_CMD_SET_DEVICE, version 1
        8,  0,   2, 0, 'w',    'g', '0',
        0,             // WGDEVICE_A_IFNAME
        36, 0,   3, 0, // WGDEVICE_A_PRIVATE_KEY
    };
    const struct nlmsghdr *message = netlink_set_private_key(buffer, FAMILY, SEQ, "wg0", KEY);
    CU_ASSERT_EQUAL(message->nlmsg_len, sizeof head + sizeof KEY);
    CU_ASSERT_EQUAL(memcmp(buffer, head, sizeof head), 0);
    CU_ASSERT_EQUAL(memcmp(buffer + sizeof head, KEY, sizeof KEY), 0);
}

static void builds_get_device(void)
{
    _Alignas(8) uint8_t buffer[NETLINK_REQUEST_SIZE];
    static const uint8_t expected[] = {
        28,
        0,
        0,
        0,
        FAMILY,
        0,
        NLM_F_REQUEST | NLM_F_ACK,
        NLM_F_DUMP >> 8,
        SEQ,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        1,
        0,
        0,
        8,
        0,
        2,
        0,
        'w',
        'g',
        '0',
        0,
    };
    const struct nlmsghdr *message = netlink_ask_device(buffer, FAMILY, SEQ, "wg0");
    CU_ASSERT_EQUAL(message->nlmsg_len, sizeof expected);
    CU_ASSERT_EQUAL(memcmp(buffer, expected, sizeof expected), 0);
}

static void longest_name_fits(void)
{
    _Alignas(8) uint8_t buffer[NETLINK_REQUEST_SIZE];
    CU_ASSERT(netlink_set_private_key(buffer, FAMILY, SEQ, "abcdefghijklmno", KEY)->nlmsg_len <
              sizeof buffer);
}

// ---- parsing ----

static void reads_device(void)
{
    struct datagram d = {.length = 0};
    struct netlink_device device;
    struct netlink_answer answer;
    put_device(&d, 0, "wg0");
    put_done(&d, 0);
    CU_ASSERT_EQUAL(parse(&d, &device, &answer), 0);
    CU_ASSERT(answer.done && !answer.interrupted && answer.error == 0 && device.seen);
    CU_ASSERT_EQUAL(memcmp(device.public_key, KEY, sizeof KEY), 0);
}

// A dump in several parts, in two datagrams: the later parts repeat neither name nor key.
static void reads_parts(void)
{
    struct datagram d = {.length = 0}, rest = {.length = 0};
    struct netlink_device device;
    struct netlink_answer answer;
    static const uint8_t peers[64];
    put_device(&d, 0, "wg0");
    put_part(&d, 0);
    put_attr(&d, 8, peers, sizeof peers);
    CU_ASSERT_EQUAL(parse(&d, &device, &answer), 0);
    CU_ASSERT(!answer.done);
    put_part(&rest, 0);
    put_attr(&rest, 8, peers, sizeof peers);
    put_done(&rest, 0);
    CU_ASSERT_EQUAL(netlink_parse(rest.bytes, rest.length, SEQ, PORTID, netlink_read_device,
                                  &device, &answer, NULL),
                    0);
    CU_ASSERT(answer.done && device.seen);
    CU_ASSERT_EQUAL(memcmp(device.public_key, KEY, sizeof KEY), 0);
}

static void device_without_key(void)
{
    struct datagram d = {.length = 0};
    struct netlink_device device;
    struct netlink_answer answer;
    static const uint8_t none[DEVICE_KEY_SIZE];
    put_part(&d, 0);
    put_attr(&d, 2, "wg0", 4);
    put_done(&d, 0);
    CU_ASSERT_EQUAL(parse(&d, &device, &answer), 0);
    CU_ASSERT(device.seen && memcmp(device.public_key, none, sizeof none) == 0);
}

static void sees_interruption(void)
{
    struct datagram d = {.length = 0}, overrun = {.length = 0};
    struct netlink_device device;
    struct netlink_answer answer;
    put_device(&d, NLM_F_DUMP_INTR, "wg0");
    put_done(&d, 0);
    CU_ASSERT_EQUAL(parse(&d, &device, &answer), 0);
    CU_ASSERT(answer.done && answer.interrupted);
    put_message(&overrun, NLMSG_OVERRUN, 0, SEQ, PORTID);
    CU_ASSERT_EQUAL(parse(&overrun, &device, &answer), 0);
    CU_ASSERT(answer.interrupted);
}

static void reads_refusal_in_words(void)
{
    struct datagram d = {.length = 0};
    struct netlink_device device;
    struct netlink_answer answer;
    int error = -ENODEV;
    static const uint8_t request[16];
    static const char words[] = "no such thing here";
    put_message(&d, NLMSG_ERROR, NLM_F_CAPPED | NLM_F_ACK_TLVS, SEQ, PORTID);
    put(&d, &error, sizeof error);
    put(&d, request, sizeof request);
    put_attr(&d, 1 /* NLMSGERR_ATTR_MSG */, words, sizeof words);
    CU_ASSERT_EQUAL(parse(&d, &device, &answer), 0);
    CU_ASSERT(answer.done);
    CU_ASSERT_EQUAL(answer.error, ENODEV);
    CU_ASSERT_STRING_EQUAL(answer.text, words);
}

// Without NLM_F_CAPPED the refused request stands before the words; one that claims to be longer
// than all must not lead outside the datagram.
static void reads_refusal_after_request(void)
{
    struct netlink_device device;
    struct netlink_answer answer;
    int error = -EINVAL;
    for (uint32_t claimed = 0; claimed < 64; claimed++) {
        struct datagram d = {.length = 0};
        uint8_t request[24] = {0};
        memcpy(request, &claimed, sizeof claimed);
        put_message(&d, NLMSG_ERROR, NLM_F_ACK_TLVS, SEQ, PORTID);
        put(&d, &error, sizeof error);
        put(&d, request, sizeof request);
        put_attr(&d, 1, "why", 4);
        CU_ASSERT_EQUAL(parse(&d, &device, &answer), 0);
        CU_ASSERT_EQUAL(answer.error, EINVAL);
        if (claimed == sizeof request)
            CU_ASSERT_STRING_EQUAL(answer.text, "why");
    }
}

static void reads_end_of_dump_with_error(void)
{
    struct datagram d = {.length = 0};
    struct netlink_device device;
    struct netlink_answer answer;
    put_done(&d, -EMSGSIZE);
    CU_ASSERT_EQUAL(parse(&d, &device, &answer), 0);
    CU_ASSERT(answer.done);
    CU_ASSERT_EQUAL(answer.error, EMSGSIZE);
}

static void passes_over_others(void)
{
    static const struct {
        uint32_t seq, portid;
    } strangers[] = {{SEQ - 1, PORTID}, {SEQ, PORTID + 1}, {0, PORTID}, {SEQ, 0}, {0, 0}};
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
        struct datagram d = {.length = 0};
        struct netlink_device device;
        struct netlink_answer answer;
        int error = 0;
        put_message(&d, NLMSG_DONE, NLM_F_MULTI, strangers[i].seq, strangers[i].portid);
        put(&d, &error, sizeof error);
        CU_ASSERT_EQUAL(parse(&d, &device, &answer), 0);
        CU_ASSERT(!answer.done);
    }
}

static void refuses_another_interface(void)
{
    struct datagram d = {.length = 0};
    struct netlink_device device;
    struct netlink_answer answer;
    put_device(&d, 0, "wg1");
    CU_ASSERT_EQUAL(parse(&d, &device, &answer), -1);
}

static void refuses_odd_keys(void)
{
    for (uint16_t length = 0; length < 48; length++) {
        struct datagram d = {.length = 0};
        struct netlink_device device;
        struct netlink_answer answer;
        uint8_t key[48] = {1};
        put_part(&d, 0);
        put_attr(&d, 2, "wg0", 4);
        put_attr(&d, 4, key, length);
        CU_ASSERT_EQUAL(parse(&d, &device, &answer), length == DEVICE_KEY_SIZE ? 0 : -1);
    }
}

// Every prefix of an answer, in memory of exactly its size, so that a checker sees a read beyond
// it.
static void cut_short(void)
{
    struct datagram d = {.length = 0};
    put_device(&d, 0, "wg0");
    put_done(&d, 0);
    for (size_t length = 0; length < d.length; length++) {
        struct netlink_device device = {.interface = "wg0"};
        struct netlink_answer answer = {0};
        void *copy = malloc(length + 1);
        CU_ASSERT_PTR_NOT_NULL_FATAL(copy);
        memcpy(copy, d.bytes, length);
        int rc =
            netlink_parse(copy, length, SEQ, PORTID, netlink_read_device, &device, &answer, NULL);
        CU_ASSERT(!answer.done);
        CU_ASSERT(rc == -1 || length == 0 || length == d.length - 20);
        free(copy);
    }
}

static uint32_t pseudo_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

// Bytes changed at random never lead to a key that was not told under the right name.
static void survives_noise(void)
{
    struct datagram d = {.length = 0};
    uint32_t state = 1;
    put_device(&d, 0, "wg0");
    put_done(&d, 0);
    for (int round = 0; round < 20000; round++) {
        struct datagram noisy = d;
        struct netlink_device device;
        struct netlink_answer answer;
        for (int i = 0; i < 3; i++)
            noisy.bytes[pseudo_random(&state) % d.length] = (uint8_t)pseudo_random(&state);
        (void)parse(&noisy, &device, &answer);
        CU_ASSERT(answer.text[sizeof answer.text - 1] == '\0');
    }
}

static void reads_family(void)
{
    struct datagram d = {.length = 0};
    struct netlink_answer answer = {0};
    uint16_t id = 0x1234, family = 0;
    put_message(&d, 0x10 /* GENL_ID_CTRL */, 0, SEQ, PORTID);
    put(&d, (const uint8_t[]){1, 2, 0, 0}, 4);
    put_attr(&d, 2 /* CTRL_ATTR_FAMILY_NAME */, "wireguard", 10);
    put_attr(&d, 1 /* CTRL_ATTR_FAMILY_ID */, &id, sizeof id);
    CU_ASSERT_EQUAL(
        netlink_parse(d.bytes, d.length, SEQ, PORTID, netlink_read_family, &family, &answer, NULL),
        0);
    CU_ASSERT_EQUAL(family, id);
}

struct found {
    int count;
    char last[DEVICE_NAME_MAX + 1];
};

static void note_found(const char *interface, void *context)
{
    struct found *found = context;
    found->count++;
    strncpy(found->last, interface, DEVICE_NAME_MAX);
}

static void put_link(struct datagram *d, const char *name, const char *kind)
{
    uint8_t info[32] = {0};
    uint16_t length = (uint16_t)(strlen(kind) + 1),
             head[] = {(uint16_t)(length + 4), 1 /* IFLA_INFO_KIND */};
    static const uint8_t link[16];
    memcpy(info, head, sizeof head);
    memcpy(info + 4, kind, length);
    put_message(d, 16 /* RTM_NEWLINK */, NLM_F_MULTI, SEQ, PORTID);
    put(d, link, sizeof link);
    put_attr(d, 3 /* IFLA_IFNAME */, name, (uint16_t)(strlen(name) + 1));
    put_attr(d, 18 /* IFLA_LINKINFO */, info, (uint16_t)(4 + length));
}

static void reads_links(void)
{
    struct datagram d = {.length = 0};
    struct netlink_answer answer = {0};
    struct found found = {0};
    struct netlink_links links = {note_found, &found};
    put_link(&d, "lo", "veth");
    put_link(&d, "wg7", "wireguard");
    put_link(&d, "wgx", "wireguard2");
    put_done(&d, 0);
    CU_ASSERT_EQUAL(
        netlink_parse(d.bytes, d.length, SEQ, PORTID, netlink_read_link, &links, &answer, NULL), 0);
    CU_ASSERT_EQUAL(found.count, 1);
    CU_ASSERT_STRING_EQUAL(found.last, "wg7");
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"setting a key: the bytes that linux/wireguard.h asks for", builds_set_device},
        {"asking for a device: the bytes that linux/wireguard.h asks for", builds_get_device},
        {"the longest interface name fits a request", longest_name_fits},
        {"a device's public key is read", reads_device},
        {"a dump in several parts and datagrams is one answer", reads_parts},
        {"a device without a key has public key zero", device_without_key},
        {"an interrupted dump and an overrun are seen", sees_interruption},
        {"a refusal's number and words are read", reads_refusal_in_words},
        {"words behind a repeated request are found, and nothing outside",
         reads_refusal_after_request},
        {"an error that ends a dump is read", reads_end_of_dump_with_error},
        {"messages of other requests and sockets are passed over", passes_over_others},
        {"an answer about another interface is refused", refuses_another_interface},
        {"a public key of any length but 32 is refused", refuses_odd_keys},
        {"every cut-short answer is refused or asks for more", cut_short},
        {"noise is survived", survives_noise},
        {"the family's number is read", reads_family},
        {"WireGuard links are told from others", reads_links},
        CU_TEST_INFO_NULL,
    };
    return tap_run("netlink", tests);
}
