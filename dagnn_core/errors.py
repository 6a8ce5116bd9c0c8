"""The failures a user can cause or meet; each class carries the exit status of the command that meets it.

A message says what failed, what was got, what was expected, and the remedy, naming file, row or key.
"""

from collections.abc import Iterator


class DagnnError(Exception):
    """Base of every failure that is reported as one line, without a traceback.

    Args:
        what: what failed, what was got, and what was expected.
        remedy: what the user can do about it.
    """

    exit_status = 2

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(f"{what}; {remedy}" if remedy else what)
        self.what = what
        self.remedy = remedy


class CheckFailedError(DagnnError):
    """A check said no: a model is worse than the champion, a validation failed. Exit status 1."""

    exit_status = 1


class InputError(DagnnError, ValueError):
    """Bad input or wrong usage: a file, a row, a configuration key. Exit status 2."""

    exit_status = 2


class ArtifactError(InputError):
    """An artifact is missing, incomplete, damaged, or of another schema version. Exit status 2."""


class BackendError(DagnnError):
    """What the program stands on failed: a server, the disk, the network. Exit status 3."""

    exit_status = 3


class UnexpectedError(BackendError):
    """The program itself failed: an exception that nobody foresaw. Exit status 3."""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and, one after the other, those that it came of; the last is the root."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
