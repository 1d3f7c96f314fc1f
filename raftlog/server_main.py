"""The process of a server: signals, the event loop, the garbage collector, and limits of the system."""

from __future__ import annotations

import asyncio
import resource
import signal

from raftlog.agent import Agent
from raftlog.config import ServerConfig
from raftlog.runtime.collector import tune_collector
from raftlog.runtime.logging import configure_logging, get_logger

log = get_logger(__name__)


def run(config: ServerConfig) -> int:
    """Run a server until SIGTERM or SIGINT, and return the exit code. A second signal ends it at once."""
    if not __debug__:
        raise RuntimeError("python -O takes the assertions out that guard the log; run without it")
    configure_logging(level=config.log_level, format=config.log_format)
    allow_open_files()
    if config.sync != "always":
        log.warning("acknowledged records can be lost with the power", sync=config.sync)
    if config.unused:
        log.warning("settings without a meaning here", settings=", ".join(config.unused))
    try:
        import uvloop
    except ImportError:
        return asyncio.run(_serve(config))
    return uvloop.run(_serve(config))


async def _serve(config: ServerConfig) -> int:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _ask_to_stop, loop, asked)
    async with Agent(config) as agent:
        undo = tune_collector(agent.metrics.collection_seconds.observe)
        assert agent.failed is not None
        waiting = asyncio.create_task(asked.wait())
        await asyncio.wait((waiting, agent.failed), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        undo()
        if config.leave_on_terminate and asked.is_set():
            await agent.leave()
        return agent.failed.result() if agent.failed.done() else 0


def _ask_to_stop(loop: asyncio.AbstractEventLoop, asked: asyncio.Event) -> None:
    asked.set()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)


def allow_open_files() -> None:
    """As many as this user may have: each segment of the log holds one, and so does each connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:  # the system allows less than it says
        log.warning("open files not raised", allowed=soft, wanted=hard, reason=str(error))
