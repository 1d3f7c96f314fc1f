"""From one key of the gossip to another without a moment in which members do not understand each other.

1. Every member has the new key beside the old one; all still encrypt with the old.
2. Every member encrypts with the new one; who is late still uses the old, which all understand.
3. Only then is the old one removed.

Each step is done for all before the next, so it may stop anywhere and be gone on with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from raftlog.client.membership import KeysAnswer, KnownServers
from raftlog.errors import RaftlogError

CANNOT_COME_BACK: Final = "a server that misses the new key cannot come back by itself"


class KeyClient(Protocol):
    def known_servers(self) -> KnownServers: ...
    def change_gossip_keys(self, action: str, *, key: bytes = b"", key_id: str = "") -> KeysAnswer: ...


class RotationStopped(RaftlogError):
    """Not all members did as they were asked. The text says what holds now and how to go on."""


def require_ready(client: KeyClient, *, without_absent: bool) -> None:
    """RotationStopped unless all members are there, and answer."""
    _require_complete(client.change_gossip_keys("list"), "to say which keys there are", "nothing was changed")
    if not without_absent:
        require_all_present(client, f"{CANNOT_COME_BACK}. Nothing was changed")


def rotate(
    client: KeyClient, id: str, key: bytes, say: Callable[[str], None], *, without_absent: bool
) -> None:
    """Have all members use the key with this id alone. `key` is empty for one that some member has already.

    Ask `require_ready` first.
    """
    go_on = f"run `raftlog keys rotate {id}` then"
    answer = client.change_gossip_keys("install", key=key, key_id="" if key else id)
    _require_complete(answer, f"to install {id}", f"all encrypt with the old key as before; {go_on}")
    say(f"{answer.answers} of {answer.members} members have the key {id}")

    answer = client.change_gossip_keys("use", key_id=id)
    state = f"all have both keys, so they understand each other; {go_on}"
    _require_complete(answer, f"to use {id}", state)
    listed = client.change_gossip_keys("list")
    _require_complete(listed, "to say which key they use", state)
    using = sum(one.primary_members for one in listed.keys if one.id == id)
    if using < listed.members:
        raise RotationStopped(f"{using} of {listed.members} members encrypt with {id}: {state}")
    say(f"{using} of {listed.members} members encrypt with it")

    if not without_absent:  # one that failed meanwhile may encrypt with the old key when it comes back
        require_all_present(client, f"the old key stays until it is back; {go_on}")
    for old in (one.id for one in listed.keys if one.id != id):
        answer = client.change_gossip_keys("remove", key_id=old)
        _require_complete(
            answer, f"to remove {old}", f"all encrypt with the new key; some still accept the old; {go_on}"
        )
        say(f"{answer.answers} of {answer.members} members have removed the key {old}")


def require_all_present(client: KeyClient, state: str) -> None:
    """RotationStopped, with what `state` says, if a member, the asked one aside, is not alive."""
    known = client.known_servers()
    others = (one for one in known.servers if one.name != known.node_id)
    away = [one for one in others if one.raft_role and one.status != "alive"]
    if away:
        names = ", ".join(f"{one.name} ({one.status or 'not seen'})" for one in away)
        raise RotationStopped(
            f"not there: {names}: {state}.\nStart it, or remove it for good (`raftlog leave NAME`). Or give "
            "--without-absent: then, before it is started, put the new key into its --gossip-key-file and delete "
            "gossip-keys.json in its data directory"
        )


def _require_complete(answer: KeysAnswer, what: str, state: str) -> None:
    """RotationStopped unless all answered, and none refused."""
    if answer.is_complete:
        return
    refusals = [f"{name}: {reason}" for name, reason in sorted(answer.errors.items())]
    raise RotationStopped(
        "\n".join([
            f"{answer.answers} of {answer.members} members answered when asked {what}", *refusals,
            f"Stopped: {state}. `raftlog members` shows who is there; it may also have been a loss on the network",
        ])
    )  # fmt: skip
