"""Files of tensors: safetensors, with a clear error where the disk refuses one."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from dagnn_core.disk import writing


def num_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes that the values take."""
    return sum(value.nbytes for value in tensors.values())


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file.

    Args:
        path: the file; it is no whole one when this raises.
        tensors: name -> values, no two of which share memory.
        metadata: texts for the header.

    Raises:
        DiskError: the disk refuses it.
    """
    contiguous = {name: value.contiguous() for name, value in tensors.items()}
    with writing(path, need=num_bytes(contiguous)):
        save_file(contiguous, path, metadata=metadata)
        path.chmod(0o644)  # it is its owner's alone otherwise: another user serves it in a container
