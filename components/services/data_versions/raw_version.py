"""Which version of raw data a data set was made from: what `fetch_dataset` and `dvc add` leave with it."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from components.params import read_yaml
from dagnn_core.artifacts import digest_of_values, write_json
from dagnn_core.errors import InputError
from dagnn_core.records import parse_json, parse_shape
from dagnn_core.redaction import redact_all

log = logging.getLogger(__name__)

LINEAGE = ".lineage.json"
"""The record in a folder that was fetched."""
_DIGEST = "record_digest"


@dataclass(frozen=True, kw_only=True, slots=True)
class RawLineage:
    """A version of raw data; what is not known is empty."""

    md5: str
    """DVC's: of the file, or `<md5>.dir` of the list of the folder's files."""
    size: int
    """Bytes."""
    num_files: int
    repository: str = ""
    revision: str = ""
    """As the user named it: a branch, a tag, a commit."""
    commit: str = ""
    path: str = ""
    """In the repository."""
    remote: str = ""
    """Where the files came from."""

    __pydantic_config__: ClassVar = {"strict": True, "extra": "forbid"}


def write_lineage(folder: Path, lineage: RawLineage) -> None:
    """Put the record into a folder of raw data."""
    values = redact_all(asdict(lineage))
    write_json(folder / LINEAGE, values | {_DIGEST: digest_of_values(values)})


def read_lineage(folder: Path) -> RawLineage | None:
    """The record in a folder of raw data; None where there is none.

    Raises:
        InputError: it is damaged.
    """
    path = folder / LINEAGE
    if not path.is_file():
        return None
    try:
        return parse_lineage(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error})", "fetch the data again") from error


def parse_lineage(text: bytes) -> RawLineage:
    """Parse such a record; one of an older program has no digest.

    Raises:
        ValueError: it is damaged.
    """
    values = parse_shape(dict[str, Any], parse_json(text))
    digest = values.pop(_DIGEST, None)
    if digest not in (None, digest_of_values(values)):
        raise ValueError(f"{_DIGEST} is not that of what it says")
    return parse_shape(RawLineage, values)


def raw_lineage(source: Path) -> RawLineage | None:
    """The version of raw data at `source`, or of a folder around it: as fetched, else as its `.dvc` file says.

    None where neither is there, or where the data is visibly not that of the `.dvc` file any more.

    Raises:
        InputError: a record is damaged.
    """
    for place in (source, *source.parents):
        fetched = read_lineage(place)
        if fetched is not None:
            return fetched
        pointer = place.with_name(f"{place.name}.dvc") if place.name else place
        if pointer.is_file():
            return _of_pointer(pointer, place)
    return None


def read_pointer(pointer: Path) -> RawLineage:
    """What a `.dvc` file says of its data.

    Raises:
        InputError: it is damaged, or of no data with an md5.
    """
    try:
        (out,) = read_yaml(pointer)["outs"]
        return RawLineage(md5=out["md5"], size=out["size"], num_files=out.get("nfiles", 1))
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{pointer} is not a file that `dvc add` made ({error!r})", "run `dvc add` again") from error


def _of_pointer(pointer: Path, place: Path) -> RawLineage | None:
    said = read_pointer(pointer)
    sizes = [path.stat().st_size for path in ([place] if place.is_file() else place.rglob("*")) if path.is_file()]
    if (len(sizes), sum(sizes)) == (said.num_files, said.size):
        return said
    log.warning(
        "%s has %d files with %d bytes, but %s says %d with %d: no version is recorded; run `dvc add %s`",
        *(place, len(sizes), sum(sizes), pointer, said.num_files, said.size, place),
    )
    return None
