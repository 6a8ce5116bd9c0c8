"""Links in raw data, and which of them are followed.

One that stays in the raw data is, and one to a file that a store keeps under the digest of its content: the cache of
DVC (`cache.type symlink`), the objects of git-annex, the hub's cache. The digest is checked, so no link can lead to
any other file of the machine.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dagnn_core.errors import InputError

_CHUNK = 1 << 20
_ANNEX_KEY = re.compile(r"(MD5|SHA1|SHA256|SHA512)E?-s\d+.*--([0-9a-f]+)(\..*)?")
_DVC_OBJECT = re.compile(r"[0-9a-f]{2}/[0-9a-f]{30}")


class LinkOutsideError(InputError):
    """A link leads out of the raw data, to a file that no store keeps under its digest."""


class _Name(NamedTuple):
    """What the name of a stored file says of its content."""

    algorithm: str
    digest: str
    header: bytes = b""
    """What is hashed before the content."""


def follow(path: Path, roots: Sequence[Path]) -> Path:
    """The file or folder that a path leads to, without links.

    Args:
        path: of the file, which exists.
        roots: the folders of the raw data, without links.

    Raises:
        LinkOutsideError: it leads out of them, to a file that is not named by the digest of its content.
        OSError: it cannot be read, or leads to nothing.
    """
    found = path.resolve(strict=True)
    if any(found.is_relative_to(root) for root in roots) or _is_stored(found):
        return found
    raise LinkOutsideError(
        f"{path} is a link that leads out of {roots[-1]}, to {found}", "put the file itself in its place"
    )


def _is_stored(file: Path) -> bool:
    """Whether a file is named by the digest of its content."""
    if not file.is_file():
        return False
    name = _stored_name(file)
    return name is not None and _digest(file, name) == name.digest


def _stored_name(file: Path) -> _Name | None:
    if match := _ANNEX_KEY.fullmatch(file.name):
        return _Name(match[1].lower(), match[2])
    if _DVC_OBJECT.fullmatch(f"{file.parent.name}/{file.name}"):
        return _Name("md5", file.parent.name + file.name)
    if re.fullmatch(r"[0-9a-f]{64}", file.name):  # the hub's, of a file in LFS
        return _Name("sha256", file.name)
    if re.fullmatch(r"[0-9a-f]{40}", file.name):  # the hub's, of a file in git
        return _Name("sha1", file.name, b"blob %d\0" % file.stat().st_size)
    return None


def _digest(file: Path, name: _Name) -> str:
    digest = hashlib.new(name.algorithm, name.header, usedforsecurity=False)
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
