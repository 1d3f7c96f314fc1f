"""Clients that find servers by names of DNS or a member of the gossip."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dns.asyncresolver
import pytest

from raftlog import AsyncClient, TlsFiles
from raftlog.cli import run as run_command
from raftlog.client.failures import CallFailed
from raftlog.client.picker import FollowersInTurn
from raftlog.client.seeds import FOUND_MAX, Name, Seed, Seeds, parse_name
from raftlog.client.servers import Servers
from raftlog.discovery.errors import LookupFailed
from raftlog.discovery.gossip_lookup import ask_gossip
from raftlog.discovery.membership import Membership, MembershipConfig
from raftlog.errors import ConfigError
from raftlog.net.certificates import CertificatePlan, init_folder
from raftlog.serf.config import FAST
from raftlog.server.acl import default_files
from raftlog.testing.cluster import Cluster
from raftlog.testing.ports import ReservedPorts
from tests.raftlog.discovery.name_server import NameServer
from tests.raftlog.fake_cluster import count, fake_cluster
from tests.raftlog.gossip.agents import SerfAgent, needs_serf
from tests.raftlog.serving import run, serving

DEADLINE_S = 20.0
KEY, OTHER_KEY = b"k" * 32, b"o" * 32
SRV = ("_raftlog._tcp.nodes.test", "SRV")
NOBODY = "127.0.0.1:1"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def names(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NameServer]:
    """Names as they are looked up from here."""
    async with NameServer() as server:
        resolver = server.resolver()
        monkeypatch.setattr(dns.asyncresolver, "Resolver", lambda: resolver)
        yield server


def service(port: int, host: str = "localhost") -> tuple[int, list[str]]:
    """An SRV record."""
    return 0, [f"0 0 {port} {host}."]


# ── what may be given ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("nodes.test:8400", None),
        ("[::1]:8400", None),
        ("dns:8400", None),  # a host called dns
        ("gossip:8401", None),
        ("dns:nodes.test:8400", Name("dns", "nodes.test", 8400)),
        ("dns:[::1]:8400", Name("dns", "::1", 8400)),
        ("srv:_raftlog._tcp.nodes.test", Name("srv", "_raftlog._tcp.nodes.test", None)),
        ("gossip:10.0.0.1:8401", Name("gossip", "10.0.0.1", 8401)),
    ],
)
def test_an_address_is_as_before_and_a_name_says_what_it_is_looked_up_as(
    text: str, name: Name | None
) -> None:
    assert parse_name(text) == name


@pytest.mark.parametrize("text", ["dns:nodes.test", "dns:", "srv:", "srv:nodes.test:8400", "gossip:a:99999"])
def test_a_name_that_cannot_be_one_is_refused_and_said(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=text):
        parse_name(text)

    assert run_command(["servers", "--insecure", "--addr", text]) == 2
    assert capfd.readouterr().err.startswith(f"raftlog: --addr {text}: expected ")


def test_a_file_of_keys_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(ConfigError, match="nothing"):
            AsyncClient("gossip:127.0.0.1:1", gossip_key_file=tmp_path / "nothing")

    run(scenario())


# ── DNS ─────────────────────────────────────────────────────────────────────────────────────────────


def test_each_address_of_a_name_may_be_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster, names(monkeypatch) as dns_server:
            dns_server.records["nodes.test", "A"] = (0, ["127.0.0.1", "127.0.0.9"])  # the second is nobody

            async with AsyncClient(f"dns:nodes.test:{cluster.nodes['n3'].port}") as client:
                assert await client.append(b"a") == 0

            assert count(cluster, "ProduceBatchStream") == [1, 0, 0]  # of the leader, which n3 named

    run(scenario())


@pytest.mark.parametrize("before", [service(1), None], ids=["nobody is there", "no such name"])
def test_a_server_that_appears_in_dns_meanwhile_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: tuple[int, list[str]] | None
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr("raftlog.client.seeds.AGAIN_S", 0.0)
        async with fake_cluster(tmp_path) as cluster, names(monkeypatch) as dns_server:
            if before is not None:
                dns_server.records[SRV] = before
            async with AsyncClient(f"srv:{SRV[0]}", timeout_s=DEADLINE_S) as client:
                calls = [
                    asyncio.ensure_future(call)
                    for call in (client.append(b"a"), client.bounds(), client.status())
                ]
                await until(lambda: dns_server.asked > 6)  # so each has failed before
                assert not any(call.done() for call in calls)

                dns_server.records[SRV] = service(cluster.nodes["n2"].port)

                for call in calls:
                    await call
                assert cluster.values() == [b"a"]

    run(scenario())


def test_a_cluster_all_of_whose_servers_have_moved_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr("raftlog.client.seeds.AGAIN_S", 0.0)
        async with (
            fake_cluster(tmp_path / "before") as before,
            fake_cluster(tmp_path / "after") as after,
            names(monkeypatch) as dns_server,
        ):
            dns_server.records[SRV] = service(before.nodes["n2"].port)
            async with AsyncClient(f"srv:{SRV[0]}", timeout_s=DEADLINE_S) as client:
                await client.bounds()

                dns_server.records[SRV] = service(after.nodes["n3"].port)
                for node in before.nodes.values():
                    await node.kill()

                assert await client.append(b"a") == 0
                assert (await client.read(0)).value == b"a"
                assert after.values() == [b"a"]

    run(scenario())


def test_names_are_looked_up_again_while_servers_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr("raftlog.client.servers.REFRESH_S", 0.0)
        monkeypatch.setattr("raftlog.client.seeds.AGAIN_S", 0.0)
        async with fake_cluster(tmp_path) as cluster, names(monkeypatch) as dns_server:
            dns_server.records[SRV] = service(cluster.nodes["n2"].port)
            async with AsyncClient(f"srv:{SRV[0]}") as client:
                await client.append(b"a")
                asked = dns_server.asked
                async with asyncio.timeout(DEADLINE_S):
                    while dns_server.asked < asked + 2:
                        await client.read(0)

    run(scenario())


def test_what_was_found_is_kept_while_names_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with names(monkeypatch) as dns_server:
            dns_server.records[SRV] = service(8400)
            seeds = Seeds([f"srv:{SRV[0]}"])
            await seeds.look()
            assert seeds.known == [Seed("localhost:8400")]

            dns_server.records.clear()
            await seeds.look()

            assert seeds.known == [Seed("localhost:8400")]
            assert seeds.failures == []
            await seeds.close()

    run(scenario())


def test_more_servers_of_a_name_than_the_limit_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with names(monkeypatch) as dns_server:
            dns_server.records[SRV] = (0, [f"0 0 {1000 + number} n." for number in range(FOUND_MAX + 1)])
            seeds = Seeds([f"srv:{SRV[0]}"])
            await seeds.look()

            assert len(seeds.known) == FOUND_MAX

    run(scenario())


def test_a_call_that_finds_no_server_says_which_names_failed_and_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        seeds = ["srv:none.test", f"gossip:{NOBODY}"]
        said = f"srv:none.test: there is no such name; gossip:{NOBODY}: Connection refused"
        async with names(monkeypatch), AsyncClient(seeds, timeout_s=0.5) as client:
            with pytest.raises(CallFailed, match=said):
                await client.bounds()
            with pytest.raises(CallFailed, match=said):
                await client.status()
            with pytest.raises(CallFailed, match=said) as failed:
                await client.append(b"a")
            assert not failed.value.is_unknown

    run(scenario())


def test_a_host_counts_as_several_servers_when_none_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with fake_cluster(tmp_path) as cluster:
            port = cluster.nodes["n2"].port

            async def addresses(host: str, *_: Any, **__: Any) -> list[Any]:
                assert host == "nodes.invalid"  # which gRPC does not find
                return [(2, 1, 6, "", (one, port)) for one in ("127.0.0.9", "127.0.0.1")]

            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", addresses, raising=False)
            async with AsyncClient(f"nodes.invalid:{port}") as client:
                assert await client.append(b"a") == 0

    run(scenario())


def test_who_has_no_certificate_for_the_name_is_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "certificates"
    plan = CertificatePlan(host_names=("nodes.test", "localhost"))  # and not 127.0.0.1
    init_folder(folder, plan, extra_files=default_files())
    tls = TlsFiles.in_folder(folder, "root-client")

    async def scenario() -> None:
        with ReservedPorts([0]) as ports:
            [port] = ports.numbers
            settings = {"rpc_port": port, "rpc_advertise_addr": f"localhost:{port}", "discovery": "off"}
            async with serving(tmp_path, folder, **settings), names(monkeypatch) as dns_server:
                for name in ("nodes.test", "others.test"):
                    dns_server.records[name, "A"] = (0, ["127.0.0.1"])

                async with AsyncClient(f"dns:nodes.test:{port}", tls=tls) as client:
                    assert await client.append(b"a") == 0
                async with AsyncClient(f"dns:others.test:{port}", tls=tls, timeout_s=1.0) as client:
                    with pytest.raises(CallFailed, match="UNAVAILABLE"):
                        await client.bounds()

    run(scenario())


# ── gossip ──────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def member(
    name: str, address: str, *, cluster: str = "c", keys: tuple[bytes, ...] = (), joins: tuple[str, ...] = ()
) -> AsyncIterator[Membership]:
    """Of a gossip. It says that it serves at `address`."""
    tags = {"rpc_addr": address, "cluster": cluster, "role": "member" if cluster else "joining"}
    config = MembershipConfig(
        node_name=name, bind_addr="127.0.0.1:0", tags=tags, profile=FAST, keys=keys, start_join_addrs=joins
    )
    membership = Membership(None, config)
    await membership.start()
    try:
        await membership.first_look()
        yield membership
    finally:
        await membership.close()


def test_servers_are_found_through_any_member_which_does_not_hear_of_the_client(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            fake_cluster(tmp_path) as cluster,
            member("x", "", cluster="") as stranger,  # of no cluster
            member("n2", cluster.nodes["n2"].address, joins=(stranger.gossip_address,)),
            AsyncClient(f"gossip:{stranger.gossip_address}") as client,
        ):
            await until(lambda: len(stranger.members()) == 2)

            assert await client.append(b"a") == 0

            assert [one.name for one in stranger.members()] == ["n2", "x"]

    run(scenario())


def test_a_gossip_that_is_encrypted_is_asked_with_its_key(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with member("n1", "n1:8400", keys=(KEY,)) as one:
            [found] = await ask_gossip(one.gossip_address, keys=(KEY,))
            assert (found.name, found.address, found.cluster_id) == ("n1", "n1:8400", "c")

            with pytest.raises(LookupFailed, match="found an encrypted one, and there is no key"):
                await ask_gossip(one.gossip_address)
            with pytest.raises(LookupFailed, match="key"):
                await ask_gossip(one.gossip_address, keys=(OTHER_KEY,))
        async with member("n1", "n1:8400") as clear:
            with pytest.raises(LookupFailed, match="expected an encrypted one, found a plain one"):
                await ask_gossip(clear.gossip_address, keys=(KEY,))

    run(scenario())


@needs_serf
@pytest.mark.parametrize("keys", [(), (KEY,)], ids=["plain", "encrypted"])
def test_an_agent_of_serf_is_asked_too_and_does_not_hear_of_the_client(
    tmp_path: Path, keys: tuple[bytes, ...]
) -> None:
    async def scenario() -> None:
        tags = {"rpc_addr": "n1:8400", "cluster": "c"}
        async with SerfAgent("agent", tmp_path, key=next(iter(keys), None), tags=tags) as agent:
            [found] = await ask_gossip(agent.address, keys=keys)

            assert (found.name, found.address, found.cluster_id) == ("agent", "n1:8400", "c")
            assert list(await agent.members()) == ["agent"]
            if keys:
                for others in ((), (OTHER_KEY,)):
                    with pytest.raises(LookupFailed):
                        await ask_gossip(agent.address, keys=others)

    run(scenario())


def test_servers_of_two_clusters_in_one_gossip_are_not_mixed_up() -> None:
    async def scenario() -> None:
        async with (
            member("n1", "n1:8400", cluster="one") as first,
            member("n2", "n2:8400", cluster="two", joins=(first.gossip_address,)),
        ):
            await until(lambda: len(first.members()) == 2)
            name = f"gossip:{first.gossip_address}"
            seeds = Seeds([name])
            await seeds.look()

            assert seeds.known == []
            assert seeds.failures == [
                f"{name}: servers of 2 clusters are there, one, two: give the address of one server"
            ]

    run(scenario())


def test_members_without_an_address_to_serve_at_or_with_a_wrong_one_are_left_out() -> None:
    async def scenario() -> None:
        async with (
            member("n1", "n1:8400") as first,
            member("n2", "unix:/tmp/socket", joins=(first.gossip_address,)),
            member("n3", "", joins=(first.gossip_address,)),
            member("n4", "n4:8400", cluster="", joins=(first.gossip_address,)),
        ):
            await until(lambda: len(first.members()) == 4)
            seeds = Seeds([f"gossip:{first.gossip_address}"])
            await seeds.look()

            assert seeds.known == [Seed("n1:8400")]

    run(scenario())


def test_a_host_that_cannot_be_one_is_said_to() -> None:
    async def scenario() -> None:
        with pytest.raises(LookupFailed, match="the host's name is none"):
            await ask_gossip("nowhere..invalid:1")

    run(scenario())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "its answer is not understood: .*"),
        (b"", "it ended the connection without an answer.*"),
        (bytes([2, 0x83]), "it ended the connection without an answer.*"),  # the beginning of an ack
        (None, "no answer within 0.2 s"),
    ],
)
def test_one_that_speaks_otherwise_is_said_to(answer: bytes | None, reason: str) -> None:
    async def scenario() -> None:
        asked: list[asyncio.StreamWriter] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(writer)
            await reader.read(1)
            if answer is not None:
                writer.write(answer)
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        timeout_s = 0.2 if answer is None else DEADLINE_S

        async with server:
            with pytest.raises(LookupFailed, match=reason):
                await ask_gossip(f"127.0.0.1:{port}", timeout_s=timeout_s)
            for writer in asked:
                writer.close()

    run(scenario())


def test_a_real_server_is_found_by_its_gossip_with_the_key_in_a_file(
    tmp_path: Path, certificates: Path
) -> None:
    keys = tmp_path / "gossip.key"
    keys.write_text("a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=\n")
    keys.chmod(0o600)

    async def scenario() -> None:
        settings = {"discovery": "gossip", "gossip_key_file": str(keys), "gossip_profile": "fast"}
        async with serving(tmp_path, certificates, **settings) as agent:
            source = agent._engine.source
            assert isinstance(source, Membership)
            async with AsyncClient(
                f"gossip:{source.gossip_address}",
                tls=TlsFiles.in_folder(certificates, "root-client"),
                gossip_key_file=keys,
            ) as client:
                assert await client.append(b"a") == 0

    run(scenario())


# ── connections ─────────────────────────────────────────────────────────────────────────────────────


def test_connections_to_servers_that_nobody_names_any_more_are_closed_beyond_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr("raftlog.client.servers.CONNECTIONS_MAX", 3)
        servers = Servers(Seeds(["seed:1"]), None, FollowersInTurn())
        seed = servers.connection("seed:1")

        old = [servers.connection(f"old:{number}") for number in range(3)]
        assert servers.connection("old:0") is old[0]  # used again
        servers.connection("new:1")
        await until(lambda: any(one.is_closed for one in old))

        assert [one.is_closed for one in (seed, *old)] == [False, False, True, False]
        await servers.close()

    run(scenario())


# ── the command line, and a cluster ─────────────────────────────────────────────────────────────────


def test_commands_find_servers_by_gossip_and_consume_from_the_quickest(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {"discovery": "gossip", "bind_addr": "127.0.0.1:0", "gossip_profile": "fast"}
    with Cluster(tmp_path, settings=settings) as cluster:
        with cluster.client() as client:
            client.append_batch([b"one", b"two"])
        cluster.wait_until_equal()
        source = cluster._running["n2"]._agent._engine.source
        assert isinstance(source, Membership)

        there = ["--insecure", "--addr", f"gossip:{source.gossip_address}"]
        assert run_command(["consume", "--pick", "latency", "--format", "raw", *there]) == 0
        assert capfd.readouterr().out == "one\ntwo\n"
        assert run_command(["servers", "--json", *there]) == 0
        assert len(capfd.readouterr().out.splitlines()) == 3


def test_each_name_without_a_server_is_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(["servers", "--insecure", "--addr", f"gossip:{NOBODY},{NOBODY}"]) == 1
    lines = capfd.readouterr().err.splitlines()
    assert lines == [
        f"raftlog: gossip:{NOBODY}: Connection refused",
        f"raftlog: {NOBODY}: Connection refused",
    ]
