"""Packets are lost; nobody who lives is held for dead for long, and the dead are found."""

from __future__ import annotations

from pathlib import Path

from raftlog.serf.config import LAN
from tests.raftlog.gossip.agents import needs_serf
from tests.raftlog.gossip.conftest import Run
from tests.raftlog.gossip.lossy import Watch, tell_story

SEED = 5


@needs_serf
def test_three_agents_and_five_of_ours_live_with_a_fifth_of_all_packets_lost(
    run_once: Run, tmp_path: Path
) -> None:
    """The short form; `python -m bench gossip-loss` is the long one."""
    print(f"seed {SEED}")

    async def scenario() -> None:
        story = await tell_story(
            tmp_path, seconds=8.0, loss=0.2, seed=SEED, profile=LAN, agent_profile="lan", detect_s_max=60.0
        )  # fmt: skip
        print(story)
        assert story.lost["packets"] > 0

    run_once(scenario())


def test_the_watch_counts_how_often_and_how_long_a_living_member_was_held_for_failed() -> None:
    watch, well = Watch(), {"a": "alive", "b": "alive"}
    wrong = {"a": "alive", "b": "failed"}

    assert watch.look({"a": well, "b": well}, 0.0) == []
    assert watch.look({"a": wrong, "b": well}, 1.0) == ["a of b"]
    assert watch.look({"a": wrong, "b": well}, 2.5) == ["a of b"]
    assert watch.look({"a": well, "b": well}, 3.0) == []
    assert watch.look({"a": {"a": "alive"}, "b": well}, 4.0) == ["a of b"]  # one that is not known is as bad

    assert (watch.count, watch.longest_s) == (2, 2.0)
