"""`dagnn targets`: what a target asks a cluster for."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dagnn_core.text import cell

if TYPE_CHECKING:
    from pipeline.notation import SecretKey
    from pipeline.target import Target

app = typer.Typer(no_args_is_help=True)

SIZES = ("light", "heavy", "train")


@app.callback()
def targets() -> None:
    """Look at the clusters that pipelines are compiled for."""


@app.command()
def check(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="a file in configs/clusters, or the path of one")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Check a target, and print what its tasks will ask for.

    No server is asked: `dagnn doctor --target TARGET` looks for what the target names.
    """
    from pipeline.target import read_target

    cluster = read_target(target)
    sizes, common = {size: _size(size, cluster) for size in SIZES}, _common(cluster)
    if as_json:
        typer.echo(json.dumps({"target": target, **common, "sizes": sizes}))
        return
    shown = [key for key in sizes["light"] if key not in ("tasks", "env", "secret_env")]
    rows = [["", *SIZES], *([key, *(_words(sizes[size][key]) for size in SIZES)] for key in shown)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(SIZES))]
    for row in rows:
        *texts, last = row
        typer.echo(cell("".join(f"{text:{width + 3}}" for text, width in zip(texts, widths, strict=True)) + last))
    typer.echo()
    common |= {f"{size} tasks": sizes[size]["tasks"] for size in SIZES}
    for key, value in common.items():
        typer.echo(cell(f"{key:{max(map(len, common))}}   {_words(value)}"))


def _size(size: str, target: "Target") -> dict[str, Any]:
    """What the pods of a size ask for; variables are those that any of them gets."""
    from pipeline.pods import WRITABLE, pod_request
    from pipeline.step_table import STEPS

    requests = {name: pod_request(name, target) for name, step in STEPS.items() if step.size == size}
    request = next(iter(requests.values()))
    resources = request.resources
    return {
        "tasks": list(requests),
        "pods": target.train.nodes if size == "train" else 1,
        "cpu": {"request": resources.cpu_request, "limit": resources.cpu_limit},
        "memory": {"request": resources.memory_request, "limit": resources.memory_limit},
        "gpus": {request.gpus[0]: request.gpus[1]} if request.gpus else {},
        "nodes": dict(request.node_selector),
        "tolerations": [str(toleration) for toleration in request.tolerations],
        "seconds": request.seconds,
        "/dev/shm": request.shared_memory,  # noqa: S108  # a name
        WRITABLE: " ".join(filter(None, (request.scratch.size, request.scratch.storage_class))),
        "env": {name: value for each in requests.values() for name, value in each.env.items()},
        "secret_env": _references(
            {name: entry for each in requests.values() for name, entry in each.secret_env.items()}
        ),
    }


def _common(target: "Target") -> dict[str, Any]:
    """What is the same for all tasks, or for the run."""
    from pipeline.notation import read_secret_variables
    from pipeline.target import plugins_input

    ca = target.ca_config_map
    return {
        "namespace": target.namespace,
        "image_pull_secrets": list(target.image_pull_secrets),
        "pod_labels": list(target.pod_labels),
        "pod_annotations": list(target.pod_annotations),
        "env": list(target.env),
        "secret_env": _references(read_secret_variables(target.secret_env, "secret_env")),
        "ca_config_map": f"{ca.name}/{ca.key}" if ca.name else "",
        "pipeline_root": target.pipeline_root,
        "kubeflow_mlflow": plugins_input(target)["mlflow"],
    }


def _references(env: "Mapping[str, SecretKey]") -> list[str]:
    """Variables, and where they are from, in words that are not taken for secrets themselves."""
    return [f"{name} from {entry.secret}/{entry.key}" for name, entry in env.items()]


def _words(value: object) -> str:
    """A value for readers."""
    if isinstance(value, Mapping):
        value = [f"{key}={_words(entry)}" for key, entry in value.items()]
    return ", ".join(map(str, value)) or "-" if isinstance(value, list) else str(value) or "-"
