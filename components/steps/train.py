"""Step `train`: features and a label graph become a model."""

import hashlib
import logging
import os
import re
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from components.command import ParamsOption, WorkOption, run_step, terminated_like_interrupted
from components.locations import WORK
from components.params import load_section
from components.services.lineage.provenance import provenance
from components.services.lineage.resources import record_use, used_by_steps
from components.services.storage.artifacts import send_artifact
from components.services.storage.mirror import mirrored
from components.services.storage.s3 import Storage
from components.services.tracking.mlflow import Tracking
from dagnn_core.artifacts import canonical_json, write_artifact
from dagnn_core.config.dataset import MAX_RELEVANT_PAIRS
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.section import DEFAULT_SEED, section_json
from dagnn_core.config.train import TrainConfig
from dagnn_core.devices import choose_device, choose_precision, describe_machine
from dagnn_core.disk import folder_bytes, writing
from dagnn_core.features.features import IMAGE_ENCODER, TEXT_ENCODER, Features
from dagnn_core.label_graph.label_graph import LabelGraph
from dagnn_core.model.files import KIND, write_model
from dagnn_core.model.kinds import kind_of
from dagnn_core.parallel import from_main, is_main, joined_processes
from dagnn_core.retrieval.relevance import relevant_pairs
from dagnn_core.training.inputs import check_same_dataset, fit_in_memory, graph_tensors, read_split
from dagnn_core.training.loop import train
from dagnn_core.work import work_folder

log = logging.getLogger(__name__)


def run(
    *,
    features: Path,
    label_graph: Path,
    model_params: ModelConfig,
    params: TrainConfig,
    tracking: Tracking,
    work: Path,
    model_out: Path,
    checkpoints_uri: str = "",
    model_uri: str = "",
    uri: str = "",
) -> None:
    """Train on the train split, select on the val split, and write the model.

    An interrupted run resumes from its checkpoint below `work`, in the same MLflow run. Of several processes (see
    `dagnn_core.parallel`) the first one tracks, writes and keeps the checkpoints, which it hands to the others.

    Args:
        features: features artifact.
        label_graph: label graph artifact of the same data set.
        model_params: architecture and objective.
        params: optimisation.
        tracking: gets the metrics of every epoch.
        work: folder for checkpoints, one folder for each combination of inputs.
        model_out: where the model goes.
        checkpoints_uri: `s3://bucket/prefix` that keeps the checkpoints as well, where the disk of `work` may be lost.
        model_uri: `s3://bucket/prefix` that gets the model as well, before its checkpoints go.
        uri: where a pipeline run stores the model, for the record.

    Raises:
        ArtifactError: an input is missing or damaged, or the two do not belong together.
        InputError: no GPU where one is asked for, or the loss is no longer finite.
        BackendError: the tracking server or S3 cannot be reached, the disk has no room for checkpoints and model or
            refuses a file, or another process trains from the same inputs.
    """
    data = Features.read(features, verify=True)
    graph = LabelGraph.read(label_graph, verify=True)
    check_same_dataset(data, graph)
    if is_main():
        _warn_of_easy_labels(data)
    device = choose_device(params.device, key="train.device")
    bf16 = from_main(choose_precision(params.precision, device, key="train.precision") == "bf16")
    config = replace(params, precision="bf16" if bf16 else "float32")
    from_disk = not (_reads_all(model_params, params) or fit_in_memory(data, params.memory_budget, device))
    if params.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    tensors = graph_tensors(graph)
    record = provenance(
        "train",
        model_params,
        params,
        parents=[data.artifact, graph.artifact],
        machine=describe_machine(device) | ({"precision": config.precision} if params.precision == "auto" else {}),
        uris={KIND: uri},
    )
    inputs = [record["ancestors"], section_json(model_params), section_json(params)]
    checkpoints = work / hashlib.sha256(canonical_json(inputs).encode()).hexdigest()[:16]
    encoders = (data.artifact.path / name for name in (IMAGE_ENCODER, TEXT_ENCODER))
    training = partial(
        train,
        train_split=read_split(data, "train", device=device, from_disk=from_disk),
        val_split=read_split(data, "val", device=device, from_disk=from_disk),
        graph=tensors,
        model_config=model_params,
        config=config,
        checkpoint=checkpoints / "checkpoint.safetensors",
        model_out=model_out,
        encoder_bytes=sum(map(folder_bytes, encoders)),
    )
    if not is_main():
        training()  # of several processes the first one tracks
        return
    run_id_file = checkpoints / "mlflow_run_id"
    with (
        work_folder(checkpoints, busy="another training of the same inputs is running"),
        mirrored(checkpoints, f"{checkpoints_uri.rstrip('/')}/{checkpoints.name}", storage=Storage())
        if checkpoints_uri
        else nullcontext(),
        tracking.training_run(
            params={"model": model_params, "train": params},
            ancestors=record["ancestors"],
            git=record["git"],
            execution=record["execution"],
            run_id=_read_run_id(run_id_file),
        ) as tracked,
    ):
        with writing(run_id_file):
            run_id_file.write_text(tracked.run_id)
        result = training(logger=tracked)
        with write_artifact(model_out, kind=KIND, provenance=record | {"mlflow_run_id": tracked.run_id}) as draft:
            draft.content = write_model(
                draft.path,
                config=model_params,
                state=result.weights,
                graph=tensors,
                features=data.artifact,
                history=result.history,
                val_metrics=result.val_metrics,
            )
            resources = record_use(record)
        tracked.log_metrics(used_by_steps(record) | {f"train_{name}": value for name, value in resources.items()})
        if model_uri:
            send_artifact(model_out, model_uri, Storage())
    log.info(
        "model of epoch %d, val MAP %.4f: %s",
        result.val_metrics["best_epoch"],
        result.val_metrics["val_map_mean"],
        model_out,
    )


def _reads_all(model: ModelConfig, config: TrainConfig) -> bool:
    """Whether a training looks at all features at once, so that they have to be in memory."""
    return bool(kind_of(model).fit) or config.incomplete == "reconstruct" or model.ranking == "hybrid"


def _read_run_id(file: Path) -> str | None:
    """The MLflow run of an interrupted training; None where there is none, or the file is damaged."""
    if not file.is_file():
        return None
    text = file.read_bytes().decode(errors="replace")
    if not re.fullmatch(r"[\w-]{1,64}", text):
        log.warning("%s is damaged: the training goes into a new MLflow run", file)
        return None
    return text


def _warn_of_easy_labels(features: Features) -> None:
    share = relevant_pairs(features.labels[features.splits != "train"], seed=DEFAULT_SEED)
    if share > MAX_RELEVANT_PAIRS:
        log.warning(
            "%.1f %% of the pairs of val and test items have a label in common, expected at most %.0f %%: MAP is near "
            "1 whatever the model learns; `dagnn data check` names the labels",
            100 * share,
            100 * MAX_RELEVANT_PAIRS,
        )


if __name__ == "__main__":

    def main(
        *,
        features: Annotated[Path, typer.Option(help="Features artifact.")],
        label_graph: Annotated[Path, typer.Option(help="Label graph artifact of the same data set.")],
        model_out: Annotated[Path, typer.Option(help="Folder for the model.")],
        params: ParamsOption = "params.yaml",
        work: WorkOption = WORK,
        checkpoints_uri: Annotated[str, typer.Option(help="s3://bucket/prefix that keeps checkpoints as well.")] = "",
    ) -> None:
        """Train a DAGNN on features and a label graph; with torchrun on several GPUs or CPUs."""
        train_params = load_section(params, TrainConfig)
        with terminated_like_interrupted(), joined_processes(choose_device(train_params.device, key="train.device")):
            if not is_main():
                logging.getLogger().setLevel(logging.WARNING)
            run(
                features=features,
                label_graph=label_graph,
                model_params=load_section(params, ModelConfig),
                params=train_params,
                tracking=Tracking.from_environment(),
                work=work,
                model_out=model_out,
                checkpoints_uri=checkpoints_uri,
            )

    run_step(main)
