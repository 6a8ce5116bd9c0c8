"""Examine a version: everything that the promotion gate judges, measured from its files and on its own test split."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from components.services.data_versions.layout import folder_digest
from components.services.data_versions.lock_history import find_commit
from components.services.promotion.datasets import find_dataset
from components.services.promotion.gate import Comparison, Evidence, Files, LoadTest, NotApplicable, Origin, Unmeasured
from components.services.promotion.load_test import load_test
from components.services.promotion.rescoring import Scored, compare, sample, score
from components.services.registry.stored_model import download, find_fault, model_folder, pickled_files
from components.services.tracking.mlflow import Tracking
from components.services.tracking.tags import COMMIT, Lineage
from dagnn_core.artifacts import Artifact
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.register import GateConfig
from dagnn_core.config.train import TrainConfig
from dagnn_core.data.dataset import Dataset
from dagnn_core.data_check.check import check_dataset
from dagnn_core.data_check.findings import Limits
from dagnn_core.errors import InputError
from dagnn_core.model.embedder import TrainedModel

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)
T = TypeVar("T")


def examine(
    tracking: Tracking,
    challenger: "ModelVersion",
    champion: "ModelVersion | None",
    *,
    dataset: Path | None,
    config: GateConfig,
    folder: Path,
) -> Evidence:
    """Measure everything that the gate judges; what cannot be measured says why.

    Args:
        tracking: where the registry is.
        challenger: the version.
        champion: the present champion; None where there is none.
        dataset: the data set artifact; None: `artifacts/dataset` where it is the version's, else DVC fetches it.
        config: how to compare.
        folder: for the files of both versions.

    Raises:
        InputError: `dataset` is not the version's, or it is nowhere to be had.
        BackendError: the server, the store or the disk failed.
    """
    label = f"version {challenger.version}"
    stored = download(tracking, challenger, folder / "challenger")
    files = Files(pickled_files(stored), challenger.description or "", challenger.tags.get("data_licence", ""))
    model = _try(lambda: TrainedModel.read(model_folder(stored), verify=True))
    if isinstance(model, Unmeasured):
        origin = Origin(["the model's manifest"], "unknown", ["model"], lock=model)
        return Evidence(origin=origin, metrics=model, comparison=model, load_test=model, files=files, findings=model)
    commit = find_commit(Path(), folder_digest(model.artifact.path))
    data = find_dataset(model.artifact, label, named=dataset, commit=commit)
    log.info("%s: checking its data set, %d items", label, len(data))
    findings = _try(lambda: check_dataset(data.artifact, Limits(leaked_images=config.max_leaked_images)))
    log.info("%s: measuring it on the test split", label)
    scored = _try(lambda: score(model, data, name=label))
    metrics: Mapping[str, float] | Unmeasured
    loaded: LoadTest | Unmeasured
    comparison: Comparison | NotApplicable | Unmeasured
    if isinstance(scored, Unmeasured):
        metrics = loaded = comparison = scored
    else:
        metrics = scored.metrics
        log.info("%s: loading it in a fresh process", label)
        loaded = _try(lambda: load_test(stored, sample(model, data, scored)))
        comparison = NotApplicable("there is no champion yet")
        if champion is not None:
            log.info("version %s, the champion: measuring it on the same test split", champion.version)
            comparison = _try(
                lambda: compare(
                    scored, _score_champion(tracking, champion, model, data, folder / "champion"), data, config
                )
            )
    return Evidence(
        origin=_origin(challenger, model.artifact, commit),
        metrics=metrics,
        comparison=comparison,
        load_test=loaded,
        files=files,
        findings=findings,
    )


def _try(measure: Callable[[], T]) -> T | Unmeasured:
    try:
        return measure()
    except InputError as error:
        return Unmeasured(str(error))


def _score_champion(
    tracking: Tracking, champion: "ModelVersion", challenger: TrainedModel, data: Dataset, folder: Path
) -> Scored:
    """Measure the champion on the challenger's test split.

    Raises:
        InputError: its files are gone or damaged, its labels are others, or it cannot encode these data.
    """
    label = f"the champion, version {champion.version},"
    with tracking.answering():
        fault = find_fault(tracking, champion)
    if fault:
        raise InputError(f"{label} {fault}", "roll back to a whole version, or delete it and accept that with --adopt")
    model = TrainedModel.read(model_folder(download(tracking, champion, folder)), verify=True)
    differing = sorted(set(model.label_names) ^ set(challenger.label_names))
    if differing:
        raise InputError(
            f"{label} has other labels ({len(differing)} that only one of the two has, such as {differing[0]!r}), so "
            "they cannot be compared",
            "register the model under another name",
        )
    return score(model, data, name=label)


def _origin(version: "ModelVersion", model: Artifact, commit: str | None) -> Origin:
    """What a version names in its tags and in its model's manifest, and where its `dvc.lock` is."""
    provenance, tags = model.provenance, version.tags
    git, ancestors = provenance.get("git", {}), provenance.get("ancestors", {})
    digests = {kind: ancestors.get(kind, "") for kind in ("dataset", "features", "label_graph")}
    named = Lineage(digests=digests | {"model": model.content_digest}).tags()
    named |= {COMMIT: git.get("commit", ""), "mlflow_run_id": version.run_id or ""}
    missing = [tag for tag, value in named.items() if value in ("", "unknown") or tags.get(tag) != value]
    missing += [] if tags.get("report_digest") else ["report_digest"]
    sections = (ModelConfig.NAME, TrainConfig.NAME)
    missing += [section for section in sections if section not in provenance.get("params", {})]
    made = provenance.get("origins", {}) | {"model": provenance}  # each with the commit that it was made at
    uncommitted = [kind for kind, record in made.items() if record.get("git", {}).get("dirty", True)]
    image = provenance.get("execution", {}).get("image")
    raw = provenance.get("origins", {}).get("dataset", {}).get("raw") or {}
    lock: str | Unmeasured
    if commit:
        lock = f"dvc.lock of commit {commit[:12]} lists this model"
    elif image:
        lock = f"trained in the image {image}, made from its commit"
    elif raw.get("md5") and raw.get("commit"):
        lock = f"made of the raw data {raw['md5'][:12]}, which commit {raw['commit'][:12]} of its repository holds"
    else:
        lock = Unmeasured(
            "no commit in this folder's repository has a dvc.lock that lists this model; where it was trained, run "
            "`git add dvc.lock && git commit`, or accept that with --allow-dirty"
        )
    return Origin(missing, str(git.get("commit", "unknown")), uncommitted, lock)
