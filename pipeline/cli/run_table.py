"""A run as one table on a terminal, which changes as the run does."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dagnn_core.redaction import redact
from dagnn_core.text import cell
from pipeline.follow import RunProgress, elapsed

_STYLES = {
    "RUNNING": "cyan",
    "SUCCEEDED": "green",
    "FAILED": "red",
    "CANCELED": "yellow",
    "PENDING": "",
    "CACHED": "dim",
}


class RunTable:
    """Shows a run while it is followed: one row per task."""

    def __init__(self, console: Console | None = None) -> None:
        """Show nothing yet.

        Args:
            console: where to show it; None: standard error, as all that is not a result.
        """
        self._run: RunProgress | None = None
        self._live = Live(
            # colours pass the original stream alone
            console=console or Console(file=sys.__stderr__),
            get_renderable=self._table,
            refresh_per_second=1,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def __call__(self, run: RunProgress) -> bool:
        """Show the run; whether it has changed."""
        before, self._run = self._run, run
        self._live.refresh()
        return run != before

    def _table(self) -> Table:
        run = self._run
        title = _text(f"run {run.id}") if run else None
        table = Table(box=None, padding=(0, 2, 0, 0), title=title, title_justify="left")
        for column in ("task", "state", "time", ""):
            table.add_column(column, justify="right" if column == "time" else "left")
        for task in run.tasks if run else ():
            state = _text(task.state.lower(), _STYLES.get(task.state, "dim"))
            table.add_row(_text(task.label), state, elapsed(task), _text(task.note))
        if run:
            table.add_row("run", _text(run.state.lower(), _STYLES.get(run.state, "")), elapsed(run))
        return table


def _text(said: str, style: str = "") -> Text:
    """What the server says, as a cell: square brackets in it are no markup."""
    return Text(cell(redact(said)), style)
