"""`dagnn run` and `dagnn compile`: the Kubeflow pipeline on this machine, and as a file for a cluster."""

from pathlib import Path
from typing import Annotated

import typer

ParamsFile = Annotated[Path, typer.Option("--params", help="configuration, all sections")]
Image = Annotated[str, typer.Option(help="container image of the steps, for a cluster by digest: name@sha256:...")]

LOCAL_IMAGE = "dagnn:local"


def run(
    params: ParamsFile = Path("params.yaml"),
    work: Annotated[Path, typer.Option(help="folder for the runs: artifacts and logs")] = Path(".dagnn/runs"),
) -> None:
    """Run the Kubeflow pipeline in local processes."""
    from components.params import load_params
    from components.services.tracking import Tracking
    from pipeline.local import run_locally

    sections = load_params(params)
    _ = Tracking.from_environment().client  # a server that does not answer stops the run before any work
    outputs = run_locally(image=LOCAL_IMAGE, params=sections, root=work)
    typer.echo(f"model   {outputs.model.path}")
    typer.echo(f"report  {Path(outputs.report.path, 'report.html')}")
    typer.echo(f"version {outputs.name} {outputs.version}")


def compile_pipeline(
    out: Annotated[Path, typer.Argument(metavar="OUT.yaml")] = Path("build/pipeline.yaml"),
    image: Image = LOCAL_IMAGE,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Compile the Kubeflow pipeline to a YAML file.

    The sections of `params.yaml` become the defaults of its parameters.
    """
    from kfp.compiler import Compiler

    from components.params import load_params
    from dagnn_core.errors import InputError
    from pipeline.graph import build_pipeline

    if out.suffix not in (".yaml", ".yml"):
        raise InputError(f"{out}: a compiled pipeline is a YAML file, expected a name that ends in .yaml")
    pipeline = build_pipeline(image=image, params=load_params(params))
    out.parent.mkdir(parents=True, exist_ok=True)
    Compiler().compile(pipeline, package_path=str(out))
    typer.echo(f"wrote {out}")
