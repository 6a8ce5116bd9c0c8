"""S3: files up and down, checked on both ways, taken up again after an interruption.

botocore repeats requests that fail, and boto3's transfer manager sends files, large ones in parts with a checksum each.
By hand is what it cannot do:

- A download resumes where its body broke off, in another process too. The transfer manager writes to a file with a
  random name, which the next process does not find, and begins again.
- A file appears only with the right digest. The transfer manager fetches large objects by ranges, of which stores send
  no checksum, so that it takes wrong bytes.
- An upload is compared with what the store then has, and is not made twice. The checksums of the transfer manager are
  of what it read, so that a file that changes meanwhile passes.
- What a killed upload left is removed.

Credentials come from where botocore looks for them (environment, instance, ~/.aws), the endpoint from
`Storage.endpoint_url` or AWS_ENDPOINT_URL(_S3). With patience (see `patience`), every request waits for a store that
does not answer, instead of botocore's few attempts.
"""

import hashlib
import io
import logging
import math
import os
import random
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeVar

from components.services.storage.patience import (
    Outage,
    Patience,
    passing_failure,
    passing_status,
    patience_of_environment,
)
from components.urls import split_url
from dagnn_core.errors import BackendError, DagnnError, InputError
from dagnn_core.locks import try_lock
from dagnn_core.progress import track
from dagnn_core.redaction import redact
from dagnn_core.text import one_line

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

log = logging.getLogger(__name__)

CHUNK = 1 << 18
TAIL = 1 << 16  # bytes of the end of an object, where Parquet files have their footer
PART = 16 << 20  # bytes of a part of an upload; four of them are in memory
MAX_PARTS = 10_000
THREADS = 8
WHOLE_DOWNLOADS = 3  # times that an object may arrive with a wrong digest
LONGEST_PAUSE = 20.0
MEGABYTE = 1_000_000

_PLAIN_MD5 = re.compile(r"[0-9a-f]{32}")
_MISSING = {"404", "NoSuchKey", "NoSuchBucket"}
_DENIED = {"403", "AccessDenied", "AllAccessDisabled"}
_BAD_CREDENTIALS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
}
_BUSY = {"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException"}  # some stores answer 400 with them

T = TypeVar("T")
R = TypeVar("R")
Report = Callable[[int], None]
"""Called with the number of bytes that have just moved; it raises where the work shall stop."""


class Digest(NamedTuple):
    """What a file's content must hash to."""

    algorithm: str
    """md5 or sha256."""
    value: str
    """Hexadecimal."""


class StoredObject(NamedTuple):
    """An object in the store, as one request found it."""

    uri: str
    size: int
    etag: str
    digest: Digest | None
    """What the store knows of its content."""


class Download(NamedTuple):
    """An object, the file that it becomes, and what that must hash to (None: what the store knows)."""

    source: StoredObject
    path: Path
    digest: Digest | None = None


class Address(NamedTuple):
    """Where an object is."""

    bucket: str
    key: str


class _Fingerprints(NamedTuple):
    sha256: str
    etag: str
    """What S3 makes the ETag of: md5, or md5 of the parts' md5."""


class _StoppedError(Exception):
    """Ends a thread whose work is no longer wanted."""


class _ShortBodyError(Exception):
    """A body that ended too early, or did not begin where it was asked to."""


@dataclass(frozen=True, kw_only=True)
class Storage:
    """An S3 store; safe to use from several threads."""

    endpoint_url: str = ""
    """Empty: as the environment says, else AWS."""
    attempts: int = 6
    """Times that a request, or a body that does not move on, is tried."""
    connect_timeout: float = 10.0
    """Seconds."""
    read_timeout: float = 60.0
    """Seconds without a byte."""
    first_pause: float = 1.0
    """Seconds, at most, before a body is asked for again; doubles from try to try."""
    patience: float = field(default_factory=patience_of_environment)
    """Seconds to wait for a store that does not answer; 0: `attempts` requests are all."""

    @cached_property
    def client(self) -> Any:
        """The boto3 client: every access to S3 in this project goes through it.

        A custom endpoint makes botocore put the bucket into the path, as S3-compatible stores want it; it reads
        AWS_REQUEST_CHECKSUM_CALCULATION and AWS_RESPONSE_CHECKSUM_VALIDATION itself.
        """
        import boto3
        from botocore.config import Config

        config = Config(
            connect_timeout=self.connect_timeout,
            read_timeout=self.read_timeout,
            retries={"mode": "standard", "total_max_attempts": 1 if self.patience else self.attempts},
            max_pool_connections=2 * THREADS,
        )
        for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
            split_url(os.environ.get(name, ""), name=name)
        split_url(self.endpoint_url, name="the endpoint URL of the store")
        try:
            with _answering("S3"):
                client = boto3.session.Session().client("s3", endpoint_url=self.endpoint_url or None, config=config)
        except ValueError as error:
            raise InputError(
                f"{one_line(error)}, expected a URL such as https://s3.example.org", "correct AWS_ENDPOINT_URL"
            ) from error
        if self.patience:
            _wait_for_store(client, self.patience)
        return client

    def stat(self, uri: str) -> StoredObject:
        """Size, ETag and digest of an object.

        Raises:
            InputError: there is no such object.
            BackendError: the store cannot be reached, or refuses.
        """
        found = self.find(uri)
        if found is None:
            raise InputError(f"{uri} does not exist, expected an object", "check bucket and key")
        return found

    def find(self, uri: str) -> StoredObject | None:
        """The same; None where there is no such object. A bucket that does not exist is an error."""
        from botocore.exceptions import ClientError

        try:
            with _answering(uri, pass_on=_MISSING):
                answer = self.client.head_object(**_request(uri))
        except ClientError:
            self.check_bucket(uri)
            return None
        return StoredObject(uri, answer["ContentLength"], answer["ETag"], _known_digest(answer))

    def check_bucket(self, uri: str) -> None:
        """See that the bucket of an URI is there, and that the credentials in use reach it.

        Raises:
            InputError: there is no such bucket.
            BackendError: the store cannot be reached, or refuses.
        """
        bucket = parse_uri(uri).bucket
        with _answering(f"s3://{bucket}"):
            self.client.head_bucket(Bucket=bucket)

    def stat_all(self, uris: Sequence[str], *, description: str) -> list[StoredObject | None]:
        """`find` for many, in their order."""
        return call_all(self.find, uris, description=description)

    def names_below(self, uri: str) -> list[str]:
        """Names of all objects below a folder, relative to it, sorted."""
        bucket, key = parse_uri(uri)
        prefix = f"{key.rstrip('/')}/" if key else ""
        with _answering(uri):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return sorted(key.removeprefix(prefix) for key in keys if not key.endswith("/"))  # those are empty folders

    def read(self, uri: str, digest: Digest | None, *, max_bytes: int) -> bytes:
        """Content of a small object, with the digest where one is known.

        Raises:
            InputError: there is no such object, or it is larger.
            BackendError: its content has another digest.
        """
        found = self.stat(uri)
        if found.size > max_bytes:
            raise InputError(f"{uri} has {found.size} bytes, expected at most {max_bytes}", "check what it is")
        content = io.BytesIO()
        self._fill(content, found, digest, lambda _: None)
        return content.getvalue()

    def download(self, uri: str, path: Path, *, digest: Digest | None = None) -> None:
        """Make a file of an object; see `download_all`."""
        self.download_all([Download(self.stat(uri), path, digest)], description=f"fetching {path.name}")

    def download_all(self, downloads: Sequence[Download], *, description: str) -> None:
        """Make files of objects, several at a time.

        A file appears when all of it is there, has the digest and is on the disk. Until then it is
        `.<name>.part`, where the next call resumes unless the object has changed. A file that has the digest stays.

        Raises:
            InputError: an object does not exist.
            BackendError: the store cannot be reached or refuses, an object is damaged or changes meanwhile.
        """
        _in_threads(
            [lambda report, job=job: self._download(job, report) for job in downloads],  # type: ignore[misc]
            description=description,
            size=sum(job.source.size for job in downloads),
        )

    def upload(self, path: Path, uri: str) -> None:
        """Make an object of a file, unless it is there already: same size, same sha256.

        The object appears when all of it is there, and is compared with the file afterwards.

        Raises:
            InputError: the file or the bucket does not exist.
            BackendError: the store cannot be reached or refuses, or has got something else.
        """
        if not path.is_file():
            raise InputError(f"{path} does not exist, expected a file to send to {uri}", "check its path")
        size = path.stat().st_size
        part = max(PART, math.ceil(size / MAX_PARTS / CHUNK) * CHUNK)
        prints = _fingerprints(path, part)
        found = self.find(uri)
        if found is not None and (found.size, found.digest) == (size, Digest("sha256", prints.sha256)):
            log.info("%s is already there", uri)
            return
        _in_threads(
            [lambda report: self._upload(path, uri, prints, part, report)],
            description=f"sending {path.name}",
            size=size,
        )

    def open(self, source: StoredObject) -> "StoredFile":
        """An object as a file that is read by ranges; see `StoredFile`."""
        return StoredFile(source, lambda start, stop: b"".join(self._body(source, start, lambda _: None, stop)))

    def delete(self, uri: str) -> None:
        """Remove an object; it may be gone already.

        Raises:
            BackendError: the store cannot be reached, or refuses.
        """
        with _answering(uri):
            self.client.delete_object(**_request(uri))

    def _download(self, job: Download, report: Report) -> None:
        digest = job.digest or job.source.digest
        part = job.path.with_name(f".{job.path.name}.part")
        mark = job.path.with_name(f".{job.path.name}.part.etag")
        if digest and _has(job.path, job.source.size, digest):
            mark.unlink(missing_ok=True)  # a kill may have left it
            report(job.source.size)
            return
        job.path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab+") as stream:
            if not try_lock(stream, part, elsewhere="fetch into a folder on another file system"):
                raise BackendError(f"{job.path} is being fetched by another process", "wait for it")
            # emptied before it is marked, so that no content is ever taken for that of another object
            if not mark.is_file() or mark.read_bytes() != job.source.etag.encode():
                stream.truncate(0)
                mark.write_text(job.source.etag)
            self._fill(stream, job.source, digest, report)
            stream.flush()
            os.fsync(stream.fileno())
            part.replace(job.path)
        mark.unlink()

    def _fill(self, stream: BinaryIO, source: StoredObject, digest: Digest | None, report: Report) -> None:
        """Append to the stream what it lacks of the object; where the content is wrong, start again."""
        from botocore.exceptions import FlexibleChecksumError

        for _ in range(WHOLE_DOWNLOADS):
            if stream.seek(0, os.SEEK_END) > source.size:
                stream.truncate(0)
            stream.seek(0)
            hashed = hashlib.new(digest.algorithm if digest else "md5", usedforsecurity=False)
            while chunk := stream.read(CHUNK):
                hashed.update(chunk)
                report(len(chunk))
            try:
                for chunk in self._body(source, stream.tell(), report):
                    hashed.update(chunk)
                    stream.write(chunk)
            except FlexibleChecksumError:  # botocore's own, of objects that the store has a checksum of
                log.debug("%s: the body does not have the checksum that the store sent", source.uri)
            else:
                if digest is None or hashed.hexdigest() == digest.value:
                    return
            stream.truncate(0)
        raise BackendError(
            f"{source.uri} is damaged: {WHOLE_DOWNLOADS} downloads did not have its "
            f"{digest.algorithm if digest else 'checksum'}{f' {digest.value}' if digest else ''}",
            "send it again from where it is whole",
        )

    def _body(self, source: StoredObject, start: int, report: Report, stop: int | None = None) -> Iterator[bytes]:
        """The object's bytes from `start` to `stop`; a body that breaks off is asked for again from there."""
        from botocore.exceptions import BotoCoreError, ClientError, FlexibleChecksumError
        from urllib3.exceptions import HTTPError

        failures = 0
        done = start
        end = source.size if stop is None else stop
        while done < end:
            before = done
            report(0)
            try:
                with _answering(source.uri, pass_on={"412", "PreconditionFailed", "416", "InvalidRange"}):
                    last = end - 1 if end < source.size else ""
                    ranged = {"Range": f"bytes={done}-{last}"} if done or end < source.size else {}
                    answer = self.client.get_object(**_request(source.uri), IfMatch=source.etag, **ranged)
                if ranged and not answer.get("ContentRange", "").startswith(f"bytes {done}-{end - 1}/"):
                    raise BackendError(f"{source.uri}: the store sends no part of an object, only the whole")
                with closing(answer["Body"]) as body:
                    while chunk := body.read(CHUNK):
                        done += len(chunk)
                        report(len(chunk))
                        yield chunk
                if done != end:
                    raise _ShortBodyError(f"{done} bytes instead of {end}")
            except ClientError as error:
                raise BackendError(f"{source.uri} changed while it was read", "run again") from error
            except FlexibleChecksumError:
                raise
            except (BotoCoreError, HTTPError, _ShortBodyError) as error:
                failures = 1 if done > before else failures + 1
                if failures >= self.attempts:
                    raise BackendError(
                        f"{source.uri} broke off {failures} times after {done} of {end} bytes ({one_line(error)})",
                        "check the network and run again: it resumes there",
                    ) from error
                # jitter, so that many readers do not come back at once
                time.sleep(min(LONGEST_PAUSE, self.first_pause * 2**failures) * random.random())  # noqa: S311

    def _upload(self, path: Path, uri: str, prints: _Fingerprints, part: int, report: Report) -> None:
        from boto3.exceptions import S3UploadFailedError
        from boto3.s3.transfer import TransferConfig

        config = TransferConfig(multipart_threshold=PART + 1, multipart_chunksize=part, max_concurrency=4)
        address = parse_uri(uri)
        with _answering(uri):
            if path.stat().st_size > PART:
                self._abort_unfinished(address)
            try:
                self.client.upload_file(
                    str(path),
                    *address,
                    ExtraArgs={"Metadata": {"sha256": prints.sha256}},
                    Callback=report,
                    Config=config,
                )
            except S3UploadFailedError as error:
                # a completion that was sent twice, for its answer was lost; the object is compared below
                if "NoSuchUpload" not in str(error) or self.find(uri) is None:
                    raise error.__context__ or error from error
            answer = self.client.head_object(**_request(uri))
        # where the ETag is no digest, the checksums remain that boto3 sends with every part
        same = answer["ETag"].strip('"') == prints.etag or not _etag_is_md5(answer)
        if answer["ContentLength"] != path.stat().st_size or not same:
            self.client.delete_object(**_request(uri))
            raise BackendError(
                f"{uri}: the store got something else than {path} has (the file changed meanwhile, or bytes changed "
                "underway), so the object was removed",
                "run again",
            )

    def _abort_unfinished(self, address: Address) -> None:
        """Remove what a killed upload of the same object has left: invisible, but paid for."""
        answer = self.client.list_multipart_uploads(Bucket=address.bucket, Prefix=address.key)
        for entry in answer.get("Uploads", []):
            if entry["Key"] == address.key:
                self.client.abort_multipart_upload(Bucket=address.bucket, Key=address.key, UploadId=entry["UploadId"])


class StoredFile(io.RawIOBase):
    """An object that is read by ranges, for readers that seek, as those of Parquet do; its digest is not checked.

    Every read is a request, which is repeated as those of downloads are; the end, which such readers ask for again and
    again, is kept.

    Args:
        source: the object.
        get: its bytes from one place to another.
    """

    def __init__(self, source: StoredObject, get: Callable[[int, int], bytes]) -> None:
        super().__init__()
        self._size = source.size
        self._get = get
        self._place = 0
        self._tail_start = max(0, source.size - TAIL)

    @cached_property
    def _tail(self) -> bytes:
        return self._get(self._tail_start, self._size)

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the place of the next read."""
        self._place = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence] + offset
        return self._place

    def tell(self) -> int:
        """The place of the next read."""
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, up to the end of the object.

        Raises:
            BackendError: the store cannot be reached or refuses, or the object has changed.
        """
        start, stop = self._place, min(self._place + len(buffer), self._size)
        if start >= stop:
            return 0
        content = (
            self._get(start, stop)
            if start < self._tail_start
            else self._tail[start - self._tail_start : stop - self._tail_start]
        )
        buffer[: len(content)] = content
        self._place = stop
        return len(content)


def call_all(call: Callable[[T], R], items: Sequence[T], *, description: str) -> list[R]:
    """Results of a function that asks the store, in the order of the items; a few at a time, until one fails."""
    with ThreadPoolExecutor(THREADS) as threads:
        try:
            return list(track(threads.map(call, items), description=description, total=len(items)))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def parse_uri(uri: str) -> Address:
    """Bucket and key of `s3://bucket/key`; the key may be empty.

    Raises:
        InputError: it is not such a URI.
    """
    parts = uri.removeprefix("s3://").split("/", 1)
    if not uri.startswith("s3://") or not parts[0]:
        raise InputError(f"{redact(uri)!r} is not the address of an object in S3, expected s3://bucket/key")
    if re.search("[:@]", parts[0]) and not parts[0].startswith("arn:"):
        raise InputError(
            f"{redact(uri)} was given with credentials, which an address in S3 does not have",
            "give them in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in a profile of AWS_PROFILE",
        )
    return Address(parts[0], parts[1] if len(parts) > 1 else "")


def _request(uri: str) -> dict[str, str]:
    bucket, key = parse_uri(uri)
    if not key:
        raise InputError(f"{uri} names a bucket alone, expected s3://bucket/key")
    return {"Bucket": bucket, "Key": key}


def _etag_is_md5(answer: Mapping[str, Any]) -> bool:
    """Whether the ETag comes from the content: not where the store encrypts with a key of the user's."""
    return answer.get("ServerSideEncryption", "AES256") == "AES256" and "SSECustomerAlgorithm" not in answer


def _known_digest(answer: Mapping[str, Any]) -> Digest | None:
    sha256 = answer["Metadata"].get("sha256")
    if sha256:
        return Digest("sha256", sha256)
    etag = answer["ETag"].strip('"')
    return Digest("md5", etag) if _etag_is_md5(answer) and _PLAIN_MD5.fullmatch(etag) else None


def _has(path: Path, size: int, digest: Digest) -> bool:
    if not path.is_file() or path.stat().st_size != size:
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, digest.algorithm).hexdigest() == digest.value


def _fingerprints(path: Path, part: int) -> _Fingerprints:
    sha256, whole, parts = hashlib.sha256(), hashlib.md5(usedforsecurity=False), []
    with path.open("rb") as stream:
        while chunk := stream.read(part):
            sha256.update(chunk)
            whole.update(chunk)
            parts.append(hashlib.md5(chunk, usedforsecurity=False).digest())
    of_parts = hashlib.md5(b"".join(parts), usedforsecurity=False).hexdigest()
    return _Fingerprints(sha256.hexdigest(), whole.hexdigest() if len(parts) < 2 else f"{of_parts}-{len(parts)}")


def _in_threads(jobs: Sequence[Callable[[Report], None]], *, description: str, size: int) -> None:
    """Run the jobs, a few at a time, and show how much has moved; the first failure, or Ctrl-C, stops them all."""
    moved: SimpleQueue[int] = SimpleQueue()
    stop = threading.Event()

    def report(count: int) -> None:
        if stop.is_set():
            raise _StoppedError
        moved.put(count)

    with ThreadPoolExecutor(THREADS) as threads:
        futures = [threads.submit(job, report) for job in jobs]
        try:
            for _ in track(_megabytes(moved, futures), description=f"{description}, MB", total=size // MEGABYTE):
                pass
        except BaseException:
            stop.set()
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _megabytes(moved: "SimpleQueue[int]", futures: Sequence[Future[None]]) -> Iterator[None]:
    """Yield once for every megabyte that moves, until all are done or one has failed."""
    count = 0
    while not all(future.done() for future in futures):
        for future in futures:
            if future.done():
                future.result()
        with suppress(Empty):
            count += moved.get(timeout=0.05)
        while count >= MEGABYTE:
            count -= MEGABYTE
            yield
    for future in futures:
        future.result()


def _wait_for_store(client: Any, seconds: float) -> None:
    """Let botocore repeat every failed request of a client, those of its transfer manager too, as patience says."""
    patience = Patience(f"S3 at {redact(client.meta.endpoint_url)}", seconds)

    def needs_retry(
        *, response: Any, caught_exception: Exception | None, request_dict: dict[str, Any], **_: object
    ) -> float | None:
        failure = passing_failure(caught_exception) if caught_exception else _passing_answer(*response)
        outage: Outage = request_dict["context"].setdefault("dagnn_outage", Outage(patience))
        return outage.pause(failure)

    client.meta.events.register("needs-retry.s3", needs_retry)


def _passing_answer(http: Any, parsed: Mapping[str, Any]) -> str | None:
    code = parsed.get("Error", {}).get("Code")
    return f"it answers {http.status_code} {code}" if code in _BUSY else passing_status(http.status_code)


@contextmanager
def _answering(what: str, *, pass_on: Collection[str] = ()) -> Iterator[None]:
    """Turn what botocore raises in the body into one clear line; `pass_on`: codes of answers that are expected."""
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] in pass_on:
            raise
        raise _refusal(error, what) from error
    except (BotoCoreError, HTTPError) as error:
        raise _failure(error, what) from error


def _refusal(error: "ClientError", what: str) -> DagnnError:
    """What an answer of the store means to the user."""
    code = error.response["Error"]["Code"]
    status = error.response["ResponseMetadata"].get("HTTPStatusCode")
    if code in _MISSING:
        is_bucket = code == "NoSuchBucket" or "/" not in what.removeprefix("s3://")
        name = f"the bucket of {what}" if is_bucket else what
        return InputError(f"{name} does not exist", "check its name, and AWS_ENDPOINT_URL if the store is not AWS")
    if code in _BAD_CREDENTIALS:
        return BackendError(f"{what}: the store does not take the credentials ({code})", "renew or correct them")
    if code in _DENIED:
        return BackendError(f"{what}: access denied", "the credentials in use have no right to it")
    return BackendError(f"{what}: the store answers {status} {code}, also when asked again", "try later")


def _failure(error: Exception, what: str) -> DagnnError:
    """What a failure without any answer means to the user."""
    from botocore.exceptions import (
        CredentialRetrievalError,
        NoCredentialsError,
        ParamValidationError,
        PartialCredentialsError,
        ProfileNotFound,
        TokenRetrievalError,
    )

    if isinstance(error, ParamValidationError):
        return InputError(f"{what} is not an address that S3 allows: {one_line(error)}")
    if isinstance(
        error,
        NoCredentialsError | PartialCredentialsError | CredentialRetrievalError | ProfileNotFound | TokenRetrievalError,
    ):
        return BackendError(
            f"{what}: no credentials for S3 ({one_line(error)})",
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
        )
    return BackendError(f"{what}: the store cannot be reached ({one_line(error)})", "check network and endpoint")
