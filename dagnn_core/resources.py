"""What steps have used, in words, as far as their records say."""

from collections.abc import Mapping
from typing import Any

_WORDS = {
    "wall_seconds": "{:,.0f} s",
    "cpu_seconds": "{:,.0f} CPU seconds",
    "gpu_seconds": "{:,.0f} GPU seconds",
    "peak_memory_mib": "{:,.0f} MiB at most",
    "gpu_peak_memory_mib": "{:,.0f} MiB of GPU memory at most",
}


def resource_words(resources: Mapping[str, float]) -> str:
    """Time and memory, for readers."""
    return ", ".join(words.format(resources[name]) for name, words in _WORDS.items() if name in resources)


def recorded_resources(kind: str, provenance: Mapping[str, Any]) -> dict[str, str]:
    """Kind of artifact -> what its step has used, of an artifact and of those that it was made from.

    Args:
        kind: of the artifact.
        provenance: its record.

    Returns:
        Only those that a pipeline has made.
    """
    records = {**provenance.get("origins", {}), kind: provenance}
    found = {name: record.get("execution", {}).get("resources") for name, record in records.items()}
    return {name.replace("_", " "): resource_words(used) for name, used in found.items() if used}
