"""git by its command: answers, absence, and a clear error."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from components import git as module
from components.git import UntrustedCheckoutError, changed_files, check_trusted, git, head, try_git
from dagnn_core.errors import InputError
from tests.fixtures.locations import ROOT

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


@pytest.mark.parametrize("language", ["C", "de_DE.UTF-8"])
def test_a_checkout_of_another_user(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, language: str
) -> None:
    """As git's own tests make one; a checkout that is mounted into a container is the usual case."""
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("LC_ALL", language)
    message = (
        r"^git reads nothing in the checkout .*a checkout, which belongs to another user; "
        r"if you trust it, run `git config --global --add safe\.directory .*a checkout'?`$"
    )
    for refused in (lambda: git(checkout, "status"), lambda: check_trusted(checkout)):
        with pytest.raises(UntrustedCheckoutError, match=message):
            refused()
    module._warn_once.cache_clear()
    assert head(checkout) is changed_files(checkout) is None
    (warning,) = caplog.messages
    assert re.match(message, warning)


def test_no_checkout_and_one_of_this_user_are_trusted(checkout: Path, tmp_path: Path) -> None:
    check_trusted(checkout)
    check_trusted(tmp_path)


@pytest.mark.parametrize("locale", ["C", "POSIX", "de_DE.ISO-8859-1"])
def test_names_in_any_bytes_are_read_whatever_the_locale(checkout: Path, locale: str) -> None:
    (checkout / "l\udcf6wen.txt").write_text("one")  # ö in latin-1
    (checkout / "ünï.txt").write_text("two")
    code = (
        "import sys; from pathlib import Path; from components.git import changed_files, git;"
        "folder = Path(sys.argv[1]); git(folder, 'add', '--all'); print(ascii(changed_files(folder)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(checkout)],
        env=os.environ | {"LC_ALL": locale, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().strip() == ascii(["l\udcf6wen.txt", "ünï.txt"])
