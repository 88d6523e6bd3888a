// SPDX-License-Identifier: Apache-2.0
// Names what is left of the plaintext key, and shows configurations without one.
#include "adopt_told.h"

#include <glob.h>
#include <ifaddrs.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "old_config.h"

static const char *const netdevs[] = {"/etc/systemd/network/*.netdev",
                                      "/run/systemd/network/*.netdev",
                                      "/usr/lib/systemd/network/*.netdev"};

// ---- what was ----

static void tell(void *context, const char *file, unsigned first, unsigned last, const char *what)
{
    (void)context;
    if (first == last)
        printf("  %s:%u: %s\n", file, first, what);
    else
        printf("  %s:%u-%u: %s\n", file, first, last, what);
}

static void complain(const struct error *err)
{
    fprintf(stderr, "custody-applier: %s\n", err->message);
}

static bool tell_wg_quick(const struct setup_interface *setup)
{
    char path[64];
    struct error err;
    snprintf(path, sizeof path, "/etc/wireguard/%s.conf", setup->name);
    int rc = old_config_wg_quick(path, setup, tell, NULL, &err);
    if (rc < 0)
        complain(&err);
    return rc > 0;
}

static bool tell_networkd(const struct setup_interface *setup)
{
    bool any = false;
    struct error err;
    for (size_t i = 0; i < sizeof netdevs / sizeof netdevs[0]; i++) {
        glob_t found;
        if (glob(netdevs[i], 0, NULL, &found) != 0)
            continue;
        for (size_t j = 0; j < found.gl_pathc; j++) {
            int rc = old_config_netdev(found.gl_pathv[j], setup, tell, NULL, &err);
            if (rc < 0)
                complain(&err);
            any = any || rc > 0;
        }
        globfree(&found);
    }
    return any;
}

// ---- routes ----

static const uint8_t *address_bytes(const struct sockaddr *address)
{
    return address->sa_family == AF_INET
               ? (const uint8_t *)&((const struct sockaddr_in *)(const void *)address)->sin_addr
               : (const uint8_t *)&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
}

// Whether the prefix is in the network of an address of the interface: the kernel has a route then.
static bool is_within(const struct setup_prefix *prefix, const struct ifaddrs *each)
{
    size_t length = prefix->address.family == AF_INET6 ? 16 : 4;
    unsigned bits = 0;
    if (each->ifa_addr == NULL || each->ifa_netmask == NULL ||
        each->ifa_addr->sa_family != prefix->address.family)
        return false;
    const uint8_t *address = address_bytes(each->ifa_addr),
                  *mask = address_bytes(each->ifa_netmask);
    for (size_t i = 0; i < length; i++) {
        bits += (unsigned)__builtin_popcount(mask[i]);
        if ((address[i] & mask[i]) != (prefix->address.bytes[i] & mask[i]))
            return false;
    }
    return prefix->bits >= bits;
}

static bool has_route(const char *interface, const struct setup_prefix *prefix,
                      const struct ifaddrs *addresses)
{
    for (const struct ifaddrs *each = addresses; each != NULL; each = each->ifa_next)
        if (strcmp(each->ifa_name, interface) == 0 && is_within(prefix, each))
            return true;
    return false;
}

// As wg-quick does it: all goes into the tunnel but what WireGuard itself sends, and what there are
// narrower routes for.
static void show_default_route(const struct setup_prefix *prefix)
{
    bool v4 = prefix->address.family == AF_INET;
    const char *ip = v4 ? "ip -4" : "ip -6";
    printf("  PostUp = wg set %%i fwmark 51820\n"
           "  PostUp = %s route replace %s/0 dev %%i table 51820\n"
           "  PostUp = %s rule add not fwmark 51820 table 51820 || true\n"
           "  PostUp = %s rule add table main suppress_prefixlength 0 || true\n",
           ip, prefix->address.text, ip, ip);
    if (v4)
        printf("  PostUp = sysctl -q net.ipv4.conf.all.src_valid_mark=1\n");
}

// wg-quick makes routes for the peers that it sees. In its file there are none any more, and on the
// interface only where custody was faster: so what it has made is no failure.
static void show_routes(const struct setup_interface *setup)
{
    struct ifaddrs *addresses = NULL;
    if (getifaddrs(&addresses) != 0)
        addresses = NULL; // then a route too many is shown
    for (size_t i = 0; i < setup->peer_count; i++)
        for (size_t j = 0; j < setup->peers[i].allowed_ip_count; j++) {
            const struct setup_prefix *prefix = &setup->peers[i].allowed_ips[j];
            if (prefix->bits == 0)
                show_default_route(prefix);
            else if (!has_route(setup->name, prefix, addresses))
                printf("  PostUp = ip route replace %s/%u dev %%i\n", prefix->address.text,
                       (unsigned)prefix->bits);
        }
    freeifaddrs(addresses);
}

// ---- what is to be ----

static void show_wg_quick(const struct setup_interface *setup)
{
    printf("wg-quick, /etc/wireguard/%s.conf: Address, ListenPort and so on stay, and no "
           "PrivateKey:\n"
           "  [Interface]\n"
           "  PostUp = custody-applier up %%i || true\n",
           setup->name);
    show_routes(setup);
}

// systemd-networkd makes no WireGuard device of a .netdev without a private key: so another makes
// it.
static void show_networkd(const char *interface)
{
    printf("systemd-networkd: it ignores a .netdev of WireGuard's without a private key, so take "
           "the .netdev out,\nkeep the .network (addresses, routes), and let a unit make the "
           "device, /etc/systemd/system/wireguard-%s.service:\n"
           "  [Unit]\n"
           "  Before=systemd-networkd.service custody-applier.service\n"
           "  [Service]\n"
           "  Type=oneshot\n"
           "  RemainAfterExit=yes\n"
           "  ExecStart=ip link add dev %s type wireguard\n"
           "  ExecStart=wg set %s listen-port PORT\n"
           "  ExecStart=custody-applier up %s\n"
           "  [Install]\n"
           "  WantedBy=multi-user.target\n",
           interface, interface, interface, interface);
}

void adopt_tell_done(const struct setup_interface *setup, const struct custody_view *view)
{
    bool waits = false;
    for (size_t i = 0; i < view->generation_count; i++)
        if (view->generations[i].imported) {
            waits = true;
            printf("%s: its old key, generation %" PRIu64 ", is off the interface and is "
                   "destroyed in the token after the grace period\n",
                   setup->name, view->generations[i].generation);
        }
    printf("%s: adopted%s. What still holds the old private key, or peers that custody keeps:\n",
           setup->name, waits ? "" : ", and its old key destroyed in the token");
    bool quick = tell_wg_quick(setup), networkd = tell_networkd(setup);
    if (!quick && !networkd)
        printf("  (neither /etc/wireguard/%s.conf nor a .netdev of that name is there)\n",
               setup->name);
    if (quick || !networkd)
        show_wg_quick(setup);
    if (networkd || !quick)
        show_networkd(setup->name);
}
