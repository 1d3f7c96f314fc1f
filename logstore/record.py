"""A record, as callers hand it in and get it back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from typing_extensions import Buffer

Headers = tuple[tuple[str, bytes], ...]


class _Fields(NamedTuple):
    offset: int  # place in the log, from 0; -1 until appended
    value: bytes
    key: bytes  # b"" is no key
    timestamp: int  # UTC nanoseconds: the producer's if it gave one, else of the append; 0 until then
    headers: Headers
    term: int  # Raft term of its entry; 0 in a log that is embedded


class Record(_Fields):
    """`Record(value, key=..., timestamp=..., headers=...)` to append; all six fields when read.

    As a tuple it is (offset, value, key, timestamp, headers, term).
    """

    __slots__ = ()

    def __new__(
        cls,
        value: Buffer,
        key: Buffer = b"",
        timestamp: int = 0,
        headers: Headers = (),
        *,
        offset: int = -1,
        term: int = 0,
    ) -> Self:
        return tuple.__new__(cls, (offset, _bytes_of(value), _bytes_of(key), timestamp, headers, term))

    def __reduce__(self) -> tuple[Any, ...]:
        return (Record._make, (tuple(self),))


def _bytes_of(value: Buffer) -> bytes:
    return value if type(value) is bytes else bytes(memoryview(value))  # bytes(5) would be five zeros
