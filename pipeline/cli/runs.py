"""`dagnn runs`, `dagnn cancel`, `dagnn retry`, `dagnn schedules`: what is on a Kubeflow cluster."""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from dagnn_core.errors import CheckFailedError, InputError
from dagnn_core.text import cell
from pipeline.cli.cluster import Cookies, Host, Json, Namespace, Token, follow_run, server_of

if TYPE_CHECKING:
    from pipeline.runs import RunSummary
    from pipeline.schedules import Schedule

RunId = Annotated[str, typer.Argument(metavar="RUN", help="id of the run; `dagnn runs` lists them")]


class ScheduleAction(StrEnum):
    """What `dagnn schedules` does."""

    list = "list"
    pause = "pause"
    resume = "resume"
    delete = "delete"


def runs(
    *,
    host: Host = "",
    namespace: Namespace = "",
    token: Token = None,
    cookies: Cookies = None,
    experiment: Annotated[str, typer.Option(help="of this Kubeflow experiment alone  [default: of all]")] = "",
    limit: Annotated[int, typer.Option(min=1, help="number of runs, at most")] = 20,
    as_json: Json = False,
) -> None:
    """List the runs on a Kubeflow cluster, newest first: state, start, duration, version."""
    from pipeline.runs import list_runs
    from pipeline.submit import connect

    server = connect(server_of(host, namespace, token, cookies))
    found = list_runs(server, experiment=experiment, limit=limit)
    if as_json:
        typer.echo(json.dumps([_facts(run) for run in found]))
    elif not found:
        typer.echo(f"no runs at {server.address}" + (f" in the experiment {experiment}" if experiment else ""))
    else:
        typer.echo(_table(("run", "state", "started", "duration", "version"), [_row(run) for run in found]))
        if found[0].page:
            typer.echo(f"\npage of a run: {server.page('runs/details/RUN')}")


def cancel(
    run_id: RunId,
    *,
    host: Host = "",
    namespace: Namespace = "",
    token: Token = None,
    cookies: Cookies = None,
) -> None:
    """Cancel a run on a Kubeflow cluster, and say what became of the tasks under way.

    Exit status 2 when the run has ended already.
    """
    from pipeline.follow import describe
    from pipeline.runs import cancel as cancel_run
    from pipeline.submit import connect

    done = cancel_run(connect(server_of(host, namespace, token, cookies)), run_id)
    for task in done.tasks:
        typer.echo(cell(f"{task.label}: {describe(task)}"))
    if not done.tasks:
        typer.echo("no task was under way")
    end = done.run.state.lower() if done.run.is_finished else f"ends soon; `dagnn follow {run_id}` shows it"
    typer.echo(f"run {run_id}: {end}")


def retry(
    run_id: RunId,
    *,
    host: Host = "",
    namespace: Namespace = "",
    token: Token = None,
    cookies: Cookies = None,
    wait: Annotated[bool, typer.Option("--wait", help="follow the run; exit status 1 when it fails")] = False,
) -> None:
    """Run again what failed in a run on a Kubeflow cluster; tasks that succeeded are kept.

    Exit status 2 when the run has not ended, or has succeeded.
    """
    from pipeline.runs import retry as retry_run
    from pipeline.submit import connect

    server = connect(server_of(host, namespace, token, cookies))
    retry_run(server, run_id)
    page = server.page(f"runs/details/{run_id}")
    typer.echo(f"run {run_id} runs again" + (f": {page}" if page else ""))
    if wait:
        follow_run(server, run_id)


def schedules(
    action: Annotated[ScheduleAction, typer.Argument(help="what to do")] = ScheduleAction.list,
    schedule: Annotated[str, typer.Argument(metavar="NAME-OR-ID", help="which one; not for list")] = "",
    *,
    host: Host = "",
    namespace: Namespace = "",
    token: Token = None,
    cookies: Cookies = None,
    yes: Annotated[bool, typer.Option("--yes", help="delete without asking")] = False,
) -> None:
    """List, pause, resume or delete schedules, which `dagnn submit --recurring` makes."""
    from pipeline.schedules import find_schedule, list_schedules
    from pipeline.submit import connect

    if (action is ScheduleAction.list) == bool(schedule):
        expected = "expected no schedule" if schedule else "expected the name or id of a schedule"
        raise InputError(f"`dagnn schedules {action}`: {expected}", "`dagnn schedules` lists them")
    server = connect(server_of(host, namespace, token, cookies))
    found = list_schedules(server)
    if action is ScheduleAction.list:
        if not found:
            typer.echo(f"no schedules at {server.address}")
            return
        typer.echo(
            _table(("schedule", "state", "times (UTC)", "version", "name"), [_schedule_row(one) for one in found])
        )
        if found[0].page:
            typer.echo(f"\npage of a schedule: {server.page('recurringrun/details/SCHEDULE')}")
        return
    one = find_schedule(found, schedule)
    if action is ScheduleAction.delete:
        if not yes:
            _confirm(f"Delete the schedule {one.name!r} ({one.schedule_id})? The runs that it started stay.")
        server.delete_recurring_run(one.schedule_id)
        typer.echo(f"{cell(one.name)}: deleted")
    else:
        server.enable_recurring_run(one.schedule_id, enabled=action is ScheduleAction.resume)
        typer.echo(f"{cell(one.name)}: {'enabled' if action is ScheduleAction.resume else 'paused'}")


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise InputError("deleting asks first, and there is no terminal to answer from", "add --yes")
    if not typer.confirm(question):
        raise CheckFailedError("nothing was deleted")


def _facts(run: "RunSummary") -> dict[str, str | None]:
    moments = {"started": run.started, "finished": run.finished}
    return run._asdict() | {name: moment.isoformat() if moment else None for name, moment in moments.items()}


def _row(run: "RunSummary") -> Sequence[str]:
    from pipeline.follow import duration

    started = f"{run.started.astimezone():%Y-%m-%d %H:%M:%S %Z}" if run.started else ""
    return (
        run.run_id,
        run.state.lower(),
        started,
        duration(run.started, run.finished or datetime.now(tz=UTC)),
        run.version,
    )


def _schedule_row(one: "Schedule") -> Sequence[str]:
    return one.schedule_id, "enabled" if one.enabled else "paused", one.times, one.version, one.name


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [header, *([cell(text) for text in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)
    return "\n".join(lines)
