"""`dagnn bench`: what it copies, and what it measures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dagnn_core.errors import BackendError, InputError
from pipeline.cli import bench


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    for name in ("kept.txt", "deleted.txt", "ignored.txt"):
        (root / name).write_text(name)
    (root / ".gitignore").write_text("ignored.txt\n")
    subprocess.run(["git", "add", "."], cwd=root, check=True)
    (root / "deleted.txt").unlink()
    (root / "folder").mkdir()
    (root / "folder/new.txt").write_text("new")
    return root


def test_a_copy_has_what_git_would_add(project: Path, tmp_path: Path) -> None:
    bench.copy_checkout(project, tmp_path / "copy")
    copied = {str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    assert {name for name in copied if not name.startswith(".git/")} == {".gitignore", "kept.txt", "folder/new.txt"}
    status = subprocess.run(["git", "status", "--porcelain"], cwd=tmp_path / "copy", capture_output=True, check=True)
    assert status.stdout == b""


def test_a_folder_that_git_does_not_know_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(InputError, match=r"plain is not a git checkout, expected the project's root"):
        bench.copy_checkout(tmp_path / "plain", tmp_path / "copy")


def test_peak_memory_counts_processes_below_this_one() -> None:
    program = "import time; block = bytearray(300 << 20); time.sleep(1)"
    with bench._peak_memory() as idle:
        subprocess.run([sys.executable, "-c", "import time; time.sleep(1)"], check=True)
    with bench._peak_memory() as busy:
        subprocess.run([sys.executable, "-c", program], check=True)
    assert 250 < (busy[0] - idle[0]) / bench.MIB < 350


@pytest.mark.slow
def test_the_command_line_is_timed_where_all_stages_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], check=True)
    Path("dvc.yaml").write_text("stages: {one: {cmd: echo, outs: []}}\n")
    with pytest.raises(InputError, match="had something to do"):
        bench.bench_cli(repeats=1)
    Path("dvc.yaml").write_text("stages: {}\n")
    bench.bench_cli(repeats=2, out=Path("figures.json"))
    figures = json.loads(Path("figures.json").read_text())
    assert [name.split(":")[0] for name in figures] == ["dagnn --help", "dvc repro, nothing to do"]
    assert all(0 < seconds < 60 for seconds in figures.values())
    assert len(capsys.readouterr().out.splitlines()) == 2
    Path("dvc.yaml").unlink()
    with pytest.raises(BackendError, match=r"`dvc repro` failed: ERROR: .*dvc\.yaml"):
        bench.bench_cli(repeats=1)
