"""A folder that S3 has as well: what comes back after its disk is lost."""

import logging
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from botocore.retries.standard import ExponentialBackoff

from components.services.storage.mirror import mirrored
from components.services.storage.s3 import Storage
from dagnn_core.errors import InputError
from tests.components.fault_proxy import Fault, FaultProxy, Request
from tests.fixtures.s3 import Bucket


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.01)


@pytest.fixture
def storage(bucket: Bucket) -> Storage:
    return Storage(endpoint_url=bucket.endpoint, attempts=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.02)


def replace(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".tmp")
    partial.write_bytes(content)
    partial.replace(path)


def test_changes_are_sent_while_the_work_goes_on(bucket: Bucket, storage: Storage, folder: Path) -> None:
    with mirrored(folder, f"{bucket.uri}/a/b", storage=storage, seconds=0.05):
        (folder / "unfinished.tmp").write_bytes(b"half")
        for content in (b"first", b"second, and longer"):
            replace(folder / "state", content)
            wait_for(lambda content=content: "a/b/state" in bucket.keys and bucket.get("a/b/state") == content)  # type: ignore[misc]
        assert bucket.keys == ["a/b/state"]


def test_no_upload_begins_before_the_one_before_it_is_done(bucket: Bucket, folder: Path) -> None:
    begun: list[float] = []

    def slow(request: Request) -> Fault | None:
        if request.method == "PUT":
            begun.append(time.monotonic())
            return Fault(kind="stall", seconds=0.4)
        return None

    with FaultProxy(bucket.endpoint, slow) as proxy:
        storage = Storage(endpoint_url=proxy.url, attempts=1)
        with mirrored(folder, f"{bucket.uri}/a", storage=storage, seconds=0.01):
            while len(begun) < 4:
                replace(folder / "state", b"x" * (1 + len(begun)))
                time.sleep(0.02)
    assert min(after - before for before, after in pairwise(begun)) >= 0.4


def test_work_that_is_done_leaves_nothing(bucket: Bucket, storage: Storage, folder: Path) -> None:
    bucket.put("a/bc/state", b"another's")
    bucket.put("a/b/state", b"old")
    with mirrored(folder, f"{bucket.uri}/a/b", storage=storage, seconds=0.05):
        (folder / "more").write_bytes(b"new")
    assert bucket.keys == ["a/bc/state"]


def test_work_that_failed_goes_on_on_another_disk(
    bucket: Bucket, storage: Storage, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt), mirrored(folder, f"{bucket.uri}/a", storage=storage, seconds=1000):
        (folder / "state").write_bytes(b"as it was last")
        (folder / "id").write_bytes(b"7")
        raise KeyboardInterrupt
    assert sorted(path.name for path in folder.iterdir()) == ["id", "state"]
    new = tmp_path / "new"
    with mirrored(new, f"{bucket.uri}/a", storage=storage):
        assert {path.name: path.read_bytes() for path in new.iterdir()} == {"state": b"as it was last", "id": b"7"}


def test_a_store_that_is_lost_costs_a_warning(
    bucket: Bucket, storage: Storage, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), mirrored(folder, f"{bucket.uri}/a", storage=storage, seconds=0.05):
        bucket.client.delete_bucket(Bucket=bucket.name)
        (folder / "state").write_bytes(b"x")
        wait_for(lambda: bool(caplog.messages))
    assert caplog.messages[0].startswith("state is not kept in S3 for now: ")
    assert caplog.messages[-1].startswith(f"{bucket.uri}/a stays in S3, though nobody needs it any more: ")
    assert [path.name for path in folder.iterdir()] == ["state"]


def test_a_bucket_that_does_not_exist_stops_before_any_work(storage: Storage, folder: Path) -> None:
    with (
        pytest.raises(InputError, match="the bucket of s3://missing/a does not exist"),
        mirrored(folder, "s3://missing/a", storage=storage),
    ):
        pytest.fail("the work began")
