"""Section `evaluate`."""

from typing import ClassVar

from dagnn_core.config.section import DEFAULT_SEED, Count, Seed, section


@section
class EvaluateConfig:
    """What the report shows beside the metrics."""

    NAME: ClassVar[str] = "evaluate"

    num_queries: Count = 12
    """Example queries in each direction."""
    num_retrieved: Count = 6
    """Items shown for each example query."""
    seed: Seed = DEFAULT_SEED
    """Draws the example queries."""
