"""Several members talk to each other, in virtual time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raftlog.serf.config import FAST, LAN
from raftlog.serf.messages import Address, State
from tests.raftlog.serf.swim.town import Town

ALIVE, SUSPECT, DEAD, LEFT = State
FIVE = tuple("abcde")


@pytest.fixture
def town() -> Town:
    return Town()


def everyone_sees(town: Town, of: str, state: State) -> bool:
    return all(
        town.nodes[name].members[of].state is state
        for name in town.nodes
        if name != of and name not in town.stopped
    )


@pytest.mark.parametrize("keys", [(), (b"k" * 32,)])
def test_five_that_know_one_another_by_one_become_one_cluster_in_two_seconds(keys: tuple[bytes, ...]) -> None:
    town = Town(keys=keys)
    for name in FIVE:
        town.add(name, meta=name.encode())
    for name in FIVE[1:]:
        assert town.join(name, "a") == ""

    took = town.run_until(lambda: all(len(town.nodes[name].members) == 5 for name in FIVE))

    assert took < 2.0
    for name in FIVE:
        assert {m.name: m.meta for m in town.nodes[name].members.values()} == {n: n.encode() for n in FIVE}
        assert sorted(town.told[name].news) == [("joined", other) for other in FIVE]


def test_idle_cluster_sends_two_packets_a_second_each_and_wakes_once(town: Town) -> None:
    """A ping and an ack; nobody wakes for gossip. States are exchanged twice a minute, by streams."""
    town.settle(*FIVE)
    town.packets.clear()
    town.wakes = 0

    town.run(100.0)

    assert len(town.packets) == pytest.approx(5 * 100 * 2, abs=10)
    assert town.wakes <= 5 * 100 * 1.1
    assert all(told.news == [] for told in town.told.values())


def test_failed_member_is_found_dead_by_all(town: Town) -> None:
    town.settle(*FIVE)

    town.stopped.add("c")
    took = town.run_until(lambda: everyone_sees(town, "c", DEAD))

    # Each probes it at most 2 * 4 - 1 intervals later, and the suspicion lasts 4 s once two others confirm it.
    assert 4.0 <= took <= 4.0 + 7.0 + 2.0
    assert all(town.told[name].news == [("dead", "c")] for name in "abde")


def test_detection_is_soon_told_to_all(town: Town) -> None:
    town.settle(*FIVE)
    town.stopped.add("c")
    town.run_until(lambda: any(town.nodes[name].members["c"].state is DEAD for name in "abde"))

    assert town.run_until(lambda: everyone_sees(town, "c", DEAD)) < 1.0


def test_confirmations_of_others_shorten_the_suspicion(town: Town) -> None:
    """From 24 s, which one accuser alone would wait, towards 4 s."""
    town.settle(*FIVE)
    town.stopped.add("c")
    town.run_until(lambda: any(town.nodes[name].members["c"].state is SUSPECT for name in "abde"))

    took = town.run_until(lambda: everyone_sees(town, "c", DEAD))

    assert 4.0 <= took < 12.0


def test_wrongly_suspected_member_refutes(town: Town) -> None:
    town.settle(*FIVE)
    for other in "abde":
        town.lost |= {(other, "c"), ("c", other)}
        town.cut |= {(other, "c"), ("c", other)}
    town.run_until(lambda: any(town.nodes[n].members["c"].state is SUSPECT for n in "abde"))

    town.lost.clear()
    town.cut.clear()
    town.run_until(lambda: everyone_sees(town, "c", ALIVE))
    town.run(60.0)

    assert all(("dead", "c") not in told.news for told in town.told.values())
    assert town.nodes["c"].incarnation > 1
    assert {town.state(name, "c") for name in FIVE} == {(ALIVE, town.nodes["c"].incarnation)}


def test_one_lost_link_leads_to_no_suspicion_for_others_ping_for_it(town: Town) -> None:
    town.settle(*FIVE)
    town.lost |= {("a", "b"), ("b", "a")}
    town.cut |= {("a", "b"), ("b", "a")}

    town.run(120.0)

    assert town.nodes["a"].incarnation == town.nodes["b"].incarnation == 1
    assert all(told.news == [] for told in town.told.values())


def test_network_that_only_lets_streams_through_suspects_nobody(town: Town) -> None:
    town.settle("a", "b")
    town.lost |= {("a", "b"), ("b", "a")}

    town.run(60.0)

    assert town.state("a", "b") == (ALIVE, 1)
    assert ("a", "member answers by streams only") in [(name, note.event) for name, note in town.notes]


def test_member_that_leaves_has_left_for_all_and_is_not_called_failed(town: Town) -> None:
    town.settle(*FIVE)

    town.nodes["c"].leave(town.now)
    took = town.run_until(lambda: town.nodes["c"].has_told_leave)
    town.stopped.add("c")
    town.run(60.0)

    assert took < 2.0
    assert {town.state(name, "c") for name in "abde"} == {(LEFT, 1)}
    assert all(town.told[name].news == [("left", "c")] for name in "abde")


@pytest.mark.parametrize("how", ["left", "dead"])
@pytest.mark.parametrize("away_s", [1.0, 120.0])
@pytest.mark.parametrize("address", ["", "10.0.0.99:7946"])
def test_member_that_comes_back_with_a_lower_incarnation_is_alive_again(
    town: Town, how: str, away_s: float, address: str
) -> None:
    town.settle(*FIVE)
    for _ in range(3):
        town.nodes["c"].set_meta(b"more", town.now)
    town.run(5.0)
    if how == "left":
        town.nodes["c"].leave(town.now)
        town.run_until(lambda: town.nodes["c"].has_told_leave)
    town.stopped.add("c")
    town.run_until(lambda: everyone_sees(town, "c", LEFT if how == "left" else DEAD))
    town.run(away_s)
    if how == "dead" and address and away_s < 30.0:
        town.run(40.0)  # before, the name is another's

    former = town.addresses["c"]
    town.add("c", address=address or former)
    assert town.nodes["c"].incarnation == 1
    assert town.join("c", "b") == ""
    took = town.run_until(lambda: everyone_sees(town, "c", ALIVE))

    assert took < 2.0
    assert town.nodes["c"].incarnation == 5
    assert {town.state(name, "c") for name in FIVE} == {(ALIVE, 5)}
    assert town.nodes["a"].members["c"].address == (address or former)
    assert town.told["a"].news[-1] == ("joined", "c")


@pytest.mark.parametrize("incarnation", [1, 4])
def test_member_that_restarts_at_once_elsewhere_is_taken_in_once_its_former_address_is_dead(
    incarnation: int,
) -> None:
    """A container that is started anew: the same name, another address. Until then it keeps asking."""
    town = Town(replace(LAN.swim, dead_reclaim_s=5.0))
    town.settle(*FIVE)
    for _ in range(incarnation - 1):
        town.nodes["c"].set_meta(b"more", town.now)
    town.run(5.0)
    began = town.now

    town.add("c", address="10.0.0.99:7946")
    while not everyone_sees(town, "c", ALIVE) or town.nodes["a"].members["c"].address != "10.0.0.99:7946":
        town.join("c", "b")
        town.run(1.0)
        assert town.now - began < 4.0 + 7.0 + 2.0 + 5.0 + 2.0
    town.run(60.0)

    assert {node.members["c"].address for node in town.nodes.values()} == {"10.0.0.99:7946"}
    assert {town.state(name, "c") for name in FIVE} == {(ALIVE, town.nodes["c"].incarnation)}
    assert town.nodes["c"].incarnation > incarnation


def test_member_that_restarts_before_anybody_noticed_tells_its_new_meta(town: Town) -> None:
    town.settle(*FIVE)

    town.add("c", meta=b"new", address=town.addresses["c"])
    assert town.join("c", "b") == ""
    took = town.run_until(lambda: all(node.members["c"].meta == b"new" for node in town.nodes.values()))

    assert took < 2.0
    assert all(town.told[name].news == [("updated", "c")] for name in "abde")


def test_new_meta_reaches_all(town: Town) -> None:
    town.settle(*FIVE)

    town.nodes["c"].set_meta(b"new", town.now)
    took = town.run_until(lambda: all(node.members["c"].meta == b"new" for node in town.nodes.values()))

    assert took < 1.0
    assert all(told.news == [("updated", "c")] for told in town.told.values())


def test_second_of_a_name_is_told_of_and_changes_nothing(town: Town) -> None:
    town.settle("a", "b", "c")
    town.add("z")
    impostor = Town(seed=2)
    impostor.now = town.now
    impostor.add("b", address="10.0.0.77:7946")
    impostor.addresses["a"] = town.addresses["a"]

    impostor.nodes["b"].send(town.addresses["a"], b"", town.now)
    for effect in impostor.nodes["b"].drain():
        town.deliver("a", Address("10.0.0.77:7946"), effect.message)  # type: ignore[union-attr]
    town.run(5.0)

    assert town.told["a"].news == [("conflict", "b 10.0.0.2:7946 10.0.0.77:7946")]
    assert town.nodes["a"].members["b"].address == "10.0.0.2:7946"
    assert town.told["c"].news == []


def test_replay_of_all_old_packets_changes_nothing(town: Town) -> None:
    """To everybody, also of those who left, were dead, or refuted."""
    town.settle(*FIVE)
    town.lost |= {(other, "b") for other in "acd"}
    town.cut |= {(other, "b") for other in "acd"}
    town.run(8.0)
    town.lost.clear()
    town.cut.clear()
    town.nodes["d"].set_meta(b"new", town.now)
    town.nodes["e"].leave(town.now)
    town.run(3.0)
    town.stopped.add("e")
    town.stopped.add("c")
    town.run(60.0)
    assert [town.state("a", name)[0] for name in FIVE] == [ALIVE, ALIVE, DEAD, ALIVE, LEFT]
    before = {name: dict(town.nodes[name].members) for name in "abd"}
    news = {name: list(town.told[name].news) for name in "abd"}
    old = list(town.packets)

    for _, sender, _, packet in old:
        for name in "abd":
            town.deliver(name, sender, packet)
    town.run(20.0)

    for name in "abd":
        assert dict(town.nodes[name].members) == before[name]
        assert town.told[name].news == news[name]


def test_incarnations_never_go_back_whatever_is_lost() -> None:
    town = Town(FAST.swim, seed=11)
    town.settle(*FIVE)
    highest: dict[tuple[str, str], int] = {}

    for _ in range(60):
        town.lost = {(a, b) for a in FIVE for b in FIVE if town.random.random() < 0.5}
        town.run(0.5)
        for name in FIVE:
            for of in FIVE:
                incarnation = town.state(name, of)[1]
                assert incarnation >= highest.get((name, of), 0)
                highest[name, of] = incarnation

    town.lost = set()
    town.run_until(lambda: all(everyone_sees(town, name, ALIVE) for name in FIVE))


def test_partition_heals_by_gossip_to_the_dead(town: Town) -> None:
    town.settle(*FIVE)
    between = {(a, b) for a in "ab" for b in "cde"}
    town.lost |= between | {(b, a) for a, b in between}
    town.cut |= town.lost
    town.run_until(lambda: all(town.nodes[n].members[o].state is DEAD for n, o in town.lost))

    town.lost.clear()
    town.cut.clear()
    town.nodes["a"].set_meta(b"new", town.now)
    town.nodes["c"].set_meta(b"new", town.now)
    took = town.run_until(lambda: all(everyone_sees(town, name, ALIVE) for name in FIVE))

    assert took < 35.0


def test_long_partition_heals_by_one_exchange_of_states(town: Town) -> None:
    """Nobody tells the dead any more, and all are remembered at the incarnation at which they died."""
    town.settle(*FIVE)
    between = {(a, b) for a in "ab" for b in "cde"}
    town.lost |= between | {(b, a) for a, b in between}
    town.cut |= town.lost
    town.run(200.0)
    assert [town.nodes[name].alive_count for name in FIVE] == [2, 2, 3, 3, 3]
    for told in town.told.values():
        told.news.clear()

    town.lost.clear()
    town.cut.clear()
    assert town.join("a", "c") == ""
    took = town.run_until(lambda: all(everyone_sees(town, name, ALIVE) for name in FIVE))
    town.run(60.0)

    assert took < 5.0
    assert sorted(town.told["a"].news) == [("joined", name) for name in "cde"]
    assert sorted(town.told["e"].news) == [("joined", name) for name in "ab"]


def test_same_seed_sends_the_same_packets() -> None:
    packets = []
    for _ in range(2):
        town = Town(seed=3, keys=(b"k" * 16,))
        town.settle(*FIVE)
        town.stopped.add("b")
        town.run(30.0)
        packets.append(town.packets)

    assert packets[0] == packets[1]


@pytest.mark.parametrize("seed", range(20))
def test_many_that_start_at_once_in_a_chain_all_know_all_within_ten_seconds(seed: int) -> None:
    """Rumours alone leave gaps: they are spent before everybody knows everybody."""
    town = Town(seed=seed)
    names = "abcdefgh"
    for name in names:
        town.add(name)
    for name, other in zip(names[1:], names, strict=False):
        town.nodes[name].join(town.addresses[other], lambda outcome: None, town.now)
        town.flush(name)

    took = town.run_until(lambda: all(len(town.nodes[name].members) == len(names) for name in names))

    assert took < 10.0
