"""`python -m tests.chaos --minutes 10`: attack the steps at random, and print a table of outcomes.

Exit status 1 where anything that is promised does not hold.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from tests.chaos.attacks import ATTACKS, NEED_MOUNTS, Attacker, Violation, make_baseline
from tests.chaos.project import Project

_PRIVATE = "DAGNN_CHAOS_PRIVATE_MOUNTS"


def main(
    minutes: Annotated[float, typer.Option(help="How long attacks begin, after the undisturbed runs.")] = 10.0,
    seed: Annotated[int | None, typer.Option(help="Of the attacks  [default: a random one]")] = None,
    only: Annotated[int | None, typer.Option(help="Run this one attack of the seed.")] = None,
    kinds: Annotated[str, typer.Option(help="Kinds of attacks, separated by commas  [default: all]")] = "",
) -> None:
    """Attack the steps of a small project at random for some minutes."""
    may_mount = _have_private_mounts()
    chosen = [kind for kind in ATTACKS if may_mount or kind not in NEED_MOUNTS]
    chosen = [kind for kind in chosen if not kinds or kind in kinds.split(",")]
    if not may_mount:
        print(f"left out: {', '.join(NEED_MOUNTS)} (this system lets no user mount a small disk)")
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    print(f"seed {seed}", flush=True)
    outcomes: dict[str, Counter[str]] = {kind: Counter() for kind in chosen}
    violations = 0
    home = Path(tempfile.mkdtemp(prefix="dagnn-chaos-"))
    try:
        project = Project(home)
        baseline = make_baseline(project)
        times = ", ".join(f"{step} {value:.1f} s" for step, value in baseline.seconds.items())
        print(f"undisturbed: {times}", flush=True)
        number = only or 0
        began = time.monotonic()
        while time.monotonic() - began < minutes * 60:
            rng = random.Random(f"{seed}-{number}")
            kind = rng.choice(chosen)
            try:
                outcome = ATTACKS[kind](Attacker(project, baseline, rng))
            except (Violation, subprocess.TimeoutExpired) as violation:
                violations += 1
                outcome = "VIOLATION"
                print(f"attack {number} ({kind}): {violation}", flush=True)
            outcomes[kind][outcome] += 1
            if only is not None:
                break
            number += 1
    finally:
        shutil.rmtree(home, ignore_errors=True)
    _print_table(outcomes)
    print(f"seed {seed}: {sum(map(Counter.total, outcomes.values()))} attacks, {violations} violations")
    sys.exit(1 if violations else 0)


def _print_table(outcomes: dict[str, Counter[str]]) -> None:
    print(f"{'attack':16}{'times':>6}  outcomes")
    for kind, counts in outcomes.items():
        print(f"{kind:16}{counts.total():>6}  {', '.join(f'{count} {word}' for word, count in sorted(counts.items()))}")


def _have_private_mounts() -> bool:
    """Start this program again where its mounts are its own and end with it; False where that cannot be had."""
    if os.environ.get(_PRIVATE):
        return True
    for options in ("-m", "-rm"):
        probe = ["unshare", options, "sh", "-c", 'mount -t tmpfs tmpfs "$0"', tempfile.gettempdir()]
        if shutil.which("unshare") and not subprocess.run(probe, check=False, capture_output=True).returncode:
            os.environ[_PRIVATE] = "1"
            os.execvp("unshare", ["unshare", options, sys.executable, "-m", "tests.chaos", *sys.argv[1:]])
    return False


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
