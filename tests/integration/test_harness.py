# SPDX-License-Identifier: Apache-2.0
"""The harness itself: a tunnel with keys made by wg carries a ping, and leaves nothing behind."""

import subprocess

from tunnel import UAPI, Tunnel, ip


def keypair():
    private = subprocess.run(["wg", "genkey"], capture_output=True, text=True, check=True).stdout
    public = subprocess.run(["wg", "pubkey"], input=private, capture_output=True, text=True, check=True).stdout
    return private, public.strip()


def test_tunnel_pings_only_with_the_right_keys(tunnel, tmp_path):
    keys = [keypair(), keypair()]
    for end, (private, _) in zip(tunnel.ends, keys):
        file = tmp_path / end.interface
        file.write_text(private)
        end.wg("set", end.interface, "private-key", file)
    tunnel.connect(keys[0][1], keypair()[1])
    assert not tunnel.ping(count=1, deadline=2)
    tunnel.a.wg("set", tunnel.a.interface, "peer", tunnel.a.wg("show", tunnel.a.interface, "peers"), "remove")
    tunnel.connect(keys[0][1], keys[1][1])
    assert tunnel.ping()
    assert tunnel.a.latest_handshake() > 0


def test_tunnel_leaves_nothing_behind(tunnel, tmp_path):
    with Tunnel(tmp_path) as t:
        names = [end.netns for end in t.ends]
        sockets = [UAPI / f"{end.interface}.sock" for end in t.ends]
        listed = ip("netns", "list").stdout
        assert all(name in listed for name in names)
    listed = ip("netns", "list").stdout
    assert not any(name in listed for name in names)
    assert not any(path.exists() for path in sockets)
    assert tunnel.a.netns in listed
