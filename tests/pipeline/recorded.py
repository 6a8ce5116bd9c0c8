"""Answers of a real Kubeflow Pipelines server, and how they looked while the run was under way."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "kfp_recorded"
RUNS = sorted(file.stem for file in FOLDER.glob("*.json") if not file.stem.startswith(("versions_", "recurring_runs")))


def recorded(name: str) -> dict[str, Any]:
    """An answer, by the name of its file."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def moments(run: Mapping[str, Any]) -> list[str]:
    """When something changed, in order; for a run that was recorded with the histories of its nodes."""
    histories = [run["state_history"], *(node.get("state_history", []) for node in _nodes(run))]
    return sorted({entry["update_time"] for history in histories for entry in history})


def as_of(run: Mapping[str, Any], moment: str) -> dict[str, Any]:
    """A recorded run as the server showed it at a moment: nodes appear, change and end when their histories say so."""
    names = _displays(json.dumps(_nodes(run)))
    nodes = []
    for node in _nodes(run):
        past = [entry for entry in node.get("state_history", []) if entry["update_time"] <= moment]
        if past:
            over = node["end_time"] <= moment and past[-1].get("state") not in ("PENDING", "RUNNING")
            shown = {**node, "state": past[-1].get("state", ""), "end_time": node["end_time"] if over else None}
            nodes.append({key: value for key, value in shown.items() if value})
    listed = {node["display_name"] for node in nodes}
    for node in nodes:
        children = [child for child in node.get("child_tasks", []) if names[child["pod_name"]] in listed]
        node["child_tasks"] = children
    past = [entry for entry in run["state_history"] if entry["update_time"] <= moment]
    return {**run, "state": past[-1]["state"], "state_history": past, "run_details": {"task_details": nodes}}


def _nodes(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    return run["run_details"]["task_details"]  # type: ignore[no-any-return]


@cache
def _displays(text: str) -> dict[str, str]:
    """Display names of nodes, by their ids.

    Args:
        text: the nodes, as JSON.
    """
    nodes = json.loads(text)
    displays = {node["display_name"] for node in nodes if "display_name" in node}
    ids = {child["pod_name"] for node in nodes for child in node.get("child_tasks", [])}
    workflow = next(iter(ids)).rpartition("-")[0]
    found: dict[str, str] = {}
    unseen = [(workflow, workflow)]
    while unseen:
        parent, shown = unseen.pop()
        for display in displays:
            name = parent + display[len(shown) :] if display.startswith(shown + "(") else f"{parent}.{display}"
            number = 2166136261
            for byte in name.encode():
                number = (number ^ byte) * 16777619 % 2**32
            if (id := f"{workflow}-{number}") in ids and id not in found:
                found[id] = display
                unseen.append((name, display))
    assert set(found) == ids
    return found
