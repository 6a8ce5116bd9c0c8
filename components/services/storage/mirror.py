"""A folder that is kept in S3 as well, for work that may lose its disk, as a pod does that is started again."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from components.services.storage.s3 import Storage
from dagnn_core.errors import DagnnError

log = logging.getLogger(__name__)

SECONDS = 30.0


@contextmanager
def mirrored(folder: Path, uri: str, *, storage: Storage, seconds: float = SECONDS) -> Iterator[None]:
    """Bring what S3 has of a folder, and while the body runs keep S3 up to date with the folder's files.

    Files are sent one after the other from a thread of their own, so that the work does not wait: while an upload takes
    its time, no other begins, and the next one sends the newest state. A store that is lost meanwhile costs warnings,
    not the work. When the body is done, S3 forgets the files; when it fails, what is new is sent at once.

    Args:
        folder: its files are replaced as a whole (written under another name that ends in .tmp, then renamed).
        uri: `s3://bucket/prefix` of this folder alone.
        storage: the store.
        seconds: time between two looks at the files.

    Raises:
        InputError: the bucket does not exist, or `uri` is no address.
        BackendError: the store cannot be reached, or refuses.
    """
    names = [name for name in storage.names_below(uri) if "/" not in name]
    for name in names:
        storage.download(f"{uri}/{name}", folder / name)
    if names:
        log.info("took up %s", uri)
    mirror = _Mirror(folder, uri, storage)
    done = threading.Event()
    thread = threading.Thread(target=mirror.send_until, args=(done, seconds), daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        _end(done, thread)
        mirror.send()
        raise
    _end(done, thread)
    mirror.forget()


def _end(done: threading.Event, thread: threading.Thread) -> None:
    done.set()
    thread.join()


class _Mirror:
    def __init__(self, folder: Path, uri: str, storage: Storage) -> None:
        self._folder = folder
        self._uri = uri
        self._storage = storage
        self._sender = replace(storage, patience=0)  # the next look at the files is another attempt, with a newer state
        self._sent: dict[str, tuple[int, int]] = {}

    def send_until(self, done: threading.Event, seconds: float) -> None:
        while not done.wait(seconds):
            self.send()

    def send(self) -> None:
        """Send the files that have changed since they were sent last."""
        for path in sorted(self._folder.glob("[!.]*")):
            # linked, so that it stays what it is when the work puts another file in its place
            still = self._folder / f".{path.name}.sending"
            try:
                if path.suffix != ".tmp" and self._sent.get(path.name) != _state(path):
                    os.link(path, still)
                    state = _state(still)
                    self._sender.upload(still, f"{self._uri}/{path.name}")
                    self._sent[path.name] = state
            except (DagnnError, OSError) as error:
                log.warning("%s is not kept in S3 for now: %s", path.name, error)
            finally:
                still.unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove the files from S3."""
        try:
            for name in self._storage.names_below(self._uri):
                self._storage.delete(f"{self._uri}/{name}")
        except DagnnError as error:
            log.warning("%s stays in S3, though nobody needs it any more: %s", self._uri, error)


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size
