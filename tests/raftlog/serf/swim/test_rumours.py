from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest

from raftlog.serf.swim.rumours import Rumours, times_told

ROOM = 10_000


def drained(rumours: Rumours, members: int = 5) -> list[list[bytes]]:
    packets = []
    while len(rumours):
        packets.append(rumours.take(2, ROOM, members))
    return packets


def test_rumour_is_told_until_its_limit_and_then_is_gone() -> None:
    rumours = Rumours(mult=4, count_max=10)
    rumours.put("a", b"about a")

    assert drained(rumours) == [[b"about a"]] * 4
    assert rumours.take(2, ROOM, 5) == []


def test_newer_rumour_of_a_name_replaces_the_older_and_is_told_anew() -> None:
    rumours = Rumours(mult=4, count_max=10)
    rumours.put("a", b"old")
    rumours.take(2, ROOM, 5)

    rumours.put("a", b"new")

    assert drained(rumours) == [[b"new"]] * 4


def test_rumours_told_least_often_go_first() -> None:
    rumours = Rumours(mult=4, count_max=10)
    rumours.put("a", b"aa")
    rumours.take(2, ROOM, 5)
    rumours.put("b", b"b")

    assert rumours.take(2, ROOM, 5) == [b"b", b"aa"]


def test_long_rumours_go_before_short_and_new_before_old() -> None:
    rumours = Rumours(mult=4, count_max=10)
    for name, data in [("a", b"aa"), ("b", b"bbbb"), ("c", b"cc")]:
        rumours.put(name, data)

    assert rumours.take(2, ROOM, 5) == [b"bbbb", b"cc", b"aa"]


@pytest.mark.parametrize(
    ("limit", "taken"), [(9, []), (10, [b"llllllll"]), (17, [b"llllllll"]), (18, [b"llllllll", b"ssssss"])]
)
def test_packet_takes_what_fits_with_its_overhead(limit: int, taken: list[bytes]) -> None:
    rumours = Rumours(mult=4, count_max=10)
    rumours.put("l", b"llllllll")
    if limit > 9:
        rumours.put("s", b"ssssss")

    assert rumours.take(2, limit, 5) == taken


def test_rumour_too_long_for_the_room_lets_a_shorter_one_pass() -> None:
    rumours = Rumours(mult=4, count_max=10)
    rumours.put("l", b"l" * 100)
    rumours.put("s", b"s")

    assert rumours.take(2, 50, 5) == [b"s"]


def test_no_room_takes_nothing_and_counts_nothing() -> None:
    rumours = Rumours(mult=1, count_max=10)
    rumours.put("a", b"a")

    assert rumours.take(2, 0, 5) == []
    assert rumours.take(2, -5, 5) == []
    assert rumours.take(2, 3, 5) == [b"a"]


def test_beyond_the_limit_the_one_told_most_often_is_dropped() -> None:
    rumours = Rumours(mult=4, count_max=3)
    rumours.put("told", b"told")
    rumours.take(2, ROOM, 5)
    for name in ("a", "b", "c"):
        rumours.put(name, name.encode())

    assert len(rumours) == 3
    assert "told" not in rumours
    assert rumours.take(2, ROOM, 5) == [b"c", b"b", b"a"]


@dataclass(order=True)
class DumbRumour:
    told: int
    length_negated: int
    number_negated: int
    name: str
    data: bytes


class DumbRumours:
    """The same by looking at all of them each time."""

    def __init__(self, mult: int, count_max: int) -> None:
        self.mult, self.count_max = mult, count_max
        self.all: list[DumbRumour] = []
        self.number = 0

    def put(self, name: str, data: bytes) -> None:
        self.all = [rumour for rumour in self.all if rumour.name != name]
        self.number += 1
        self.all.append(DumbRumour(0, -len(data), -self.number, name, data))
        if len(self.all) > self.count_max:
            self.all.remove(max(self.all))

    def take(self, overhead: int, limit: int, members: int) -> list[bytes]:
        taken = []
        for rumour in sorted(self.all):
            if len(rumour.data) + overhead <= limit:
                limit -= len(rumour.data) + overhead
                taken.append(rumour)
        for rumour in taken:
            rumour.told += 1
        self.all = [
            rumour
            for rumour in self.all
            if rumour not in taken or rumour.told < times_told(self.mult, members)
        ]
        return [rumour.data for rumour in taken]


@pytest.mark.parametrize("seed", range(20))
def test_rumours_do_what_a_dumb_list_does(seed: int) -> None:
    print(f"seed {seed}")
    random = Random(seed)
    rumours, dumb = Rumours(mult=2, count_max=12), DumbRumours(2, 12)

    for _ in range(400):
        if random.random() < 0.5:
            name, data = f"n{random.randrange(20)}", random.randbytes(random.randrange(1, 30))
            rumours.put(name, data)
            dumb.put(name, data)
        else:
            limit, members = random.randrange(0, 120), random.choice([1, 5, 20])
            assert rumours.take(2, limit, members) == dumb.take(2, limit, members)
        assert len(rumours) == len(dumb.all)
