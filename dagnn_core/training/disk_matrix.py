"""Features that stay on the disk: some rows of a memory-mapped matrix, of which a batch at a time is read."""

import mmap
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class DiskMatrix:
    """Some rows of a matrix that is mapped into memory, to be read onto a device."""

    matrix: NDArray[np.float32]
    """The whole file, [M, dim]."""
    rows: NDArray[np.int64]
    """Which of its rows, [N]."""
    device: torch.device
    """Where rows go that are read."""

    @property
    def shape(self) -> tuple[int, int]:
        """(N, dim)."""
        return len(self.rows), self.matrix.shape[1]

    def select(self, rows: Tensor) -> "DiskMatrix":
        """Some of the rows, of which none is read.

        Shape:
            rows [B], on the CPU.
        """
        return replace(self, rows=self.rows[rows.numpy()])

    def read(self, rows: Tensor | slice) -> Tensor:
        """Read rows, at once and in their order, onto the device.

        Shape:
            rows [B], on the CPU -> [B, dim].
        """
        places = self.rows[rows if isinstance(rows, slice) else rows.numpy()]
        self._announce(places)
        read = torch.empty(len(places), self.matrix.shape[1], pin_memory=self.device.type == "cuda")
        np.take(self.matrix, places, axis=0, out=read.numpy(), mode="clip")  # any other mode takes a second copy
        return read.to(self.device, non_blocking=True)

    def _announce(self, places: NDArray[np.int64]) -> None:
        """Let the system read all these rows side by side: touched one by one, each would wait for the disk."""
        mapped: object = self.matrix.base
        if not isinstance(mapped, mmap.mmap) or not hasattr(mmap, "MADV_WILLNEED"):
            return  # not mapped, or a system that takes no advice
        size = self.matrix.strides[0]
        header = len(mapped) - self.matrix.nbytes
        for first in (header + places * size).tolist():
            start = first - first % mmap.PAGESIZE
            mapped.madvise(mmap.MADV_WILLNEED, start, first + size - start)
