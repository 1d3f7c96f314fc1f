"""What was aimed at for a cluster, and whether the recorded values reach it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

from logstore.cli.bench import shown


class Aim(NamedTuple):
    """Of the results whose case begins so and whose subject ends so, the one that is farthest from the aim counts."""

    text: str
    case: str
    subject: str
    value: Literal["median", "min", "max"]
    is_at_least: bool  # else: below
    bound: float
    unit: str


CLUSTER_AIMS: Final = (
    Aim("100 B, merging producer: 200,000 records/s", "produce_100_b", "threads", "median", True, 200_000, "/s"),
    Aim("100 B, ready batches of 1,000: 500,000 records/s", "batches_100_b", "1,000 x 100 B", "median", True,
        500_000, "/s"),
    Aim("the same: better a million", "batches_100_b", "1,000 x 100 B", "median", True, 1_000_000, "/s"),
    Aim("consuming from a follower: 1 M records/s", "consume_from_follower", "", "median", True, 1_000_000, "/s"),
    Aim("SIGKILL of the leader: less than 2 s without one, at most", "kill_until_acknowledged", "", "max", False,
        2.0, " s"),
    Aim("idle: under 3 % of a core per node", "idle", "", "median", False, 3.0, " %"),
    Aim("bytes written per byte of record: below 1.1 per node", "written_per_byte", "written", "median", False,
        1.1, ""),
    Aim("memory flat: less than 32 MiB more after the last GB than after the first", "memory_", "to the last",
        "max", False, 32.0, " MiB"),
)  # fmt: skip


def aims_table(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "| aim | reached, in the run below |"
    yield "|---|---|"
    for aim in CLUSTER_AIMS:
        values = [
            one[aim.value]
            for one in results
            if one["case"].startswith(aim.case) and one["subject"].endswith(aim.subject)
        ]
        yield f"| {aim.text} | {_reached(aim, values)} |"


def beside_etcd(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Nothing where one of the two was not measured."""
    rates = {one["subject"]: one["median"] for one in results if one["case"] == "one_at_a_time"}
    ours, etcds = rates.get("raftlog"), rates.get("etcd")
    if ours is None or etcds is None:
        return
    missed = "" if ours > etcds else ": **missed**"
    yield f"One record at a time was to be ahead of etcd's: {shown(ours)}/s against {shown(etcds)}/s{missed}."
    yield ""


def _reached(aim: Aim, values: Sequence[float]) -> str:
    if not values:
        return "not measured"
    worst = min(values) if aim.is_at_least else max(values)
    is_reached = worst >= aim.bound if aim.is_at_least else worst < aim.bound
    return f"{shown(worst)}{aim.unit}{'' if is_reached else ': **missed**'}"
