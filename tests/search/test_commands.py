"""`dagnn index` and `dagnn search` as a user calls them; the maths is tested beside this."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from dagnn_core.errors import DagnnError
from pipeline.cli.main import app

NUM_TEST = 30


@pytest.fixture(scope="module")
def invoke(collection, tmp_path_factory):
    """Run a command in a folder of its own; return what it prints, or the failure."""
    folder = tmp_path_factory.mktemp("search")

    def run(*arguments: str):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if isinstance(result.exception, DagnnError):
            return str(result.exception)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.output

    said = run(
        *("index", "build", "index", "--source", collection.dataset, "--split", "test"),
        *("--model", collection.ridge),
    )
    assert f": {NUM_TEST} images, {NUM_TEST} texts" in said
    return run


@pytest.fixture(scope="module")
def model(collection):
    return ("--model", collection.ridge)


def test_a_text_finds_images(invoke, model):
    said = invoke("search", "a boat on the water", *model, "-k", "3")
    lines = said.strip().splitlines()
    assert lines[0].split() == ["score", "id", "text", "labels"] and len(lines) == 4
    found = json.loads(invoke("search", "a boat on the water", *model, "-k", "3", "--json"))
    assert [hit["id"] for hit in found["hits"]] == [line.split()[2] for line in lines[1:]]
    assert found["target"] == "image" and found["relevant"] is None
    assert found["hits"][0]["columns"] == {"split": "test"}


def test_nothing_relevant_is_said_with_the_nearest_labels(invoke, collection):
    best = ("--model", collection.best, "--index", collection.index)
    found = json.loads(invoke("search", "a tree", *best, "--json"))
    assert set(found["nearest_labels"]) <= set(
        json.loads(invoke("index", "info", collection.index, "--json"))["model"]["label_names"]
    )
    assert found["relevant"] == any(hit["probability"] >= 0.5 for hit in found["hits"])
    assert found["relevant"] or "nothing relevant was found; the nearest labels: " in invoke("search", "a tree", *best)


def test_items_images_and_filters(invoke, model, tmp_path):
    item = json.loads(invoke("search", "a tree", *model, "-k", "1", "--json"))["hits"][0]["id"]
    like = json.loads(invoke("search", "--like", item, *model, "-k", "2", "--json", "--show", tmp_path / "strip.png"))
    assert like["hits"][0]["id"] == item
    with Image.open(tmp_path / "strip.png") as strip:
        assert strip.format == "PNG"
    assert json.loads(invoke("search", "--image", tmp_path / "strip.png", *model, "--json"))["target"] == "text"
    assert "no image fits --labels, --filter and --min-score" in invoke("search", "a tree", *model, "--min-score", "1")
    hits = json.loads(invoke("search", "a tree", *model, "--labels", "not tree", "--filter", "split=test", "--json"))
    assert hits["hits"] and all("tree" not in hit["labels"] for hit in hits["hits"])


def test_an_index_is_described_and_changed(invoke, model, collection):
    info = json.loads(invoke("index", "info", "index", "--json"))
    assert info["num_items"] == NUM_TEST and info["cells"] == {} and len(info["digest"]) == 64
    source = ("--source", collection.dataset, "--split", "val")
    assert "items     " in invoke("index", "add", "index", *source, *model)
    assert "dagnn index replace" in invoke("index", "add", "index", *source, *model)
    added = json.loads(invoke("index", "info", "--json"))["num_items"]
    assert added > NUM_TEST
    invoke("index", "replace", "index", *source, *model)
    assert json.loads(invoke("index", "info", "--json"))["num_items"] == added
    first = json.loads(invoke("search", "a tree", *model, "-k", "1", "--json"))["hits"][0]["id"]
    invoke("index", "remove", "index", first)
    assert json.loads(invoke("index", "info", "--json"))["num_items"] == added - 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give one query: a text, --image FILE or --like ID"),
        (("a tree", "--like", "x"), "give one query"),
        (("a tree", "--index", "gone"), "gone does not exist, expected an index artifact"),
        (("a tree", "--target", "sound"), "--target is 'sound', expected image or text"),
        (("a tree", "--show", "strip.jpg"), "expected a file that ends in .png"),
        (("--image", "gone.png"), "gone.png cannot be read"),
        (("--image", "index/manifest.json"), "index/manifest.json cannot be decoded (not an image"),
        (("a tree", "--filter", "year"), "has no '=', expected column=value"),
    ],
)
def test_wrong_input_is_one_line(invoke, model, arguments, message):
    said = invoke("search", *arguments, *model)
    assert message in said and "\n" not in said.strip()
