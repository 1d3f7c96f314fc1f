"""Addresses as text (`ip:port`, `[ip]:port`) and as the bytes and the port that messages carry."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from raftlog.serf.codec.errors import BadPacket
from raftlog.serf.messages import Address

BROADCAST: Final = IPv4Address("255.255.255.255")
REMEMBERED: Final = 4096  # conversions; members are few and come again, and the rest costs 3 µs each


@lru_cache(REMEMBERED)
def to_wire(address: Address) -> tuple[bytes, int]:
    """The IP, 4 or 16 bytes, and the port. ValueError if the text is no `ip:port`."""
    host, colon, port_text = address.rpartition(":")
    if not colon or not (port_text.isascii() and port_text.isdecimal()) or not 0 < int(port_text) < 1 << 16:
        raise ValueError(f"address {address!r}: expected ip:port with a port from 1 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    ip = ip_address(host)
    if isinstance(ip, IPv6Address) and ip.scope_id is not None:
        raise ValueError(f"address {address!r}: a zone has no place in a message")
    return ip.packed, int(port_text)


@lru_cache(REMEMBERED)
def from_wire(ip: bytes, port: int) -> Address:
    """The text. An IPv4 address mapped into IPv6, as Go has them, becomes IPv4 again.

    BadPacket if there are neither 4 nor 16 bytes, if it is not the address of one host, or if there is no port:
    memberlist's protocol 1, which sent none, is not spoken.
    """
    if port == 0:
        raise BadPacket("address: expected a port, found 0")
    if len(ip) not in (4, 16):
        raise BadPacket(f"address: expected 4 or 16 bytes, found {len(ip)}")
    host = ip_address(ip)
    if isinstance(host, IPv6Address) and host.ipv4_mapped is not None:
        host = host.ipv4_mapped
    # One small packet would be answered by many.
    if host.is_multicast or host.is_unspecified or host == BROADCAST:
        raise BadPacket("address: expected one host's, found that of many or of none")
    return Address(f"{host}:{port}" if isinstance(host, IPv4Address) else f"[{host}]:{port}")
