"""The MLflow model registry: versions with their lineage, the aliases `challenger` and `champion`, promotion."""

import json
import math
import re
import tempfile
import warnings
from collections.abc import Mapping
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dagnn_core
from components.services.tracking import Run, Tracking, lineage_tags
from dagnn_core.artifacts import Artifact
from dagnn_core.errors import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.models import ModelSignature

    from dagnn_core.features.encoders import Encoder
    from dagnn_core.model import TrainedModel

CHALLENGER = "challenger"
CHAMPION = "champion"
METRICS = ("map_i2t", "map_t2i", "map_mean")
ROUNDING = 1e-9  # two equal figures may differ by this after a way through text

# what dagnn_core needs to encode and embed, and the served file itself
_REQUIREMENTS = ("mlflow", "numpy", "pandas", "pillow", "pyarrow", "safetensors", "torch", "tqdm")
_OF_HUGGINGFACE = ("huggingface_hub", "tokenizers", "transformers")  # what its encoders need on top

# 16 x 16 pixels, PNG: a light sky above a dark sea
_EXAMPLE_PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQAQMAAAAlPW0iAAAABlBMVEValtwUPIy2ZPuXAAAAEklEQVR42mNgwAcY/zMwMaAgABGLAQsDnzA0"
    "AAAAAElFTkSuQmCC"
)
_EXAMPLE_TEXT = "a boat on the sea at night"


class RegisteredVersion(NamedTuple):
    """A version of a registered model."""

    name: str
    version: str


class Scores(NamedTuple):
    """What a version reached, and on which data."""

    version: str
    dataset_digest: str
    """Content digest of the data set whose test split gave the figures; empty where it is unknown."""
    map_i2t: float | None
    map_t2i: float | None
    map_mean: float | None


class Decision(NamedTuple):
    """Whether a challenger may become champion, and why."""

    accepted: bool
    reason: str


class Promotion(NamedTuple):
    """The outcome of a promotion: who stood against whom, and the decision, which has been carried out."""

    name: str
    challenger: Scores
    champion: Scores | None
    decision: Decision


def decide(challenger: Scores, champion: Scores | None, tolerance: float) -> Decision:
    """Compare a challenger with the champion: accepted when it is not worse by more than `tolerance` in map_mean.

    Args:
        challenger: the version that wants to be champion.
        champion: the present champion; None where there is none.
        tolerance: the drop of map_mean that is still accepted.
    """
    if champion is not None and champion.version == challenger.version:
        return Decision(True, f"version {challenger.version} is the champion already")
    for scores in (challenger, champion):
        if scores is not None and (scores.map_mean is None or not scores.dataset_digest):
            missing = "map_mean" if scores.map_mean is None else "digest of its data set"
            return Decision(False, f"version {scores.version} has no {missing}; register it again with its report")
    assert challenger.map_mean is not None
    if champion is None:
        return Decision(True, "there is no champion yet")
    assert champion.map_mean is not None
    if champion.dataset_digest != challenger.dataset_digest:
        return Decision(
            False,
            f"versions {challenger.version} and {champion.version} were evaluated on different data sets "
            f"({challenger.dataset_digest[:12]} and {champion.dataset_digest[:12]}), so their figures cannot be "
            "compared; train both on the same data set",
        )
    change = challenger.map_mean - champion.map_mean
    figures = f"map_mean {challenger.map_mean:.4f} against the champion's {champion.map_mean:.4f}"
    if change < -tolerance - ROUNDING:
        return Decision(False, f"{figures}: a drop of {-change:.4f}, more than register.tolerance = {tolerance}")
    return Decision(True, figures)


def register_version(
    tracking: Tracking, run: Run, *, name: str, model: "TrainedModel", report: Artifact, metrics: Mapping[str, float]
) -> RegisteredVersion:
    """Store a model in its run and make it the version with alias `challenger`; equal content keeps its version.

    Args:
        tracking: where.
        run: the run that trained the model.
        name: name of the registered model.
        model: the model.
        report: report artifact of this model.
        metrics: the report's figures.

    Raises:
        InputError: a name that MLflow does not take.
        SurroundingsError: the server failed.
    """
    _check_name(name)
    client = tracking.client
    provenance, digest = model.artifact.provenance, model.artifact.content_digest
    lineage = lineage_tags(provenance["ancestors"], provenance["git"])
    lineage |= {"model_digest": digest, "mlflow_run_id": run.run_id}
    evaluation = {metric: repr(metrics[metric]) for metric in METRICS if metric in metrics}
    evaluation |= {"report_digest": report.content_digest}
    card = _model_card(name, model, metrics)
    with tracking.answering():
        if _find_registered_model(client, name) is None:
            client.create_registered_model(name, description="Texts and pictures to embeddings in one space (DAGNN)")
        known = client.search_model_versions(f"name = '{name}' and tag.`model_digest` = '{digest}'")
        if known:
            version = str(known[0].version)
            for tag, value in evaluation.items():
                client.set_model_version_tag(name, version, tag, value)
            client.update_model_version(name, version, card)
        else:
            logged = _log_model(client, run, name, model)
            created = client.create_model_version(
                name,
                # not `models:/<id>`, which MLflow looks up on whatever server is its global default
                source=logged.artifact_location,
                run_id=run.run_id,
                model_id=logged.model_id,
                tags=lineage | evaluation | {"mlflow_model_id": logged.model_id},
                description=card,
            )
            version = str(created.version)
        client.set_registered_model_alias(name, CHALLENGER, version)
    return RegisteredVersion(name, version)


def promote(tracking: Tracking, *, name: str, version: str | None, tolerance: float) -> Promotion:
    """Decide whether a version becomes champion, and if so move the alias.

    Args:
        tracking: where.
        name: name of the registered model.
        version: the version; None for the one with alias `challenger`.
        tolerance: see `decide`.

    Raises:
        InputError: no such model, version or challenger.
        SurroundingsError: the server failed.
    """
    _check_name(name)
    client = tracking.client
    with tracking.answering():
        registered = _find_registered_model(client, name)
        if registered is None:
            names = ", ".join(sorted(found.name for found in client.search_registered_models())) or "none"
            raise InputError(
                f"{tracking.address} has no registered model {name!r} (it has: {names}); run `dagnn register` first"
            )
        aliases = registered.aliases
        if version is None and CHALLENGER not in aliases:
            raise InputError(f"{name} has no version with alias {CHALLENGER}; run `dagnn register`, or give --version")
        versions = {str(found.version): found for found in client.search_model_versions(f"name = '{name}'")}
        challenger = _scores(_version(versions, name, version or str(aliases[CHALLENGER])))
        champion = _scores(_version(versions, name, str(aliases[CHAMPION]))) if CHAMPION in aliases else None
        decision = decide(challenger, champion, tolerance)
        if decision.accepted and champion != challenger:
            client.set_registered_model_alias(name, CHAMPION, challenger.version)
    return Promotion(name, challenger, champion, decision)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise InputError(
            f"the name of a registered model must consist of letters, digits, '_', '-' and '.', got {name!r}; "
            "correct register.model_name in params.yaml"
        )


def _find_registered_model(client: "MlflowClient", name: str) -> "RegisteredModel | None":
    found = client.search_registered_models(filter_string=f"name = '{name}'", max_results=1)
    return found[0] if found else None


def _version(versions: "dict[str, ModelVersion]", name: str, version: str) -> "ModelVersion":
    if version not in versions:
        existing = ", ".join(sorted(versions, key=int)) or "none"
        raise InputError(f"{name} has no version {version!r} (it has: {existing}); give one of these as --version")
    return versions[version]


def _scores(version: "ModelVersion") -> Scores:
    figures = {metric: _figure(version.tags.get(metric)) for metric in METRICS}
    return Scores(version=str(version.version), dataset_digest=version.tags.get("dataset_digest", ""), **figures)


def _figure(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _log_model(client: "MlflowClient", run: Run, name: str, model: "TrainedModel") -> Any:
    """Store the model in its run as an MLflow model made from code; return MLflow's record of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*inferred as AnyType")  # about MLflow's own types
        import mlflow.pyfunc
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus
    from mlflow.models import Model

    experiment = client.get_run(run.run_id).info.experiment_id
    logged = client.create_logged_model(experiment, name=name, source_run_id=run.run_id)
    with tempfile.TemporaryDirectory() as directory:
        local = Path(directory) / "model"
        mlflow.pyfunc.save_model(
            local,
            mlflow_model=Model(run_id=run.run_id, model_id=logged.model_id, model_uuid=logged.model_id),
            python_model=Path(__file__).with_name("served_model.py"),
            artifacts={"model": model.artifact.path.resolve().as_uri()},
            code_paths=[str(Path(dagnn_core.__file__).parent)],
            signature=_signature(model),
            input_example=_input_example(model),
            pip_requirements=_pip_requirements(model),
        )
        client.log_model_artifacts(logged.model_id, str(local))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    client.log_outputs(run.run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return logged


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
    image = _vector_example(model.image_encoder) or _EXAMPLE_PICTURE
    return pd.DataFrame([{"text": text, "image": ""}, {"text": "", "image": image}])


def _vector_example(encoder: "Encoder") -> str | None:
    return json.dumps([0.0] * encoder.dim) if encoder.kind == "precomputed" else None


def _model_card(name: str, model: "TrainedModel", metrics: Mapping[str, float]) -> str:
    vector = "the JSON text of a list of {} numbers, for this model was trained on ready vectors"
    text, image = (
        vector.format(encoder.dim) if encoder.kind == "precomputed" else raw
        for encoder, raw in ((model.text_encoder, "a sentence"), (model.image_encoder, "a picture as base64 text"))
    )
    what = {
        "dagnn": f"DAGNN (Qian et al., AAAI 2021), preset `{model.config.preset}`",
        "two_tower": "Two towers with InfoNCE",
        "dscmr": "DSCMR (Zhen et al., CVPR 2019)",
        "cca": "Linear CCA",
        "ridge": "Ridge regression to the labels",
    }[model.config.kind]
    figures = "\n".join(f"| {metric} | {metrics[metric]:.4f} |" for metric in METRICS if metric in metrics)
    return f"""\
{what}: texts and pictures to embeddings [N, {_embedding_dim(model)}] in one space, compared by cosine.
Trained on {len(model.label_names)} labels: {", ".join(model.label_names[:50])}.

| test split | |
|---|---|
{figures}

Each row of the input fills one of two columns: `text` ({text}) or `image` ({image}).

```python
mlflow.pyfunc.load_model("models:/{name}@{CHALLENGER}").predict([{{"text": "..."}}, {{"image": "..."}}])
```
"""


def _embedding_dim(model: "TrainedModel") -> int:
    return int(model.artifact.content["output_dim"])
