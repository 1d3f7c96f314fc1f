"""Stories of our own in the language of etcd's rafttest (stories/*.txt), and that the harness notices what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.raftlog.raft import rafttest
from tests.raftlog.raft.datadriven import parse, read_directives
from tests.raftlog.raft.rafttest import BadScript, Environment
from tests.raftlog.raft.rafttest_trace import run

STORIES = sorted((Path(__file__).parent / "stories").glob("*.txt"))

ELECTED = """
add-nodes 3 voters=(1,2,3) index=10
----
ok

campaign 1
----
ok

stabilize log-level=none
----
ok

"""


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path) -> None:
    directives = read_directives(path)

    found = run(directives, after_each=True)

    assert not found, "\n".join(found)


def test_stories_use_every_command_and_every_setting_of_nodes() -> None:
    directives = [directive for path in STORIES for directive in read_directives(path)]

    commands = {directive.command for directive in directives}
    settings = {a.key for d in directives if d.command == "add-nodes" for a in d.arguments[1:]}

    assert commands == rafttest.COMMANDS
    assert settings >= rafttest.ADD_NODES_SETTINGS - {"content"}  # the next test


def test_content_is_what_the_views_begin_with() -> None:
    lines = [
        "add-nodes 1 voters=(1) index=10 content=foo",
        "campaign 1",
        "stabilize",
        "propose 1 bar",
        "stabilize",
    ]
    environment = Environment()

    for line in lines:
        environment.handle(parse(line)[0])

    assert environment.node(1).storage.history[-1].data == b"foobar"


@pytest.mark.parametrize(
    ("printed", "difference"),
    [
        ("raft-state\n----\n1: StateFollower (Voter) Term:1 Lead:1", "1: StateLeader (Voter) Term:1 Lead:1"),
        ("status 1\n----\n1: StateReplicate match=11 next=13", "1: StateReplicate match=11 next=12"),
        ("status 2\n----\n1: StateReplicate match=11 next=12", "got\nok"),
        ("raft-log 2\n----\n1/11 EntryNormal \"x\"", '1/11 EntryNormal ""'),
        ("compact 1 11\n----\n1/11 EntryNormal \"\"", "log is empty: first index=12, last index=11"),
    ],
)  # fmt: skip
def test_a_wrong_print_is_found(printed: str, difference: str) -> None:
    directives = parse(ELECTED + printed)

    found = run(directives)

    assert difference in found[0]


READY = """
propose 1 x
----
ok

process-ready 1
----
Ready MustSync=true:
Lead:1 State:StateLeader
HardState Term:1 Vote:1 Commit:11
Entries:
1/12 EntryNormal "x"
Messages:
1->2 MsgApp Term:1 Log:1/11 Commit:11 Entries:[
  1/12 EntryNormal "y"
]
INFO 1 became leader at term 1
INFO 1 switched to configuration voters=(1 2 3)
"""


def test_a_right_end_state_is_found_right() -> None:
    directives = parse(ELECTED + READY)

    found = run(directives)

    assert found == []


@pytest.mark.parametrize(
    ("right", "wrong", "difference"),
    [
        ("State:StateLeader", "State:StateFollower", "role, leader"),
        ("Lead:1 State", "Lead:2 State", "role, leader"),
        ("HardState Term:1", "HardState Term:2", "term, vote, commit"),
        ("Vote:1 Commit:11", "Commit:11", "term, vote, commit"),
        ("Vote:1 Commit:11", "Vote:1 Commit:12", "term, vote, commit"),
        ('1/12 EntryNormal "x"', '1/12 EntryNormal "y"', "entry 12"),
        ('1/12 EntryNormal "x"', '1/12 EntryNormal "x"\n1/13 EntryNormal ""', "last index"),
        ("became leader at term 1", "became follower at term 1", "live role, term"),
        ("became leader at term 1", "became leader at term 2", "live role, term"),
        ("voters=(1 2 3)", "voters=(1 2)", "live configuration"),
    ],
)
def test_a_wrong_end_state_is_found(right: str, wrong: str, difference: str) -> None:
    directives = parse(ELECTED + READY.replace(right, wrong))

    found = run(directives)

    assert any(difference in line for line in found), found


def test_what_was_not_printed_is_not_known() -> None:
    directives = parse(
        ELECTED + READY + "\nlog-level none\n----\nok\n\ncampaign 2\n----\nok\n\nstabilize\n----\nok\n"
    )

    found = run(directives)

    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "restart 1",
        "add-nodes 1 voters=(1) index=10 colour=blue",
        "add-nodes 1 voters=(1) index=10 prevote=perhaps",
        "deliver-msgs 1 type=MsgPostcard",
    ],
)
def test_what_rafttest_does_not_know_is_refused(line: str) -> None:
    directives = parse(f"{line}\n----\nok\n")

    with pytest.raises(BadScript):
        run(directives)


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        ("1", "v2 x3"),
        ("1", "v"),
        ("1 transition=sudden", "v2"),
        ("1 v1=true", "v2 v3"),
        ("1 v1=true transition=explicit", "v2"),
    ],
)
def test_a_change_that_cannot_be_read_is_not_proposed(arguments: str, changes: str) -> None:
    change = f"propose-conf-change {arguments}\n{changes}\n----\nok\n\nstabilize log-level=none\n----\nok\n\n"
    directives = parse(ELECTED + change + 'raft-log 1\n----\n1/11 EntryNormal ""\n')

    found = run(directives)

    assert found == []


def test_nodes_without_a_start_index_are_not_made() -> None:
    environment = Environment()

    environment.handle(parse("add-nodes 1 voters=(1)")[0])

    assert environment.nodes == []
