"""Decode and preprocess images in worker processes, ahead of the network.

The workers are forked from a server process that has no threads and no GPU (`forkserver`), get encoded images, and
hand back batches of pixels through shared memory. This module stays small: every worker imports it.
"""

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from dagnn_core.data.images import PixelBudget, share_budget
from dagnn_core.errors import BackendError, InputError

# B batch

IMAGES_PER_WORKER = 256  # fewer are decoded sooner than a process starts

Preprocess = Callable[[bytes], NDArray[Any]]


class NumberedImage(NamedTuple):
    """An encoded image and its row in the data set."""

    row: int
    encoded: bytes


class PixelBatch(NamedTuple):
    """Preprocessed images."""

    rows: Tensor
    """Rows of the images in the data set, [B]."""
    pixels: Tensor
    """What the network takes, [B, ...]."""


class FaultyImage(NamedTuple):
    """Why an image cannot be preprocessed."""

    row: int
    message: str


def load_pixels(
    batches: Iterable[list[NumberedImage]],
    preprocess: Preprocess,
    *,
    name: Callable[[int], str],
    num_images: int,
    workers: int,
    pin_memory: bool,
) -> Iterator[PixelBatch]:
    """Preprocess batches of images, in order, while the caller works on earlier ones.

    Args:
        batches: encoded images.
        preprocess: turns one into pixels; picklable.
        name: names the image of a row, for messages.
        num_images: in all batches together; for few of them no processes are started.
        workers: number of processes; 0: this one decodes.
        pin_memory: whether pixels go to a GPU.

    Raises:
        InputError: an image cannot be decoded.
        BackendError: a worker process died.
    """
    num_workers = min(workers, num_images // IMAGES_PER_WORKER)
    context = _forkserver()
    loader = DataLoader(
        _Pixels(preprocess),
        batch_sampler=batches,  # any iterable will do: its elements go to the workers
        num_workers=num_workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        multiprocessing_context=context if num_workers else None,
        worker_init_fn=partial(_start_worker, PixelBudget(context)) if num_workers else None,
        generator=torch.Generator(),  # else seeds for the workers are drawn from the global one
    )
    try:
        for batch in loader:
            if isinstance(batch, FaultyImage):
                raise InputError(f"{name(batch.row)} {batch.message}")
            yield batch
    except (RuntimeError, ConnectionError, EOFError) as error:  # the latter two: it died with a batch to hand over
        if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker (pid"):
            raise
        raise BackendError(
            f"a process that decodes images died ({error})",
            "most likely memory ran out, or shared memory (/dev/shm): "
            "lower features.workers or features.batch_size in params.yaml and run again, finished vectors are kept",
        ) from error


class _Pixels(Dataset[tuple[int, Tensor] | FaultyImage]):
    """What a worker does with one image."""

    def __init__(self, preprocess: Preprocess) -> None:
        self._preprocess = preprocess

    def __getitem__(self, image: NumberedImage) -> tuple[int, Tensor] | FaultyImage:
        try:
            pixels = self._preprocess(image.encoded)
        except InputError as error:  # as a value: an exception would arrive with the worker's traceback as its text
            return FaultyImage(image.row, str(error))
        return image.row, torch.from_numpy(np.require(pixels, requirements=["C", "W"]))


def _collate(samples: list[tuple[int, Tensor] | FaultyImage]) -> PixelBatch | FaultyImage:
    for sample in samples:
        if isinstance(sample, FaultyImage):
            return sample
    return PixelBatch(*default_collate(samples))  # in a worker, stacks straight into shared memory


def _start_worker(budget: PixelBudget, _number: int) -> None:
    share_budget(budget)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # as the commands do in the main process
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the main one ends its workers itself
    threading.Thread(target=_end_with_main_process, daemon=True).start()


def _end_with_main_process() -> None:
    """End this worker where the main process was killed; its parent is the server, which lives while workers do."""
    main = multiprocessing.parent_process()
    assert main is not None
    main.join()
    os._exit(1)


def _forkserver() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once, not by every worker
    return context
