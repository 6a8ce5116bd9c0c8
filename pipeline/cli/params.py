"""`dagnn params`: look at `params.yaml`, or replace it by one of the configurations in `configs/`."""

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

app = typer.Typer(help="Show the configuration, or replace it by a shipped one.", no_args_is_help=True)

PARAMS = Path("params.yaml")
CONFIGS = Path("configs")
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
    name: Annotated[str, typer.Argument(help="a file in configs/, without .yaml")],
    force: Annotated[bool, typer.Option("--force", help="replace edits of params.yaml without asking")] = False,
) -> None:
    """Copy configs/NAME.yaml to params.yaml; asks before it replaces edits of yours."""
    shipped = _shipped()
    if name not in shipped:
        raise InputError(f"{CONFIGS / name}.yaml is not a configuration, expected one of {', '.join(sorted(shipped))}")
    load_params(CONFIGS / f"{name}.yaml")
    is_edited = PARAMS.is_file() and PARAMS.read_bytes() not in shipped.values()
    if is_edited and not force:
        if not sys.stdin.isatty():
            raise InputError(f"{PARAMS} holds edits that no file in {CONFIGS}/ has; save them, or give --force")
        typer.confirm(f"{PARAMS} holds edits that no file in {CONFIGS}/ has. Replace it?", abort=True)
    temporary = PARAMS.with_suffix(".yaml.tmp")
    temporary.write_bytes(shipped[name])
    temporary.replace(PARAMS)
    typer.echo(f"{PARAMS} is now {CONFIGS / name}.yaml")


def _shipped() -> dict[str, bytes]:
    """What each configuration in `configs/` becomes as `params.yaml` (other files describe data sets)."""
    paths = [path for path in CONFIGS.glob("*.yaml") if set(read_yaml(path)) <= set(SECTIONS)]
    return {path.stem: path.read_bytes().replace(_FROM_CONFIGS, _FROM_PARAMS, 1) for path in paths}
