"""Real agents of Serf on the loopback interface: `serf agent` of the Debian package serf."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import pytest

COMMAND_S_MAX: Final = 30.0
DEADLINE_S: Final = 45.0  # agents detect failures in some five seconds; more where the machine is busy
START_TRIES: Final = 5  # its ports may be taken between the look for free ones and its start

needs_serf = pytest.mark.skipif(
    shutil.which("serf") is None, reason="there is no serf command (Debian: apt-get install serf)"
)

HANDLER: Final = """#!/bin/sh
# Writes down every event, and answers queries with what it was sent.
payload=$(cat)
echo "$SERF_EVENT $SERF_USER_EVENT$SERF_QUERY_NAME $payload" >> "{events}"
if [ "$SERF_EVENT" = query ]; then printf '%s' "answer to $payload"; fi
"""


class CommandFailed(Exception):
    """A command of serf ended with an error; the text is what it said."""


class Known(NamedTuple):
    """A member as an agent lists it."""

    status: str
    tags: Mapping[str, str]
    address: str


class SerfAgent:
    """One process, ended with the `async with`."""

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        key: bytes | None = None,
        tags: Mapping[str, str] | None = None,
        joins: Sequence[str] = (),
        host: str = "127.0.0.1",
        advertise: str | None = None,
        profile: str = "local",
    ) -> None:
        """`advertise`: what others are told, where that is not what it listens on."""
        self.name = name
        self.host = host
        self._folder = folder / name
        self._folder.mkdir(exist_ok=True)
        self._key = key
        self._tags = dict(tags or {})
        self._joins = joins
        self._advertise = advertise
        self._profile = profile
        self._process: asyncio.subprocess.Process | None = None
        self._port = self._rpc_port = 0

    @property
    def address(self) -> str:
        return f"{self.host}:{self._port}"

    @property
    def keyring_file(self) -> Path:
        return self._folder / "keyring.json"

    async def __aenter__(self) -> Self:
        for _ in range(START_TRIES):
            if await self._start():
                return self
        raise AssertionError(f"serf agent does not start: {self.log()}")

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def _start(self) -> bool:
        self._port, self._rpc_port = free_ports(self.host)
        handler, events = self._folder / "handler.sh", self._folder / "events"
        handler.write_text(HANDLER.format(events=events))
        handler.chmod(0o755)
        events.touch()
        options = [
            f"-node={self.name}", f"-bind={self.address}", f"-rpc-addr={self.host}:{self._rpc_port}",
            f"-profile={self._profile}", "-log-level=debug", f"-event-handler={handler}",
        ]  # fmt: skip
        if self._key is not None:
            if not self.keyring_file.exists():
                self.keyring_file.write_text(json.dumps([base64.b64encode(self._key).decode()]))
            options.append(f"-keyring-file={self.keyring_file}")
        if self._advertise is not None:
            options.append(f"-advertise={self._advertise}")
        options += [f"-tag={name}={value}" for name, value in self._tags.items()]
        options += [f"-join={address}" for address in self._joins]
        with open(self._folder / "log", "ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                "serf", "agent", *options, stdout=log, stderr=log, stdin=asyncio.subprocess.DEVNULL
            )  # fmt: skip
        async with asyncio.timeout(DEADLINE_S):
            while self._process.returncode is None:
                try:
                    await self.command("members")
                    return True
                except CommandFailed:
                    await asyncio.sleep(0.02)
        return False

    async def kill(self) -> None:
        """As a machine that loses its power: the others have to find out."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    def log(self) -> str:
        return (self._folder / "log").read_text()

    def events(self) -> list[str]:
        """What its handler was called with: kind, name and payload; of members, the lines of the payload follow."""
        return (self._folder / "events").read_text().splitlines()

    async def command(self, *words: str) -> str:
        """What `serf <words>` prints; CommandFailed."""
        name, *options = words
        process = await asyncio.create_subprocess_exec(
            "serf", name, f"-rpc-addr={self.host}:{self._rpc_port}", *options,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            output, _ = await asyncio.wait_for(process.communicate(), COMMAND_S_MAX)
        except BaseException:
            if process.returncode is None:
                process.kill()
            await process.wait()
            raise
        if process.returncode != 0:
            raise CommandFailed(f"serf {' '.join(words)}: {output.decode()}")
        return output.decode()

    async def members(self) -> dict[str, Known]:
        listed: list[dict[str, Any]] = (
            json.loads(await self.command("members", "-format=json"))["members"] or []
        )
        return {one["name"]: Known(one["status"], one["tags"], one["addr"]) for one in listed}

    async def statuses(self) -> dict[str, str]:
        return {name: known.status for name, known in (await self.members()).items()}

    async def until_sees(self, wanted: Mapping[str, str]) -> None:
        """Wait until it lists these members, and no others, with these statuses."""
        found: dict[str, str] = {}
        try:
            async with asyncio.timeout(DEADLINE_S):
                while (found := await self.statuses()) != wanted:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{self.name} lists {found}, not {dict(wanted)}") from None

    async def until_tags(self, name: str, wanted: Mapping[str, str]) -> None:
        """Wait until it lists this member with these tags, and no others."""
        found: Mapping[str, str] = {}
        try:
            async with asyncio.timeout(DEADLINE_S):
                while (found := (await self.members())[name].tags) != wanted:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{self.name} lists {name} with {found}, not {dict(wanted)}") from None

    async def until_heard(self, event: str) -> None:
        """Wait until its handler was called with this."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while event not in self.events():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{self.name} heard {self.events()}, not {event!r}") from None


def free_ports(host: str) -> tuple[int, int]:
    """Two that nobody listens on now: free for packets and streams, and for streams."""
    while True:
        with (
            socket.socket() as one,
            socket.socket() as other,
            socket.socket(type=socket.SOCK_DGRAM) as packets,
        ):
            one.bind((host, 0))
            other.bind((host, 0))
            try:
                packets.bind(one.getsockname())
            except OSError:
                continue
            return one.getsockname()[1], other.getsockname()[1]


async def until(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    """Wait for what cannot be awaited; the test fails with `what` there is instead."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"it did not become true in time: {what()}") from None
