"""How a server looks for others, and is found by them, as its settings say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from raftlog.config import ServerConfig
from raftlog.discovery.dns_members import DnsMembers
from raftlog.discovery.membership import (
    ADDRESS_TAG,
    CLUSTER_TAG,
    DIRECTORY_TAG,
    ROLE_TAG,
    VERSION_TAG,
    Membership,
    MembershipConfig,
)
from raftlog.discovery.source import Source
from raftlog.discovery.static import StaticMembers
from raftlog.errors import NotSupported, RaftlogError
from raftlog.net.addresses import (
    is_loopback,
    split_address,
)
from raftlog.net.gossip.runner import GossipEnded
from raftlog.net.handshake import Welcome
from raftlog.runtime.logging import get_logger
from raftlog.serf.config import PROFILES, SerfConfig
from raftlog.serf.events import KeyAction, KeysResult

log = get_logger(__name__)

KEYS_FILE: Final = "gossip-keys.json"  # in the data directory: the keys as they were changed last

RECLAIM_S: Final = 5.0  # after its death a server's name may be taken by another address

ASKED_MAX: Final = 64  # servers, of which cluster they are; with more, nobody can be sure that there is none
# One that does not answer for so long is taken for one that is not there, or does not yet know.
ASK_S_MAX: Final = 2.0

# Who is at an address, as proved by the handshake; RaftlogError.
Identify = Callable[[str], Awaitable[Welcome]]

JOINING: Final = "joining"  # roles, as a tag
MEMBER: Final = "member"


def program_version() -> str:
    try:
        return version("raftlog")
    except PackageNotFoundError:
        return "unknown"


def make_source(config: ServerConfig, *, address: str, directory_id: str, cluster_id: str) -> Source | None:
    """Where this server, which others reach at `address`, looks for them; None if its settings say: nowhere.

    ConfigError if the file of gossip keys cannot be used.
    """
    if config.discovery == "gossip":
        return _make_membership(config, tags_of(address, directory_id, cluster_id))
    if config.discovery == "dns":
        return DnsMembers(config.discovery_dns_names, own_name=config.node_name)
    if config.discovery == "static":
        return StaticMembers({peer.name: peer.address for peer in config.peers}, own_name=config.node_name)
    return None


def tags_of(address: str, directory_id: str, cluster_id: str) -> dict[str, str]:
    """What a server tells of itself."""
    return {
        ADDRESS_TAG: address,
        DIRECTORY_TAG: directory_id,
        CLUSTER_TAG: cluster_id,
        ROLE_TAG: MEMBER if cluster_id else JOINING,
        VERSION_TAG: program_version(),
    }


def _make_membership(config: ServerConfig, tags: Mapping[str, str]) -> Membership:
    keys = config.gossip_keys()
    if not keys and not is_loopback(split_address(config.bind_addr)[0]):
        log.warning(
            "gossip is not encrypted: who can reach its port can pretend that servers come, leave or fail",
            hint="give gossip-key-file",
        )
    return Membership(
        None,
        MembershipConfig(
            node_name=config.node_name,
            bind_addr=config.bind_addr,
            advertise_addr=config.advertise_addr,
            tags=tags,
            start_join_addrs=config.start_join_addrs,
            profile=_profile(config),
            keys=keys,
            keyring_file=Path(config.data_dir) / KEYS_FILE,
        ),
    )


def _profile(config: ServerConfig) -> SerfConfig:
    """A container that is started anew has its name and another address, and is to be heard soon."""
    profile = PROFILES[config.gossip_profile]
    return replace(profile, swim=replace(profile.swim, dead_reclaim_s=RECLAIM_S))


async def find_cluster(source: Source, identify: Identify, *, own_name: str) -> tuple[str, bool]:
    """(id of a cluster that others are of, as far as `source` knows now, "" if there is none; whether all others said so)."""
    others = [each for each in source.members() if each.name != own_name and each.is_there]
    addresses = [each.address for each in others if each.address]

    async def cluster_at(address: str) -> str | None:
        try:
            async with asyncio.timeout(ASK_S_MAX):
                welcome = await identify(address)
        except (RaftlogError, TimeoutError):
            return None
        return "" if welcome.node == own_name else welcome.cluster_id

    asked = await asyncio.gather(*map(cluster_at, addresses[:ASKED_MAX]))
    told = [each.cluster_id for each in others]
    found = next((each for each in (*asked, *told) if each), "")
    return found, None not in asked and len(addresses) <= ASKED_MAX


class GossipKeys:
    """Of one server's gossip, as the service wants them (raftlog/server/gossip_keys.py)."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    @property
    def is_authenticated(self) -> bool:
        return self._membership.is_authenticated

    async def keys(self, action: str, key: bytes) -> KeysResult:
        try:
            return await self._membership.keys(KeyAction(action), key)
        except (ValueError, GossipEnded) as error:
            raise NotSupported(str(error)) from error


def gossip_keys(source: Source | None) -> GossipKeys | None:
    return GossipKeys(source) if isinstance(source, Membership) else None


def gossip_counts(source: Source | None) -> Mapping[str, int]:
    """For metrics; nothing where there is no gossip."""
    return source.counts() if isinstance(source, Membership) else {}
