"""Some minutes of attacks at random; `make chaos MINUTES=60` runs the same program for longer."""

import subprocess
import sys

import pytest

from tests.fixtures.locations import ROOT

MINUTES = 6


@pytest.mark.slow
@pytest.mark.timeout(2 * MINUTES * 60)
def test_attacks_break_no_promise() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--minutes", str(MINUTES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout)  # noqa: T201  # with the seed, for those who look into a failure
    assert done.returncode == 0, done.stdout + done.stderr
