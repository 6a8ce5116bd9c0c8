"""Search spaces: what they may say, and what trials make of it."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from components.params import read_yaml
from components.space_file import read_base, read_space
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.section import parse_section, sections_of
from dagnn_core.config.space import Choices, Range, apply, parse_space
from dagnn_core.config.train import TrainConfig
from dagnn_core.errors import InputError

ROOT = Path(__file__).parents[1]
LR = {"train": {"lr": {"low": 1e-4, "high": 1e-2, "log": True}}}
PLAIN = {
    "trials": 7,
    "seeds": [1, 2],
    "model": {"preset": "best", "hops": {"low": 1, "high": 3}, "graph": ["fixed", "none"]},
    "train": {"epochs": 5, "lr": {"low": 1e-4, "high": 1e-2, "log": True}},
    "label_graph": {"threshold": {"low": 0.2, "high": 0.6}},
}


def test_lists_and_ranges_are_searched_and_the_rest_is_fixed() -> None:
    space = parse_space(PLAIN)
    assert dict(space.searched) == {
        "label_graph.threshold": Range(0.2, 0.6, log=False, is_whole=False),
        "model.hops": Range(1, 3, log=False, is_whole=True),
        "model.graph": Choices(("fixed", "none")),
        "train.lr": Range(1e-4, 1e-2, log=True, is_whole=False),
    }
    assert dict(space.fixed) == {"model.preset": "best", "train.epochs": 5}
    assert (space.options.trials, space.options.seeds, space.options.prune) == (7, (1, 2), True)
    assert space.has_label_graph and not parse_space(LR).has_label_graph
    assert parse_space(json.loads(json.dumps(space.plain))) == space


def test_trials_have_the_configuration_then_the_fixed_and_then_the_drawn_values() -> None:
    space = parse_space(PLAIN)
    base = space.over({"model": {"embedding_dim": 64, "hops": 9}, "train": {"lr": 0.5}, "dataset": {"layout": "x"}})
    assert base["model"] == parse_section(ModelConfig, {"preset": "best", "embedding_dim": 64, "hops": 9}, "model")
    assert base["train"] == TrainConfig(epochs=5, lr=0.5)
    drawn = apply(base, {"model.graph": "none", "model.hops": 2, "train.lr": 3e-4})
    assert (drawn["model"].graph, drawn["model"].hops, drawn["model"].embedding_dim) == ("none", 2, 64)
    assert (drawn["train"].lr, drawn["train"].epochs) == (3e-4, 5)
    assert drawn["label_graph"] == base["label_graph"]


def test_the_same_base_comes_of_whole_sections_as_a_pipeline_passes_them() -> None:
    space = parse_space(PLAIN)
    base = space.over({"model": {"embedding_dim": 64}})
    assert space.over({name: asdict(section) for name, section in base.items()}) == base


def test_a_search_begins_with_the_values_of_the_configuration_that_lie_in_the_space() -> None:
    space = parse_space(PLAIN)
    base = space.over({"model": {"graph": "learned"}, "train": {"lr": 1e-4}})
    assert space.present(base) == {"label_graph.threshold": 0.4, "model.hops": 2, "train.lr": 1e-4}


def test_no_more_is_written_into_a_configuration_than_it_needs() -> None:
    space = parse_space(PLAIN)
    plain = {"model": {"preset": "best"}, "train": {"epochs": 5, "lr": 1e-3}}
    base = space.over(plain)
    present = {"model.hops": base["model"].hops, "model.graph": base["model"].graph, "train.lr": 1e-3}
    assert space.changes(plain, present) == {}
    assert space.changes(plain, present | {"train.lr": 2e-3}) == {"train.lr": 2e-3}
    for other in ({}, {"model": {"preset": "aaai21"}}, {"model": {"hops": 1}}):
        changes = space.changes(other, present)
        assert changes["train.epochs"] == 5
        assert replace(space, fixed=changes).over(other) == apply(space.over(other), present)


@pytest.mark.parametrize("params", ["params.yaml", "configs/fashion.yaml", "configs/nuswide.yaml"])
def test_what_a_shipped_space_found_goes_into_a_shipped_configuration(params: str) -> None:
    plain = sections_of(read_yaml(ROOT / params))
    for name, found in {"best": {"model.relevance_weight": 1.07}, "aaai21": {"model.adversarial_weight": 0.5}}.items():
        space = read_space(ROOT / f"configs/tune/{name}.yaml")
        changes = space.changes(plain, found)
        assert replace(space, fixed=changes).over(plain) == apply(space.over(plain), found)


@pytest.mark.parametrize(
    ("low", "high", "drawn", "trained"),
    [
        (0.0, 1.0, 0.123456, 0.123),
        (1e-5, 1e-2, 3.14159e-4, 3.14e-4),
        (0.1234, 0.2, 0.12341, 0.1234),
        (0, 9.996, 9.996, 9.996),
    ],
)
def test_numbers_have_three_digits_and_stay_in_the_range(low: float, high: float, drawn: float, trained: float) -> None:
    assert Range(low, high, log=False, is_whole=False).rounded(drawn) == trained
    assert Range(1, 90, log=False, is_whole=True).rounded(77.0) == 77


WRONG: list[tuple[Any, str]] = [
    ([], "expected a mapping with label_graph, model, train, got []"),
    ({}, "there is nothing to search; give a key a list of values, or low and high"),
    ({"model": {"hops": 2}}, "there is nothing to search"),
    ({"models": {}}, "unknown key models; did you mean 'model'? valid keys: trials, seeds, prune, label_graph, model"),
    ({"dataset": {"seed": [1, 2]}}, "unknown key dataset; valid keys: trials, seeds, prune, label_graph, model, train"),
    ({"model": {"hop": [1, 2]}}, "unknown key model.hop; did you mean 'hops'?"),
    ({"model": {"hop": 1}}, "unknown key model.hop; did you mean 'hops'?"),
    ({"model": [1]}, "model must be a mapping of keys to values, got [1]"),
    ({"model": {"hops": {"low": 1, "highs": 3}}}, "unknown key model.hops.highs; did you mean 'high'? valid keys: low"),
    ({"model": {"hops": {"low": 1}}}, "model.hops has no high, expected low and high, got {'low': 1}"),
    ({"model": {"hops": {"low": 3, "high": 3}}}, "the range of model.hops is empty: low must be below high"),
    ({"train": {"lr": {"low": 1, "high": 0.1}}}, "the range of train.lr is empty: low must be below high, got 1 and"),
    ({"model": {"hops": {"low": 0, "high": 3}}}, "model.hops must be >= 1, got 0"),
    ({"model": {"hops": {"low": 1, "high": 2.5}}}, "model.hops must be a whole number, got 2.5"),
    ({"model": {"hops": {"low": "1", "high": 3}}}, "model.hops must be a whole number, got '1'"),
    ({"train": {"lr": {"low": 0.1, "high": float("inf")}}}, "train.lr must be a finite number, got inf"),
    ({"train": {"lr": {"low": 0.0, "high": 1.0}}}, "train.lr must be > 0, got 0.0"),
    (
        {"train": {"weight_decay": {"low": 0.0, "high": 1.0, "log": True}}},
        "train.weight_decay.low must be > 0 with log, got 0.0",
    ),
    ({"train": {"lr": {"low": 0.1, "high": 1.0, "log": "yes"}}}, "train.lr.log must be true or false, got 'yes'"),
    ({"model": {"graph": {"low": 1, "high": 2}}}, "model.graph is no number, so it has no range, got {'low': 1, "),
    ({"model": {"graph": ["fixed"]}}, "model.graph must have at least 2 values to choose from, got ['fixed']"),
    ({"model": {"graph": []}}, "model.graph must have at least 2 values to choose from, got []"),
    ({"model": {"graph": ["fixed", "fixed"]}}, "model.graph must have different values to choose from"),
    ({"model": {"graph": ["fixed", "learn"]}}, "model.graph must be one of fixed, learned, none, got 'learn'"),
    ({"model": {"graph": [["fixed"], ["none"]]}}, "model.graph must be chosen from texts, numbers, true and false"),
    ({"model": {"graph": [{"a": 1}, None]}}, "model.graph must be chosen from texts, numbers, true and false"),
    ({"train": {"lr": [0.1, float("nan")]}}, "train.lr must be chosen from texts, numbers, true and false, got nan"),
    (LR | {"model": {"hops": None}}, "model.hops must be a whole number, got None"),
    (LR | {"model": {"hops": 0}}, "model.hops must be >= 1, got 0"),
    ({"train": {"seed": [1, 2]}}, "train.seed cannot be searched; `seeds` says which"),
    (LR | {"train": {"seed": 1}}, "train.seed is not a key of a search; `seeds` says which"),
    ({"model": {"preset": ["best", "aaai21"]}}, "model.preset cannot be searched; write the one to start from"),
    (LR | {"trials": 0}, "trials must be >= 1, got 0"),
    (LR | {"trials": "many"}, "trials must be a whole number, got 'many'"),
    (LR | {"seeds": []}, "seeds must be different whole numbers, at least one, got []"),
    (LR | {"seeds": [1, 1]}, "seeds must be different whole numbers, at least one, got [1, 1]"),
    (LR | {"seeds": 103}, "seeds must be a list of whole numbers of at least 0, got 103"),
    (LR | {"seeds": [-1]}, "seeds must be a list of whole numbers of at least 0, got [-1]"),
    (LR | {"prune": 1}, "prune must be true or false, got 1"),
]


@pytest.mark.parametrize(("values", "message"), WRONG, ids=[message[:60] for _, message in WRONG])
def test_what_is_wrong_is_one_line_that_names_the_key(values: Any, message: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_space(values)
    assert str(refused.value).startswith(message), str(refused.value)
    assert "\n" not in str(refused.value)


def test_fixed_values_must_go_with_the_configuration() -> None:
    space = parse_space({"model": {"ranking": "labels"}, **LR})
    with pytest.raises(InputError, match=r"model.ranking must be embedding, since label probabilities take"):
        space.over({})
    with pytest.raises(InputError, match=r"unknown key train.lrr"):
        parse_space(LR).over({"train": {"lrr": 1}})
    with pytest.raises(InputError, match=r"model must be a mapping"):
        parse_space(LR).over({"model": 3})


def test_values_that_do_not_go_together_are_refused_when_they_are_drawn() -> None:
    classification = ["distance", "cross_entropy"]
    space = parse_space({"model": {"ranking": ["embedding", "labels"], "classification": classification}})
    base = space.over({})
    apply(base, {"model.ranking": "labels", "model.classification": "cross_entropy"})
    with pytest.raises(InputError, match=r"model.ranking must be embedding"):
        apply(base, {"model.ranking": "labels", "model.classification": "distance"})


def test_a_file_or_json_is_read_and_a_mistake_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("train: {lr: {low: 1e-4, high: 1.0e-2, log: true}}\n")
    assert read_space(file) == read_space(json.dumps(LR)) == parse_space(LR)
    file.write_text("train: {lr: {low: 1}}\n")
    with pytest.raises(InputError, match=rf"^{file}: train.lr has no high, .*; correct it there$"):
        read_space(file)
    with pytest.raises(InputError, match=r"does not exist, expected a YAML file"):
        read_space(tmp_path / "other.yaml")
    with pytest.raises(InputError, match=r"the search space is not valid JSON"):
        read_space("{")


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/tune/*.yaml")), ids=lambda path: path.stem)
def test_shipped_spaces_begin_with_their_preset(path: Path) -> None:
    assert path.read_text().startswith("# ")
    space = read_space(path)
    assert {space.fixed["model.preset"], space.fixed["train.preset"]} == {path.stem}
    base = space.over({})
    assert space.present(base).keys() == space.searched.keys()
    assert base["model"] == parse_section(ModelConfig, {"preset": path.stem}, "model")


def test_a_mistake_names_the_file_that_makes_it(tmp_path: Path) -> None:
    params, path = tmp_path / "params.yaml", tmp_path / "space.yaml"
    space = parse_space({"train": {"epochs": 1, "lr": [0.1, 0.2]}})
    path.write_text("{}")
    rows = [
        ("train: {preset: best}", r"space.yaml: train.warmup_epochs must be below train.epochs"),
        ("train: {lr: -1}", r"params.yaml: train.lr must be > 0"),
        ("[]", r"params.yaml: expected a mapping of sections"),
    ]
    for text, message in rows:
        params.write_text(text)
        with pytest.raises(InputError, match=message):
            read_base(params, space, path)
    params.write_text("train: {batch_size: 7}")
    assert read_base(params, space, path)["train"] == TrainConfig(epochs=1, batch_size=7)
