"""What was measured -> the tables of docs/benchmarks.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from logstore.cli.bench import shown

RESULTS: Final = Path(__file__).parent / "results"
DOCUMENT: Final = Path(__file__).parent.parent / "docs" / "benchmarks.md"
MARKED: Final = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled_in(document: str) -> str:
    """The document with each marked place holding the table of its results."""

    def table(found: re.Match[str]) -> str:
        return found[1] + "\n".join(lines_of(found[2])) + "\n" + found[3]

    return MARKED.sub(table, document)


def lines_of(name: str) -> Iterator[str]:
    measured = json.loads((RESULTS / f"{name}.json").read_text())
    machine = measured["machine"]
    yield (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']:.0f} GiB, {machine['system']}, "
        f"Python {machine['python']}; {machine['time'][:10]}; `{machine['command']}`"
    )
    yield ""
    yield "| case | subject | unit | survives | median | min | max | of the first |"
    yield "|---|---|---|---|---:|---:|---:|---:|"
    first: dict[str, Any] = {}
    for one in sorted(measured["results"], key=lambda one: one["case"]):
        if first.get("case") != one["case"]:
            first = one
        ratio = "" if one is first or not first["median"] else f"{one['median'] / first['median']:.2f}"
        numbers = " | ".join(shown(one[key]) for key in ("median", "min", "max"))
        yield f"| {one['case']} | {one['subject']} | {one['unit']} | {one['durability']} | {numbers} | {ratio} |"
