"""Data parallel training: one model on the processes that torchrun starts, with the result of one process.

Every process holds the same weights and features, and draws the same batches and dropout masks. Layers that treat every
row of a batch alone are nearly all of the work: each process applies them to its share of the rows, and the outputs are
gathered. The rest (batch norm, label GNN, losses) depends on the whole batch, is small, and is done by every process.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from dagnn_core.errors import BackendError, InputError

_LONGEST_WAIT = timedelta(hours=1)  # of the others for the first one, which may wait for a server that restarts


@contextmanager
def joined_processes(device: torch.device) -> Iterator[None]:
    """Work together with the other processes of torchrun in the body; without torchrun, nothing changes.

    Args:
        device: each process takes one GPU of its machine where it is `cuda`.

    Raises:
        InputError: there are fewer GPUs than processes.
    """
    if not dist.is_torchelastic_launched():
        yield
        return
    if device.type == "cuda":
        position, num_gpus = dist.get_node_local_rank(), torch.cuda.device_count()
        if position >= num_gpus:
            raise InputError(
                f"torchrun started more processes on this machine than it has GPUs ({num_gpus}), expected at most one "
                "for each",
                "lower --nproc_per_node, or set train.device to cpu",
            )
        torch.cuda.set_device(position)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_LONGEST_WAIT)
    yield
    dist.destroy_process_group()  # not after a failure, which must end this process at once


def num_processes() -> int:
    """How many processes work together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process validates, reports and writes: the first one does, or the only one."""
    return not dist.is_initialized() or dist.get_rank() == 0


def from_main(value: int) -> int:
    """What the first process says, whatever the others say."""
    if num_processes() == 1:
        return value
    return int(_sum(torch.tensor(int(value) if is_main() else 0, device=_device())))


@contextmanager
def file_of_main(path: Path) -> Iterator[Path]:
    """A file as the first process has it, in all processes, which need not share a disk.

    Args:
        path: the file; it need not exist.

    Yields:
        Path of the same content, in a folder of the same name, while the body runs; where the first process has no such
        file, nothing is there.

    Raises:
        BackendError: a process cannot be reached any more.
    """
    if num_processes() == 1:
        yield path
        return
    size = from_main(path.stat().st_size if is_main() and path.is_file() else 0)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, path.parent.name, path.name)
        if size:
            content = torch.empty(size, dtype=torch.uint8)
            if is_main():
                content = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
            content = _exchange(lambda x: dist.broadcast(x, 0), content.to(_device()))
            if not is_main():
                copy.parent.mkdir()
                copy.write_bytes(content.cpu().numpy().tobytes())
        yield path if is_main() else copy


def by_rows(layers: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply layers that treat every row alone: each process to its share of the rows, then all have the whole output.

    Shape:
        [B, dim] -> [B, out_dim]; B is the same in every process, and may be less than their number.
    """
    if num_processes() == 1:
        return layers(x)
    start, stop = (len(x) * rank // dist.get_world_size() for rank in (dist.get_rank(), dist.get_rank() + 1))
    padded = functional.pad(layers(x[start:stop]), (0, 0, start, len(x) - stop))
    output: Tensor = _DifferentiableSum.apply(padded)  # type: ignore[no-untyped-call]
    return output


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Set every gradient to the mean over the processes.

    Every process has computed the same loss, so the mean of the losses is the loss, and the mean of what comes back
    through `by_rows`, from the losses of all, is its gradient.
    """
    if num_processes() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    total = _sum(parameters_to_vector(gradients))  # one message instead of many
    vector_to_parameters(total / num_processes(), gradients)


def _device() -> str:
    """Where the processes exchange tensors."""
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


def _sum(x: Tensor) -> Tensor:
    """Sum over the processes, in place."""
    return _exchange(dist.all_reduce, x)


def _exchange(operation: Callable[[Tensor], object], x: Tensor) -> Tensor:
    """Exchange a tensor with the other processes, in place.

    Raises:
        BackendError: one of them cannot be reached any more.
    """
    try:
        operation(x)
    except RuntimeError as error:  # so does gloo say it
        raise BackendError(
            "another process of this training has ended, or cannot be reached",
            "correct what its own message names, then run the same command again: it resumes",
        ) from error
    return x


class _DifferentiableSum(torch.autograd.Function):
    """Sum over the processes; its adjoint is the same sum of the gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _sum(x.clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _sum(gradient.clone(memory_format=torch.contiguous_format))
