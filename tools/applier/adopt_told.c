// SPDX-License-Identifier: Apache-2.0
// Names what is left of the plaintext key, and shows configurations without one.
#include "adopt_told.h"

#include <inttypes.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>

#include "old_config.h"

static const char *const netdevs[] = {"/etc/systemd/network/*.netdev",
                                      "/run/systemd/network/*.netdev",
                                      "/usr/lib/systemd/network/*.netdev"};

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

static void show_wg_quick(const char *interface)
{
    printf("wg-quick, /etc/wireguard/%s.conf: Address, ListenPort and so on stay, and no "
           "PrivateKey:\n"
           "  [Interface]\n"
           "  PostUp = custody-applier up %%i\n",
           interface);
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
        show_wg_quick(setup->name);
    if (networkd || !quick)
        show_networkd(setup->name);
}
