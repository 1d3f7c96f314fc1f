"""A node that lives, with a key, and a stranger without it who sends all that can be made up, cut, changed and repeated."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from random import Random
from typing import Final

import pytest

from raftlog.net.gossip.limits import TransportLimits
from raftlog.net.gossip.runner import INBOX_MAX
from raftlog.serf.codec import kinds, swim
from raftlog.serf.codec.keyring import Keyring
from raftlog.serf.codec.packets import Codec
from raftlog.serf.config import LOCAL
from raftlog.serf.events import UserEventCame
from raftlog.serf.messages import (
    Address,
    Alive,
    Dead,
    NodeState,
    Ping,
    PushPull,
    State,
    Suspect,
    UserMessage,
    Versions,
)
from tests.raftlog.gossip.agents import until
from tests.raftlog.gossip.conftest import Run
from tests.raftlog.gossip.lossy import Proxy
from tests.raftlog.gossip.nodes import OurNode

KEY, WRONG_KEY = bytes(range(32)), bytes(range(1, 33))
STRANGER: Final = "127.0.0.9"  # another host, as far as limits by host go
PACKETS: Final = 6_000
STREAMS: Final = 150
AT_ONCE: Final = 8
STREAMS_AT_ONCE: Final = 12  # fewer than one host may have: all reach the node, however fast they come
GROWTH_MIB_MAX: Final = 64.0
LIMITS: Final = TransportLimits(
    stream_timeout_s=0.5, packets_per_host_per_s_max=1_000_000
)  # let all reach it
BOTH: Final = {"node": "alive", "peer": "alive"}


def codec(*keys: bytes) -> Codec:
    return Codec(Keyring(keys), nonce=os.urandom)


def lies(node: Address, peer: Address) -> list[bytes]:
    """Messages that would change the members, were they believed."""
    nowhere = Address("192.0.2.1:1")
    return [
        swim.encode(message)
        for message in (
            Dead(9, "peer", "peer"), Dead(9, "peer", "node"), Dead(9, "node", "peer"), Suspect(9, "peer", "node"),
            Alive(2**32 - 1, "peer", nowhere, b""), Alive(9, "evil", nowhere, b"\xff\x80"), Ping(1, "node", nowhere, "evil"),
            UserMessage(b"\x00\x83"),
        )
    ]  # fmt: skip


def stream_lies(node: Address) -> list[PushPull]:
    """Whole states that would."""
    evil = NodeState("evil", Address("192.0.2.1:1"), b"", 9, State.ALIVE, Versions())
    dead = NodeState("peer", Address("192.0.2.1:1"), b"", 2**32 - 1, State.LEFT, Versions())
    return [PushPull((evil,), b"", is_join=True), PushPull((evil, dead) * 2_000, b"x" * 100, is_join=True)]


def damaged(random: Random, data: bytes) -> bytes:
    """Cut, or with some bytes changed; never the same."""
    if random.random() < 0.5:
        return data[: random.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(random.randrange(1, 4)):
        changed[random.randrange(len(changed))] ^= random.randrange(1, 256)
    return bytes(changed) if bytes(changed) != data else data[:-1]


def packets(random: Random, heard: list[bytes], lies: list[bytes]) -> Iterator[bytes]:
    """`heard`: that the node was sent before, which come again."""
    right, wrong, plain = codec(KEY), codec(WRONG_KEY), codec()
    bomb = bytes([kinds.COMPRESSED]) + b"\x82\xa4Algo\x00\xa3Buf\xda\xff\xff" + bytes(60_000)
    while True:
        lie = random.choice(lies)
        yield random.randbytes(random.randrange(1, 1_500))
        yield bytes([random.choice((0, 1, kinds.ENCRYPTED, kinds.LABEL, kinds.CRC))]) + random.randbytes(60)
        yield random.choice(heard)
        yield damaged(random, random.choice(heard))
        yield damaged(random, right.packet([lie], has_crc=True))
        yield right.packet([lie], has_crc=True) + random.randbytes(random.randrange(1, 100))
        yield wrong.packet([lie], has_crc=True)
        yield plain.packet([lie] * random.randrange(1, 5), has_crc=random.random() < 0.5)
        yield bomb
        yield bytes(60_000)


def streams(random: Random, lies: list[PushPull]) -> Iterator[bytes]:
    right, wrong, plain = codec(KEY), codec(WRONG_KEY), codec()
    state = bytes([kinds.PUSH_PULL])
    while True:
        lie = random.choice(lies)
        yield b""  # it connects, and is silent
        yield random.randbytes(random.randrange(1, 5_000))
        yield bytes([kinds.ENCRYPTED]) + b"\xff\xff\xff\xff" + random.randbytes(1_000)
        yield bytes([kinds.ENCRYPTED]) + (4 * 1024 * 1024 - 100).to_bytes(4, "big") + random.randbytes(1_000)
        yield state + b"\x83\xa5Nodes\xce\xff\xff\xff\xff\xacUserStateLen\xce\xff\xff\xff\xff\xa4Join\xc3"
        yield bytes([kinds.USER]) + b"\x81\xaaUserMsgLen\xce\x7f\xff\xff\xff" + bytes(1_000)
        yield bytes([kinds.LABEL, 200]) + random.randbytes(50)
        yield bytes([kinds.COMPRESSED]) + b"\x82\xa4Algo\x00\xa3Buf\xdb\x00\x30\x00\x00" + bytes(100_000)
        yield damaged(random, right.stream(lie))
        yield wrong.stream(lie)
        yield plain.stream(lie)


async def send_stream(host: str, port: int, data: bytes, at_once: asyncio.Semaphore) -> None:
    """Send it, and wait until the other side has had enough."""
    async with at_once:
        try:
            reader, writer = await asyncio.open_connection(host, port, local_addr=(STRANGER, 0))
        except OSError:
            return  # as many as are allowed are open
        try:
            writer.write(data)
            await reader.read()
        except OSError:
            pass  # it hung up
        finally:
            writer.transport.abort()


async def attack(
    random: Random, node: OurNode, heard: list[bytes], lies: list[bytes], whole: list[PushPull]
) -> None:
    host, _, port = node.membership.bound_address.rpartition(":")
    made, made_streams = packets(random, heard, lies), streams(random, whole)
    open_streams: set[asyncio.Task[None]] = set()
    at_once = asyncio.Semaphore(STREAMS_AT_ONCE)
    with socket.socket(type=socket.SOCK_DGRAM) as stranger:
        stranger.bind((STRANGER, 0))
        stranger.setblocking(False)
        for number in range(PACKETS):
            try:
                stranger.sendto(next(made), (host, int(port)))
            except BlockingIOError:
                pass  # faster than the system takes it
            if number % (PACKETS // STREAMS) == 0:
                stream = send_stream(host, int(port), next(made_streams), at_once)
                open_streams.add(asyncio.create_task(stream))
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
            assert node.membership.counts()["inbox"] <= INBOX_MAX
    await asyncio.wait(open_streams)


def resident_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.parametrize("seed", [1, 2])
def test_who_has_no_key_changes_nothing_whatever_it_sends(run_once: Run, seed: int) -> None:
    async def scenario() -> None:
        random = Random(seed)
        async with (
            Proxy(Random(0)) as proxy,
            OurNode("node", keys=[KEY], profile=LOCAL, limits=LIMITS, advertise_addr=proxy.address) as node,
            OurNode("peer", keys=[KEY], profile=LOCAL) as peer,
        ):
            host, _, port = node.membership.bound_address.rpartition(":")
            proxy.target = (host, int(port))
            await peer.membership.join([node.address])
            await node.until_sees(BOTH)
            await peer.until_sees(BOTH)
            await peer.membership.user_event("before", b"", can_coalesce=False)
            await until(lambda: bool(node.told_of(UserEventCame)), lambda: node.told)
            heard, told, before = list(proxy.passed), len(node.told), node.membership.members()
            assert heard
            mib = resident_mib()

            bad, whole = (
                lies(Address(node.address), Address(peer.address)),
                stream_lies(Address(node.address)),
            )
            await attack(random, node, heard, bad, whole)
            await until(lambda: node.membership.counts()["streams_open"] == 0, node.membership.counts)

            assert node.told[told:] == []
            assert node.membership.members() == before
            assert resident_mib() - mib < GROWTH_MIB_MAX
            await peer.membership.user_event("after", b"", can_coalesce=False)
            await until(lambda: len(node.told) > told, node.membership.counts)
            assert [one.name for one in node.told_of(UserEventCame)] == ["before", "after"]
            counts = node.membership.counts()
            assert counts["refused_packets"] > PACKETS / 10
            assert counts["streams_broken"] + counts["streams_slow"] > STREAMS / 4
            assert peer.statuses() == BOTH

    print(f"seed {seed}")
    run_once(scenario())


@pytest.mark.parametrize("seed", [1, 2])
def test_without_a_key_nothing_ends_a_node_either(run_once: Run, seed: int) -> None:
    async def scenario() -> None:
        random = Random(seed)
        async with OurNode("node", limits=LIMITS) as node:
            mib = resident_mib()
            harmless = [
                swim.encode(Ping(1, "node", Address(f"{STRANGER}:1"), "x")),
                swim.encode(UserMessage(b"\x03")),
            ]

            await attack(random, node, harmless, harmless, [PushPull((), b"", is_join=False)])

            await until(lambda: node.membership.counts()["streams_open"] == 0, node.membership.counts)
            assert resident_mib() - mib < GROWTH_MIB_MAX
            assert node.statuses()["node"] == "alive"
            async with OurNode("late", joins=[node.address]) as late:
                await late.membership.first_look()
                await until(lambda: node.statuses().get("late") == "alive", node.statuses)

    print(f"seed {seed}")
    run_once(scenario())
