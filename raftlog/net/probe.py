"""Whether a server can be reached, and why not: what gRPC tells only after many attempts, and not in one line."""

from __future__ import annotations

import socket
import ssl
from typing import Final

from raftlog.errors import ConfigError, RaftlogError
from raftlog.net.addresses import split_address
from raftlog.net.tls import TlsFiles

CONNECT_S_MAX: Final = 5.0
HTTP2_HELLO: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # RFC 9113, 3.4


class Unreachable(RaftlogError):
    """There is no server at the address, or it and the caller do not accept each other's certificates."""


def require_server(address: str, tls: TlsFiles | None, *, tls_name: str = "") -> None:
    """Connect once, up to the server's first byte; Unreachable says why that fails, ConfigError that it cannot work.

    `tls` is known to be readable. `tls_name`: what the server's certificate must be for; "": the host of the address.
    """
    try:
        host, port = split_address(address)
    except ValueError as error:
        raise ConfigError([f"--addr {address}: not host:port, as in localhost:8400"]) from error
    try:
        with socket.create_connection((host, port), CONNECT_S_MAX) as connection:
            if tls is None:
                _greet(connection, "it wants TLS: give a certificate")
            else:
                _shake_hands(connection, tls_name or host, tls)
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(f"{address}: its certificate is not trusted: {error.verify_message}") from error
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).lower().replace("_", " ")
        raise Unreachable(f"{address}: no TLS connection: {reason}") from error
    except OSError as error:
        raise Unreachable(f"{address}: {error.strerror or error}") from error


def _greet(stream: socket.socket, silence: str) -> None:
    """Say hello in HTTP/2 and wait for the first byte; Unreachable with the text `silence` if there is none."""
    stream.sendall(HTTP2_HELLO)
    try:
        first = stream.recv(1)
    except ConnectionResetError:
        first = b""
    if not first:
        raise Unreachable(f"the server ended the connection: {silence}")


def _shake_hands(connection: socket.socket, host: str, tls: TlsFiles) -> None:
    context = ssl.create_default_context(cafile=tls.ca_file)
    context.load_cert_chain(tls.cert_file, tls.key_file)
    context.set_alpn_protocols(["h2"])
    with context.wrap_socket(connection, server_hostname=host) as stream:
        _greet(stream, "it does not accept this client's certificate, or is no raftlog server")
