"""The attacks: each brings a step to grief in one way, runs it again, and checks what is promised.

An attack returns its outcome as a word or two for the table, or raises `Violation`.
"""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dagnn_core.artifacts import MANIFEST
from tests.chaos.damage import damage
from tests.chaos.project import MAKES, READS, Project

INTERRUPTED = 130
Ended = subprocess.CompletedProcess[str]


class Violation(Exception):  # no error of the attack
    """What is promised does not hold."""


@dataclass(frozen=True)
class Baseline:
    """Undisturbed runs: states before each step and at the end, with time and results."""

    seconds: Mapping[str, float]
    """How long each step takes."""
    digests: Mapping[str, str]
    """Kind of artifact -> what every run must make."""
    sizes: Mapping[str, int]
    """Bytes of each artifact."""


def make_baseline(project: Project) -> Baseline:
    """Run all steps undisturbed, once with other data, whose artifacts are what attacked steps replace."""
    project.create(seed=7, num_scenes=70)
    project.create_database()
    database = (project.root / "mlflow.db").read_bytes()
    for step in MAKES:
        _check_done(project.run_first(step))
    project.save("other")
    project.create(seed=103, num_scenes=80)
    (project.root / "mlflow.db").write_bytes(database)
    seconds = {}
    for step in MAKES:
        project.save(step)
        began = time.monotonic()
        _check_done(project.run(step))
        seconds[step] = time.monotonic() - began
    kinds = [kind for kind in MAKES.values() if kind]
    sizes = {
        kind: sum(path.stat().st_size for path in project.artifact(kind).rglob("*") if path.is_file()) for kind in kinds
    }
    return Baseline(seconds, {kind: str(project.digest(kind)) for kind in kinds}, sizes)


def _check_done(ended: Ended) -> None:
    if ended.returncode:
        raise AssertionError(_output(ended))


@dataclass(frozen=True)
class Attacker:
    """Attacks a project, driven by random numbers."""

    project: Project
    baseline: Baseline
    rng: random.Random

    def kill(self) -> str:
        """Kill or interrupt a step up to three times at random moments."""
        step = self.rng.choice(list(MAKES))
        replaced = self._begin(step)
        for _ in range(self.rng.randint(1, 3)):
            running = self.project.start(step, before=_checkpoint_often)
            time.sleep(self.rng.uniform(0, 1.1) * self.baseline.seconds[step])
            number = self.rng.choices([signal.SIGKILL, signal.SIGTERM, signal.SIGINT], [6, 1, 2])[0]
            running.send_signal(number)
            ended = running.wait()
            if ended.returncode == 0:
                break
            self._check_end(ended, (-signal.SIGKILL, -signal.SIGTERM, INTERRUPTED))
            self._check_old_or_new(step, replaced)
        self._rerun(step)
        return f"{step}: identical"

    def fill(self) -> str:
        """Let the disk be full while a step writes, then give it room."""
        step = self.rng.choice(list(MAKES))
        replaced = self._begin(step)
        folder = self.project.root / self.rng.choice(["artifacts", ".dagnn", "."])
        folder.mkdir(exist_ok=True)
        with _small_disk(folder, spare=int(self._need(step) * self.rng.uniform(0, 1.2))) as grow:
            ended = self.project.start(step, before=_checkpoint_often).wait()
            self._check_refused(ended, step, replaced)
            grow()
            self._rerun(step)
        return f"{step}: {_word(ended)}"

    def limit_files(self) -> str:
        """Limit the size of files, or how many may be open."""
        step = self.rng.choice(list(MAKES))
        replaced = self._begin(step)
        limit_size = self.rng.random() < 0.7
        if limit_size:
            limits = {resource.RLIMIT_FSIZE: int(self._need(step) * self.rng.uniform(0, 0.8)) + 1}
        else:
            limits = {resource.RLIMIT_NOFILE: self.rng.randint(8, 40)}
        ended = self.project.start(step, limits=limits, before=_checkpoint_often).wait()
        # a folder cannot be removed without opening it: the next start does
        self._check_refused(ended, step, replaced, may_leave_drafts=not limit_size)
        self._rerun(step)
        return f"{step}: {_word(ended)}"

    def damage_input(self) -> str:
        """Change a file that a step reads: the step must refuse it, and name it."""
        step = self.rng.choice([step for step in MAKES if step != "dataset"])
        self.project.restore(step)
        inputs = [path for kind in READS[step] for path in self.project.artifact(kind).rglob("*") if path.is_file()]
        path = self.rng.choice(sorted(inputs))
        before = path.read_bytes()
        where = f"{path.relative_to(self.project.root)}, {damage(path, self.rng)}"
        ended = self.project.run(step)
        self._check_end(ended, (0, 2), where)
        if ended.returncode == 0 and not _says_the_same(path, before):
            raise Violation(f"{step} accepted {where}")
        if ended.returncode == 2 and path.name not in _output(ended):
            raise Violation(f"{step} does not name {where}: {_output(ended)[-500:]}")
        return f"{step}: {_word(ended)}"

    def damage_work(self) -> str:
        """Change a file of unfinished work or of the cache: the result must be the same."""
        step = self.rng.choice(["dataset", "extract_features", "train"])
        self.project.restore(step)
        running = self.project.start(step, before=_checkpoint_often)
        deadline = time.monotonic() + self.baseline.seconds[step] * self.rng.uniform(0.3, 1.0)
        while time.monotonic() < deadline and running.poll() is None:
            time.sleep(0.005)
        running.send_signal(signal.SIGKILL)
        running.wait()
        files = [
            path for path in (self.project.root / ".dagnn").rglob("*") if path.is_file() and path.suffix != ".lock"
        ]
        done = "nothing"
        if files:
            path = self.rng.choice(files)
            done = f"{path.relative_to(self.project.root)}, {damage(path, self.rng)}"
        self._rerun(step, done)
        return f"{step}: {'identical' if files else 'nothing to damage'}"

    def race(self) -> str:
        """Run a step twice at once: one may refuse, and there is one result."""
        step = self.rng.choice(list(MAKES))
        replaced = self._begin(step)
        first = self.project.start(step)
        time.sleep(self.rng.uniform(0, 0.5) * self.baseline.seconds[step])
        second = self.project.start(step)
        both = (first, second)
        missed = False
        while any(running.poll() is None for running in both):
            missed |= replaced and not self.project.artifact(MAKES[step]).exists()
            time.sleep(0.001)
        ended = [running.wait() for running in both]
        if missed:
            raise Violation(f"{MAKES[step]} was absent for a moment while it was replaced")
        for one in ended:
            self._check_end(one, (0, 3))
        if not any(one.returncode == 0 for one in ended):
            raise Violation(f"both {step} refused: {_output(ended[0])[-300:]} {_output(ended[1])[-300:]}")
        self._check_result(step)
        return f"{step}: {' and '.join(sorted(_word(one) for one in ended))}"

    def environment(self) -> str:
        """Take a usable folder for temporary files, a writable store of files, or a steady clock away."""
        step = self.rng.choice(["extract_features", "train", "evaluate", "register"])
        replaced = self._begin(step)
        kind = self.rng.choice(["no TMPDIR", "full TMPDIR", "read-only mlartifacts", "clock"])
        environment: dict[str, str] = {}
        before: Callable[[], None] = _checkpoint_often
        folder = self.project.root / ("mlartifacts" if "mlartifacts" in kind else "temporary")
        with _small_disk(folder, spare=0, read_only="mlartifacts" in kind) if kind[:2] != "cl" else _nothing():
            if "TMPDIR" in kind:
                environment["TMPDIR"] = str(folder / "missing") if kind == "no TMPDIR" else str(folder)
            if kind == "clock":
                jumps = random.Random(self.rng.random())

                def before() -> None:
                    _checkpoint_often()
                    _let_clock_jump(jumps)

            ended = self.project.start(step, environment=environment, before=before).wait()
            self._check_refused(ended, step, replaced)
        self._rerun(step)
        return f"{step}, {kind}: {_word(ended)}"

    def _begin(self, step: str) -> bool:
        """Go to the state before a step, perhaps with another artifact in the place of its own; whether there is."""
        self.project.restore(step)
        kind = MAKES[step]
        if not kind or self.rng.random() < 0.5:
            return False
        shutil.copytree(self.project.home / "states" / "other" / "artifacts" / kind, self.project.artifact(kind))
        return True

    def _need(self, step: str) -> int:
        return self.baseline.sizes.get(MAKES[step], self.baseline.sizes["model"] * 2)

    def _rerun(self, step: str, why: str = "") -> None:
        ended = self.project.run(step)
        if ended.returncode:
            raise Violation(f"{step} does not end well after the attack ({why}): {_output(ended)[-1500:]}")
        self._check_result(step, why)

    def _check_result(self, step: str, why: str = "") -> None:
        kind = MAKES[step]
        if kind and not self.project.is_whole(kind):
            raise Violation(f"{kind} is damaged ({why})")
        if kind and self.project.digest(kind) != self.baseline.digests[kind]:
            raise Violation(f"{kind} differs from that of an undisturbed run ({why})")
        if leftovers := self.project.leftovers():
            raise Violation(f"{step} leaves {', '.join(leftovers)}")
        if step == "train":
            twice = self.project.rows(
                "SELECT step, COUNT(*) FROM metrics WHERE key = 'val_map_mean' GROUP BY run_uuid, step "
                "HAVING COUNT(*) > 1"
            )
            if twice:
                raise Violation(f"epochs are twice in an MLflow run: {twice}")
        if step == "register":
            versions = self.project.rows(
                "SELECT version FROM model_versions WHERE current_stage != 'Deleted_Internal' AND name = 'dagnn'"
            )
            if len(versions) != 1:
                raise Violation(f"the model has the versions {versions}, expected one")

    def _check_refused(self, ended: Ended, step: str, replaced: bool, *, may_leave_drafts: bool = False) -> None:
        """Check a step that the system hampers: it ends well, or with status 3 and one line that names a file."""
        self._check_end(ended, (0, 3))
        self._check_old_or_new(step, replaced)
        drafts = [name for name in self.project.leftovers() if "/.dagnn/work" not in f"/{name}"]
        if drafts and not may_leave_drafts:
            raise Violation(f"{step} leaves {', '.join(drafts)}")

    def _check_old_or_new(self, step: str, replaced: bool) -> None:
        kind = MAKES[step]
        if kind and not self.project.is_whole(kind):
            raise Violation(f"{step} leaves a half {kind}")
        if replaced and self.project.digest(kind) is None:
            raise Violation(f"{step} has lost the {kind} that was there")

    def _check_end(self, ended: Ended, statuses: tuple[int, ...], why: str = "") -> None:
        if "Traceback (most recent call last)" in _output(ended):
            raise Violation(f"traceback ({why}): {_output(ended)[-3000:]}")
        if ended.returncode not in statuses:
            raise Violation(f"exit status {ended.returncode} ({why}): {_output(ended)[-1500:]}")
        if ended.returncode in (2, 3) and not any(line.startswith("error: ") for line in _output(ended).splitlines()):
            raise Violation(f"no error line ({why}): {_output(ended)[-1500:]}")
        if ended.returncode == 3 and "a file of this command" in _output(ended):
            raise Violation(f"no file is named ({why}): {_output(ended)[-500:]}")


ATTACKS: Mapping[str, Callable[[Attacker], str]] = {
    "kill": Attacker.kill,
    "full disk": Attacker.fill,
    "ulimit": Attacker.limit_files,
    "damaged input": Attacker.damage_input,
    "damaged work": Attacker.damage_work,
    "race": Attacker.race,
    "environment": Attacker.environment,
}
NEED_MOUNTS = ("full disk", "environment")


def _output(ended: Ended) -> str:
    return ended.stdout + ended.stderr


def _word(ended: Ended) -> str:
    return {0: "done", 2: "refused", 3: "status 3"}[ended.returncode]


def _checkpoint_often() -> None:
    from dagnn_core.training.loop import train

    train.__kwdefaults__["checkpoint_seconds"] = 0.0


def _let_clock_jump(rng: random.Random) -> None:
    """Let the wall clock of this process jump by up to ten years, at every tenth look."""
    steady = time.time
    offset = 0.0

    def jumping() -> float:
        nonlocal offset
        if rng.random() < 0.1:
            offset = rng.uniform(-1, 1) * 10 * 365 * 86400
        return steady() + offset

    time.time = jumping


def _says_the_same(path: Path, before: bytes) -> bool:
    """Whether a file has the bytes of before, or is a manifest with other white space."""
    after = path.read_bytes()
    return after == before or (path.name == MANIFEST and bool(json.loads(after) == json.loads(before)))


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _small_disk(folder: Path, *, spare: int, read_only: bool = False) -> Iterator[Callable[[], None]]:
    """Put a folder on a disk of its own, that has so many bytes to spare, or none may write to.

    Yields a function that makes the disk large.
    """
    folder.mkdir(exist_ok=True)
    aside = Path(tempfile.mkdtemp()) / "content"
    shutil.copytree(folder, aside, symlinks=True)
    pages = sum(-(-path.stat().st_size // 4096) + 1 for path in aside.rglob("*")) + 4
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(folder)], check=True)
    try:
        shutil.copytree(aside, folder, symlinks=True, dirs_exist_ok=True)
        os.sync()
        size = pages * 4096 + spare
        options = "remount,ro" if read_only else f"remount,size={size}"
        subprocess.run(["mount", "-o", options, str(folder)], check=True)
        yield lambda: subprocess.run(["mount", "-o", "remount,rw,size=1g", str(folder)], check=True)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        shutil.rmtree(aside.parent)
