"""Progress: a line now and then where there is no terminal, and every item in order either way."""

import io
import logging
import sys

import pytest

from dagnn_core import progress
from dagnn_core.progress import track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_come_now_and_then_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    clock = iter([0.0, 1.0, 11.0, 11.0, 12.0, 25.0, 25.0])  # at the start, then at each item, twice where a line comes
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO):
        assert list(track("abcd", description="reading", total=4)) == list("abcd")
    assert [record.getMessage() for record in caplog.records] == ["reading: 1 of 4", "reading: 3 of 4"]


def test_what_was_done_before_counts(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with caplog.at_level(logging.INFO):
        assert list(track("cd", description="reading", total=4, done=2)) == list("cd")
    assert [record.getMessage() for record in caplog.records] == ["reading: 2 of 4", "reading: 3 of 4"]
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(track("cd", description="reading", total=4, done=2)) == list("cd")
    assert "reading:  50%" in terminal.getvalue()


def test_a_terminal_gets_a_bar_that_goes_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(track(range(3), description="reading", total=3)) == [0, 1, 2]
    assert "reading:   0%" in terminal.getvalue() and terminal.getvalue().endswith("\r")
    assert not caplog.records


def test_an_item_may_count_for_several(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO):
        assert list(track(["ab", "cde", "f"], description="reading", total=6, size=len)) == ["ab", "cde", "f"]
    assert [record.getMessage() for record in caplog.records] == [f"reading: {done} of 6" for done in (0, 2, 5)]
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(track(["ab", "cde"], description="reading", total=5, size=len)) == ["ab", "cde"]
    assert "0/5" in terminal.getvalue()
