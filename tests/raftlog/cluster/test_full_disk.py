"""A disk without room, on a file system of its own, where this user may mount one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from raftlog import Client
from raftlog.client.failures import CallFailed
from tests.raftlog.cluster.servers import Servers, serving

DISK_BYTES: Final = 64 << 20
NO_ROOM: Final = "the disk of the leader has no room; nothing was stored"
FULL: Final = "n1"  # leads first


class Small(NamedTuple):
    servers: Servers
    disk: Path  # of FULL


@pytest.fixture
def small(folder: Path) -> Iterator[Small]:
    """Three servers, of which one has its data on a small file system."""
    disk = folder / FULL / "data"

    def mount(servers: Servers) -> None:
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        stack.callback(subprocess.run, ["umount", str(disk)], check=True)

    with ExitStack() as stack:
        yield Small(stack.enter_context(serving(Servers(folder), 3, prepare=mount)), disk)


def fill(ballast: Path) -> None:
    """Leave no byte free."""
    with ballast.open("wb") as file:
        free = os.statvfs(ballast.parent)
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)


def test_a_leader_with_a_full_disk_refuses_records_until_there_is_room(small: Small) -> None:
    servers, disk = small
    address = servers.addresses[FULL]
    with servers.load() as load:
        load.wait_for_progress()
        assert servers.leader() == FULL
        ballast = disk / "ballast"
        fill(ballast)
        with Client(address, tls=servers.tls, timeout_s=2.0) as client:
            servers.wait_until(
                lambda: "room" in client.status(address).trouble, "it does not say that it is full"
            )
            with pytest.raises(CallFailed, match=NO_ROOM):
                client.append(b"one too many")
            assert client.read(load.start).offset == load.start
        ballast.unlink()
        load.wait_for_progress()

        servers.require_sound(load, refusal=NO_ROOM)
