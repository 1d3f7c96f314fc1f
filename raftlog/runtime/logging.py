"""Logs: constant text, then key=value; for people on a terminal, as JSON lines for machines.

Two ways lead here. The server's own modules use `get_logger`:

    log = get_logger(__name__)
    log.info("server started", address=address)

`logstore`, the parts that clients use, and other libraries use the standard `logging`, in the form

    log.warning("private key is readable by others path=%s mode=%s", path, mode)

whose `key=%s` become keys as well. Both go through the standard loggers, so a program that embeds a part of this and
configures logging its own way gets plain lines of text.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

HANDLER_NAME: Final = "raftlog"
OWN_LOGGERS: Final = ("raftlog", "logstore")  # take the level asked for; others are heard from warnings on
SHOWN_FIRST: Final = ("timestamp", "level", "logger", "event")

_PLACEHOLDER: Final = re.compile(r"(?:\s*\b(?P<key>\w+)=)?%(?P<form>[-+ #0]*\d*(?:\.\d+)?[a-zA-Z%])")

# ── the server's loggers ────────────────────────────────────────────────────────────────────────────


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for `name` whose calls take an event and keywords; what is bound by contextvars is added.

    A call below the level costs some 5 µs: where that matters, ask `isEnabledFor` of a standard logger first.
    """
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            _to_standard_call,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return logger


def _to_standard_call(_: WrappedLogger, __: str, fields: EventDict) -> tuple[tuple[str], dict[str, Any]]:
    """The arguments of a call of a standard logger: text for any handler, and the fields for ours."""
    call = {key: fields.pop(key) for key in ("exc_info", "stack_info") if key in fields}
    event = str(fields.pop("event"))
    text = " ".join([event, *(f"{key}={value}" for key, value in fields.items())])
    return (text,), {**call, "extra": {"event": event, "fields": fields}}


# ── rendering ───────────────────────────────────────────────────────────────────────────────────────


def configure_logging(*, level: str = "info", format: str = "auto", stream: TextIO | None = None) -> None:
    """Send everything to `stream` (stderr), replacing what an earlier call set up.

    `format` is console, json, or auto: console if the stream is a terminal.
    """
    stream = stream or sys.stderr
    is_terminal = stream.isatty()
    is_json = format == "json" or (format == "auto" and not is_terminal)
    handler = logging.StreamHandler(stream)
    handler.name = HANDLER_NAME
    handler.setFormatter(
        _make_formatter(_json_renderer() if is_json else _console_renderer(colors=is_terminal))
    )
    root = logging.getLogger()
    for old in [each for each in root.handlers if each.name == HANDLER_NAME]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(level.upper())


def _make_formatter(renderer: structlog.typing.Processor) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            _take_fields,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _order,
        ],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        pass_foreign_args=True,
    )


def _json_renderer() -> structlog.typing.Processor:
    render = structlog.processors.JSONRenderer(default=str)

    def render_with_trace(logger: WrappedLogger, name: str, fields: EventDict) -> str | bytes:
        return render(logger, name, structlog.processors.format_exc_info(logger, name, fields))

    return render_with_trace


def _console_renderer(*, colors: bool) -> structlog.typing.Processor:
    # The plain form of a trace: the others show the values of local variables, keys and records among them.
    no_padding = 0  # by position: its name changed between versions
    return structlog.dev.ConsoleRenderer(
        no_padding, colors=colors, exception_formatter=structlog.dev.plain_traceback, pad_level=False
    )


def _take_fields(_: WrappedLogger, __: str, fields: EventDict) -> EventDict:
    """Event and keys of a record, whichever way it came."""
    record: logging.LogRecord = fields["_record"]
    arguments = fields.pop("positional_args", ())
    own: Mapping[str, object] | None = getattr(record, "fields", None)
    if own is not None:
        fields["event"] = getattr(record, "event", "")
        fields.update(own)
    elif isinstance(arguments, tuple) and arguments:
        event, keys = split_template(str(record.msg), arguments)
        fields["event"] = fields["event"] if event is None else event
        fields.update(keys)
    return fields


def split_template(template: str, arguments: tuple[object, ...]) -> tuple[str | None, dict[str, object]]:
    """(event, keys) of a standard log call: each `key=%s` becomes a key, all else stays in the text.

    (None, {}) if the arguments do not fit the text as it is read here, as with widths that are arguments.
    """
    left = list(arguments)
    keys: dict[str, object] = {}

    def take(match: re.Match[str]) -> str:
        form, key = match["form"], match["key"]
        if form == "%":
            return match[0].replace("%%", "%")
        value = left.pop(0)
        if key is None:
            return f"%{form}" % (value,)
        keys[key] = value if form in ("s", "d") and isinstance(value, int | float) else f"%{form}" % (value,)
        return ""

    try:
        event = _PLACEHOLDER.sub(take, template).strip()
    except (IndexError, TypeError, ValueError):
        return None, {}
    return (None, {}) if left else (event, keys)


def _order(_: WrappedLogger, __: str, fields: EventDict) -> EventDict:
    first = {key: fields.pop(key) for key in SHOWN_FIRST if key in fields}
    return {**first, **fields}
