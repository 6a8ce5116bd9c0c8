"""The configuration: defaults, round trips, and one clear line for every mistake."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from components.params import load_section
from components.params_file import load_params
from dagnn_core.config.dataset import DatasetConfig, FolderConfig
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.register import RegisterConfig
from dagnn_core.config.section import Preset, json_schema, parse_section, section_json
from dagnn_core.config.sections import SECTIONS, parse_params
from dagnn_core.config.train import TrainConfig
from dagnn_core.errors import InputError


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_round_trips_through_its_json(name: str) -> None:
    section = SECTIONS[name]()
    assert load_section(section_json(section), SECTIONS[name]) == section


@given(seed=st.integers(0, 2**63), lr=st.floats(1e-12, 1e3), batch_size=st.integers(2, 10**6))
def test_numbers_survive_json_exactly(seed: int, lr: float, batch_size: int) -> None:
    section = TrainConfig(seed=seed, lr=lr, batch_size=batch_size)
    assert load_section(section_json(section), TrainConfig) == section


@pytest.mark.parametrize("name", SECTIONS)
def test_every_field_has_a_docstring(name: str) -> None:
    source = Path(sys.modules[SECTIONS[name].__module__].__file__ or "").read_text()
    body = source[source.index(f"class {SECTIONS[name].__name__}") :]
    for field in fields(SECTIONS[name]):
        line = body.index(f"\n    {field.name}: ")
        assert body[line + 1 :].split("\n")[1].strip().startswith('"""'), field.name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trains": {}}, r"unknown section 'trains'; valid sections: dataset, features"),
        ({"train": {"lrr": 1}}, r"unknown key train.lrr; did you mean 'lr'\? valid keys: preset, seed"),
        ({"train": {"lr": "fast"}}, r"train.lr must be a finite number, got 'fast'"),
        ({"train": {"lr": float("nan")}}, r"train.lr must be a finite number, got nan"),
        ({"train": {"lr": -1.0}}, r"train.lr must be > 0, got -1.0"),
        ({"train": {"epochs": 2.5}}, r"train.epochs must be a whole number, got 2.5"),
        ({"train": {"epochs": True}}, r"train.epochs must be a whole number, got True"),
        ({"train": {"batch_size": 1}}, r"train.batch_size must be >= 2, got 1"),
        ({"train": 3}, r"train must be a mapping of keys to values, got 3"),
        ({"model": {"hops": 0}}, r"model.hops must be >= 1, got 0"),
        ({"model": {"adversarial_weight": -0.1}}, r"model.adversarial_weight must be >= 0, got -0.1"),
        ({"model": {"encoder_norm": True}}, r"model.encoder_norm must be one of none, batch, unit, got True"),
        ({"model": {"image_dropout": 1}}, r"model.image_dropout must be at least 0 and below 1, got 1"),
        (
            {"model": {"relevance_weight": 1}},
            r"label_similarity must be binary or jaccard with relevance_weight above 0 \(a probability\), got 'count'",
        ),
        ({"model": {"preset": "b"}}, r"model.preset must be one of aaai21, .*, few_labels, got 'b'"),
        ({"model": {"preset": ["best"]}}, r"must be one of aaai21, .*, few_labels, got \['best'\]"),
        ({"model": {"attention_heads": 2}}, r"attention_heads must be 1 with graph_layer gcn \(.* gat\), got 2"),
        ({"model": {"ranking": "hybrid"}}, r"model.ranking must be embedding, since .* cross_entropy .*, got 'hybrid'"),
        ({"model": {"graph_mix": 1.5}}, r"model.graph_mix must be between 0 and 1, got 1.5"),
        ({"model": {"temperature": 0}}, r"model.temperature must be > 0, got 0"),
        ({"model": {"preset": "tpami22", "classification_weight": -1}}, r"model.classification_weight must be >= 0"),
        (
            {"model": {"classification_weight": 0, "modality_invariance_weight": 0}},
            r"one of model.classification_weight, .*, model.custom_loss_weight must be > 0, got \[(0.0, ){4}0.0\]",
        ),
        ({"model": {"kind": "clip"}}, r"model.kind must be one of dagnn, two_tower, dscmr, cca, ridge, .*, got 'clip'"),
        ({"train": {"warmup_epochs": 40}}, r"train.warmup_epochs must be below train.epochs, got 40"),
        ({"train": {"weight_averaging": 1}}, r"train.weight_averaging must be at least 0 and below 1, got 1"),
        ({"train": {"weight_decay": -1}}, r"train.weight_decay must be >= 0, got -1"),
        ({"train": {"incomplete": "drop"}}, r"train.incomplete must be one of skip, mask, reconstruct, got 'drop'"),
        ({"label_graph": {"conditional": "joint"}}, r"label_graph.conditional must be one of i_given_j, j_given_i"),
        ({"features": {"text": "bert"}}, r"one of bow, tfidf, .*, precomputed, or an import path .*, got 'bert'"),
        ({"features": {"text": ["bow"]}}, r"features.text must be one of bow"),
        ({"label_graph": {"threshold": 0}}, r"label_graph.threshold must be above 0 and at most 1, got 0"),
        ({"label_graph": {"embedding": "file"}}, r"label_graph.embedding_file must be a path"),
        ({"dataset": {"layout": "folder"}}, r"dataset.folder.table must be the name of a table file, got ''"),
        ({"dataset": {"folder": {"tables": "x"}}}, r"unknown key dataset.folder.tables; did you mean 'table'"),
        ({"dataset": {"folder": {"label_columns": "a"}}}, r"dataset.folder.label_columns must be a list of texts"),
        (
            {"dataset": {"folder": {"keep_columns": ["a", "b", "a"]}}},
            r"dataset.folder.keep_columns must be names of columns, each once, got \['a', 'b', 'a'\]",
        ),
        ({"dataset": {"folder": {"keep_columns": [""]}}}, r"keep_columns must be names of columns, each once, got"),
        (
            {"dataset": {"folder": {"keep_columns": ["year", "split"]}}},
            r"keep_columns must be other columns than id, text, labels, split, which every item has, got \['year'",
        ),
        ({"dataset": {"val_fraction": 0.6, "test_fraction": 0.5}}, r"val_fraction \+ dataset.test_fraction must be"),
        ({"dataset": {"incomplete": "drop"}}, r"dataset.incomplete must be one of reject, keep, got 'drop'"),
        ({"dataset": {"train_without_image": 1}}, r"dataset.train_without_image must be at least 0 and below 1, got 1"),
        ({"dataset": {"train_without_text": -0.1}}, r"dataset.train_without_text must be at least 0 and below 1, got"),
        ({"dataset": {"train_without_text": "all"}}, r"dataset.train_without_text must be a finite number, got 'all'"),
        ({"dataset": {"labelled_fraction": 0}}, r"dataset.labelled_fraction must be above 0 and at most 1, got 0"),
        ({"train": {"unlabelled": "drop"}}, r"train.unlabelled must be one of use, skip, got 'drop'"),
        ({"model": {"pair_memory": 9}}, r"model.pair_memory must be 0 without pair_weight above 0, got 9"),
        ({"model": {"agreement_weight": 1}}, r"model.agreement_weight must be 0, since .* cross_entropy .*, got 1"),
        ({"dataset": {"train_without_image": 0.5, "train_without_text": 0.5}},
         r"dataset.train_without_image \+ dataset.train_without_text must be below 1, got 1.0"),
        ([], r"expected a mapping of sections"),
    ],
)  # fmt: skip
def test_mistakes_are_named_by_their_dotted_path(values: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_params(values)


def test_presets_fill_in_what_is_not_written_out() -> None:
    published = parse_section(ModelConfig, {"preset": "tpami22", "hops": 2}, "model")
    assert (published.contrastive_weight, published.encoder_norm, published.hops) == (1.0, "batch", 2)
    assert parse_section(ModelConfig, {"preset": "tpami22", "encoder_norm": "none"}, "model").encoder_norm == "none"
    assert parse_section(ModelConfig, {}, "model") == parse_section(ModelConfig, {"preset": "aaai21"}, "model")


@pytest.mark.parametrize(
    ("preset", "changed"),
    [
        ("unseen_labels", {"ranking": "hybrid", "hybrid_tolerance": 0.01}),
        ("few_labels", {"pair_weight": 0.3, "pair_memory": 2000}),
    ],
)
def test_presets_for_a_purpose_change_best_where_they_say_so(preset: str, changed: dict[str, object]) -> None:
    for section, changes in ((ModelConfig, changed), (TrainConfig, {})):
        best, found = (asdict(parse_section(section, {"preset": name}, "section")) for name in ("best", preset))
        assert found == best | {"preset": preset} | changes


@pytest.mark.parametrize("section", [ModelConfig, TrainConfig])
@pytest.mark.parametrize("preset", get_args(Preset))
def test_sections_with_presets_round_trip_through_json(section: type[Any], preset: str) -> None:
    parsed = parse_section(section, {"preset": preset}, "section")
    assert load_section(section_json(parsed), section) == parsed


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainConfig(lr=-1), r"TrainConfig\.lr must be > 0, got -1"),
        (lambda: replace(TrainConfig(), seed=True), r"TrainConfig\.seed must be a whole number, got True"),
        (lambda: TrainConfig(rate=1), r"unknown key TrainConfig\.rate; valid keys: preset, seed"),  # type: ignore[call-arg]
        (lambda: DatasetConfig(folder=FolderConfig(label_columns=("a", 1))), r"label_columns must be a list of texts"),  # type: ignore[arg-type]
    ],
)
def test_sections_made_in_code_are_checked_as_well(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("name", SECTIONS)
def test_the_schema_describes_every_key(name: str) -> None:
    def check(node: Any) -> None:
        for key, entry in node.get("properties", {}).items():
            assert entry.get("description"), f"{name}.{key}"
        for definition in node.get("$defs", {}).values():
            check(definition)

    schema = json_schema(SECTIONS[name])
    check(schema)
    assert schema["additionalProperties"] is False
    validator = Draft202012Validator(schema)
    assert validator.is_valid(json.loads(section_json(SECTIONS[name]())))
    assert not validator.is_valid({"unknown": 1})


def test_a_mistake_elsewhere_stops_no_section(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("train: {lr: 0.1}\nregister: {gate: {seed: -1}}\n")
    assert load_section(path, TrainConfig).lr == 0.1
    with pytest.raises(InputError, match=r"register\.gate\.seed must be >= 0, got -1"):
        load_section(path, RegisterConfig)


def test_yaml_numbers_without_a_dot_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("train:\n  lr: 5e-5\n")
    assert load_section(path, TrainConfig).lr == 5e-5
    assert load_params(path)["dataset"] == DatasetConfig()


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing.yaml does not exist, expected a YAML file"):
        load_params(tmp_path / "missing.yaml")
    path = tmp_path / "params.yaml"
    path.write_text("train: [1,\n")
    with pytest.raises(InputError, match=r"params.yaml is not valid YAML"):
        load_params(path)
    path.write_text("train: {lr: 0}")
    with pytest.raises(InputError, match=r"params.yaml: train.lr must be > 0, got 0; correct it there"):
        load_params(path)
    with pytest.raises(InputError, match="not valid JSON"):
        load_section("{broken", TrainConfig)
    with pytest.raises(InputError, match=r"train.seed must be a whole number"):
        parse_section(TrainConfig, {"seed": "1"}, "train")


def test_the_configuration_imports_no_torch() -> None:
    code = "import sys, components.params; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("coco", {"captions": "first"}, r"dataset\.coco\.captions must be one of joined, rows, got 'first'"),
        ("coco", {"part": ["x"]}, r"unknown key dataset\.coco\.part; did you mean 'parts'"),
        ("mirflickr25k", {"min_tag_count": 0}, r"dataset\.mirflickr25k\.min_tag_count must be >= 1, got 0"),
        ("mirflickr25k", {"num_test": -1}, r"dataset\.mirflickr25k\.num_test must be >= 0, got -1"),
        ("nuswide", {"num_concepts": 1}, r"dataset\.nuswide\.num_concepts must be >= 2, got 1"),
        ("features", {"labels": ""}, r"dataset\.features\.labels must be a text that is not empty, got ''"),
        ("features", {"image": "x.mat"}, r"dataset\.features\.image, text and labels must be all with \{split\}"),
        ("features", {"test_rows": "0:9"}, r"dataset\.features\.test_rows must be empty where files name splits"),
    ],
)
def test_mistakes_in_layouts_are_named(section: str, values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_params({"dataset": {section: values}})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"test_rows": "first"}, r"dataset\.features\.test_rows must be START:STOP, such as 0:2000, got 'first'"),
        ({"train_rows": "0:9"}, r"dataset\.features\.test_rows must be given where train_rows or val_rows are, got ''"),
    ],
)
def test_ranges_of_rows_are_checked(rows: dict[str, str], message: str) -> None:
    files = {"image": "x.mat", "text": "y.mat", "labels": "l.mat"}
    with pytest.raises(InputError, match=message):
        parse_params({"dataset": {"features": files | rows}})
