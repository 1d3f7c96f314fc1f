from __future__ import annotations

import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from logstore import LogError
from logstore.group_commit import GroupCommit

DEADLINE_S = 20.0


def in_thread(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


def until(condition: Callable[[], bool]) -> None:
    """Let other threads run until the condition holds."""
    waiter = threading.Event()
    for _ in range(int(DEADLINE_S * 1000)):
        if condition():
            return
        waiter.wait(0.001)
    raise AssertionError("the condition never held")


class Service:
    """Serves groups, each only when it is let go."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.gate = threading.Semaphore(0)
        self.commits: GroupCommit[int, int] = GroupCommit(self.serve)

    def serve(self, requests: Sequence[int]) -> list[int]:
        self.groups.append(list(requests))
        assert self.gate.acquire(timeout=DEADLINE_S)
        return [10 * request for request in requests]


def test_lone_request_is_served_by_its_caller() -> None:
    service = Service()
    service.gate.release()

    assert service.commits.submit(1) == 10
    assert service.groups == [[1]]


def test_requests_that_come_during_a_group_form_the_next() -> None:
    service = Service()
    outcomes: list[int] = []
    threads = [in_thread(lambda: outcomes.append(service.commits.submit(1)))]
    until(lambda: service.groups == [[1]])

    for request in (2, 3, 4):
        threads.append(in_thread(lambda request=request: outcomes.append(service.commits.submit(request))))  # type: ignore[misc]
        until(lambda: len(service.commits._queue) == len(threads))
    service.gate.release(2)

    for thread in threads:
        thread.join(DEADLINE_S)
    assert service.groups == [[1], [2, 3, 4]]
    assert sorted(outcomes) == [10, 20, 30, 40]


def test_error_goes_to_every_caller_of_the_group_and_to_no_other() -> None:
    def serve(requests: Sequence[int]) -> list[int]:
        if 1 in requests:
            raise LogError("no")
        return list(requests)

    commits: GroupCommit[int, int] = GroupCommit(serve)

    with pytest.raises(LogError, match="no"):
        commits.submit(1)

    assert commits.submit(2) == 2


def test_interrupt_goes_to_the_leader_and_the_next_is_served() -> None:
    calls = []

    def serve(requests: Sequence[int]) -> list[int]:
        calls.append(requests)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return list(requests)

    commits: GroupCommit[int, int] = GroupCommit(serve)

    with pytest.raises(KeyboardInterrupt):
        commits.submit(1)

    assert commits.submit(2) == 2


def test_interrupted_caller_that_waits_leaves_nobody_behind_waiting() -> None:
    service = Service()
    outcomes: list[int] = []

    def submit(request: int) -> None:
        outcomes.append(service.commits.submit(request))

    def interrupt() -> None:
        until(lambda: len(service.commits._queue) == 2)
        threads.append(in_thread(lambda: submit(3)))
        until(lambda: len(service.commits._queue) == 3)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        service.gate.release(3)

    threads = [in_thread(lambda: submit(1))]
    until(lambda: service.groups == [[1]])
    threads.append(in_thread(interrupt))
    with pytest.raises(KeyboardInterrupt):
        service.commits.submit(2)

    for thread in threads:
        thread.join(DEADLINE_S)
    assert sorted(outcomes) == [10, 30]
    assert [request for group in service.groups for request in group] in ([1, 3], [1, 2, 3])


def test_interrupt_before_a_group_is_formed_takes_its_request_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    service = Service()
    service.gate.release()
    service.commits._expected, service.commits._patience_s = 2, DEADLINE_S
    with monkeypatch.context() as patch:
        patch.setattr("logstore.group_commit.time.sleep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            service.commits.submit(1)
    outcomes: list[int] = []

    service.commits._patience_s = 0
    in_thread(lambda: outcomes.append(service.commits.submit(2))).join(DEADLINE_S)

    assert (outcomes, service.groups) == ([20], [[2]])


def test_interrupt_while_waiting_to_be_alone_lets_the_others_go_on() -> None:
    service = Service()
    outcomes: list[int] = []
    threads = [in_thread(lambda: outcomes.append(service.commits.submit(1)))]
    until(lambda: service.groups == [[1]])

    def interrupt() -> None:
        until(lambda: service.commits._loners == 1)
        threads.append(in_thread(lambda: outcomes.append(service.commits.submit(2))))
        until(lambda: len(service.commits._queue) == 2)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threads.append(in_thread(interrupt))
    with pytest.raises(KeyboardInterrupt), service.commits.alone():
        pass
    service.gate.release(2)

    for thread in threads:
        thread.join(DEADLINE_S)
    assert sorted(outcomes) == [10, 20]


def test_nothing_is_served_while_somebody_is_alone() -> None:
    service = Service()
    service.gate.release()
    outcomes: list[int] = []

    with service.commits.alone():
        thread = in_thread(lambda: outcomes.append(service.commits.submit(1)))
        until(lambda: len(service.commits._queue) == 1)
        assert service.groups == []

    thread.join(DEADLINE_S)
    assert outcomes == [10]


def test_alone_goes_before_the_group_that_is_waiting() -> None:
    service = Service()
    order: list[str] = []

    def alone() -> None:
        with service.commits.alone():
            order.append(f"alone after {len(service.groups)}")

    for _ in range(20):  # the thread that leaves is quick to take the lock again, if it may
        service.groups.clear()
        threads = [in_thread(lambda: service.commits.submit(1))]
        until(lambda: len(service.groups) == 1)
        threads += [in_thread(alone), in_thread(lambda: service.commits.submit(2))]
        until(lambda: service.commits._loners == 1 and len(service.commits._queue) == 2)
        service.gate.release(2)
        for thread in threads:
            thread.join(DEADLINE_S)

    assert order == ["alone after 1"] * 20


@pytest.fixture
def often() -> Iterator[None]:
    """The interpreter switches between threads at nearly every chance."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class _Hooked(deque[Any]):
    """Lets somebody else run between a caller's queueing and its attempt to lead."""

    then: Callable[[], object] | None = None

    def append(self, item: Any) -> None:
        super().append(item)
        then, self.then = self.then, None
        if then is not None:
            then()


def test_caller_that_was_served_before_it_looked_does_not_keep_the_lead() -> None:
    commits: GroupCommit[int, int] = GroupCommit(lambda requests: [10 * request for request in requests])
    commits._queue = queue = _Hooked()
    queue.then = lambda: in_thread(lambda: commits.submit(2)).join(DEADLINE_S)

    assert commits.submit(1) == 10

    outcomes: list[int] = []
    in_thread(lambda: outcomes.append(commits.submit(3))).join(DEADLINE_S)
    assert outcomes == [30]


def test_caller_that_was_served_before_it_looked_wakes_the_next_all_the_same() -> None:
    service = Service()
    service.commits._queue = queue = _Hooked()
    outcomes: list[int] = []

    def submit(request: int) -> None:
        outcomes.append(service.commits.submit(request))

    def let_others_be_served() -> None:
        threads.append(in_thread(lambda: submit(4)))
        until(lambda: len(queue) == 4)
        service.gate.release(2)
        leader.join(DEADLINE_S)

    threads = [in_thread(lambda: submit(1))]
    until(lambda: service.groups == [[1]])
    leader = in_thread(lambda: submit(2))
    until(lambda: len(queue) == 2)
    queue.then = let_others_be_served
    service.commits.submit(3)

    for thread in threads:
        thread.join(DEADLINE_S)
    assert service.groups == [[1], [2, 3, 4]]
    assert sorted(outcomes) == [10, 20, 40]


def test_many_threads_are_each_served_once(often: None) -> None:
    served: list[int] = []

    def serve(requests: Sequence[int]) -> list[int]:
        served.extend(requests)
        return [10 * request for request in requests]

    commits: GroupCommit[int, int] = GroupCommit(serve)
    wrong: list[int] = []

    def submit_many(first: int) -> None:
        wrong.extend(n for n in range(first, first + 300) if commits.submit(n) != 10 * n)

    threads = [in_thread(lambda first=first: submit_many(first)) for first in range(0, 1500, 300)]  # type: ignore[misc]
    for _ in range(100):
        with commits.alone():
            before = len(served)
            assert len(served) == before
    for thread in threads:
        thread.join(DEADLINE_S)

    assert not wrong and sorted(served) == list(range(1500))
