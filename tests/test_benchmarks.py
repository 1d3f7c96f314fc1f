"""The figures in the documents are those that were recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.report import DOCUMENTS, filled_in


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_tables_of_the_document_are_those_of_the_results(path: Path) -> None:
    document = path.read_text()

    assert filled_in(document) == document
