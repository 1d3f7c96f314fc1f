"""Addresses: how they are written, and what the system says about them."""

from __future__ import annotations

import re
import socket
from ipaddress import ip_address
from typing import Final

_PORT: Final = re.compile(r"\d{1,5}", re.ASCII)
PORT_MAX: Final = 65_535


def host_and_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(address: str) -> tuple[str, int]:
    """(host, port) of host:port or [ipv6]:port; ValueError if it is neither."""
    host, _, port = address.rpartition(":")
    if not host:
        example = (
            "; for every interface write 0.0.0.0:8401 or [::]:8401"
            if address[:1] == ":"
            else ", as in localhost:8400"
        )
        raise ValueError(f"not host:port{example}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 address goes into brackets: [::1]:8401")
    if not _PORT.fullmatch(port) or int(port) > PORT_MAX:
        raise ValueError(f"port {port!r} is not a number up to {PORT_MAX}")
    return host, int(port)


def is_wildcard(host: str) -> bool:
    """Whether it stands for every interface, so that nobody can connect to it."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address_towards_others() -> str:
    """The IP address that this machine has where its packets leave it; a loopback one if it is connected to nothing."""
    # Addresses of nobody: RFC 5737, RFC 3849
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as one:
                one.connect((far, 9))  # chooses the interface, and sends nothing
                return str(one.getsockname()[0])
        except OSError:
            continue
    return "127.0.0.1"


def why_not_listen(host: str, port: int) -> str | None:
    """Why nobody can listen there now, in the system's words, which gRPC keeps to itself; None if one can."""
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
    except OSError as error:
        return error.strerror or str(error)
    return None
