"""The results table for a terminal, from the flat metrics of `metrics.json`."""

from collections.abc import Mapping, Sequence

# name, prefix of its metrics
_ROWS = (("model", ""), ("CCA", "cca_"), ("pretrained", "pretrained_"), ("chance", "chance_"))
_SOMETIMES = "pretrained_"  # where image and text features can be compared as they are
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
_UNSEEN_COLUMNS = (
    ("MAP i2t", "unseen_map_i2t"),
    ("MAP t2i", "unseen_map_t2i"),
    ("mean MAP", "unseen_map_mean"),
    ("NDCG i2t", "unseen_ndcg_i2t"),
    ("NDCG t2i", "unseen_ndcg_t2i"),
)
TABLE_METRICS = tuple(prefix + metric for _, prefix in _ROWS if prefix != _SOMETIMES for _, metric in _COLUMNS)
"""The metrics that the table always shows."""


def results_table(metrics: Mapping[str, float]) -> str:
    """Rows model, CCA and chance; columns MAP, MAP@50, NDCG, NDCG@10 and recall@10 in both directions.

    Features that can be compared as they are have a row, and unseen labels a table, where the metrics have them.
    """
    lines = _table(metrics, _COLUMNS)
    if "unseen_map_mean" in metrics:
        lines += ["", "queries with an unseen label, relevance by unseen labels:", *_table(metrics, _UNSEEN_COLUMNS)]
    return "\n".join(lines)


def _table(metrics: Mapping[str, float], columns: Sequence[tuple[str, str]]) -> list[str]:
    rows = [(name, prefix) for name, prefix in _ROWS if prefix + columns[0][1] in metrics]
    width = max(len(name) for name, _ in rows)
    lines = [" " * width + "".join(f"  {title}" for title, _ in columns)]
    for name, prefix in rows:
        cells = (f"  {metrics[prefix + metric]:{len(title)}.3f}" for title, metric in columns)
        lines.append(f"{name:{width}}" + "".join(cells))
    return lines
