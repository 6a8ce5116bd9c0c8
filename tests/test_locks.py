"""Locks between processes, and what becomes of them when their holder ends or their file goes away."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dagnn_core.errors import BackendError
from dagnn_core.locks import folder_in_use, hold_lock, try_lock, try_lock_folder
from tests.fixtures.locations import ROOT

WORDS = {"busy": "another process counts", "remedy": "wait for it", "elsewhere": "use another disk"}


def holder_of(path: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock until it is killed."""
    code = (
        "import sys, time; from pathlib import Path; from dagnn_core.locks import hold_lock\n"
        "with hold_lock(Path(sys.argv[1]), busy='', remedy='', elsewhere=''): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_the_holder_is_named_and_its_death_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "count.lock"
    with holder_of(path) as other:
        message = (
            rf"count\.lock: another process counts \(process {other.pid} on .+\), expected one at a time; wait for it$"
        )
        with pytest.raises(BackendError, match=message), hold_lock(path, **WORDS):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
        with hold_lock(path, **WORDS):
            assert path.read_text().startswith(f"process {os.getpid()} on ")


def test_an_error_frees_the_lock(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), hold_lock(tmp_path / "lock", **WORDS):
            raise ZeroDivisionError


def test_a_holder_that_removes_the_file_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagnn_core.locks.ENDING_SECONDS", 30.0)
    path = tmp_path / "lock"
    held = threading.Event()

    def end_soon() -> None:
        with hold_lock(path, **WORDS):
            held.set()
            threading.Event().wait(0.06)  # the other has opened the file
            path.unlink()

    other = threading.Thread(target=end_soon)
    other.start()
    held.wait()
    with hold_lock(path, **WORDS):
        other.join()
        assert path.read_text().startswith("process ")
        monkeypatch.setattr("dagnn_core.locks.ENDING_SECONDS", 0.1)
        with pytest.raises(BackendError), hold_lock(path, **WORDS):
            pass


def test_an_open_file_is_taken_once_and_only_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "data.part"
    path.write_bytes(b"content")
    with path.open("ab+") as first, path.open("ab+") as second:
        assert try_lock(first, path, elsewhere="")
        assert not try_lock(second, path, elsewhere="")
        path.rename(tmp_path / "data")
        first.close()
        assert not try_lock(second, path, elsewhere="")  # moved away
        path.touch()
        assert not try_lock(second, path, elsewhere="")  # another file is in its place
    assert (tmp_path / "data").read_bytes() == b"content"


def test_a_file_system_without_locks_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):

        def flock(_: int, __: int, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("fcntl.flock", flock)
        message = rf"lock cannot be locked \({os.strerror(number)}\); use another disk$"
        with pytest.raises(BackendError, match=message), hold_lock(tmp_path / "lock", **WORDS):
            pass
        with (tmp_path / "lock").open("ab+") as stream, pytest.raises(BackendError, match=message):
            try_lock(stream, tmp_path / "lock", elsewhere="use another disk")


def test_a_lock_file_that_cannot_be_made_says_where(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(OSError, match="folder"), hold_lock(path, **WORDS):
        pass


def test_a_folder_in_use_is_made_and_cannot_be_taken(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "cache"
    with folder_in_use(folder):
        with folder_in_use(folder):
            pass
        assert folder.is_dir()
        (folder / "vectors").touch()
        descriptor = os.open(folder, os.O_RDONLY)
        assert not try_lock_folder(descriptor)
    assert try_lock_folder(descriptor)
    os.close(descriptor)


def test_a_folder_that_its_last_user_leaves_empty_goes(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    with folder_in_use(folder):
        pass
    assert not folder.exists()


def test_a_folder_that_is_being_removed_is_waited_for_and_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    assert try_lock_folder(descriptor)
    in_use = threading.Event()

    def use() -> None:
        with folder_in_use(folder):
            (folder / "vectors").touch()
            in_use.set()

    user = threading.Thread(target=use)
    user.start()
    assert not in_use.wait(0.1)
    folder.rmdir()
    os.close(descriptor)
    user.join(10)
    assert in_use.is_set() and (folder / "vectors").exists()
