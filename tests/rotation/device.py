# SPDX-License-Identifier: Apache-2.0
"""The laboratory's own hands on WireGuard devices and on sch_plug, without starting a program: in an emulated guest that
takes a tenth of a second each, a hundred times what the request takes.

Kernel.set and Userspace.set change a device in one request; .peers() says what it has. Keys are base64 here.
"""

import base64
import ctypes
import dataclasses
import errno
import fcntl
import ipaddress
import os
import socket
import struct
import threading

import nacl.public
from nacl.encoding import Base64Encoder

CLONE_NEWNET = 0x40000000
SIOCGIFINDEX = 0x8933
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 1, 4, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF
GENL_CONTROLLER, GET_FAMILY, FAMILY_ID, FAMILY_NAME = 16, 3, 1, 2
# <linux/wireguard.h>
GET_DEVICE, SET_DEVICE = 0, 1
DEVICE_NAME, DEVICE_PRIVATE_KEY, DEVICE_PUBLIC_KEY, DEVICE_PORT, DEVICE_PEERS = 2, 3, 4, 6, 8
PEER_PUBLIC_KEY, PEER_FLAGS, PEER_ENDPOINT, PEER_KEEPALIVE, PEER_HANDSHAKE, PEER_ALLOWED_IPS = 1, 3, 4, 5, 6, 9
PEER_REMOVE = 1
ALLOWED_FAMILY, ALLOWED_ADDRESS, ALLOWED_MASK = 1, 2, 3
# <linux/rtnetlink.h>, <linux/pkt_sched.h>
RTM_NEWQDISC, TC_ROOT, TCA_KIND, TCA_OPTIONS = 36, 0xFFFFFFFF, 1, 2
PLUG_BUFFER, PLUG_RELEASE_INDEFINITE = 0, 2


@dataclasses.dataclass
class Peer:
    """A peer as it is to be, None where it stays as it is, or as it is."""

    public: str
    endpoint: str | None = None  # "ADDRESS:PORT"
    allowed_ips: list | None = None  # "ADDRESS/BITS", IPv4; `set` adds them, and so takes them from another peer
    keepalive: int | None = None  # seconds, 0 = none
    remove: bool = False
    handshake: int = 0  # seconds since 1970, 0 = never; only from peers()


def in_namespace(netns, make):
    """What make() returns when called in the namespace, by a thread that ends there: sockets stay in it."""
    result = []

    def enter():
        with open(f"/run/netns/{netns}", "rb") as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET) != 0:
                result.append(OSError(ctypes.get_errno(), f"setns {netns}"))
                return
        result.append(make())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if isinstance(result[0], Exception):
        raise result[0]
    return result[0]


def attribute(kind, *parts):
    payload = b"".join(parts)
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def attributes(data):
    """-> [(kind, payload)]"""
    found = []
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        found.append((kind & NLA_TYPE_MASK, data[4:length]))
        data = data[(length + 3) & ~3:]
    return found


class Netlink:
    """A netlink socket in a namespace."""

    def __init__(self, netns, protocol):
        self.socket = in_namespace(netns, lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol))
        self.socket.settimeout(60)
        self.serial = 0

    def ask(self, kind, flags, body):
        """Sends a request -> the bodies of the answers. OSError when the kernel refuses."""
        self.serial += 1
        self.socket.send(struct.pack("=IHHII", 16 + len(body), kind, NLM_F_REQUEST | flags, self.serial, 0) + body)
        bodies = []
        while True:
            data = self.socket.recv(1 << 20)
            while data:
                length, answer, _, _, _ = struct.unpack_from("=IHHII", data)
                if answer in (NLMSG_ERROR, NLMSG_DONE):
                    code = -struct.unpack_from("=i", data, 16)[0]
                    if code:
                        raise OSError(code, os.strerror(code))
                    return bodies
                bodies.append(data[16:length])
                data = data[(length + 3) & ~3:]

    def close(self):
        self.socket.close()


class Kernel:
    """A device of the kernel's, by generic netlink."""

    def __init__(self, netns, interface):
        self.interface = interface
        self.netlink = Netlink(netns, 16)
        self.route = Netlink(netns, 0)
        self.plain = in_namespace(netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        header = struct.pack("=BBH", GET_FAMILY, 1, 0)
        answer = self.netlink.ask(GENL_CONTROLLER, NLM_F_ACK, header + attribute(FAMILY_NAME, b"wireguard\0"))
        self.family = struct.unpack("=H", dict(attributes(answer[0][4:]))[FAMILY_ID])[0]

    def close(self):
        for each in (self.netlink, self.route, self.plain):
            each.close()

    def _ask(self, command, flags, *parts):
        name = attribute(DEVICE_NAME, self.interface.encode() + b"\0")
        return self.netlink.ask(self.family, flags, struct.pack("=BBH", command, 1, 0) + name + b"".join(parts))

    def set(self, *peers, private=None, port=None):
        parts = [attribute(DEVICE_PRIVATE_KEY, base64.b64decode(private))] if private else []
        if port is not None:
            parts.append(attribute(DEVICE_PORT, struct.pack("=H", port)))
        if peers:
            parts.append(attribute(DEVICE_PEERS | NLA_F_NESTED, *(self._encode(peer) for peer in peers)))
        self._ask(SET_DEVICE, NLM_F_ACK, *parts)

    @staticmethod
    def _encode(peer):
        parts = [attribute(PEER_PUBLIC_KEY, base64.b64decode(peer.public))]
        if peer.remove:
            parts.append(attribute(PEER_FLAGS, struct.pack("=I", PEER_REMOVE)))
        if peer.endpoint:
            address, port = peer.endpoint.rsplit(":", 1)
            parts.append(attribute(PEER_ENDPOINT, struct.pack("=H", socket.AF_INET), struct.pack("!H", int(port)),
                                   socket.inet_aton(address), bytes(8)))
        if peer.keepalive is not None:
            parts.append(attribute(PEER_KEEPALIVE, struct.pack("=H", peer.keepalive)))
        if peer.allowed_ips:
            networks = [ipaddress.ip_network(text) for text in peer.allowed_ips]
            parts.append(attribute(PEER_ALLOWED_IPS | NLA_F_NESTED, *(
                attribute(NLA_F_NESTED, attribute(ALLOWED_FAMILY, struct.pack("=H", socket.AF_INET)),
                          attribute(ALLOWED_ADDRESS, network.network_address.packed),
                          attribute(ALLOWED_MASK, struct.pack("=B", network.prefixlen))) for network in networks)))
        return attribute(NLA_F_NESTED, *parts)

    def public_key(self):
        """None without a key."""
        public = dict(attributes(self._ask(GET_DEVICE, NLM_F_DUMP)[0][4:])).get(DEVICE_PUBLIC_KEY)
        return public and base64.b64encode(public).decode()

    def peers(self):
        """{public key: Peer}"""
        found = {}
        for body in self._ask(GET_DEVICE, NLM_F_DUMP):
            for kind, payload in attributes(body[4:]):
                for _, one in attributes(payload) if kind == DEVICE_PEERS else ():
                    peer = self._decode(dict(attributes(one)))
                    # A peer with many allowed-ips goes on in the next message.
                    known = found.setdefault(peer.public, peer)
                    known.allowed_ips += peer.allowed_ips if known is not peer else []
        return found

    @staticmethod
    def _decode(given):
        peer = Peer(base64.b64encode(given[PEER_PUBLIC_KEY]).decode(), allowed_ips=[])
        peer.handshake = struct.unpack_from("=q", given.get(PEER_HANDSHAKE, bytes(8)))[0]
        endpoint = given.get(PEER_ENDPOINT)
        if endpoint and struct.unpack_from("=H", endpoint)[0] == socket.AF_INET:
            peer.endpoint = f"{socket.inet_ntoa(endpoint[4:8])}:{struct.unpack_from('!H', endpoint, 2)[0]}"
        for _, one in attributes(given.get(PEER_ALLOWED_IPS, b"")):
            parts = dict(attributes(one))
            peer.allowed_ips.append(f"{ipaddress.ip_address(parts[ALLOWED_ADDRESS])}/{parts[ALLOWED_MASK][0]}")
        return peer

    def plug(self, action):
        """Tells the sch_plug that is the device's root qdisc to hold or to let go."""
        answer = fcntl.ioctl(self.plain, SIOCGIFINDEX, struct.pack("16s24x", self.interface.encode()))
        index = struct.unpack_from("=i", answer, 16)[0]
        body = struct.pack("=BxxxiIII", 0, index, 0, TC_ROOT, 0)
        options = struct.pack("=iI", action, 0)
        self.route.ask(RTM_NEWQDISC, NLM_F_ACK, body + attribute(TCA_KIND, b"plug\0") + attribute(TCA_OPTIONS, options))


class Userspace:
    """A device of wireguard-go's, by its socket."""

    def __init__(self, path):
        self.path = str(path)

    def close(self):
        pass

    def _ask(self, request):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(60)
            s.connect(self.path)
            s.sendall(request.encode() + b"\n")
            answer = b""
            while not answer.endswith(b"\n\n"):
                piece = s.recv(65536)
                if not piece:
                    raise OSError(errno.EPIPE, f"{self.path}: it closed before its answer's end")
                answer += piece
        pairs = [line.split("=", 1) for line in answer.decode().split()]
        if pairs[-1] != ["errno", "0"]:
            raise OSError(int(pairs[-1][1]), f"{self.path}: {pairs[-1]}")
        return pairs[:-1]

    def set(self, *peers, private=None, port=None):
        lines = ["set=1"] + ([f"listen_port={port}"] if port is not None else [])
        if private:
            lines.append("private_key=" + base64.b64decode(private).hex())
        for peer in peers:
            lines.append("public_key=" + base64.b64decode(peer.public).hex())
            lines += ["remove=true"] if peer.remove else []
            lines += [f"endpoint={peer.endpoint}"] if peer.endpoint else []
            lines += [f"persistent_keepalive_interval={peer.keepalive}"] if peer.keepalive is not None else []
            lines += [f"allowed_ip={text}" for text in peer.allowed_ips or ()]
        self._ask("\n".join(lines) + "\n")

    def public_key(self):
        """None without a key."""
        private = dict(self._ask("get=1\n")).get("private_key")
        return private and nacl.public.PrivateKey(bytes.fromhex(private)).public_key.encode(Base64Encoder).decode()

    def peers(self):
        """{public key: Peer}"""
        found, peer = {}, None
        for name, value in self._ask("get=1\n"):
            if name == "public_key":
                peer = Peer(base64.b64encode(bytes.fromhex(value)).decode(), allowed_ips=[])
                found[peer.public] = peer
            elif name == "endpoint":
                peer.endpoint = value
            elif name == "allowed_ip":
                peer.allowed_ips.append(value)
            elif name == "last_handshake_time_sec":
                peer.handshake = int(value)
        return found
