"""The one door through which text leaves the process: without secrets, and without what controls a terminal."""

import codecs
import io
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from dagnn_core.errors import DagnnError
from dagnn_core.redaction import hide, redact, secrets_of_address, secrets_of_settings
from dagnn_core.text import cell, clip, printable

MAX_LINE = 1000
"""Characters of the line that says how a command failed."""
_CURSOR = re.compile(r"\r(?!\n)|(?:\x1b\[A)+\Z")  # how progress bars begin a line again, or go up one


class GuardedStream:
    """A text stream that shows no secrets and sends a terminal nothing but text.

    What draws with colours writes to `sys.__stderr__`, after `redact` and `printable`.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text; a secret is found where it is in one piece."""
        cursor = _CURSOR.match(text)
        begin = cursor[0] if cursor else ""
        self._stream.write(begin + printable(redact(text[len(begin) :].replace("\r\n", "\n"))))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def guarded_output() -> Iterator[None]:
    """Guard standard output and standard error while the body runs, and hide what environment and arguments have."""
    hide(secrets_of_settings(os.environ))
    for argument in sys.argv[1:]:
        hide(secrets_of_address(argument))
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            # what the encoding lacks is escaped; of ASCII, typer would make another stream, which nothing guards
            is_ascii = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding="utf-8" if is_ascii else None, errors="backslashreplace")
    sys.stdout, sys.stderr = (cast(TextIO, GuardedStream(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def is_debugging() -> bool:
    """Whether tracebacks are shown: `--debug` was given, or DAGNN_DEBUG=1."""
    return os.environ.get("DAGNN_DEBUG") == "1"


class LineFormatter(logging.Formatter):
    """Log records as text: what is put into a message stays on its line, only the message's own line ends count."""

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record."""
        if isinstance(record.args, tuple):
            record = logging.makeLogRecord(record.__dict__ | {"args": tuple(map(_on_one_line, record.args))})
        return super().format(record)


def _on_one_line(value: object) -> object:
    return cell(value) if isinstance(value, str | BaseException | os.PathLike) else value


def error_line(error: DagnnError) -> str:
    """What a failure says, on one line of at most about `MAX_LINE` characters; the remedy stays whole."""
    remedy = cell(f"; {error.remedy}" if error.remedy else "")
    return clip(cell(redact(error.what)), max(MAX_LINE - len(remedy), MAX_LINE // 2)) + clip(remedy, MAX_LINE // 2)
