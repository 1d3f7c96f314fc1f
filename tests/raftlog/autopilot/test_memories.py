"""What the loop remembers between two looks: attempts in vain, answers, removals."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from raftlog.autopilot.candidates import KNOWN_S, STRANGERS_MAX, UNKNOWN_S, Candidates
from raftlog.autopilot.refusals import RETRY_S_MAX, RETRY_S_MIN, Refusals
from raftlog.autopilot.removals import REMEMBERED_S, Removals
from raftlog.discovery.source import Candidate
from raftlog.net.handshake import Welcome
from raftlog.net.stream_layer import Unreachable
from tests.raftlog.autopilot.cases import candidate
from tests.raftlog.autopilot.grown import FakeSource

# ── refusals ──


def test_what_was_tried_in_vain_waits_twice_as_long_each_time() -> None:
    refusals = Refusals()
    now, waits = 0.0, []
    for _ in range(9):
        refusals.add("n2", "place", "no answer", now)
        start = now
        while refusals.reason("n2", "place", now):
            now += RETRY_S_MIN / 2
        waits.append(now - start)

    assert waits == [1, 2, 4, 8, 16, 32, RETRY_S_MAX, RETRY_S_MAX, RETRY_S_MAX]


def test_elsewhere_it_is_tried_at_once_and_waits_begin_anew() -> None:
    refusals = Refusals()
    refusals.add("n2", "here", "no answer", 0.0)
    refusals.add("n2", "here", "no answer", 1.0)

    assert refusals.reason("n2", "here", 1.5) == "no answer; tried again in 2 s"
    assert refusals.reason("n2", "there", 1.5) == ""
    assert refusals.reason("n3", "here", 1.5) == ""

    refusals.add("n2", "there", "no answer", 1.5)
    assert refusals.reason("n2", "there", 2.5) == ""


def test_what_went_well_or_is_gone_is_forgotten() -> None:
    refusals = Refusals()
    for name in ("n2", "n3"):
        refusals.add(name, None, "no answer", 0.0)

    refusals.forget("n2")
    refusals.forget("n2")
    assert (refusals.reason("n2", None, 0.5), refusals.reason("n3", None, 0.4)) == (
        "", "no answer; tried again in 1 s"
    )  # fmt: skip
    refusals.keep_only({"n2"})
    assert refusals.reason("n3", None, 0.5) == ""


# ── removals ──


def test_a_member_that_is_gone_was_just_removed_until_it_comes_back_or_for_a_while() -> None:
    removals = Removals()
    removals.look({"n1": "d-n1", "n2": "d-n2"}, 10.0)
    removals.look({"n1": "d-n1"}, 11.0)
    gone = candidate("n2", since=5.0)

    assert removals.just_removed([gone, candidate("n3")]) == {"n2"}
    assert removals.just_removed([replace(gone, since=11.5)]) == set()  # it came back
    assert removals.just_removed([replace(gone, directory_id="new")]) == set()  # another one

    removals.look({"n1": "d-n1"}, 11.0 + REMEMBERED_S)
    assert removals.just_removed([gone]) == set()


# ── candidates ──


class Doors:
    """Who opens at which address."""

    def __init__(self, **names: str) -> None:
        self.names = names
        self.knocks: list[str] = []

    async def identify(self, address: str) -> Welcome:
        self.knocks.append(address)
        name = self.names.get(address)
        if name is None:
            raise Unreachable(f"{address}: nobody")
        return Welcome(
            cluster_id="c", node=name, directory_id=f"d-{name}", address=f"{name}:8400", protocol=1,
            format_min=1, format_max=1, members_version=0,
        )  # fmt: skip


def named(source: FakeSource, doors: Doors, *, now: float, into: Candidates | None = None) -> list[Candidate]:
    candidates = into or Candidates(source, doors, lambda: now)
    candidates._clock = lambda: now
    return list(asyncio.run(candidates.named({"n9"}, {"known:1"})))


def test_of_one_name_who_is_alive_counts() -> None:
    class Twice(FakeSource):
        def members(self) -> list[Candidate]:
            return [candidate("n3"), candidate("n2", status="failed"), candidate("n2", address="new:1")]

    assert named(Twice(), Doors(), now=0.0) == [candidate("n2", address="new:1"), candidate("n3")]


def test_addresses_without_names_are_asked_one_at_a_time_and_again_after_a_while() -> None:
    source, doors = FakeSource(), Doors(a="n2", b="n3")
    for address in ("a", "b", "known:1", "nobody"):
        source.say(Candidate(name="", address=address))
    candidates = Candidates(source, doors, lambda: 0.0)

    found = [named(source, doors, now=0.0, into=candidates) for _ in range(4)]

    assert doors.knocks == ["a", "b", "nobody"]
    assert found[0] == [candidate("n2")]
    assert found[1:] == [[candidate("n2"), candidate("n3")]] * 3
    named(source, doors, now=UNKNOWN_S, into=candidates)
    del doors.names["a"]
    after = [named(source, doors, now=KNOWN_S, into=candidates) for _ in range(3)]
    assert doors.knocks[3:] == ["nobody", "a", "b", "nobody"]
    assert after[-1] == [candidate("n3")]


def test_strangers_never_crowd_out_members() -> None:
    source = FakeSource()
    for number in range(STRANGERS_MAX + 1):
        source.say(candidate(f"a{number:03}"))
    source.say(candidate("n9", status="failed"))

    found = [each.name for each in named(source, Doors(), now=0.0)]

    assert found == [*(f"a{number:03}" for number in range(STRANGERS_MAX)), "n9"]


def test_without_a_source_there_are_no_candidates() -> None:
    assert list(asyncio.run(Candidates(None, Doors(), lambda: 0.0).named((), ()))) == []
