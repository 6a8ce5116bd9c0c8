"""Retraining on new data: a start that begins, resumes or ends, as the work that is there already asks for.

All that a retraining makes lies in one folder, which belongs to one version of the raw data, of the parameters and of
the code. A process that is killed anywhere leaves whole artifacts there, from which the next start resumes; a version
in the registry that was made from the data ends it.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from components.locations import CACHE, FETCHED, MODELS, RETRAINING
from dagnn_core.errors import InputError

if TYPE_CHECKING:
    from components.services.data_versions.repository import Version
    from components.services.notification import Webhook
    from components.services.promotion.side_by_side import SideBySide
    from components.services.tracking.mlflow import Tracking
    from dagnn_core.artifacts import Artifact
    from dagnn_core.data.dataset import Dataset
    from dagnn_core.model.embedder import TrainedModel

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to train again on."""

    data: str
    """Path under DVC in the repository."""
    revision: str
    """Branch, tag or commit; the newest commit of a branch counts."""
    repository: str = "."
    params: Mapping[str, Any]
    """The sections of `params.yaml`."""
    promote: bool = False
    accept_drift: bool = False
    """Train although the data differs from the champion's beyond the limits."""
    against: Path | None = None
    """The champion's data set; None: it is looked for, and rebuilt where that is possible."""
    work: Path = RETRAINING

    @property
    def name(self) -> str:
        """Of the registered model."""
        return str(self.params["register"].model_name)


class Retraining(NamedTuple):
    """What a start has come to."""

    outcome: Literal["nothing new", "registered", "promoted", "refused"]
    name: str
    version: str
    md5: str
    """Of the raw data."""
    commit: str
    """Of the repository of the data."""
    reason: str = ""
    comparison: "Sequence[SideBySide]" = ()


class Champion(NamedTuple):
    """The model in use, and the data that it was made from."""

    version: str
    model: "TrainedModel"
    data: "Dataset"

    @property
    def label(self) -> str:
        """For messages."""
        return f"the champion, version {self.version},"


def retrain(request: Request, *, tracking: "Tracking", webhook: "Webhook | None" = None) -> Retraining:
    """Train, evaluate and register on the newest version of data, unless that was done; promote it where asked.

    Args:
        request: what to train again on.
        tracking: where runs and registry are.
        webhook: is told of a promotion, a refusal or a failure.

    Raises:
        CheckFailedError: the data fails its check, or the model is below the floors.
        InputError: no such data, revision or repository; the champion's files or its data are gone; whatever a step
            refuses.
        BusyError: another process retrains on the same version.
        BackendError: a server, a store or the disk failed; the next start resumes.
    """
    from components.services.data_versions.repository import resolve
    from components.services.lineage.provenance import git_state
    from components.services.notification import failure_notified
    from dagnn_core.artifacts import canonical_json
    from dagnn_core.config.section import section_json
    from dagnn_core.work import work_folder

    with failure_notified(webhook, f"the retraining on {request.data} at {request.revision}"):
        _ = tracking.client  # a server that does not answer stops it before any work
        found = resolve(request.repository, request.revision, request.data)
        sections = {name: section_json(section) for name, section in request.params.items()}
        identity = [request.name, found.lineage.md5, sections, git_state()["commit"]]
        key = hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:16]
        with work_folder(request.work / key, busy="another process retrains on this revision") as folder:
            return _retrain(request, found, folder, tracking, webhook)


def _retrain(
    request: Request, found: "Version", folder: Path, tracking: "Tracking", webhook: "Webhook | None"
) -> Retraining:
    from components.services.registry.versions import find_trained_on

    name, (md5, commit) = request.name, (found.lineage.md5, found.lineage.commit)
    log.info("%s at %s is %s, commit %s", request.data, request.revision, md5, commit[:12])
    known = find_trained_on(tracking, name, md5)
    verdict = read_verdict(tracking, name, str(known.version)) if known else ""
    comparison: Sequence[SideBySide] = ()
    # a start that was killed may have made the version, but not the challenger of it
    is_unfinished = not verdict and _is_whole(folder / "model", "model")
    if known is None or is_unfinished:
        version, comparison = _make_version(request, found, folder, tracking)
    else:
        version = str(known.version)
    ended = Retraining("registered", name, version, md5, commit, comparison=comparison)
    if verdict or (known and not is_unfinished and not request.promote):
        ended = ended._replace(outcome="nothing new", reason=verdict)
    elif request.promote:
        ended = _promote(request, folder, ended, tracking, webhook)
    _keep_dataset(folder)
    return ended


def _make_version(
    request: Request, found: "Version", folder: Path, tracking: "Tracking"
) -> "tuple[str, Sequence[SideBySide]]":
    """Everything from the raw data to the registered version; what lies whole in the folder is not made again."""
    from components.steps import (
        build_label_graph,
        dataset,
        evaluate,
        extract_features,
        fetch_dataset,
        register,
        train,
    )

    params = request.params
    made = {kind: folder / kind for kind in ("dataset", "features", "label_graph", "model", "report")}

    def make(kind: str, run: Callable[..., object], **arguments: Any) -> None:
        if not _is_whole(made[kind], kind):
            run(**arguments, **{f"{kind}_out": made[kind]})

    raw = folder / "raw"
    fetch_dataset.run(
        raw_out=raw, repository=request.repository, revision=found.lineage.commit, path=found.lineage.path
    )
    make("dataset", dataset.run, params=params["dataset"], work=folder / "work", source=raw)
    champion = _champion(request, folder, tracking)
    beside = f"beside_{champion.version}" if champion else "alone"  # it may be another one when this is resumed
    _check(request, made["dataset"], folder / f"check_{beside}.json", champion)
    make("features", extract_features.run, dataset=made["dataset"], params=params["features"], cache=CACHE)
    make("label_graph", build_label_graph.run, dataset=made["dataset"], params=params["label_graph"])
    inputs = {"features": made["features"], "label_graph": made["label_graph"], "model_params": params["model"]}
    make("model", train.run, **inputs, params=params["train"], tracking=tracking, work=folder / "work")
    measured = {"dataset": made["dataset"], "features": made["features"], "model": made["model"]}
    make("report", evaluate.run, **measured, params=params["evaluate"], tracking=tracking)
    comparison = _compare(
        request,
        made["dataset"],
        made["model"],
        out=folder / f"comparison_{beside}",
        champion=champion,
        tracking=tracking,
    )
    version = register.run(model=made["model"], report=made["report"], params=params["register"], tracking=tracking)
    return version.version, comparison


def _is_whole(folder: Path, kind: str) -> bool:
    from dagnn_core.artifacts import read_artifact
    from dagnn_core.errors import ArtifactError

    try:
        read_artifact(folder, kind)
    except ArtifactError:
        return False
    return True


def _champion(request: Request, folder: Path, tracking: "Tracking") -> Champion | None:
    """The champion and its data; None where there is none yet."""
    from components.services.data_versions.layout import folder_digest
    from components.services.data_versions.lock_history import find_commit
    from components.services.promotion.datasets import find_dataset
    from components.services.registry.versions import CHAMPION, find_registered_model
    from components.services.serving.models import fetch_model
    from dagnn_core.model.embedder import TrainedModel

    with tracking.answering():
        registered = find_registered_model(tracking.client, request.name)
    version = str(registered.aliases.get(CHAMPION, "")) if registered else ""
    if not version:
        return None
    model = TrainedModel.read(fetch_model(f"models:/{request.name}/{version}", tracking, MODELS), verify=True)
    label = f"{request.name} version {version}, the champion,"
    try:
        commit = find_commit(Path(), folder_digest(model.artifact.path))
        data = find_dataset(model.artifact, label, named=request.against, commit=commit)
    except InputError as error:
        rebuilt = None if request.against else _rebuild(model.artifact, label, folder)
        if rebuilt is None:
            raise InputError(
                f"the new data cannot be compared with that of the champion: {error.what}",
                "give the folder of the champion's data set as --against",
            ) from error
        data = rebuilt
    return Champion(version, model, data)


def _rebuild(model: "Artifact", label: str, folder: Path) -> "Dataset | None":
    """Make the champion's data set again, from the raw data and the parameters that its record names."""
    import shutil

    from components.services.promotion.datasets import dataset_digest, read_fetched
    from components.steps import dataset, fetch_dataset
    from dagnn_core.config.dataset import DatasetConfig
    from dagnn_core.config.section import parse_section
    from dagnn_core.locks import folder_in_use

    digest, out, raw = dataset_digest(model), FETCHED / dataset_digest(model), folder / "champion_raw"
    try:
        record = model.provenance["origins"]["dataset"]
        source, params = record.get("raw") or {}, parse_section(DatasetConfig, record["params"]["dataset"], "dataset")
        log.info("%s: making its data set again", label)
        if source:
            by_revision = {"repository": source["repository"], "revision": source["commit"], "path": source["path"]}
            by_digest = {"md5": source["md5"], "remote": source["remote"]}
            fetch_dataset.run(raw_out=raw, **(by_revision if all(by_revision.values()) else by_digest))
        with folder_in_use(FETCHED):
            dataset.run(params=params, work=folder / "work", dataset_out=out, source=raw if source else None)
            rebuilt = read_fetched(out)
    except (InputError, KeyError, TypeError) as error:
        log.warning("%s: its data set cannot be made again: %s", label, error)
        return None
    if rebuilt.artifact.content_digest != digest:
        shutil.rmtree(out)
        log.warning("%s: its data set cannot be made again: the same raw data gives another one by now", label)
        return None
    return rebuilt


def _check(request: Request, data: Path, marker: Path, champion: Champion | None) -> None:
    """Check the new data, once, and against the champion's.

    Raises:
        CheckFailedError: a check failed.
    """
    from components.steps import check_data
    from dagnn_core.artifacts import write_json
    from dagnn_core.data_check.findings import Limits
    from dagnn_core.data_check.revision import describe, require_fit

    if marker.exists():
        return
    log.info("checking the data set%s", f" against that of {champion.label[:-1]}" if champion else "")
    findings = check_data.run(dataset=data, against=champion.data.artifact.path if champion else None, limits=Limits())
    what = f"{request.data} at {request.revision}"
    accepted = require_fit(findings, what=what, accept_drift=request.accept_drift)
    if accepted:
        log.warning("the new data differs from the champion's, which is accepted: %s", describe(accepted))
    write_json(marker, [asdict(finding) for finding in findings])


def _compare(
    request: Request, data: Path, model: Path, *, out: Path, champion: Champion | None, tracking: "Tracking"
) -> "Sequence[SideBySide]":
    """Measure both models on both test splits, once; the MLflow run of the training keeps it."""
    from components.services.promotion.side_by_side import SideBySide, measure_on_both
    from dagnn_core.artifacts import write_json
    from dagnn_core.data.dataset import Dataset
    from dagnn_core.model.embedder import TrainedModel
    from dagnn_core.records import parse_json

    file = out / "comparison.json"
    if file.exists():
        return [SideBySide(**entry) for entry in parse_json(file.read_bytes())]
    challenger = TrainedModel.read(model, verify=True)
    old, old_model = (champion.data, champion.model) if champion else (None, None)
    compared = measure_on_both(Dataset.read(data), old, challenger, old_model, request.params["register"].gate)
    draft = out.with_name(f".{out.name}")
    draft.mkdir(exist_ok=True)
    write_json(draft / file.name, [asdict(entry) for entry in compared])
    with tracking.resumed_run(challenger.artifact) as run:
        run.log_directory(draft, "comparison")
    draft.replace(out)
    return compared


def read_verdict(tracking: "Tracking", name: str, version: str) -> str:
    """What was decided about a version before; empty where nothing was.

    Raises:
        BackendError: the registry cannot be reached.
    """
    from components.services.promotion.promotion import read_history

    history = read_history(tracking, name=name)
    for event in reversed(history.events):
        if event.target == version:
            return f"{event.what}: {event.why}"
    return "it is the champion" if history.champion == version else ""


def _promote(
    request: Request, folder: Path, ended: Retraining, tracking: "Tracking", webhook: "Webhook | None"
) -> Retraining:
    from components.steps import promote

    data = folder / "dataset"
    done = promote.run(
        name=ended.name,
        version=ended.version,
        params=request.params["register"],
        dataset=data if _is_whole(data, "dataset") else None,
        why=f"retrained on {request.data} at {request.revision}, {ended.md5}",
        tracking=tracking,
        webhook=webhook,
    )
    return ended._replace(outcome="promoted" if done.decision.accepted else "refused", reason=done.decision.reason)


def _keep_dataset(folder: Path) -> None:
    """Leave the data set where a promotion, and the next retraining, look for it."""
    from dagnn_core.artifacts import read_artifact

    made = folder / "dataset"
    if _is_whole(made, "dataset"):
        kept = FETCHED / read_artifact(made, "dataset").content_digest
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            made.rename(kept)
