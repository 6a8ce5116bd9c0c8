"""DVC, behind one module: what `dvc add`, `status` and `check-ignore` call, and the file system of `dvc.api`."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from configparser import ConfigParser
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from components.git import check_trusted
from components.services.data_versions.archives import check_name
from components.services.data_versions.layout import ListedFile, is_folder
from components.services.data_versions.raw_version import RawLineage, read_pointer
from components.services.data_versions.s3_remote import check_digests, has_md5, remove_strangers
from dagnn_core.errors import BackendError, DagnnError, InputError
from dagnn_core.progress import track as show_progress
from dagnn_core.redaction import hide, redact, secrets_of_settings
from dagnn_core.text import one_line

if TYPE_CHECKING:
    from dvc.api import DVCFileSystem
    from dvc.pathspec_math import PatternInfo

_HEAD = ".git/HEAD"
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


class KeptFile(NamedTuple):
    """A file that DVC keeps."""

    md5: str
    path: Path
    """In DVC's cache."""


class IgnoredFile(NamedTuple):
    """A file that DVC ignores."""

    name: str
    pattern: str
    origin: str
    """File and line of the pattern; empty where DVC has it built in."""


def track(project: Path, target: Path) -> None:
    """Put a folder under DVC, as `dvc add` does: its files into DVC's cache, and a `.dvc` file beside it.

    In this process, so that a kill ends DVC as well and the next start need not wait for it.

    Raises:
        BackendError: DVC refuses, or fails.
    """
    with _dvc(project, f"add {target.relative_to(project)}") as repo:
        repo.add([str(project.resolve() / target.relative_to(project))])


def is_unchanged(project: Path, target: Path) -> bool:
    """Whether the files of a folder that DVC sees are those of its `.dvc` file, as `dvc status` says.

    Raises:
        BackendError: DVC fails.
    """
    pointer = f"{target.relative_to(project)}.dvc"
    with _dvc(project, f"status {pointer}") as repo:
        return not repo.status(targets=[str(project.resolve() / pointer)])


def kept_files(project: Path, target: Path) -> dict[str, KeptFile]:
    """The files of a folder that its `.dvc` file stands for, by path; a single file has the path ''.

    Raises:
        BackendError: DVC fails, or its cache does not have the list of files.
    """
    with _dvc(project, f"list the files of {target.relative_to(project)}") as repo:
        (out,) = repo.find_outs_by_path(str(project.resolve() / target.relative_to(project)))
        found = out.get_obj() if out.is_dir_checksum else [((), None, out.hash_info)]
        if found is None:
            raise FileNotFoundError(f"DVC's cache does not have {out.hash_info.value}")
        return {"/".join(key): KeptFile(oid.value, Path(out.cache.oid_to_path(oid.value))) for key, _, oid in found}


def ignored_files(project: Path, target: Path, names: Iterable[str]) -> list[IgnoredFile]:
    """Those of the files below a folder that DVC would ignore.

    Raises:
        BackendError: DVC fails.
    """
    folder = project.resolve() / target.relative_to(project)
    with _dvc(project, "read .dvcignore") as repo:
        found = [(name, repo.dvcignore.check_ignore(str(folder / name))) for name in names]
    # the last pattern is the one that decides
    return [_ignored_file(name, result.pattern_infos[-1]) for name, result in found if result.match]


def _ignored_file(name: str, pattern: "PatternInfo") -> IgnoredFile:
    if pattern.file_info.startswith("in sub_repo:"):  # a folder that holds a .dvc
        return IgnoredFile(name, ".dvc/", "")
    return IgnoredFile(name, pattern.patterns, ":".join(pattern.file_info.split(":", 2)[:2]))


@contextmanager
def _dvc(project: Path, command: str) -> Iterator[Any]:
    """DVC's repository, without progress bars; what DVC or a library below it raises or logs becomes our error."""
    from dvc.repo import Repo

    dvc, libraries = logging.getLogger("dvc"), [logging.getLogger(name) for name in ("dvc_data", "dvc_objects")]
    level, said = dvc.level, _ErrorsSaid(logging.ERROR)
    dvc.setLevel(logging.CRITICAL)  # which takes the bars away
    for logger in libraries:
        logger.addHandler(said)
        logger.propagate = False
    try:
        with Repo(str(project)) as repo:
            _mend_readers_and_writers(repo)
            yield repo
    except Exception as error:  # every library below DVC has errors of its own
        raise BackendError(f"`dvc {command}` failed: {'; '.join([_reasons(error), *said.lines[:1]])}") from error
    finally:
        dvc.setLevel(level)
        for logger in libraries:
            logger.removeHandler(said)
            logger.propagate = True
    if said.lines:  # a file that cannot be copied into the cache is logged, and no error
        raise BackendError(f"`dvc {command}` failed: {said.lines[0]}")


def _mend_readers_and_writers(repo: Any) -> None:
    """Remove DVC's list of those who read or write, if a kill tore it: DVC would refuse every command from then on."""
    from dvc.lock import make_lock
    from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK

    folder = repo.tmp_dir
    path = Path(folder, RWLOCK_FILE)
    hardlink_lock = repo.config["core"].get("hardlink_lock", False)
    with make_lock(str(Path(folder, RWLOCK_LOCK)), tmp_dir=folder, hardlink_lock=hardlink_lock):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            pass
        except ValueError:
            path.unlink()


class _ErrorsSaid(logging.Handler):
    """Keeps the errors that are logged."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info and record.exc_info[1]
        self.lines.append(one_line(record.getMessage()) + (f" ({one_line(error)})" if error else ""))


def _reasons(error: BaseException) -> str:
    """What an error says, and what the error that it came of says, where that is more."""
    said, cause = one_line(error), _root_cause(error)
    return said if cause in said else f"{said}: {cause}"


def resolve(repository: str, revision: str, path: str) -> Version:
    """Which version of raw data a revision of a repository has, and in which remote.

    Where DVC is not installed, as in the images, a checkout answers for the revision that is checked out.

    Args:
        repository: a local path or a git URL.
        revision: branch, tag or commit.
        path: of the data, relative to the repository's root.

    Raises:
        InputError: no such repository, revision or path, or the path is not under DVC.
        BackendError: the repository cannot be cloned.
    """
    name = redact(repository)
    if (Path(repository) / _HEAD).is_file() and find_spec("dvc") is None:
        return _checked_out(Path(repository), revision, path)
    try:
        with closing(_open(repository, revision, path)) as files:
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


def _checked_out(project: Path, revision: str, path: str) -> Version:
    """The version of raw data in a checkout, as its files say, without git and DVC.

    Raises:
        InputError: another revision is checked out, or the path is not under DVC.
    """
    check_name(path, str(project))
    branch, commit = _head(project)
    if revision not in ("HEAD", branch, commit):
        raise InputError(
            f"{project} has {branch or commit} checked out, expected {revision}: without DVC only that can be read",
            "check it out, or install DVC: pip install 'dvc[s3]'",
        )
    pointer = project / f"{path}.dvc"
    if not pointer.is_file():
        raise InputError(f"{path!r} is not in {project} at {revision}", "check path and revision")
    config = ConfigParser(interpolation=None)
    config.read([project / ".dvc/config", project / ".dvc/config.local"], encoding="utf-8")
    name = config.get("core", "remote", fallback="")
    section = f"'remote \"{name}\"'"
    remotes = {name: dict(config.items(section))} if config.has_section(section) else {}
    remote = remote_of({"core": {"remote": name}, "remote": remotes})
    lineage = replace(
        read_pointer(pointer),
        size=0,
        num_files=0,
        repository=str(project.resolve()),
        revision=revision,
        commit=commit,
        path=path,
        remote=remote.url,
    )
    return Version(lineage, remote.endpoint_url, remote.is_plain_s3)


def _head(project: Path) -> tuple[str, str]:
    """Branch, empty where there is none, and commit that are checked out."""
    folder = project / ".git"
    try:
        said = (project / _HEAD).read_text(encoding="utf-8").strip()
        if not said.startswith("ref: "):
            return "", said
        reference = said.removeprefix("ref: ")
        branch = reference.removeprefix("refs/heads/")
        if (folder / reference).is_file():
            return branch, (folder / reference).read_text(encoding="utf-8").strip()
        packed = (folder / "packed-refs").read_text(encoding="utf-8").splitlines()
        (commit,) = (line.split()[0] for line in packed if line.endswith(f" {reference}"))
    except (OSError, ValueError) as error:
        raise InputError(f"{project} is no git checkout with a commit ({one_line(error)})", "clone it again") from error
    return branch, commit


def default_remote(project: Path) -> Remote:
    """Where `dvc push` sends the data of a checkout.

    Raises:
        InputError: it is no DVC repository, or its configuration is damaged.
    """
    from dvc.repo import Repo  # the file system would make up a remote where there is none

    try:
        with Repo(str(project)) as repo:
            return remote_of(repo.config)
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
    with closing(_open(repository, lineage.commit, lineage.path)) as files:
        entries = _entries(files, lineage)
        remove_strangers(folder, entries)
        todo = [entry for entry in entries if not _is_there(folder, entry)]
        try:
            for entry in show_progress(todo, description="fetching", total=len(todo)):
                path = folder / entry.path
                path.parent.mkdir(parents=True, exist_ok=True)
                part = path.with_name(f".{path.name}.part")
                files.get_file(f"{lineage.path}/{entry.path}" if is_folder(lineage.md5) else lineage.path, str(part))
                part.replace(path)
        except _dvc_failures() as error:
            raise InputError(
                f"{lineage.path!r} in {lineage.repository} at {lineage.revision} cannot be fetched: "
                f"{_root_cause(error)}",
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
    if Path(repository).is_dir():
        check_trusted(Path(repository))
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
    from pygit2 import GitError
    from scmrepo.exceptions import SCMError

    return (DvcException, DataIndexDirError, GitError, SCMError, OSError)


def _root_cause(error: BaseException) -> str:
    while error.__cause__:  # DVC's own message may be no more than "SCM error"
        error = error.__cause__
    return one_line(error)
