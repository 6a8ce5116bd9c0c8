"""Files of tensors: safetensors, with a clear error where the disk refuses one."""

import hashlib
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dagnn_core.disk import writing
from dagnn_core.errors import ArtifactError


def num_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes that the values take."""
    return sum(value.nbytes for value in tensors.values())


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


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


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], record: str) -> None:
    """Write what a training resumes from; a kill at any moment leaves the old checkpoint or the new one.

    Args:
        path: the file; the name of its folder stands for what is trained.
        tensors: name -> values, no two of which share memory.
        record: what else there is, as JSON.

    Raises:
        DiskError: the disk refuses it.
    """
    header = {"record": record, "sha256": _digest(path, record, tensors)}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{uuid.uuid4().hex}.tmp")  # another process may be at the same where no locks are
    try:
        with writing(path, need=num_bytes(tensors)):
            save_file({name: value.contiguous() for name, value in tensors.items()}, temporary, metadata=header)
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read what `write_checkpoint` wrote: tensors and record.

    Raises:
        ArtifactError: it is damaged, or was written in another folder.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"{path} cannot be read ({error})") from error
    record = header.get("record", "")
    if header.get("sha256") != _digest(path, record, tensors):
        raise ArtifactError(f"{path} is damaged")
    return tensors, record


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimizer knows of each parameter, its moments: tensors for a checkpoint."""
    states = optimizer.state_dict()["state"].items()
    return {f"optimizer.{index}.{name}": value for index, moments in states for name, value in moments.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer of the same parameters what `optimizer_tensors` took, from among a checkpoint's tensors."""
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in under(tensors, "optimizer.").items():
        index, _, moment = name.partition(".")
        moments.setdefault(int(index), {})[moment] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


def _digest(path: Path, record: str, tensors: Mapping[str, Tensor]) -> str:
    """Sha256 of all that a checkpoint holds, and of the folder's name, which stands for what it was trained on."""
    digest = hashlib.sha256(f"{path.parent.name}\0{record}".encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"\0{name} {value.dtype} {list(value.shape)}\0".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
