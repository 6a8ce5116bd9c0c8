"""`dagnn lineage`: where a version of a registered model comes from, and how to rebuild it."""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dagnn_core.config.register import RegisterConfig
from dagnn_core.errors import CheckFailedError, InputError
from dagnn_core.text import cell

if TYPE_CHECKING:
    from components.services.lineage.reproduce import ReproducedValue
    from components.services.lineage.tree import Node

DIGITS = 12  # of a digest, for readers; --json has all of them


def lineage(
    version: Annotated[
        str | None,
        typer.Argument(help="NAME (its champion), NAME@ALIAS or NAME/VERSION; default: register.model_name"),
    ] = None,
    *,
    reproduce: Annotated[bool, typer.Option("--reproduce", help="print the commands that rebuild it")] = False,
    show_params: Annotated[bool, typer.Option("--show-params", help="print the params.yaml that made it")] = False,
    compare: Annotated[Path | None, typer.Option(help="compare it with these artifacts, which were rebuilt")] = None,
    params: Annotated[str, typer.Option(help="params.yaml, or the section `register` as JSON")] = "params.yaml",
    as_json: Annotated[bool, typer.Option("--json", help="print the tree, or the comparison, as JSON")] = False,
) -> None:
    """Show what a registered version was made from, back to the raw data, and what of it can still be had.

    Exit status 1 when something is missing, or when rebuilt artifacts are not the same.
    """
    from components.params import load_section
    from components.services.lineage.locate import ArtifactLocator
    from components.services.lineage.reproduce import commands, recorded_params
    from components.services.lineage.reproduce import compare as compare_artifacts
    from components.services.lineage.tree import find_raw, parse_reference, read_recorded, trace
    from components.services.tracking.mlflow import Tracking

    if sum((reproduce, show_params, compare is not None)) > 1:
        raise InputError("--reproduce, --show-params and --compare exclude each other", "give one of them")
    reference = parse_reference(version or load_section(params, RegisterConfig).model_name)
    tracking = Tracking.from_environment()
    recorded = read_recorded(tracking, reference)
    if show_params:
        _print_yaml(recorded_params(recorded))
    elif reproduce:
        for line in commands(recorded, find_raw(recorded, ArtifactLocator(Path()))):
            print(line)
    elif compare is not None:
        _print_comparison(compare_artifacts(recorded, compare), compare, as_json=as_json)
    else:
        _print_tree(trace(tracking, recorded, ArtifactLocator(Path())), as_json=as_json)


def render(node: "Node", first: str = "", rest: str = "") -> Iterator[str]:
    """Lines of a tree.

    Args:
        node: its root.
        first: what stands before the root's line.
        rest: what stands before the lines below it.
    """
    state = str(node.state)
    shown = state.upper() if state == "missing" else state
    yield first + cell(f"{node.kind} {_short(node.identity)}: {shown}" + (f", {node.reason}" if node.reason else ""))
    if node.details:
        details = "; ".join(f"{name} {_short(value)}" for name, value in node.details.items())
        yield f"{rest}{'│' if node.children else ' '}  {cell(details)}"
    for number, child in enumerate(node.children, start=1):
        is_last = number == len(node.children)
        yield from render(child, f"{rest}{'└' if is_last else '├'}─ ", f"{rest}{' ' if is_last else '│'}  ")


def _print_tree(node: "Node", *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(node), ensure_ascii=False, indent=2))
    else:
        for line in render(node):
            print(line)
    missing = [part.kind for part in _nodes(node) if part.state == "missing"]
    if missing:
        raise CheckFailedError(f"{node.identity}: missing: {', '.join(missing)}")


def _print_comparison(rows: "Sequence[ReproducedValue]", artifacts: Path, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([row._asdict() | {"same": row.same} for row in rows], indent=2))
    else:
        print(f"{'':<12}{'recorded':<24}{artifacts!s:<24}")
        for row in rows:
            verdict = "the same" if row.same else "DIFFERS"
            print(cell(f"{row.name:<12}{_short(row.recorded):<24}{_short(row.found) or '-':<24}{verdict}"))
    others = [row.name for row in rows if not row.same]
    if others:
        raise CheckFailedError(f"{artifacts} is not the same: {', '.join(others)}")


def _print_yaml(sections: dict[str, Any]) -> None:
    from ruamel.yaml import YAML

    YAML().dump(sections, sys.stdout)


def _nodes(node: "Node") -> Iterator["Node"]:
    yield node
    for child in node.children:
        yield from _nodes(child)


def _short(text: str) -> str:
    if re.fullmatch(r"0\.\d{5,}", text):
        return f"{float(text):.4f}"
    return text[:DIGITS] if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", text) else text
