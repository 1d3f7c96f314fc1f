"""What one process asks others over streams, and what others ask it.

A question and its answer travel as messages do, but for one thing: they are not repeated. If either is lost, or nobody
answers, the asker is told so when its patience is over; late answers are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from raftlog.engine import Answered, Ask, Asked, NodeId, Reply, Unanswered
from raftlog.sim.network import Network
from raftlog.sim.world import World


class Question(NamedTuple):
    number: int  # the asker's, never used again
    message: Any


class Response(NamedTuple):
    number: int  # of the question
    message: Any


class Refusal(NamedTuple):
    """There is no process where the question went."""

    number: int


Carried: Final = (Question, Response, Refusal)


class Questions:
    """Of one process. Questions from others get the engine's numbers -1, -2, ...: those of clients ascend from 1."""

    def __init__(
        self,
        node: NodeId,
        world: World,
        network: Network,
        tell: Callable[[Unanswered], None],
    ) -> None:
        self._node = node
        self._world = world
        self._network = network
        self._tell = tell
        self._asked_count = 0
        self._heard_count = 0
        self._asked: dict[int, int] = {}  # question's number: the engine's request that waits for it
        self._heard: dict[int, tuple[NodeId, int]] = {}  # engine's number: who asked, question's number

    def forget(self) -> None:
        """The process ended; answers that still come are for nobody."""
        self._asked.clear()
        self._heard.clear()

    def ask(self, effect: Ask[Any], *, timeout_us: int) -> None:
        assert effect.request not in self._asked.values(), f"{effect.request} is asked already"
        self._asked_count += 1
        number = self._asked_count
        self._asked[number] = effect.request
        self._network.send(self._node, effect.to, Question(number, effect.message), may_repeat=False)
        self._world.after(timeout_us, self._lose_patience, number)

    def is_heard(self, request: int) -> bool:
        """Whether this is a question that waits for the engine's reply."""
        return request in self._heard

    def answer(self, reply: Reply) -> None:
        asker, number = self._heard.pop(reply.request)
        self._network.send(self._node, asker, Response(number, reply.outcome), may_repeat=False)

    def refuse(self, asker: NodeId, question: Question) -> None:
        self._network.send(self._node, asker, Refusal(question.number), may_repeat=False)

    def arrived(
        self, sender: NodeId, message: Question | Response | Refusal
    ) -> Asked[Any] | Answered[Any] | Unanswered | None:
        """What that is to the engine; None for an answer that nobody waits for."""
        if isinstance(message, Question):
            self._heard_count += 1
            self._heard[-self._heard_count] = (sender, message.number)
            return Asked(-self._heard_count, sender, message.message)
        request = self._asked.pop(message.number, None)
        if request is None:
            return None
        if isinstance(message, Refusal):
            return Unanswered(request, "connection refused")
        return Answered(request, message.message)

    def _lose_patience(self, number: int) -> None:
        request = self._asked.pop(number, None)
        if request is not None:
            self._tell(Unanswered(request, "no answer in time"))
