"""Tokens and cookies for a Kubeflow server: from a file or from the environment, never from a command line."""

import os
from collections.abc import Callable
from pathlib import Path

from dagnn_core.errors import InputError


def read_secret(option: str, file: Path | None, variable: str) -> Callable[[], str] | None:
    """How to get a token or cookies: from a file, else from the environment; None where neither is given.

    Args:
        option: the option that names the file, for messages.
        file: with the secret alone in it.
        variable: of the environment.

    Raises:
        InputError: the file cannot be read or is empty. What was given is not repeated: it may be the secret itself.
    """
    if file is None:
        value = os.environ.get(variable, "").strip()
        return (lambda: value) if value else None

    def read() -> str:
        try:
            secret = file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            secret = ""
        if not secret or "\n" in secret:
            raise InputError(
                f"{option} names no file with one line of text, expected the secret alone in it",
                f"a secret itself goes into {variable}, never onto a command line",
            )
        return secret

    read()
    return read
