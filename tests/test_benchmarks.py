"""The figures in the documents are those that were recorded."""

from __future__ import annotations

from bench.report import DOCUMENT, filled_in


def test_the_tables_of_the_document_are_those_of_the_results() -> None:
    document = DOCUMENT.read_text()

    assert filled_in(document) == document
