"""The command line `logstore`, run within the test's own process."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import NamedTuple
from unittest import mock

from logstore.cli import run


class Done(NamedTuple):
    code: int
    out: str
    err: str


def logstore(*arguments: str | os.PathLike[str], stdin: bytes = b"") -> Done:
    """What `logstore ARGUMENTS` prints, and its exit status."""
    with (
        _streams(stdin) as (out, err),
        mock.patch.object(sys, "argv", ["logstore", *(str(one) for one in arguments)]),
    ):
        try:
            run()
        except SystemExit as end:
            code = 0 if end.code is None else end.code
            assert isinstance(code, int)
        else:
            code = 0
    return Done(code, _text(out), _text(err))


@contextlib.contextmanager
def _streams(stdin: bytes) -> Iterator[tuple[io.TextIOWrapper, io.TextIOWrapper]]:
    streams = [io.TextIOWrapper(io.BytesIO(data), "utf-8", write_through=True) for data in (stdin, b"", b"")]
    with mock.patch.multiple(sys, stdin=streams[0], stdout=streams[1], stderr=streams[2]):
        yield streams[1], streams[2]


def _text(stream: io.TextIOWrapper) -> str:
    data = stream.buffer
    assert isinstance(data, io.BytesIO)
    return data.getvalue().decode()
