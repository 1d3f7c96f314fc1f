"""Nodes of ours for tests: what each was told, and waits for what it sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from raftlog.discovery.membership import Membership, MembershipConfig
from raftlog.net.gossip.limits import TransportLimits
from raftlog.net.gossip.transport import Filter
from raftlog.serf.config import FAST, SerfConfig
from raftlog.serf.events import QueryCame, Told
from tests.raftlog.gossip.agents import until

T = TypeVar("T")


class OurNode:
    """A `Membership` that writes down what it was told, and answers queries."""

    def __init__(
        self,
        name: str,
        *,
        joins: Sequence[str] = (),
        keys: Sequence[bytes] = (),
        tags: Mapping[str, str] | None = None,
        keyring_file: Path | None = None,
        profile: SerfConfig = FAST,
        limits: TransportLimits | None = None,
        filter: Filter | None = None,
        bind_addr: str = "127.0.0.1:0",
        advertise_addr: str | None = None,
    ) -> None:
        self.name = name
        self.told: list[Told] = []
        self.calls: list[tuple[str, ...]] = []  # of the handler
        self.answers: dict[str, bytes] = {}  # to queries, by name
        self.membership = Membership(
            self,
            MembershipConfig(
                node_name=name, bind_addr=bind_addr, advertise_addr=advertise_addr, tags=tags or {"rpc_addr": f"{name}:8400"},
                start_join_addrs=tuple(joins), profile=profile, keys=tuple(keys), keyring_file=keyring_file,
                limits=limits, filter=filter,
            ),
            on_told=self._on_told,
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        await self.membership.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.membership.close()

    @property
    def address(self) -> str:
        return self.membership.gossip_address

    def join(self, name: str, addr: str) -> None:
        self.calls.append(("join", name, addr))

    def leave(self, name: str) -> None:
        self.calls.append(("leave", name))

    def _on_told(self, told: Told) -> None:
        self.told.append(told)
        if isinstance(told, QueryCame) and told.name in self.answers:
            self.membership.respond(id=told.id, time=told.time, payload=self.answers[told.name])

    def told_of(self, kind: type[T]) -> list[T]:
        return [told for told in self.told if isinstance(told, kind)]

    def statuses(self) -> dict[str, str]:
        return {one.name: one.status for one in self.membership.members()}

    async def until_sees(self, wanted: Mapping[str, str]) -> None:
        """Wait until it knows these members, and no others, with these statuses."""
        await until(
            lambda: self.statuses() == wanted, lambda: f"{self.name} knows {self.statuses()}, not {wanted}"
        )

    async def until_told(self, wanted: Any) -> None:
        await until(lambda: wanted in self.told, lambda: f"{self.name} was told {self.told}")
