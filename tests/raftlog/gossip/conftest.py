from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

SCENARIO_S_MAX = 90.0
LEFT_S_MAX = 20.0  # for tasks to end
Run = Callable[[Coroutine[Any, Any, None]], None]


async def checked(scenario: Coroutine[Any, Any, None]) -> None:
    await asyncio.wait_for(scenario, SCENARIO_S_MAX)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        _, pending = await asyncio.wait(left, timeout=LEFT_S_MAX)
        assert not pending, pending


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a scenario on each loop, and fails if it hangs or leaves tasks behind."""
    return lambda scenario: request.param(checked(scenario))


@pytest.fixture
def run_once() -> Run:
    """On the loop of production only: for what takes long and does not depend on the loop."""
    return lambda scenario: uvloop.run(checked(scenario))
