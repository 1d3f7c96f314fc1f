"""The actor: events in order, effects together, time told late only after what was received."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from raftlog.engine import Effect, Note, Wake
from raftlog.runtime import actor as module
from raftlog.runtime.actor import Actor, InboxFull


class Recorder:
    """An engine that remembers what it was told; what it hands out is set by the test."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.effects: list[Effect] = []
        self.due: float | None = None
        self.error: Exception | None = None

    def step(self, event: Any, now: float) -> None:
        if self.error is not None:
            raise self.error
        self.told.append(event)
        if isinstance(event, Wake):
            self.due = None

    def drain(self) -> list[Effect]:
        effects, self.effects = self.effects, []
        return effects

    def deadline(self) -> float | None:
        return self.due


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def with_deadline() -> None:
        await asyncio.wait_for(scenario, 30)

    asyncio.run(with_deadline())


async def turns(count: int = 2) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_events_of_one_turn_are_handled_in_order_and_their_effects_carried_out_together() -> None:
    async def scenario() -> None:
        engine, performed = Recorder(), list[Sequence[Effect]]()
        actor = Actor(engine, performed.append, inbox_max=10)
        await turns()
        performed.clear()

        actor.dispatch("a")
        actor.dispatch("b")
        engine.effects = [Note("n")]
        assert (engine.told, len(actor)) == ([], 2)
        await turns()

        assert (engine.told, performed) == (["a", "b"], [[Note("n")]])

    run(scenario())


def test_a_full_inbox_refuses_but_takes_what_is_urgent() -> None:
    async def scenario() -> None:
        engine = Recorder()
        actor = Actor(engine, lambda _: None, inbox_max=2)
        actor.dispatch(1)
        actor.dispatch(2)

        with pytest.raises(InboxFull):
            actor.dispatch(3)
        actor.dispatch("report", is_urgent=True)
        await turns()

        assert engine.told == [1, 2, "report"]

    run(scenario())


def test_no_more_than_a_bound_is_handled_in_one_turn() -> None:
    async def scenario() -> None:
        engine = Recorder()
        actor = Actor(engine, lambda _: None, inbox_max=10_000)
        await turns()
        for number in range(module.EVENTS_PER_TURN_MAX + 1):
            actor.dispatch(number)

        await asyncio.sleep(0)
        assert len(engine.told) == module.EVENTS_PER_TURN_MAX
        await turns()
        assert len(engine.told) == module.EVENTS_PER_TURN_MAX + 1

    run(scenario())


def test_an_error_of_the_engine_ends_the_actor_and_is_told_to_who_listens() -> None:
    async def scenario() -> None:
        engine = Recorder()
        actor = Actor(engine, lambda _: None, inbox_max=10)
        engine.error = ValueError("broken")
        actor.dispatch("a")
        actor.dispatch("b")

        with pytest.raises(ValueError, match="broken"):
            await actor.listen()
        assert (actor.is_closed, engine.told, len(actor)) == (True, [], 0)

    run(scenario())


def test_an_error_while_effects_are_carried_out_ends_the_actor() -> None:
    async def scenario() -> None:
        def perform(effects: Sequence[Effect]) -> None:
            if effects:
                raise OSError("no disk")

        engine = Recorder()
        engine.effects = [Note("n")]
        actor = Actor(engine, perform, inbox_max=10)

        with pytest.raises(OSError, match="no disk"):
            await actor.listen()

    run(scenario())


def test_a_closed_actor_handles_nothing_more() -> None:
    async def scenario() -> None:
        engine = Recorder()
        actor = Actor(engine, lambda _: None, inbox_max=10)
        actor.dispatch("a")
        actor.close()
        actor.dispatch("b", is_urgent=True)
        await turns()

        await actor.listen()
        assert engine.told == []

    run(scenario())


def test_the_engine_is_woken_when_its_deadline_has_come_and_not_before() -> None:
    async def scenario() -> None:
        clock, engine = Clock(), Recorder()
        engine.due = 100.0
        actor = Actor(engine, lambda _: None, inbox_max=10, clock=clock)
        while not engine.told:
            await asyncio.sleep(0)
        assert engine.told == [Wake()]

        engine.told.clear()
        engine.due = 101.0  # the clock of this test stands still, so the timer, when it fires, is too early
        actor.dispatch("a")
        await asyncio.sleep(0.01)
        assert engine.told == ["a"]
        actor.close()

    run(scenario())


def test_after_a_pause_what_was_received_is_handled_before_time_is_told() -> None:
    async def scenario() -> None:
        clock, engine = Clock(), Recorder()
        actor = Actor(engine, lambda _: None, inbox_max=10, clock=clock)
        await turns()
        engine.due = 100.001
        actor.dispatch("a")
        await turns()
        clock.now = 105.0  # the process stood still; a message came meanwhile and lies unread
        asyncio.get_running_loop().call_later(module.READ_FIRST_S / 2, actor.dispatch, "heartbeat")

        while Wake() not in engine.told:
            await asyncio.sleep(0)

        assert engine.told == ["a", "heartbeat", Wake()]
        actor.close()

    run(scenario())
