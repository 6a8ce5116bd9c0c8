"""DVC, behind one module: its stable core alone (`dvc add`, `dvc status`, the file system of `dvc.api`)."""

import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from components.locations import ADDING, DATA
from components.services.data_versions.archives import (
    check_name,
    check_space,
    copy_packed,
    is_archive,
    list_files,
    unpack,
)
from components.services.data_versions.layout import ListedFile, is_folder
from components.services.data_versions.raw_version import LINEAGE, RawLineage, read_pointer
from components.services.data_versions.s3_remote import check_digests, has_md5, remove_strangers
from components.services.storage.s3 import Download, Storage, parse_uri
from dagnn_core.errors import BackendError, DagnnError, InputError
from dagnn_core.locks import hold_lock
from dagnn_core.progress import track
from dagnn_core.redaction import hide, redact, secrets_of_settings
from dagnn_core.text import one_line

if TYPE_CHECKING:
    from dvc.api import DVCFileSystem

log = logging.getLogger(__name__)

LOOSE = 1000  # files from which on DVC becomes slow
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PLAIN_REMOTE = {"url", "endpointurl", "region"}
# what DVC fills in for a remote that does not say
_REMOTE_DEFAULTS = {"use_ssl": True, "allow_anonymous_login": False, "listobjects": False, "verify": False}


class Version(NamedTuple):
    """Raw data under DVC, at one revision of a repository."""

    lineage: RawLineage
    """Without size and number of files."""
    endpoint_url: str
    """Of the remote's S3 store; empty: as the environment says."""
    is_plain_s3: bool
    """Whether the remote is S3 and has nothing in its configuration that only DVC knows to use."""


class Remote(NamedTuple):
    """A DVC remote, as the configuration has it."""

    url: str
    """Without credentials; empty where there is no default remote."""
    endpoint_url: str
    is_plain_s3: bool


def add(name: str, source: str, *, project: Path, storage: Storage) -> RawLineage:
    """Bring raw data into `data/<name>` of a project, and put it under DVC (`data/<name>.dvc`).

    Archives are unpacked, folders of many images packed into one tar each. The data is complete when it appears;
    when anything fails, what was there is there again.

    Args:
        name: of the data set.
        source: a folder, an archive, a file, or an `s3://` URI of one.
        project: the root of the DVC repository.
        storage: the store of an `s3://` source.

    Raises:
        InputError: bad name or source, no DVC repository, or other data is in the way.
        BackendError: DVC, the disk or the store failed.
    """
    _check_name(name)
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
        if (work / "old").exists() and not target.exists():  # killed between two renames
            (work / "old").rename(target)
        for leftover in ("old", "unpacked", "new"):
            shutil.rmtree(work / leftover, ignore_errors=True)
        local = fetch_source(source, work / "source", storage) if source.startswith("s3://") else Path(source)
        _check_apart(local, target)
        if local.resolve() != target.resolve():
            _check_replaceable(target, project)
        _prepare(local, work)
        _put_under_dvc(work / "new", target, work / "old", project)
    return read_pointer(target.with_name(f"{name}.dvc"))


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name.endswith(".dvc"):
        raise InputError(
            f"{name!r} cannot be the name of a data set, expected letters, digits, `-`, `_` and `.`, beginning with a "
            "letter or digit, at most 100, not ending in .dvc",
            "choose another name",
        )


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


def _check_replaceable(target: Path, project: Path) -> None:
    """Data that is there is replaced only where DVC keeps it."""
    if target.parent.exists() and not target.parent.is_dir():
        raise InputError(f"{target.parent} is a file, expected the folder of the raw data", "move it away")
    if not target.exists():
        return
    pointer = target.with_name(f"{target.name}.dvc")
    if not pointer.is_file():
        raise InputError(
            f"{target} is there and not under DVC, so it would be lost",
            f"give another name, move it away, or add it as it is: `dagnn data add {target.name} {target}`",
        )
    if json.loads(_dvc(project, "status", "--json", str(pointer.relative_to(project)))):
        raise InputError(
            f"{target} is not what {pointer.name} says, or DVC's cache does not have it, so it would be lost",
            f"keep it "
            f"as a version (`dvc add {target.relative_to(project)}`), or drop it "
            f"(`dvc checkout --force {pointer.relative_to(project)}`)",
        )


def _prepare(local: Path, work: Path) -> None:
    """Make `new`: the data as DVC shall have it."""
    if not local.exists():
        raise InputError(f"{local} does not exist, expected a folder, an archive or a file", "check its path")
    if local.is_file() and is_archive(local):
        check_space(work, 3 * local.stat().st_size)
        local = unpack(local, work / "unpacked")
    if local.is_file():
        (work / "new").mkdir()
        shutil.copyfile(local, work / "new" / local.name)
        return
    files = [file for file in list_files(local) if file.name != LINEAGE]
    if not files:
        raise InputError(f"{local} has no files, expected raw data", "check its path")
    check_space(work, 2 * sum(file.size for file in files))  # here and in DVC's cache
    copy_packed(local, files, work / "new")
    loose = len(list_files(work / "new"))
    if loose > LOOSE:
        log.warning(
            "%s has %d files after packing: DVC is slow with that many; folders of images alone become one tar each",
            *(local, loose),
        )


def _put_under_dvc(new: Path, target: Path, old: Path, project: Path) -> None:
    """Move the new data in and let DVC track it; where that fails, put everything back."""
    pointer = target.with_name(f"{target.name}.dvc")
    before = pointer.read_bytes() if pointer.is_file() else None
    target.parent.mkdir(exist_ok=True)
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
        log.info("dvc add %s", target.relative_to(project))
        _dvc(project, "add", "--quiet", str(target.relative_to(project)))
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        if old.exists():
            old.rename(target)
        if before is None:
            pointer.unlink(missing_ok=True)
        else:
            pointer.write_bytes(before)
        raise


def _dvc(project: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=project,
        env=os.environ | {"DVC_NO_ANALYTICS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or done.stderr.splitlines()
        raise BackendError(
            f"`dvc {' '.join(arguments)}` failed: {' '.join(lines).removeprefix('ERROR: ') or 'no reason given'}"
        )
    return done.stdout


def resolve(repository: str, revision: str, path: str) -> Version:
    """Which version of raw data a revision of a repository has, and in which remote.

    Args:
        repository: a local path or a git URL.
        revision: branch, tag or commit.
        path: of the data, relative to the repository's root.

    Raises:
        InputError: no such repository, revision or path, or the path is not under DVC.
        BackendError: the repository cannot be cloned.
    """
    files, name = _open(repository, revision, path), redact(repository)
    try:
        md5 = files.info(path).get("md5")
        config, commit = files.repo.config, files.repo.get_rev()
    except FileNotFoundError as error:
        raise InputError(f"{path!r} is not in {name} at {revision}", "check path and revision") from error
    except _dvc_failures() as error:
        raise _not_opened(repository, revision, error) from error
    if md5 is None:
        raise InputError(
            f"{path!r} in {name} at {revision} is not under DVC as a whole, expected the path of a .dvc "
            "file without its ending"
        )
    remote = remote_of(config)
    lineage = RawLineage(
        md5=md5,
        size=0,
        num_files=0,
        repository=str(Path(repository).resolve()) if Path(repository).is_dir() else name,
        revision=revision,
        commit=commit,
        path=path,
        remote=remote.url,
    )
    return Version(lineage, remote.endpoint_url, remote.is_plain_s3)


def default_remote(project: Path) -> Remote:
    """Where `dvc push` sends the data of a checkout.

    Raises:
        InputError: it is no DVC repository, or its configuration is damaged.
    """
    from dvc.repo import Repo  # the file system would make up a remote where there is none

    try:
        return remote_of(Repo(str(project)).config)
    except _dvc_failures() as error:
        raise InputError(
            f"{project.resolve()} is not a DVC repository that can be used: {_root_cause(error)}",
            "go to one, or mend .dvc/config",
        ) from error


def remote_of(config: Mapping[str, Any]) -> Remote:
    """The default remote in DVC's configuration; its address is empty where there is none."""
    remote = config["remote"].get(config["core"].get("remote"), {})
    hide(secrets_of_settings(remote))  # those of .dvc/config.local
    url = remote.get("url", "")
    said = {key for key, value in remote.items() if _REMOTE_DEFAULTS.get(key) != value}
    return Remote(redact(url), remote.get("endpointurl", ""), url.startswith("s3://") and said <= _PLAIN_REMOTE)


def fetch_by_dvc(repository: str, lineage: RawLineage, folder: Path) -> RawLineage:
    """Bring a version of raw data into a folder through DVC, from whatever remote its repository has.

    Files that are there with the right digest stay, others go.

    Raises:
        InputError: the remote does not have the data.
        BackendError: a file has another digest than it should.
    """
    files = _open(repository, lineage.commit, lineage.path)
    entries = _entries(files, lineage)
    remove_strangers(folder, entries)
    todo = [entry for entry in entries if not _is_there(folder, entry)]
    try:
        for entry in track(todo, description="fetching", total=len(todo)):
            path = folder / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.part")
            files.get_file(f"{lineage.path}/{entry.path}" if is_folder(lineage.md5) else lineage.path, str(part))
            part.replace(path)
    except _dvc_failures() as error:
        raise InputError(
            f"{lineage.path!r} in {lineage.repository} at {lineage.revision} cannot be fetched: {_root_cause(error)}",
            "run `dvc push` where the data is",
        ) from error
    check_digests(folder, entries, lineage.repository)
    size = sum((folder / entry.path).stat().st_size for entry in entries)
    return replace(lineage, size=size, num_files=len(entries))


def _is_there(folder: Path, entry: ListedFile) -> bool:
    return (folder / entry.path).is_file() and has_md5(folder / entry.path, entry.md5)


def _entries(files: "DVCFileSystem", lineage: RawLineage) -> Sequence[ListedFile]:
    if not is_folder(lineage.md5):
        return [ListedFile(lineage.path.rsplit("/", 1)[-1], lineage.md5)]
    try:
        found = files.find(lineage.path, detail=True)
    except _dvc_failures() as error:
        raise InputError(
            f"{lineage.path!r} in {lineage.repository} at {lineage.revision} cannot be listed: {_root_cause(error)}",
            "run `dvc push` where the data is",
        ) from error
    entries = [ListedFile(name.removeprefix(f"{lineage.path}/"), info["md5"]) for name, info in found.items()]
    for entry in entries:
        check_name(entry.path, lineage.repository)
    return entries


def _open(repository: str, revision: str, path: str) -> "DVCFileSystem":
    from dvc.api import DVCFileSystem

    check_name(path, redact(repository))
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it tells of every single retry
    try:
        return DVCFileSystem(repository, rev=revision)
    except _dvc_failures() as error:
        raise _not_opened(repository, revision, error) from error


def _not_opened(repository: str, revision: str, error: Exception) -> DagnnError:
    from dvc.scm import CloneError

    kind = BackendError if isinstance(error, CloneError) and "://" in repository else InputError
    name = redact(repository)
    return kind(f"{name} at {revision} cannot be opened: {_root_cause(error)}; check repository and revision")


def _dvc_failures() -> tuple[type[Exception], ...]:
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError
    from scmrepo.exceptions import SCMError

    return (DvcException, DataIndexDirError, SCMError, OSError)


def _root_cause(error: BaseException) -> str:
    while error.__cause__:  # DVC's own message may be no more than "SCM error"
        error = error.__cause__
    return one_line(error)
