"""Streams of requests that are answered in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeVar

from logstore import QueueFull
from raftlog.errors import Overloaded, ServerStopping

AHEAD_MAX: Final = 256  # requests of a produce stream that are begun and not answered; then reading waits

Request = TypeVar("Request")
Response = TypeVar("Response")
Begun = tuple[asyncio.Future[int], Callable[[int], Response]]  # what is on its way, and the answer made of it


async def in_order(
    requests: AsyncIterator[Request],
    begin: Callable[[Request], Awaitable[Begun[Response]]],
    room: Callable[[], Awaitable[None]],
    readers: set[asyncio.Task[None]],
) -> AsyncGenerator[Response]:
    """The answers to `requests`, in their order. Up to AHEAD_MAX are begun before the first is answered.

    Where `begin` is refused because too much is on its way, waits for room and so makes the sender wait. Ends when
    all are answered and no more come. After the first error no more are begun; those that were may be carried out.
    Its task that takes requests is in `readers` meanwhile; if that is cancelled, ServerStopping is the first error.
    """
    begun: asyncio.Queue[Begun[Response] | None] = asyncio.Queue(AHEAD_MAX)

    async def begin_one(request: Request) -> Begun[Response]:
        while True:
            try:
                return await begin(request)
            except (Overloaded, QueueFull):
                await room()
                await asyncio.sleep(0)  # the log may be full of what `room` does not wait for

    async def begin_all() -> None:
        try:
            async for request in requests:
                await begun.put(await begin_one(request))
        finally:
            await begun.put(None)

    reader = asyncio.create_task(begin_all())
    readers.add(reader)
    reader.add_done_callback(readers.discard)
    try:
        while (one := await begun.get()) is not None:
            future, response = one
            yield response(await future)
        await asyncio.wait((reader,))
        if reader.cancelled():
            raise ServerStopping
        reader.result()
    finally:
        reader.cancel()
        while not begun.empty():
            if (left := begun.get_nowait()) is not None:
                left[0].cancel()
                left[0].add_done_callback(_look_at)
        reader.add_done_callback(_look_at)


def _look_at(done: asyncio.Future[Any]) -> None:
    """Of what nobody waits for, let no error be reported as overlooked."""
    if not done.cancelled():
        done.exception()
