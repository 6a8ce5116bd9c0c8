"""Which device the networks run on."""

import platform
import re
from pathlib import Path
from typing import Any, Literal

import torch

from dagnn_core.errors import InputError


def choose_device(wanted: Literal["auto", "cpu", "cuda"], *, key: str) -> torch.device:
    """The device that is asked for; `auto` takes a GPU where there is one.

    Args:
        wanted: what the configuration says.
        key: where it says so, for the message.

    Raises:
        InputError: there is no GPU where one is asked for.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError(f"{key} is cuda, but this machine has no usable GPU", f"set {key} to auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What the last digits of metrics depend on: processor, device, number of threads and of processes (torchrun)."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return {
        "processor": _processor(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "processes": torch.distributed.get_world_size() if distributed else 1,
    }


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:  # not Linux
        found = None
    return f"{platform.machine()} {found[1]}" if found else platform.machine()
