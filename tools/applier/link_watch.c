// SPDX-License-Identifier: Apache-2.0
// Watches links by rtnetlink and the folder of userspace daemons' sockets by inotify.
#include "link_watch.h"

#include <errno.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <unistd.h>

#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include "device.h"
#include "netlink.h"

#define WATCH_PARENT "/var/run"
#define WATCH_FOLDER "/var/run/wireguard"
#define WATCH_SUFFIX ".sock"

struct link_watch {
    struct mnl_socket *links;
    int sockets; // inotify
    int folder;  // its watch on WATCH_FOLDER, or -1 while there is none
};

// The folder is made by the first userspace daemon, and may go and come: its parent is watched all
// along.
static void watch_folder(struct link_watch *watch)
{
    watch->folder =
        inotify_add_watch(watch->sockets, WATCH_FOLDER,
                          IN_CREATE | IN_DELETE | IN_MOVED_TO | IN_MOVED_FROM | IN_ONLYDIR);
}

int link_watch_open(struct link_watch **out, struct error *err)
{
    struct link_watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "link watch: out of memory");
    watch->sockets = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (watch->sockets < 0 ||
        inotify_add_watch(watch->sockets, WATCH_PARENT, IN_CREATE | IN_MOVED_TO | IN_ONLYDIR) < 0) {
        error_set(err, ERROR_UNAVAILABLE, "inotify on " WATCH_PARENT ": %s", strerror(errno));
        goto fail;
    }
    watch_folder(watch);
    watch->links = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (watch->links == NULL ||
        mnl_socket_bind(watch->links, RTMGRP_LINK, MNL_SOCKET_AUTOPID) != 0) {
        error_set(err, ERROR_UNAVAILABLE, "netlink socket for links: %s", strerror(errno));
        goto fail;
    }
    *out = watch;
    return 0;
fail:
    link_watch_close(watch);
    return -1;
}

void link_watch_close(struct link_watch *watch)
{
    if (watch == NULL)
        return;
    if (watch->links != NULL)
        mnl_socket_close(watch->links);
    if (watch->sockets >= 0)
        close(watch->sockets);
    free(watch);
}

void link_watch_fds(const struct link_watch *watch, struct pollfd fds[LINK_WATCH_FDS])
{
    fds[0] = (struct pollfd){.fd = mnl_socket_get_fd(watch->links), .events = POLLIN};
    fds[1] = (struct pollfd){.fd = watch->sockets, .events = POLLIN};
}

// The name in a link's message, or NULL.
static const char *link_name(const struct nlmsghdr *message)
{
    const struct nlattr *attr;
    mnl_attr_for_each(attr, message, sizeof(struct ifinfomsg))
    {
        if (mnl_attr_get_type(attr) == IFLA_IFNAME &&
            mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) == 0)
            return mnl_attr_get_str(attr);
    }
    return NULL;
}

// A link that was set up may have been configured anew just before: `wg setconf` itself is told to
// nobody, and wg-quick(8) sets up after it.
static bool is_gone_or_up(const struct nlmsghdr *message, const struct ifinfomsg *link)
{
    return message->nlmsg_type == RTM_DELLINK ||
           (message->nlmsg_type == RTM_NEWLINK && link->ifi_flags & link->ifi_change & IFF_UP);
}

static void tell_links(const void *datagram, int length, link_watch_changed *changed, void *context)
{
    for (const struct nlmsghdr *message = datagram; netlink_fits(message, length);
         message = mnl_nlmsg_next(message, &length)) {
        const struct ifinfomsg *link = mnl_nlmsg_get_payload(message);
        const char *name;
        // A port leaving a bridge is told as a link deleted too, in the bridge's family.
        if (mnl_nlmsg_get_payload_len(message) >= sizeof *link && link->ifi_family == AF_UNSPEC &&
            is_gone_or_up(message, link) && (name = link_name(message)) != NULL)
            changed(name, context);
    }
}

static int drain_links(struct link_watch *watch, link_watch_changed *changed, void *context,
                       struct error *err)
{
    _Alignas(struct nlmsghdr) char datagram[16384];
    for (;;) {
        ssize_t length = mnl_socket_recvfrom(watch->links, datagram, sizeof datagram);
        if (length > 0)
            tell_links(datagram, (int)length, changed, context);
        else if (length < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return 0;
        else if (length < 0 && errno != EINTR && errno != ENOBUFS && errno != ENOSPC)
            return error_set(err, ERROR_UNAVAILABLE, "netlink socket for links: %s",
                             strerror(errno));
    }
}

static void tell_socket_gone(const struct inotify_event *event, link_watch_changed *changed,
                             void *context)
{
    char interface[DEVICE_NAME_MAX + 1];
    size_t length = event->len == 0 ? 0 : strlen(event->name), suffix = strlen(WATCH_SUFFIX);
    if (length <= suffix || length - suffix > DEVICE_NAME_MAX ||
        strcmp(event->name + length - suffix, WATCH_SUFFIX) != 0)
        return;
    snprintf(interface, sizeof interface, "%.*s", (int)(length - suffix), event->name);
    changed(interface, context);
}

static int drain_sockets(struct link_watch *watch, link_watch_changed *changed, void *context,
                         struct error *err)
{
    _Alignas(struct inotify_event) char events[16384];
    for (;;) {
        ssize_t length = read(watch->sockets, events, sizeof events);
        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0 && errno == EAGAIN)
            return 0;
        if (length <= 0)
            return error_set(err, ERROR_UNAVAILABLE, "inotify: %s", strerror(errno));
        for (const char *at = events; at < events + length;) {
            const struct inotify_event *event = (const void *)at;
            if (event->wd == watch->folder && event->mask & (IN_DELETE | IN_MOVED_FROM))
                tell_socket_gone(event, changed, context);
            at += sizeof *event + event->len;
        }
    }
}

int link_watch_drain(struct link_watch *watch, link_watch_changed *changed, void *context,
                     struct error *err)
{
    if (drain_links(watch, changed, context, err) != 0 ||
        drain_sockets(watch, changed, context, err) != 0)
        return -1;
    watch_folder(watch); // the same watch again, or one on a folder made meanwhile
    return 0;
}
