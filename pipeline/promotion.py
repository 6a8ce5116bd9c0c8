"""Promotion on a cluster: a pipeline that runs the gate where the version was trained, for its data set is there."""

from pathlib import Path

from kfp import dsl
from kfp.compiler import Compiler
from kfp.dsl import Dataset
from kfp.dsl.base_component import BaseComponent

from components.services.lineage.tree import Reference, read_recorded
from components.services.promotion.gate import Decision
from components.services.promotion.promotion import read_history
from components.services.registry.versions import CHALLENGER
from components.services.tracking.mlflow import Tracking
from dagnn_core.errors import BackendError, InputError
from pipeline.graph import starter
from pipeline.images import Images, pullable
from pipeline.step_table import STEPS
from pipeline.target import Target

PIPELINE = "dagnn-promote"
DESCRIPTION = "A registered version becomes champion, when it passes the gate"


def build_promotion(*, images: Images, target: Target) -> BaseComponent:
    """The pipeline; what differs from promotion to promotion is a parameter, as text (`adopt`: `yes`, or empty).

    Args:
        images: references of the container images that the tasks run in.
        target: the cluster.
    """
    start = starter(images, target)

    def promotion(  # noqa: PLR0917  # kfp reads the parameters from the signature
        name: str,
        version: str,
        dataset_uri: str,
        register: str,
        reason: str = "",
        adopt: str = "",
    ) -> None:
        # the gate encodes the test split itself, so it needs no features
        data = dsl.importer(artifact_uri=dataset_uri, artifact_class=Dataset, reimport=False)
        data.set_display_name(STEPS["dataset"].title)
        start(
            "promote",
            name=name,
            version=version,
            dataset=data.output,
            params=register,
            reason=reason,
            adopt=adopt,
        )

    root = target.pipeline_root or None
    pipeline: BaseComponent = dsl.pipeline(name=PIPELINE, description=DESCRIPTION, pipeline_root=root)(promotion)
    return pipeline


def write_promotion(out: Path, *, images: Images, target: Target) -> None:
    """Compile the pipeline; equal arguments give equal bytes.

    Args:
        out: the YAML file.
        images: references by digest.
        target: the cluster.

    Raises:
        InputError: an image without digest.
    """
    Compiler().compile(build_promotion(images=pullable(images), target=target), package_path=str(out))


def find_stored_dataset(tracking: Tracking, *, name: str, version: str | None) -> tuple[str, str]:
    """Number of a version, and URI of the data set that it was made from.

    Args:
        tracking: where the registry is.
        name: name of the registered model.
        version: the version; None for the one with alias `challenger`.

    Raises:
        InputError: no such model, version or challenger, or the version does not say where its data set is.
        BackendError: the registry cannot be reached.
    """
    recorded = read_recorded(tracking, Reference(name, CHALLENGER, version or ""))
    uri = recorded.uris.get("dataset")
    if not uri:
        raise InputError(
            f"{name} version {recorded.version} does not record where its data set is stored: it was trained outside "
            "of a cluster, or by an older program",
            "submit the pipeline again, which registers the same model with it, "
            "or promote it without --target where the data set is",
        )
    return recorded.version, uri


def read_verdict(tracking: Tracking, *, name: str, version: str, run_id: str) -> Decision:
    """What a promotion that has ended decided: the record of its run in the model's history.

    Raises:
        BackendError: there is no such record, or the registry cannot be reached.
    """
    history = read_history(tracking, name=name)
    for event in reversed(history.events):
        if event.target == version and run_id in event.why:
            return Decision(event.what == "promoted", event.why)
    if history.champion == version:
        return Decision(True, f"version {version} is the champion already")
    raise BackendError(
        f"run {run_id} has ended, but the history of {name} in {tracking.address} has no record of it",
        "check that MLFLOW_TRACKING_URI names the server that the cluster uses",
    )
