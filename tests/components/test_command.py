"""How commands end that fail in ways that no step foresaw."""

import errno
import logging
import sys

import pytest

from components.command import run_command
from components.output import guarded_output
from dagnn_core.errors import ArtifactError, CheckFailedError
from dagnn_core.redaction import forget


class OutOfMemoryError(RuntimeError):
    """As torch has it."""


def _disk(number: int) -> OSError:
    return OSError(number, "words of the system", "/data/x")


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (CheckFailedError("it is worse"), 1, "it is worse"),
        (ArtifactError("x is damaged", "run it again"), 2, "x is damaged; run it again"),
        (MemoryError(), 3, "not enough memory; end other programs, or use a machine or a pod with more"),
        (OutOfMemoryError("CUDA out of memory"), 3, "not enough memory; end other programs, or use a machine"),
        (RecursionError("maximum recursion depth"), 2, "something in the input is nested too deeply; add --debug"),
        (_disk(errno.ENOSPC), 3, "/data/x: no space is left"),
        (_disk(errno.ENOMEM), 3, "/data/x: not enough memory"),
        (_disk(errno.ENAMETOOLONG), 2, "/data/x: the name is too long"),
        (_disk(errno.ENOENT), 2, "/data/x: there is no such file or folder"),
        (_disk(errno.EEXIST), 2, "/data/x: it is there already, and no folder; check the path"),
        (_disk(errno.EIO), 3, "/data/x: the disk failed (input/output error); check the disk and the system's log"),
        (ConnectionResetError(), 3, "unexpected failure (ConnectionResetError); add --debug"),
        (KeyError("x" * 10**6), 3, "unexpected failure (KeyError: 'xxx"),
        (ModuleNotFoundError("no dvc", name="dvc.api"), 2, "this needs dvc, which is not installed; run `pip install"),
        (ModuleNotFoundError("No module named 'x'", name="x"), 3, "unexpected failure (ModuleNotFoundError: No module"),
        (KeyboardInterrupt(), 130, "interrupted; nothing was left half written, run the same command again to resume"),
    ],
)
def test_every_failure_is_one_line(
    error: BaseException, status: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["dagnn"])
    monkeypatch.setenv("DAGNN_DEBUG", "0")
    with pytest.raises(SystemExit) as end:
        run_command(fail)
    shown = capsys.readouterr()
    assert (end.value.code, shown.out) == (status, "")
    assert shown.err.startswith(f"error: {line}") and shown.err.count("\n") == 1 and len(shown.err) < 1100


def test_all_that_is_written_is_guarded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MY_TOKEN", "Zw9q-7vLp")
    monkeypatch.setattr(sys, "argv", ["dagnn", "https://me:pass-word@host"])
    with guarded_output():
        print("one", "Zw9q-7vLp", "\x1b[31m")  # noqa: T201
        sys.stderr.writelines(["two pass-word\n", "\u202e\n"])
        logging.StreamHandler(sys.stderr).emit(logging.makeLogRecord({"msg": "three Zw9q-7vLp"}))
        sys.stdout.write("\r 50%|bar\x1b[31m|")  # of a library
        assert sys.stdout.isatty() is False and sys.stdout.encoding
    forget()
    shown = capsys.readouterr()
    assert shown.out == "one *** \\u001b[31m\n\r 50%|bar\\u001b[31m|"
    assert shown.err == "two ***\n\\u202e\nthree ***\n"
