"""Implementations found by name: a table names those of the package, an import path a user's own.

The tables are in `dagnn_core.config`, beside the keys that choose from them. They hold texts, so that nothing is
imported before it is used.
"""

import importlib
import re
from collections.abc import Mapping
from typing import Any

from dagnn_core.errors import InputError

IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def find(table: Mapping[str, str], name: str, key: str) -> Any:
    """The implementation of a name, imported now.

    Args:
        table: name -> `package.module:attribute`.
        name: one of the table's, or itself an import path.
        key: dotted path of the configuration key that has the name, for messages.

    Raises:
        InputError: there is no such implementation.
    """
    path = table.get(name, name)
    try:
        return load(path, key)
    except InputError as error:
        missing = error.__cause__
        if name in table and isinstance(missing, ModuleNotFoundError) and path.startswith(str(missing.name)):
            raise InputError(
                f"{key}: {name} is not in this installation ({missing})", "run it in a git checkout of the project"
            ) from error
        raise


def load(path: str, key: str) -> Any:
    """Import `package.module:attribute`.

    Raises:
        InputError: it cannot be imported.
    """
    if not IMPORT_PATH.fullmatch(path):
        raise InputError(f"{key} is {path!r}, expected an import path as package.module:name", "correct it")
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{key}: {path} cannot be imported ({error})", "install its package, or put its folder on PYTHONPATH"
        ) from error
