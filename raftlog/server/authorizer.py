"""Who may do what: decisions of a casbin policy, remembered until the policy changes.

A decision by casbin costs 0.2 ms with three rules and 10 µs more per rule; a remembered one well under a microsecond.
Model and policy are looked at again at most once per `look_interval_ms`, by whoever asks then: no thread, no watcher.
A policy that is broken after a change is reported in the log and the one before it stays in force; a policy without
rules is a whole one that refuses everybody.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from casbin import Enforcer
from casbin.model import Model
from casbin.persist import Adapter

from raftlog.errors import PermissionDenied, PolicyError, Unauthenticated
from raftlog.file_stamp import stamp_files

log = logging.getLogger(__name__)

DECISIONS_MAX: Final = 10_000  # about 2 MB; at the limit all are forgotten, and made anew as asked for
LOOK_INTERVAL_MS: Final = 1_000  # an edit takes effect within this time and costs two `stat` calls in it
REQUEST_FIELDS: Final = 3  # subject, object, action


class AllowAll:
    """Lets everybody do everything: for a server that was told to run without TLS."""

    def require_subject(self, subject: str | None) -> None:
        """Do nothing."""

    def check(self, subject: str | None, object: str, action: str) -> None:
        """Do nothing."""


class Authorizer:
    """Decides by a casbin model and policy. Its calls may come from several threads."""

    def __init__(
        self,
        model_file: str,
        policy_file: str,
        *,
        look_interval_ms: int = LOOK_INTERVAL_MS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read both files; PolicyError names the file, and the line where one is at fault."""
        self._files = (model_file, policy_file)
        self._look_interval_s = look_interval_ms / 1000
        self._clock = clock
        self._look_at = clock() + self._look_interval_s  # when the files are to be looked at again
        self._stamps = stamp_files(self._files)  # of the files as last read
        self._policy = Policy(load_enforcer(model_file, policy_file))  # replaced whole, decisions included

    def require_subject(self, subject: str | None) -> None:
        """Return if there is a subject, whatever it may do; else Unauthenticated."""
        if not subject:
            raise Unauthenticated

    def check(self, subject: str | None, object: str, action: str) -> None:
        """Return if the subject may do that; else Unauthenticated (there is no subject) or PermissionDenied."""
        self.require_subject(subject)
        assert subject
        if self._clock() >= self._look_at:
            self.reload_if_changed()
        if not self._policy.allows((subject, object, action)):
            raise PermissionDenied(subject, action, object)

    def reload_if_changed(self) -> bool:
        """Look at the files now; True if a changed policy is in force from here on."""
        self._look_at = self._clock() + self._look_interval_s
        stamps = stamp_files(self._files)
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        try:
            enforcer = load_enforcer(*self._files)
        except PolicyError as error:
            log.error("new policy cannot be used; the old one stays reason=%s", error)
            return False
        self._policy = Policy(enforcer)
        log.info("policy reloaded policy_file=%s rules=%d", self._files[1], len(enforcer.get_policy()))
        return True


class Policy:
    """A policy that never changes, and the decisions made by it."""

    def __init__(self, enforcer: Enforcer) -> None:
        self._enforcer = enforcer
        self._decisions: dict[tuple[str, str, str], bool] = {}  # of this policy; at most DECISIONS_MAX

    def allows(self, request: tuple[str, str, str]) -> bool:
        decision = self._decisions.get(request)
        if decision is None:
            decision = bool(self._enforcer.enforce(*request))
            if len(self._decisions) >= DECISIONS_MAX:
                self._decisions.clear()
            self._decisions[request] = decision
        return decision


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────


def load_enforcer(model_file: str, policy_file: str) -> Enforcer:
    """A casbin enforcer for the files as they are now; PolicyError if they do not fit together.

    Stricter than casbin, which skips lines that it does not understand: a rule with a slip in it must not vanish.
    """
    model = _parse_model(model_file)
    try:
        enforcer = Enforcer(model, PolicyFile(policy_file))
        enforcer.enforce(*(["subject"] * REQUEST_FIELDS))
        for rule in enforcer.get_policy()[:1]:  # one that matches evaluates the whole matcher
            enforcer.enforce(*(rule + [""] * REQUEST_FIELDS)[:REQUEST_FIELDS])
    except PolicyError:
        raise
    except Exception as error:  # casbin and the evaluation of a matcher raise anything
        raise PolicyError(f"{model_file}: the model cannot be evaluated: {error}") from error
    if not enforcer.get_policy():
        log.warning("policy has no rules, every call is refused policy_file=%s", policy_file)
    return enforcer


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError as error:
        raise PolicyError(f"{path}: no such file; `raftlog certs init` makes one") from error
    except OSError as error:
        raise PolicyError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PolicyError(f"{path}: not a text in UTF-8") from error


def _parse_model(path: str) -> Model:
    text = _read(path)
    try:
        model: Model = Enforcer.new_model(text=text)
    except Exception as error:  # casbin raises anything
        raise PolicyError(f"{path}: no casbin model: {error}") from error
    sections = {
        "r": "request_definition", "p": "policy_definition", "e": "policy_effect", "m": "matchers",
    }  # fmt: skip
    for key, name in sections.items():
        if key not in model.model or key not in model[key]:
            raise PolicyError(f"{path}: no [{name}] with a line `{key} = ...`")
    fields = len(model["r"]["r"].tokens)
    if fields != REQUEST_FIELDS:
        raise PolicyError(f"{path}: a request has {fields} fields; give subject, object and action")
    return model


class PolicyFile(Adapter):  # type: ignore[misc]  # casbin has no types
    """Reads a policy for casbin, line by line."""

    def __init__(self, path: str) -> None:
        self._path = path

    def load_policy(self, model: Model) -> None:
        for number, line in enumerate(_read(self._path).splitlines(), start=1):
            _add_line(model, line.strip(), f"{self._path}: line {number}")


def _add_line(model: Model, line: str, place: str) -> None:
    if not line or line.startswith("#"):
        return
    kind, *values = (part.strip() for part in line.split(","))
    assertions = {
        name: assertion for section in ("p", "g") for name, assertion in model.model.get(section, {}).items()
    }
    if kind not in assertions:
        raise PolicyError(f"{place}: begins with {kind!r}; the model has {', '.join(assertions)}")
    expected = len(assertions[kind].tokens)
    if len(values) != expected or not all(values):
        raise PolicyError(
            f"{place}: {len(values)} values behind {kind!r}, the model has {expected}, none empty"
        )
    assertions[kind].policy.append(values)
