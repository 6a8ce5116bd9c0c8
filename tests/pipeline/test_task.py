"""The lines of a Kubeflow task: written in one process, read back in another."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagnn_core.errors import ArtifactError, BackendError, InputError
from pipeline.task import parse_task_line, seed_of
from tests.fixtures import forked

BODY = """
import logging
from dagnn_core import errors
from pipeline.task import task
with task("train"):
    logging.getLogger("components.steps.train").info("epoch %d\\nof 5", 3)
    logging.getLogger("another_package").info("chatter")
    raise {error}
"""


def _run(error: str) -> subprocess.CompletedProcess[str]:
    return forked.run_code(BODY.format(error=error))


@pytest.mark.parametrize(("name", "status"), [("InputError", 2), ("BackendError", 3), ("CheckFailedError", 1)])
def test_a_failure_is_one_line_with_its_exit_status(name: str, status: int) -> None:
    done = _run(f"errors.{name}('no label; name one')")
    assert done.returncode == status
    assert done.stdout.splitlines() == ["[train] epoch 3", "[train] of 5", f"[train] {name}: no label; name one"]
    assert done.stderr == ""


def test_a_full_disk_is_one_line_too() -> None:
    done = _run("OSError(28, 'No space left on device', 'model')")
    assert done.returncode == 3
    assert done.stdout.splitlines()[-1] == "[train] BackendError: model: no space is left; free some and run again"
    assert done.stderr == ""


def test_a_mistake_of_ours_keeps_its_traceback() -> None:
    done = _run("KeyError('https://me:pass-word@host')")
    assert done.returncode == 3
    assert "Traceback" in done.stderr and "https://host" in done.stderr
    assert done.stdout.splitlines()[-1].startswith(
        "[train] UnexpectedError: unexpected failure (KeyError: 'https://host'"
    )
    assert "pass-word" not in done.stdout + done.stderr


def test_a_message_forges_no_lines() -> None:
    done = _run(r"errors.InputError('id \x1b[2J\n[train] BackendError: forged')")
    assert done.stdout.splitlines()[-1] == r"[train] InputError: id \u001b[2J\n[train] BackendError: forged"
    assert done.returncode == 2


def test_a_failure_is_read_back_as_the_same_error() -> None:
    line = parse_task_line("    " + _run("errors.ArtifactError('model is damaged')").stdout.splitlines()[-1])
    assert line is not None
    assert type(line.failure) is ArtifactError
    assert str(line.failure) == "train: model is damaged"


def test_an_unknown_error_is_a_message() -> None:
    line = parse_task_line("[train] StrangeError: what")
    assert line is not None
    assert line.failure is None


def test_other_lines_are_not_of_a_task() -> None:
    assert parse_task_line("[KFP Executor 2026-11-24 02:01:46,682 INFO]: Looking for component `a`") is None
    assert parse_task_line("12:00:00.000 - INFO - Executing task 'train'") is None


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1))
def test_messages_survive(message: str) -> None:
    line = parse_task_line(f"    [train] BackendError: {message}")
    assert line is not None
    assert isinstance(line.failure, BackendError)
    assert str(line.failure) == f"train: {message}"


@given(st.integers(0, 2**63))
def test_a_seed_is_read_from_a_parameter(seed: int) -> None:
    assert seed_of(str(seed), 5) == seed
    assert seed_of("", 5) == 5


@pytest.mark.parametrize("text", ["1.5", "-1", "one", " ", "٣"])
def test_a_seed_that_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=f"^seed must be a whole number of at least 0, or empty, got {text!r}; "):
        seed_of(text, 5)
