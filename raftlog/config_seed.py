"""Settings as bbengfort/raft has them: its keys are understood in every file, and its variables (RAFT_NAME) are read.

Its tick is the heartbeat's interval, and elections come after two to four of them; its timeout is that of a connection.
Where neither is given our defaults count, not its own. What has no meaning here is named in one warning.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from raftlog.config_files import Layer, Setting
from raftlog.config_values import parse_duration_ms

PREFIX: Final = "RAFT_"
FILE_VARIABLES: Final = ("RAFT_CONFIG", "RAFTCONF")
_ENDINGS: Final = ("toml", "json", "yml", "yaml")  # the order in which that program looks


def _name(value: object) -> dict[str, object]:
    return {} if value == "" else {"node_name": value}  # its word for the host's name


def _tick(value: object) -> dict[str, object]:
    milliseconds = parse_duration_ms(value)
    if not isinstance(milliseconds, int):
        raise ValueError("not a duration; write 100ms or 1s")  # noqa: TRY004  # told to the user as the others
    return {
        "heartbeat_interval_ms": milliseconds,
        "election_timeout_ms_min": 2 * milliseconds,
        "election_timeout_ms_max": 4 * milliseconds,
    }


def _timeout(value: object) -> dict[str, object]:
    return {"dial_timeout_ms": value}


def _leader(value: object) -> dict[str, object]:
    return {"first_leader": value}


def _console_log(value: object) -> dict[str, object]:
    text = str(value).strip().lower()
    if text not in _TRUE | _FALSE:
        raise ValueError("neither true nor false")
    return {"log_format": "console" if text in _TRUE else "json"}


_TRUE: Final = {"true", "1", "t", "yes", "on"}
_FALSE: Final = {"false", "0", "f", "no", "off"}
_MEANINGS: Final[Mapping[str, Callable[[object], dict[str, object]]]] = {
    "name": _name, "tick": _tick, "timeout": _timeout, "leader": _leader, "console_log": _console_log,
}  # fmt: skip
IGNORED: Final = frozenset({"seed", "aggregate", "uptime", "metrics"})
KEYS: Final = frozenset({*_MEANINGS, *IGNORED})  # log_level and peers are ours as well


def translate(key: str, setting: Setting) -> Layer:
    """Our settings for one of KEYS, none if it has no meaning here; ValueError says what is wrong with its value."""
    if key in IGNORED:
        return {}
    return {field: Setting(value, setting.source) for field, value in _MEANINGS[key](setting.value).items()}


def variables() -> Iterator[tuple[str, Setting]]:
    """(key, setting) of each variable of that program which is set."""
    for key in sorted({*KEYS, "log_level"}):
        variable = PREFIX + key.upper()
        if (text := os.environ.get(variable)) is not None:
            yield key, Setting(text, f"environment: {variable}")


def named_file() -> str | None:
    return next((path for variable in FILE_VARIABLES if (path := os.environ.get(variable))), None)


def search_paths() -> Iterator[Path]:
    """Where that program looks, in its order: here, at home, in /etc."""
    for stem in ("raft", os.path.join(os.path.expanduser("~"), ".raft"), "/etc/raft"):
        for ending in _ENDINGS:
            yield Path(f"{stem}.{ending}")
