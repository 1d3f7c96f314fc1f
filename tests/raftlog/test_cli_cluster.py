"""`raftlog cluster`: a user's first three servers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from raftlog.local_cluster import LocalCluster

COMMAND_S_MAX = 60.0
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("RAFT")}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "cluster"
    LocalCluster(tmp_path / "cluster").end()


def raftlog(*arguments: str, **environment: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "raftlog", *arguments], check=False, capture_output=True, text=True,
        env={**ENVIRONMENT, **environment}, timeout=COMMAND_S_MAX, input="hello\n",
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_a_cluster_comes_up_works_as_it_says_grows_and_goes(folder: Path) -> None:
    where = ("--dir", str(folder))
    code, shown, errors = raftlog("cluster", "up", "--nodes", "2", *where)
    assert (code, errors) == (0, "")
    names = re.findall(r"^(n\d)  127\.0\.0\.1:\d+  started", shown, re.MULTILINE)
    assert names == ["n1", "n2"]
    exported = dict(re.findall(r"^export (\w+)=(.*)$", shown, re.MULTILINE))

    assert raftlog("produce", **exported)[0] == 0
    assert raftlog("consume", "--format", "raw", **exported) == (0, "hello\n", "")
    code, states, _ = raftlog("cluster", "status", *where)
    assert code == 0
    assert len(re.findall(r"^n\d  \S+  process \d+$", states, re.MULTILINE)) == 2

    code, grown, _ = raftlog("cluster", "up", "--nodes", "3", "--json", *where)
    found = json.loads(grown)
    assert (code, found["started"], list(found["addresses"])) == (0, ["n3"], ["n1", "n2", "n3"])
    assert raftlog("cluster", "up", "--nodes", "2", *where)[0] == 1

    assert raftlog("cluster", "down", *where) == (0, "n1 stopped\nn2 stopped\nn3 stopped\n", "")
    code, states, _ = raftlog("cluster", "status", "--json", *where)
    assert code == 1
    assert [json.loads(line)["process"] for line in states.splitlines()] == [None, None, None]

    assert raftlog("cluster", "up", *where)[0] == 0
    assert raftlog("consume", "--format", "raw", **exported) == (0, "hello\n", "")
    code, shown, _ = raftlog("cluster", "down", "--remove", *where)
    assert (code, shown.splitlines()[-1]) == (0, f"{folder} removed")
    assert not folder.exists()


def test_a_folder_without_a_cluster_is_told_of(folder: Path) -> None:
    expected = f"raftlog: {folder} holds no cluster; `raftlog cluster up --dir {folder}` makes one\n"

    assert raftlog("cluster", "status", "--dir", str(folder)) == (2, "", expected)
    assert raftlog("cluster", "down", "--dir", str(folder)) == (2, "", expected)
    assert not folder.exists()
