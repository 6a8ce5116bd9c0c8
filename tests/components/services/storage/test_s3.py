"""S3 against a real server, through a proxy that resets, stalls, truncates and corrupts."""

import hashlib
import logging
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from botocore.retries.standard import ExponentialBackoff

from components.services.storage import s3 as module
from components.services.storage.s3 import Digest, Download, Storage, parse_uri
from dagnn_core.errors import BackendError, InputError
from tests.components.fault_proxy import Fault, FaultProxy, Request, only
from tests.fixtures.locations import ROOT
from tests.fixtures.s3 import SECRET, Bucket

CONTENT = random.Random(0).randbytes(3_500_000)
MD5 = Digest("md5", hashlib.md5(CONTENT).hexdigest())


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.01)


@pytest.fixture(scope="module")
def shared_proxy(s3_server: str) -> Iterator[FaultProxy]:
    with FaultProxy(s3_server) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def shared_store(shared_proxy: FaultProxy) -> Storage:
    return Storage(endpoint_url=shared_proxy.url, attempts=3, first_pause=0.01)


@pytest.fixture
def proxy(shared_proxy: FaultProxy, bucket: Bucket) -> FaultProxy:
    shared_proxy.plan = lambda request: None
    shared_proxy.requests.clear()
    return shared_proxy


@pytest.fixture
def store(shared_store: Storage, proxy: FaultProxy) -> Storage:
    """The server behind the proxy; one for all tests, since a client takes long to make."""
    return shared_store


@pytest.fixture
def uri(bucket: Bucket) -> str:
    return bucket.put("folder/object.bin", CONTENT)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "in" / "object.bin"


def entries(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def gets(proxy: FaultProxy) -> list[str]:
    return [request.headers.get("range", "whole") for request in proxy.requests if request.method == "GET"]


def test_up_and_down_again(store: Storage, bucket: Bucket, tmp_path: Path, path: Path) -> None:
    source = tmp_path / "source"
    for size in (0, 1, len(CONTENT)):
        source.write_bytes(CONTENT[:size])
        store.upload(source, f"{bucket.uri}/object")
        store.download(f"{bucket.uri}/object", path)
        assert path.read_bytes() == CONTENT[:size]
    assert entries(path.parent) == ["object.bin"]
    assert store.stat(f"{bucket.uri}/object").digest == Digest("sha256", hashlib.sha256(CONTENT).hexdigest())


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault(kind="reset"), ["whole", "whole"]),
        (Fault(kind="error"), ["whole", "whole"]),
        (Fault(kind="error", status=500, code="InternalError"), ["whole", "whole"]),
        (Fault(kind="truncate", at=2_000_000), ["whole", "bytes=2000000-"]),
        (Fault(kind="truncate", at=0), ["whole", "whole"]),
        (Fault(kind="reset_body", at=1_000), None),
        (Fault(kind="stall", at=2_000_000, seconds=2), None),
        (Fault(kind="trickle", seconds=0.005), ["whole"]),
        (Fault(kind="corrupt", at=3_000_000), ["whole", "whole"]),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
def test_a_fault_of_the_first_request_is_mended(
    *, store: Storage, proxy: FaultProxy, uri: str, path: Path, fault: Fault, expected: list[str] | None
) -> None:
    if fault.kind == "stall":
        store = replace(store, read_timeout=0.5)
    proxy.plan = only(fault.kind, 0, at=fault.at, seconds=fault.seconds, status=fault.status, code=fault.code)
    store.download(uri, path, digest=MD5)
    assert path.read_bytes() == CONTENT
    assert entries(path.parent) == ["object.bin"]
    if expected is not None:
        assert gets(proxy) == expected


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(kind="reset"), r"object\.bin: the store cannot be reached \(Connection was closed"),
        (Fault(kind="error"), r"object\.bin: the store answers 503 SlowDown, also when asked again; try later"),
        (Fault(kind="error", status=403, code="AccessDenied"), r"object\.bin: access denied; the credentials in use"),
        (
            Fault(kind="error", status=403, code="SignatureDoesNotMatch"),
            r"does not take the credentials \(SignatureDoesNotMatch\); renew or correct them",
        ),
        (Fault(kind="truncate", at=0), r"object\.bin broke off 3 times after 0 of 3500000 bytes .*; check the network"),
        (Fault(kind="stall", at=0, seconds=1), r"broke off 3 times after 0 of 3500000 bytes \(.*[Rr]ead time"),
        (Fault(kind="corrupt", at=5), rf"is damaged: 3 downloads did not have its md5 {MD5.value}; send it again"),
        (Fault(kind="error", status=412, code="PreconditionFailed"), r"changed while it was read; run again"),
    ],
    ids=lambda value: f"{value.kind}-{value.code}" if isinstance(value, Fault) else "",
)
def test_a_fault_that_stays_is_one_clear_line_and_no_file(
    *, store: Storage, proxy: FaultProxy, uri: str, path: Path, fault: Fault, message: str
) -> None:
    if fault.kind == "stall":
        store = replace(store, read_timeout=0.3)
    proxy.plan = only(fault.kind, at=fault.at, seconds=fault.seconds, status=fault.status, code=fault.code)
    with pytest.raises(BackendError, match=message) as failure:
        store.download(uri, path, digest=MD5)
    assert "\n" not in str(failure.value) and SECRET not in str(failure.value)
    assert not path.exists()


@pytest.mark.parametrize("seed", range(6))
def test_faults_at_random_never_leave_a_wrong_file(
    store: Storage, proxy: FaultProxy, bucket: Bucket, tmp_path: Path, seed: int
) -> None:
    """Six objects up and down, every fourth request hurt; whatever appears on either side is right."""
    dice = random.Random(seed)
    kinds = ("reset", "reset_upload", "error", "truncate", "reset_body", "corrupt", "corrupt_upload")

    def plan(request: Request) -> Fault | None:
        return Fault(kind=dice.choice(kinds), at=dice.randrange(100)) if dice.random() < 0.25 else None

    contents = {f"{number}": dice.randbytes(dice.randrange(100, 200_000)) for number in range(6)}
    proxy.plan = plan
    sent = []
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        try:
            store.upload(tmp_path / name, f"{bucket.uri}/{name}")
            sent.append(name)
        except BackendError:
            pass
    assert len(sent) > 1
    assert all(bucket.get(name) == contents[name] for name in sent)
    received = 0
    for name in sent:
        target = tmp_path / "in" / name
        for _ in range(3):
            try:
                store.download(f"{bucket.uri}/{name}", target)
                break
            except BackendError:
                assert not target.exists()
        if target.exists():
            received += 1
            assert target.read_bytes() == contents[name]
    assert received > 1


def test_a_download_goes_on_where_an_earlier_one_broke_off(
    store: Storage, proxy: FaultProxy, uri: str, path: Path
) -> None:
    proxy.plan = lambda request: (
        Fault(kind="truncate", at=2_500_000)
        if "range" not in request.headers
        else Fault(kind="reset")
        if request.method == "GET"
        else None
    )
    with pytest.raises(BackendError):
        store.download(uri, path, digest=MD5)
    assert entries(path.parent) == [".object.bin.part", ".object.bin.part.etag"]
    proxy.plan = lambda request: None
    proxy.requests.clear()
    store.download(uri, path, digest=MD5)
    assert gets(proxy) == ["bytes=2500000-"]
    assert path.read_bytes() == CONTENT and entries(path.parent) == ["object.bin"]


def test_a_file_that_is_there_is_not_fetched_again(store: Storage, proxy: FaultProxy, uri: str, path: Path) -> None:
    for _ in range(2):
        store.download(uri, path, digest=MD5)
    assert gets(proxy) == ["whole"]
    path.with_name(".object.bin.part.etag").write_text("left by a kill")
    store.download(uri, path, digest=MD5)
    assert entries(path.parent) == ["object.bin"]
    path.write_bytes(CONTENT[::-1])
    store.download(uri, path, digest=MD5)
    assert path.read_bytes() == CONTENT and gets(proxy) == ["whole", "whole"]


def test_a_changed_object_starts_again(store: Storage, proxy: FaultProxy, bucket: Bucket, uri: str, path: Path) -> None:
    proxy.plan = only("truncate", at=1_500_000)
    with pytest.raises(BackendError):
        Storage(endpoint_url=proxy.url, attempts=1).download(uri, path)
    bucket.put("folder/object.bin", CONTENT[::-1])
    proxy.plan = lambda request: None
    proxy.requests.clear()
    store.download(uri, path)
    assert gets(proxy) == ["whole"]
    assert path.read_bytes() == CONTENT[::-1]


def test_a_damaged_beginning_is_thrown_away(store: Storage, proxy: FaultProxy, uri: str, path: Path) -> None:
    path.parent.mkdir()
    (path.parent / ".object.bin.part").write_bytes(b"x" * 1000)
    (path.parent / ".object.bin.part.etag").write_text(store.stat(uri).etag)
    store.download(uri, path, digest=MD5)
    assert gets(proxy) == ["bytes=1000-", "whole"]
    assert path.read_bytes() == CONTENT


def test_a_killed_download_goes_on(proxy: FaultProxy, uri: str, path: Path) -> None:
    proxy.plan = only("trickle", 0, seconds=0.1)
    code = (
        "import sys; from pathlib import Path; from components.services.storage.s3 import Storage; "
        "Storage(endpoint_url=sys.argv[1]).download(sys.argv[2], Path(sys.argv[3]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, proxy.url, uri, str(path)], cwd=ROOT)
    part = path.with_name(".object.bin.part")
    deadline = time.monotonic() + 30
    while not (part.is_file() and part.stat().st_size > 1_000_000):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not path.exists()
    proxy.requests.clear()
    Storage(endpoint_url=proxy.url).download(uri, path, digest=MD5)
    assert path.read_bytes() == CONTENT
    assert gets(proxy)[0].startswith("bytes=") and len(gets(proxy)) == 1


def test_two_downloads_of_the_same_file_do_not_mix(store: Storage, proxy: FaultProxy, uri: str, path: Path) -> None:
    proxy.plan = only("trickle", 0, seconds=0.02)
    other = threading.Thread(target=store.download, args=(uri, path))
    other.start()
    while not proxy.count("GET"):
        time.sleep(0.01)
    with pytest.raises(BackendError, match=r"object\.bin is being fetched by another process; wait for it"):
        store.download(uri, path)
    other.join()
    assert path.read_bytes() == CONTENT


def test_the_first_failure_stops_the_other_downloads(
    store: Storage, proxy: FaultProxy, bucket: Bucket, uri: str, tmp_path: Path
) -> None:
    other = bucket.put("other", b"other")
    proxy.plan = lambda request: (
        None
        if request.method != "GET"
        else Fault(kind="trickle", seconds=0.5)
        if "object.bin" in request.path
        else Fault(kind="error", status=403, code="AccessDenied")
    )
    started = time.monotonic()
    with pytest.raises(BackendError, match="other: access denied"):
        store.download_all(
            [Download(store.stat(name), tmp_path / Path(name).name) for name in (uri, other)], description="fetching"
        )
    assert time.monotonic() - started < 15  # the slow one would take 27 seconds
    assert not (tmp_path / "object.bin").exists()


def test_progress_counts_megabytes(
    store: Storage, uri: str, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dagnn_core.progress.SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO):
        store.download(uri, path)
    assert "fetching object.bin, MB: 2 of 3" in caplog.messages


# uploads


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source.bin"
    source.write_bytes(CONTENT)
    return source


@pytest.mark.parametrize("kind", ["reset", "reset_upload", "error"])
def test_a_fault_of_an_upload_is_mended(
    store: Storage, proxy: FaultProxy, bucket: Bucket, source: Path, kind: str
) -> None:
    proxy.plan = only(kind, 0, method="PUT")  # type: ignore[arg-type]
    store.upload(source, f"{bucket.uri}/new")
    assert bucket.get("new") == CONTENT
    assert proxy.count("PUT") == 2


def test_an_upload_in_parts_survives_faults_of_parts(
    store: Storage, proxy: FaultProxy, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART", 5 << 20)
    source = tmp_path / "large.bin"
    source.write_bytes(CONTENT * 4)
    proxy.plan = only("reset_upload", 0, 2, method="PUT")
    store.upload(source, f"{bucket.uri}/large")
    assert bucket.get("large") == CONTENT * 4
    assert proxy.count("PUT") == 5  # three parts, two of them twice
    store.download(f"{bucket.uri}/large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == CONTENT * 4


def test_an_upload_that_fails_leaves_nothing_in_the_store(
    store: Storage, proxy: FaultProxy, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART", 5 << 20)
    source = tmp_path / "large.bin"
    source.write_bytes(CONTENT * 4)
    proxy.plan = lambda request: Fault(kind="reset_upload") if "partNumber=2" in request.path else None
    with pytest.raises(BackendError, match="large: the store cannot be reached"):
        store.upload(source, f"{bucket.uri}/large")
    assert bucket.keys == []
    assert "Uploads" not in bucket.client.list_multipart_uploads(Bucket=bucket.name)


def test_what_a_killed_upload_left_is_removed(
    store: Storage, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART", 5 << 20)
    for key in ("large", "larger"):
        bucket.client.create_multipart_upload(Bucket=bucket.name, Key=key)
    source = tmp_path / "large.bin"
    source.write_bytes(CONTENT * 2)
    store.upload(source, f"{bucket.uri}/large")
    left = bucket.client.list_multipart_uploads(Bucket=bucket.name)["Uploads"]
    assert [entry["Key"] for entry in left] == ["larger"]


def test_wrong_bytes_in_an_upload_are_found(store: Storage, proxy: FaultProxy, bucket: Bucket, source: Path) -> None:
    proxy.plan = only("corrupt_upload", 0, method="PUT", at=77)
    with pytest.raises(BackendError, match=r"new: the store got something else than .*source\.bin has .* removed"):
        store.upload(source, f"{bucket.uri}/new")
    assert bucket.keys == []
    store.upload(source, f"{bucket.uri}/new")
    assert bucket.get("new") == CONTENT


def test_an_object_that_is_there_is_not_sent_again(
    store: Storage, proxy: FaultProxy, bucket: Bucket, source: Path
) -> None:
    store.upload(source, f"{bucket.uri}/new")
    store.upload(source, f"{bucket.uri}/new")
    assert proxy.count("PUT") == 1
    source.write_bytes(CONTENT[::-1])
    store.upload(source, f"{bucket.uri}/new")
    assert proxy.count("PUT") == 2 and bucket.get("new") == CONTENT[::-1]


@pytest.mark.parametrize("mode", ["when_required", "when_supported"])
def test_both_ways_of_checksums(
    *, proxy: FaultProxy, bucket: Bucket, source: Path, path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some S3-compatible stores refuse the checksums of newer clients."""
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", mode)
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", mode)
    store = Storage(endpoint_url=proxy.url)
    store.upload(source, f"{bucket.uri}/new")
    store.download(f"{bucket.uri}/new", path)
    assert path.read_bytes() == CONTENT
    sent = any(name.startswith("x-amz-checksum-crc") for request in proxy.requests for name in request.headers)
    assert sent == (mode == "when_supported")


# what a user can do wrong


def test_missing_objects_and_buckets(store: Storage, bucket: Bucket, source: Path, path: Path) -> None:
    with pytest.raises(
        InputError, match=r"s3://test-\w+/none does not exist, expected an object; check bucket and key"
    ):
        store.download(f"{bucket.uri}/none", path)
    for call in (
        lambda: store.download("s3://no-such-bucket/x", path),
        lambda: store.upload(source, "s3://no-such-bucket/x"),
        lambda: store.names_below("s3://no-such-bucket/x"),
    ):
        with pytest.raises(InputError, match=r"the bucket of s3://no-such-bucket\S* does not exist; check its name"):
            call()
    with pytest.raises(InputError, match=r"nowhere does not exist, expected a file to send to s3://"):
        store.upload(path.with_name("nowhere"), f"{bucket.uri}/x")


@pytest.mark.parametrize("uri", ["s3://key:pa/ss@bucket/x", "s3://key:word@bucket", "s3://token@bucket/x"])
def test_an_address_has_no_credentials(uri: str) -> None:
    with pytest.raises(InputError, match=r"^s3://bucket\S* was given with credentials.*; give them in AWS_") as raised:
        parse_uri(uri)
    assert not {"pa/ss", "word", "token"} & set(str(raised.value).replace("@", ":").split(":"))
    assert parse_uri("s3://bucket/a@b:c").key == "a@b:c"


@pytest.mark.parametrize("wrong", ["bucket/key", "s3:/bucket/key", "https://bucket/key", "s3://", "s3:///key", ""])
def test_an_address_that_is_none(wrong: str) -> None:
    with pytest.raises(InputError, match=r"is not the address of an object in S3, expected s3://bucket/key"):
        parse_uri(wrong)


def test_addresses_that_s3_refuses(store: Storage, path: Path) -> None:
    with pytest.raises(InputError, match="s3://bucket names a bucket alone, expected s3://bucket/key"):
        store.download("s3://bucket", path)
    with pytest.raises(InputError, match=r"s3://bad bucket/x is not an address that S3 allows"):
        store.download("s3://bad bucket/x", path)


def test_no_credentials(bucket: Bucket, uri: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(BackendError, match=r"object\.bin: no credentials for S3 .*; set AWS_ACCESS_KEY_ID"):
        Storage(endpoint_url=bucket.endpoint).download(uri, path)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(BackendError, match=r"no credentials for S3 \(The config profile \(nobody\) could not be"):
        Storage().download(uri, path)


def test_an_endpoint_where_nobody_answers(uri: str, path: Path) -> None:
    for endpoint in ("http://127.0.0.1:9", "http://user:password@127.0.0.1:9"):
        with pytest.raises(BackendError, match=r"the store cannot be reached \(Could not connect") as failure:
            Storage(endpoint_url=endpoint, attempts=2).download(uri, path)
        assert "password" not in str(failure.value)
    with pytest.raises(InputError, match=r"Invalid endpoint: nonsense, expected a URL such as"):
        Storage(endpoint_url="nonsense").download(uri, path)


def test_the_endpoint_of_the_environment(bucket: Bucket, uri: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket.endpoint)
    Storage().download(uri, path)
    assert path.read_bytes() == CONTENT


def test_small_objects_are_read_with_their_digest(store: Storage, proxy: FaultProxy, uri: str) -> None:
    proxy.plan = only("corrupt", 0, at=9)
    assert store.read(uri, MD5, max_bytes=len(CONTENT)) == CONTENT
    with pytest.raises(InputError, match=r"object\.bin has 3500000 bytes, expected at most 10; check what it is"):
        store.read(uri, MD5, max_bytes=10)
    with pytest.raises(BackendError, match=r"is damaged: 3 downloads did not have its md5 0{32}"):
        store.read(uri, Digest("md5", "0" * 32), max_bytes=len(CONTENT))


def test_names_below_a_folder(store: Storage, bucket: Bucket, uri: str) -> None:
    for key in ("folder/b/c", "folder/a", "folder/empty/", "folder.x"):
        bucket.put(key, b"")
    assert store.names_below(f"{bucket.uri}/folder") == ["a", "b/c", "object.bin"]
    assert store.names_below(f"{bucket.uri}/folder/") == ["a", "b/c", "object.bin"]
    assert "folder.x" in store.names_below(bucket.uri)
