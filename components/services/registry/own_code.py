"""The code that a model names: encoders and network.

A module of the user's own is stored with the model, or its package required.
"""

import re
import shutil
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dagnn_core.config.features import IMAGE_ENCODERS, TEXT_ENCODERS
from dagnn_core.errors import InputError
from dagnn_core.model.kinds import kind_of
from dagnn_core.registry import IMPORT_PATH

if TYPE_CHECKING:
    from dagnn_core.model.embedder import TrainedModel

_HERE = "dagnn_core"  # its part that serves is stored with every model: see `served_code`


class OwnCode(NamedTuple):
    """What a model needs beside this library."""

    paths: list[Path]
    """Modules (a file) and packages (a folder) that are not installed."""
    requirements: list[str]
    """Installed packages, as `name==version`."""


def import_paths(model: "TrainedModel") -> dict[str, str]:
    """What names a part of the model -> import path of that part; the kinds of this library have no part of their own.

    Raises:
        InputError: there is no such kind of model.
    """
    image, text = model.image_encoder.kind, model.text_encoder.kind
    named = {
        "features.image": IMAGE_ENCODERS.get(image, image),
        "features.text": TEXT_ENCODERS.get(text, text),
        "model.kind": model.config.kind,
        "the network of model.kind": kind_of(model.config).network,
    }
    return {key: path for key, path in named.items() if IMPORT_PATH.fullmatch(path)}


def find_own_code(model: "TrainedModel") -> OwnCode:
    """The user's own encoders and kind of model, by the import paths that the model names.

    Raises:
        InputError: such a module is neither installed nor one that can be stored.
    """
    paths, requirements = set(), set()
    for key, path in import_paths(model).items():
        top = re.split(r"[.:]", path)[0]
        if top == _HERE:
            continue
        distributions = packages_distributions().get(top)
        if distributions:
            requirements |= {f"{name}=={version(name)}" for name in distributions}
        else:
            paths.add(_source_of(top, f"{key}: {path}"))
    return OwnCode(sorted(paths), sorted(requirements))


def copy_code(source: Path, folder: Path) -> Path:
    """Copy a module, or the Python files of a package, into a folder; other files of a package stay where they are."""
    target = folder / source.name
    if source.is_dir():
        shutil.copytree(source, target, ignore=_all_but_python)
    else:
        folder.mkdir(exist_ok=True)
        shutil.copyfile(source, target)
    return target


def _all_but_python(folder: str, names: list[str]) -> list[str]:
    kept = [name for name in names if name.endswith(".py") or (name.isidentifier() and Path(folder, name).is_dir())]
    return [name for name in names if name not in kept or name == "__pycache__"]


def _source_of(top: str, what: str) -> Path:
    """The file of a module, or the folder of a package."""
    spec = find_spec(top)
    origin = Path(spec.origin) if spec and spec.has_location and spec.origin else None
    if origin is None or origin.suffix != ".py":
        raise InputError(
            f"{what} cannot be stored with the model, expected a module in a file of its own, a package with "
            f"__init__.py, or an installed package",
            f"give {top} one of these forms",
        )
    return origin.parent if origin.name == "__init__.py" else origin
