"""A node's process: it runs an engine as raftlog/engine.py demands, and can crash, pause and have a clock that drifts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Final

from raftlog.engine import Applied as AppliedEvent
from raftlog.engine import (
    Apply,
    Ask,
    Emit,
    Engine,
    NodeId,
    Note,
    Persist,
    Persisted,
    Receive,
    Reply,
    Send,
    Token,
    Wake,
)
from raftlog.sim.disk import Disk
from raftlog.sim.network import Network
from raftlog.sim.questions import Carried, Question, Questions
from raftlog.sim.subject import Subject
from raftlog.sim.world import SECOND, World

RECEIVED_WHILE_PAUSED_MAX: Final = 1_000  # messages; more are lost, as from a full socket buffer
# Of the questions to a process that is down: else its machine is, and nothing comes back
REFUSED: Final = 0.5
APPLY_DELAYS_US_MAX: Final = (400, 400, 5_000, 30_000)  # some nodes apply slowly


class Process:
    """Up when it has an engine. What it owns is gone with a crash, but for the disk."""

    def __init__(
        self, node: NodeId, world: World, network: Network, disk: Disk, subject: Subject, random: Random
    ) -> None:
        self.node = node
        self.disk = disk
        self.engine: Engine | None = None
        self.machine: Any = None  # the subject's: what entries are applied to
        self.incarnation = 0  # how often it was started
        self.clock_rate = 1.0  # seconds of its clock in a second of the world
        self.is_paused = False
        self._world = world
        self._network = network
        self._subject = subject
        self._random = random
        self._clock_offset_s = 0.0
        self._inbox: deque[Any] = deque()  # what happened while it was paused
        self._held: list[Send[Any]] = []  # until the write that they name is durable, in order
        self._questions = Questions(node, world, network, self.happen)
        self._durable = Token(0)  # the last write of this incarnation that it knows to be durable
        self._to_apply: list[Any] = []
        self._is_applying = False
        self._apply_delay_us_max = random.choice(APPLY_DELAYS_US_MAX)
        self._wake_at_us: int | None = None  # the earliest planned wake-up
        self.on_crash: Callable[[Process], None] | None = None  # set by the cluster
        self.on_failed_sync: Callable[[Process], None] | None = None  # set by the cluster

    @property
    def is_up(self) -> bool:
        return self.engine is not None

    def set_clock_rate(self, rate: float) -> None:
        """From now on its clock runs at this rate, without a jump."""
        self._clock_offset_s += self._world.now_us * (self.clock_rate - rate) / SECOND
        self.clock_rate = rate
        if self.is_up and not self.is_paused:
            self._wake_at_us = None  # planned by the old rate
            self._plan_wake()

    def clock_s(self) -> float:
        return self._clock_offset_s + self._world.now_us * self.clock_rate / SECOND

    def start(self) -> None:
        """Begin anew from the disk. Nothing happens if it is up."""
        if self.engine is not None:
            return
        self.incarnation += 1
        self._world.record(self.node, "started")
        self._clock_offset_s = float(self._random.randrange(1_000))
        self.disk.open(self._write_became_durable, self._sync_failed)
        self.engine = self._subject.start(self, self.clock_s(), Random(self._random.getrandbits(64)))
        self._check_and_carry_out(None)

    def crash(self) -> None:
        """Nothing happens if it is down."""
        if self.engine is None:
            return
        self._world.record(self.node, "crashed")
        self.engine = None
        self.is_paused = False
        self._inbox.clear()
        self._held.clear()
        self._questions.forget()
        self._durable = Token(0)
        self._to_apply.clear()
        self._is_applying = False
        self._wake_at_us = None
        self.disk.crash()
        self._subject.stopped(self)
        self.machine = None
        if self.on_crash is not None:
            self.on_crash(self)

    def pause(self) -> None:
        if self.engine is not None and not self.is_paused:
            self._world.record(self.node, "paused")
            self.is_paused = True

    def resume(self) -> None:
        if not self.is_paused:
            return
        self._world.record(self.node, "resumed")
        self.is_paused = False
        incarnation = self.incarnation
        while self._inbox and not self.is_paused and self.is_up and self.incarnation == incarnation:
            self._step(self._inbox.popleft())
        if self.is_up and not self.is_paused:
            self._plan_wake()
            if self._to_apply and not self._is_applying:
                self._plan_apply()

    def receive(self, sender: NodeId, message: Any) -> None:
        """A message arrived from the network."""
        if self.engine is None:
            if isinstance(message, Question) and self._random.random() < REFUSED:
                self._questions.refuse(sender, message)
            return
        if self.is_paused and len(self._inbox) >= RECEIVED_WHILE_PAUSED_MAX:
            return
        if isinstance(message, Carried):
            event = self._questions.arrived(sender, message)
            if event is not None:
                self.happen(event)
        else:
            self.happen(Receive(sender, message))

    def happen(self, event: Any) -> None:
        """Step an event: at once, or after the pause."""
        if self.engine is None:
            return
        if self.is_paused:
            self._inbox.append(event)
        else:
            self._step(event)

    def _step(self, event: Any) -> None:
        engine = self.engine
        assert engine is not None
        self._world.record(self.node, event)
        if type(event) is Persisted:
            self._durable = event.token
            if self._held:
                self._release()
        engine.step(event, self.clock_s())
        self._check_and_carry_out(event)

    def _check_and_carry_out(self, event: Any) -> None:
        engine = self.engine
        assert engine is not None
        effects = engine.drain()
        self._subject.stepped(self, event, effects)
        for effect in effects:
            self._carry_out(effect)
        self._plan_wake()

    def _carry_out(self, effect: Any) -> None:
        match effect:
            case Send(to=target, message=message, after=after):
                if after is None or after <= self._durable:
                    self._subject.sending(self, target, message)
                    self._network.send(self.node, target, message)
                else:
                    self._held.append(effect)
            case Persist(token=token, write=write):
                self.disk.submit(token, write)
            case Apply(entries=entries):
                self._to_apply.extend(entries)
                if not self._is_applying:
                    self._plan_apply()
            case Ask():
                self._questions.ask(effect, timeout_us=int(effect.timeout_s / self.clock_rate * SECOND))
            case Reply(request=request) if self._questions.is_heard(request):
                self._questions.answer(effect)
            case Reply():
                self._subject.replied(self, effect)
            case Emit(event=event):
                self._subject.emitted(self, event)
            case Note():
                self._world.remark(self.node, effect)
            case _:
                raise AssertionError(f"no effect that an engine may have: {effect!r}")

    def _write_became_durable(self, token: Token) -> None:
        self.happen(Persisted(token))

    def _release(self) -> None:
        """Let those messages go whose write is durable now."""
        held, durable = self._held, self._durable
        self._held = [send for send in held if send.after is not None and send.after > durable]
        for send in held:
            if send.after is not None and send.after <= durable:
                self._subject.sending(self, send.to, send.message)
                self._network.send(self.node, send.to, send.message)

    def _sync_failed(self) -> None:
        self._world.record(self.node, "sync failed")
        self.crash()
        if self.on_failed_sync is not None:
            self.on_failed_sync(self)

    def _plan_wake(self) -> None:
        assert self.engine is not None
        deadline_s = self.engine.deadline()
        if deadline_s is None:
            return
        world = self._world
        due_us = int((deadline_s - self._clock_offset_s) / self.clock_rate * SECOND) + 1  # never too early
        due_us = max(due_us, world.now_us + 1)
        # An earlier wake-up that is planned already looks at the deadline again: most deadlines move away.
        if self._wake_at_us is None or due_us < self._wake_at_us:
            self._wake_at_us = due_us
            world.after(due_us - world.now_us, self._wake, self.incarnation, due_us)

    def _wake(self, incarnation: int, planned_us: int) -> None:
        if incarnation != self.incarnation or planned_us != self._wake_at_us:
            return
        self._wake_at_us = None
        if self.engine is None or self.is_paused:
            return
        deadline_s = self.engine.deadline()
        if deadline_s is not None and self.clock_s() >= deadline_s:
            self._step(Wake())
        else:
            self._plan_wake()

    def _plan_apply(self) -> None:
        self._is_applying = True
        delay_us = int(self._apply_delay_us_max * self._random.random())
        self._world.after(delay_us, self._apply_some, self.incarnation)

    def _apply_some(self, incarnation: int) -> None:
        if incarnation != self.incarnation or self.engine is None:
            return
        self._is_applying = False
        if self.is_paused or not self._to_apply:
            return
        count = len(self._to_apply)
        if count > 1 and self._random.random() < 0.3:
            count = 1 + self._random.randrange(count)
        entries = self._to_apply[:count]
        del self._to_apply[:count]
        index = self._subject.apply(self, entries)
        if self._to_apply:
            self._plan_apply()
        self._step(AppliedEvent(index))
