"""Values of settings, as people write them in files, variables and flags -> as the server uses them.

Each type below takes its own type as well, as a file in JSON or TOML gives it, and says what is wrong in words that
fit behind "rpc-port is 'abc': ".
"""

from __future__ import annotations

import os
import re
from fractions import Fraction
from typing import Annotated, Final

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from raftlog.net.addresses import PORT_MAX, split_address

_BYTE_UNITS: Final = {
    "": 1, "b": 1,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
}  # fmt: skip
_BYTES: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.ASCII)

_DURATION_UNITS_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhd])\s*)+", re.ASCII)
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])", re.ASCII)

_LEVELS: Final = {"trace": "debug", "warn": "warning", "fatal": "error", "panic": "error"}
_NODE_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")

# ── parsing ─────────────────────────────────────────────────────────────────────────────────────────


def parse_bytes(value: object) -> object:
    """Bytes from 64MiB (2**20), 64MB (10**6) or a number; ValueError. What is no text is left to pydantic."""
    if not isinstance(value, str):
        return refuse_bool(value)
    match = _BYTES.fullmatch(value.strip().lower())
    if match is None or match[2] not in _BYTE_UNITS:
        raise ValueError("not a size; write 64MiB, 64MB or a number of bytes")
    return _whole(Fraction(match[1]) * _BYTE_UNITS[match[2]], "bytes")


def parse_duration_ms(value: object) -> object:
    """Milliseconds from 10s, 5m, 1h30m, 7d or a number; ValueError. What is no text is left to pydantic."""
    if not isinstance(value, str):
        return refuse_bool(value)
    text = value.strip().lower()
    if text.isascii() and text.isdecimal():
        return int(text)
    if not _DURATION.fullmatch(text):
        raise ValueError("not a duration; write 10s, 5m, 1h30m, 7d or a number of milliseconds")
    parts = _DURATION_PART.findall(text)
    return _whole(sum(Fraction(count) * _DURATION_UNITS_MS[unit] for count, unit in parts), "milliseconds")


def _whole(number: Fraction | int, unit: str) -> int:
    if number.denominator != 1:
        raise ValueError(f"that is {float(number)} {unit}, not a whole number of them")
    return int(number)


def refuse_bool(value: object) -> object:
    """ValueError for a bool, which pydantic takes for the number 0 or 1."""
    if isinstance(value, bool):
        raise ValueError("not a number")  # noqa: TRY004  # pydantic reports a ValueError
    return value


def none_if_off(value: object) -> object:
    """None for "", "none" and "off": so a later source can take back what an earlier one set.

    False is what YAML makes of a bare off.
    """
    is_off = value is False or (isinstance(value, str) and value.strip().lower() in ("", "none", "off"))
    return None if is_off else value


def split_commas(value: object) -> object:
    """A list from "a, b" or from a list of such, as repeated flags give it."""
    parts = value if isinstance(value, list | tuple) else [value]
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) < len(parts):
        return value  # pydantic tells what is wrong
    return [piece.strip() for text in texts for piece in text.split(",") if piece.strip()]


def lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def off_of_false(value: object) -> object:
    """The word in small letters, "off" where YAML made False of it."""
    return "off" if value is False else lower(value)


def level_of(value: object) -> object:
    """The level that has this name, also as other programs name theirs."""
    level = value.strip().lower() if isinstance(value, str) else value
    return _LEVELS.get(level, level) if isinstance(level, str) else level


def expand_home(value: object) -> object:
    """The path with ~ replaced, which no shell does in a file."""
    return os.path.expanduser(value) if isinstance(value, str) else value


def check_address(value: object) -> object:
    if isinstance(value, str):
        split_address(value)
    return value


def check_dns_name(value: object) -> object:
    """ValueError unless it is host:port, or the name of SRV records, which tell the port."""
    if not isinstance(value, str) or value.startswith("_"):
        return value
    host, port = split_address(value)
    if port == 0:
        raise ValueError(f"port 0 is none that {host} can be reached at")
    return value


def check_node_name(value: object) -> object:
    """ValueError unless the name can be a part of host names, file names and certificates."""
    if isinstance(value, str) and not _NODE_NAME.fullmatch(value):
        raise ValueError("use up to 63 letters, digits and . _ - and begin and end with a letter or digit")
    return value


# ── types ───────────────────────────────────────────────────────────────────────────────────────────

Count = Annotated[int, Field(ge=1), BeforeValidator(refuse_bool)]
Bytes = Annotated[int, Field(ge=1), BeforeValidator(parse_bytes)]
DurationMs = Annotated[int, Field(ge=1), BeforeValidator(parse_duration_ms)]
Port = Annotated[int, Field(ge=0, le=PORT_MAX), BeforeValidator(refuse_bool)]
Address = Annotated[str, BeforeValidator(check_address)]
Addresses = Annotated[tuple[Address, ...], NoDecode, BeforeValidator(split_commas)]
NodeName = Annotated[str, BeforeValidator(check_node_name)]
Names = Annotated[tuple[str, ...], Field(min_length=1), NoDecode, BeforeValidator(split_commas)]
DnsNames = Annotated[
    tuple[Annotated[str, BeforeValidator(check_dns_name)], ...], NoDecode, BeforeValidator(split_commas)
]
Path = Annotated[str, Field(min_length=1), BeforeValidator(expand_home)]

OptionalAddress = Annotated[Address | None, BeforeValidator(none_if_off)]
OptionalNodeName = Annotated[NodeName | None, BeforeValidator(none_if_off)]
OptionalCount = Annotated[Count | None, BeforeValidator(none_if_off)]
OptionalBytes = Annotated[Bytes | None, BeforeValidator(none_if_off)]
OptionalDurationMs = Annotated[DurationMs | None, BeforeValidator(none_if_off)]
OptionalPort = Annotated[Port | None, BeforeValidator(none_if_off)]
OptionalPath = Annotated[Path | None, BeforeValidator(none_if_off)]
