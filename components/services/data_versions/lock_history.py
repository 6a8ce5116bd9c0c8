"""Which commit of a project holds the `dvc.lock` that lists a model: the versions of all data that led to it."""

import hashlib
import json
import subprocess
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

LOCK = "dvc.lock"


def dvc_digest(folder: Path) -> str:
    """DVC's digest of a folder: `<md5>.dir`, the md5 of the list of its files with theirs."""
    entries = [
        {"md5": _md5(path), "relpath": path.relative_to(folder).as_posix()}
        for path in folder.rglob("*")
        if path.is_file()
    ]
    listing = json.dumps(sorted(entries, key=lambda entry: entry["relpath"]), sort_keys=True)
    return hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest() + ".dir"


def find_commit(project: Path, digest: str) -> str | None:
    """The first commit whose `dvc.lock` lists an output with this digest; None where there is none, or no repository.

    Args:
        project: root of the DVC repository; what its branches, its tags and HEAD lead to is searched.
        digest: DVC's.
    """
    search = ("log", "--reverse", "--format=%H", f"-S{digest}", "HEAD", "--branches", "--tags", "--", LOCK)
    commits = (_git(project, *search) or "").split()
    return next((commit for commit in commits if digest in _digests(project, commit)), None)


def _digests(project: Path, commit: str) -> set[str]:
    """Digests of the outputs of all stages, as of a commit."""
    try:
        stages = YAML(typ="safe", pure=True).load(_git(project, "show", f"{commit}:./{LOCK}") or "")["stages"]
        return {out["md5"] for stage in stages.values() for out in stage.get("outs", ())}
    except (YAMLError, KeyError, TypeError, AttributeError):
        return set()  # taken away there, or not DVC's


def _git(project: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=project, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
