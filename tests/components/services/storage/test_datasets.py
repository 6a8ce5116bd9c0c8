"""Data sets of which a part is read from a real S3 server, through a proxy that counts and fails."""

import random
import resource
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from botocore.retries.standard import ExponentialBackoff

from components.services.storage.artifacts import send_artifact
from components.services.storage.datasets import StoredDataset, fetch_part, open_dataset
from components.services.storage.s3 import TAIL, Storage
from dagnn_core.artifacts import read_artifact, write_artifact
from dagnn_core.data.dataset import KIND, Dataset, ImageNotHereError, Item
from dagnn_core.data.ingest import shards
from dagnn_core.data.ingest.writer import DatasetWriter
from dagnn_core.errors import DagnnError
from tests.components.fault_proxy import Away, Fault, FaultKind, FaultProxy, Request, only
from tests.fixtures.s3 import AWS, Bucket, make_bucket

NUM_FILES, ITEMS_PER_FILE, IMAGE_BYTES = 6, 4, 100_000
NUM_ITEMS = NUM_FILES * ITEMS_PER_FILE


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.01)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of several data files, whose images nobody decodes."""
    out = tmp_path_factory.mktemp("here") / "dataset"
    dice = random.Random(0)
    with pytest.MonkeyPatch.context() as patch, write_artifact(out, kind=KIND, provenance={}) as draft:
        patch.setattr(shards, "ROW_GROUP_ITEMS", 2)
        with DatasetWriter(draft.path, ("boat", "sea"), columns=["town"], shard_bytes=4 * IMAGE_BYTES) as writer:
            for row in range(NUM_ITEMS):
                split = ("train", "val", "test")[row % 3]
                item = Item(f"item-{row}", f"text {row}", ("sea",), dice.randbytes(IMAGE_BYTES), "", split)
                writer.add(item._replace(columns={"town": f"town-{row}"}))
            writer.write_rejected([])
            writer.write_vectors("text", np.eye(NUM_ITEMS, dtype=np.float32), range(NUM_ITEMS))
            writer.write_unseen_labels(["night"], [["night"] if row == 2 else [] for row in range(NUM_ITEMS)])
        draft.content = writer.content
    return out


@pytest.fixture(scope="module")
def proxy(s3_server: str) -> Iterator[FaultProxy]:
    with FaultProxy(s3_server) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def sent(here: Path, s3_server: str, s3_client: object) -> Bucket:
    """A bucket that has it at `runs/dataset_out`."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in AWS.items():
            patch.setenv(name, value)
        bucket = make_bucket(s3_server, s3_client)
        send_artifact(here, f"{bucket.uri}/runs/dataset_out", Storage(endpoint_url=s3_server))
    return bucket


@pytest.fixture(scope="module")
def shared_store(proxy: FaultProxy) -> Storage:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in AWS.items():
            patch.setenv(name, value)
        store = Storage(endpoint_url=proxy.url, attempts=3, first_pause=0.01)
        assert store.client  # one for all tests, since it takes long to make
    return store


@pytest.fixture
def store(shared_store: Storage, proxy: FaultProxy) -> Storage:
    """The server behind the proxy."""
    proxy.plan = lambda request: None
    proxy.requests.clear()
    return shared_store


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def stored(here: Path, sent: Bucket) -> StoredDataset:
    return StoredDataset(f"{sent.uri}/runs/dataset_out", read_artifact(here, KIND).content_digest)


def bytes_got(proxy: FaultProxy, here: Path) -> tuple[int, int]:
    """Bytes that data files were asked for: whole files, and ranges."""
    whole, ranges = 0, 0
    for request in proxy.requests:
        name = request.path.rpartition("/")[2]
        if request.method == "GET" and name.startswith("data-"):
            size = (here / name).stat().st_size
            start, _, last = request.headers.get("range", "bytes=-").removeprefix("bytes=").partition("-")
            if start:
                ranges += int(last or size - 1) + 1 - int(start)
            else:
                whole += size
    return whole, ranges


@pytest.mark.parametrize("number", range(3))
def test_a_part_is_fetched_and_the_rest_is_read_without_images(
    *, stored: StoredDataset, store: Storage, here: Path, proxy: FaultProxy, tmp_path: Path, number: int
) -> None:
    all_of_it = Dataset.read(here)
    rows = range(8 * number, 8 * number + 8)
    dataset = fetch_part(stored, tmp_path, store, images=lambda num_items: rows if num_items == NUM_ITEMS else range(0))
    assert dataset.artifact.content_digest == all_of_it.artifact.content_digest
    assert dataset.artifact.manifest_digest == all_of_it.artifact.manifest_digest
    assert (dataset.ids, dataset.texts, dataset.columns) == (all_of_it.ids, all_of_it.texts, all_of_it.columns)
    for name in ("splits", "labels", "unseen_labels", "has_image", "has_text"):
        np.testing.assert_array_equal(getattr(dataset, name), getattr(all_of_it, name))
    assert dataset.images(rows) == all_of_it.images(rows)
    wanted = np.isin(np.arange(NUM_ITEMS), rows)
    assert list(dataset.iterate_images(wanted)) == list(all_of_it.iterate_images(wanted))
    outside = (rows.stop + 3) % NUM_ITEMS
    file = f"data-{outside // ITEMS_PER_FILE:05d}.parquet"
    with pytest.raises(ImageNotHereError, match=rf"{file} was read without its images.* 'item-{outside}'"):
        dataset.images([rows.start, outside])
    with pytest.raises(ImageNotHereError):
        list(dataset.iterate_images())

    sizes = [path.stat().st_size for path in sorted(here.glob("data-*"))]
    on_disk = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(on_disk) == {f"data-{2 * number + other:05d}.parquet" for other in (0, 1)} | {"unseen_labels.npy"}
    whole, ranges = bytes_got(proxy, here)
    assert whole == sum(size for name, size in on_disk.items() if name.startswith("data-"))
    assert whole == pytest.approx(sum(sizes) / 3, rel=0.01)
    assert ranges <= NUM_FILES * (TAIL + 2_000), "the end of each file, and a few columns"
    gets = [request for request in proxy.requests if request.method == "GET"]
    assert sum("range" in request.headers for request in gets) <= 3 * NUM_FILES
    assert not {request.path.rpartition("/")[2] for request in gets} & {"rejected.parquet", "text.npy"}


@pytest.mark.usefixtures("credentials")
def test_files_that_are_asked_for_are_fetched(
    stored: StoredDataset, sent: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", sent.endpoint)
    with open_dataset(stored, files=["vectors/text.npy", "vectors/image.npy"]) as dataset:
        vectors = dataset.vectors("text")
        assert vectors is not None
        np.testing.assert_array_equal(vectors, np.eye(NUM_ITEMS))
        assert not any(file.is_here for file in dataset.files)
        folder = dataset.artifact.path
    assert not folder.exists()


@pytest.mark.parametrize("kind", ["reset", "truncate", "error"])
def test_ranges_that_break_off_are_asked_for_again(
    *, stored: StoredDataset, store: Storage, here: Path, proxy: FaultProxy, tmp_path: Path, kind: FaultKind
) -> None:
    failed = Counter[str]()

    def plan(request: Request) -> Fault | None:
        """Fail the first two requests for ranges of each file."""
        if request.method != "GET" or "range" not in request.headers or failed[request.path] == 2:
            return None
        failed[request.path] += 1
        return Fault(kind=kind, at=100)

    proxy.plan = plan
    assert fetch_part(stored, tmp_path, store).texts == Dataset.read(here).texts
    assert list(failed.values()) == [2] * NUM_FILES


@pytest.mark.usefixtures("credentials")
def test_a_store_that_restarts_is_waited_for(
    *,
    stored: StoredDataset,
    store: Storage,
    here: Path,
    proxy: FaultProxy,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    patient = replace(store, patience=20)
    proxy.plan = away = Away(at=10, seconds=0.5)
    assert fetch_part(stored, tmp_path, patient).texts == Dataset.read(here).texts
    assert away.num_failed and "is not available (" in caplog.text


class Refuse(NamedTuple):
    """Opens a part of the data set, and sees that it is refused for one reason in one line."""

    stored: StoredDataset
    store: Storage
    folder: Path

    def __call__(self, message: str, *, status: int = 3, rows: range = range(8), **stored: str) -> None:
        with pytest.raises(DagnnError, match=message) as raised:
            fetch_part(self.stored._replace(**stored), self.folder, self.store, images=lambda _: rows)
        assert raised.value.exit_status == status
        assert "\n" not in str(raised.value)


@pytest.fixture
def refuse(stored: StoredDataset, store: Storage, tmp_path: Path) -> Refuse:
    return Refuse(stored, store, tmp_path)


def test_a_store_that_refuses_is_one_line(refuse: Refuse, proxy: FaultProxy) -> None:
    for code, message in (
        ("InvalidAccessKeyId", r"manifest\.json: the store does not take the credentials \(InvalidAccessKeyId\)"),
        ("AccessDenied", r"manifest\.json: access denied; the credentials in use have no right to it"),
    ):
        proxy.plan = only("error", 0, status=403, code=code)
        refuse(message)
    proxy.plan = only("error", 4, status=403, code="ExpiredToken")  # while columns are read
    refuse(r"data-0000\d\.parquet: the store does not take the credentials \(ExpiredToken\)")


def test_what_is_missing_or_something_else_is_one_line(refuse: Refuse, sent: Bucket) -> None:
    refuse(r"at 'minio://runs/dataset_out', expected s3://", status=2, uri="minio://runs/dataset_out")
    refuse(r"'s3://' is not the address of an object in S3, expected s3://bucket/key", status=2, uri="s3://")
    refuse(r"s3://runs/x was given with credentials", status=2, uri="s3://me:password@runs/x")
    refuse(r"none/manifest\.json does not exist.*submit with --no-cache", uri=f"{sent.uri}/none")
    refuse(r"the bucket of .* does not exist.*AWS_ENDPOINT_URL_S3", uri="s3://no-such-bucket/x")
    refuse(r"manifest\.json is that of the dataset \w{12}, expected the data set 0{12}; submit", digest="0" * 64)


def test_a_disk_that_is_too_small_is_one_line(refuse: Refuse) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (IMAGE_BYTES, hard))
    try:
        refuse(rf"{refuse.folder}: the file would be larger than the system allows \(ulimit -f\); raise the limit")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(refuse.folder.glob("data-*"))


def test_damage_is_found_by_the_task_that_has_the_part(
    *, refuse: Refuse, stored: StoredDataset, store: Storage, sent: Bucket, here: Path, tmp_path: Path
) -> None:
    name = "data-00003.parquet"
    key = f"runs/dataset_out/{name}"
    content = (here / name).read_bytes()
    flipped = content[:1000] + b"damage" + content[1006:]  # in an image
    for wrong, message in (
        (flipped, rf"{name} is damaged: 3 downloads did not have its sha256"),
        (content[:-1], rf"{name} has {len(content) - 1} bytes, expected {len(content)} bytes as manifest\.json says"),
        (content[:-9] + b"\xff" * 9, rf"{name}: its columns cannot be read"),
        (None, rf"{name} is missing, expected {len(content)} bytes .* submit with --no-cache"),
    ):
        if wrong is None:
            sent.client.delete_object(Bucket=sent.name, Key=key)
        else:
            sent.put(key, wrong)
        refuse(message, rows=range(12, 16))
    sent.put(key, flipped)
    other = fetch_part(stored, tmp_path / "other", store, images=lambda _: range(8))  # reads none of these bytes
    assert other.ids == Dataset.read(here).ids
    sent.put(key, content)
    mended = fetch_part(stored, tmp_path / "mended", store, images=lambda _: range(12, 16))
    assert mended.images([13]) == Dataset.read(here).images([13])


def test_an_object_that_changes_meanwhile_is_noticed(
    refuse: Refuse, sent: Bucket, here: Path, proxy: FaultProxy
) -> None:
    content = (here / "data-00005.parquet").read_bytes()

    def plan(request: Request) -> None:
        if request.method == "GET" and request.path.endswith("data-00005.parquet"):
            sent.put("runs/dataset_out/data-00005.parquet", bytes(len(content)))

    proxy.plan = plan
    try:
        refuse(r"data-00005\.parquet changed while it was read; run again")
    finally:
        sent.put("runs/dataset_out/data-00005.parquet", content)
