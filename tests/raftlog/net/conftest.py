from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

SCENARIO_S_MAX = 60.0
Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a scenario on each loop, and fails if it hangs or leaves tasks behind."""

    async def checked(scenario: Coroutine[Any, Any, None]) -> None:
        await asyncio.wait_for(scenario, SCENARIO_S_MAX)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left

    def runner(scenario: Coroutine[Any, Any, None]) -> None:
        request.param(checked(scenario))

    return runner
