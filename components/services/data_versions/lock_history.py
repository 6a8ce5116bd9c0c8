"""Which commit of a project holds the `dvc.lock` that lists a model: the versions of all data that led to it."""

from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.git import try_git

LOCK = "dvc.lock"


def find_commit(project: Path, digest: str) -> str | None:
    """The first commit whose `dvc.lock` lists an output with this digest; None where there is none, or no repository.

    Args:
        project: root of the DVC repository; what its branches, its tags and HEAD lead to is searched.
        digest: DVC's.
    """
    search = ("log", "--reverse", "--format=%H", f"-S{digest}", "HEAD", "--branches", "--tags", "--", LOCK)
    commits = (try_git(project, *search) or "").split()
    return next((commit for commit in commits if digest in _digests(project, commit)), None)


def _digests(project: Path, commit: str) -> set[str]:
    """Digests of the outputs of all stages, as of a commit."""
    try:
        stages = YAML(typ="safe", pure=True).load(try_git(project, "show", f"{commit}:./{LOCK}") or "")["stages"]
        return {out["md5"] for stage in stages.values() for out in stage.get("outs", ())}
    except (YAMLError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return set()  # taken away there, or not DVC's
