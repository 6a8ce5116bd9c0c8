"""What a disk refuses is named, with the reason and the need; folders change places at once."""

import errno
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from dagnn_core.artifacts import write_artifact, write_json
from dagnn_core.data.vectors import save_array, write_matrix
from dagnn_core.disk import DiskError, disk_failure, exchange, require_space, writing
from dagnn_core.errors import BackendError
from dagnn_core.tensors import save_tensors
from tests.fixtures.locations import ROOT

LIMIT = 100_000  # bytes of a file
VALUES = np.random.default_rng(0).random(50_000)

WRITERS: dict[str, Callable[[Path], object]] = {
    "json": lambda path: write_json(path, VALUES.tolist()),
    "array": lambda path: save_array(path, VALUES),
    "matrix": lambda path: write_matrix(path, [VALUES], shape=VALUES.shape, dtype=VALUES.dtype),
    "tensors": lambda path: save_tensors(path, {"values": torch.from_numpy(VALUES)}),
    "table": lambda path: pq.write_table(pa.table({"values": VALUES}), path),
    "bytes": lambda path: path.write_bytes(VALUES.tobytes()),
    "safetensors": lambda path: save_file({"values": torch.from_numpy(VALUES)}, path),
}


@pytest.fixture
def limited() -> object:
    """No file may be larger than LIMIT, as by `ulimit -f`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("limited")
@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_that_is_too_large_is_named_by_where_it_would_have_gone(tmp_path: Path, writer: str) -> None:
    message = rf"^{tmp_path}/artifact/part: the file would be larger than the system allows \(ulimit -f\); raise"
    with (
        pytest.raises(DiskError, match=message),
        write_artifact(tmp_path / "artifact", kind="model", provenance={}) as d,
        writing(d.path / "part"),
    ):
        WRITERS[writer](d.path / "part")
    assert list(tmp_path.iterdir()) == []


def on_full_disk(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code where `folder` is a disk of 256 KiB."""
    folder.mkdir()
    script = 'mount -t tmpfs -o size=256k tmpfs "$0" && exec "$@"'
    mounted = ["unshare", "-rm", "sh", "-c", script, str(folder)]
    if not shutil.which("unshare") or subprocess.run([*mounted, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this system lets no user mount a small disk (unshare -rm)")
    return subprocess.run(
        [*mounted, sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_full_disk_is_told_with_the_need_by_every_writer(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dagnn_core.artifacts import write_artifact\n"
        "from dagnn_core.disk import DiskError, writing\n"
        "from tests.test_disk import WRITERS\n"
        "for name, write in WRITERS.items():\n"
        "    try:\n"
        "        with write_artifact(Path(sys.argv[1], 'a'), kind='model', provenance={}) as draft:\n"
        "            with writing(draft.path / name): write(draft.path / name)\n"
        "    except DiskError as error: print(error)\n"
        "print(list(Path(sys.argv[1]).iterdir()))\n"
    )
    done = on_full_disk(tmp_path / "disk", code)
    assert done.returncode == 0, done.stderr
    *lines, left = done.stdout.splitlines()
    assert left == "[]"
    assert [line.split(": ")[0] for line in lines] == [f"{tmp_path}/disk/a/{name}" for name in WRITERS]
    assert all(": no space is left" in line for line in lines)
    need = "no space is left on its disk: 0.4 MB are needed, 0.3 MB are free; free some and run again"
    assert lines[list(WRITERS).index("tensors")].endswith(need)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "x"), "f: no space is left; free some"),
        (OSError(errno.EDQUOT, "x", "/other/g"), "/other/g: the disk quota is used up"),
        (OSError(errno.EIO, "x"), "f: the disk failed"),
        (OSError(errno.ENOSPC, "x", "/from", None, "/to"), "/to: no space is left"),
        (OSError(errno.EROFS, "x", "f.1234.tmp"), "f: the file system is read-only"),
        (OSError(errno.EMFILE, "x"), "f: too many files are open"),
        (shutil.Error([("/from", "/to", "[Errno 28] No space left on device: '/to'")]), "f: no space is left"),
        (RuntimeError("Error while serializing: I/O error: File too large (os error 27)"), "f: the file would be"),
        (FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"), "no folder for temporary files"),
    ],
    ids=str,
)
def test_reasons(error: Exception, said: str) -> None:
    assert str(disk_failure(error, Path("f"))).startswith(said)


@pytest.mark.parametrize("error", [OSError(errno.ENOENT, "x"), ValueError("[Errno 2] x"), BackendError("[Errno 28]")])
def test_other_errors_are_none(error: Exception) -> None:
    assert disk_failure(error) is None


def test_space_is_counted_per_disk(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    require_space({tmp_path / "a" / "b": free // 4, tmp_path / "c": 0})
    message = rf"^{tmp_path}/a \(\d+\.\d MB\) and {tmp_path}/b \(\d+\.\d MB\): \d+\.\d MB are needed on this disk, \d+"
    with pytest.raises(BackendError, match=message):
        require_space({tmp_path / "a": free * 2 // 3, tmp_path / "b": free * 2 // 3})


def test_two_folders_change_places(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / folder.name).touch()
    if not exchange(one, other):
        pytest.skip("this system has no renameat2 with RENAME_EXCHANGE")
    assert [*map(str, one.iterdir())] == [f"{one}/other"] and (other / "one").exists()
    with pytest.raises(FileNotFoundError):
        exchange(one, tmp_path / "missing")
