"""The failures a user can cause or meet; each class carries the exit status of the command that meets it.

A message says what failed, what was got, what was expected, and the remedy, naming file, row or key.
"""

import re
from collections.abc import Sequence

NUM_NAMED = 3


class DagnnError(Exception):
    """Base of every failure that is reported as one line, without a traceback."""

    exit_status = 2


class CheckRefusedError(DagnnError):
    """A check said no: a model is worse than the champion, a validation failed. Exit status 1."""

    exit_status = 1


class InputError(DagnnError, ValueError):
    """Bad input or wrong usage: a file, a row, a configuration key. Exit status 2."""

    exit_status = 2


class ArtifactError(InputError):
    """An artifact is missing, incomplete, damaged, or of another schema version. Exit status 2."""


class SurroundingsError(DagnnError):
    """What the program stands on failed: a server, the disk, the network. Exit status 3."""

    exit_status = 3


def without_credentials(text: str) -> str:
    """A text, fit to be shown and recorded: its addresses have no user and password."""
    return re.sub(r"://[^/@\s]+@", "://", text)


def name_first(names: Sequence[str]) -> str:
    """The first few of many names, for a message, and how many more there are."""
    rest = len(names) - NUM_NAMED
    return ", ".join(names[:NUM_NAMED]) + (f" and {rest} more" if rest > 0 else "")
