"""Back-off, throttle and the log that does not repeat itself, on a clock that tests move."""

from __future__ import annotations

import logging
from random import Random

import pytest

from raftlog.net.backoff import BackOff
from raftlog.net.quiet_log import INTERVAL_S, KINDS_MAX, QuietLog
from raftlog.net.throttle import BURST_S, Throttle


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_waits_double_up_to_the_longest_and_are_shortened_by_up_to_half() -> None:
    back_off = BackOff(seconds_min=1.0, seconds_max=5.0, random=Random(7))

    waits = [back_off.next() for _ in range(5)]

    for wait, longest in zip(waits, [1.0, 2.0, 4.0, 5.0, 5.0], strict=True):
        assert longest / 2 <= wait <= longest
    assert len(set(waits)) == 5


def test_after_a_success_waits_begin_with_the_shortest() -> None:
    back_off = BackOff(seconds_min=1.0, seconds_max=5.0, random=Random(7))
    for _ in range(5):
        back_off.next()

    back_off.reset()

    assert back_off.next() <= 1.0


def test_bytes_pass_at_the_rate() -> None:
    clock = Clock()
    throttle = Throttle(1000, clock)
    passed = 0
    while clock.now < 110.0:
        delay = throttle.take(50)
        passed += 0 if delay else 50
        clock.now += delay

    assert passed == pytest.approx(10_000, abs=200)


def test_what_was_idle_is_made_up_for_by_a_burst_at_most() -> None:
    clock = Clock()
    throttle = Throttle(1000, clock)
    clock.now += 60

    passed = 0
    while not throttle.take(10):
        passed += 10

    assert passed == pytest.approx(1000 * BURST_S, abs=10)


def test_a_message_larger_than_the_burst_passes_and_the_next_waits_for_it() -> None:
    throttle = Throttle(1000, Clock())

    assert throttle.take(5000) == 0.0
    assert throttle.take(1) == pytest.approx(5.0 - BURST_S, abs=BURST_S)


def test_one_line_of_a_kind_is_written_per_interval_and_tells_how_many_were_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    quiet = QuietLog(logging.getLogger("test"), clock)

    for _ in range(3):
        quiet.warning("a", "event of=%s", "a")
    quiet.warning("b", "event of=%s", "b")
    clock.now += INTERVAL_S
    quiet.warning("a", "event of=%s", "a")

    assert caplog.messages == ["event of=a", "event of=b", "event of=a left_out=2"]


def test_what_is_usual_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    quiet = QuietLog(logging.getLogger("test"), Clock())

    quiet.info("a", "event")
    quiet.info("a", "event")
    quiet.warning("b", "event")

    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]


def test_kinds_that_strangers_make_up_do_not_fill_memory(caplog: pytest.LogCaptureFixture) -> None:
    quiet = QuietLog(logging.getLogger("test"), Clock())

    for number in range(KINDS_MAX + 1):
        quiet.warning(str(number), "event")
    quiet.warning("0", "event")

    assert len(caplog.messages) == KINDS_MAX + 2
