"""A search as one self-contained page: what it found, how it went, which values mattered, and all trials."""

from collections.abc import Mapping
from pathlib import Path

from markupsafe import Markup

from dagnn_core.config.space import Choices, Range, Value
from dagnn_core.reports.evaluation.curves import Curve, draw_curves
from dagnn_core.reports.page.template import read_template
from dagnn_core.reports.tuning.search import Search, best_so_far, nested, shown

TEMPLATE = Path(__file__).with_name("tuning.html.j2")
NUM_SLICES = 4
"""Numbers whose values are drawn against validation MAP, those of the highest importance."""


def render_page(search: Search, *, searched: Mapping[str, Range | Choices]) -> str:
    """Render the page; equal input gives equal text.

    Args:
        search: the search.
        searched: dotted key -> values.

    Returns:
        HTML without references to anything outside it.
    """
    page = read_template(TEMPLATE).render(
        search=search,
        keys=list(search.importance) or list(searched),
        found=nested(search.found),
        curves=_curves(search, searched),
        shown=shown,
    )
    return page.rstrip() + "\n"


def _curves(search: Search, searched: Mapping[str, Range | Choices]) -> dict[str, Markup]:
    if not search.finished:
        return {}
    measured = [trial for trial in search.trials if trial.val_map is not None]
    numbers, best = best_so_far(search.trials)
    figures = {
        "Validation MAP by trial": draw_curves(
            [
                Curve("best so far", numbers, best),
                *(
                    Curve(
                        state,
                        [trial.number for trial in some],
                        [trial.val_map or 0.0 for trial in some],
                        is_scatter=True,
                    )
                    for state in ("finished", "pruned")
                    if (some := [trial for trial in measured if trial.state == state])
                ),
            ],
            name="Validation MAP by trial",
            x_label="trial",
            y_label="MAP",
        )
    }
    for key in [key for key in search.importance if isinstance(searched[key], Range)][:NUM_SLICES]:
        possible = searched[key]
        assert isinstance(possible, Range)
        values: list[Value] = [trial.values[key] for trial in search.finished]
        figures[key] = draw_curves(
            [Curve("finished", values, [trial.val_map or 0.0 for trial in search.finished], is_scatter=True)],
            name=f"Validation MAP by {key}",
            x_label=key,
            y_label="MAP",
            x_range=(possible.low, possible.high),
            log_x=possible.log,
        )
    return {title: Markup(figure) for title, figure in figures.items()}  # noqa: S704 - our own drawing
