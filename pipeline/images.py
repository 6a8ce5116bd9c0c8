"""The container images of the tasks: built from a commit, known by digest.

A tag such as `latest` may name another image tomorrow: a cached result, a lineage record or a rollback would be wrong
without anybody's noticing. So the pipeline takes digests alone, and `infra/images.json` has those of the last build.
"""

import json
import logging
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from components.git import changed_files, check_trusted, git, head
from dagnn_core.errors import BackendError, InputError
from dagnn_core.text import first_line
from pipeline.step_table import STEPS

log = logging.getLogger(__name__)

IMAGES_FILE = Path("infra/images.json")
TARGETS = ("cpu", "gpu", "serve", "mlflow")
_DOCKERFILE = "infra/docker/Dockerfile"
_REFERENCE = re.compile(r"[\w./:-]+@sha256:[0-9a-f]{64}")
_LOCAL_ID = re.compile(r"sha256:[0-9a-f]{64}")


class Images(NamedTuple):
    """References of the images that the tasks run in; where there is no GPU image, `train` is the same."""

    tasks: str
    train: str

    def of(self, step: str) -> str:
        """The image that a step runs in."""
        return self.train if STEPS[step].size == "train" else self.tasks


def pullable(images: Images) -> Images:
    """The same images, which a cluster can pull, and which stay what they are.

    Raises:
        InputError: a reference has no digest, or is known to this machine only.
    """
    for image in images:
        if not _REFERENCE.fullmatch(image):
            raise InputError(
                f"image {image}: expected NAME@sha256:..., which a cluster can pull and which stays the same image",
                "`make images REGISTRY=...` pushes images and writes their digests",
            )
    return images


def read_images(path: Path = IMAGES_FILE) -> Images:
    """The images that `make images` built last.

    Raises:
        InputError: the file is missing or holds something else.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist", "`make images` builds the images and writes it")
    try:
        references = json.loads(path.read_text(encoding="utf-8"))
        images = Images(tasks=references["cpu"], train=references.get("gpu", references["cpu"]))
    except (ValueError, RecursionError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f'{path} is not {{"cpu": "...", ...}}', "`make images` writes it again") from error
    for image in images:
        if not (isinstance(image, str) and (_REFERENCE.fullmatch(image) or _LOCAL_ID.fullmatch(image))):
            raise InputError(f"{path}: {image} is not a digest, expected NAME@sha256:... or sha256:...")
    return images


def check_commit(commit: str, path: Path = IMAGES_FILE) -> None:
    """See that the images that `make images` built last are of a commit.

    Raises:
        InputError: they are of another one.
    """
    built = json.loads(path.read_text(encoding="utf-8")).get("commit", "an unknown commit")
    if built != commit:
        raise InputError(
            f"{path} has images of {built[:12]}, but the checkout is at {commit[:12]}",
            "run `make images` again, or add --allow-dirty",
        )


def build_images(*, targets: Sequence[str], registry: str | None, options: Sequence[str], out: Path) -> dict[str, str]:
    """Build the images of the commit that is checked out, push them where a registry is given, and write `out`.

    The build sees the files of the commit and nothing else, so an image is what its label says. It needs BuildKit,
    which builds the stages of a target only; Docker's classic builder builds those of other targets, too.

    Args:
        targets: of `TARGETS`.
        registry: prefix of the images' names, as `registry.example/team`.
        options: further options of `docker build`.
        out: JSON file, target -> reference by digest; without a registry, the id that this machine knows it by; and
            `commit`, that of the images.

    Raises:
        InputError: this is not a git checkout, a target does not exist, or `DOCKER_BUILDKIT` turns BuildKit off.
        BackendError: docker is not there, has no BuildKit, or failed.
    """
    unknown = [target for target in targets if target not in TARGETS]
    if unknown:
        raise InputError(f"{unknown[0]} is not a target, expected one of {', '.join(TARGETS)}")
    check_trusted(Path())
    commit, changed = head(Path()), changed_files(Path())
    if commit is None:
        raise InputError(
            "images are built from a commit, and this folder is not in a git checkout that has one",
            "go to the project's checkout, and commit",
        )
    _check_buildkit()
    if changed:
        log.warning("not in the images, because it is not committed: %s", ", ".join(changed))
    references = {}
    for target in targets:
        name = f"{registry.rstrip('/')}/dagnn-{target}" if registry else f"dagnn-{target}"
        local_id = _build(target, commit, f"{name}:{commit}", options)
        references[target] = _push(name, commit) if registry else local_id
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps({"commit": commit, **references}, indent=2) + "\n", encoding="utf-8")
    partial.replace(out)
    return references


def _check_buildkit() -> None:
    """Ask the client for the help text of `docker build`: one without BuildKit refuses even that, without an engine."""
    wanted = os.environ.get("DOCKER_BUILDKIT", "")
    if wanted not in ("", "1"):
        raise InputError(
            f"DOCKER_BUILDKIT is {wanted!r}, expected 1 or nothing: the classic builder builds all targets of the "
            "Dockerfile",
            "unset DOCKER_BUILDKIT",
        )
    done = _run(["docker", "build", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        reason = first_line(done.stderr)
        raise BackendError(
            f"docker cannot build with BuildKit ({reason})",
            "install its buildx plugin (package docker-buildx or "
            "docker-buildx-plugin), or put a docker that has it first on PATH",
        )


def _build(target: str, commit: str, tag: str, options: Sequence[str]) -> str:
    labels = [f"REVISION={commit}", f"VERSION={version('dagnn')}"]
    with tempfile.TemporaryDirectory() as directory, tempfile.TemporaryFile() as context:
        git(Path(), "archive", commit, stdout=context)
        context.seek(0)
        id_file = Path(directory) / "id"
        command = [
            "docker",
            "build",
            "--file",
            _DOCKERFILE,
            "--target",
            target,
            "--tag",
            tag,
            "--iidfile",
            str(id_file),
        ]
        command += [argument for label in labels for argument in ("--build-arg", label)]
        _docker([*command, *options, "-"], stdin=context.fileno())
        return id_file.read_text(encoding="utf-8").strip()


def _push(name: str, tag: str) -> str:
    _docker(["docker", "push", f"{name}:{tag}"])
    inspect = ["docker", "image", "inspect", "--format", "{{json .RepoDigests}}", f"{name}:{tag}"]
    digests: list[str] = json.loads(_docker(inspect, capture=True))
    return next(digest for digest in digests if digest.startswith(f"{name}@"))


def _docker(command: Sequence[str], *, stdin: int = subprocess.DEVNULL, capture: bool = False) -> str:
    done = _run(command, stdin=stdin, stdout=subprocess.PIPE if capture else None)
    if done.returncode != 0:
        what = " ".join(command[:2])
        raise BackendError(f"`{what}` failed with exit status {done.returncode}", "its last lines above say why")
    return done.stdout or ""


def _run(
    command: Sequence[str], *, stdin: int = subprocess.DEVNULL, stdout: int | None = None, stderr: int | None = None
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"DOCKER_BUILDKIT": "1"}  # Docker before version 23 has to be asked for it
    try:
        return subprocess.run(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=environment,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise BackendError("docker is not on PATH", "install Docker, or put it there") from error
