from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from raftlog.runtime.logging import HANDLER_NAME, OWN_LOGGERS, configure_logging, get_logger, split_template


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Loggers as they were, after each test."""
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in OWN_LOGGERS)]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    root = loggers[0]
    for handler in [each for each in root.handlers if each.name == HANDLER_NAME]:
        root.removeHandler(handler)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def json_lines(stream: io.StringIO) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("timestamp"))
    return lines


def as_json(level: str = "debug") -> io.StringIO:
    stream = io.StringIO()
    configure_logging(level=level, format="json", stream=stream)
    return stream


def test_an_event_and_its_keys_are_one_json_line() -> None:
    stream = as_json()

    get_logger("raftlog.agent").info("server started", address="127.0.0.1:8400", port=8400)

    assert json_lines(stream) == [
        {
            "level": "info",
            "logger": "raftlog.agent",
            "event": "server started",
            "address": "127.0.0.1:8400",
            "port": 8400,
        }
    ]


def test_keys_may_have_the_names_of_attributes_of_a_log_record() -> None:
    stream = as_json()

    get_logger("raftlog.agent").info("x", name="n", message="m", args=1)

    (line,) = json_lines(stream)
    assert (line["name"], line["message"], line["args"]) == ("n", "m", 1)


def test_text_with_percent_signs_stays_as_it_is() -> None:
    stream = as_json()

    get_logger("raftlog.agent").info("100% done", path="%s")

    (line,) = json_lines(stream)
    assert (line["event"], line["path"]) == ("100% done", "%s")


def test_what_the_engine_logs_becomes_event_and_keys() -> None:
    stream = as_json()

    logging.getLogger("logstore").warning("torn tail cut path=%s position=%d; kept aside", "/a b/0.log", 64)

    assert json_lines(stream) == [
        {
            "level": "warning",
            "logger": "logstore",
            "event": "torn tail cut; kept aside",
            "path": "/a b/0.log",
            "position": 64,
        }
    ]


@pytest.mark.parametrize(
    ("template", "arguments", "expected"),
    [
        ("cut path=%s", ("a",), ("cut", {"path": "a"})),
        ("%s path=%s bytes=%d", ("torn", "a", 5), ("torn", {"path": "a", "bytes": 5})),
        ("failed error=%s", (OSError("no"),), ("failed", {"error": "no"})),
        ("crc=%#010x of %s at 100%%", (255, "x"), ("of x at 100%", {"crc": "0x000000ff"})),
        ("took ms=%.1f", (1.26,), ("took", {"ms": "1.3"})),
        ("plain %r", ("a",), ("plain 'a'", {})),
        ("too few %s %s", ("a",), (None, {})),
        ("too many %s", ("a", "b"), (None, {})),
        ("wrong kind=%d", ("a",), (None, {})),
        ("width %*d", (5, 1), (None, {})),
    ],
)
def test_a_template_is_split_into_event_and_keys(
    template: str, arguments: tuple[object, ...], expected: tuple[str | None, dict[str, object]]
) -> None:
    assert split_template(template, arguments) == expected


def test_a_template_that_cannot_be_split_is_logged_whole() -> None:
    stream = as_json()

    logging.getLogger("logstore").info("width %*d", 5, 1)

    assert json_lines(stream)[0]["event"] == "width     1"


def test_other_libraries_are_heard_from_warnings_on() -> None:
    stream = as_json("debug")

    logging.getLogger("other").info("quiet")
    logging.getLogger("other").warning("loud")
    logging.getLogger("logstore").debug("own")

    assert [line["event"] for line in json_lines(stream)] == ["loud", "own"]


def test_below_the_level_nothing_is_shown() -> None:
    stream = as_json("warning")

    get_logger("raftlog.agent").info("quiet")
    get_logger("raftlog.agent").warning("loud")

    assert [line["event"] for line in json_lines(stream)] == ["loud"]


def test_what_is_bound_for_a_call_is_added() -> None:
    stream = as_json()

    with structlog.contextvars.bound_contextvars(call=7):
        get_logger("raftlog.agent").info("inside")
    get_logger("raftlog.agent").info("outside")

    assert [line.get("call") for line in json_lines(stream)] == [7, None]


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_trace_does_not_show_local_variables(format: str) -> None:
    stream = io.StringIO()
    configure_logging(format=format, stream=stream)
    secret = "s3cr3t"

    try:
        raise RuntimeError(f"broken with {len(secret)} characters")
    except RuntimeError:
        get_logger("raftlog.agent").exception("it failed")

    shown = stream.getvalue()
    assert "it failed" in shown
    assert "RuntimeError: broken with 6 characters" in shown
    assert "test_logging.py" in shown
    assert "= 's3cr3t'" not in shown


def test_auto_is_console_on_a_terminal_and_json_elsewhere() -> None:
    terminal, pipe = Terminal(), io.StringIO()

    configure_logging(format="auto", stream=terminal)
    get_logger("raftlog.agent").info("hello", port=1)
    configure_logging(format="auto", stream=pipe)
    get_logger("raftlog.agent").info("hello", port=1)

    assert "\x1b[" in terminal.getvalue()
    assert json_lines(pipe)[0]["port"] == 1


def test_console_in_a_file_has_no_colours() -> None:
    stream = io.StringIO()
    configure_logging(format="console", stream=stream)

    get_logger("raftlog.agent").info("hello", port=1)

    line = stream.getvalue().split(" ", 1)[1]
    assert line == "[info] hello [raftlog.agent] port=1\n"


def test_configuring_again_replaces_the_output() -> None:
    first, second = as_json(), as_json()

    get_logger("raftlog.agent").info("once")

    assert first.getvalue() == ""
    assert len(json_lines(second)) == 1


def test_without_configuration_a_foreign_handler_gets_plain_text(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "raftlog")

    get_logger("raftlog.agent").info("server started", port=1)

    assert [record.getMessage() for record in caplog.records] == ["server started port=1"]
