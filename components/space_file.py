"""Read a search space, from a YAML file or from JSON text."""

import json
from pathlib import Path

from components.params import located
from dagnn_core.config.space import Space, parse_space
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
