"""The two sockets of the gossip, on one port, and the address that others are told."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from typing import Final, NamedTuple

from raftlog.errors import ConfigError, ListenError
from raftlog.net.addresses import (
    address_towards_others,
    host_and_port,
    is_loopback,
    is_wildcard,
    split_address,
)
from raftlog.serf.messages import Address

log = logging.getLogger(__name__)

SETTING: Final = "bind-addr"
RECEIVE_BUFFER_BYTES: Final = 2 * 1024 * 1024  # of packets that wait in the system; it may give less
BACKLOG: Final = 128  # streams that the system keeps until they are accepted
FREE_PORT_TRIES: Final = 32  # a port that is free for TCP may be taken for UDP
MAPPED: Final = "::ffff:"  # an IPv4 address, as a socket of IPv6 has it


class Sockets(NamedTuple):
    packets: socket.socket
    streams: socket.socket

    def close(self) -> None:
        self.packets.close()
        self.streams.close()


def bind(bind_addr: str) -> Sockets:
    """Both on this host:port; port 0 is any that is free for both. ListenError."""
    try:
        host, port = split_address(bind_addr)
    except ValueError as error:
        raise ListenError(SETTING, bind_addr, str(error)) from error
    for tries_left in reversed(range(FREE_PORT_TRIES)):
        streams = _bound(bind_addr, host, port, socket.SOCK_STREAM)
        try:
            packets = _bound(bind_addr, host, streams.getsockname()[1], socket.SOCK_DGRAM)
        except ListenError as error:
            streams.close()
            is_taken = isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE
            if port != 0 or not is_taken or not tries_left:
                raise
            continue
        streams.listen(BACKLOG)
        packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        return Sockets(packets, streams)
    raise AssertionError("the last try returns or raises")


def _bound(bind_addr: str, host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    try:
        family, _, protocol, _, address = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_PASSIVE)[
            0
        ]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setblocking(False)
            if kind == socket.SOCK_STREAM:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            bound.bind(address)
        except BaseException:
            bound.close()
            raise
    except OSError as error:
        raise ListenError(SETTING, bind_addr, error.strerror or str(error)) from error
    return bound


async def advertised(sockets: Sockets, advertise_addr: str | None) -> Address:
    """The ip:port that others are told: `advertise_addr`, its name looked up, its port 0 filled in; None: what is
    bound, or, if that is every interface, the address where this machine's packets leave it. ConfigError if nobody
    could reach it, or the name is not known.
    """
    host, port = sockets.packets.getsockname()[:2]
    if advertise_addr is None and is_wildcard(host):
        host = address_towards_others()
        if is_loopback(host):
            log.warning(
                "others are told to gossip to a loopback address: set advertise-addr address=%s", host
            )
    wanted = advertise_addr or host_and_port(host, port)
    try:
        found = await resolve(wanted)
    except (OSError, ValueError) as error:
        raise ConfigError([f"advertise-addr: {wanted}: no address of that name: {error}"]) from error
    hosts = dict(map(split_address, found))
    reachable = [one for one in hosts if not is_wildcard(one)]
    if not reachable:
        raise ConfigError([f"advertise-addr: {wanted}: others do not reach {found[0]}; give what they do"])
    return Address(host_and_port(reachable[0], hosts[reachable[0]] or port))


async def resolve(address: str) -> tuple[Address, ...]:
    """Every ip:port behind host:port, as the system knows it now; OSError, or ValueError if it is not host:port."""
    host, port = split_address(address)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # of a name that cannot be one
        raise ValueError(f"{host!r} is not a host") from error
    return tuple(dict.fromkeys(address_of((str(entry[4][0]), int(entry[4][1]))) for entry in found))


def address_of(name: tuple[str | int, ...]) -> Address:
    """Of what sockets call an address; one of IPv4 that came by a socket of IPv6 is one of IPv4."""
    host = str(name[0])
    if host.startswith(MAPPED) and "." in host:
        host = host[len(MAPPED) :]
    return Address(host_and_port(host, int(name[1])))


def name_of(address: Address, family: int) -> tuple[str, int]:
    """What a socket of this family calls it; ValueError."""
    host, port = split_address(address)
    if family == socket.AF_INET6 and ":" not in host:
        host = MAPPED + host
    return host, port
