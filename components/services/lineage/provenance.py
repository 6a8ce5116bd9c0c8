"""Where an artifact came from: ancestors, parameters, git commit, package versions, and what ran it."""

import logging
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from components.git import changed_files, head, try_git
from components.services.data_versions.lock_history import LOCK
from components.services.data_versions.raw_version import RawLineage
from dagnn_core.artifacts import Artifact

log = logging.getLogger(__name__)

_CHECKOUT = Path(__file__).resolve().parents[3]  # of the code that runs, wherever it is called from
# what is set where a step runs in an image or as a task of a pipeline -> its name in the record
_EXECUTION = {"DAGNN_IMAGE": "image", "DAGNN_PIPELINE_RUN": "pipeline_run"}
_PACKAGES = ("imagehash", "numpy", "pillow", "pyarrow", "safetensors", "scipy", "torch")


def provenance(
    step: str,
    *sections: Any,
    parents: Sequence[Artifact] = (),
    raw: RawLineage | None = None,
    machine: Mapping[str, Any] | None = None,
    uris: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The record for a manifest: `ancestors` maps every artifact it was made from to its content digest.

    `origins` has the records of these artifacts themselves: each may be of another commit, and only together do they
    say how to rebuild this one. `uris` maps each kind to where a pipeline run stored it, as far as that is known.
    The record holds no time, so that equal work makes equal files.

    Args:
        step: name of the step.
        sections: the sections of the configuration that the step was run with.
        parents: the artifacts that it read.
        raw: the version of the raw data that it read; `raw` among the ancestors is its md5.
        machine: what its metrics depend on, see `dagnn_core.devices.describe_machine`.
        uris: kind -> where the pipeline run stores it, of the artifact itself and of raw data; paths of this machine
            are left out.
    """
    ancestors: dict[str, str] = {"raw": raw.md5} if raw else {}
    origins: dict[str, Any] = {}
    stored: dict[str, str] = {}
    for parent in parents:
        record = dict(parent.provenance)
        ancestors |= record.pop("ancestors", {}) | {parent.kind: parent.content_digest}
        stored |= record.pop("uris", {})
        origins |= record.pop("origins", {}) | {parent.kind: record}
    stored |= {kind: uri for kind, uri in (uris or {}).items() if "://" in uri}
    return {
        "step": step,
        "params": {section.NAME: asdict(section) for section in sections},
        "ancestors": ancestors,
        "origins": origins,
        **({"uris": stored} if stored else {}),
        **({"raw": asdict(raw)} if raw else {}),
        "git": git_state(),
        "execution": _execution() | ({"machine": dict(machine)} if machine else {}),
        "packages": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    }


def _execution() -> dict[str, str]:
    """The image and the run of the pipeline that this process belongs to, as far as its environment names them."""
    return {name: os.environ[variable] for variable, name in _EXECUTION.items() if os.environ.get(variable)}


def git_state() -> dict[str, Any]:
    """Commit of this code's checkout, and which tracked files differ from it (`changed`), apart from `dvc.lock`.

    An image, which has no git, names its commit in DAGNN_GIT_COMMIT; of an installed wheel it is unknown, also where
    the environment lies in the checkout of another project. A checkout whose commit git does not tell warns.
    """
    baked_in = os.environ.get("DAGNN_GIT_COMMIT")
    if baked_in:
        return {"commit": baked_in, "dirty": False, "changed": []}
    commit = head(_CHECKOUT)
    if commit is None and (_CHECKOUT / ".git").exists():
        log.warning("no commit is recorded: git finds none in the checkout %s", _CHECKOUT)
    changed = changed_files(_CHECKOUT, exclude=LOCK)  # DVC writes it after every stage, so by the next one it differs
    if commit is None or changed is None or not try_git(_CHECKOUT, "ls-files", "--", "."):
        return {"commit": "unknown", "dirty": True, "changed": []}
    return {"commit": commit, "dirty": bool(changed), "changed": changed}
