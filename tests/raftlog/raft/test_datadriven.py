from __future__ import annotations

from pathlib import Path

import pytest

from tests.raftlog.raft.datadriven import Argument, Directive, parse, read_directives, vector_files


def test_directive_has_arguments_input_and_expected_output() -> None:
    text = "# why\n\nadd 3 voters=(1,2, 3) index=2 empty=\nline one\n\nline two\n----\n  drawn\nlast\n\nnext\n----\nok\n"

    directives = parse(text)

    assert directives == [
        Directive(
            line=3,
            command="add",
            arguments=(
                Argument("3", ()),
                Argument("voters", ("1", "2", "3")),
                Argument("index", ("2",)),
                Argument("empty", ("",)),
            ),
            input="line one\n\nline two",
            expected="  drawn\nlast",
        ),
        Directive(line=11, command="next", arguments=(), input="", expected="ok"),
    ]


def test_pairs_of_separators_enclose_output_with_empty_lines() -> None:
    text = "show\n----\n----\none\n\n----\n\ntwo\n----\n----\n\nnext\n----\n"

    directives = parse(text)

    assert [(each.command, each.expected) for each in directives] == [
        ("show", "one\n\n----\n\ntwo"),
        ("next", ""),
    ]


def test_long_directive_continues_after_a_backslash() -> None:
    directives = parse("show \\\n  a=1 \\\n  b\n----\nok\n")

    assert directives[0].arguments == (Argument("a", ("1",)), Argument("b", ()))
    assert directives[0].expected == "ok"


def test_parentheses_may_be_nested() -> None:
    directives = parse("show a=(x, f(y, (z)), w) b\n----\n")

    assert directives[0].arguments == (Argument("a", ("x", "f(y, (z))", "w")), Argument("b", ()))


def test_marks_of_groups_are_no_directives() -> None:
    directives = parse("subtest one\n\nshow\n----\nok\n\nsubtest end\n")

    assert [each.command for each in directives] == ["show"]


def test_value_of_an_argument_has_a_default() -> None:
    directive = parse("show a=1 b=(1,2)\n----\n")[0]

    assert directive.value("a", "0") == "1"
    assert directive.value("c", "0") == "0"
    with pytest.raises(ValueError, match="b has 2 values"):
        directive.value("b", "0")


@pytest.mark.parametrize("line", ["show a=(1, 2", "show =1"])
def test_line_that_cannot_be_parsed_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="line 1: .*: show"):
        parse(line)


def test_file_without_directives_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.txt"
    path.write_text("# only a comment\n")

    with pytest.raises(ValueError, match="no directive"):
        read_directives(path)


def test_every_file_of_the_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAFTLOG_VECTORS", str(tmp_path))
    (tmp_path / "quorum" / "deep").mkdir(parents=True)
    for name in ("b", "a.txt", "deep/c.txt", ".hidden", "backup~"):
        (tmp_path / "quorum" / name).touch()

    found = [str(parameter.id) for parameter in vector_files("quorum")]
    absent = vector_files("absent")

    assert found == ["quorum/a.txt", "quorum/b", "quorum/deep/c.txt"]
    assert [parameter.marks[0].name for parameter in absent] == ["skip"]
