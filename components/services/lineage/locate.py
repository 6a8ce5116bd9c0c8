"""Whether what a model was made from can still be had: in this checkout, in DVC's cache and remote, in S3."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from components.git import UntrustedCheckoutError, check_trusted, try_git
from components.locations import ARTIFACTS, RUNS
from components.services.data_versions.object_stores import (
    ObjectStore,
    brief_storage,
    content_digest,
    objects_of,
    places,
    s3_place,
    tracked,
)
from components.services.data_versions.raw_version import LINEAGE, parse_lineage
from components.services.storage.s3 import Storage, parse_uri
from dagnn_core.artifacts import MANIFEST, digest_of, parse_manifest, read_artifact
from dagnn_core.errors import ArtifactError, DagnnError
from dagnn_core.text import one_line

MAX_COMMITS = 50
"""Commits whose `dvc.lock` and `.dvc` files are read, from the one that made the model on."""
# folders of artifacts: those of the DVC stages, and the outputs of the tasks of `dagnn run`
_ARTIFACTS = (f"{ARTIFACTS}/{{kind}}", f"{RUNS}/*/*/{{kind}}_out")
MAX_RECORD = 1 << 24  # bytes of a manifest that is downloaded
# what they say of a training, its record repeats
_RECORDED_FILES = {"params.yaml", ".gitignore"}


class State(StrEnum):
    """Whether something can be had."""

    FOUND = "found"
    RECORDED = "recorded"
    """Known, but not looked for."""
    MISSING = "missing"
    UNKNOWN = "unknown"
    """It could not be looked for."""


class Lookup(NamedTuple):
    """What became of a search."""

    state: State
    reason: str
    """Where it is, or why it is not."""
    commit: str = ""
    """The commit at which DVC tracks it."""
    path: str = ""
    """Its path there."""


class ArtifactLocator:
    """Looks for commits, artifacts and raw data, from a folder with a checkout of the project."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self._failures: dict[str, str] = {}  # place -> why it cannot be asked
        self._tracked: dict[str, dict[str, str]] = {}  # commit -> path -> md5: each takes DVC a moment

    def commit(self, commit: str, changed: Sequence[str]) -> Lookup:
        """Look for a commit.

        Args:
            commit: its 40 digits.
            changed: files that differed from it.
        """
        if self._no_checkout:
            return Lookup(State.UNKNOWN, self._no_checkout)
        if not self._has(commit):
            return Lookup(State.MISSING, "this checkout does not have it; fetch it, if a clone of the project does")
        if lost := lost_changes(changed):
            return Lookup(State.MISSING, f"uncommitted changes of that time are not recorded: {', '.join(lost)}")
        refs = self._git(
            "for-each-ref", "--contains", commit, "--format=%(refname:short)", "refs/heads", "refs/remotes"
        )
        tags = self._git("tag", "--contains", commit)
        names = [name for name in f"{refs or ''}\n{tags or ''}".split() if not name.endswith("/HEAD")]
        if not names:
            return Lookup(State.FOUND, "in no branch and no tag, so git may remove it; tag it")
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return Lookup(State.FOUND, f"in {', '.join(names[:3])}{more}")

    def artifact(self, kind: str, digest: str, commit: str) -> Lookup:
        """Look for an artifact with this content: in the folders of artifacts, and where DVC keeps it.

        Args:
            kind: of artifact.
            digest: its content digest.
            commit: the one that made it; `dvc.lock` is read there and at later commits.
        """

        def is_wanted(path: str, md5: str) -> bool:
            return path == str(ARTIFACTS / kind) and self._digest(md5) == digest

        kept = self._kept(commit, is_wanted)
        folders = (folder for pattern in _ARTIFACTS for folder in sorted(self.project.glob(pattern.format(kind=kind))))
        here = next((folder for folder in folders if _has_content(folder, kind, digest)), None)
        if here is None:
            return kept
        reasons = [f"in {here.relative_to(self.project)}", *([kept.reason] if kept.state is State.FOUND else [])]
        return kept._replace(state=State.FOUND, reason=", ".join(reasons))

    def raw(self, md5: str, commit: str, remote: str = "") -> Lookup:
        """Look for a version of raw data: where DVC keeps it, else in the remote that it was fetched from.

        Args:
            md5: DVC's digest of it.
            commit: the one that made the data set.
            remote: URL of the DVC remote that it was fetched from.
        """
        kept = self._kept(commit, lambda _, candidate: candidate == md5)
        if kept.state is State.FOUND or not remote.startswith("s3://"):
            return kept
        return self._located([s3_place(remote)], md5)

    def stored_artifact(self, uri: str, digest: str) -> Lookup:
        """Look for an artifact with this content in the store of the pipeline run that made it.

        Its manifest is downloaded; all files that this names must be there with the sizes that it states.

        Args:
            uri: of the artifact's folder, `s3://...` or `minio://...`.
            digest: its content digest.
        """

        def look(storage: Storage, folder: str) -> Lookup:
            text = _read_small(storage, f"{folder}/{MANIFEST}")
            if text is None:
                return Lookup(State.MISSING, f"{uri} has no {MANIFEST}")
            try:
                files = parse_manifest(text, f"{uri}/{MANIFEST}").files
            except ArtifactError as error:
                return Lookup(State.MISSING, str(error))
            if (found := digest_of(files)) != digest:
                return Lookup(State.MISSING, f"{uri} has another content (digest {found[:12]})")
            stored = storage.stat_all([f"{folder}/{name}" for name in files], description="looking for files")
            sizes = {name: entry and entry.size for name, entry in zip(files, stored, strict=True)}
            lost = [name for name, record in files.items() if sizes[name] != record.size]
            if lost:
                return Lookup(State.MISSING, f"{uri} lacks {len(lost)} of {len(files)} files, such as {lost[0]}")
            return Lookup(State.FOUND, f"in {uri}")

        return self._in_store(uri, look)

    def stored_raw(self, uri: str, md5: str) -> Lookup:
        """Look for raw data in the store of the pipeline run that fetched it.

        Args:
            uri: of the folder, `s3://...` or `minio://...`.
            md5: DVC's digest of it; empty where it is not known.
        """

        def look(storage: Storage, folder: str) -> Lookup:
            if not storage.names_below(folder):
                return Lookup(State.MISSING, f"{uri} has no files")
            if not md5:
                return Lookup(State.FOUND, f"in {uri}, in which version is not recorded")
            text = _read_small(storage, f"{folder}/{LINEAGE}")
            if text is None or parse_lineage(text).md5 != md5:
                return Lookup(State.MISSING, f"{uri} has another version")
            return Lookup(State.FOUND, f"in {uri}")

        return self._in_store(uri, look)

    def in_git(self, path: str, commit: str) -> Lookup:
        """Look for a file or folder that git has at a commit."""
        if self._git("cat-file", "-e", f"{commit}:./{path}") is not None:
            return Lookup(State.FOUND, f"in git at {commit[:12]}")
        return Lookup(State.MISSING, f"no version of it is recorded: neither git nor DVC had it at {commit[:12]}")

    def input_file(self, path: str, commit: str) -> Lookup:
        """Look for a file or folder that git has at a commit, or that DVC tracks there."""
        finding = self.in_git(path, commit)
        if finding.state is State.MISSING:
            for out, md5 in self._tracked_at(commit).items():
                if PurePosixPath(path).is_relative_to(out):
                    found = self._located(self._places, md5)
                    return found._replace(reason=f"{found.reason} ({out} at {commit[:12]})")
        return finding

    @cached_property
    def _no_checkout(self) -> str:
        """Why git knows nothing of the project; empty where it does."""
        try:
            check_trusted(self.project)
        except UntrustedCheckoutError as error:
            return str(error)
        is_checkout = self._git("rev-parse", "--git-dir") is not None
        return "" if is_checkout else f"{self.project.resolve()} is not in a git checkout; run this in the project"

    @cached_property
    def _places(self) -> list[ObjectStore]:
        found = []
        try:
            for place in places(self.project):
                found.append(place)  # the cache counts where the remote cannot be opened
        except Exception as error:  # DVC's own, of its configuration
            self._failures["DVC"] = f"DVC: {one_line(error)}"
        return found

    def _kept(self, commit: str, is_wanted: Callable[[str, str], bool]) -> Lookup:
        """The first version that DVC tracks and that is the wanted one (path, md5), and which places have it."""
        if self._no_checkout:
            return Lookup(State.UNKNOWN, self._no_checkout)
        seen: set[tuple[str, str]] = set()
        unreadable = ""
        revisions = self._commits(commit)
        for revision in revisions:
            try:
                versions = self._tracked_at(revision).items() - seen
            except Exception as error:  # DVC's own, of files that it cannot read
                unreadable = f"DVC cannot read {revision[:12]}: {one_line(error)}"
                continue
            seen |= versions
            for path, md5 in sorted(versions):
                if is_wanted(path, md5):
                    found = self._located(self._places, md5)
                    return found._replace(
                        reason=f"{found.reason} ({path} at {revision[:12]})", commit=revision, path=path
                    )
        failures = [*self._failures.values(), *([unreadable] if unreadable else [])]
        if failures:
            return Lookup(State.UNKNOWN, "; ".join(failures))
        lost = f"no dvc.lock or .dvc file of {len(revisions)} commits looked at has it, or its files are gone"
        return Lookup(State.MISSING, lost)

    def _commits(self, commit: str) -> list[str]:
        """The commit, and those after it, in any branch or experiment, that change what DVC tracks; the oldest first.

        Of a commit that is not here, the last ones of all.
        """
        files = ["--", "dvc.lock", "*.dvc"]
        if self._has(commit):
            later = self._git("rev-list", "--all", "--ancestry-path", f"^{commit}", *files) or ""
            return [commit, *reversed(later.split())][:MAX_COMMITS]
        return (self._git("rev-list", "--all", f"--max-count={MAX_COMMITS}", *files) or "").split()

    def _tracked_at(self, commit: str) -> dict[str, str]:
        if commit not in self._tracked:
            self._tracked[commit] = tracked(self.project, commit)
        return self._tracked[commit]

    def _digest(self, md5: str) -> str | None:
        """Content digest of an artifact that DVC keeps; None where no place has it."""
        for place in self._places:
            with self._asking(place):
                if place.name not in self._failures and not place.lacks([md5]):
                    digest = content_digest(place, md5)
                    if digest is not None:
                        return digest
        return None

    def _located(self, candidates: Sequence[ObjectStore], md5: str) -> Lookup:
        """Which places have all files of a version."""
        having, lacking = [], []
        for place in candidates:
            with self._asking(place):
                if place.name in self._failures:
                    continue
                if place.lacks([md5]):
                    lacking.append(f"{place.name} lacks it")
                    continue
                try:
                    files = objects_of(place, md5)
                except ValueError as error:
                    lacking.append(f"{place.name}: {error}")
                    continue
                lost = set(place.lacks([file for _, file in files]))
                if lost:
                    first = next(name for name, file in files if file in lost)
                    lacking.append(f"{place.name} lacks {len(lost)} of {len(files)} files, such as {first}")
                else:
                    having.append(place.name)
        if having:
            return Lookup(State.FOUND, f"in {' and '.join(having)}")
        reason = "; ".join([*lacking, *self._failures.values()]) or "there is no DVC here"
        return Lookup(State.UNKNOWN if self._failures else State.MISSING, reason)

    def _in_store(self, uri: str, look: Callable[[Storage, str], Lookup]) -> Lookup:
        """Look below a URI of a pipeline run's store; one that cannot be asked is not asked again."""
        scheme, _, rest = uri.partition("://")
        if scheme not in ("s3", "minio") or not rest:
            return Lookup(State.UNKNOWN, f"{uri} is not searched: this program reads S3 alone")
        if scheme == "minio" and not any(map(os.environ.get, ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))):
            return Lookup(State.UNKNOWN, f"{uri} is not searched: set AWS_ENDPOINT_URL_S3 to its store")
        folder = f"s3://{rest.rstrip('/')}"
        bucket = f"s3://{parse_uri(folder).bucket}"
        if bucket not in self._failures:
            try:
                return look(brief_storage(), folder)
            except DagnnError as error:
                self._failures[bucket] = f"{uri} cannot be searched: {one_line(error)}"
            except (ValueError, KeyError, TypeError, AttributeError):
                return Lookup(State.MISSING, f"the record in {uri} is damaged")
        return Lookup(State.UNKNOWN, self._failures[bucket])

    @contextmanager
    def _asking(self, place: ObjectStore) -> Iterator[None]:
        """Keep in mind that a place cannot be asked: it may have taken long to say so."""
        try:
            yield
        except Exception as error:  # every kind of remote fails in its own way
            self._failures[place.name] = f"{place.name}: {one_line(error)}"

    def _has(self, commit: str) -> bool:
        return self._git("cat-file", "-e", f"{commit}^{{commit}}") is not None

    def _git(self, *arguments: str) -> str | None:
        return try_git(self.project, *arguments)


def lost_changes(changed: Sequence[str]) -> list[str]:
    """Those of the files that differed from a commit whose content then nothing records."""
    return [name for name in changed if Path(name).name not in _RECORDED_FILES and not name.endswith(".dvc")]


def _has_content(folder: Path, kind: str, digest: str) -> bool:
    try:
        return read_artifact(folder, kind).content_digest == digest
    except ArtifactError:
        return False


def _read_small(storage: Storage, uri: str) -> bytes | None:
    """A small file in the store; None where there is none."""
    found = storage.find(uri)
    return None if found is None else storage.read(uri, found.digest, max_bytes=MAX_RECORD)
