"""msgpack in the form that memberlist and Serf write, and checked values out of what was read.

Go's structs are maps with the names of their fields; strings and byte strings are the same "raw" type of the old
msgpack specification. Keys that are not known are ignored, missing ones and nil stand for zero, of a repeated key the
last counts: all as Go reads them. What has another type, or is out of range, is a BadPacket.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgpack

from raftlog.serf.codec.addresses import from_wire
from raftlog.serf.codec.errors import BadPacket
from raftlog.serf.messages import Address

ITEMS_MAX: Final = 64  # of one list or map in a message of a packet; more is refused
# Lists and maps in one value or one side of a stream; one costs 72 bytes, and its wire one
CONTAINERS_MAX: Final = 32_768
MANY_ITEMS_MAX: Final = 8192  # and of one that has members in it: twice as many as are taken in
NAME_BYTES_MAX: Final = 255  # of a node's name, a tag, an event: DNS allows no longer host name
TEXT_BYTES_MAX: Final = 4096  # of any other text

BAD: Final = (ValueError, TypeError, msgpack.UnpackException)  # whatever the package raises for bad bytes


def pack(value: object) -> bytes:
    """The bytes of a value: text and bytes as raw, without the types of the newer specification."""
    packed: bytes = msgpack.packb(value, use_bin_type=False)
    return packed


class _Containers:
    """Counts lists and maps as they are made."""

    def __init__(self) -> None:
        self._left = CONTAINERS_MAX

    def take(self, container: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"more than {CONTAINERS_MAX} lists and maps")
        return container


def limits(items_max: int) -> dict[str, Any]:
    """For the package, of one value or of several one after the other. Lists are allotted at the length that they
    declare, before anything of them was read, and may be in each other 512 deep: without limits a few bytes would be
    gigabytes. No message has ext types.
    """
    take = _Containers().take
    return {
        "max_array_len": items_max,
        "max_map_len": items_max,
        "max_ext_len": 0,
        "list_hook": take,
        "object_hook": take,
    }


def unpack(data: bytes, what: str, items_max: int = ITEMS_MAX) -> Any:
    """The one value that these bytes are. BadPacket if they are none, more than one, or too large."""
    try:
        if items_max > ITEMS_MAX:
            # Read over it first, which allots nothing: after that what is declared is known to be there.
            unpacker = msgpack.Unpacker(max_buffer_size=max(len(data), 1))
            unpacker.feed(data)
            unpacker.skip()
        return msgpack.unpackb(data, raw=True, **limits(items_max))
    except BAD as error:
        raise BadPacket(f"{what}: {_reason(error)}") from None


def unpack_fields(data: bytes, what: str, items_max: int = ITEMS_MAX) -> Fields:
    """The struct that these bytes are; nil is one with nothing in it."""
    return Fields.of(unpack(data, what, items_max), what)


class Unpacking:
    """Values one after the other, with other bytes behind them."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._what = what
        size = max(len(data), 1)
        self._unpacker = msgpack.Unpacker(
            raw=True, max_buffer_size=size, max_str_len=size, max_bin_len=size, **limits(ITEMS_MAX)
        )
        self._unpacker.feed(data)

    def next_fields(self) -> Fields:
        try:
            value = self._unpacker.unpack()
        except msgpack.OutOfData:
            raise BadPacket(f"{self._what}: it ends too early, after {len(self._data)} bytes") from None
        except BAD as error:
            raise BadPacket(f"{self._what}: {_reason(error)}") from None
        return Fields.of(value, self._what)

    def rest(self) -> bytes:
        """The bytes behind what was read."""
        return self._data[self._unpacker.tell() :]


def _reason(error: Exception) -> str:
    """Why the package gave up. Its own text may quote what the bytes carry."""
    return f"no msgpack within the limits ({type(error).__name__})"


class Fields:
    """A struct that came. Each reader gives the checked value of one field, or raises BadPacket."""

    __slots__ = ("_values", "_what")

    def __init__(self, values: Mapping[bytes, Any], what: str) -> None:
        self._values = values
        self._what = what

    @classmethod
    def of(cls, value: Any, what: str) -> Fields:
        if value is None:
            return cls({}, what)
        if type(value) is not dict:
            raise BadPacket(f"{what}: expected a map, found {_kind(value)}")
        return cls(value, what)

    def _bad(self, key: bytes, expected: str, found: str) -> BadPacket:
        return BadPacket(f"{self._what}.{key.decode()}: expected {expected}, found {found}")

    def uint(self, key: bytes, bits: int) -> int:
        value = self._values.get(key)
        if value is None:
            return 0
        if type(value) is not int:
            raise self._bad(key, f"a number of {bits} bits", _kind(value))
        if value < 0 or value >> bits:
            raise self._bad(key, f"a number of {bits} bits", str(value))
        return value

    def flag(self, key: bytes) -> bool:
        value = self._values.get(key)
        if value is None:
            return False
        if type(value) is not bool:
            raise self._bad(key, "true or false", _kind(value))
        return value

    def blob(self, key: bytes, bytes_max: int | None = None) -> bytes:
        """Bytes; without a limit of their own those of the whole message bound them."""
        value = self._values.get(key)
        if value is None:
            return b""
        if type(value) is not bytes:
            raise self._bad(key, "bytes", _kind(value))
        if bytes_max is not None and len(value) > bytes_max:
            raise self._bad(key, f"{bytes_max} bytes at most", str(len(value)))
        return value

    def text(self, key: bytes, bytes_max: int = TEXT_BYTES_MAX) -> str:
        return as_text(self._values.get(key), bytes_max, f"{self._what}.{key.decode()}")

    def name(self, key: bytes) -> str:
        return self.text(key, NAME_BYTES_MAX)

    def items(self, key: bytes) -> list[Any]:
        value = self._values.get(key)
        if value is None:
            return []
        if type(value) is not list:
            raise self._bad(key, "a list", _kind(value))
        return value

    def map(self, key: bytes) -> dict[Any, Any]:
        value = self._values.get(key)
        if value is None:
            return {}
        if type(value) is not dict:
            raise self._bad(key, "a map", _kind(value))
        return value

    def struct(self, key: bytes) -> Fields:
        return Fields.of(self._values.get(key), f"{self._what}.{key.decode()}")

    def address(self, ip: bytes, port: bytes) -> Address:
        return from_wire(self.blob(ip, 16), self.uint(port, 16))

    def address_or_none(self, ip: bytes, port: bytes) -> Address | None:
        """None if either is missing: memberlist then answers to where the packet came from."""
        if not self._values.get(ip) or not self._values.get(port):
            return None
        return self.address(ip, port)


def as_text(value: Any, bytes_max: int, what: str) -> str:
    """Text out of raw bytes: UTF-8, and no longer than so many bytes."""
    if value is None:
        return ""
    if type(value) is not bytes:
        raise BadPacket(f"{what}: expected text, found {_kind(value)}")
    if len(value) > bytes_max:
        raise BadPacket(f"{what}: expected {bytes_max} bytes at most, found {len(value)}")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise BadPacket(f"{what}: expected UTF-8, found other bytes") from None


def as_uint(value: Any, bits: int, what: str) -> int:
    return Fields({b"value": value}, what).uint(b"value", bits)


def _kind(value: Any) -> str:
    names = {
        bytes: "bytes",
        dict: "a map",
        list: "a list",
        int: "a number",
        bool: "a boolean",
        float: "a fraction",
    }
    return names.get(type(value), "something else")
