"""git, by the command on PATH: with a list of arguments, without a shell, in the folder that the caller names."""

import logging
import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import IO

from dagnn_core.errors import InputError
from dagnn_core.text import one_line

log = logging.getLogger(__name__)

# they name another repository than the folder's, for example in a hook
_OF_ANOTHER = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX"}

_REMEDY = re.compile(r"git config --global --add safe\.directory .+")  # as git names it, in every language


class UntrustedCheckoutError(InputError):
    """git reads nothing in a checkout that belongs to another user, such as one mounted into a container."""


def git(folder: Path, *arguments: str, stdout: IO[bytes] | None = None) -> str:
    """What a git command prints, without its last line end.

    Args:
        folder: in the checkout.
        arguments: of git, the command first.
        stdout: a file that gets the output instead.

    Raises:
        UntrustedCheckoutError: the checkout belongs to another user.
        InputError: git is not on PATH, or refuses.
    """
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env={name: value for name, value in os.environ.items() if name not in _OF_ANOTHER}
            | {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="surrogateescape",  # names of files may be any bytes
            check=True,
        )
    except OSError as error:
        raise InputError(
            f"git cannot be run in {folder}: {one_line(error)}", "install git, or put it on PATH"
        ) from error
    except subprocess.CalledProcessError as error:
        if remedy := _REMEDY.search(error.stderr):
            raise UntrustedCheckoutError(
                f"git reads nothing in the checkout {folder.resolve()}, which belongs to another user",
                f"if you trust it, run `{remedy[0]}`",
            ) from error
        reason = one_line(error.stderr) or f"exit status {error.returncode}"
        raise InputError(f"`git {' '.join(arguments)}` failed in {folder.resolve()}: {reason}") from error
    return (done.stdout or "").rstrip("\n")


def try_git(folder: Path, *arguments: str) -> str | None:
    """What a git command prints; None where it fails: no git, no checkout, no such object.

    A checkout of another user warns, once.
    """
    try:
        return git(folder, *arguments)
    except UntrustedCheckoutError as error:
        _warn_once(str(error))
        return None
    except InputError:
        return None


@cache
def _warn_once(message: str) -> None:
    log.warning("%s", message)


def check_trusted(folder: Path) -> None:
    """See that git reads the checkout that a folder is in, if it is in one.

    Raises:
        UntrustedCheckoutError: the checkout belongs to another user.
    """
    try:
        git(folder, "rev-parse", "--git-dir")
    except UntrustedCheckoutError:
        raise
    except InputError:
        return


def head(folder: Path) -> str | None:
    """The commit that is checked out; None where there is none."""
    return try_git(folder, "rev-parse", "HEAD")


def changed_files(folder: Path, *, exclude: str = "") -> list[str] | None:
    """Tracked files below a folder that differ from the commit that is checked out, sorted; None where there is none.

    Args:
        folder: in the checkout; the names are relative to it.
        exclude: a file that is left out.
    """
    paths = [".", f":(exclude){exclude}"] if exclude else ["."]
    # -z: names as they are, unquoted
    differing = try_git(folder, "diff", "--name-only", "--no-renames", "--relative", "-z", "HEAD", "--", *paths)
    return None if differing is None else sorted(filter(None, differing.split("\0")))
