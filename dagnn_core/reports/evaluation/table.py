"""The results table for a terminal, from the flat figures of `metrics.json`."""

from collections.abc import Mapping

_ROWS = (("model", ""), ("CCA", "cca_"), ("chance", "chance_"))  # name, prefix of its metrics
_COLUMNS = (
    ("MAP i2t", "map_i2t"),
    ("MAP t2i", "map_t2i"),
    ("mean MAP", "map_mean"),
    ("MAP@50 i2t", "map_i2t_at_50"),
    ("MAP@50 t2i", "map_t2i_at_50"),
    ("NDCG i2t", "ndcg_i2t"),
    ("NDCG t2i", "ndcg_t2i"),
    ("NDCG@10 i2t", "ndcg_i2t_at_10"),
    ("NDCG@10 t2i", "ndcg_t2i_at_10"),
    ("R@10 i2t", "recall_i2t_at_10"),
    ("R@10 t2i", "recall_t2i_at_10"),
)
TABLE_METRICS = tuple(prefix + metric for _, prefix in _ROWS for _, metric in _COLUMNS)
"""The metrics that the table shows."""


def results_table(metrics: Mapping[str, float]) -> str:
    """Rows model, CCA and chance; columns MAP, MAP@50, NDCG, NDCG@10 and recall@10 in both directions."""
    lines = [" " * 6 + "".join(f"  {title}" for title, _ in _COLUMNS)]
    for name, prefix in _ROWS:
        cells = (f"  {metrics[prefix + metric]:{len(title)}.3f}" for title, metric in _COLUMNS)
        lines.append(f"{name:6}" + "".join(cells))
    return "\n".join(lines)
