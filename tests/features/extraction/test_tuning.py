"""Tuning of a model's last blocks: what changes, what takes part, what an interruption leaves."""

import io
import json
import logging
import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dagnn_core.artifacts import write_artifact
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.config.label_graph import LabelGraphConfig
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.train import TrainConfig
from dagnn_core.data.dataset import Dataset, Item
from dagnn_core.data.ingest.writer import DatasetWriter
from dagnn_core.errors import BackendError, InputError
from dagnn_core.features.encoders.huggingface import HuggingFaceTextBackbone
from dagnn_core.features.encoders.registry import load_image_encoder, load_text_encoder
from dagnn_core.features.extraction import tuning
from dagnn_core.features.extraction.extract import write_features
from dagnn_core.features.features import Features
from dagnn_core.label_graph.build import write_label_graph
from dagnn_core.label_graph.label_graph import LabelGraph
from dagnn_core.model.embedder import TrainedModel
from dagnn_core.model.files import write_model
from dagnn_core.training.inputs import graph_tensors, read_split
from dagnn_core.training.loop import train

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}
THINGS = {"boat": (90, 90, 90), "sea": (240, 240, 240)}
PAIRS = [(colour, thing) for colour in COLOURS for thing in THINGS]
CONFIG = FeaturesConfig(tuning_epochs=3, tuning_lr=1e-3, batch_size=8, device="cpu", min_word_count=1)


def make_item(number, *, split="train", label="", has_image=True, has_text=True):
    """A red or blue boat or sea, whose label says which colour it has."""
    colour, thing = PAIRS[number % 4]
    image = Image.new("RGB", (32, 32), COLOURS[colour])
    image.paste(THINGS[thing], (0, 16, 32, 32))
    image.putpixel((number % 32, 3), (number % 256, 99, 0))
    file = io.BytesIO()
    image.save(file, "PNG")
    label = label or colour
    text = f"{'a ' * (number % 3)}{colour} {thing}" if has_text else ""
    labels = () if label == "none" else (label,)
    identifier = f"{split}-{label}-{number}-{has_image}-{has_text}"
    return Item(identifier, text, labels, file.getvalue() if has_image else None, "x.png", split, has_image, has_text)


ITEMS = [make_item(row, split=split) for split in ("train", "val") for row in range(12)]  # so what helps one helps both


def make_dataset(path, items=ITEMS):
    with write_artifact(path, kind="dataset", provenance={"ancestors": {}}) as draft:
        with DatasetWriter(draft.path, ["blue", "red"]) as writer:
            for item in items:
                writer.add(item)
            writer.write_rejected([])
        draft.content = writer.content
    return Dataset.read(path)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "dataset")


def tuned(modality, model, blocks=1, **changes):
    return replace(
        CONFIG,
        **{modality: "huggingface", f"{modality}_model": str(model), f"{modality}_tuned_blocks": blocks},
        **changes,
    )


def extract(root, dataset, config, *, cache=None):
    with write_artifact(root / "features", kind="features", provenance={"ancestors": {}}) as draft:
        draft.content = write_features(draft.path, dataset, config, cache=cache or root / "cache")
    return Features.read(root / "features", verify=True)


def weights(root, modality):
    return load_file(root / "features" / f"{modality}_encoder" / "model.safetensors")


def changed(before, after):
    """Names of tensors that differ; those of `after` may lack a prefix, as `vit.`."""
    named = {
        name: name if name in before else next(key for key in before if key.endswith(f".{name}")) for name in after
    }
    assert len(set(named.values())) == len(after)
    return {name for name, value in after.items() if value.numpy().tobytes() != before[named[name]].numpy().tobytes()}


@pytest.mark.parametrize(
    ("modality", "name", "learns"),
    [
        ("image", "vit", ("layernorm.", "pooler.", "encoder.layer.1.")),
        pytest.param(
            "text",
            "clip",
            ("text_projection.", "text_model.final_layer_norm.", "text_model.encoder.layers.1."),
            marks=pytest.mark.slow,
        ),
        ("text", "sentence-bert", ("encoder.layer.1.",)),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (
                    "image",
                    "clip",
                    ("visual_projection.", "vision_model.post_layernorm.", "vision_model.encoder.layers.1."),
                ),
                ("image", "vit-classifier", ("layernorm.", "encoder.layer.1.")),
                ("image", "dinov2", ("layernorm.", "encoder.layer.1.")),
                ("image", "resnet", ("encoder.stages.1.",)),
                (
                    "image",
                    "siglip",
                    ("vision_model.post_layernorm.", "vision_model.head.", "vision_model.encoder.layers.1."),
                ),
                (
                    "image",
                    "chinese-clip",
                    ("visual_projection.", "vision_model.post_layernorm.", "vision_model.encoder.layers.1."),
                ),
                ("text", "bert", ("pooler.", "encoder.layer.1.")),
                ("text", "roberta", ("pooler.", "encoder.layer.1.")),
                ("text", "t5", ("encoder.block.0.", "encoder.final_layer_norm.")),
                (
                    "text",
                    "siglip",
                    ("text_model.final_layer_norm.", "text_model.head.", "text_model.encoder.layers.1."),
                ),
                ("text", "chinese-clip", ("text_projection.", "text_model.encoder.layer.1.")),
            )
        ),
    ],
)
def test_the_last_block_and_what_follows_learn_and_travel_with_the_features(
    tmp_path, dataset, model_folder, *, modality, name, learns
):
    features = extract(tmp_path, dataset, tuned(modality, model_folder(name)))
    before, after = load_file(model_folder(name) / "model.safetensors"), weights(tmp_path, modality)
    names = changed(before, after)
    assert names
    assert {key for key in after if key.startswith(learns)} >= names
    assert {next(start for start in learns if key.startswith(start)) for key in names} == set(learns)
    state = json.loads((tmp_path / "features" / f"{modality}_encoder" / "encoder.json").read_text())
    assert (state["model"], state["revision"]) == (str(model_folder(name)), "")
    load = load_image_encoder if modality == "image" else load_text_encoder
    encoder = load(tmp_path / "features" / f"{modality}_encoder")
    inputs = dataset.images(range(len(dataset))) if modality == "image" else dataset.texts
    np.testing.assert_allclose(encoder.encode(inputs), getattr(features, modality), atol=1e-5)


@pytest.mark.slow
def test_a_trained_model_embeds_new_images_and_texts_with_the_tuned_networks(tmp_path, dataset, model_folder):
    changes = {"image": "huggingface", "image_model": str(model_folder("clip")), "image_tuned_blocks": 2}
    features = extract(tmp_path, dataset, tuned("text", model_folder("clip"), **changes))
    with write_artifact(tmp_path / "label_graph", kind="label_graph", provenance={}) as draft:
        write_label_graph(draft, dataset, LabelGraphConfig())
    graph = graph_tensors(LabelGraph.read(tmp_path / "label_graph"))
    config = ModelConfig(embedding_dim=4, image_to_text_hidden=4, text_to_image_hidden=4, hops=1)
    result = train(
        train_split=read_split(features, "train"),
        val_split=read_split(features, "val"),
        graph=graph,
        model_config=config,
        config=TrainConfig(epochs=1, batch_size=4),
        checkpoint=tmp_path / "checkpoint.safetensors",
    )
    parts = {"state": result.weights, "history": result.history, "val_metrics": result.val_metrics}
    with write_artifact(tmp_path / "model", kind="model", provenance={"ancestors": {}}) as draft:
        draft.content = write_model(draft.path, config=config, graph=graph, features=features.artifact, **parts)
    shutil.rmtree(tmp_path / "cache")
    model = TrainedModel.read(tmp_path / "model")
    images = dataset.images(range(len(dataset)))
    np.testing.assert_allclose(model.encode_images(images), model.embed_image_features(features.image), atol=1e-4)
    np.testing.assert_allclose(model.encode_texts(dataset.texts), model.embed_text_features(features.text), atol=1e-4)
    frozen = load_file(model_folder("clip") / "model.safetensors")
    assert changed(frozen, weights(tmp_path, "image")) and changed(frozen, weights(tmp_path, "text"))


def refuse(*_):
    raise AssertionError("it is tuned again")


def model_bytes(root):
    return (root / "features" / "text_encoder" / "model.safetensors").read_bytes()


@pytest.fixture
def bert(model_folder):
    return tuned("text", model_folder("bert"))


def test_a_second_extraction_tunes_nothing_and_other_keys_or_labels_do(tmp_path, dataset, bert, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    first, cache = extract(tmp_path, dataset, bert), tmp_path / "cache"
    [folder] = (cache / "tuned").iterdir()
    assert [path.name for path in folder.iterdir()] == ["model"]
    monkeypatch.setattr(tuning._Tuning, "run", refuse)
    (tmp_path / "second").mkdir()
    second = extract(tmp_path / "second", dataset, replace(bert, workers=1, max_words=9), cache=cache)
    assert second.text.tobytes() == first.text.tobytes()
    assert f"the tuned model of an earlier run, from {folder}" in caplog.text
    relabelled = make_dataset(tmp_path / "relabelled", [item._replace(labels=("red",)) for item in ITEMS])
    others = [(dataset, replace(bert, **{key: value})) for key, value in OTHER_KEYS.items()]
    for data, config in [*others, (relabelled, bert)]:
        with pytest.raises(AssertionError, match="tuned again"):
            extract(tmp_path, data, config)


OTHER_KEYS = {
    "tuning_epochs": 2,
    "tuning_lr": 2e-3,
    "text_tuned_blocks": 2,
    "text_pooling": "mean",
    "seed": 1,
    "batch_size": 12,
    "precision": "bf16",
}


@pytest.mark.parametrize("epoch", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("modality", ["text", pytest.param("image", marks=pytest.mark.slow)])
def test_a_killed_tuning_resumes_and_gives_the_same_bytes(
    tmp_path, dataset, model_folder, monkeypatch, caplog, *, modality, epoch
):
    caplog.set_level(logging.INFO)
    config = tuned(modality, model_folder("clip"), precision="bf16" if modality == "image" else "float32")
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = extract(tmp_path / "whole", dataset, config)
    train_epoch = tuning._Tuning._train_epoch

    def killed(self, number, rows):
        if number == epoch:
            train_epoch(self, number, rows[:5])  # part of the epoch, which is lost
            os.kill(os.getpid(), signal.SIGKILL)
        return train_epoch(self, number, rows)

    if (child := os.fork()) == 0:
        try:
            monkeypatch.setattr(tuning._Tuning, "_train_epoch", killed)
            extract(tmp_path / "broken", dataset, config)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    caplog.clear()
    resumed = extract(tmp_path / "broken", dataset, config)
    assert f"resuming after epoch {epoch - 1} from" in caplog.text
    assert "epoch 0, frozen" not in caplog.text and f"epoch {epoch - 1} of" not in caplog.text
    assert resumed.artifact.files == whole.artifact.files


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_frozen_network_is_kept_where_no_epoch_lowers_the_val_loss(
    tmp_path, bert, monkeypatch, caplog, *, interrupted
):
    caplog.set_level(logging.INFO)
    swapped = [item._replace(labels=tuple({"red", "blue"} - set(item.labels))) for item in ITEMS[12:]]
    dataset = make_dataset(tmp_path / "dataset", [*ITEMS[:12], *swapped])
    train_epoch = tuning._Tuning._train_epoch

    def stop(self, number, rows):
        if number == 2:
            raise KeyboardInterrupt
        return train_epoch(self, number, rows)

    if interrupted:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(tuning._Tuning, "_train_epoch", stop)
            extract(tmp_path, dataset, bert)
    extract(tmp_path, dataset, bert)
    assert ("resuming after epoch 1" in caplog.text) == interrupted
    assert "no epoch lowers the val loss, so its weights stay" in caplog.text
    assert not changed(load_file(f"{bert.text_model}/model.safetensors"), weights(tmp_path, "text"))


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "model/model.safetensors"])
def test_what_is_damaged_in_the_cache_is_tuned_again(tmp_path, dataset, bert, monkeypatch, caplog, *, name):
    write = tuning._write

    def keep(backbone, folder):
        write(backbone, folder)
        shutil.copy(folder / "checkpoint.safetensors", tmp_path)

    monkeypatch.setattr(tuning, "_write", keep)
    expected = extract(tmp_path, dataset, bert).artifact.files
    [folder] = (tmp_path / "cache" / "tuned").iterdir()
    if name == "checkpoint.safetensors":  # as a kill before the model is written leaves it
        (tmp_path / name).rename(folder / name)
        shutil.rmtree(folder / "model")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-20] + b"#" + content[-19:])
    assert extract(tmp_path, dataset, bert).artifact.files == expected
    message = (
        "is damaged: the tuning starts over" if name == "checkpoint.safetensors" else "damaged: the model is tuned"
    )
    assert message in caplog.text
    assert [path.name for path in folder.iterdir()] == ["model"]


def test_only_labelled_items_of_training_and_validation_that_have_the_modality_take_part(tmp_path, dataset, bert):
    others = [
        *(make_item(row, label="none") for row in range(3)),
        *(make_item(row, label="none", split="val") for row in range(2)),
        *(make_item(row, has_text=False) for row in range(2)),
        *(make_item(row, has_text=False, split="val") for row in range(2)),
        *(make_item(row, split="test") for row in range(5)),
    ]
    more = make_dataset(tmp_path / "more", [*others[:7], *ITEMS[:5], *others[7:], *ITEMS[5:]])
    for name, data in (("few", dataset), ("many", more)):
        (tmp_path / name).mkdir()
        extract(tmp_path / name, data, bert)
    assert model_bytes(tmp_path / "few") == model_bytes(tmp_path / "many")


def test_it_learns_what_the_frozen_network_does_not_show(tmp_path, caplog):
    """Labels that are no sum of the words: `red` for red boats and blue seas."""
    import transformers as hf

    from tests.fixtures.pretrained import TEXTS, WORDS

    caplog.set_level(logging.INFO)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf.BertModel(hf.BertConfig(**TEXTS | {"initializer_range": 0.5})).save_pretrained(tmp_path / "model")
    hf.BertTokenizer(vocab={word: row for row, word in enumerate(WORDS)}).save_pretrained(tmp_path / "model")
    labelled = [item._replace(labels=("red" if row % 4 in (0, 3) else "blue",)) for row, item in enumerate(ITEMS)]
    recipe = {"tuning_epochs": 20, "tuning_lr": 0.03, "batch_size": 12, "text_pooling": "mean"}
    config = tuned("text", tmp_path / "model", 2, **recipe)
    extract(tmp_path, make_dataset(tmp_path / "dataset", labelled), config)
    [(kept, frozen)] = [record.args[-2:] for record in caplog.records if "is kept" in record.msg]
    assert frozen > 0.6
    assert kept < 0.2


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (
            [make_item(0, label="none"), *ITEMS[12:]],
            r"text_tuned_blocks is above 0, which learns from .* that have a text, at least 8, but there are 0; ",
        ),
        (
            ITEMS[:19],
            r"is above 0, which chooses the epoch by labelled val items that .*, but there are 7; correct the splits",
        ),
    ],
)
def test_a_split_without_items_is_refused(tmp_path, bert, items, message):
    with pytest.raises(InputError, match=message):
        extract(tmp_path, make_dataset(tmp_path / "dataset", items), bert)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"text_tuned_blocks": 3},
            r"text_tuned_blocks is 3, but .*bert \(bert\) has 2; set it to at most 2",
        ),
        (
            {"tuning_lr": 1e30},
            r"tuned text model: the loss is not finite in epoch \d; lower features.tuning_lr",
        ),
    ],
)
def test_what_cannot_be_tuned_is_one_line(tmp_path, dataset, bert, *, changes, message):
    with pytest.raises(InputError, match=message) as raised:
        extract(tmp_path, dataset, replace(bert, **changes))
    assert "\n" not in str(raised.value)


def test_memory_that_runs_out_is_one_line(tmp_path, dataset, bert, monkeypatch):
    forward = HuggingFaceTextBackbone.forward

    def full(self, texts):
        if torch.is_grad_enabled() and len(texts) > 1:
            raise torch.OutOfMemoryError
        return forward(self, texts)

    monkeypatch.setattr(HuggingFaceTextBackbone, "forward", full)
    with pytest.raises(BackendError, match=r"no memory left for a batch of 8 texts; lower features.batch_size"):
        extract(tmp_path, dataset, bert)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": "classic"}, "image_tuned_blocks must be 0 where features.image is not huggingface, got 1"),
        (
            {"store_backbone": False},
            "image_tuned_blocks must be 0 where features.store_backbone is false, since .*, got 1",
        ),
        (
            {"shards": 2},
            "image_tuned_blocks must be 0 where features.shards is above 1, since each task would .*, got 1",
        ),
        ({"batch_size": 7}, "image_tuned_blocks must be 0 where features.batch_size is below 8, got 1"),
        ({"image_tuned_blocks": -1}, "image_tuned_blocks must be >= 0, got -1"),
        ({"tuning_lr": 0.0}, "tuning_lr must be > 0, got 0"),
        ({"tuning_epochs": 0}, "tuning_epochs must be >= 1, got 0"),
    ],
)
def test_values_that_make_no_sense_are_refused(changes, message):
    values = {"image": "huggingface", "image_model": "vit", "image_tuned_blocks": 1}
    assert FeaturesConfig(**values).image_tuned_blocks == 1
    with pytest.raises(InputError, match=message):
        FeaturesConfig(**values | changes)
