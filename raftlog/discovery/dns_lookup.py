"""Servers as DNS names them: one look-up of one name.

A name with a port is looked up as A and AAAA: every address is a server, whose name DNS does not say. A name without
one is looked up as SRV: every target is a server at the record's port; the first label of the target is taken for the
server's name, which for the pods of a StatefulSet it is.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from ipaddress import ip_address
from typing import Final, NamedTuple

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver

from raftlog.discovery.errors import LookupFailed
from raftlog.net.addresses import host_and_port

LOOKUP_S: Final = 3.0  # for all servers that resolv.conf names


class Found(NamedTuple):
    servers: list[tuple[str, str]]  # (name, address) of each; "" for a name that DNS does not say
    ttl_s: float | None  # for so long it may be kept; None: for ever


async def look_up(
    name: str, port: int | None, *, resolver: dns.asyncresolver.Resolver | None = None
) -> Found:
    """The servers of a name. LookupFailed, also where there is no such name. `resolver`: None is the system's."""
    try:
        if resolver is None:  # anew each time: the system's may have changed
            resolver = await asyncio.to_thread(dns.asyncresolver.Resolver)
        return await (_services(resolver, name) if port is None else _addresses(resolver, name, port))
    except (dns.exception.DNSException, OSError) as error:
        raise LookupFailed(_reason(error)) from error


async def _services(resolver: dns.asyncresolver.Resolver, name: str) -> Found:
    answer = await _ask(resolver, name, dns.rdatatype.SRV)
    servers = []
    for record in answer:
        if record.target != dns.name.root:  # which says that there is no such service
            target = record.target.to_text(omit_final_dot=True)
            servers.append((target.partition(".")[0], host_and_port(target, record.port)))
    return Found(servers, _ttl(answer))


async def _addresses(resolver: dns.asyncresolver.Resolver, name: str, port: int) -> Found:
    """Of both families. Where one has servers, the other may fail: few names have both, and then of each server."""
    with suppress(ValueError):
        return Found([("", host_and_port(str(ip_address(name)), port))], None)
    answers = await asyncio.gather(
        *(_ask(resolver, name, kind) for kind in (dns.rdatatype.A, dns.rdatatype.AAAA)),
        return_exceptions=True,
    )
    found = [answer for answer in answers if isinstance(answer, dns.resolver.Answer)]
    if not found:
        raise next(answer for answer in answers if isinstance(answer, BaseException))
    servers = [("", host_and_port(record.address, port)) for answer in found for record in answer]
    return Found(servers, min(_ttl(answer) for answer in found))


async def _ask(
    resolver: dns.asyncresolver.Resolver, name: str, kind: dns.rdatatype.RdataType
) -> dns.resolver.Answer:
    return await resolver.resolve(name, kind, lifetime=LOOKUP_S, search=True)


def _ttl(answer: dns.resolver.Answer) -> float:
    return float(answer.rrset.ttl) if answer.rrset is not None else 0.0


def _reason(error: Exception) -> str:
    if isinstance(error, dns.resolver.NXDOMAIN):
        return "there is no such name"
    if isinstance(error, dns.resolver.NoAnswer):
        return "the name has no such records"
    if isinstance(error, dns.resolver.LifetimeTimeout):
        return f"no answer within {LOOKUP_S:g} s"
    if isinstance(error, dns.resolver.NoNameservers):
        return "no server of names could say"
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
