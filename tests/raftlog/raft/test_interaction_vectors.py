"""The public interaction vectors of etcd's raft, run on our core: what is compared is told in rafttest_trace.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.raftlog.raft.datadriven import read_directives, vector_files
from tests.raftlog.raft.rafttest_trace import run


@pytest.mark.parametrize("path", vector_files("interaction"))
def test_nodes_do_what_the_vector_says(path: Path) -> None:
    directives = read_directives(path)

    found = run(directives)

    assert not found, "\n".join(found)
