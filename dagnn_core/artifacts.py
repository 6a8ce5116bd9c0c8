"""Artifacts: directories of plain files with a `manifest.json` that says what they hold.

Writers are atomic (a temporary directory beside the target, then a rename): a reader sees the whole artifact or
none. Readers check the manifest and file sizes at every read and, where a step begins, the sha256 of every file.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dagnn_core.errors import ArtifactError, BackendError, DagnnError, InputError
from dagnn_core.redaction import redact_all

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"
FULL_BELOW_BYTES = 1 << 20

# kind of artifact -> the step that makes it, so that an error can name the remedy
MADE_BY = {
    "dataset": "dataset",
    "features": "extract_features",
    "label_graph": "build_label_graph",
    "model": "train",
    "report": "evaluate",
}


# what manifests called the sections before they had the names that params.yaml gives them
_OLD_SECTION_NAMES = {
    "DatasetConfig": "dataset",
    "FeaturesConfig": "features",
    "LabelGraphConfig": "label_graph",
    "ModelConfig": "model",
    "TrainConfig": "train",
    "EvaluateConfig": "evaluate",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRecord:
    """Size in bytes and sha256 (hexadecimal) of one file."""

    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """A checked artifact directory: its path and what its manifest says.

    `content` describes the files (shapes, counts, label names in order); `content_digest` is the sha256 over the
    files alone, so equal content has an equal digest; `provenance` says where it came from.
    """

    path: Path
    kind: str
    content: dict[str, Any]
    files: dict[str, FileRecord]
    content_digest: str
    provenance: dict[str, Any]

    def file(self, name: str) -> Path:
        """Path of one of its files.

        Raises:
            ArtifactError: the manifest does not list `name`.
        """
        if name not in self.files:
            raise ArtifactError(
                f"{self.path}: this {self.kind} artifact has no file {name!r}, "
                f"expected one of {', '.join(sorted(self.files))}",
                _remedy(self.kind),
            )
        return self.path / name


@dataclass(kw_only=True, slots=True)
class ArtifactDraft:
    """An artifact being written: put files into `path` and describe them in `content`."""

    path: Path
    content: dict[str, Any]

    def so_far(self, kind: str) -> Artifact:
        """What is written up to now, as if it were sealed: for pages about an artifact that lie in it."""
        files = _records(self.path)
        return Artifact(
            path=self.path, kind=kind, content=self.content, files=files, content_digest=digest_of(files), provenance={}
        )


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values have equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with a final newline."""
    path.write_text(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of(files: Mapping[str, FileRecord]) -> str:
    """Content digest of an artifact with these files."""
    return hashlib.sha256(canonical_json({name: entry.sha256 for name, entry in files.items()}).encode()).hexdigest()


@contextmanager
def write_artifact(out: Path, *, kind: str, provenance: Mapping[str, Any]) -> Iterator[ArtifactDraft]:
    """Make an artifact at `out`: yield a draft, then seal it with a manifest and move it into place.

    When the body raises, also by Ctrl-C, nothing is left behind and what stood at `out` stays as it was.

    Raises:
        InputError: `out` exists and is neither empty nor an artifact of this kind, or cannot be a folder.
        BackendError: the disk is full.
    """
    out = Path(out)
    _check_replaceable(out, kind)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(
            f"{out.parent} cannot be a folder: it or what it lies in is a file", "name another folder"
        ) from error
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    try:
        temporary.chmod(0o755)
        draft = ArtifactDraft(path=temporary, content={})
        yield draft
        _seal(draft, kind, provenance)
        _move_into_place(temporary, out)
    except Exception as error:
        # numpy and safetensors do not say why they could not write, so ask the disk
        if not isinstance(error, DagnnError) and shutil.disk_usage(out.parent).free < FULL_BELOW_BYTES:
            raise BackendError(f"{out}: no space is left on its disk", "free some and run again") from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_artifact(path: Path, kind: str, *, verify: bool = False) -> Artifact:
    """Open an artifact, checking manifest and file sizes, and with `verify` every sha256.

    Raises:
        ArtifactError: missing, of another kind or schema version, or a file is missing or damaged.
    """
    path = Path(path)
    manifest = path / MANIFEST
    if not manifest.is_file():
        missing = "is a file" if path.exists() else "does not exist"
        what = "has no manifest.json, so it is not an artifact" if path.is_dir() else missing
        raise ArtifactError(f"{path} {what}, expected a {kind} artifact", _remedy(kind))
    try:
        record = json.loads(manifest.read_text(encoding="utf-8"))
        version = record["schema_version"]
        if version != SCHEMA_VERSION:
            raise ArtifactError(
                f"{manifest}: schema version {version}, but this program reads version {SCHEMA_VERSION}",
                f"make it again with this program: {_remedy(kind)}",
            )
        artifact = Artifact(
            path=path,
            kind=record["kind"],
            content=record["content"],
            files={name: FileRecord(**entry) for name, entry in record["files"].items()},
            content_digest=record["content_digest"],
            provenance=read_provenance(record),
        )
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{manifest} is damaged ({error!r})", _remedy(kind)) from error
    if artifact.kind != kind:
        raise ArtifactError(f"{path} is a {artifact.kind} artifact, expected a {kind} artifact", _remedy(kind))
    for name, entry in artifact.files.items():
        _check_file(path / name, entry, kind, verify=verify)
    if verify and digest_of(artifact.files) != artifact.content_digest:
        raise ArtifactError(f"{manifest} is damaged: content_digest is not that of its files", _remedy(kind))
    return artifact


def read_provenance(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Where an artifact came from, by its manifest, of any version of the program."""
    provenance = dict(manifest["provenance"])
    if "params" in provenance:
        params = provenance["params"].items()
        provenance["params"] = {_OLD_SECTION_NAMES.get(name, name): values for name, values in params}
    if "origins" in provenance:
        origins = provenance["origins"].items()
        provenance["origins"] = {kind: read_provenance({"provenance": origin}) for kind, origin in origins}
    return provenance


def _check_file(path: Path, record: FileRecord, kind: str, *, verify: bool) -> None:
    if not path.is_file():
        raise ArtifactError(f"{path} is missing, though its manifest lists it", _remedy(kind))
    size = path.stat().st_size
    if size != record.size:
        raise ArtifactError(f"{path} has {size} bytes, expected {record.size}", _remedy(kind))
    if verify and sha256_of(path) != record.sha256:
        raise ArtifactError(f"{path} does not have the checksum of its manifest (sha256)", _remedy(kind))


def _remedy(kind: str) -> str:
    step = MADE_BY.get(kind, kind)
    return f"run `dvc repro {step}` (`dvc repro --force {step}` where it is damaged)"


def _seal(draft: ArtifactDraft, kind: str, provenance: Mapping[str, Any]) -> None:
    files = _records(draft.path)
    write_json(
        draft.path / MANIFEST,
        {
            "schema_version": SCHEMA_VERSION,
            "kind": kind,
            "content": draft.content,
            "files": {name: asdict(entry) for name, entry in files.items()},
            "content_digest": digest_of(files),
            "provenance": redact_all(provenance),
        },
    )


def _records(folder: Path) -> dict[str, FileRecord]:
    return {
        str(file.relative_to(folder)): FileRecord(size=file.stat().st_size, sha256=sha256_of(file))
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def _check_replaceable(out: Path, kind: str) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out} is a file, expected a new folder or a {kind} artifact", "name another folder")
    entries = {entry.name for entry in out.iterdir()}
    if not entries:
        return
    try:
        found = json.loads((out / MANIFEST).read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if found != kind:
        what = f"a {found} artifact" if found else "other files"
        raise InputError(
            f"{out} holds {what}, which would be lost, expected a new folder or a {kind} artifact",
            "name another folder or remove it yourself",
        )


def _move_into_place(temporary: Path, out: Path) -> None:
    if not out.exists():
        temporary.rename(out)
        return
    # a directory cannot replace another in one call: set the old one aside, and back if the second rename fails
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".old", dir=out.parent)) / out.name
    out.rename(aside)
    try:
        temporary.rename(out)
    except BaseException:
        aside.rename(out)
        raise
    finally:
        shutil.rmtree(aside.parent, ignore_errors=True)
