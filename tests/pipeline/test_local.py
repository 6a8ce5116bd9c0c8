"""Processes of kfp's local runner."""

import sys
from pathlib import Path

import pytest
from kfp import dsl, local

from pipeline.local import reliable_processes


@dsl.component(base_image="python", install_kfp_package=False)
def say(text: str) -> str:  # kfp takes its source
    import sys

    return f"{text}, said by {sys.executable}"


@pytest.mark.slow
def test_a_path_of_python_may_have_any_characters_and_arguments_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = tmp_path / "a b's $HOME" / "python3"
    environment.parent.mkdir()
    environment.symlink_to(sys.prefix)
    monkeypatch.setattr(sys, "executable", str(environment / "bin/python"))
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "python3 runs"))
    with reliable_processes():
        said = say(text="python3 and 'python3'").output
    assert said == f"python3 and 'python3', said by {environment}/bin/python"
