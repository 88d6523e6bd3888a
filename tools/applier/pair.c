// SPDX-License-Identifier: Apache-2.0
// Opens the second device, and moves routes there and back.
#include "pair.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/netlink.h>

#include "netlink_talk.h"
#include "route.h"

#define AWAY_MS  50  // until what was routed before has left the interface
#define BACK_MS  150 // until what was sent by the second device has arrived
#define READ_MAX 3   // times, while routes change

struct pair {
    char interface[DEVICE_NAME_MAX + 1], second[DEVICE_NAME_MAX + 1];
    uint32_t ifindex, second_ifindex;
    struct device *device; // the second
    struct moves *moves;
    struct netlink_talk *talk;
    bool away;
    struct routes routes; // that lead to the second device and are the interface's
};

const char *pair_name(const struct pair *pair)
{
    return pair->second;
}

struct device *pair_device(struct pair *pair)
{
    return pair->device;
}

struct moves *pair_moves(struct pair *pair)
{
    return pair->moves;
}

bool pair_is_away(const struct pair *pair)
{
    return pair->away;
}

// ---- routes ----

// What an answer amounts to; `doing` says what was asked.
static int conclude(const struct pair *pair, const struct netlink_answer *answer, const char *doing,
                    struct error *err)
{
    if (answer->interrupted)
        return error_set(err, ERROR_ABORTED, "interface '%s': %s: the kernel's answer was lost",
                         pair->interface, doing);
    if (answer->error == 0)
        return 0;
    bool denied = answer->error == EPERM || answer->error == EACCES;
    return error_set(err, denied ? ERROR_PERMISSION_DENIED : ERROR_UNKNOWN,
                     "interface '%s': %s%s: %s%s%s", pair->interface, doing,
                     denied ? " needs CAP_NET_ADMIN" : "", strerror(answer->error),
                     answer->text[0] == '\0' ? "" : ": ", answer->text);
}

// Reads the routes that lead to `ifindex` into `routes`, which it empties first.
static int read_routes(struct pair *pair, uint32_t ifindex, struct routes *routes,
                       struct error *err)
{
    struct netlink_answer answer = {.interrupted = true};
    for (int i = 0; i < READ_MAX && answer.interrupted; i++) {
        routes_clear(routes);
        routes->ifindex = ifindex;
        if (netlink_talk_ask(
                pair->talk,
                route_ask_all(netlink_talk_request(pair->talk), netlink_talk_seq(pair->talk)),
                routes_read, routes, &answer, err) != 0)
            return -1;
    }
    return conclude(pair, &answer, "reading its routes", err);
}

typedef struct nlmsghdr *request(void *buffer, uint32_t seq, const struct route *route,
                                 uint32_t ifindex);

// One request about a route; that it is there already, or not there any more, is as good.
static int change(struct pair *pair, request *build, const struct route *route, uint32_t ifindex,
                  struct error *err)
{
    struct netlink_answer answer;
    if (netlink_talk_ask(
            pair->talk,
            build(netlink_talk_request(pair->talk), netlink_talk_seq(pair->talk), route, ifindex),
            NULL, NULL, &answer, err) != 0)
        return -1;
    if (!answer.interrupted && (answer.error == EEXIST || answer.error == ESRCH))
        return 0;
    return conclude(pair, &answer, "changing a route", err);
}

// A packet that has found its route and not reached the interface is dropped by the kernel when
// that route goes, replaced or not (dst_dev_put in net/core/dst.c). So, where there can be two of
// the same prefix and metric (IPv4), the one that is in use stays behind the one that is to be,
// until no packet can be on its way by it.
static bool can_be_two(const struct route *route)
{
    return route->header.rtm_family == AF_INET;
}

static int lead(struct pair *pair, const struct route *route, uint32_t ifindex, struct error *err)
{
    return change(pair, can_be_two(route) ? route_prepend : route_replace, route, ifindex, err);
}

static int lead_away(struct pair *pair, const struct route *route, struct error *err)
{
    return lead(pair, route, pair->second_ifindex, err);
}

// The first device's route, out of use behind the second's, comes before it by being made anew.
static int lead_back(struct pair *pair, const struct route *route, struct error *err)
{
    int rc = can_be_two(route) ? change(pair, route_delete, route, pair->ifindex, err) : 0;
    return lead(pair, route, pair->ifindex, rc == 0 ? err : NULL) != 0 ? -1 : rc;
}

// What went with the second device, if it did; one that is there is in use, and stays as it is.
static int make_sure(struct pair *pair, const struct route *route, struct error *err)
{
    return lead(pair, route, pair->ifindex, err);
}

static int forget_second(struct pair *pair, const struct route *route, struct error *err)
{
    return can_be_two(route) ? change(pair, route_delete, route, pair->second_ifindex, err) : 0;
}

typedef int step(struct pair *pair, const struct route *route, struct error *err);

// Does it with each of them. All are tried; -1 with `err` for the first that failed.
static int for_each(struct pair *pair, const struct routes *routes, step *do_it, struct error *err)
{
    int rc = 0;
    for (size_t i = 0; i < routes->count; i++)
        if (do_it(pair, &routes->items[i], rc == 0 ? err : NULL) != 0)
            rc = -1;
    return rc;
}

int pair_go_away(struct pair *pair, struct error *err)
{
    if (pair->away)
        return 0;
    if (read_routes(pair, pair->ifindex, &pair->routes, err) != 0)
        return -1;
    if (pair->routes.count == 0)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "interface '%s' has no routes that could lead to '%s'", pair->interface,
                         pair->second);
    if (for_each(pair, &pair->routes, lead_away, err) != 0) {
        (void)for_each(pair, &pair->routes, lead_back, NULL);
        (void)for_each(pair, &pair->routes, forget_second, NULL);
        return -1;
    }
    pair->away = true;
    (void)poll(NULL, 0, AWAY_MS);
    return 0;
}

int pair_come_back(struct pair *pair, struct error *err)
{
    struct routes there = {0};
    if (!pair->away)
        return 0;
    // Those that came to be meanwhile, too; and those that went with the second device.
    int rc = read_routes(pair, pair->second_ifindex, &there, err);
    if (rc == 0)
        rc = for_each(pair, &there, lead_back, err);
    if (for_each(pair, &pair->routes, make_sure, rc == 0 ? err : NULL) != 0)
        rc = -1;
    if (rc == 0) {
        (void)poll(NULL, 0, BACK_MS);
        rc = for_each(pair, &there, forget_second, err);
    }
    routes_clear(&there);
    if (rc != 0)
        return -1;
    pair->away = false;
    routes_clear(&pair->routes);
    return 0;
}

// ---- what it needs ----

// The value of rp_filter for that interface, or for "all"; 0 where it cannot be read.
static int rp_filter(const char *interface)
{
    char path[64];
    int value = 0;
    snprintf(path, sizeof path, "/proc/sys/net/ipv4/conf/%s/rp_filter", interface);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%d", &value) != 1)
        value = 0;
    fclose(file);
    return value;
}

static int check_filter(const char *interface, struct error *err)
{
    int all = rp_filter("all"), own = rp_filter(interface);
    if ((all > own ? all : own) != 1)
        return 0;
    return error_set(err, ERROR_FAILED_PRECONDITION,
                     "interface '%s' drops what comes in by it and is answered by another "
                     "(rp_filter is 1): a pair of interfaces needs net.ipv4.conf.all.rp_filter and "
                     "net.ipv4.conf.%s.rp_filter to be 0 or 2",
                     interface, interface);
}

static bool is_host_address(const struct ifaddrs *entry, const char *interface,
                            const union device_endpoint *own)
{
    if (strcmp(entry->ifa_name, interface) != 0 || entry->ifa_addr == NULL ||
        entry->ifa_netmask == NULL || entry->ifa_addr->sa_family != AF_INET)
        return false;
    struct sockaddr_in address, mask;
    memcpy(&address, entry->ifa_addr, sizeof address);
    memcpy(&mask, entry->ifa_netmask, sizeof mask);
    return address.sin_addr.s_addr == own->v4.sin_addr.s_addr &&
           mask.sin_addr.s_addr == INADDR_BROADCAST;
}

// What is sent by it must come from the same address.
static int check_address(const char *interface, const char *second,
                         const union device_endpoint *own, struct error *err)
{
    struct ifaddrs *all = NULL;
    bool found = false;
    if (getifaddrs(&all) != 0)
        return error_set(err, ERROR_UNAVAILABLE, "addresses of interfaces: %s", strerror(errno));
    for (const struct ifaddrs *entry = all; entry != NULL && !found; entry = entry->ifa_next)
        found = is_host_address(entry, second, own);
    freeifaddrs(all);
    if (found)
        return 0;
    return error_set(err, ERROR_FAILED_PRECONDITION,
                     "interface '%s' needs the move-address of '%s' as its own, with /32", second,
                     interface);
}

// ---- life ----

void pair_close(struct pair *pair)
{
    if (pair == NULL)
        return;
    moves_close(pair->moves);
    device_close(pair->device);
    netlink_talk_close(pair->talk);
    routes_clear(&pair->routes);
    free(pair);
}

static int open_parts(struct pair *pair, enum device_backend backend,
                      const union device_endpoint *own, struct error *err)
{
    pair->ifindex = if_nametoindex(pair->interface);
    pair->second_ifindex = if_nametoindex(pair->second);
    if (pair->ifindex == 0 || pair->second_ifindex == 0)
        return error_set(err, ERROR_NOT_FOUND, "there is no interface '%s'",
                         pair->ifindex == 0 ? pair->interface : pair->second);
    if (check_filter(pair->interface, err) != 0 || check_filter(pair->second, err) != 0 ||
        check_address(pair->interface, pair->second, own, err) != 0 ||
        device_open(&pair->device, pair->second, backend, err) != 0 ||
        moves_open(&pair->moves, pair->second, own, err) != 0 ||
        netlink_talk_open(&pair->talk, NETLINK_ROUTE, ROUTE_REQUEST_SIZE, err) != 0 ||
        read_routes(pair, pair->second_ifindex, &pair->routes, err) != 0)
        return -1;
    pair->away = pair->routes.count > 0;
    return 0;
}

int pair_open(struct pair **out, const char *interface, const char *second,
              enum device_backend backend, const union device_endpoint *own, struct error *err)
{
    struct pair *pair = calloc(1, sizeof *pair);
    if (pair == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "interface '%s': out of memory", second);
    snprintf(pair->interface, sizeof pair->interface, "%s", interface);
    snprintf(pair->second, sizeof pair->second, "%s", second);
    if (open_parts(pair, backend, own, err) != 0) {
        pair_close(pair);
        return -1;
    }
    *out = pair;
    return 0;
}
