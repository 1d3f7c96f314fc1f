"""Configuration <-> bytes, in one canonical form: JSON with sorted keys and no spaces, in UTF-8.

    {"auto_leave":false,"learners":["n4"],"learners_next":[],"outgoing":[],"voters":["n1","n2","n3"]}

Names ascend in each list. What comes from outside is checked here, because a Configuration only asserts.
"""

from __future__ import annotations

import json
from typing import Any, Final

from raftlog.engine import NodeId
from raftlog.raft.configuration import NODE_NAME_CHARACTERS_MAX, Configuration

CONFIGURATION_BYTES_MAX: Final = 1024 * 1024  # some thousand nodes; more is not even parsed

_LISTS: Final = ("voters", "outgoing", "learners", "learners_next")
_KEYS: Final = {"auto_leave", *_LISTS}


class BadConfiguration(ValueError):
    """These bytes are not a configuration in its one form."""


def configuration_to_bytes(configuration: Configuration) -> bytes:
    return json.dumps(
        configuration_content(configuration), ensure_ascii=False, separators=(",", ":"), sort_keys=True
    ).encode()


def configuration_from_bytes(data: bytes) -> Configuration:
    """The configuration that `configuration_to_bytes` gave these bytes for; BadConfiguration for all others."""
    if len(data) > CONFIGURATION_BYTES_MAX:
        raise BadConfiguration(
            f"{len(data)} bytes are not a configuration: at most {CONFIGURATION_BYTES_MAX}"
        )
    try:
        configuration = configuration_from_content(json.loads(data))
    except BadConfiguration:
        raise
    except (ValueError, RecursionError) as error:
        raise BadConfiguration(f"not a configuration: {data[:100]!r}") from error
    # Also what JSON lets pass, as repeated keys, other encodings and spaces.
    if configuration_to_bytes(configuration) != data:
        raise BadConfiguration(f"a configuration, but not in its one form: {data[:100]!r}")
    return configuration


def configuration_content(configuration: Configuration) -> dict[str, Any]:
    """To be put into JSON."""
    return {name: list(getattr(configuration, name)) for name in _LISTS} | {
        "auto_leave": configuration.auto_leave
    }


def configuration_from_content(content: Any) -> Configuration:
    """What parsed JSON stands for; BadConfiguration if it stands for none."""
    if not isinstance(content, dict) or content.keys() != _KEYS:
        raise BadConfiguration(f"a configuration has the keys {', '.join(sorted(_KEYS))}: {content!r:.200}")
    voters, outgoing, learners, learners_next = (_names(name, content[name]) for name in _LISTS)
    auto_leave = content["auto_leave"]
    if not isinstance(auto_leave, bool):
        raise BadConfiguration(f"auto_leave is true or false, not {auto_leave!r:.100}")
    if not {*voters, *outgoing}.isdisjoint(learners):
        raise BadConfiguration(f"a node learns and votes: {content!r:.200}")
    if not set(learners_next).issubset(outgoing) or not set(learners_next).isdisjoint(voters):
        raise BadConfiguration(f"learners_next names others than outgoing voters: {content!r:.200}")
    if auto_leave and not outgoing:
        raise BadConfiguration("auto_leave without a joint configuration to leave")
    return Configuration(voters, outgoing, learners, learners_next, auto_leave)


def _names(where: str, names: Any) -> tuple[NodeId, ...]:
    if not isinstance(names, list):
        raise BadConfiguration(f"{where} is a list of names, not {names!r:.100}")
    for name in names:
        if not isinstance(name, str) or not 0 < len(name) <= NODE_NAME_CHARACTERS_MAX:
            raise BadConfiguration(
                f"{where}: a node's name has 1 to {NODE_NAME_CHARACTERS_MAX} characters: {name!r:.100}"
            )
        if not name.isprintable() or " " in name:
            raise BadConfiguration(f"{where}: a node's name has printable characters and no space: {name!a}")
    if sorted(set(names)) != names:
        raise BadConfiguration(f"{where}: names do not ascend: {names!r:.200}")
    return tuple(map(NodeId, names))
