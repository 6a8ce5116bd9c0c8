"""git by its command: answers, absence, and a clear error."""

import shutil
import tarfile
from pathlib import Path

import pytest

from components.git import changed_files, git, head, try_git
from dagnn_core.errors import InputError

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

IDENTITY = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "a checkout"
    folder.mkdir()
    git(folder, "init", "--quiet")
    for name in ("dvc.lock", "two words.txt", "ünï.txt"):
        (folder / name).write_text("one")
    git(folder, "add", "--all")
    git(folder, *IDENTITY, "commit", "--quiet", "--message", "Start; $(touch pwned)")
    return folder


def test_a_message_is_no_shell_command(checkout: Path) -> None:
    assert git(checkout, "log", "--format=%s") == "Start; $(touch pwned)"
    assert not (checkout / "pwned").exists()


def test_changed_files_are_named_as_they_are(checkout: Path) -> None:
    assert changed_files(checkout) == []
    for path in filter(Path.is_file, checkout.iterdir()):
        path.write_text("two")
    (checkout / "new.txt").touch()  # not tracked
    assert changed_files(checkout) == ["dvc.lock", "two words.txt", "ünï.txt"]
    assert changed_files(checkout, exclude="dvc.lock") == ["two words.txt", "ünï.txt"]


def test_a_hook_of_another_repository_does_not_mislead(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert head(checkout) is not None


def test_output_goes_to_a_file(checkout: Path, tmp_path: Path) -> None:
    with (tmp_path / "a.tar").open("wb") as stream:
        assert git(checkout, "archive", "HEAD", stdout=stream) == ""
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert "two words.txt" in archive.getnames()


def test_where_there_is_no_checkout(tmp_path: Path) -> None:
    assert head(tmp_path) is changed_files(tmp_path) is try_git(tmp_path, "status") is None
    with pytest.raises(InputError, match=r"^`git status` failed in .*: fatal: not a git repository"):
        git(tmp_path, "status")


def test_without_git(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert try_git(checkout, "status") is None
    with pytest.raises(InputError, match=r"git cannot be run in .*; install git, or put it on PATH$"):
        git(checkout, "status")
