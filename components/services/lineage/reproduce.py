"""How to rebuild a version of a registered model: parameters, commands, and whether the result is the same."""

import shlex
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from components.locations import ARTIFACTS, DATA
from components.services.lineage.locate import Lookup, State, lost_changes
from components.services.lineage.tree import ANCESTORS, SECTIONS, Recorded, machine_words
from components.services.tracking.mlflow import DEFAULT_URI
from dagnn_core.artifacts import read_artifact
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.records import read_metrics
from dagnn_core.retrieval.directions import MAP_METRICS


class ReproducedValue(NamedTuple):
    """A digest or a metric of a version, and the same of rebuilt artifacts."""

    name: str
    recorded: str
    found: str
    """Empty where there is none."""

    @property
    def same(self) -> bool:
        """Whether they are equal, metrics to the last digit."""
        return self.recorded == self.found


def recorded_params(recorded: Recorded) -> dict[str, Any]:
    """A whole `params.yaml`: the sections that made a version with every value, those that change no metric by default.

    Raises:
        InputError: they are not recorded.
    """
    sections = recorded.sections
    missing = [section for section in SECTIONS if section not in sections]
    if missing:
        raise InputError(
            f"{recorded.name}/{recorded.version} does not record its parameters ({', '.join(missing)}), "
            "so it cannot be rebuilt",
            "train and register it again",
        )
    return sections | {
        "dataset": sections["dataset"] | {"source": _source(recorded)},
        "evaluate": {},  # what the report shows beside the metrics
        "register": {"model_name": recorded.name},
    }


def commands(recorded: Recorded, raw: Lookup) -> list[str]:
    """Lines for a shell, in a checkout of the project, that rebuild a version and compare it; `#` begins a remark.

    Args:
        recorded: the version.
        raw: where its raw data is.

    Raises:
        InputError: its commit or its parameters are not recorded.
    """
    recorded_params(recorded)  # refuses where they are not recorded
    git, execution = recorded.git, recorded.execution
    if git["commit"] == "unknown":
        raise InputError(
            f"{recorded.name}/{recorded.version} was made by code in no git checkout, so it cannot be rebuilt"
        )
    version, folder = f"{recorded.name}/{recorded.version}", f"../{recorded.name}-{recorded.version}"
    machine = execution.get("machine", {})
    threads = f"OMP_NUM_THREADS={machine['threads']} " if machine else ""
    lines = [
        *_remarks(recorded),
        f"git worktree add --detach {folder} {git['commit']}",
        f"dagnn lineage {version} --show-params > {folder}/params.yaml",
        *_raw_commands(recorded, raw, folder),
        f"make -C {folder} setup",
        f'(cd {folder} && PATH="$PWD/.venv/bin:$PATH" MLFLOW_TRACKING_URI={DEFAULT_URI} {threads}dvc repro --force)',
        f"dagnn lineage {version} --compare {folder}/{ARTIFACTS}",
    ]
    if "image" in execution:
        image = shlex.quote(execution["image"])
        data = f" --data {shlex.quote(raw.path)} --revision {raw.commit}" if raw.commit else ""
        lines += [
            "# the same on a cluster, in the image that trained it:",
            f"dagnn submit --image {image} --params {folder}/params.yaml{data}",
        ]
    return lines


def compare(recorded: Recorded, artifacts: Path) -> list[ReproducedValue]:
    """Compare a version with rebuilt artifacts: contents of all of them, and metrics of the report.

    Args:
        recorded: the version.
        artifacts: folder with `dataset`, `features`, `label_graph`, `model` and `report`.

    Raises:
        ArtifactError: there is no model.
    """
    read_artifact(artifacts / "model", "model")
    rows = [
        ReproducedValue(kind, recorded.digests[kind], _digest(artifacts / kind, kind))
        for kind in (*reversed(ANCESTORS), "model")
        if kind in recorded.digests
    ]
    metrics = _metrics(artifacts / "report")
    return rows + [
        ReproducedValue(metric, recorded.tags[metric], metrics.get(metric, ""))
        for metric in MAP_METRICS
        if metric in recorded.tags
    ]


def _remarks(recorded: Recorded) -> list[str]:
    machine, train = recorded.execution.get("machine"), recorded.sections["train"]
    remarks = []
    if machine is None:
        remarks.append("the machine that trained it is not recorded: metrics may differ in the last digits")
    elif machine["processes"] > 1:
        remarks.append(f"trained by {machine['processes']} processes: metrics of one differ in the last digits")
    elif machine["device"] == "cpu" or train.get("deterministic"):
        remarks.append(f"metrics are the same on the same kind of machine: {machine_words(machine)}")
    else:
        remarks.append(
            f"trained on {machine['device']} without train.deterministic: metrics may differ in the last digits"
        )
    commits = {str(recorded.origin(kind)["git"]["commit"]) for kind in ANCESTORS}
    if commits != {str(recorded.git["commit"])}:
        remarks.append("data set, features or label graph were made by other commits: the comparison at the end tells")
    changed = recorded.git.get("changed", [])
    if lost_changes(changed) or (recorded.git["dirty"] and not changed):
        files = ", ".join(lost_changes(changed)) or "files, which are not recorded"
        remarks.append(f"warning: changed then and not committed, so lost: {files}")
    return [f"# {remark}" for remark in remarks]


def _source(recorded: Recorded) -> str:
    """Where the raw data goes in the project; a task of a pipeline found it in a folder of its own."""
    fetched = recorded.origin("dataset").get("raw", {}).get("path")
    source = str(fetched or recorded.source)
    return str(DATA / "raw") if PurePosixPath(source).is_absolute() else source


def _raw_commands(recorded: Recorded, raw: Lookup, folder: str) -> list[str]:
    """How the raw data comes into the folder, where it is not in git."""
    md5, fetched = recorded.digests.get("raw", ""), recorded.origin("dataset").get("raw", {})
    target = shlex.quote(f"{folder}/{_source(recorded)}")
    if not md5:
        lost = f"# no version of the raw data is recorded; it was {recorded.source}, put it at {target}"
        return [] if raw.state is State.FOUND else [lost]
    if raw.state is State.FOUND and raw.commit:
        # `dataset.source` may be a part of what DVC tracks
        target = target if fetched.get("path") else shlex.quote(f"{folder}/{raw.path}")
        return [f"dvc get . {shlex.quote(raw.path)} --rev {raw.commit} --out {target}"]
    if fetched.get("remote"):
        return [f"dagnn data fetch {target} --md5 {md5} --remote {shlex.quote(fetched['remote'])}"]
    return [f"# the raw data {md5} is not to be had: {raw.reason}; put it at {target}"]


def _digest(folder: Path, kind: str) -> str:
    try:
        return read_artifact(folder, kind).content_digest
    except ArtifactError:
        return ""


def _metrics(report: Path) -> dict[str, str]:
    try:
        artifact = read_artifact(report, "report", verify=True)
        metrics = read_metrics(artifact.file("metrics.json"), artifact.remedy)
    except ArtifactError:
        return {}
    return {name: repr(value) for name, value in metrics.items()}
