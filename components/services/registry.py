"""The MLflow model registry: versions with their lineage, and the alias `challenger`."""

import json
import re
import tempfile
import warnings
from collections.abc import Mapping
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dagnn_core
from components.services.ledger import SUFFIX, ensure_registered_model
from components.services.stored_model import find_fault
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
    check_name(name)
    client = tracking.client
    provenance, digest = model.artifact.provenance, model.artifact.content_digest
    lineage = lineage_tags(provenance["ancestors"], provenance["git"], provenance.get("execution"))
    lineage |= {"model_digest": digest, "mlflow_run_id": run.run_id}
    evaluation = {metric: repr(metrics[metric]) for metric in METRICS if metric in metrics}
    evaluation |= {"report_digest": report.content_digest}
    card = _model_card(name, model, metrics)
    with tracking.answering():
        ensure_registered_model(client, name, "Texts and pictures to embeddings in one space (DAGNN)")
        known = _versions_with(client, name, "model_digest", digest)
        version = next((str(found.version) for found in known if find_fault(tracking, found) is None), None)
        if version is not None:
            for tag, value in evaluation.items():
                client.set_model_version_tag(name, version, tag, value)
            client.update_model_version(name, version, card)
        else:
            logged = _log_model(client, run, name, model)
            client.create_model_version(
                name,
                # not `models:/<id>`, which MLflow looks up on whatever server is its global default
                source=logged.artifact_location,
                run_id=run.run_id,
                model_id=logged.model_id,
                tags=lineage | evaluation | {"mlflow_model_id": logged.model_id},
                description=card,
            )
            # a request that was sent twice, for its answer was lost, has made two: as always, the first is the one
            version = str(_versions_with(client, name, "mlflow_model_id", logged.model_id)[0].version)
        client.set_registered_model_alias(name, CHALLENGER, version)
    return RegisteredVersion(name, version)


def check_name(name: str) -> None:
    """Refuse a name that MLflow does not take, or that is that of a ledger.

    Raises:
        InputError: it is such a name.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", name):
        raise InputError(
            "the name of a registered model must consist of letters, digits, '_', '-' and '.', at most 200, "
            f"got {name!r}; correct register.model_name in params.yaml"
        )
    if name.endswith(SUFFIX):
        raise InputError(
            f"the name of a registered model must not end in {SUFFIX}, got {name!r}: that is the ledger of a model's "
            "champion; give the model's own name"
        )


def find_registered_model(client: "MlflowClient", name: str) -> "RegisteredModel | None":
    """Return the registered model of this name; None where there is none."""
    found = client.search_registered_models(filter_string=f"name = '{name}'", max_results=1)
    return found[0] if found else None


def _versions_with(client: "MlflowClient", name: str, tag: str, value: str) -> "list[ModelVersion]":
    found = client.search_model_versions(f"name = '{name}' and tag.`{tag}` = '{value}'")
    return sorted(found, key=lambda version: int(version.version))


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
