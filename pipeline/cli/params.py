"""`dagnn params`: look at `params.yaml`, or replace it by one of the shipped configurations, or of `configs/`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from ruamel.yaml import YAML

from components.params import read_yaml
from components.params_file import load_params
from dagnn_core.config.sections import SECTIONS, params_schema
from dagnn_core.errors import InputError
from pipeline.shipped import CONFIGS, find_configs

app = typer.Typer(help="Show the configuration, or replace it by a shipped one.", no_args_is_help=True)

PARAMS = Path("params.yaml")
_FROM_CONFIGS, _FROM_PARAMS = b"$schema=../params.schema.json", b"$schema=params.schema.json"


@app.command()
def show(
    params: Annotated[Path, typer.Option(help="configuration to show")] = PARAMS,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Print every section with every key, defaults included."""
    text = json.dumps({name: asdict(section) for name, section in load_params(params).items()}, indent=2)
    if as_json:
        typer.echo(text)
    else:
        YAML().dump(json.loads(text), sys.stdout)  # by way of JSON, since YAML has no tuples


@app.command()
def schema() -> None:
    """Print the JSON schema of `params.yaml`, for editors."""
    typer.echo(json.dumps(params_schema(), indent=2))


@app.command()
def use(
    name: Annotated[str, typer.Argument(help="a shipped configuration, or a file in configs/, without .yaml")],
    force: Annotated[bool, typer.Option("--force", help="replace edits of params.yaml without asking")] = False,
) -> None:
    """Copy a configuration to params.yaml; asks before it replaces edits of yours."""
    known = _configurations()
    if name not in known:
        raise InputError(f"{CONFIGS / name}.yaml is not a configuration, expected one of {', '.join(sorted(known))}")
    load_params(known[name])
    content = _as_params(known[name])
    is_edited = PARAMS.is_file() and PARAMS.read_bytes() not in map(_as_params, known.values())
    if is_edited and not force:
        if not sys.stdin.isatty():
            raise InputError(f"{PARAMS} holds edits that no configuration has; save them, or give --force")
        typer.confirm(f"{PARAMS} holds edits that no configuration has. Replace it?", abort=True)
    temporary = PARAMS.with_suffix(".yaml.tmp")
    temporary.write_bytes(content)
    temporary.replace(PARAMS)
    typer.echo(f"{PARAMS} is now the configuration {name}")


def _configurations() -> dict[str, Path]:
    """The files that hold sections of `params.yaml`; others describe data sets."""
    return {name: path for name, path in find_configs().items() if set(read_yaml(path)) <= set(SECTIONS)}


def _as_params(path: Path) -> bytes:
    """What a configuration becomes as `params.yaml`, which is one folder higher than its own."""
    return path.read_bytes().replace(_FROM_CONFIGS, _FROM_PARAMS, 1)
