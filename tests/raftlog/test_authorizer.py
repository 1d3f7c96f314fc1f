from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from raftlog.errors import PermissionDenied, PolicyError, Unauthenticated
from raftlog.server import authorizer as authorizer_module
from raftlog.server.acl import default_files
from raftlog.server.authorizer import AllowAll, Authorizer

PROGLOG_MODEL = """
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.sub == p.sub && r.obj == p.obj && r.act == p.act
"""
PROGLOG_POLICY = "p, root, *, produce\np, root, *, consume\n"

ROLES_MODEL = PROGLOG_MODEL.replace(
    "[policy_effect]", "[role_definition]\ng = _, _\n[policy_effect]"
).replace("r.sub == p.sub", "g(r.sub, p.sub)")


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in default_files().items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def load(folder: Path, clock: Clock | None = None) -> Authorizer:
    clock = clock or Clock()
    return Authorizer(
        str(folder / "model.conf"), str(folder / "policy.csv"), look_interval_ms=1000, clock=clock
    )


def allows(authorizer: Authorizer, subject: str, object: str, action: str) -> bool:
    try:
        authorizer.check(subject, object, action)
    except PermissionDenied:
        return False
    return True


def replace(path: Path, text: str) -> None:
    """As editors do: a new file takes the name."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


# ── decisions ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("action", ["produce", "consume", "admin"])
def test_the_default_policy_allows_root_all_and_nobody_nothing(folder: Path, action: str) -> None:
    authorizer = load(folder)

    assert allows(authorizer, "root", "*", action)
    assert allows(authorizer, "root", "orders", action)
    assert not allows(authorizer, "nobody", "*", action)


def test_a_denial_names_subject_action_and_object_as_proglog_does(folder: Path) -> None:
    with pytest.raises(PermissionDenied, match=r"^nobody not permitted to produce to \*$") as caught:
        load(folder).check("nobody", "*", "produce")

    assert (caught.value.subject, caught.value.object, caught.value.action) == ("nobody", "*", "produce")


@pytest.mark.parametrize("subject", [None, ""])
def test_without_a_subject_nothing_is_allowed(folder: Path, subject: str | None) -> None:
    (folder / "policy.csv").write_text("p, *, *, *\n")

    with pytest.raises(Unauthenticated, match="no verified subject"):
        load(folder).check(subject, "*", "consume")


@pytest.mark.parametrize(
    ("rule", "subject", "object", "action", "expected"),
    [
        ("p, alice, *, consume", "alice", "orders", "consume", True),
        ("p, alice, *, consume", "alice", "orders", "produce", False),
        ("p, alice, *, consume", "alicex", "orders", "consume", False),
        ("p, alice, orders, consume", "alice", "orders", "consume", True),
        ("p, alice, orders, consume", "alice", "*", "consume", False),
        ("p, alice, orders-*, consume", "alice", "orders-2", "consume", True),
        ("p, alice, orders-*, consume", "alice", "returns-2", "consume", False),
        ("p, *, *, consume", "anybody", "*", "consume", True),
        ("p, *, *, consume", "anybody", "*", "produce", False),
        ("p, alice, *, *", "alice", "*", "admin", True),
        ("p, alice, *, *", "*", "*", "admin", False),
    ],
)
def test_a_star_in_the_policy_stands_for_all(
    folder: Path, rule: str, subject: str, object: str, action: str, expected: bool
) -> None:
    (folder / "policy.csv").write_text(rule + "\n")

    assert allows(load(folder), subject, object, action) is expected


def test_model_and_policy_of_proglog_work_as_they_are(folder: Path) -> None:
    (folder / "model.conf").write_text(PROGLOG_MODEL)
    (folder / "policy.csv").write_text(PROGLOG_POLICY)
    authorizer = load(folder)

    assert allows(authorizer, "root", "*", "produce")
    assert not allows(authorizer, "nobody", "*", "produce")


def test_the_policy_of_proglog_works_with_the_default_model(folder: Path) -> None:
    (folder / "policy.csv").write_text(PROGLOG_POLICY)
    authorizer = load(folder)

    assert allows(authorizer, "root", "*", "consume")
    assert not allows(authorizer, "root", "*", "admin")


def test_a_model_may_have_roles(folder: Path) -> None:
    (folder / "model.conf").write_text(ROLES_MODEL)
    (folder / "policy.csv").write_text("p, writers, *, produce\ng, alice, writers\n")
    authorizer = load(folder)

    assert allows(authorizer, "alice", "*", "produce")
    assert not allows(authorizer, "bob", "*", "produce")


def test_a_policy_without_rules_refuses_everybody_and_says_so(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "policy.csv").write_text("# nothing\n\n")

    assert not allows(load(folder), "root", "*", "consume")

    assert [record.getMessage() for record in caplog.records] == [
        f"policy has no rules, every call is refused policy_file={folder / 'policy.csv'}"
    ]


def test_allow_all_allows_all() -> None:
    AllowAll().check(None, "*", "admin")


# ── remembering ─────────────────────────────────────────────────────────────────────────────────────


def test_a_decision_is_made_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authorizer = load(folder)
    asked: list[tuple[str, ...]] = []

    def enforce(*request: str) -> bool:
        asked.append(request)
        return True

    monkeypatch.setattr(authorizer._policy._enforcer, "enforce", enforce)

    for _ in range(3):
        authorizer.check("root", "*", "produce")
        authorizer.check("root", "*", "consume")

    assert asked == [("root", "*", "produce"), ("root", "*", "consume")]


def test_remembered_decisions_never_exceed_their_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorizer_module, "DECISIONS_MAX", 3)
    authorizer = load(folder)

    sizes = []
    for number in range(7):
        assert allows(authorizer, "root", f"log-{number}", "produce")
        sizes.append(len(authorizer._policy._decisions))

    assert sizes == [1, 2, 3, 1, 2, 3, 1]


# ── reloading ───────────────────────────────────────────────────────────────────────────────────────


def test_a_changed_policy_is_in_force_after_the_interval_and_old_decisions_are_forgotten(
    folder: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    authorizer = load(folder, clock)
    assert not allows(authorizer, "alice", "*", "produce")
    assert allows(authorizer, "root", "*", "produce")

    replace(folder / "policy.csv", "p, alice, *, produce\n")

    clock.now_s = 0.999
    assert not allows(authorizer, "alice", "*", "produce")
    clock.now_s = 1.0
    assert allows(authorizer, "alice", "*", "produce")
    assert not allows(authorizer, "root", "*", "produce")
    assert [record.getMessage() for record in caplog.records] == [
        f"policy reloaded policy_file={folder / 'policy.csv'} rules=1"
    ]


def test_a_changed_model_is_in_force_too(folder: Path, clock: Clock) -> None:
    authorizer = load(folder, clock)
    assert allows(authorizer, "root", "orders", "produce")

    replace(folder / "model.conf", PROGLOG_MODEL)

    assert authorizer.reload_if_changed()
    assert not allows(authorizer, "root", "orders", "produce")


def test_files_are_not_looked_at_within_the_interval(
    folder: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    authorizer = load(folder, clock)
    monkeypatch.setattr(authorizer_module, "stamp_files", lambda _: pytest.fail("looked"))

    clock.now_s = 0.5
    assert allows(authorizer, "root", "*", "produce")


@pytest.mark.parametrize("damage", ["p, alice, *", "q, a, b, c", None])
def test_a_broken_new_policy_keeps_the_old_one_and_is_reported_once(
    folder: Path, clock: Clock, caplog: pytest.LogCaptureFixture, damage: str | None
) -> None:
    authorizer = load(folder, clock)
    if damage is None:
        (folder / "policy.csv").unlink()
    else:
        replace(folder / "policy.csv", damage)

    for now_s in (1.0, 2.0, 3.0):
        clock.now_s = now_s
        assert allows(authorizer, "root", "*", "produce")

    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(
        f"new policy cannot be used; the old one stays reason={folder / 'policy.csv'}: "
    )


def test_a_mended_policy_is_taken_up(folder: Path, clock: Clock) -> None:
    authorizer = load(folder, clock)
    replace(folder / "policy.csv", "p, alice")
    assert not authorizer.reload_if_changed()

    replace(folder / "policy.csv", "p, alice, *, produce")

    assert authorizer.reload_if_changed()
    assert allows(authorizer, "alice", "*", "produce")


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["model.conf", "policy.csv"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()

    with pytest.raises(PolicyError, match=rf"{name}: no such file; `raftlog certs init` makes one"):
        load(folder)


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "policy.csv").unlink()
    (folder / "policy.csv").mkdir()

    with pytest.raises(PolicyError, match=r"policy\.csv: Is a directory"):
        load(folder)


def test_a_file_that_is_no_text_is_named(folder: Path) -> None:
    (folder / "policy.csv").write_bytes(b"\xff\xfe")

    with pytest.raises(PolicyError, match=r"policy\.csv: not a text in UTF-8"):
        load(folder)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("p, alice, *", "2 values behind 'p', the model has 3, none empty"),
        ("p, alice, *, produce, extra", "4 values behind 'p', the model has 3, none empty"),
        ("p, alice, , produce", "3 values behind 'p', the model has 3, none empty"),
        ("q, alice, *, produce", "begins with 'q'; the model has p"),
        ("g, alice, writers", "begins with 'g'; the model has p"),
        (", alice, *, produce", "begins with ''; the model has p"),
    ],
)
def test_a_slip_in_a_rule_is_named_with_its_line(folder: Path, line: str, problem: str) -> None:
    (folder / "policy.csv").write_text(f"# comment\np, root, *, produce\n{line}\n")

    with pytest.raises(PolicyError) as caught:
        load(folder)

    assert str(caught.value) == f"{folder / 'policy.csv'}: line 3: {problem}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no [request_definition] with a line `r = ...`"),
        ("hello", "no casbin model"),
        (PROGLOG_MODEL.replace("[matchers]", "[matcher]"), "no [matchers] with a line `m = ...`"),
        (PROGLOG_MODEL.replace("r = sub, obj, act", "r = sub, act"), "a request has 2 fields"),
        (PROGLOG_MODEL.replace("r.act == p.act", "same(r.act, p.act)"), "the model cannot be evaluated"),
        (PROGLOG_MODEL.replace("r.sub ==", "(r.sub =="), "the model cannot be evaluated"),
    ],
)
def test_a_model_that_cannot_work_is_refused_at_once(folder: Path, text: str, problem: str) -> None:
    (folder / "model.conf").write_text(text)

    with pytest.raises(PolicyError) as caught:
        load(folder)

    assert str(caught.value).startswith(f"{folder / 'model.conf'}: {problem}")
