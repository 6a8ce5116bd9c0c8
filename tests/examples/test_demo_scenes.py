import io
from collections import Counter
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from dagnn_core.config.section import parse_section
from examples.demo_scenes import LABELS, DemoSpec, PlannedScene, plan_scene, render_scene, render_scenes
from examples.demo_scenes.painter import paint
from examples.demo_scenes.scene import MAX_LABELS, MIN_LABELS
from examples.demo_scenes.sentence import NOUNS, PLACES, SKIES, TIMES

SPEC = DemoSpec()
SPEC_FILE = Path(__file__).parents[2] / "configs" / "demo_scenes.yaml"
IMPLICATIONS = [
    ("beach", "water"),
    ("boat", "water"),
    ("bridge", "water"),
    ("lighthouse", "water"),
    ("car", "road"),
    ("moon", "night"),
    ("star", "night"),
]
EXCLUSIONS = [
    ("night", "sunset"),
    ("night", "rainbow"),
    ("sunset", "rainbow"),
    ("beach", "snow"),
    ("building", "mountain"),
]


@cache
def plans() -> list[PlannedScene]:
    return [plan_scene(SPEC, index) for index in range(1000)]


def words_for(label: str, variants: set[str]) -> list[str]:
    phrases = [phrase for key in (label, *variants) for noun in NOUNS.get(key, ()) for phrase in noun.split("/")]
    phrases += [phrase for key, values in PLACES.items() if key.split("/")[0] == label for phrase in values]
    return phrases + list(SKIES.get(label, ())) + list(TIMES.get(label, ()))


def test_labels_are_alphabetical_and_unique():
    assert list(LABELS) == sorted(set(LABELS))
    assert len(LABELS) >= 16


def test_same_seed_same_items_alone_or_in_a_stream():
    spec = DemoSpec(num_scenes=6)
    stream = list(render_scenes(spec))
    assert [item.id for item in stream] == [f"scene-{index:05d}" for index in range(6)]
    for index in (5, 2, 0):
        assert render_scene(spec, index) == stream[index]
    assert render_scene(replace(spec, seed=104), 0).image != stream[0].image


@pytest.mark.parametrize(("width", "height"), [(160, 120), (96, 96), (96, 103)])
def test_image_is_a_jpeg_of_the_asked_size(width: int, height: int):
    for index in range(4):
        image = Image.open(io.BytesIO(render_scene(DemoSpec(width=width, height=height), index).image))
        image.load()
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (width, height))


def test_every_scene_has_two_to_six_labels_in_order():
    for plan in plans():
        labels = plan.scene.labels
        assert MIN_LABELS <= len(labels) <= MAX_LABELS
        assert list(labels) == sorted(set(labels))


def test_every_label_is_common_enough_to_learn():
    counts = Counter(label for plan in plans() for label in plan.scene.labels)
    assert {label: counts[label] for label in LABELS if counts[label] < 0.02 * len(plans())} == {}


@pytest.mark.parametrize(("label", "implied"), IMPLICATIONS)
def test_labels_imply_others(label: str, implied: str):
    assert all(implied in plan.scene.labels for plan in plans() if label in plan.scene.labels)


@pytest.mark.parametrize(("label", "other"), EXCLUSIONS)
def test_labels_exclude_others(label: str, other: str):
    assert not any({label, other} <= set(plan.scene.labels) for plan in plans())


def test_every_labelled_thing_is_seen():
    for plan in plans()[:15]:
        scene = plan.scene
        whole = np.asarray(paint(scene, 160, 120), dtype=int)
        for label in {thing.label for thing in scene.things}:
            without = replace(scene, things=tuple(thing for thing in scene.things if thing.label != label))
            change = np.abs(np.asarray(paint(without, 160, 120), dtype=int) - whole).max(axis=2)
            assert (change > 16).sum() >= 25, f"{label} can't be seen in a scene of {scene.setting}"


def test_every_sentence_names_one_of_its_labels():
    for plan in plans():
        variants = {thing.variant for thing in plan.scene.things}
        phrases = [phrase for label in plan.scene.labels for phrase in words_for(label, variants)]
        assert any(phrase.lower() in plan.text.lower() for phrase in phrases), plan.text


def test_a_sentence_that_omits_nothing_names_every_label():
    for index in range(100):
        _, scene, text = plan_scene(DemoSpec(omission=0, misleading=0), index)
        for label in scene.labels:
            phrases = words_for(label, {thing.variant for thing in scene.of(label)})
            assert any(phrase.lower() in text.lower() for phrase in phrases), (label, text)


def test_sentences_are_varied_and_well_formed():
    texts = [plan.text for plan in plans()]
    assert len(set(texts)) > 0.95 * len(texts)
    assert all(text[0].isupper() and text.endswith(".") and ",," not in text and "  " not in text for text in texts)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_scenes", 0, "DemoSpec.num_scenes must be >= 1, got 0"),
        ("width", 8, "DemoSpec.width must be >= 96, got 8"),
        ("height", -120, "DemoSpec.height must be >= 96, got -120"),
        ("seed", -1, "DemoSpec.seed must be >= 0, got -1"),
        ("omission", 1.5, "DemoSpec.omission must be between 0 and 1, got 1.5"),
        ("noise", float("nan"), "DemoSpec.noise must be a finite number, got nan"),
    ],
)
def test_bad_settings_are_refused(key: str, value: float, message: str):
    with pytest.raises(ValueError, match=message):
        DemoSpec(**{key: value})


def test_committed_spec_file_holds_the_defaults():
    values = YAML(typ="safe", pure=True).load(SPEC_FILE.read_text(encoding="utf-8"))
    assert set(values) == {field.name for field in fields(DemoSpec)}
    assert parse_section(DemoSpec, values, "demo") == SPEC
