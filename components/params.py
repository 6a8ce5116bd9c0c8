"""Load sections of the configuration from `params.yaml` or from JSON text."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from dagnn_core.config.section import parse_section, sections_of
from dagnn_core.errors import InputError
from dagnn_core.text import one_line

MAX_VALUES = 100_000
MAX_DEPTH = 64
MAX_YAML = 1000  # characters of a mistake in YAML; its place comes last

T = TypeVar("T")


def read_yaml(path: Path) -> Any:
    """Plain values of a YAML file (YAML 1.2, as DVC reads it: `5e-5` is a number).

    Raises:
        InputError: the file is missing, or not valid YAML.
    """
    if not path.is_file():
        remedy = "`dagnn params use demo` writes params.yaml" if path.name == "params.yaml" else "check its path"
        raise InputError(f"{path} does not exist, expected a YAML file", remedy)
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        _check_bounds(values)
    except RecursionError as error:
        raise InputError(f"{path} is nested too deep, expected YAML of a few levels", "correct it") from error
    except (YAMLError, ValueError, TypeError, AttributeError) as error:  # the last three of numbers, dates and tags
        raise InputError(f"{path} is not valid YAML: {one_line(error, MAX_YAML)}") from error
    return values


def _check_bounds(values: Any) -> None:
    """Check that values have a size and depth that people write: a few lines of YAML can stand for billions."""
    waiting, count = [(values, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if depth > MAX_DEPTH or count > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES:,} values or {MAX_DEPTH} levels, with all its anchors expanded")
        if isinstance(value, int) and abs(value) >= 1 << 64:
            raise ValueError("a whole number of more than 64 bits")
        if isinstance(value, dict):
            waiting += [(entry, depth + 1) for pair in value.items() for entry in pair]
        elif isinstance(value, list | tuple | set):
            waiting += [(entry, depth + 1) for entry in value]


def load_spec(path: Path, section: type[T]) -> T:
    """A YAML file that holds the keys of one dataclass.

    Raises:
        InputError: an unknown key or a bad value, named by file and key.
    """
    return located(path, lambda values: parse_section(section, values, path.stem))


def load_section(source: str | Path, section: type[T]) -> T:
    """One section, from the path of a `params.yaml` or from the section's JSON text; the others are not looked at.

    Raises:
        InputError: an unknown key or a bad value, named by its dotted path.
    """
    name: str = section.NAME  # type: ignore[attr-defined]
    if str(source).lstrip().startswith("{"):
        try:
            values = json.loads(str(source))
            _check_bounds(values)
        except (ValueError, RecursionError) as error:
            raise InputError(f"parameters of {name} are not valid JSON: {error}") from error
        return parse_section(section, values, name)
    return located(Path(source), lambda values: parse_section(section, sections_of(values).get(name, {}), name))


def located(path: Path, parse: Callable[[Any], T]) -> T:
    """What a YAML file holds, parsed; a mistake names the file.

    Raises:
        InputError: the file is missing, is not YAML, or `parse` refuses it.
    """
    values = read_yaml(path)
    try:
        return parse(values)
    except InputError as error:
        raise InputError(f"{path}: {error}", "correct it there") from error
