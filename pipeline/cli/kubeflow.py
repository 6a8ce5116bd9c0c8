"""`dagnn run`, `dagnn compile`, `dagnn images`: the pipeline on this machine, for a cluster, and its images."""

from pathlib import Path
from typing import Annotated

import typer

from components.locations import RUNS

ParamsFile = Annotated[Path, typer.Option("--params", help="configuration, all sections")]
Seeds = Annotated[
    list[int] | None,
    typer.Option("--seed", help="instead of train.seed; with several, the best model on val is registered"),
]
Nodes = Annotated[
    int | None,
    typer.Option(help="pods that train together, by Kubeflow Trainer  [default: train.nodes of the target]"),
]
Image = Annotated[
    str | None, typer.Option(help="NAME@sha256:..., for all tasks  [default: those in infra/images.json]")
]
Promote = Annotated[bool, typer.Option("--promote", help="end with the promotion, if the gate lets it pass")]


def run(
    *,
    params: ParamsFile = Path("params.yaml"),
    work: Annotated[Path, typer.Option(help="folder for the runs: artifacts and logs")] = RUNS,
    docker: Annotated[
        bool, typer.Option("--docker", help="run in containers of the images that `make images` built")
    ] = False,
    memory: Annotated[str | None, typer.Option(help="limit of each container, as 4g")] = None,
    seeds: Seeds = None,
    promote: Promote = False,
) -> None:
    """Run the Kubeflow pipeline in local processes, or in containers."""
    from components.services.notification import Webhook, failure_notified
    from components.services.tracking.mlflow import Tracking
    from dagnn_core.errors import InputError
    from pipeline.graph import PipelineOptions
    from pipeline.images import read_images
    from pipeline.local import run_locally
    from pipeline.placeholders import load_parameters

    if memory and not docker:
        raise InputError("--memory limits containers", "add --docker, or leave it out")
    sections = load_parameters(params, cluster=False)
    images = read_images() if docker else None
    tracking = Tracking.from_environment()
    if docker and not tracking.uri.startswith(("http://", "https://")):
        raise InputError(
            f"a container cannot use {tracking.address}, expected a server in MLFLOW_TRACKING_URI",
            "`docker compose --file infra/compose.yaml up --detach` starts one",
        )
    _ = tracking.client  # a server that does not answer stops the run before any work
    options = PipelineOptions(seeds=tuple(seeds or ()), promote=promote)
    with failure_notified(Webhook.from_environment(), "dagnn run"):
        outputs = run_locally(params=sections, root=work, images=images, memory=memory, options=options)
    typer.echo(f"model   {outputs.model.path}")
    typer.echo(f"report  {Path(outputs.report.path, 'report.html')}")
    typer.echo(f"version {outputs.name} {outputs.version}")


def compile_pipeline(
    out: Annotated[Path, typer.Argument(metavar="OUT.yaml")] = Path("build/pipeline.yaml"),
    *,
    image: Image = None,
    params: ParamsFile = Path("params.yaml"),
    target: Annotated[str, typer.Option(help="cluster: a file in configs/clusters, or the path of one")] = "kind",
    data: Annotated[
        str, typer.Option(help="raw data to fetch: a path under DVC in this project, or s3://bucket/prefix")
    ] = "",
    revision: Annotated[str, typer.Option(help="branch, tag or commit of --data")] = "HEAD",
    nodes: Nodes = None,
    seeds: Seeds = None,
    promote: Promote = False,
    kubernetes_native: Annotated[
        bool, typer.Option("--kubernetes-native", help="manifests for kubectl apply, not a file to upload")
    ] = False,
) -> None:
    """Compile the Kubeflow pipeline for a cluster to a YAML file.

    The sections of `params.yaml` become the defaults of its parameters.
    """
    from pipeline.compiling import write_pipeline
    from pipeline.graph import PipelineOptions
    from pipeline.images import Images, read_images
    from pipeline.placeholders import load_parameters, refuse_placeholders
    from pipeline.raw_data import find_raw_data
    from pipeline.target import read_target, with_nodes

    refuse_placeholders({"--image": image, "--data": data, "--revision": revision})
    sections = load_parameters(params, cluster=True)
    cluster = with_nodes(read_target(target), nodes)
    raw = find_raw_data(data, target=cluster, revision=revision) if data else None
    write_pipeline(
        out,
        images=Images(tasks=image, train=image) if image else read_images(),
        params=sections,
        target=cluster,
        options=PipelineOptions(raw=raw, seeds=tuple(seeds or ()), promote=promote),
        kubernetes_native=kubernetes_native,
    )
    typer.echo(f"wrote {out}, for the cluster {target}")


def images(
    options: Annotated[
        list[str] | None, typer.Argument(metavar="-- [DOCKER BUILD OPTIONS]...", help="as --network host")
    ] = None,
    registry: Annotated[str | None, typer.Option(help="push there, as registry.example/team")] = None,
    targets: Annotated[list[str], typer.Option("--target", help="once for each")] = ["cpu", "gpu", "serve", "mlflow"],  # noqa: B006
) -> None:
    """Build the container images of the commit that is checked out, with BuildKit.

    Their digests go to `infra/images.json`, which `dagnn run --docker` and `dagnn compile` read.
    """
    from pipeline.images import IMAGES_FILE, build_images

    built = build_images(targets=targets, registry=registry, options=options or [], out=IMAGES_FILE)
    for target, reference in built.items():
        typer.echo(f"{target} {reference}")
