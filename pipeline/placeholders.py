"""Texts that would not reach a task as they are, since Kubeflow Pipelines, Argo or Kubernetes replace parts of them."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.params_file import load_params
from dagnn_core.errors import InputError

# {{$.inputs...}} and {{channel:...}} of kfp, and what Argo knows, as {{workflow.name}} and {{=1 + 1}}
_PLACEHOLDER = re.compile(
    r"\{\{\s*(\$|channel:|=|(workflow|inputs|outputs|tasks|steps|pod|node|retries|item|lastRetry)\b)"
)
# there Argo fails on a {{name}} that it does not know, and Kubernetes makes $ of $$ and a variable's value of $(NAME)
_REPLACED_ON_CLUSTER = re.compile(r"\{\{|\$\$|\$\(")


def load_parameters(path: Path, *, cluster: bool) -> dict[str, Any]:
    """Every section of a `params.yaml` whose values are to be parameters of a pipeline.

    Args:
        path: of the file.
        cluster: whether the pipeline runs on one, where more is replaced.

    Raises:
        InputError: an unknown key, a bad value, or one that would be replaced, named by file and dotted path.
    """
    sections = load_params(path)
    refuse_placeholders({name: asdict(section) for name, section in sections.items()}, where=path, cluster=cluster)
    return sections


def refuse_placeholders(values: Mapping[str, Any], *, where: Path | None = None, cluster: bool = True) -> None:
    """Check that the tasks get texts as they are.

    Args:
        values: of a file or of options, by name; sections and lists among them.
        where: the file they are from; None: they are options.
        cluster: whether the pipeline runs on one, where more is replaced.

    Raises:
        InputError: a text would be replaced.
    """
    pattern = _REPLACED_ON_CLUSTER if cluster else _PLACEHOLDER
    for key, text in _texts(values):
        if found := pattern.search(text):
            place = f"{where}: {key}" if where else key
            raise InputError(
                f"{place} must not contain {found[0]!r}, got {text!r}: Kubeflow replaces it before a task reads it",
                "rename what it names",
            )


def _texts(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """All texts in a value, with their dotted paths."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _texts(part, f"{key}.{name}" if key else name)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part, key)
