from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from raftlog.engine import NodeId
from raftlog.raft.configuration import (
    CHANGE_BYTES_MAX,
    CHANGES_MAX,
    NODE_NAME_CHARACTERS_MAX,
    Change,
    Changed,
    ChangeKind,
    Configuration,
    ConfigurationChange,
    InvalidChange,
    Transition,
    apply_change,
    change_simply,
    enter_joint,
    leave_joint,
)
from raftlog.raft.progress import Progress, track
from tests.raftlog.raft.datadriven import Directive, read_directives, vector_files

N1, N2, N3, N4, N5 = (NodeId(f"n{number}") for number in range(1, 6))
THREE = Configuration(voters=(N1, N2, N3))

SEED = 20_140_814
CASES = 10_000


def add(node: NodeId) -> Change:
    return Change(ChangeKind.ADD_VOTER, node)


def learn(node: NodeId) -> Change:
    return Change(ChangeKind.ADD_LEARNER, node)


def remove(node: NodeId) -> Change:
    return Change(ChangeKind.REMOVE, node)


# ── a configuration ─────────────────────────────────────────────────────────────────────────────────


def test_members_are_both_halves_and_the_learners() -> None:
    joint = Configuration(
        voters=(N2, N5), outgoing=(N1, N2, N3), learners=(N4,), learners_next=(N3,), auto_leave=True
    )

    assert joint.is_joint
    assert joint.all_voters == (N1, N2, N3, N5)
    assert joint.members == (N1, N2, N3, N4, N5)
    assert str(joint) == "voters=(n2 n5)&&(n1 n2 n3) learners=(n4) learners_next=(n3) autoleave"


def test_configuration_that_is_not_joint_is_printed_short() -> None:
    assert not THREE.is_joint
    assert THREE.members == THREE.all_voters == THREE.voters
    assert str(THREE) == "voters=(n1 n2 n3)"
    assert str(Configuration()) == "voters=()"


@pytest.mark.parametrize(
    ("voters", "outgoing", "learners", "learners_next", "auto_leave"),
    [
        ((N2, N1), (), (), (), False),
        ((N1, N1), (), (), (), False),
        ((N1,), (), (N1,), (), False),
        ((N1,), (N2,), (N2,), (), False),
        ((N1,), (), (), (N2,), False),
        ((N1,), (N1, N2), (), (N3,), False),
        ((N1,), (N1, N2), (), (N1,), False),
        ((N1,), (), (), (), True),
    ],
)
def test_configuration_that_breaks_an_invariant_cannot_be_made(
    voters: tuple[NodeId, ...],
    outgoing: tuple[NodeId, ...],
    learners: tuple[NodeId, ...],
    learners_next: tuple[NodeId, ...],
    auto_leave: bool,
) -> None:
    with pytest.raises(AssertionError):
        Configuration(voters, outgoing, learners, learners_next, auto_leave)


# ── what is asked for ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "transition", "enters", "auto_leave", "leaves"),
    [
        ((), Transition.AUTO, False, False, True),
        ((add(N1),), Transition.AUTO, False, False, False),
        ((add(N1), add(N2)), Transition.AUTO, True, True, False),
        ((), Transition.IMPLICIT, True, True, False),
        ((add(N1),), Transition.IMPLICIT, True, True, False),
        ((), Transition.EXPLICIT, True, False, False),
        ((add(N1),), Transition.EXPLICIT, True, False, False),
        ((add(N1), add(N2)), Transition.EXPLICIT, True, False, False),
    ],
)
def test_number_of_changes_and_transition_tell_the_way(
    changes: tuple[Change, ...], transition: Transition, enters: bool, auto_leave: bool, leaves: bool
) -> None:
    change = ConfigurationChange(changes, transition)

    assert (change.enters_joint, change.auto_leave, change.leaves_joint) == (enters, auto_leave, leaves)


def test_change_is_written_in_one_form() -> None:
    change = ConfigurationChange((add(N1), learn(NodeId("ñ2")), remove(N3)), Transition.EXPLICIT)

    data = change.to_bytes()

    form = '{"changes":[["add-voter","n1"],["add-learner","ñ2"],["remove","n3"]],"transition":"explicit"}'
    assert data == form.encode()
    assert ConfigurationChange.from_bytes(data) == change


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b'"changes"',
        b'{"changes":[]}',
        b'{"transition":"auto"}',
        b'{"changes":null,"transition":"auto"}',
        b'{"changes":[],"transition":"never"}',
        b'{"changes":[],"transition":["auto"]}',
        b'{"changes":[["add-voter"]],"transition":"auto"}',
        b'{"changes":[["add-voter",1]],"transition":"auto"}',
        b'{"changes":[["add-voter","n1","n2"]],"transition":"auto"}',
        b'{"changes":[["rename","n1"]],"transition":"auto"}',
        b'{"changes":[["remove",""]],"transition":"auto"}',
        b'{"changes":[["remove","\\ud800"]],"transition":"auto"}',
        b'{"changes":[], "transition":"auto"}',
        b'{"transition":"auto","changes":[]}',
        b'{"changes":[],"changes":[],"transition":"auto"}',
        b'{"changes":[],"transition":"auto","why":1}',
        '{"changes":[],"transition":"auto"}'.encode("utf-16"),
        b"[" * 20_000,
        b"9" * 20_000,
    ],
)
def test_bytes_that_are_no_change_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidChange):
        ConfigurationChange.from_bytes(data)


def test_more_bytes_than_any_change_has_are_not_parsed() -> None:
    with pytest.raises(InvalidChange, match="32769 bytes"):
        ConfigurationChange.from_bytes(b"[" * (CHANGE_BYTES_MAX + 1))


def test_every_flipped_byte_is_refused_or_is_another_change() -> None:
    change = ConfigurationChange((add(N1), remove(N2)))
    data = change.to_bytes()

    for position in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            try:
                read = ConfigurationChange.from_bytes(bytes(flipped))
            except InvalidChange:
                continue
            assert read != change
            assert read.to_bytes() == flipped


def test_largest_change_can_be_written_and_read() -> None:
    longest = NodeId("𝓃" * NODE_NAME_CHARACTERS_MAX)
    change = ConfigurationChange((learn(longest),) * CHANGES_MAX)

    assert ConfigurationChange.from_bytes(change.to_bytes()) == change


def test_one_change_too_many_is_refused() -> None:
    with pytest.raises(InvalidChange, match="65 changes at once: at most 64"):
        ConfigurationChange((add(N1),) * (CHANGES_MAX + 1))


@pytest.mark.parametrize("name", ["", "n" * (NODE_NAME_CHARACTERS_MAX + 1), "n 1", "n\n", "n\x00"])
def test_name_that_cannot_be_a_nodes_is_refused(name: str) -> None:
    with pytest.raises(InvalidChange, match="a node's name has"):
        ConfigurationChange((add(NodeId(name)),))


# ── from one configuration to the next ──────────────────────────────────────────────────────────────


def test_one_change_is_simple() -> None:
    changed = apply_change(THREE, ConfigurationChange((add(N4),)))

    assert changed == Changed(Configuration(voters=(N1, N2, N3, N4)), newcomers=(N4,))


def test_replacing_a_voter_goes_through_joint() -> None:
    entered = apply_change(THREE, ConfigurationChange((add(N4), learn(N3))))
    left = apply_change(entered.configuration, ConfigurationChange(()))

    assert entered == Changed(
        Configuration(
            voters=(N1, N2, N4), outgoing=(N1, N2, N3), learners_next=(N3,), auto_leave=True
        ),
        newcomers=(N4,),
    )  # fmt: skip
    assert left == Changed(Configuration(voters=(N1, N2, N4), learners=(N3,)), newcomers=())


@pytest.mark.parametrize(
    ("configuration", "change", "refusal"),
    [
        (THREE, ConfigurationChange(()), "can't leave a non-joint config"),
        (Configuration(), ConfigurationChange((add(N1), add(N2))), "can't make a zero-voter config joint"),
        (Configuration((N1,)), ConfigurationChange((remove(N1),)), "removed all voters"),
        (
            Configuration((N1,), outgoing=(N2,)),
            ConfigurationChange((), Transition.EXPLICIT),
            "config is already joint",
        ),
        (
            Configuration((N1,), outgoing=(N2,)),
            ConfigurationChange((add(N3),)),
            "can't apply simple config change in joint config",
        ),
    ],
)
def test_change_that_does_not_fit_the_configuration_is_refused(
    configuration: Configuration, change: ConfigurationChange, refusal: str
) -> None:
    with pytest.raises(InvalidChange, match=f"^{refusal}$"):
        apply_change(configuration, change)


def test_two_voters_cannot_be_changed_simply() -> None:
    with pytest.raises(InvalidChange, match="more than one voter changed without entering joint config"):
        change_simply(THREE, [add(N4), remove(N1)])


def test_learner_that_is_removed_and_added_again_is_a_newcomer() -> None:
    before = Configuration(voters=(N1,), learners=(N2,))

    simple = change_simply(before, [remove(N2), learn(N2)])
    joint = enter_joint(before, [remove(N2), learn(N2)], auto_leave=False)

    assert simple == Changed(before, newcomers=(N2,))
    assert joint.newcomers == (N2,)


def test_voter_that_still_votes_with_the_outgoing_half_is_no_newcomer() -> None:
    joint = enter_joint(THREE, [remove(N3), add(N3)], auto_leave=False)

    assert joint == Changed(Configuration(voters=THREE.voters, outgoing=THREE.voters), newcomers=())


def test_random_changes_agree_with_a_model() -> None:
    random = Random(SEED)
    configuration = Configuration()
    joint_count = refused_count = 0
    for case in range(CASES):
        changes = random_changes(random)
        told = f"seed {SEED}, case {case}: {configuration}, {changes}"

        expected = Model(configuration, is_joint=False)
        expected.apply(changes)
        if expected.voters and len(set(expected.voters).symmetric_difference(configuration.voters)) <= 1:
            simple = change_simply(configuration, changes)
            assert simple == expected.changed(), told
        else:
            refused_count += 1
            with pytest.raises(InvalidChange):
                change_simply(configuration, changes)

        entering = Model(configuration, is_joint=True)
        entering.apply(changes)
        if configuration.voters and entering.voters:
            joint_count += 1
            entered = enter_joint(configuration, changes, auto_leave=case % 2 == 0)
            assert entered == entering.changed(auto_leave=case % 2 == 0), told
            assert_only_left(entered.configuration, changes)
            left = leave_joint(entered.configuration)
            assert left == expected.changed().configuration, told
            configuration = left
        elif expected.voters and not configuration.voters:
            configuration = Configuration(voters=expected.voters[:1])
    assert joint_count > CASES / 2
    assert refused_count > CASES / 10


def assert_only_left(joint: Configuration, changes: Sequence[Change]) -> None:
    """A joint configuration cannot be changed before it is left."""
    with pytest.raises(InvalidChange):
        change_simply(joint, changes)
    with pytest.raises(InvalidChange):
        enter_joint(joint, changes, auto_leave=False)


def random_changes(random: Random) -> list[Change]:
    names = [N1, N2, N3, N4, N5]
    return [
        Change(random.choice(list(ChangeKind)), random.choice(names)) for _ in range(random.randrange(1, 7))
    ]


class Model:
    """Each node has one role, which the last change tells; who loses its role and its outgoing vote is forgotten."""

    def __init__(self, configuration: Configuration, *, is_joint: bool) -> None:
        assert not configuration.is_joint
        self.roles = dict.fromkeys(configuration.voters, "voter") | dict.fromkeys(
            configuration.learners, "learner"
        )
        self.outgoing = configuration.voters if is_joint else ()
        self.remembered = set(configuration.members)

    def apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            match change.kind:
                case ChangeKind.ADD_VOTER:
                    self.roles[change.node] = "voter"
                case ChangeKind.ADD_LEARNER:
                    self.roles[change.node] = "learner"
                case ChangeKind.REMOVE:
                    self.roles.pop(change.node, None)
                    if change.node not in self.outgoing:
                        self.remembered.discard(change.node)

    def having(self, role: str) -> tuple[NodeId, ...]:
        return tuple(sorted(node for node, own in self.roles.items() if own == role))

    @property
    def voters(self) -> tuple[NodeId, ...]:
        return self.having("voter")

    def changed(self, *, auto_leave: bool = False) -> Changed:
        learners = self.having("learner")
        return Changed(
            Configuration(
                voters=self.voters,
                outgoing=self.outgoing,
                learners=tuple(node for node in learners if node not in self.outgoing),
                learners_next=tuple(node for node in learners if node in self.outgoing),
                auto_leave=auto_leave,
            ),
            newcomers=tuple(sorted(set(self.roles) - self.remembered)),
        )


# ── the public vectors ──────────────────────────────────────────────────────────────────────────────

KINDS = {
    "v": ChangeKind.ADD_VOTER,
    "l": ChangeKind.ADD_LEARNER,
    "r": ChangeKind.REMOVE,
    "u": ChangeKind.UPDATE,
}


@pytest.mark.parametrize("path", vector_files("confchange"))
def test_public_configuration_vectors(path: Path) -> None:
    configuration = Configuration()
    progress: dict[NodeId, Progress] = {}
    for last_index, directive in enumerate(read_directives(path)):
        try:
            changed = run(configuration, directive)
        except InvalidChange as error:
            printed = str(error)
        else:
            configuration = changed.configuration
            progress = track(
                progress,
                configuration,
                newcomers=changed.newcomers,
                last_index=last_index,
                inflight_count_max=10,
                inflight_bytes_max=0,
            )
            printed = print_state(configuration, progress)

        assert printed == directive.expected, f"{path}:{directive.line}"


def run(configuration: Configuration, directive: Directive) -> Changed:
    changes = read_changes(directive.input)
    match directive.command:
        case "simple":
            return change_simply(configuration, changes)
        case "enter-joint":
            auto_leave = {"true": True, "false": False}[directive.value("autoleave", "false")]
            return enter_joint(configuration, changes, auto_leave=auto_leave)
        case "leave-joint":
            if directive.input:
                raise InvalidChange("this command takes no input")
            return Changed(leave_joint(configuration), newcomers=())
    raise InvalidChange("unknown command")


def read_changes(text: str) -> list[Change]:
    changes = []
    for word in text.split():
        if len(word) < 2:
            raise InvalidChange(f"unknown token {word}")
        if word[0] not in KINDS:
            raise InvalidChange(f"unknown input: {word}")
        number = int(word[1:])
        # etcd's way to blank out a change of an entry is to give it node 0, whom it ignores. A name is never blank.
        if number != 0:
            changes.append(Change(KINDS[word[0]], NodeId(f"{number:020}")))
    return changes


def print_state(configuration: Configuration, progress: dict[NodeId, Progress]) -> str:
    """As etcd does; the nodes, whose names have so many digits that they sort as numbers, are numbers again."""
    lines = [re.sub(r"\d{20}", lambda name: f"{int(name[0]):x}", str(configuration))]
    for node, one in progress.items():
        line = f"{int(node)}: State{one.state.value.capitalize()} match={one.match} next={one.next}"
        lines.append(line + (" learner" if one.is_learner else ""))
    return "\n".join(lines)
