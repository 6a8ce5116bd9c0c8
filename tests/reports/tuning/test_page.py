"""What a search shows: its page, and its table on a terminal."""

from dagnn_core.config.space import Choices, Range
from dagnn_core.reports.tuning.page import render_page
from dagnn_core.reports.tuning.search import Search, Trial, best_so_far, shown, table

SEARCHED = {
    "train.lr": Range(1e-4, 1e-2, log=True, is_whole=False),
    "model.graph": Choices(("fixed", "<none>")),
}


def trial(number: int, state: str, val_map: float | None, lr: float, **more: str) -> Trial:
    return Trial(
        number=number,
        state=state,  # type: ignore[arg-type]
        values={"train.lr": lr, "model.graph": more.get("graph", "fixed")},
        val_map=val_map,
        num_epochs=3,
        seconds=1.25,
        is_start=number == 0,
        reason=more.get("reason", ""),
    )


SEARCH = Search(
    name="a <search>",
    seeds=(1, 2),
    trials=[
        trial(0, "finished", 0.5, 1e-3),
        trial(1, "pruned", 0.25, 1e-4),
        trial(2, "finished", 0.75, 7.3e-4, graph="<none>"),
        trial(3, "failed", None, 1e-2, reason="loss <infinite>"),
        trial(4, "finished", 0.625, 2e-3),
        trial(5, "running", None, 3e-3),
    ],
    fixed={"model.preset": "best"},
    importance={"train.lr": 0.8, "model.graph": 0.2},
)


def test_the_best_and_what_it_was_found_beside() -> None:
    assert SEARCH.best is not None and SEARCH.start is not None
    assert (SEARCH.best.number, SEARCH.start.number) == (2, 0)
    assert [entry.number for entry in SEARCH.finished] == [2, 4, 0]
    assert SEARCH.found == {"model.preset": "best", "train.lr": 7.3e-4, "model.graph": "<none>"}
    assert SEARCH.summary() == "3 finished, 1 pruned, 1 failed, 1 running; best val MAP 0.7500 in trial 2"
    assert best_so_far(SEARCH.trials) == ([0, 2, 4], [0.5, 0.75, 0.75])


def test_of_equal_trials_the_first_is_the_best() -> None:
    equal = Search(
        name="s",
        seeds=(1,),
        trials=[trial(3, "finished", 0.5, 1e-3), trial(4, "finished", 0.5, 1e-3)],
        fixed={},
        importance={},
    )
    assert equal.best is not None and equal.best.number == 3


def test_the_page_has_all_of_it_and_refers_to_nothing_outside() -> None:
    page = render_page(SEARCH, searched=SEARCHED)
    assert page == render_page(SEARCH, searched=SEARCHED)
    for text in (
        *("a &lt;search&gt;", "loss &lt;infinite&gt;", "&lt;none&gt;", "0.750", "+0.2500", "80.0%", "lr: 0.00073"),
        *('aria-label="Validation MAP by trial"', 'aria-label="Validation MAP by train.lr"'),
    ):
        assert text in page, text
    assert "<none>" not in page and "<search>" not in page
    assert "http" not in page.replace("http://www.w3.org/", "").replace("http://purl.org/", "").replace(
        "http://creativecommons.org/", ""
    )


def test_a_search_without_a_finished_trial_has_a_page() -> None:
    failed = Search(name="s", seeds=(1,), trials=[trial(0, "failed", None, 1e-3, reason="x")], fixed={}, importance={})
    page = render_page(failed, searched=SEARCHED)
    assert "1 failed" in page and "<svg" not in page
    assert failed.best is None and failed.found == {}
    empty = Search(name="s", seeds=(1,), trials=[], fixed={}, importance={})
    assert empty.summary() == "no trial" and "no trial" in render_page(empty, searched=SEARCHED)


def test_the_table_has_a_column_for_each_trial_and_the_importance() -> None:
    assert table(SEARCH).splitlines() == [
        "trial        2        4       0       importance",
        "val MAP      0.7500   0.6250  0.5000",
        "epochs       3        3       3",
        "seconds      1.2      1.2     1.2",
        "train.lr     0.00073  0.002   0.001   80%",
        "model.graph  <none>   fixed   fixed   20%",
    ]


def test_values_are_shown_as_a_configuration_has_them() -> None:
    assert [shown(value) for value in (True, 0.00073, 1e-5, 3, "fixed", "a\nb")] == [
        *("true", "0.00073", "1e-05", "3", "fixed", "a\\nb")
    ]
