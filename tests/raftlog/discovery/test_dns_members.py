from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import dns.rcode
import pytest

from raftlog.discovery.dns_members import SERVERS_MAX, DnsMembers
from raftlog.discovery.source import Candidate
from tests.raftlog.discovery.conftest import Told
from tests.raftlog.discovery.name_server import NameServer

DEADLINE_S = 20.0
SOON_S = 0.02  # between two look-ups of a test
A = ("nodes.test", "A")
SRV = ("_raftlog._tcp.nodes.test", "SRV")


async def until(source: DnsMembers, condition: Callable[[Sequence[Candidate]], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition(source.members()):
            await source.wait_for_change(DEADLINE_S)


def addresses(source: DnsMembers) -> list[str]:
    return [candidate.address for candidate in source.members()]


def test_every_address_of_a_name_is_a_server_without_a_name(told: Told) -> None:
    async def scenario() -> None:
        async with NameServer() as server:
            server.records[A] = (5, ["10.0.0.2", "10.0.0.1"])
            server.records["nodes.test", "AAAA"] = (5, ["fd00::1"])
            source = DnsMembers(["nodes.test:8400"], handler=told, resolver=server.resolver())
            await source.start()

            assert [(one.name, one.status, one.address) for one in source.members()] == [
                ("", "listed", "10.0.0.1:8400"), ("", "listed", "10.0.0.2:8400"), ("", "listed", "[fd00::1]:8400"),
            ]  # fmt: skip
            await source.close()

    asyncio.run(scenario())

    assert told.calls == [
        ("join", address, address) for address in ("10.0.0.1:8400", "10.0.0.2:8400", "[fd00::1]:8400")
    ]


def test_targets_of_srv_records_are_named_by_their_first_label() -> None:
    async def scenario() -> None:
        async with NameServer() as server:
            server.records[SRV] = (5, ["0 0 8400 raftlog-0.nodes.test.", "0 0 8401 raftlog-1.nodes.test."])
            source = DnsMembers([SRV[0]], resolver=server.resolver())
            await source.start()

            assert [(one.name, one.address) for one in source.members()] == [
                ("raftlog-0", "raftlog-0.nodes.test:8400"), ("raftlog-1", "raftlog-1.nodes.test:8401"),
            ]  # fmt: skip
            await source.close()

    asyncio.run(scenario())


def test_a_target_that_says_there_is_no_service_is_no_server() -> None:
    async def scenario() -> None:
        async with NameServer() as server:
            server.records[SRV] = (5, ["0 0 0 ."])
            source = DnsMembers([SRV[0]], resolver=server.resolver())
            await source.start()

            assert source.members() == ()
            await source.close()

    asyncio.run(scenario())


def test_what_dns_says_later_is_told_as_joins_and_leaves(told: Told) -> None:
    async def scenario() -> None:
        async with NameServer() as server:
            server.records[A] = (0, ["10.0.0.1", "10.0.0.2"])
            source = DnsMembers(["nodes.test:1"], handler=told, resolver=server.resolver(), interval_s=SOON_S)
            await source.start()
            since = {one.address: one.since for one in source.members()}

            server.records[A] = (0, ["10.0.0.2", "10.0.0.3"])
            await until(
                source, lambda members: [one.address for one in members] == ["10.0.0.2:1", "10.0.0.3:1"]
            )

            kept, new = source.members()
            assert kept.since == since["10.0.0.2:1"]
            assert new.since > since["10.0.0.2:1"]
            await source.close()

    asyncio.run(scenario())

    assert told.calls == [
        ("join", "10.0.0.1:1", "10.0.0.1:1"),
        ("join", "10.0.0.2:1", "10.0.0.2:1"),
        ("leave", "10.0.0.1:1"),
        ("join", "10.0.0.3:1", "10.0.0.3:1"),
    ]


@pytest.mark.parametrize("code", [dns.rcode.SERVFAIL, dns.rcode.NXDOMAIN])
def test_what_was_known_is_kept_while_dns_fails_and_that_is_said(
    code: dns.rcode.Rcode, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with NameServer() as server:
            server.records[A] = (0, ["10.0.0.1"])
            source = DnsMembers(["nodes.test:1"], resolver=server.resolver(), interval_s=SOON_S)
            await source.start()
            server.code = code
            asked = server.asked
            async with asyncio.timeout(DEADLINE_S):
                while server.asked < asked + 8:  # at least two look-ups of both families
                    await asyncio.sleep(SOON_S)
            assert addresses(source) == ["10.0.0.1:1"]

            server.code = dns.rcode.NOERROR
            server.records[A] = (0, ["10.0.0.9"])
            await until(source, lambda members: [one.address for one in members] == ["10.0.0.9:1"])
            await source.close()

    with caplog.at_level(logging.WARNING, "raftlog"):
        asyncio.run(scenario())

    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("raftlog")]
    assert len(warnings) == 1  # and not one for each look-up
    assert "nodes.test" in warnings[0]


def test_a_source_starts_where_dns_knows_nothing_yet() -> None:
    async def scenario() -> None:
        async with NameServer() as server:
            source = DnsMembers(["nodes.test:1"], resolver=server.resolver(), interval_s=SOON_S)
            await source.start()
            assert source.members() == ()

            server.records[A] = (0, ["10.0.0.1"])
            await until(source, lambda members: len(members) == 1)
            await source.close()

    asyncio.run(scenario())


def test_one_of_two_names_may_fail() -> None:
    async def scenario() -> None:
        async with NameServer() as server:
            server.records[A] = (5, ["10.0.0.1"])
            source = DnsMembers(["nodes.test:1", "others.test:1"], resolver=server.resolver())
            await source.start()

            assert addresses(source) == ["10.0.0.1:1"]
            await source.close()

    asyncio.run(scenario())


def test_a_name_that_is_given_twice_is_looked_up_once() -> None:
    async def scenario() -> None:
        async with NameServer() as server:
            server.records[A] = (5, ["10.0.0.1"])
            source = DnsMembers(["nodes.test:1", "nodes.test:1"], resolver=server.resolver())
            await source.start()

            assert source.is_complete
            assert server.asked == 2  # for addresses of both families
            await source.close()

    asyncio.run(scenario())


def test_more_servers_than_the_limit_are_left_out() -> None:
    async def scenario() -> None:
        async with NameServer() as server:
            # Targets that share a name take little room: more would not go into a packet.
            server.records[SRV] = (5, [f"0 0 {1000 + number} n." for number in range(SERVERS_MAX + 1)])
            source = DnsMembers([SRV[0]], resolver=server.resolver())
            await source.start()

            assert len(source.members()) == SERVERS_MAX
            await source.close()

    asyncio.run(scenario())


def test_an_address_needs_no_dns() -> None:
    async def scenario() -> None:
        source = DnsMembers(["127.0.0.1:8400", "[::1]:8400"])
        await source.start()

        assert addresses(source) == ["127.0.0.1:8400", "[::1]:8400"]
        await source.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("name", ["", "nodes.test:port", "nodes.test:99999"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError):
        DnsMembers([name])
