"""What the processes of a training on several nodes run: `torchrun -m pipeline.trainer.node`, in pods of a TrainJob.

Its lines are those of the task `train`, which shows them and takes a failure from them.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from components.command import terminated_like_interrupted
from components.locations import WORK
from components.params import load_section
from components.services.tracking.mlflow import Tracking
from components.steps.train import run
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.train import TrainConfig
from dagnn_core.devices import choose_device
from dagnn_core.parallel import is_main, joined_processes
from pipeline.task import task


def main(
    *,
    features: Annotated[Path, typer.Option(help="features artifact")],
    label_graph: Annotated[Path, typer.Option(help="label graph artifact of the same data set")],
    model_params: Annotated[str, typer.Option(help="the section `model`, as JSON")],
    params: Annotated[str, typer.Option(help="the section `train`, as JSON")],
    checkpoints_uri: Annotated[str, typer.Option(help="s3://bucket/prefix that keeps the checkpoints")],
    model_uri: Annotated[str, typer.Option(help="s3://bucket/prefix that gets the model")],
    uri: Annotated[str, typer.Option(help="where the pipeline run stores the model, for the record")],
    scratch: Annotated[Path, typer.Option(help="folder for unfinished work and the model")],
) -> None:
    """Train with the processes of all nodes; the first of them stores the model."""
    with task("train"), terminated_like_interrupted(), _quiet_interruption():
        config = load_section(params, TrainConfig)
        with joined_processes(choose_device(config.device, key="train.device")):
            if not is_main():
                logging.disable(logging.INFO)
            run(
                features=features,
                label_graph=label_graph,
                model_params=load_section(model_params, ModelConfig),
                params=config,
                tracking=Tracking.from_environment(),
                work=scratch / WORK.name,
                model_out=scratch / "model",
                checkpoints_uri=checkpoints_uri,
                model_uri=model_uri,
                uri=uri,
            )


@contextmanager
def _quiet_interruption() -> Iterator[None]:
    """End with the status of SIGTERM and without a traceback, where the pod shall end or another process has ended."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(143)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    app()
