"""The schedules on a Kubeflow server, which it calls recurring runs: list, pause, resume and delete them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dagnn_core.errors import InputError
from pipeline.kubeflow.client import Kubeflow
from pipeline.runs import VersionNames, pipeline_of
from pipeline.submit import PIPELINE


class Schedule(NamedTuple):
    """A schedule, which starts a run of a version at certain times."""

    schedule_id: str
    name: str
    times: str
    """Cron with six fields in UTC, or `every N s`."""
    enabled: bool
    version: str
    """Name of the pipeline's version; empty where it was deleted."""
    page: str
    """URL; empty where the server has no pages."""


def list_schedules(kubeflow: Kubeflow) -> list[Schedule]:
    """The schedules of our pipeline, newest first.

    Args:
        kubeflow: the server, which `connect` has checked.

    Raises:
        BackendError: the server failed or refuses.
    """
    pipeline_id = kubeflow.find_pipeline(PIPELINE)
    if pipeline_id is None:
        return []
    versions = VersionNames(kubeflow)
    return [
        Schedule(
            schedule_id=entry["recurring_run_id"],
            name=entry["display_name"],
            times=_times(entry.get("trigger") or {}),
            enabled=entry.get("status") == "ENABLED",
            version=versions.of(entry),
            page=kubeflow.page(f"recurringrun/details/{entry['recurring_run_id']}"),
        )
        for entry in kubeflow.list_recurring_runs()
        if pipeline_of(entry) == pipeline_id
    ]


def find_schedule(schedules: Sequence[Schedule], name: str) -> Schedule:
    """The schedule with an id or a name.

    Args:
        schedules: to choose from.
        name: id or name.

    Raises:
        InputError: there is none, or several have the name.
    """
    found = [entry for entry in schedules if entry.schedule_id == name] or [
        entry for entry in schedules if entry.name == name
    ]
    if not found:
        raise InputError(f"there is no schedule {name!r}, expected a name or an id", "`dagnn schedules` lists them")
    if len(found) > 1:
        ids = ", ".join(entry.schedule_id for entry in found)
        raise InputError(f"{len(found)} schedules have the name {name!r}", f"give the id of one: {ids}")
    return found[0]


def _times(trigger: Mapping[str, Any]) -> str:
    cron = (trigger.get("cron_schedule") or {}).get("cron")
    return str(cron) if cron else f"every {(trigger.get('periodic_schedule') or {}).get('interval_second')} s"
