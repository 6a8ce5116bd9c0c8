"""The MLflow model registry: versions with their lineage, and the alias `challenger`."""

import hashlib
import json
import logging
import os
import re
import tempfile
import time
import warnings
from collections.abc import Mapping
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from components.services.registry.models import LEDGER_SUFFIX, ensure_registered_model
from components.services.registry.own_code import OwnCode, copy_code, find_own_code, import_paths
from components.services.registry.served_code import PYFUNC_MODEL, copy_served_code
from components.services.registry.stored_model import MANIFEST_DIGEST, find_fault
from components.services.tracking.mlflow import REQUEST, Run, Tracking, despite_collisions, split_of_data
from components.services.tracking.tags import Lineage, known_raw
from dagnn_core.artifacts import Artifact, canonical_json
from dagnn_core.errors import BackendError, InputError
from dagnn_core.redaction import redact
from dagnn_core.retrieval.directions import MAP_METRICS

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.models import ModelSignature

    from dagnn_core.features.encoders.registry import Encoder
    from dagnn_core.model.embedder import TrainedModel
    from dagnn_core.reports.comparison.champion import BesideChampion
    from dagnn_core.reports.model_card.model_card import ModelCard

log = logging.getLogger(__name__)

CHALLENGER = "challenger"
CHAMPION = "champion"
RAW_DIGEST = "raw_digest"  # tag of a version, as `Lineage` writes it: md5 of the raw data
OTHER_RAW = "other_raw."  # and md5: tag of a version to which a training on other raw data has led, too
MODEL_ID = "mlflow_model_id"  # tag of a version: MLflow's record of its model
MODEL_VERSION = "model_version"  # tag of the MLflow run of a whole pipeline run: NAME/VERSION
KUBEFLOW_MLFLOW_RUN = "kubeflow_mlflow_run"
"""Tag of a version: the MLflow run that Kubeflow has opened for the pipeline run that registered it."""
MAX_DESCRIPTION = 5000  # characters that MLflow's database has for it

# what dagnn_core needs to encode and embed, and the served file itself
_REQUIREMENTS = (
    "filelock",
    "mlflow",
    "numpy",
    "pandas",
    "pillow",
    "pyarrow",
    "pydantic",
    "safetensors",
    "torch",
    "tqdm",
)
_OF_HUGGINGFACE = ("huggingface_hub", "tokenizers", "transformers")  # what its encoders need on top

# 16 x 16 pixels, PNG: a light sky above a dark sea
_EXAMPLE_IMAGE = (
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQAQMAAAAlPW0iAAAABlBMVEValtwUPIy2ZPuXAAAAEklEQVR42mNgwAcY/zMwMaAgABGLAQsDnzA0"
    "AAAAAElFTkSuQmCC"
)
_EXAMPLE_TEXT = "a boat on the sea at night"


class RegisteredVersion(NamedTuple):
    """A version of a registered model."""

    name: str
    version: str


def register_version(
    tracking: Tracking,
    run: Run,
    *,
    name: str,
    model: "TrainedModel",
    report: Artifact,
    metrics: Mapping[str, float],
    beside: "BesideChampion | None",
    data_licence: str,
) -> RegisteredVersion:
    """Store a model in its run and make it the version with alias `challenger`; equal content keeps its version.

    Args:
        tracking: where.
        run: the run that trained the model.
        name: name of the registered model.
        model: the model.
        report: report artifact of this model.
        metrics: of the report.
        beside: the present champion on the same test split; None where there is none.
        data_licence: licence or terms of the data.

    Raises:
        InputError: a name that MLflow does not take, or the user's own code that the model needs cannot be stored.
        BackendError: the server failed.
    """
    from dagnn_core.reports.model_card.model_card import render_model_card, shorten

    check_name(name)
    data_licence = redact(data_licence)  # it goes into the card and the description too
    client, digest = tracking.client, model.artifact.content_digest
    code = find_own_code(model)
    card = render_model_card(name, model, report, metrics, licence=data_licence, beside=beside)
    description = shorten(card.markdown, MAX_DESCRIPTION)
    evaluation = {metric: repr(metrics[metric]) for metric in MAP_METRICS}
    evaluation |= {"report_digest": report.content_digest, "data_licence": data_licence}
    provenance = model.artifact.provenance
    git, ancestors = (model.artifact.recorded(key) for key in ("git", "ancestors"))
    setup = _setup_tags(model.artifact)
    # the report has the model among its ancestors, so its record names every artifact
    uris = Lineage(uris=report.provenance.get("uris", {})).tags()
    with tracking.answering():
        ensure_registered_model(client, name, "Texts and images to embeddings in one space (DAGNN)")
        found = find_whole(tracking, name, digest)
        model_id = found.tags[MODEL_ID] if found else _log_model(tracking, run, name, model, code)
        # all that a version holds is in the store before there is a version
        _log_card(client, model_id, card)
        log_evaluation(client, run, model_id, metrics, report.content["data"])
        if found is None:
            lineage = Lineage(
                digests=ancestors | {"model": digest},
                git=git,
                execution=provenance.get("execution", {}),
                raw=report.content["data"]["raw"] or {},
            )
            tags = lineage.tags() | setup | evaluation | uris
            if model.artifact.manifest_digest:
                tags[MANIFEST_DIGEST] = model.artifact.manifest_digest
            version = add_version(
                tracking, name, digest, model_id=model_id, run_id=run.run_id, tags=tags, description=description
            )
        else:
            version = str(found.version)
            same_ancestors = Lineage(digests=ancestors).tags().items() <= found.tags.items()
            raw_md5 = ancestors.get("raw", "")
            other_raw = {f"{OTHER_RAW}{raw_md5}": "equal model"} if raw_md5 and not same_ancestors else {}
            for tag, value in (evaluation | (uris if same_ancestors else {}) | other_raw).items():
                client.set_model_version_tag(name, version, tag, value)
            client.update_model_version(name, version, description)
        client.set_registered_model_alias(name, CHALLENGER, version)
    return RegisteredVersion(name, version)


def add_version(
    tracking: Tracking,
    name: str,
    digest: str,
    *,
    model_id: str,
    run_id: str,
    tags: Mapping[str, str],
    description: str,
) -> str:
    """Make a stored model a version; where another process was faster with the same model, drop it for theirs.

    Call it while `tracking` is answering, when everything that the version holds is in the store.

    Args:
        tracking: where.
        name: of the registered model, which exists.
        digest: content digest of the model.
        model_id: of MLflow's record of the stored model.
        run_id: of the run that the model belongs to.
        tags: of the version; what names model, run and user is added.
        description: of the version.

    Returns:
        Number of the version that has the model now.
    """
    client = tracking.client
    # not `models:/<id>`, which MLflow looks up on whatever server is its global default
    source = client.get_logged_model(model_id).artifact_location
    all_tags = {**tags, MODEL_ID: model_id, "mlflow_run_id": run_id, "registered_by": tracking.who}
    tracking.make_once(
        lambda: next(iter(_versions_with(client, name, MODEL_ID, model_id)), None),
        lambda: client.create_model_version(
            name, source=source, run_id=run_id, model_id=model_id, tags=all_tags, description=description
        ),
    )
    # a request that MLflow itself has sent twice has made two: as always, the first is the one
    created = str(_versions_with(client, name, MODEL_ID, model_id)[0].version)
    # another process may have registered the same model meanwhile: the later one sees both versions
    found = find_whole(tracking, name, digest)
    version = str(found.version) if found else created
    if version != created:
        client.delete_model_version(name, created)
        client.delete_logged_model(model_id)
    return version


def mark_finished(tracking: Tracking, name: str, version: str, step: str) -> None:
    """Have a version name the pipeline run whose last step has just dealt with it; nothing outside of a pipeline run.

    Where Kubeflow has an MLflow run of its own for that pipeline run, the version and this run name each other.

    Args:
        tracking: where the registry is.
        name: of the registered model.
        version: its number.
        step: `register` or `promote`.

    Raises:
        BackendError: the server failed.
    """
    if pipeline_run := os.environ.get("DAGNN_PIPELINE_RUN"):
        with tracking.answering():
            tracking.client.set_model_version_tag(name, version, f"{step}_run", pipeline_run)
            parent = tracking.run_of_kubeflow(pipeline_run)
            if parent:
                tracking.client.set_model_version_tag(name, version, KUBEFLOW_MLFLOW_RUN, parent)
        if parent:
            _name_version(tracking, parent, f"{name}/{version}")


def _name_version(tracking: Tracking, run_id: str, version: str) -> None:
    """Have Kubeflow's own run name a version, unless it belongs to an account that lets nobody else write."""
    try:
        with tracking.answering():
            tracking.client.set_tag(run_id, MODEL_VERSION, version)
    except BackendError as error:
        log.warning("MLflow run %s does not name the version %s: %s", run_id, version, error)


def has_finished(tracking: Tracking, pipeline_run: str, step: str) -> bool:
    """Whether this step of a pipeline run has dealt with any version.

    Raises:
        BackendError: the server failed.
    """
    with tracking.answering():
        return bool(tracking.client.search_model_versions(f"tag.`{step}_run` = '{pipeline_run}'", max_results=1))


def check_name(name: str) -> None:
    """Refuse a name that MLflow does not take, or that is that of a ledger.

    Raises:
        InputError: it is such a name.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", name):
        raise InputError(
            "the name of a registered model must consist of letters, digits, '_', '-' and '.', at most 200, "
            f"got {name!r}",
            "correct register.model_name in params.yaml",
        )
    if name.endswith(LEDGER_SUFFIX):
        raise InputError(
            f"the name of a registered model must not end in {LEDGER_SUFFIX}, got {name!r}: that is the ledger of a "
            "model's champion",
            "give the model's own name",
        )


def find_registered_model(client: "MlflowClient", name: str) -> "RegisteredModel | None":
    """Return the registered model of this name; None where there is none."""
    found = client.search_registered_models(filter_string=f"name = '{name}'", max_results=1)
    return found[0] if found else None


def read_versions(tracking: Tracking, name: str) -> "tuple[RegisteredModel, dict[str, ModelVersion]]":
    """The registered model of this name, and its versions by number; call it while `tracking` is answering.

    Raises:
        InputError: there is none, or not even a registry.
        BackendError: the server cannot be reached.
    """
    check_name(name)
    tracking.check_exists()
    client = tracking.client
    registered = find_registered_model(client, name)
    if registered is None:
        found = {model.name for model in client.search_registered_models()}
        names = ", ".join(sorted(found - {other + LEDGER_SUFFIX for other in found})) or "none"
        raise InputError(
            f"{tracking.address} has no registered model {name!r} (it has: {names})", "run `dagnn register` first"
        )
    return registered, {str(found.version): found for found in client.search_model_versions(f"name = '{name}'")}


def find_trained_on(tracking: Tracking, name: str, md5: str) -> "ModelVersion | None":
    """The newest whole version that a training on a version of raw data has led to; None where there is none.

    Args:
        tracking: where the registry is.
        name: of the registered model, which need not exist.
        md5: DVC's digest of the raw data.

    Raises:
        InputError: a name that MLflow does not take.
        BackendError: the server failed.
    """
    check_name(name)
    with tracking.answering():
        known = _versions_with(tracking.client, name, RAW_DIGEST, md5)
        known += _versions_with(tracking.client, name, f"{OTHER_RAW}{md5}", "equal model")
        return next((version for version in reversed(known) if find_fault(tracking, version) is None), None)


def _versions_with(client: "MlflowClient", name: str, tag: str, value: str) -> "list[ModelVersion]":
    found = client.search_model_versions(f"name = '{name}' and tag.`{tag}` = '{value}'")
    return sorted(found, key=lambda version: int(version.version))


def find_whole(tracking: Tracking, name: str, digest: str) -> "ModelVersion | None":
    """The first version that holds a model and can be served; None where there is none."""
    known = _versions_with(tracking.client, name, "model_digest", digest)
    return next((version for version in known if find_fault(tracking, version) is None), None)


def _setup_tags(model: Artifact) -> dict[str, str]:
    """What a model was trained with: seed, parameters, packages."""
    params = hashlib.sha256(canonical_json(model.recorded("params")).encode()).hexdigest()
    return {
        "seed": str(model.recorded("params", "train", "seed")),
        "params_digest": params,
        "python_version": model.recorded("packages", "python"),
        "torch_version": model.recorded("packages", "torch"),
    }


def _log_card(client: "MlflowClient", model_id: str, card: "ModelCard") -> None:
    """Put the model card beside the files of a stored model."""
    from dagnn_core.reports.model_card.model_card import HTML, MARKDOWN

    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / MARKDOWN).write_text(card.markdown, encoding="utf-8")
        (Path(directory) / HTML).write_text(card.html, encoding="utf-8")
        client.log_model_artifacts(model_id, directory)


def log_evaluation(
    client: "MlflowClient", run: Run, model_id: str, metrics: Mapping[str, float], data: Mapping[str, Any]
) -> None:
    """Tie the metrics of a report to the stored model, and to the test split that they were measured on."""
    from mlflow.entities import DatasetInput, InputTag, Metric
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import Array

    columns = [ColSpec("string", "id"), ColSpec("string", "text"), ColSpec("binary", "image")]
    schema = Schema([*columns, ColSpec(Array("string"), "labels")])
    profile = {
        "num_rows": data["splits"]["test"],
        "splits": data["splits"],
        "num_rejected": sum(data["rejected"].values()),
        "label_counts": data["label_counts"]["test"],
    }
    dataset = split_of_data(
        "test",
        data["content_digest"],
        known_raw(data["raw"]),
        schema=json.dumps({"mlflow_colspec": schema.to_dict()}),
        profile=json.dumps(profile),
    )
    used = [DatasetInput(dataset, [InputTag("mlflow.data.context", "test")])]
    despite_collisions(lambda: client.log_inputs(run.run_id, datasets=used))
    now = int(time.time() * 1000)
    tied = [
        Metric(name, value, now, 0, model_id=model_id, dataset_name=dataset.name, dataset_digest=dataset.digest)
        for name, value in metrics.items()
    ]
    client.log_batch(run.run_id, metrics=tied, synchronous=True)


def _log_model(tracking: Tracking, run: Run, name: str, model: "TrainedModel", code: OwnCode) -> str:
    """Store the model in its run as an MLflow model made from code; return the id of MLflow's record of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*inferred as AnyType")  # about MLflow's own types
        import mlflow.pyfunc
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus
    from mlflow.models import Model

    client, request = tracking.client, uuid4().hex
    experiment, found = client.get_run(run.run_id).info.experiment_id, f"tags.`{REQUEST}` = '{request}'"
    logged = tracking.make_once(
        lambda: next(iter(client.search_logged_models([experiment], found, max_results=1)), None),
        lambda: client.create_logged_model(experiment, name=name, source_run_id=run.run_id, tags={REQUEST: request}),
    )
    with tempfile.TemporaryDirectory() as directory:
        local = Path(directory) / "model"
        folder = Path(directory) / "code"
        stored_code = [
            copy_served_code(import_paths(model).values(), folder),
            *(copy_code(path, folder) for path in code.paths),
        ]
        mlflow.pyfunc.save_model(
            local,
            mlflow_model=Model(run_id=run.run_id, model_id=logged.model_id, model_uuid=logged.model_id),
            python_model=PYFUNC_MODEL,
            artifacts={"model": model.artifact.path.resolve().as_uri()},
            code_paths=[str(path) for path in stored_code],
            signature=_signature(model),
            input_example=_input_example(model),
            pip_requirements=_pip_requirements(model) + code.requirements,
        )
        client.log_model_artifacts(logged.model_id, str(local))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    client.log_outputs(run.run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return str(logged.model_id)


def _pip_requirements(model: "TrainedModel") -> list[str]:
    kinds = {model.image_encoder.kind, model.text_encoder.kind}
    packages = (*_REQUIREMENTS, *(_OF_HUGGINGFACE if "huggingface" in kinds else ()))
    return [f"{package}=={installed_version(package).split('+')[0]}" for package in packages]


def _signature(model: "TrainedModel") -> "ModelSignature":
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    columns: list[ColSpec | TensorSpec] = [ColSpec("string", name, required=False) for name in ("text", "image")]
    embedding = TensorSpec(np.dtype(np.float32), (-1, _embedding_dim(model)))
    return ModelSignature(inputs=Schema(columns), outputs=Schema([embedding]))


def _input_example(model: "TrainedModel") -> Any:
    import pandas as pd

    text = _vector_example(model.text_encoder) or _EXAMPLE_TEXT
    image = _vector_example(model.image_encoder) or _EXAMPLE_IMAGE
    return pd.DataFrame([{"text": text, "image": ""}, {"text": "", "image": image}])


def _vector_example(encoder: "Encoder") -> str | None:
    return json.dumps([0.0] * encoder.dim) if encoder.kind == "precomputed" else None


def _embedding_dim(model: "TrainedModel") -> int:
    return int(model.artifact.content["output_dim"])
