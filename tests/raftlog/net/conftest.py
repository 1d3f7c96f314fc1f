from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

SCENARIO_S_MAX = 60.0
LEFT_S_MAX = 20.0  # for tasks to end
Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a scenario on each loop, and fails if it hangs or leaves tasks behind."""

    async def checked(scenario: Coroutine[Any, Any, None]) -> None:
        await asyncio.wait_for(scenario, SCENARIO_S_MAX)
        async with asyncio.timeout(LEFT_S_MAX):
            while asyncio.all_tasks() - {asyncio.current_task()}:  # of the servers that tests made themselves
                await asyncio.sleep(0.002)

    def runner(scenario: Coroutine[Any, Any, None]) -> None:
        request.param(checked(scenario))

    return runner
