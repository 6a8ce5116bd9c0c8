"""The results table for a terminal, from the flat figures of `metrics.json`."""

from collections.abc import Mapping

_ROWS = (("DAGNN", ""), ("CCA", "cca_"), ("chance", "chance_"))  # name, prefix of its metrics
_COLUMNS = (
    ("MAP i2t", "map_i2t"),
    ("MAP t2i", "map_t2i"),
    ("mean MAP", "map_mean"),
    ("MAP@50 i2t", "map_i2t_at_50"),
    ("MAP@50 t2i", "map_t2i_at_50"),
    ("NDCG@10 i2t", "ndcg_i2t_at_10"),
    ("NDCG@10 t2i", "ndcg_t2i_at_10"),
    ("R@10 i2t", "recall_i2t_at_10"),
    ("R@10 t2i", "recall_t2i_at_10"),
)


def results_table(metrics: Mapping[str, float]) -> str:
    """Rows DAGNN, CCA and chance; columns MAP, MAP@50, NDCG@10 and recall@10 in both directions."""
    lines = [" " * 6 + "".join(f"{title:>13}" for title, _ in _COLUMNS)]
    for name, prefix in _ROWS:
        lines.append(f"{name:6}" + "".join(f"{metrics[prefix + metric]:13.3f}" for _, metric in _COLUMNS))
    return "\n".join(lines)
