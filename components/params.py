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
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {one_line(error, MAX_YAML)}") from error


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
        except json.JSONDecodeError as error:
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
