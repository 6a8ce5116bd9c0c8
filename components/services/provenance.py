"""Where an artifact came from: ancestors, parameters, git commit, package versions."""

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from components.services.lineage import RawLineage
from dagnn_core.artifacts import Artifact

_CHECKOUT = Path(__file__).resolve().parents[2]  # of the code that runs, wherever it is called from
_PACKAGES = ("numpy", "pillow", "pyarrow", "safetensors", "torch")


def provenance(
    step: str, *sections: Any, parents: Sequence[Artifact] = (), raw: RawLineage | None = None
) -> dict[str, Any]:
    """The record for a manifest: `ancestors` maps every artifact it was made from to its content digest.

    It holds no time, so that equal work makes equal files.

    Args:
        step: name of the step.
        sections: the sections of the configuration that the step was run with.
        parents: the artifacts that it read.
        raw: the version of the raw data that it read; `raw` among the ancestors is its md5.
    """
    ancestors: dict[str, str] = {"raw": raw.md5} if raw else {}
    for parent in parents:
        ancestors |= parent.provenance.get("ancestors", {}) | {parent.kind: parent.content_digest}
    return {
        "step": step,
        "params": {type(section).__name__: asdict(section) for section in sections},
        "ancestors": ancestors,
        **({"raw": asdict(raw)} if raw else {}),
        "git": git_state(),
        "packages": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    }


def git_state() -> dict[str, Any]:
    """Commit of this code's checkout, and whether tracked files differ from it, apart from `dvc.lock`.

    An image, which has no git, names its commit in DAGNN_GIT_COMMIT.
    """
    baked_in = os.environ.get("DAGNN_GIT_COMMIT")
    if baked_in:
        return {"commit": baked_in, "dirty": False}
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {"commit": "unknown", "dirty": True}
    # DVC writes dvc.lock after every stage, so by the next one it differs
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)dvc.lock")
    return {"commit": commit, "dirty": bool(changed)}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=_CHECKOUT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
