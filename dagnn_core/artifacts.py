"""Artifacts: directories of plain files with a `manifest.json` that says what they hold.

Writers are atomic (see `drafts`): a reader sees the whole artifact or none. Readers check the manifest, by its own
digest, and file sizes at every read and, where a step begins, the sha256 of every file.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dagnn_core.disk import writing
from dagnn_core.drafts import draft_of
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.records import CONTENTS, FileRecord, Manifest, Provenance, parse_json, parse_shape
from dagnn_core.redaction import redact_all

SCHEMA_VERSION = 3
READABLE_VERSIONS = (2, SCHEMA_VERSION)
"""Manifests of version 2 have no `manifest_digest`."""
MANIFEST = "manifest.json"

# kind of artifact -> the step that makes it, so that an error can name the remedy
MADE_BY = {
    "dataset": "dataset",
    "features": "extract_features",
    "feature_shard": "extract_features",
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
class Artifact:
    """A checked artifact directory: its path and what its manifest says.

    `content` describes the files (shapes, counts, label names in order); `content_digest` is the sha256 over the
    files alone, so equal content has an equal digest; `provenance` says where it came from. `manifest_digest` covers
    all of the manifest; None where an older program wrote it.
    """

    path: Path
    kind: str
    content: dict[str, Any]
    files: dict[str, FileRecord]
    content_digest: str
    provenance: dict[str, Any]
    manifest_digest: str | None = None

    @classmethod
    def of(cls, path: Path, manifest: Manifest) -> "Artifact":
        """The artifact that a manifest describes; its files are not looked at."""
        return cls(
            path=path,
            kind=manifest.kind,
            content=manifest.content,
            files=manifest.files,
            content_digest=manifest.content_digest,
            provenance=manifest.provenance,
            manifest_digest=manifest.manifest_digest,
        )

    def require(self, *keys: str) -> dict[str, Any]:
        """Its content, with these keys.

        Raises:
            ArtifactError: the manifest lacks one of them.
        """
        for key in keys:
            if key not in self.content:
                raise ArtifactError(f"{self.path / MANIFEST} has no content.{key}", self.remedy)
        return self.content

    def recorded(self, *keys: str) -> Any:
        """An entry of its provenance.

        Args:
            keys: of one mapping within the other.

        Raises:
            ArtifactError: the manifest lacks it.
        """
        value: Any = self.provenance
        for key in keys:
            if not isinstance(value, Mapping) or key not in value:
                raise ArtifactError(f"{self.path / MANIFEST} has no provenance.{'.'.join(keys)}", self.remedy)
            value = value[key]
        return value

    @property
    def remedy(self) -> str:
        """How to rebuild it."""
        return _remedy(self.kind)

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
    """Write indented JSON with a final newline.

    Raises:
        DiskError: the disk refuses it.
    """
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    with writing(path):
        path.write_text(text + "\n", encoding="utf-8")


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of(files: Mapping[str, FileRecord]) -> str:
    """Content digest of an artifact with these files."""
    return digest_of_values({name: entry.sha256 for name, entry in files.items()})


@contextmanager
def write_artifact(out: Path, *, kind: str, provenance: Mapping[str, Any]) -> Iterator[ArtifactDraft]:
    """Make an artifact at `out`: yield a draft, then seal it with a manifest and move it into place.

    When the body raises, also by Ctrl-C, nothing is left behind and what stood at `out` stays as it was. What a killed
    writer of `out` has left is removed.

    Raises:
        InputError: `out` exists and is neither empty nor an artifact of this kind, or cannot be a folder.
        DiskError: the disk refuses a file, which is named by where it would have gone.
    """
    out = Path(out)
    check_replaceable(out, kind)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(
            f"{out.parent} cannot be a folder: it or what it lies in is a file", "name another folder"
        ) from error
    with draft_of(out) as folder:
        draft = ArtifactDraft(path=folder, content={})
        yield draft
        _seal(draft, kind, provenance)


def read_artifact(path: Path, kind: str, *, verify: bool = False, skip: Collection[str] = ()) -> Artifact:
    """Open an artifact, checking manifest and file sizes, and with `verify` every sha256 but of the files to `skip`.

    Raises:
        ArtifactError: missing, of another kind or schema version, or a file is missing or damaged.
    """
    path = Path(path)
    manifest = path / MANIFEST
    if not manifest.is_file():
        missing = "is a file" if path.exists() else "does not exist"
        what = "has no manifest.json, so it is not an artifact" if path.is_dir() else missing
        raise ArtifactError(f"{path} {what}, expected {_named(kind)}", _remedy(kind))
    artifact = Artifact.of(path, parse_manifest(manifest.read_bytes(), str(manifest), _remedy(kind)))
    if artifact.kind != kind:
        raise ArtifactError(f"{path} is {_named(artifact.kind)}, expected {_named(kind)}", _remedy(kind))
    for name, entry in artifact.files.items():
        _check_file(path / name, entry, kind, verify=verify and name not in skip)
    if verify and digest_of(artifact.files) != artifact.content_digest:
        raise ArtifactError(f"{manifest} is damaged: content_digest is not that of its files", _remedy(kind))
    return artifact


def parse_manifest(text: bytes, where: str, remedy: str = "") -> Manifest:
    """Parse a `manifest.json` of any version of the program, and check its digest and its shape.

    Args:
        text: what the file holds.
        where: the file, for messages.
        remedy: how to rebuild it.

    Raises:
        ArtifactError: it is damaged, or of a version that this program does not read.
    """
    try:
        values = parse_json(text)
        version = values.get("schema_version") if isinstance(values, dict) else None
        if isinstance(version, int) and version not in READABLE_VERSIONS:
            raise ArtifactError(
                f"{where}: schema version {version}, but this program reads versions "
                f"{' and '.join(map(str, READABLE_VERSIONS))}",
                f"rebuild it with this program: {remedy}",
            )
        manifest = parse_shape(Manifest, values)
        if manifest.manifest_digest is None and version != 2:
            raise ValueError("manifest_digest is missing")
        if manifest.manifest_digest not in (None, manifest_digest_of(values)):
            raise ValueError("manifest_digest is not that of what it says")
        manifest = replace(manifest, provenance=_with_section_names(manifest.provenance))
        parse_shape(CONTENTS.get(manifest.kind, dict[str, Any]), manifest.content, "content")
        parse_shape(Provenance, manifest.provenance, "provenance")
    except ArtifactError:
        raise
    except ValueError as error:
        raise ArtifactError(f"{where} is damaged ({error})", remedy) from error
    return manifest


def manifest_digest_of(manifest: Mapping[str, Any]) -> str:
    """Digest of a manifest without its `manifest_digest`."""
    return digest_of_values({key: value for key, value in manifest.items() if key != "manifest_digest"})


def digest_of_values(value: Any) -> str:
    """Sha256 (hexadecimal) of the canonical JSON of plain values."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _with_section_names(provenance: dict[str, Any]) -> dict[str, Any]:
    """A record of provenance, in which sections have the names of params.yaml, and so have those of its ancestors."""
    named = dict(provenance)
    if isinstance(params := named.get("params"), dict):
        named["params"] = {_OLD_SECTION_NAMES.get(name, name): values for name, values in params.items()}
    if isinstance(origins := named.get("origins"), dict):
        named["origins"] = {
            kind: _with_section_names(origin) if isinstance(origin, dict) else origin
            for kind, origin in origins.items()
        }
    return named


def rerun(step: str, note: str = "") -> str:
    """What a message tells the user to run, for a step to make its artifact again.

    Args:
        step: name of the stage; `--force` before it makes DVC run it in any case.
        note: what to say of the DVC command, with a space before it.
    """
    return f"run `dvc repro {step}`{note}, or `dagnn run` outside of a checkout"


def _check_file(path: Path, record: FileRecord, kind: str, *, verify: bool) -> None:
    if not path.is_file():
        raise ArtifactError(f"{path} is missing, though its manifest lists it", _remedy(kind))
    size = path.stat().st_size
    if size != record.size:
        raise ArtifactError(f"{path} has {size} bytes, expected {record.size}", _remedy(kind))
    if verify and sha256_of(path) != record.sha256:
        raise ArtifactError(f"{path} does not have the checksum of its manifest (sha256)", _remedy(kind))


def _named(kind: str) -> str:
    return f"{'an' if kind[:1] in 'aeiou' else 'a'} {kind} artifact"


def _remedy(kind: str) -> str:
    if kind not in MADE_BY:  # an index, which no step makes
        return "run `dagnn index build`"
    step = MADE_BY[kind]
    return rerun(step, f" (`dvc repro --force {step}` where it is damaged)")


def _seal(draft: ArtifactDraft, kind: str, provenance: Mapping[str, Any]) -> None:
    files = _records(draft.path)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "content": draft.content,
        "files": {name: asdict(entry) for name, entry in files.items()},
        "content_digest": digest_of(files),
        "provenance": redact_all(provenance),
    }
    write_json(draft.path / MANIFEST, manifest | {"manifest_digest": manifest_digest_of(manifest)})


def _records(folder: Path) -> dict[str, FileRecord]:
    return {
        str(file.relative_to(folder)): FileRecord(size=file.stat().st_size, sha256=sha256_of(file))
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def check_replaceable(out: Path, kind: str) -> None:
    """Check that an artifact may be written to a folder, which may be long before it is.

    Raises:
        InputError: it exists and is neither empty nor an artifact of this kind.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out} is a file, expected a new folder or {_named(kind)}", "name another folder")
    entries = {entry.name for entry in out.iterdir()}
    if not entries:
        return
    try:
        found = parse_json((out / MANIFEST).read_bytes())["kind"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if found != kind:
        what = _named(found) if isinstance(found, str) else "other files"
        raise InputError(
            f"{out} holds {what}, which would be lost, expected a new folder or {_named(kind)}",
            "name another folder or remove it yourself",
        )
