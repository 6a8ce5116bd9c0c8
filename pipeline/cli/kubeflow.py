"""`dagnn run`, `dagnn compile`, `dagnn images`: the pipeline on this machine, for a cluster, and its images."""

from pathlib import Path
from typing import Annotated

import typer

ParamsFile = Annotated[Path, typer.Option("--params", help="configuration, all sections")]


def run(
    params: ParamsFile = Path("params.yaml"),
    work: Annotated[Path, typer.Option(help="folder for the runs: artifacts and logs")] = Path(".dagnn/runs"),
    docker: Annotated[
        bool, typer.Option("--docker", help="run in containers of the images that `make images` built")
    ] = False,
    memory: Annotated[str | None, typer.Option(help="limit of each container, as 4g")] = None,
) -> None:
    """Run the Kubeflow pipeline in local processes, or in containers."""
    from components.params import load_params
    from components.services.tracking import Tracking
    from dagnn_core.errors import InputError
    from pipeline.images import read_images
    from pipeline.local import run_locally

    if memory and not docker:
        raise InputError("--memory limits containers; add --docker, or leave it out")
    sections = load_params(params)
    images = read_images() if docker else None
    tracking = Tracking.from_environment()
    if docker and not tracking.uri.startswith(("http://", "https://")):
        raise InputError(
            f"a container cannot use {tracking.address}, expected a server in MLFLOW_TRACKING_URI; "
            "`docker compose --file infra/compose.yaml up --detach` starts one"
        )
    _ = tracking.client  # a server that does not answer stops the run before any work
    outputs = run_locally(params=sections, root=work, images=images, memory=memory)
    typer.echo(f"model   {outputs.model.path}")
    typer.echo(f"report  {Path(outputs.report.path, 'report.html')}")
    typer.echo(f"version {outputs.name} {outputs.version}")


def compile_pipeline(
    out: Annotated[Path, typer.Argument(metavar="OUT.yaml")] = Path("build/pipeline.yaml"),
    image: Annotated[
        str | None, typer.Option(help="NAME@sha256:..., for all tasks  [default: those in infra/images.json]")
    ] = None,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Compile the Kubeflow pipeline to a YAML file.

    The sections of `params.yaml` become the defaults of its parameters.
    """
    from kfp.compiler import Compiler

    from components.params import load_params
    from dagnn_core.errors import InputError
    from pipeline.graph import build_pipeline
    from pipeline.images import Images, pullable, read_images

    if out.suffix not in (".yaml", ".yml"):
        raise InputError(f"{out}: a compiled pipeline is a YAML file, expected a name that ends in .yaml")
    sections = load_params(params)
    images = Images(tasks=image, train=image) if image else read_images()
    pipeline = build_pipeline(images=pullable(images), params=sections)
    out.parent.mkdir(parents=True, exist_ok=True)
    Compiler().compile(pipeline, package_path=str(out))
    typer.echo(f"wrote {out}")


def images(
    options: Annotated[
        list[str] | None, typer.Argument(metavar="-- [DOCKER BUILD OPTIONS]...", help="as --network host")
    ] = None,
    registry: Annotated[str | None, typer.Option(help="push there, as registry.example/team")] = None,
    targets: Annotated[list[str], typer.Option("--target", help="once for each")] = ["cpu", "gpu", "mlflow"],  # noqa: B006
) -> None:
    """Build the container images of the commit that is checked out.

    Their digests go to `infra/images.json`, which `dagnn run --docker` and `dagnn compile` read.
    """
    from pipeline.images import IMAGES_FILE, build_images

    built = build_images(targets=targets, registry=registry, options=options or [], out=IMAGES_FILE)
    for target, reference in built.items():
        typer.echo(f"{target} {reference}")
