"""What the documents promise is shown by tests that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
GUARANTEES = (REPOSITORY / "docs" / "GUARANTEES.md").read_text()
GOSSIP = (REPOSITORY / "docs" / "gossip.md").read_text()
PROGRAM_S_MAX = 60.0
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


def test_the_program_that_gossips_prints_what_is_shown() -> None:
    [program] = re.findall(r"^```python\n(.*?)^```$", GOSSIP, re.MULTILINE | re.DOTALL)
    [shown] = re.findall(r"^```text\n(.*?)^```$", GOSSIP, re.MULTILINE | re.DOTALL)

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PROGRAM_S_MAX, check=False
    )

    assert (done.stdout, done.stderr) == (shown, "")
