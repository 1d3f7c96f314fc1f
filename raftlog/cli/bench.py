"""`raftlog bench`: how fast a running cluster is from here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from logstore.cli.output import Json, print_json
from raftlog import load
from raftlog.cli import make_app
from raftlog.cli.connection import Target, require_any, with_target
from raftlog.client.async_client import AsyncClient

app = make_app(no_args_is_help=True)

T = TypeVar("T")


@app.callback()
def bench() -> None:
    """Measure a running cluster with one client. What `produce` stores stays in the log."""


@app.command()
@with_target
def produce(
    target: Target,
    records: Annotated[int, typer.Option(help="How many.", min=1)] = 1_000_000,
    size: Annotated[
        int, typer.Option(help="Bytes of each value; random ones.", min=0, max=16 * 1024 * 1024)
    ] = 100,
    batch: Annotated[
        int,
        typer.Option(
            help="Records in a batch; 1: they are sent one by one, and the client merges those on the way.",
            min=1,
        ),
    ] = 1000,
    in_flight: Annotated[
        int,
        typer.Option(
            help="Batches (with --batch 1: records) sent and not acknowledged; 1: each waits for the one before.",
            min=1,
            max=65536,
        ),
    ] = 8,
    json: Json = False,
) -> None:
    """Produce records as fast as they are acknowledged, and say how fast that is."""
    done = _run(
        target,
        lambda client: load.produce(client, records=records, size=size, batch=batch, in_flight=in_flight),
    )
    if json:
        print_json({"batch": batch, "size": size, "in_flight": in_flight, **done._asdict()})
        return
    typer.echo(f"{done.records:,} records of {size} B in {done.seconds:.2f} s: {done.records_per_s:,} records/s, "
               f"{done.mb_per_s:,.1f} MB/s")  # fmt: skip
    typer.echo(
        f"acknowledged after {done.p50_ms:.2f} ms (median), {done.p99_ms:.2f} ms (99 %), {done.max_ms:.2f} ms (last)"
    )


@app.command()
@with_target
def consume(
    target: Target,
    records: Annotated[int | None, typer.Option(help="How many at most; all if not given.", min=1)] = None,
    json: Json = False,
) -> None:
    """Read the log from its start, from a follower if there is one, and say how fast that is."""
    done = _run(target, lambda client: load.consume(client, records=records))
    if json:
        print_json(done._asdict())
    else:
        typer.echo(f"{done.records:,} records in {done.seconds:.2f} s: {done.records_per_s:,} records/s, "
                   f"{done.mb_per_s:,.1f} MB/s; the first after {done.first_ms:.1f} ms")  # fmt: skip


def _run(target: Target, work: Callable[[AsyncClient], Awaitable[T]]) -> T:
    require_any(target.addresses, target.tls, target.gossip_key_file)

    async def connect() -> T:
        async with AsyncClient(
            target.addresses,
            tls=target.tls,
            timeout_s=target.timeout_s,
            gossip_key_file=target.gossip_key_file,
        ) as client:
            return await work(client)

    return asyncio.run(connect())
