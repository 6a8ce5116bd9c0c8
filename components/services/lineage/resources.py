"""What a step uses: time and memory of its process, from the import of its program on."""

import logging
import resource
import sys
import time
from collections.abc import Mapping
from typing import Any

from dagnn_core.artifacts import MADE_BY
from dagnn_core.resources import resource_words

log = logging.getLogger(__name__)

_STARTED = time.monotonic()
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes


def used() -> dict[str, float]:
    """Seconds and MiB that this process and its children have used.

    `gpu_seconds` are those for which the process holds GPUs, whether they work or not: what a cluster charges.
    """
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    wall_seconds = time.monotonic() - _STARTED
    found = {
        "wall_seconds": wall_seconds,
        "cpu_seconds": sum(one.ru_utime + one.ru_stime for one in usage),
        "peak_memory_mib": max(one.ru_maxrss for one in usage) * _RSS_UNIT / 2**20,
    }
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is not None and cuda.is_initialized():
        found["gpu_seconds"] = wall_seconds
        found["gpu_peak_memory_mib"] = cuda.max_memory_allocated() / 2**20
    return {name: round(value, 1) for name, value in found.items()}


def record_use(record: Mapping[str, Any]) -> dict[str, float]:
    """Measure what a step has used; the record of a task of a pipeline gets it as `execution.resources`.

    A record outside of a pipeline holds no time, so that equal work makes equal files and DVC runs nothing again.

    Args:
        record: made by `provenance`, and not yet written.

    Returns:
        What was used.
    """
    found = used_so_far(record)
    log.info("used %s", resource_words(found))
    return found


def used_so_far(record: Mapping[str, Any]) -> dict[str, float]:
    """The same, for a page about a step that has not ended yet."""
    found = used()
    if "pipeline_run" in record["execution"]:
        record["execution"]["resources"] = found
    return found


def used_by_steps(record: Mapping[str, Any]) -> dict[str, float]:
    """What the steps have used that made the artifacts of a record, as metrics: `extract_features_cpu_seconds` ...

    Args:
        record: made by `provenance`.

    Returns:
        Of the steps whose records have it.
    """
    return {
        f"{MADE_BY[kind]}_{name}": value
        for kind, origin in record.get("origins", {}).items()
        if kind in MADE_BY
        for name, value in origin.get("execution", {}).get("resources", {}).items()
    }
