"""The state of a fitted encoder: `encoder.json` in a directory of its own, beside `.npy` files where it has vectors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dagnn_core.artifacts import write_json
from dagnn_core.errors import ArtifactError
from dagnn_core.records import parse_json

STATE = "encoder.json"


def write_state(directory: Path, state: Mapping[str, Any]) -> None:
    """Write `encoder.json`."""
    write_json(directory / STATE, dict(state))


def read_state(directory: Path) -> dict[str, Any]:
    """Read `encoder.json`.

    Raises:
        ArtifactError: it is missing, or not a JSON object with a `kind`.
    """
    path = directory / STATE
    try:
        state = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path} cannot be read ({error}), expected the state of an encoder", "rebuild it"
        ) from error
    if not isinstance(state, dict) or not isinstance(state.get("kind"), str):
        raise ArtifactError(f"{path} is damaged, expected a JSON object with the key 'kind'", "rebuild it")
    return state
