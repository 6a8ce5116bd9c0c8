"""Every section of a whole `params.yaml`; a step reads its own alone, with `components.params`."""

from pathlib import Path
from typing import Any

from components.params import located
from dagnn_core.config.sections import parse_params


def load_params(path: Path) -> dict[str, Any]:
    """Every section of a whole `params.yaml`.

    Raises:
        InputError: an unknown key or a bad value, named by file and dotted path.
    """
    return located(path, parse_params)
