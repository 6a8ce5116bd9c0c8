"""The example of own encoders and an own loss, copied out of this project, from raw data to a served version."""

import shutil
import sys
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from components.services.promotion.load_test import load_test
from components.services.promotion.rescoring import sample, score
from components.services.registry.own_code import find_own_code
from components.services.tracking.mlflow import Tracking
from components.steps import build_label_graph, dataset, evaluate, extract_features, register, train
from dagnn_core import Dataset, InputError, LabelGraph, TrainedModel, build_network, graph_tensors
from dagnn_core.artifacts import read_artifact
from dagnn_core.config.dataset import DatasetConfig
from dagnn_core.config.evaluate import EvaluateConfig
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.config.label_graph import LabelGraphConfig
from dagnn_core.config.register import GateConfig, RegisterConfig
from dagnn_core.config.sections import parse_params
from examples import custom_parts
from examples.custom_parts import margin_loss

SNIPPET = textwrap.dedent((custom_parts.__doc__ or "").split(":\n\n")[1].split("\n\n")[0])
QUERY_FOLDER = Path(custom_parts.__file__).with_name("query_folder.py")


def sections(module: str) -> dict[str, Any]:
    """The sections of the snippet in the docstring of the example, for the module under another name."""
    values = YAML(typ="safe", pure=True).load(SNIPPET.replace("examples.custom_parts", module))
    values["features"] |= {"max_words": 300}
    values["model"] |= {"embedding_dim": 16}
    values["train"] = {"epochs": 2, "lr": 1e-3}
    return parse_params(values)


class Chain(NamedTuple):
    """What the steps have made, with the example copied to a module `my_parts` in a folder of its own."""

    root: Path
    tracking: Tracking

    def read_model(self) -> TrainedModel:
        return TrainedModel.read(self.root / "model", verify=True)


@pytest.fixture(scope="module")
def chain(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    root = tmp_path_factory.mktemp("chain")
    (root / "parts").mkdir()
    shutil.copyfile(custom_parts.__file__, root / "parts" / "my_parts.py")
    (root / "scenes.yaml").write_text("{num_scenes: 60, width: 96, height: 96}")
    shutil.copy(empty_database, root / "mlflow.db")
    tracking = Tracking(uri=f"sqlite:///{root}/mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root / "parts")
        params = sections("my_parts")
        data = DatasetConfig(source=str(root / "scenes.yaml"), test_fraction=0.3, min_label_count=2)
        dataset.run(params=data, work=root / "work", dataset_out=root / "dataset")
        extract_features.run(
            dataset=root / "dataset",
            params=params["features"],
            cache=root / "cache",
            features_out=root / "features",
        )
        graph = LabelGraphConfig(embedding_dim=8)
        build_label_graph.run(dataset=root / "dataset", params=graph, label_graph_out=root / "graph")
        train.run(
            features=root / "features",
            label_graph=root / "graph",
            model_params=params["model"],
            params=params["train"],
            tracking=tracking,
            work=root / "work",
            model_out=root / "model",
        )
        yield Chain(root, tracking)
    sys.modules.pop("my_parts", None)


@pytest.fixture(scope="module")
def report(chain: Chain) -> Path:
    root = chain.root
    evaluate.run(
        dataset=root / "dataset",
        features=root / "features",
        model=root / "model",
        params=EvaluateConfig(num_queries=1, num_retrieved=1),
        tracking=chain.tracking,
        report_out=root / "report",
    )
    return root / "report"


def test_features_and_model_name_the_encoders_by_their_import_paths(chain: Chain) -> None:
    model = chain.read_model()
    assert model.artifact.content["image"]["kind"] == "my_parts:Thumbnail"
    assert model.artifact.content["text"]["kind"] == "my_parts:CharacterTrigrams"
    assert type(model.image_encoder) is import_module("my_parts").Thumbnail
    assert type(model.text_encoder) is import_module("my_parts").CharacterTrigrams


def test_the_model_encodes_raw_items_as_extraction_did(chain: Chain) -> None:
    model, data = chain.read_model(), Dataset.read(chain.root / "dataset")
    matrices = {name: np.load(chain.root / "features" / f"{name}.npy") for name in ("image", "text")}
    rows = data.rows("test").tolist()
    images = [image for image in data.images(rows) if image is not None]
    assert len(images) == len(rows) > 10
    np.testing.assert_allclose(model.image_encoder.encode(images), matrices["image"][rows], atol=1e-6)
    np.testing.assert_allclose(
        model.text_encoder.encode([data.texts[row] for row in rows]), matrices["text"][rows], atol=1e-6
    )


def test_the_own_loss_took_part_in_the_training(chain: Chain) -> None:
    history = (chain.root / "model" / "history.jsonl").read_text()
    assert '"loss_custom"' in history


@pytest.mark.slow
def test_the_model_is_evaluated(report: Path) -> None:
    metrics = read_artifact(report, "report", verify=True).file("metrics.json").read_text()
    assert '"map_mean"' in metrics


def test_a_network_is_built_from_the_artifacts_with_public_names(chain: Chain) -> None:
    model, graph = chain.read_model(), LabelGraph.read(chain.root / "graph")
    network = build_network(
        model.config, image_dim=model.image_dim, text_dim=model.text_dim, graph=graph_tensors(graph)
    )
    assert network.embed_image(torch.zeros(2, model.image_dim)).shape == (2, 16)


@pytest.mark.slow
def test_a_registered_version_brings_the_module_along(chain: Chain, report: Path) -> None:
    params = RegisterConfig(model_name="own", data_licence="none", gate=GateConfig(min_map_i2t=0, min_map_t2i=0))
    name, number = register.run(model=chain.root / "model", report=report, params=params, tracking=chain.tracking)
    stored = Path(chain.tracking.client.get_model_version(name, number).source.removeprefix("file://"))
    assert sorted(path.name for path in (stored / "code").iterdir()) == ["dagnn_core", "my_parts.py"]
    model, data = chain.read_model(), Dataset.read(chain.root / "dataset")
    # a fresh process, without this project and without the folder of the module
    measured = load_test(stored, sample(model, data, score(model, data, name="own")))
    assert measured.served_difference < 1e-5


def test_a_model_whose_module_is_gone_says_so_in_one_line(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if not Path(entry, "my_parts.py").exists()])
    monkeypatch.delitem(sys.modules, "my_parts")
    with pytest.raises(InputError) as refused:
        _ = chain.read_model().text_encoder
    assert str(refused.value) == (
        "features.text: my_parts:CharacterTrigrams cannot be imported (No module named 'my_parts'); install its "
        "package, or put its folder on PYTHONPATH"
    )


class TestQueryFolder:
    @pytest.fixture
    def images(self, chain: Chain, tmp_path: Path) -> Path:
        data = Dataset.read(chain.root / "dataset")
        for row, image in enumerate(data.images(range(6))):
            assert image is not None
            (tmp_path / f"{row}.png").write_bytes(image)
        return tmp_path

    def query(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["query_folder.py", *arguments])
            import_module("examples.query_folder").main()
        return capsys.readouterr().out.splitlines()

    def test_a_text_ranks_the_images(self, chain: Chain, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
        model = str(chain.root / "model")
        found = self.query(capsys, model, str(images), "a boat at night")
        assert sorted(found) == [str(images / f"{row}.png") for row in range(6)]
        assert self.query(capsys, model, str(images), "a boat at night", "--top", "2") == found[:2]

    def test_an_image_finds_itself_first(self, chain: Chain, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
        query = str(images / "3.png")
        assert self.query(capsys, str(chain.root / "model"), str(images), "--image", query, "--top", "1") == [query]


class TestRefusedParts:
    """A part that does not fit is one clear line, before anything is made."""

    @pytest.fixture
    def parts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        monkeypatch.syspath_prepend(tmp_path)
        yield tmp_path / "wrong_parts.py"
        sys.modules.pop("wrong_parts", None)

    @pytest.mark.parametrize(
        ("modality", "code", "message"),
        [
            ("text", "class Own: KIND = 'other:Own'", r"expected a class with the attribute KIND = 'wrong_parts:Own'"),
            ("text", "def Own(): pass", r"<function Own at .*>, expected a class with the attribute KIND"),
            (
                "text",
                "class Own: KIND = 'wrong_parts:Own'",
                r"^features.text: wrong_parts:Own has neither `open` nor `fit_texts`, expected one",
            ),
            ("image", "class Own: KIND = 'wrong_parts:Own'", r"^features.image: wrong_parts:Own has no `open`"),
            (
                "text",
                "import examples.custom_parts as e\nclass Own(e.CharacterTrigrams): KIND = 'wrong_parts:Own'",
                r"^wrong_parts:Own has saved the state of the kind 'examples.*', expected 'wrong_parts:Own': .*$",
            ),
        ],
    )
    def test_an_encoder(self, chain: Chain, parts: Path, modality: str, code: str, message: str) -> None:
        parts.write_text(code)
        out = parts.with_name("features")
        config = FeaturesConfig(**{modality: "wrong_parts:Own"}, min_word_count=1)
        with pytest.raises(InputError, match=message):
            extract_features.run(
                dataset=chain.root / "dataset", params=config, cache=chain.root / "cache", features_out=out
            )
        assert not out.exists()


class TestOwnCode:
    @pytest.fixture
    def model(self, chain: Chain, monkeypatch: pytest.MonkeyPatch) -> TrainedModel:
        """A model whose encoder says of itself that it is of another module."""
        model = chain.read_model()
        monkeypatch.setattr(type(model.text_encoder), "kind", "found:Encoder")
        monkeypatch.setattr(type(model.image_encoder), "kind", "classic")
        return model

    def test_of_an_installed_package_is_a_requirement(
        self, model: TrainedModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(type(model.text_encoder), "kind", "numpy.linalg:norm")
        assert find_own_code(model) == ([], [f"numpy=={np.__version__}"])

    def test_of_a_package_is_its_folder(self, model: TrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(type(model.text_encoder), "kind", "examples.custom_parts:CharacterTrigrams")
        assert find_own_code(model) == ([Path(custom_parts.__file__).parent], [])

    def test_of_a_folder_without_init_is_refused(
        self, model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(tmp_path)
        (tmp_path / "found").mkdir()
        with pytest.raises(InputError) as refused:
            find_own_code(model)
        assert str(refused.value) == (
            "features.text: found:Encoder cannot be stored with the model, expected a module in a file of its own, a "
            "package with __init__.py, or an installed package; give found one of these forms"
        )

    def test_that_this_library_has_is_stored_with_every_model(
        self, model: TrainedModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(type(model.text_encoder), "kind", "bow")
        assert find_own_code(model) == ([], [])


def test_the_margin_loss_is_zero_where_all_that_is_relevant_is_nearer_by_the_margin() -> None:
    axes, labels = torch.eye(3), torch.eye(3)
    assert margin_loss(axes, axes, labels, labels) == 0
    assert margin_loss(axes, axes.roll(1, 0), labels, labels) == pytest.approx(1.2)  # cosines 0 and 1, margin 0.2
