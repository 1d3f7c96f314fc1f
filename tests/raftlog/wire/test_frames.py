from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftlog.wire.frames import HEADER_BYTES, BadFrame, FrameReader, frame_header

FRAMES = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40)), max_size=6)


def framed(frames: list[tuple[int, bytes]]) -> bytes:
    return b"".join(frame_header(type, len(payload)) + payload for type, payload in frames)


def fed(reader: FrameReader, data: bytes) -> list[tuple[int, bytes]]:
    return [(type, bytes(payload)) for type, payload in reader.feed(data)]


@given(FRAMES, st.lists(st.integers(0, 200)))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(
    frames: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    stream = framed(frames)
    places = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    reader = FrameReader(40)

    out = [
        one for start, end in zip(places, places[1:], strict=False) for one in fed(reader, stream[start:end])
    ]

    assert out == frames


def test_a_frame_exactly_as_long_as_allowed_is_taken() -> None:
    assert fed(FrameReader(3), framed([(7, b"abc")])) == [(7, b"abc")]


def test_a_frame_one_byte_too_long_is_refused_when_its_header_is_there() -> None:
    reader = FrameReader(3)

    with pytest.raises(BadFrame, match="a frame of 4 bytes: at most 3 are taken"):
        reader.feed(frame_header(7, 4))


def test_nothing_of_a_huge_frame_is_waited_for() -> None:
    reader = FrameReader(64 * 1024 * 1024)

    with pytest.raises(BadFrame, match="4294967295 bytes"):
        reader.feed(b"\xff" * HEADER_BYTES)


def test_the_limit_can_be_raised_between_two_frames() -> None:
    reader = FrameReader(3)
    stream = framed([(1, b"abc"), (2, b"longer")])
    first = fed(reader, stream[: HEADER_BYTES + 3])

    reader.payload_bytes_max = 6

    assert first + fed(reader, stream[HEADER_BYTES + 3 :]) == [(1, b"abc"), (2, b"longer")]
