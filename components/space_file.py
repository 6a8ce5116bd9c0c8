"""Read a search space, from a YAML file or from JSON text."""

import json
from dataclasses import replace
from pathlib import Path

from components.params import located, read_yaml
from dagnn_core.config.section import sections_of
from dagnn_core.config.space import Sections, Space, parse_space
from dagnn_core.errors import InputError


def read_space(source: str | Path) -> Space:
    """A search space, from the path of a YAML file or from JSON text.

    Raises:
        InputError: the file is missing, is not YAML, or is no search space; the message names file and key.
    """
    if isinstance(source, str) and source.lstrip().startswith("{"):
        try:
            values = json.loads(source)
        except ValueError as error:
            raise InputError(f"the search space is not valid JSON: {error}") from error
        return parse_space(values)
    return located(Path(source), parse_space)


def read_base(params: Path, space: Space, path: Path) -> Sections:
    """The sections of a `params.yaml` with the values that a space fixes: what the trials have in common.

    Args:
        params: the `params.yaml`.
        space: the space.
        path: its file.

    Raises:
        InputError: a file is missing or wrong, or the two do not go together; the message names the one at fault.
    """
    located(params, lambda values: replace(space, fixed={}).over(sections_of(values)))
    return located(path, lambda _: space.over(read_yaml(params)))
