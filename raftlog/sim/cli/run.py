"""`python -m raftlog.sim run`: a protocol in the simulated world, one seed after the other."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final, NamedTuple

import typer

from raftlog.sim.chart import Chart
from raftlog.sim.cli.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_UNUSABLE
from raftlog.sim.protocols import PROTOCOLS, NoSuchProtocol, protocol
from raftlog.sim.shrink import describe, shrink
from raftlog.sim.simulation import Result, draw_scenario, node_names
from raftlog.sim.simulation import run as run_scenario

SEEDS_PER_JOB: Final = 4  # handed to a process at once: some tenths of a second of work


class Settings(NamedTuple):
    protocol: str
    nodes: int
    steps: int


def register(app: typer.Typer) -> None:
    app.command()(run)


def run(
    protocol_name: Annotated[
        str,
        typer.Option(
            "--protocol",
            metavar="NAME",
            help=f"One of {', '.join(PROTOCOLS)}; or MODULE:NAME for one of your own.",
        ),
    ] = "raft",
    *,
    nodes: Annotated[int, typer.Option(metavar="COUNT", min=1, max=9, help="How many to begin with.")] = 5,
    seeds: Annotated[
        str,
        typer.Option(metavar="FIRST:END", help="One run for each of these, END left out; or a single seed."),
    ] = "0:100",
    steps: Annotated[
        int, typer.Option(metavar="COUNT", min=1, help="Events under faults, before a part is healed.")
    ] = 2_000,
    trace: Annotated[
        bool, typer.Option("--trace", help="Show each run as a chart; one that fails is made shorter first.")
    ] = False,
    as_drawn: Annotated[bool, typer.Option("--as-drawn", help="With --trace: make nothing shorter.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One object for all, for machines.")] = False,
    jobs: Annotated[
        int, typer.Option(metavar="COUNT", min=1, help="Processes to share the seeds; not with --trace.")
    ] = 1,
) -> None:
    """Run a protocol, and say which seeds break it.

    Exit codes: 0 none does, 1 some do, 2 the command line cannot be used, 130 ended by Ctrl-C (what was done until
    then is said).
    """
    try:
        protocol(protocol_name)
    except NoSuchProtocol as error:
        typer.echo(f"run: {error}", err=True)
        raise typer.Exit(EXIT_UNUSABLE) from error
    settings = Settings(protocol_name, nodes, steps)
    chosen = _seeds(seeds)
    if trace and as_json:
        raise typer.BadParameter("a chart is text; leave out --trace or --json", param_hint="--json")
    if trace and jobs != 1:
        raise typer.BadParameter("charts come one by one; leave out --trace or --jobs", param_hint="--jobs")
    if as_drawn and not trace:
        raise typer.BadParameter(
            "says how --trace shows a run, which is not asked for", param_hint="--as-drawn"
        )
    if trace:
        failed = [seed for seed in chosen if _show(settings, seed, as_drawn=as_drawn)]
        raise typer.Exit(EXIT_FAILED if failed else 0)

    results: list[Result] = []
    began = time.perf_counter()
    is_interrupted = False
    try:
        with _results(settings, chosen, jobs) as coming:
            for result in coming:
                results.append(result)
                if result.failure is not None and not as_json:
                    typer.echo(_line(settings, result))
    except KeyboardInterrupt:
        is_interrupted = True
    elapsed_s = time.perf_counter() - began
    typer.echo(_summary(settings, results, elapsed_s, as_json=as_json))
    if is_interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    raise typer.Exit(EXIT_FAILED if any(result.failure for result in results) else 0)


def _seeds(text: str) -> range:
    first, colon, end = text.partition(":")
    if not (first.isascii() and first.isdecimal() and (not colon or (end.isascii() and end.isdecimal()))):
        raise typer.BadParameter(f"{text}: neither a seed nor FIRST:END", param_hint="--seeds")
    chosen = range(int(first), int(end) if colon else int(first) + 1)
    if not chosen:
        raise typer.BadParameter(f"{text}: no seeds, as END is not one of them", param_hint="--seeds")
    return chosen


def _run_one(settings: Settings, seed: int) -> Result:
    under_test = protocol(settings.protocol)
    return run_scenario(
        under_test, draw_scenario(under_test, nodes=settings.nodes, seed=seed, steps=settings.steps)
    )


def _run_job(job: tuple[Settings, int]) -> Result:
    return _run_one(*job)


@contextmanager
def _results(settings: Settings, seeds: range, jobs: int) -> Iterator[Iterator[Result]]:
    """In the order of seeds, whoever runs them."""
    if jobs == 1:
        yield (_run_one(settings, seed) for seed in seeds)
        return
    # Ctrl-C is for the one who prints; leaving the block ends the others.
    with multiprocessing.Pool(
        jobs, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
    ) as pool:
        yield pool.imap(_run_job, ((settings, seed) for seed in seeds), chunksize=SEEDS_PER_JOB)


def _replay(settings: Settings, seed: int) -> str:
    return (
        f"python -m raftlog.sim run --protocol {settings.protocol} --nodes {settings.nodes} "
        f"--steps {settings.steps} --seeds {seed} --trace"
    )


def _line(settings: Settings, result: Result) -> str:
    assert result.failure is not None
    return (
        f"seed {result.seed}: {result.failure.kind}: {result.failure.detail}"
        f"\n    replay: {_replay(settings, result.seed)}"
    )


def _summary(settings: Settings, results: list[Result], elapsed_s: float, *, as_json: bool) -> str:
    events = sum(result.events for result in results)
    per_second = round(events / elapsed_s) if elapsed_s else 0
    # of the runs' digests in the order of seeds: the same for the same code and seeds, however many processes
    digest = hashlib.blake2b(
        "".join(result.digest for result in results).encode(), digest_size=16
    ).hexdigest()
    failures = [result for result in results if result.failure is not None]
    if not as_json:
        kinds = Counter(result.failure.kind for result in failures if result.failure is not None)
        line = (
            f"{settings.protocol}, {settings.nodes} nodes: {len(results)} seeds, {len(failures)} failed, "
            f"{events} events, {per_second} events/s, digest {digest}"
        )
        return "\n".join([line, *(f"    {count} {kind}" for kind, count in kinds.most_common())])
    return json.dumps(
        {
            **settings._asdict(),
            "seeds": len(results),
            "events": events,
            "events_per_second": per_second,
            "operations_done": sum(result.done for result in results),
            "operations_unclear": sum(result.unclear for result in results),
            "digest": digest,
            "failures": [
                {
                    "seed": result.seed,
                    "kind": result.failure.kind,
                    "detail": result.failure.detail,
                    "digest": result.digest,
                    "replay": _replay(settings, result.seed),
                }
                for result in failures
                if result.failure is not None
            ],
        },
        indent=2,
    )


def _show(settings: Settings, seed: int, *, as_drawn: bool) -> bool:
    """Show one seed as a chart; whether it fails."""
    under_test = protocol(settings.protocol)
    scenario = draw_scenario(under_test, nodes=settings.nodes, seed=seed, steps=settings.steps)
    result = run_scenario(under_test, scenario)
    if result.failure is not None and not as_drawn:
        shrunk = shrink(under_test, scenario, result)
        scenario = shrunk.scenario
        typer.echo(
            f"seed {seed} fails: {result.failure.kind}. Made shorter in {shrunk.runs} runs, "
            f"from {result.events} events to {shrunk.result.events}:"
        )
    for line in describe(scenario):
        typer.echo(line)
    shown = run_scenario(under_test, scenario, Chart(node_names(settings.nodes), typer.echo))
    if shown.failure is not None:
        typer.echo(f"seed {seed}: {shown.failure.kind}: {shown.failure.detail}")
    typer.echo(f"seed {seed}: {shown.events} events, digest {shown.digest}")
    return result.failure is not None
