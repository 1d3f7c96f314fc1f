"""`python -m bench`: each command measures one thing and writes bench/results/<command>.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bench import (
    chaos,
    cluster,
    compare,
    gossip,
    gossip_loss,
    membership,
    mutants,
    opening,
    raft,
    server,
    simulation,
)
from bench.report import DOCUMENTS, RESULTS, chaos_table, cluster_table, compare_table, filled_in, merged
from logstore.benchmark.cases import Bench
from logstore.benchmark.measure import Series, as_json
from logstore.benchmark.subjects import available
from logstore.cli.bench import print_series
from logstore.cli.output import errors

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Runs = Annotated[int, typer.Option(min=1, help="Runs of each case, in turn; medians are shown.")]
Seconds = Annotated[float, typer.Option(min=0.1, help="Length of one measurement.")]
Folder = Annotated[Path, typer.Option("--in", help="Where test data is written, and removed afterwards.")]


@app.command("engine")
def engine_command(runs: Runs = 5, seconds: Seconds = 1.0, folder: Folder = Path()) -> None:
    """The engine beside a plain file and the databases that are installed: all cases of `logstore bench`."""
    subjects, missing = available()
    if missing:
        errors.print(f"not installed, left out: {', '.join(missing)}", highlight=False)
    bench = Bench(folder, subjects, runs=runs, seconds=seconds)
    report("engine", bench.run((), lambda text: errors.print(text, highlight=False)))


@app.command("server")
def server_command(runs: Runs = 5, seconds: Seconds = 3.0, folder: Folder = Path()) -> None:
    """One server with TLS in its own process and one Python client: batches, single calls, idle tails."""
    report("server", server.measure(folder, runs=runs, seconds=seconds))


@app.command("opening")
def opening_command(runs: Runs = 5, gigabytes: int = 10, folder: Folder = Path()) -> None:
    """Opening a log with many sealed segments, and the memory it takes to scan it."""
    report("opening", opening.measure(folder, runs=runs, gigabytes=gigabytes))


@app.command("cluster")
def cluster_command(
    runs: Runs = 5,
    folder: Folder = Path(),
    only: Annotated[
        list[str] | None,
        typer.Option(help=f"One of {', '.join(cluster.CASES)}; only these are recorded anew."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Little of everything, once; not recorded.")] = False,
    gigabytes: Annotated[
        int, typer.Option(min=2, help="Of traffic while memory is watched.")
    ] = cluster.FULL.gigabytes,
    kills: Annotated[int, typer.Option(min=1, help="Of the leader, by SIGKILL.")] = cluster.FULL.kills,
) -> None:
    """Three servers with TLS and one Python client: rates, times, what it costs, and time without a leader."""
    unknown = sorted(set(only or ()) - cluster.CASES.keys())
    if unknown:
        raise typer.BadParameter(
            f"there is no case {', '.join(unknown)}; choose from {', '.join(cluster.CASES)}"
        )
    sizes = cluster.QUICK if quick else cluster.FULL._replace(gigabytes=gigabytes, kills=kills)
    series = cluster.measure(
        folder, only or (), runs=1 if quick else runs, sizes=sizes,
        tell=lambda text: errors.print(text, highlight=False),
    )  # fmt: skip
    measured = as_json(series)
    for line in cluster_table(measured):
        print(line)
    if not quick:
        write("cluster", merged(RESULTS / "cluster.json", measured) if only else measured)


@app.command("membership")
def membership_command(
    runs: Runs = 3,
    idle_s: Annotated[float, typer.Option(min=1.0, help="For which processor time is counted.")] = 30.0,
    folder: Folder = Path(),
) -> None:
    """What gossip costs while nothing happens, and how long newcomers and new clusters take; LAN profile."""
    measured = membership.measure(
        folder, runs=runs, idle_s=idle_s, tell=lambda text: errors.print(text, highlight=False)
    )
    report("membership", measured)


@app.command("compare")
def compare_command(
    runs: Runs = 5,
    seconds: Seconds = 3.0,
    folder: Folder = Path(),
    only: Annotated[
        list[str] | None, typer.Option(help="Part of a name: only these, and nothing is recorded.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Little of everything, once; not recorded.")] = False,
) -> None:
    """raftlog beside etcd, NATS JetStream, Redis Streams and PySyncObj: what of these is installed, in turns."""
    measured = compare.measure(
        folder, only or (), runs=1 if quick else runs, seconds=min(seconds, 1.0) if quick else seconds,
        tell=lambda text: errors.print(text, highlight=False),
    )  # fmt: skip
    for line in compare_table(measured):
        print(line)
    if not (quick or only):
        write("compare", measured)


@app.command("chaos")
def chaos_command(
    rounds: Annotated[int, typer.Option(min=1, help="Faults, one after the other.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the chance that chooses them.")] = 1,
    folder: Folder = Path(),
) -> None:
    """Three servers under load, whose processes are killed, paused, restarted and lose their disks."""
    measured = chaos.measure(
        folder, rounds=rounds, seed=seed, tell=lambda text: errors.print(text, highlight=False)
    )
    for line in chaos_table(measured):
        print(line)
    write("chaos", measured)


@app.command("raft")
def raft_command(runs: Runs = 5, seconds: Seconds = 1.0) -> None:
    """The consensus core by itself: three nodes in one process, storage in memory, with and without its checks."""
    report("raft", raft.measure(runs=runs, seconds=seconds))


@app.command("mutants")
def mutants_command(
    names: Annotated[
        list[str] | None, typer.Argument(help="Parts of names: only these are searched and recorded anew.")
    ] = None,
    nodes: Annotated[str, typer.Option(help="Numbers of nodes, each tried with every seed.")] = "3,5",
    steps: int = 1_000,
    rated: Annotated[int, typer.Option(min=1, help="Seeds that all run, for the finding rate.")] = 100,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds at most, until one finds it.")] = 2_000,
    jobs: Annotated[int, typer.Option(min=1)] = 1,
    protocol: Annotated[Literal["raft", "serf"], typer.Option(help="Of what.")] = "raft",
) -> None:
    """Deliberate breaks of the consensus core, or of the gossip: which seed of the simulator finds each, and by which check."""
    search = mutants.Search([int(count) for count in nodes.split(",")], steps, rated, seeds)
    found = mutants.measure(
        search, names or [], protocol=protocol, jobs=jobs,
        tell=lambda text: errors.print(text, highlight=False, soft_wrap=True),
    )  # fmt: skip
    name = "mutants" if protocol == "raft" else f"{protocol}_mutants"
    write(name, mutants.merged(RESULTS / f"{name}.json", found) if names else found)


@app.command("simulation")
def simulation_command(
    seeds: Annotated[int, typer.Option(min=1)] = 10_000, jobs: Annotated[int, typer.Option(min=1)] = 1
) -> None:
    """The consensus core in the simulated world: 3 and 5 nodes, this many seeds each."""
    write("simulation", simulation.measure(simulation.of_raft(seeds), jobs=jobs))


@app.command("pysyncobj")
def pysyncobj_command(
    seeds: Annotated[int, typer.Option(min=1)] = 200, jobs: Annotated[int, typer.Option(min=1)] = 1
) -> None:
    """PySyncObj in the same world: what is found in each of its profiles."""
    write("pysyncobj", simulation.measure(simulation.of_pysyncobj(seeds), jobs=jobs))


@app.command("gossip-loss")
def gossip_loss_command(
    seconds: Annotated[float, typer.Option(min=1.0, help="That nobody dies in.")] = 120.0,
    loss: Annotated[float, typer.Option(min=0.0, max=0.9, help="Of packets that are lost.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Of the chance by which they are.")] = 1,
    folder: Folder = Path(),
) -> None:
    """Three agents of Serf and five nodes of ours that lose packets: who is held for dead, and how long."""
    measured = gossip_loss.measure(folder, seconds=seconds, loss=loss, seed=seed)
    errors.print_json(data={key: value for key, value in measured.items() if key != "machine"})
    write("gossip_loss", measured)


@app.command("gossip")
def gossip_command(
    share: Annotated[float, typer.Option(min=0.001, max=1.0, help="Of all crashes and of the time.")] = 1.0,
    jobs: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Gossip in virtual time: how soon a crash is known, by how many nodes there are, and false deaths by loss."""
    write(
        "gossip",
        gossip.measure(jobs=jobs, share=share, tell=lambda text: errors.print(text, highlight=False)),
    )


@app.command("tables")
def tables_command() -> None:
    """Write the tables of the documents anew from bench/results."""
    for document in DOCUMENTS:
        document.write_text(filled_in(document.read_text()))


def report(name: str, series: list[Series]) -> None:
    write(name, as_json(series))
    print_series(series)


def write(name: str, content: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    app()
