"""What the documents promise is shown by tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
GUARANTEES = (REPOSITORY / "docs" / "GUARANTEES.md").read_text()
NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_every_guarantee_names_its_test() -> None:
    promised = GUARANTEES.split("## What is not promised")[0]
    sentences = re.split(r"^- ", promised, flags=re.MULTILINE)[1:]

    assert [sentence for sentence in sentences if not NAMED_TEST.search(sentence)] == []


def test_every_test_that_a_guarantee_names_exists() -> None:
    missing = [
        f"{path}::{name}"
        for path, name in NAMED_TEST.findall(GUARANTEES)
        if not re.search(rf"^\s*(async )?def {name}\(", (REPOSITORY / path).read_text(), re.MULTILINE)
    ]

    assert missing == []
