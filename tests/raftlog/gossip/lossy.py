"""Real agents and nodes of ours on a network that loses packets, and what each believes of the others meanwhile.

Each packet crosses one place that may lose it: at a node of ours the transport's filter, for what comes in; at an agent
a proxy, whose address is the one that it advertises. Connections are lost as often, which is harder than a network that
loses packets: there they take longer.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, Self

from raftlog.net.gossip.binding import Sockets, bind
from raftlog.serf.config import SerfConfig
from raftlog.serf.messages import Address
from tests.raftlog.gossip.agents import SerfAgent
from tests.raftlog.gossip.nodes import OurNode

LOOK_S: Final = 0.5  # between two looks at what all believe
GATHER_S_MAX: Final = 90.0  # until all see all
CHUNK_BYTES: Final = 64 * 1024
PASSED_MAX: Final = 256


class Loss:
    """Of what comes in to a node of ours, and of connections to others of ours. Implements Filter."""

    def __init__(self, random: Random) -> None:
        self.rate = 0.0  # of packets and streams that are lost
        self.own: str = ""  # address of the node
        self.ours: set[str] = set()  # addresses; only asked whether one is in it
        self.lost: Counter[str] = Counter()
        self._random = random

    def lets_packet(self, source: Address, target: Address) -> bool:
        return target != self.own or not self._is_lost("packets")

    def lets_stream(self, source: Address, target: Address) -> bool:
        return target not in self.ours or target == self.own or not self._is_lost("streams")

    def _is_lost(self, what: str) -> bool:
        is_lost = self._random.random() < self.rate
        self.lost[what] += is_lost
        return is_lost


class Proxy(asyncio.DatagramProtocol):
    """In front of an agent, which advertises its address: packets pass or are lost; so do streams, at their begin."""

    def __init__(self, random: Random) -> None:
        self.rate = 0.0  # of packets and streams that are lost
        self.lost: Counter[str] = Counter()
        self.passed: deque[bytes] = deque(maxlen=PASSED_MAX)  # packets that were passed on, the latest last
        self.target: tuple[str, int] | None = None  # the agent; None: there is none yet
        self._random = random
        self._sockets: Sockets = bind("127.0.0.1:0")
        self._packets: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        host, port = self._sockets.packets.getsockname()
        return f"{host}:{port}"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._packets, _ = await loop.create_datagram_endpoint(lambda: self, sock=self._sockets.packets)
        self._server = await asyncio.start_server(self._stream, sock=self._sockets.streams)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._packets is not None
        assert self._server is not None
        self._packets.close()
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.sleep(0)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._packets is not None
        if self.target is not None and not self._is_lost("packets"):
            self.passed.append(data)
            self._packets.sendto(data, self.target)

    def _is_lost(self, what: str) -> bool:
        is_lost = self._random.random() < self.rate
        self.lost[what] += is_lost
        return is_lost

    def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other: asyncio.StreamWriter | None = None
        try:
            if self.target is None or self._is_lost("streams"):
                await reader.read(-1)  # until whoever waits for an answer gives up
                return
            answers, other = await asyncio.open_connection(*self.target)
            pumps = [asyncio.create_task(_pump(reader, other)), asyncio.create_task(_pump(answers, writer))]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.wait(pumps)
        except OSError:
            pass  # the agent is gone, or who asked it
        finally:
            for end in (writer, other):
                if end is not None:
                    end.close()
                    with suppress(OSError):
                        await end.wait_closed()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()


@dataclass(slots=True)
class Story:
    """What happened. Times in seconds."""

    gathered_s: float = 0.0  # from the first start until all saw all; nothing is lost yet
    watched_s: float = 0.0  # during which nobody died
    false_failures: int = 0  # times that somebody held a living member for failed, by each who did
    longest_false_s: float = 0.0  # that anybody did, without a break
    detected_s: dict[str, float] = field(default_factory=dict)  # killed member -> until all others knew
    lost: dict[str, int] = field(default_factory=dict)  # packets and streams


class Watch:
    """Keeps account of who holds whom for failed."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, str], float] = {}  # (who, of whom), while it lasts
        self.count = 0
        self.longest_s = 0.0

    def look(self, views: Mapping[str, Mapping[str, str]], now: float) -> list[str]:
        """Those that are wrong now: everybody is alive."""
        wrong = {(who, of) for who, view in views.items() for of in views if view.get(of) != "alive"}
        for pair in sorted(wrong - self._since.keys()):
            self._since[pair] = now
            self.count += 1
        for pair, since in list(self._since.items()):
            self.longest_s = max(self.longest_s, now - since)
            if pair not in wrong:
                del self._since[pair]
        return [f"{who} of {of}" for who, of in sorted(wrong)]


async def tell_story(
    folder: Path,
    *,
    seconds: float,
    loss: float,
    seed: int,
    profile: SerfConfig,
    agent_profile: str,
    agents: int = 3,
    nodes: int = 5,
    detect_s_max: float,
) -> Story:
    """They find each other; then packets are lost, for a while nobody dies, and then one of each kind is killed.

    AssertionError if a living member is held for failed for good, or a dead one for alive.
    """
    random, story = Random(seed), Story()
    started = time.monotonic()
    async with AsyncExitStack() as stack:
        proxies: list[Proxy] = []
        real: list[SerfAgent] = []
        for number in range(1, agents + 1):
            proxy = await stack.enter_async_context(Proxy(random))
            agent = SerfAgent(f"a{number}", folder, advertise=proxy.address, profile=agent_profile)
            await stack.enter_async_context(agent)
            host, _, port = agent.address.rpartition(":")
            proxy.target = (host, int(port))
            proxies.append(proxy)
            real.append(agent)
        losses = [Loss(random) for _ in range(nodes)]
        ours: list[OurNode] = []
        known = [proxy.address for proxy in proxies]  # each joins all that are there before it
        for number, one in enumerate(losses, start=1):
            node = OurNode(f"n{number}", joins=known, profile=profile, filter=one)
            await stack.enter_async_context(node)
            one.own = node.address
            known.append(node.address)
            ours.append(node)
        for one in losses:
            one.ours.update(node.address for node in ours)
        names = [agent.name for agent in real] + [node.name for node in ours]
        await ours[0].until_sees(dict.fromkeys(names, "alive"))
        # Rumours of so many that start at once may miss one, which exchanges of states would notice half a minute later.
        await ours[0].membership.join(known)
        await _until_all_see(real, ours, dict.fromkeys(names, "alive"), GATHER_S_MAX)
        story.gathered_s = time.monotonic() - started
        lossy: list[Proxy | Loss] = [*proxies, *losses]
        for place in lossy:
            place.rate = loss

        watch, began = Watch(), time.monotonic()
        while (now := time.monotonic()) < began + seconds:
            watch.look(await _views(real, ours), now)
            await asyncio.sleep(LOOK_S)
        story.watched_s = time.monotonic() - began
        async with asyncio.timeout(GATHER_S_MAX):  # who is held for failed now must not stay so
            while watch.look(await _views(real, ours), time.monotonic()):
                await asyncio.sleep(LOOK_S)
        story.false_failures, story.longest_false_s = watch.count, watch.longest_s

        killed_agent, killed_node = real.pop(), ours.pop()
        wanted = {**dict.fromkeys(names, "alive"), killed_agent.name: "failed", killed_node.name: "failed"}
        began = time.monotonic()
        await killed_agent.kill()
        await killed_node.membership.close()
        for name in (killed_agent.name, killed_node.name):
            await _until_all_see(real, ours, {name: wanted[name]}, detect_s_max)
            story.detected_s[name] = time.monotonic() - began
        story.lost = dict(sum((place.lost for place in lossy), Counter()))
    return story


async def _views(real: Iterable[SerfAgent], ours: Iterable[OurNode]) -> dict[str, dict[str, str]]:
    """What each says of all."""
    real = list(real)
    seen = await asyncio.gather(*(agent.statuses() for agent in real))
    views = {agent.name: view for agent, view in zip(real, seen, strict=True)}
    return {**views, **{node.name: node.statuses() for node in ours}}


async def _until_all_see(
    real: Iterable[SerfAgent],
    ours: Iterable[OurNode],
    wanted: Mapping[str, str],
    seconds_max: float,
) -> None:
    """Wait until all see these members so."""
    views: dict[str, dict[str, str]] = {}
    try:
        async with asyncio.timeout(seconds_max):
            while True:
                views = await _views(real, ours)
                if all(
                    view.get(name) == status for view in views.values() for name, status in wanted.items()
                ):
                    return
                await asyncio.sleep(LOOK_S / 4)
    except TimeoutError:
        raise AssertionError(f"not all see {dict(wanted)} after {seconds_max:g} s: {views}") from None
