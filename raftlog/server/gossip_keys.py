"""Keys that gossip is encrypted with: what operators may do with them, and what would cut members off from each other.

A key is a secret that goes in and never comes out: outside of the servers' files it is known by its id. Nothing here
knows gRPC.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Final, Protocol

from raftlog.errors import InvalidRequest, MembershipRefused, NotSupported
from raftlog.pb.raftlog.v1 import cluster_pb2 as pb
from raftlog.server.call import OBJECT, Access, Call

ACTIONS: Final = ("list", "install", "use", "remove")
KEY_BYTES: Final = (16, 24, 32)  # of AES
ID_DIGITS: Final = 16  # 64 bits of a hash: enough to tell a handful of keys apart


class KeysAnswer(Protocol):
    """What members answered."""

    @property
    def members(self) -> int: ...  # that were asked
    @property
    def answers(self) -> int: ...
    @property
    def errors(self) -> Mapping[str, str]: ...  # why not, by name
    @property
    def keys(self) -> Mapping[str, int]: ...  # how many have a key, by its base64; for list
    @property
    def primary_keys(self) -> Mapping[str, int]: ...  # how many encrypt with it


class GossipKeys(Protocol):
    @property
    def is_authenticated(self) -> bool:
        """Whether there are keys: only who has one is heard."""
        ...

    async def keys(self, action: str, key: bytes) -> KeysAnswer:
        """Ask all members: list, install, use, remove. Returns once all answered, or the time for that is over.

        Doing it twice does no harm. RaftlogError if this server gossips no more.
        """
        ...


class GossipKeysService:
    """`ChangeGossipKeys` of `raftlog.v1.Cluster`; its proto file says what it promises."""

    def __init__(self, access: Access, *, gossip: GossipKeys | None) -> None:
        """`gossip` is None where this server has none."""
        self._access = access
        self._gossip = gossip

    async def change_gossip_keys(
        self, request: pb.ChangeGossipKeysRequest, call: Call
    ) -> pb.ChangeGossipKeysResponse:
        self._access.check(call.subject, OBJECT, "admin")
        gossip, action = self._gossip, request.action
        if gossip is None:
            raise NotSupported("this server does not gossip, so there are no keys (discovery is not gossip)")
        if action not in ACTIONS:
            raise InvalidRequest(f"action: {action[:20]!r} is none of {', '.join(ACTIONS)}")
        if (action != "list") != (bool(request.key) != bool(request.key_id)):
            raise InvalidRequest(
                "list takes no key; install, use and remove take either a key or the id of one"
            )
        if request.key and len(request.key) not in KEY_BYTES:
            raise InvalidRequest(f"key: 16, 24 or 32 bytes are needed, {len(request.key)} came")

        if not gossip.is_authenticated:
            raise MembershipRefused(
                "the gossip is not encrypted, so there are no keys: start all servers with --gossip-key-file"
            )
        if action == "install" and request.key:
            return _answer(await gossip.keys(action, request.key))
        found = await gossip.keys("list", b"")
        if action == "list":
            return _answer(found)
        key = request.key or _key_with(request.key_id, found)
        _require_harmless(action, key, found)
        return _answer(await gossip.keys(action, key))


def key_id(key: bytes) -> str:
    """What a key is called where it must not be shown."""
    return hashlib.sha256(key).hexdigest()[:ID_DIGITS]


def _key_with(id: str, found: KeysAnswer) -> bytes:
    for text in found.keys:
        key = _raw(text)
        if key_id(key) == id:
            return key
    raise InvalidRequest(
        f"key_id: none of the {found.answers} members that answered has a key with the id {id[:80]}"
    )


def _require_harmless(action: str, key: bytes, found: KeysAnswer) -> None:
    """MembershipRefused where some members would not understand others afterwards."""
    having, primary = (
        sum(count for text, count in counts.items() if _raw(text) == key)
        for counts in (found.keys, found.primary_keys)
    )
    if action == "use" and having < found.members:
        raise MembershipRefused(
            f"{having} of {found.members} members are known to have the key {key_id(key)}: those without it would "
            "understand nobody; install it on all first, and see that all of them answer"
        )
    if action == "remove" and primary:
        raise MembershipRefused(
            f"{primary} of {found.members} members still encrypt with the key {key_id(key)}: use another one first"
        )
    if action == "remove" and found.answers < found.members:
        raise MembershipRefused(
            f"{found.answers} of {found.members} members answered: the others may still encrypt with the key "
            f"{key_id(key)}; try again when all answer"
        )


def _answer(found: KeysAnswer) -> pb.ChangeGossipKeysResponse:
    keys = [
        pb.GossipKey(id=key_id(_raw(text)), members=count, primary_members=found.primary_keys.get(text, 0))
        for text, count in found.keys.items()
    ]
    return pb.ChangeGossipKeysResponse(
        members=found.members,
        answers=found.answers,
        errors=dict(found.errors),
        keys=sorted(keys, key=lambda one: one.id),
    )


def _raw(text: str) -> bytes:
    """The key; of what another program has sent and is no base64, nothing that could be one."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
