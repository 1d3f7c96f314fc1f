from __future__ import annotations

import array
import copy
import pickle
from typing import Any

import pytest

from logstore import Record

FULL = Record(b"value", key=b"key", timestamp=7, headers=(("name", b"header"),), offset=3, term=2)


def test_record_is_a_tuple_of_its_six_fields() -> None:
    assert tuple(FULL) == (3, b"value", b"key", 7, (("name", b"header"),), 2)
    assert FULL == (3, b"value", b"key", 7, (("name", b"header"),), 2)
    assert hash(FULL) == hash(tuple(FULL))


def test_record_to_append_has_a_value_and_nothing_else() -> None:
    assert tuple(Record(b"value")) == (-1, b"value", b"", 0, (), 0)


@pytest.mark.parametrize(
    "value",
    [b"\1\0\2\0", bytearray(b"\1\0\2\0"), memoryview(b"\1\0\2\0"), array.array("H", [1, 2])],
    ids=["bytes", "bytearray", "memoryview", "array of wider items"],
)
def test_bytes_like_value_and_key_are_kept_as_bytes(value: Any) -> None:
    record = Record(value, key=value)

    assert (record.value, record.key) == (b"\1\0\2\0", b"\1\0\2\0")
    assert type(record.value) is type(record.key) is bytes


@pytest.mark.parametrize("value", [5, [1, 2], "text", None])
def test_value_or_key_that_is_not_bytes_like_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="bytes-like"):
        Record(value)
    with pytest.raises(TypeError, match="bytes-like"):
        Record(b"", key=value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_record_comes_back_equal_and_as_a_record(protocol: int) -> None:
    back = pickle.loads(pickle.dumps(FULL, protocol))

    assert back == FULL and type(back) is Record


def test_copied_and_replaced_records_are_records() -> None:
    assert copy.deepcopy(FULL) == FULL
    assert type(copy.deepcopy(FULL)) is type(FULL._replace(value=b"other")) is Record
    assert FULL._replace(value=b"other") == (3, b"other", b"key", 7, (("name", b"header"),), 2)


def test_repr_of_a_record_makes_it_again() -> None:
    assert eval(repr(FULL), {"Record": Record}) == FULL
