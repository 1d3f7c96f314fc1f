"""One run: first everything may break, then a part of the cluster is healed and must converge.

A run is a function of its scenario. The scenario is drawn from the seed, can be printed, and can be made shorter.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final, NamedTuple, assert_never

from raftlog.engine import NodeId
from raftlog.sim.cluster import Cluster
from raftlog.sim.faults import STEP_US, Plan, draw_plan
from raftlog.sim.injector import Injector
from raftlog.sim.linearizability import Linearizable, NotLinearizable, Undecided, check
from raftlog.sim.machine import MODEL
from raftlog.sim.models import Append, Read
from raftlog.sim.network import both_ways
from raftlog.sim.subject import ProtocolUnderTest, Violation
from raftlog.sim.workload import Errand, draw_errands
from raftlog.sim.world import MILLISECOND, SECOND, Watch, World

CONVERGENCE_US_MAX: Final = 20 * SECOND  # tens of elections; a healthy core needs one or two
CONVERGENCE_EVENTS_MAX: Final = 50_000  # a healthy core needs some hundreds, seldom some thousands
ASKING_ANYBODY_US_MAX: Final = 8 * SECOND  # of the time to converge; then clients ask who leads
POLL_US: Final = 20 * MILLISECOND
FINAL_READER: Final = 98  # no drawn client has this number, or the next
FINAL_CLIENT: Final = 99
FINAL_KEY: Final = "final"
JUDGE_STEPS_MAX: Final = 500_000  # places tried for one key: seconds; drawn runs need thousands


class Scenario(NamedTuple):
    """All that a run depends on, beside the code."""

    seed: int
    nodes: int
    steps: int  # of the first phase, in recorded events at most
    horizon_us: int  # the first phase ends then at the latest
    plan: Plan
    errands: list[Errand]


class Failure(NamedTuple):
    kind: str  # constant text
    detail: str


class Result(NamedTuple):
    seed: int
    events: int
    lived_us: int  # how long the first phase took
    digest: str
    done: int  # operations of clients that took effect
    unclear: int  # and those of which nobody knows
    failure: Failure | None


def draw_scenario(protocol: ProtocolUnderTest, *, nodes: int, seed: int, steps: int) -> Scenario:
    names = node_names(nodes)
    plan = draw_plan(Random(f"{seed}/faults"), names, protocol.claims, steps=steps)
    errands = []
    if protocol.claims.serves_clients:
        errands = draw_errands(Random(f"{seed}/errands"), horizon_us=steps * STEP_US)
    # Twice the time in which faults come: idle clusters have few events.
    return Scenario(seed, nodes, steps, 2 * steps * STEP_US, plan, errands)


def node_names(count: int) -> list[NodeId]:
    return [NodeId(f"n{number}") for number in range(1, count + 1)]


def run(protocol: ProtocolUnderTest, scenario: Scenario, watch: Watch | None = None) -> Result:
    """Run it to its end, or to the first thing that must not happen."""
    world = World(scenario.seed, watch=watch)
    cluster = Cluster(
        world,
        protocol,
        scenario.nodes,
        weather=scenario.plan.weather,
        disk_speed=scenario.plan.disk_speed,
    )
    failure = None
    lived_us: int | None = None
    try:
        _live(cluster, scenario)
        lived_us = world.now_us
        _converge(cluster, has_clients=protocol.claims.serves_clients)
        _judge(cluster)
    except Violation as violation:
        failure = Failure(violation.kind, violation.detail)
    except Exception as error:  # noqa: BLE001  # whatever a protocol does wrong is a finding, and must not end the others
        failure = Failure(f"raised {type(error).__name__} in {_place(error)}", str(error))
    return Result(
        seed=scenario.seed,
        events=world.events,
        lived_us=world.now_us if lived_us is None else lived_us,
        digest=world.digest(),
        done=cluster.clients.done_count,
        unclear=cluster.clients.unclear_count,
        failure=failure,
    )


def _live(cluster: Cluster, scenario: Scenario) -> None:
    injector = Injector(cluster, scenario.plan.faults)
    cluster.clients.plan(scenario.errands)
    for node in list(cluster.processes):
        cluster.start(node)
    cluster.world.run(until_us=scenario.horizon_us, events_max=scenario.steps)
    injector.end()
    cluster.clients.end()


def _converge(cluster: Cluster, *, has_clients: bool) -> None:
    """Heal a core; it alone must agree, and serve clients if there are any."""
    world = cluster.world
    random = world.random("core")
    core = sorted(cluster.subject.cores(random))
    others = [node for node in cluster.processes if node not in core]
    world.record("core", core)
    cluster.network.heal()
    _put_aside(cluster, core, others, random)
    cluster.serving = core
    for node in core:
        process = cluster.processes[node]
        process.resume()
        process.disk.heal()
        cluster.start(node)
    if has_clients:
        _poll(cluster, core)
        world.after(ASKING_ANYBODY_US_MAX, _point_out_leader, cluster, core)
    else:
        _poll_alone(cluster, core)
    began_us = world.now_us
    events_max = world.events + CONVERGENCE_EVENTS_MAX
    world.run(until_us=began_us + CONVERGENCE_US_MAX, events_max=events_max)
    if not (_is_done(cluster, core) if has_clients else cluster.subject.has_converged(core)):
        took = f"{(world.now_us - began_us) / SECOND:.0f} s and {world.events} events in all"
        raise Violation("no convergence", f"core {' '.join(core)} after {took}")


def _put_aside(cluster: Cluster, core: Sequence[NodeId], others: Sequence[NodeId], random: Random) -> None:
    """Those who are not of the core may be down, cut off, or deaf but loud."""
    for node in others:
        match random.randrange(3 if cluster.subject.bears_the_deaf() else 2):
            case 0:
                cluster.processes[node].crash()
            case 1:
                cluster.network.cut(both_ways([node], core))
            case _:
                cluster.network.cut([(one, node) for one in core])


def _point_out_leader(cluster: Cluster, core: Sequence[NodeId]) -> None:
    """Clients that ask anybody may ask those for long who are no members any more: whether they find the one who serves
    is not what is tried."""
    leader = cluster.subject.leader()
    cluster.serving = [leader] if leader is not None and leader in core else core
    cluster.world.after(SECOND, _point_out_leader, cluster, core)


def _poll(cluster: Cluster, core: Sequence[NodeId]) -> None:
    clients = cluster.clients
    if clients.is_idle():
        if clients.last_succeeded(FINAL_CLIENT):
            if cluster.subject.has_converged(core):
                cluster.world.stop()
                return
        elif clients.last_succeeded(FINAL_READER):
            mark = f"{cluster.world.now_us},"
            clients.plan([Errand(cluster.world.now_us, FINAL_CLIENT, Append(FINAL_KEY, mark))])
        else:  # a read comes first: it may not need a write before it
            clients.plan([Errand(cluster.world.now_us, FINAL_READER, Read(FINAL_KEY))])
    cluster.world.after(POLL_US, _poll, cluster, core)


def _poll_alone(cluster: Cluster, core: Sequence[NodeId]) -> None:
    """As `_poll`, of a protocol that has no clients."""
    if cluster.subject.has_converged(core):
        cluster.world.stop()
    else:
        cluster.world.after(POLL_US, _poll_alone, cluster, core)


def _is_done(cluster: Cluster, core: Sequence[NodeId]) -> bool:
    clients = cluster.clients
    return clients.is_idle() and clients.last_succeeded(FINAL_CLIENT) and cluster.subject.has_converged(core)


def _judge(cluster: Cluster) -> None:
    cluster.subject.finish()
    cluster.clients.settle()
    verdict = check(MODEL, cluster.history.operations(), steps_max=JUDGE_STEPS_MAX)
    match verdict:
        case Linearizable():
            return
        case NotLinearizable(key=key, stuck=stuck, partial=partial):
            ends = "; ".join(str(operation) for operation in partial[-5:])
            raise Violation("not linearizable", f"{key}: {stuck} fits nowhere after ...{ends}")
        case Undecided(key=key):
            raise Violation(
                "undecided", f"whether the history of {key} is linearizable: {JUDGE_STEPS_MAX} steps"
            )
        case _:
            assert_never(verdict)


def _place(error: BaseException) -> str:
    """The function in which it was raised: the same failure is found there again, on another line perhaps."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_qualname if trace is not None else "an unknown place"
