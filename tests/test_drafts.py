"""Drafts of folders: swept where their writer was killed, left alone where it is at work."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dagnn_core import drafts
from dagnn_core.drafts import draft_of, find_drafts, remove_draft
from tests.fixtures.locations import ROOT


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def write(out: Path, name: str) -> None:
    with draft_of(out) as draft:
        (draft / name).touch()


def killed_writer(out: Path) -> Path:
    """The draft of a process that was killed while it wrote."""
    code = (
        "import sys, time; from pathlib import Path; from dagnn_core.drafts import draft_of\n"
        "with draft_of(Path(sys.argv[1])) as draft: print(draft, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(out)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        draft = Path(process.stdout.readline().strip())
        assert not remove_draft(draft), "its writer is at work"
        process.send_signal(signal.SIGKILL)
    assert draft.is_dir()
    return draft


def test_the_next_writer_of_the_same_folder_sweeps(tmp_path: Path) -> None:
    out, other = tmp_path / "model", tmp_path / "model.b"
    draft, kept = killed_writer(out), killed_writer(other)
    write(out, "new")
    assert not draft.exists() and kept.exists()
    assert names(out) == ["new"]
    assert find_drafts(tmp_path) == [kept] and remove_draft(kept) and not kept.exists()


def test_two_writers_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    out = tmp_path / "model"
    with draft_of(out) as first:
        (first / "first").touch()
        write(out, "second")
        assert names(out) == ["second"]
    assert names(out) == ["first"] and names(tmp_path) == ["model"]


@pytest.mark.parametrize("can_exchange", [True, False])
def test_the_old_folder_is_replaced_or_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, can_exchange: bool
) -> None:
    if not can_exchange:
        monkeypatch.setattr(drafts, "exchange", lambda *_: False)
    out = tmp_path / "model"
    for name in ("old", "new"):
        write(out, name)
        assert names(out) == [name] and names(tmp_path) == ["model"]
    with pytest.raises(ZeroDivisionError), draft_of(out):
        raise ZeroDivisionError
    assert names(out) == ["new"] and names(tmp_path) == ["model"]


def test_what_a_killed_writer_had_set_aside_comes_back(tmp_path: Path) -> None:
    """Where two renames replace a folder, a kill between them leaves it aside."""
    out, aside = tmp_path / "model", tmp_path / ".model.x1y2z3w4.old"
    aside.mkdir()
    write(aside / "model", "old")
    with pytest.raises(ZeroDivisionError), draft_of(out):
        assert names(out) == ["old"]
        raise ZeroDivisionError
    assert names(out) == ["old"] and names(tmp_path) == ["model"]


def test_a_reader_never_misses_a_folder_that_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "model"
    write(out, "file")
    code = "import sys; from pathlib import Path; from tests.test_drafts import write\n"
    code += "for _ in range(300): write(Path(sys.argv[1]), 'file')"
    with subprocess.Popen([sys.executable, "-c", code, str(out)], cwd=ROOT) as writer:
        looks = misses = 0
        while writer.poll() is None:
            looks += 1
            misses += not (out / "file").exists()
    assert writer.returncode == 0 and looks > 1000 and misses == 0
