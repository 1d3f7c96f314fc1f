"""The plugin as pytest finds it, and the examples of its page."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[3] / "docs" / "testing.md"
RUN_S_MAX = 60.0


def run_pytest(folder: Path, tests: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_examples.py").write_text(tests)
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\naddopts = --strict-markers\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:xdist",
        "-p",
        "no:cacheprovider",
        "test_examples.py",
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=RUN_S_MAX)


def test_installing_the_package_brings_the_plugin() -> None:
    assert [each.value for each in entry_points(group="pytest11", name="raftlog")] == [
        "raftlog.testing.plugin"
    ]


def test_the_examples_of_the_document_pass(tmp_path: Path) -> None:
    examples = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)

    done = run_pytest(tmp_path, "\n".join(examples))

    count = sum(len(re.findall(r"^def test_", example, re.MULTILINE)) for example in examples)
    assert count and f"{count} passed" in done.stdout, done.stdout + done.stderr


def test_a_marker_that_means_nothing_is_an_error_that_says_what_does(tmp_path: Path) -> None:
    done = run_pytest(
        tmp_path, "import pytest\n@pytest.mark.raftlog_cluster(node=1)\ndef test_it(cluster): pass\n"
    )

    assert done.returncode != 0
    assert "raftlog_cluster takes nodes, tls, settings, by keyword" in done.stdout


@pytest.mark.parametrize("module", ["grpc", "numpy", "raftlog.agent", "pydantic"])
def test_who_wants_no_cluster_does_not_pay_for_it(module: str) -> None:
    program = f"import sys, raftlog.testing.plugin, raftlog.testing; sys.exit({module!r} in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
