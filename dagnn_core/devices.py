"""Which device the networks run on, how much memory it has left, and which arithmetic is fast on it."""

import logging
import platform
import re
import time
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

from dagnn_core.errors import InputError

log = logging.getLogger(__name__)

Precision = Literal["float32", "bf16"]

CONTROL_GROUP = Path("/sys/fs/cgroup")  # of this process, as a container sees it
MEASURED_SIZE = 512  # of the matrices that are multiplied to learn which arithmetic is faster
MEASURED_TIMES = 5
LEAST_GAIN = 1.2  # bf16 is taken where it is so many times as fast: less is not worth its rounding, nor stable


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


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device; of main memory, within the limit of the container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    available = int(psutil.virtual_memory().available)
    try:
        limit, used, statistics = (
            (CONTROL_GROUP / name).read_text(encoding="ascii")
            for name in ("memory.max", "memory.current", "memory.stat")
        )
        cached = dict(line.split() for line in statistics.splitlines())["inactive_file"]
        return max(0, min(available, int(limit) - int(used) + int(cached)))
    except (OSError, ValueError, KeyError):  # no container, or no limit ("max")
        return available


def choose_precision(wanted: Literal["auto", "float32", "bf16"], device: torch.device, *, key: str) -> Precision:
    """The arithmetic that is asked for; `auto` measures which one is fast. A slow bf16 warns.

    Args:
        wanted: what the configuration says.
        device: what is measured.
        key: where the configuration says so, for the message.
    """
    if wanted == "float32":
        return "float32"
    single, half = (_seconds_of_product(dtype, device) for dtype in (torch.float32, torch.bfloat16))
    if wanted == "auto":
        chosen: Precision = "bf16" if half * LEAST_GAIN <= single else "float32"
        log.info("%s: %s (products in bf16 take %.2f times as long as in float32)", key, chosen, half / single)
        return chosen
    if half > single:
        log.warning(
            "%s is bf16, in which this device takes %.1f times as long for a matrix product as in float32: set %s to "
            "auto or float32",
            key,
            half / single,
            key,
        )
    return "bf16"


def _seconds_of_product(dtype: torch.dtype, device: torch.device) -> float:
    """Seconds of a matrix product, the shortest of a few."""
    matrix = torch.ones(MEASURED_SIZE, MEASURED_SIZE, dtype=dtype, device=device)
    shortest = float("inf")
    for _ in range(1 + MEASURED_TIMES):  # the first one also sets up
        start = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # waits for the GPU
        shortest = min(shortest, time.perf_counter() - start)
    return shortest


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
