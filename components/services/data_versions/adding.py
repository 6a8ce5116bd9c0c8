"""`dagnn data add`: raw data comes into `data/<name>` and under DVC, as a whole or not at all.

    .dagnn/add/<name>/source       what a source in S3 has brought; a second start resumes
    .dagnn/add/<name>/unpacked     the files of an archive
    .dagnn/add/<name>/new          the data as DVC shall have it
    .dagnn/add/<name>/change.json  the files of `new`, while it changes places with the data that is there
    .dagnn/add/<name>/old          that data, until DVC keeps the new one

A start that was killed is recovered by the next one: it finishes the change, or puts back what was there.
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from components.locations import ADDING, DATA
from components.services.data_versions.archives import (
    check_name,
    check_space,
    copy_packed,
    is_archive,
    list_files,
    packed_names,
    unpack,
)
from components.services.data_versions.layout import ListedFile, list_folder
from components.services.data_versions.raw_version import LINEAGE, RawLineage, read_pointer
from components.services.data_versions.repository import ignored_files, is_unchanged, kept_files, track
from components.services.data_versions.s3_remote import has_md5, remove_strangers
from components.services.storage.s3 import Download, Storage, parse_uri
from dagnn_core.artifacts import write_json
from dagnn_core.errors import BackendError, InputError
from dagnn_core.locks import hold_lock
from dagnn_core.redaction import redact
from dagnn_core.text import name_first

log = logging.getLogger(__name__)

LOOSE = 1000  # files from which on DVC becomes slow
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FILES_OF_DVC = (".dvcignore", "*.dvc", "dvc.yaml")  # they would change what DVC does with the files beside them


def add(name: str, source: str, *, project: Path, storage: Storage) -> RawLineage:
    """Bring raw data into `data/<name>` of a project, and put it under DVC (`data/<name>.dvc`).

    Archives are unpacked, folders of many images packed into one tar each. The data is complete when it appears, and
    counts as added when DVC's cache has every file with the digest that it has here; when anything fails, what was
    there is there again. A start that was killed at any moment is recovered by the next one.

    Args:
        name: of the data set.
        source: a folder, an archive, a file, or an `s3://` URI of one.
        project: the root of the DVC repository.
        storage: the store of an `s3://` source.

    Raises:
        InputError: bad name or source, files that DVC would ignore, no DVC repository, or other data is in the way.
        BackendError: DVC, the disk or the store failed.
    """
    if not _NAME.fullmatch(name) or name.endswith(".dvc"):
        raise InputError(
            f"{name!r} cannot be the name of a data set, expected letters, digits, `-`, `_` and `.`, beginning with a "
            "letter or digit, at most 100, not ending in .dvc",
            "choose another name",
        )
    if "://" in source and not source.startswith("s3://"):
        raise InputError(
            f"{redact(source)} is no source of data, expected a folder, an archive, a file or an s3:// URI of one",
            "download it first",
        )
    if not (project / ".dvc").is_dir():
        raise InputError(
            f"{project.resolve()} is not the root of a DVC repository", "go there, or run `git init && dvc init`"
        )
    target = project / DATA / name
    with _work_folder(project / ADDING / name) as work:
        _recover(project, target, work, source)
        for leftover in ("old", "unpacked", "new"):
            shutil.rmtree(work / leftover, ignore_errors=True)
        local = fetch_source(source, work / "source", storage) if source.startswith("s3://") else Path(source)
        _check_apart(local, target)
        if local.resolve() != target.resolve():
            _check_replaceable(project, target)
        _prepare(local, work, source, project=project, target=target)
        pointer = _pointer(target)
        before = pointer.read_text(encoding="utf-8") if pointer.is_file() else None
        _Change(project, target, work, list_folder(work / "new"), before).make()
    return read_pointer(pointer)


def _pointer(target: Path) -> Path:
    return target.with_name(f"{target.name}.dvc")


@contextmanager
def _work_folder(folder: Path) -> Iterator[Path]:
    """A folder of this data set's own; what a source in S3 has brought stays in it until the work is done."""
    folder.mkdir(parents=True, exist_ok=True)
    with hold_lock(
        folder.with_name(f"{folder.name}.lock"),
        busy=f"another process adds {folder.name}",
        remedy="wait for it",
        elsewhere="use a checkout on another file system",
    ):
        try:
            yield folder
        except BaseException:
            if not (folder / "change.json").exists():
                for name in ("unpacked", "new"):
                    shutil.rmtree(folder / name, ignore_errors=True)
            raise
        shutil.rmtree(folder)


def fetch_source(uri: str, folder: Path, storage: Storage) -> Path:
    """Bring an object, or all objects below a folder, to `folder`; what an earlier try has brought is kept.

    Raises:
        InputError: there is nothing at `uri`, or a name leads out of its folder.
        BackendError: the store cannot be reached or refuses, or the disk has no room.
    """
    place = folder / hashlib.sha256(uri.encode()).hexdigest()[:16]
    found = storage.find(uri) if parse_uri(uri).key.strip("/") and not uri.endswith("/") else None
    if found is not None:
        path = place / uri.rsplit("/", 1)[1]
        storage.download_all([Download(found, path)], description=f"fetching {path.name}")
        return path
    names = storage.names_below(uri)
    if not names:
        raise InputError(f"{uri} does not exist, expected an object or a folder of objects", "check bucket and key")
    for name in names:
        check_name(name, uri)
    remove_strangers(place, [ListedFile(name, "") for name in names])
    base = uri.rstrip("/")
    found_all = storage.stat_all([f"{base}/{name}" for name in names], description="looking for files")
    objects = [stored for stored in found_all if stored is not None]
    check_space(folder.parent, sum(stored.size for stored in objects))
    storage.download_all(
        [Download(stored, place / stored.uri.removeprefix(f"{base}/")) for stored in objects], description="fetching"
    )
    return place


def _check_apart(source: Path, target: Path) -> None:
    source, target = source.resolve(), target.resolve()
    if source != target and (source in target.parents or target in source.parents):
        raise InputError(f"{source} and {target} lie in each other, expected a source elsewhere", "move it")


def _check_replaceable(project: Path, target: Path) -> None:
    """Data that is there is replaced only where DVC keeps all of it."""
    if target.parent.exists() and not target.parent.is_dir():
        raise InputError(f"{target.parent} is a file, expected the folder of the raw data", "move it away")
    if not target.exists():
        return
    pointer = _pointer(target)
    if not pointer.is_file():
        raise InputError(
            f"{target} is there and not under DVC, so it would be lost",
            f"give another name, move it away, or add it as it is: `dagnn data add {target.name} {target}`",
        )
    present = {path.relative_to(target).as_posix(): path for path in target.rglob("*") if not path.is_dir()}
    _check_ignored(sorted(present), str(target), project=project, target=target)
    if not is_unchanged(project, target):
        raise InputError(
            f"{target} is not what {pointer.name} says, or DVC's cache does not have it, so it would be lost",
            f"keep it "
            f"as a version (`dvc add {target.relative_to(project)}`), or drop it "
            f"(`dvc checkout --force {pointer.relative_to(project)}`)",
        )
    kept = kept_files(project, target)
    present |= {"": target} if target.is_file() else {}
    lost = [name for name, path in present.items() if name not in kept or not _same_size(path, kept[name].path)]
    if lost:
        raise InputError(
            f"{target}: DVC's cache does not have {name_first(sorted(lost))}, so it would be lost",
            f"move {target} away",
        )


def _same_size(path: Path, kept: Path) -> bool:
    return kept.is_file() and path.is_file() and path.stat().st_size == kept.stat().st_size


def _prepare(local: Path, work: Path, origin: str, *, project: Path, target: Path) -> None:
    """Make `new`: the data as DVC shall have it."""
    if not local.exists():
        raise InputError(f"{local} does not exist, expected a folder, an archive or a file", "check its path")
    if local.is_file() and is_archive(local):
        check_space(work, 3 * local.stat().st_size)
        local = unpack(local, work / "unpacked")
    if local.is_file():
        _check_names([local.name], origin, project=project, target=target)
        (work / "new").mkdir()
        shutil.copyfile(local, work / "new" / local.name)
        return
    files = [file for file in list_files(local) if file.name != LINEAGE]
    if not files:
        raise InputError(f"{local} has no files, expected raw data", "check its path")
    names = packed_names(files)
    _check_names(names, origin, project=project, target=target)
    check_space(work, 2 * sum(file.size for file in files))  # here and in DVC's cache
    copy_packed(local, files, work / "new")
    if len(names) > LOOSE:
        log.warning(
            "%s has %d files after packing: DVC is slow with that many; folders of images alone become one tar each",
            *(origin, len(names)),
        )


def _check_names(names: Sequence[str], origin: str, *, project: Path, target: Path) -> None:
    """See that DVC will keep all files, before long work."""
    _check_ignored(names, origin, project=project, target=target)
    if own := [name for name in names if any(PurePosixPath(name).match(pattern) for pattern in _FILES_OF_DVC)]:
        raise InputError(
            f"{origin}: DVC would take {name_first(own)} for its own, and obey instead of keep it",
            "remove it, or add a copy of the data without it",
        )


def _check_ignored(names: Sequence[str], origin: str, *, project: Path, target: Path) -> None:
    if ignored := ignored_files(project, target, names):
        first = ignored[0]
        where, remedy = (first.origin, "change the pattern, or ") if first.origin else ("built into DVC", "")
        raise InputError(
            f"{origin}: DVC ignores {name_first([file.name for file in ignored])}, by the pattern {first.pattern!r} "
            f"({where}), so it would be lost",
            f"{remedy}rename or remove what it matches, or add a copy of the data without it",
        )


@dataclass(frozen=True, slots=True)
class _Change:
    """The new data takes the place of what is there; recorded, so that a kill at any moment can be recovered from."""

    project: Path
    target: Path
    work: Path
    files: Sequence[ListedFile]
    """Of the new data."""
    pointer_before: str | None
    """Content of the `.dvc` file; None where there was none."""

    @classmethod
    def interrupted(cls, project: Path, target: Path, work: Path) -> "_Change | None":
        """The change that a killed process was making; None where none was begun."""
        try:
            record = json.loads((work / "change.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return cls(project, target, work, [ListedFile(*entry) for entry in record["files"]], record["pointer_before"])

    def make(self) -> None:
        """Move the new data in and let DVC track it; where that fails, put everything back."""
        self.target.parent.mkdir(exist_ok=True)
        partial = self.work / "change.json.tmp"
        write_json(partial, {"pointer_before": self.pointer_before, "files": self.files})
        partial.replace(self.work / "change.json")
        with self._put_back_on_failure():
            if self.target.exists():
                self.target.rename(self.work / "old")
            (self.work / "new").rename(self.target)
            self._track()

    def finish(self) -> None:
        """Let DVC track the new data, which is in place; where that fails, put everything back."""
        with self._put_back_on_failure():
            self._put_back_pointer()  # DVC was killed, perhaps while it wrote it
            self._track()

    def put_back(self) -> None:
        """Put back what was there; in this order, so that a kill amid it is recovered from as well."""
        self._put_back_pointer()
        if not (self.work / "new").exists() and self.target.exists():
            self.target.rename(self.work / "new")
        if (self.work / "old").exists() and not self.target.exists():
            (self.work / "old").rename(self.target)
        self.close()

    def close(self) -> None:
        """Forget the change, which is made or undone."""
        (self.work / "change.json").unlink()

    def _put_back_pointer(self) -> None:
        if self.pointer_before is None:
            _pointer(self.target).unlink(missing_ok=True)
        else:
            _pointer(self.target).write_text(self.pointer_before, encoding="utf-8")

    @contextmanager
    def _put_back_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.put_back()
            raise
        self.close()

    def _track(self) -> None:
        log.info("dvc add %s", self.target.relative_to(self.project))
        track(self.project, self.target)
        kept = kept_files(self.project, self.target)
        wrong = [
            file.path
            for file in self.files
            if file.path not in kept
            or kept[file.path].md5 != file.md5
            or not kept[file.path].path.is_file()
            or not has_md5(kept[file.path].path, file.md5)
            or not (self.target / file.path).is_file()
        ]
        wrong += sorted(kept.keys() - {file.path for file in self.files})
        if wrong:
            raise BackendError(
                f"{self.target}: what DVC keeps of {name_first(wrong)} is not what was added",
                "run again; where that does not help, `dvc doctor` shows where DVC's cache is",
            )


def _recover(project: Path, target: Path, work: Path, source: str) -> None:
    """Finish or undo the change that a killed process was making.

    Raises:
        InputError: the data has been changed since.
        BackendError: DVC failed.
    """
    change = _Change.interrupted(project, target, work)
    if change is None:
        return
    if (work / "new").exists() or not target.exists():  # the new data is not in place
        change.put_back()
        return
    expected = dict(change.files)
    found = {file.path: file.md5 for file in list_folder(target)}
    if found == expected:
        log.info("an interrupted `dagnn data add` is finished: %s", target)
        change.finish()
    elif found.items() <= expected.items() and Path(source).resolve() != target.resolve():
        change.put_back()  # killed while DVC put links in place of files
    elif _pointer(target).is_file() and is_unchanged(project, target):
        change.close()  # the user has brought a version back
    else:
        before = f", and what was there before is in {work / 'old'}" if (work / "old").exists() else ""
        raise InputError(
            f"{target} was changed after a `dagnn data add` that was interrupted{before}",
            f"move {target} away and run again",
        )
