"""A run as one table on a terminal, which changes as the run does."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

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
        self._live = Live(console=console or Console(stderr=True), get_renderable=self._table, refresh_per_second=1)

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
        table = Table(box=None, padding=(0, 2, 0, 0), title=run and f"run {run.id}", title_justify="left")
        for column in ("task", "state", "time", ""):
            table.add_column(column, justify="right" if column == "time" else "left")
        for task in run.tasks if run else ():
            table.add_row(
                task.label, Text(task.state.lower(), _STYLES.get(task.state, "dim")), elapsed(task), task.note
            )
        if run:
            table.add_row("run", Text(run.state.lower(), _STYLES.get(run.state, "")), elapsed(run))
        return table
