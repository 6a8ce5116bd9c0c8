"""The Kubeflow tasks: functions of a few lines that call the same `components.<step>.run` as the DVC stages.

kfp copies the source of each function into the compiled pipeline, so a function imports what it needs in its body and
only names of `kfp.dsl` and `typing` stand in its signature. The annotations must be real objects: no
`from __future__ import annotations` here. Parameters are sections of `params.yaml` as canonical JSON text.
"""

from collections.abc import Callable
from typing import List, NamedTuple  # noqa: UP035  # kfp's copy of a function finds it in `typing`

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output, PipelineTaskFinalStatus

from pipeline.images import Images
from pipeline.step_table import STEPS


def fetch_dataset(
    *,
    md5: str,
    remote: str,
    endpoint_url: str,
    repository: str,
    revision: str,
    path: str,
    uri: str,
    raw_out: Output[Artifact],
) -> None:
    """Fetch raw data at one version."""
    from pathlib import Path

    from components.steps.fetch_dataset import run
    from pipeline.task import task

    with task("fetch_dataset"):
        run(
            raw_out=Path(raw_out.path),
            md5=md5,
            remote=remote,
            endpoint_url=endpoint_url,
            repository=repository,
            revision=revision,
            path=path,
            uri=uri,
        )


def dataset(
    *,
    params: str,
    work: str,
    dataset_out: Output[Dataset],
    raw: Input[Artifact] = None,  # kfp's way to say that it may be missing
) -> NamedTuple("StoredDataset", [("uri", str), ("digest", str)]):  # type: ignore[valid-type]  # kfp's way
    """Read raw data into a data set, and say where it is stored, for tasks that read a part of it."""
    from pathlib import Path

    from components.params import load_section
    from components.steps.dataset import run
    from dagnn_core.config.dataset import DatasetConfig
    from pipeline.task import task

    with task("dataset"):
        digest = run(
            params=load_section(params, DatasetConfig),
            work=Path(work),
            dataset_out=Path(dataset_out.path),
            source=Path(raw.path) if raw else None,
            uris={"dataset": dataset_out.uri} | ({"raw": raw.uri} if raw else {}),
        )
    return (dataset_out.uri, digest)


def check_data(
    *,
    dataset: Input[Dataset],
    accept_drift: str,
    against: Input[Dataset] = None,  # kfp's way to say that it may be missing
) -> None:
    """Check the data set, and against the champion's; data that fails ends the run."""
    from pathlib import Path

    from components.steps.check_data import run
    from dagnn_core.data_check.findings import Limits
    from dagnn_core.data_check.revision import require_fit
    from pipeline.task import task

    with task("check_data"):
        findings = run(dataset=Path(dataset.path), against=Path(against.path) if against else None, limits=Limits())
        require_fit(findings, what="the data set", accept_drift=bool(accept_drift))


def extract_shard(
    *,
    params: str,
    index: str,
    shard_out: Output[Artifact],
    dataset: Input[Dataset] = None,  # kfp's way to say that it may be missing: then it is read in the store
    dataset_uri: str = "",
    dataset_digest: str = "",
) -> None:
    """Turn a part of the images and texts into vectors."""
    from pathlib import Path

    from components.params import load_section
    from components.services.storage.datasets import StoredDataset
    from components.steps.extract_shard import run
    from dagnn_core.config.features import FeaturesConfig
    from pipeline.task import task

    with task("extract_shard"):
        run(
            dataset=Path(dataset.path) if dataset else StoredDataset(dataset_uri, dataset_digest),
            params=load_section(params, FeaturesConfig),
            index=int(index),
            shard_out=Path(shard_out.path),
        )


def extract_features(
    *,
    params: str,
    cache: str,
    features_out: Output[Artifact],
    shards: Input[List[Artifact]] = None,  # noqa: UP006
    dataset: Input[Dataset] = None,  # kfp's way to say that it may be missing: then it is read in the store
    dataset_uri: str = "",
    dataset_digest: str = "",
) -> None:
    """Turn images and texts into feature vectors."""
    from pathlib import Path

    from components.params import load_section
    from components.services.storage.datasets import StoredDataset, open_dataset
    from components.steps.extract_features import run
    from dagnn_core.config.features import FeaturesConfig
    from dagnn_core.features.extraction.precomputed import own_vector_files
    from pipeline.task import task

    with task("extract_features"):
        config = load_section(params, FeaturesConfig)
        place = Path(dataset.path) if dataset else StoredDataset(dataset_uri, dataset_digest)
        with open_dataset(place, files=own_vector_files(config)) as source:
            run(
                dataset=source,
                params=config,
                cache=Path(cache),
                features_out=Path(features_out.path),
                shards=[Path(shard.path) for shard in shards or ()],
                uri=features_out.uri,
            )


def build_label_graph(*, dataset: Input[Dataset], params: str, label_graph_out: Output[Artifact]) -> None:
    """Count which labels occur together, and make the graph of labels."""
    from pathlib import Path

    from components.params import load_section
    from components.steps.build_label_graph import run
    from dagnn_core.config.label_graph import LabelGraphConfig
    from pipeline.task import task

    with task("build_label_graph"):
        run(
            dataset=Path(dataset.path),
            params=load_section(params, LabelGraphConfig),
            label_graph_out=Path(label_graph_out.path),
            uri=label_graph_out.uri,
        )


def train(
    *,
    features: Input[Artifact],
    label_graph: Input[Artifact],
    model_params: str,
    params: str,
    seed: str,
    work: str,
    checkpoints_uri: str,
    model_out: Output[Model],
    val_metrics: Output[Metrics],
) -> None:
    """Train the model, selected on the validation split: here, or in the pods of a TrainJob that this task follows."""
    import json
    import os
    from dataclasses import replace
    from pathlib import Path

    from components.params import load_section
    from components.services.tracking.mlflow import Tracking
    from components.steps.train import run
    from dagnn_core.config.model import ModelConfig
    from dagnn_core.config.train import TrainConfig
    from pipeline.task import seed_of, task
    from pipeline.trainer.job import train_on_nodes
    from pipeline.trainer.manifests import TEMPLATE

    with task("train"):
        config = load_section(params, TrainConfig)
        training = {
            "features": Path(features.path),
            "label_graph": Path(label_graph.path),
            "model_params": load_section(model_params, ModelConfig),
            "params": replace(config, seed=seed_of(seed, config.seed)),
            "model_out": Path(model_out.path),
            "checkpoints_uri": checkpoints_uri,
            "uri": model_out.uri,
        }
        if TEMPLATE in os.environ:
            train_on_nodes(**training)
        else:
            run(**training, tracking=Tracking.from_environment(), work=Path(work))
        val_metrics.metadata.update(json.loads(Path(model_out.path, "val_metrics.json").read_text()))


def tune(
    *,
    features: Input[Artifact],
    label_graph: Input[Artifact],
    space: str,
    label_graph_params: str,
    model_params: str,
    params: str,
    name: str,
    worker: str,
    work: str,
    search_out: Output[Artifact],
    val_metrics: Output[Metrics],
    page: Output[HTML],
    dataset: Input[Dataset] = None,  # kfp's way to say that it may be missing
) -> None:
    """Work at a search, beside other workers that share its storage."""
    import logging
    import os
    import shutil
    from pathlib import Path

    from components.params import load_section
    from components.services.tracking.mlflow import Tracking
    from components.space_file import read_space
    from components.steps.tune import run
    from dagnn_core.config.label_graph import LabelGraphConfig
    from dagnn_core.config.model import ModelConfig
    from dagnn_core.config.train import TrainConfig
    from pipeline.task import task

    with task("tune"):
        logging.getLogger("components.steps.tune").info("worker %s", worker)
        search = run(
            features=Path(features.path),
            label_graph=Path(label_graph.path),
            dataset=Path(dataset.path) if dataset else None,
            space=read_space(space),
            base={
                "label_graph": load_section(label_graph_params, LabelGraphConfig),
                "model": load_section(model_params, ModelConfig),
                "train": load_section(params, TrainConfig),
            },
            name=name,
            storage=os.environ["DAGNN_TUNE_STORAGE"],
            tracking=Tracking.from_environment(),
            work=Path(work),
            search_out=Path(search_out.path),
        )
        if search.best:
            val_metrics.metadata.update({"val_map_mean": search.best.val_map, "trial": search.best.number})
        shutil.copyfile(Path(search_out.path, "tuning.html"), page.path)


def select_model(*, models: Input[List[Model]], model_out: Output[Model]) -> None:  # noqa: UP006
    """Take the best model on the validation split."""
    from pathlib import Path

    from components.steps.select_model import run
    from pipeline.task import task

    with task("select_model"):
        run(models=[Path(model.path) for model in models], model_out=Path(model_out.path))


def evaluate(
    *,
    dataset: Input[Dataset],
    features: Input[Artifact],
    model: Input[Model],
    params: str,
    report_out: Output[Artifact],
    metrics: Output[Metrics],
    report_html: Output[HTML],
) -> None:
    """Measure the model on the test split, and write the report."""
    import json
    import shutil
    from pathlib import Path

    from components.params import load_section
    from components.services.tracking.mlflow import Tracking
    from components.steps.evaluate import run
    from dagnn_core.config.evaluate import EvaluateConfig
    from pipeline.task import task

    with task("evaluate"):
        run(
            dataset=Path(dataset.path),
            features=Path(features.path),
            model=Path(model.path),
            params=load_section(params, EvaluateConfig),
            tracking=Tracking.from_environment(),
            report_out=Path(report_out.path),
            uri=report_out.uri,
        )
        metrics.metadata.update(json.loads(Path(report_out.path, "metrics.json").read_text()))
        shutil.copyfile(Path(report_out.path, "report.html"), report_html.path)


def compare(
    *,
    dataset: Input[Dataset],
    model: Input[Model],
    champion_dataset: Input[Dataset],
    params: str,
    model_name: str,
) -> None:
    """Measure the model beside the champion, on the test splits of both data sets."""
    from dataclasses import replace
    from pathlib import Path

    from components.params import load_section
    from components.services.tracking.mlflow import Tracking
    from components.steps.compare import run
    from dagnn_core.config.register import RegisterConfig
    from pipeline.task import task

    with task("compare"):
        config = load_section(params, RegisterConfig)
        run(
            dataset=Path(dataset.path),
            model=Path(model.path),
            champion_dataset=Path(champion_dataset.path),
            params=replace(config, model_name=model_name or config.model_name),
            tracking=Tracking.from_environment(),
        )


def register(
    *,
    model: Input[Model],
    report: Input[Artifact],
    params: str,
    model_name: str,
) -> NamedTuple("RegisteredVersion", [("name", str), ("version", str)]):  # type: ignore[valid-type]  # kfp's way
    """Register the model as the challenger."""
    from dataclasses import replace
    from pathlib import Path

    from components.params import load_section
    from components.services.tracking.mlflow import Tracking
    from components.steps.register import run
    from dagnn_core.config.register import RegisterConfig
    from pipeline.task import task

    with task("register"):
        config = load_section(params, RegisterConfig)
        return run(
            model=Path(model.path),
            report=Path(report.path),
            params=replace(config, model_name=model_name or config.model_name),
            tracking=Tracking.from_environment(),
        )


def promote(
    *,
    name: str,
    version: str,
    dataset: Input[Dataset],
    params: str,
    reason: str = "",
    adopt: str = "",
) -> NamedTuple("Promotion", [("accepted", bool), ("reason", str)]):  # type: ignore[valid-type]  # kfp's way
    """Make the challenger champion, unless the gate refuses it, which is no failure of the run."""
    import logging
    import os
    from pathlib import Path

    from components.params import load_section
    from components.services.notification import Webhook
    from components.services.tracking.mlflow import Tracking
    from components.steps.promote import run
    from dagnn_core.config.register import RegisterConfig
    from pipeline.task import task

    with task("promote"):
        tracking = Tracking.from_environment()
        pipeline_run = f"pipeline run {os.environ.get('DAGNN_PIPELINE_RUN', 'without id')}"
        decision = run(
            name=name,
            version=version,
            params=load_section(params, RegisterConfig),
            dataset=Path(dataset.path),
            why="; ".join(filter(None, (reason, pipeline_run))),
            adopt=bool(adopt),
            tracking=tracking,
            webhook=Webhook.from_environment(patience=tracking.patience),
        ).decision
        verdict = "is champion" if decision.accepted else "is not promoted"
        logging.getLogger("components.steps.promote").info(
            "%s version %s %s: %s", name, version, verdict, decision.reason
        )
    return (decision.accepted, decision.reason)


def record_outcome(*, last_task: str, status: PipelineTaskFinalStatus) -> None:
    """Record how the run ended, whatever happened before."""
    import os

    from components.services.notification import Webhook
    from components.services.tracking.mlflow import Tracking
    from components.steps.record_outcome import run
    from pipeline.outcome import Outcome, RunServer, find_outcome
    from pipeline.task import task
    from pipeline.trainer.job import end_trainings
    from pipeline.trainer.manifests import NODES

    with task("record_outcome"):
        pipeline_run, url = (os.environ.get(name, "") for name in ("DAGNN_PIPELINE_RUN", "DAGNN_KUBEFLOW_URL"))
        if NODES in os.environ:
            end_trainings(pipeline_run)
        tracking = Tracking.from_environment()
        outcome = find_outcome(
            pipeline_run,
            last_task=last_task,
            said=Outcome(status.state, status.error_message or ""),
            server=RunServer(url=url) if url else None,
            tracking=tracking,
        )
        run(
            pipeline_run=pipeline_run,
            state=outcome.state,
            error=outcome.error,
            webhook=Webhook.from_environment(patience=tracking.patience),
            tracking=tracking,
        )


def build_steps(images: Images) -> dict[str, Callable[..., dsl.PipelineTask]]:
    """The tasks by name, to run in `images`, which hold the project with all it needs (nothing is installed in a pod).

    Args:
        images: references of the container images, by digest.
    """
    return {
        name: dsl.component(globals()[name], base_image=images.of(name), install_kfp_package=False) for name in STEPS
    }
