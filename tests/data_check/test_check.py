"""Every kind of finding is triggered by data that has it, and by nothing else; noise passes, a shift does not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dagnn_core.artifacts import Artifact, read_artifact, write_artifact
from dagnn_core.data.dataset import KIND, SCHEMA, Item
from dagnn_core.data_check.check import check_dataset
from dagnn_core.data_check.findings import Finding, Limits, has_failed, judge
from dagnn_core.errors import InputError

LABELS = ("boat", "night", "sea", "tree")
LIMITS = Limits()
SPLITS = ("train", "train", "train", "val", "test")


@pytest.fixture
def items(scene, encode) -> list[Item]:
    """Forty sound items with images: all texts and images differ, labels in a fixed pattern."""
    return [
        Item(
            f"i{number}",
            f"text number {'abcdefgh'[number % 8]} {number}",
            (LABELS[number % 4], LABELS[(number // 5) % 4])
            if number % 4 != (number // 5) % 4
            else (LABELS[number % 4],),
            encode(scene(number)),
            f"{number}.jpg",
            SPLITS[number % 5],
        )
        for number in range(40)
    ]


def findings_of(artifact: Artifact, limits: Limits = LIMITS, against: Artifact | None = None) -> dict[str, Finding]:
    return {finding.name: finding for finding in check_dataset(artifact, limits, against=against)}


def not_ok(findings: dict[str, Finding]) -> dict[str, str]:
    return {name: finding.verdict for name, finding in findings.items() if finding.verdict != "ok"}


SOUND = Limits(label_count=1)
ONE_LABEL = Limits(label_count=1, relevant_pairs=1)


def test_sound_data_passes(write, items) -> None:
    findings = findings_of(write(items, LABELS, image_vectors=np.random.default_rng(0).normal(size=(40, 5))), SOUND)
    assert not_ok(findings) == {}
    assert len(findings) == 21


def repeat_image(items: list[Item], source: int, target: int) -> list[Item]:
    items[target] = items[target]._replace(image=items[source].image)
    return items


# items 0, 1, 2 are training items, 3 is in val, 4 in test
FAULTS: dict[str, tuple[Callable[[list[Item]], list[Item]], dict[str, str], str]] = {
    "an id twice": (
        lambda items: [*items[:-1], items[-1]._replace(id="i0")],
        {"duplicate_ids": "failed"},
        "i0",
    ),
    "no label": (
        lambda items: [items[0]._replace(labels=()), *items[1:]],
        {"unlabelled_items": "warning"},
        "i0",
    ),
    "an image twice in a split": (
        lambda items: repeat_image(items, 0, 1),
        {"repeated_images": "warning"},
        "i1 (train) = i0 (train)",
    ),
    "an image in two splits": (
        lambda items: repeat_image(items, 0, 3),
        {"leaked_images": "failed"},
        "i0 (train) = i3 (val)",
    ),
    "texts and labels in two splits": (
        lambda items: [
            item._replace(text="same", labels=("boat",)) if row in (0, 3, 4) else item for row, item in enumerate(items)
        ],
        {"leaked_texts": "warning"},
        "i0 (train) = i3 (val)",
    ),
    "a label on nearly every item": (
        lambda items: [item._replace(labels=("boat", *item.labels)) for item in items],
        {"relevant_pairs": "failed"},
        "boat: 100.0% of them",
    ),
    "a damaged image": (
        lambda items: [items[0]._replace(image=items[0].image[:500]), *items[1:]],
        {"undecodable_images": "failed"},
        "i0",
    ),
    "an image that is not flagged": (
        lambda items: [items[0]._replace(has_image=False), *items[1:]],
        {"image_flag_faults": "failed"},
        "i0",
    ),
    "a flag without image": (
        lambda items: [items[0]._replace(image=None), *items[1:]],
        {"image_flag_faults": "failed"},
        "i0",
    ),
    "a label in test alone": (
        lambda items: [*items[:4], items[4]._replace(labels=("new",)), *items[5:]],
        {"labels_not_in_train": "failed", "rare_labels": "warning"},
        "new",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_alone(write, items, fault: str) -> None:
    spoil, expected, example = FAULTS[fault]
    findings = findings_of(write(spoil(items), (*LABELS, *(["new"] if "test alone" in fault else []))), SOUND)
    assert not_ok(findings) == expected
    name = next(iter(expected))
    assert findings[name].examples[0] == example
    assert findings[name].value > findings[name].limit


def test_nearly_identical_images(write, items, scene, encode) -> None:
    items[3] = items[3]._replace(image=encode(scene(0), quality=50))
    items[1] = items[1]._replace(image=encode(scene(2), quality=50))
    findings = findings_of(write(items, LABELS), SOUND)
    assert not_ok(findings) == {"leaked_near_images": "failed", "repeated_near_images": "warning"}
    assert findings["leaked_near_images"].value == 1 / 16
    assert findings["leaked_near_images"].examples == ("i0 (train) = i3 (val)",)
    assert findings["repeated_near_images"].examples == ("i2 (train) = i1 (train)",)


def test_rare_labels(write, items) -> None:
    findings = findings_of(write(items, LABELS), Limits(label_count=1000))
    assert not_ok(findings) == {"rare_labels": "warning"}
    assert findings["rare_labels"].value == 4


def test_labels_that_differ_in_case_alone(write, items) -> None:
    names = [name.upper() if number == 0 else name for number, name in enumerate(LABELS)]
    names = [*names, LABELS[0], LABELS[0].title()]
    spoiled = [
        item._replace(labels=tuple(names[0] if label == LABELS[0] and number % 2 else label for label in item.labels))
        for number, item in enumerate(items)
    ]
    findings = findings_of(write(spoiled, names), SOUND)
    finding = findings["labels_alike_but_for_case"]
    assert (finding.verdict, finding.value) == ("warning", 2)
    assert names[0] in finding.examples[0]
    assert "dataset.label_case: fold" in finding.explanation


def test_vectors(write, items) -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float16)
    vectors[3], vectors[4, 2], vectors[5, 0] = 0, np.nan, np.inf
    findings = findings_of(write(items, LABELS, image_vectors=vectors), SOUND)
    assert not_ok(findings) == {"image_vectors_not_finite": "failed", "image_vectors_zero": "warning"}
    assert findings["image_vectors_not_finite"].examples == ("i4", "i5")
    assert findings["image_vectors_zero"].examples == ("i3",)


def test_vectors_of_items_that_lack_the_modality_are_zero_rightly(write) -> None:
    items = [
        Item(str(row), f"text {row}", ("boat",), None, "", SPLITS[row % 5], has_image=row != 0) for row in range(20)
    ]
    vectors = np.ones((20, 2), np.float32)
    vectors[0] = 0
    assert not_ok(findings_of(write(items, ("boat",), image_vectors=vectors), ONE_LABEL)) == {}


def test_texts_alone(write) -> None:
    items = [Item(str(row), f"text {row}", ("boat",), None, "", SPLITS[row % 5], has_image=False) for row in range(20)]
    findings = findings_of(write(items, ("boat",)), ONE_LABEL)
    assert not_ok(findings) == {}
    assert not [name for name in findings if name.endswith("_images") and name != "undecodable_images"]


def test_a_split_with_other_labels(write) -> None:
    items = [
        Item(
            str(row),
            f"text {row}",
            ("boat" if row % 5 == 4 else LABELS[row % 4],),
            None,
            "",
            SPLITS[row % 5],
            has_image=False,
        )
        for row in range(500)
    ]
    findings = findings_of(write(items, LABELS))
    assert not_ok(findings) == {"label_shift_test": "failed"}
    assert findings["label_shift_test"].examples[0] == "boat: 100.0% of test, 25.0% of train"


def rewrite(artifact: Artifact, table: pa.Table, content: dict | None = None) -> Artifact:
    """The same artifact with another table."""
    out = artifact.path.with_name("rewritten")
    with write_artifact(out, kind=KIND, provenance={}) as draft:
        pq.write_table(table, draft.path / "data-00000.parquet")
        draft.content = {**artifact.content, **(content or {})}
    return read_artifact(out, KIND)


def replaced(table: pa.Table, name: str, values: list) -> pa.Table:
    return table.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), pa.array(values, SCHEMA.field(name).type))


@pytest.fixture
def table(write, items) -> tuple[Artifact, pa.Table]:
    artifact = write(items, LABELS)
    return artifact, pq.read_table(artifact.file("data-00000.parquet"))


SCHEMA_FAULTS: dict[str, tuple[Callable[[pa.Table], pa.Table], dict[str, Any]]] = {
    "data-00000.parquet: column text is missing, expected string": (lambda table: table.drop_columns(["text"]), {}),
    "data-00000.parquet: column id is int64, expected string": (
        lambda table: table.set_column(0, "id", pa.array(range(40))),
        {},
    ),
    "data-00000.parquet: column split is null in 1 rows": (
        lambda table: replaced(table, "split", [None, *["train"] * 39]),
        {},
    ),
    "data-00000.parquet: column column_camera is missing, expected string": (
        lambda table: table,
        {"columns": ["camera"]},
    ),
    "no items": (lambda table: table.slice(0, 0), {"num_items": 0}),
    "the manifest counts 40 items, the files have 39": (lambda table: table.slice(1), {}),
    "the manifest does not list the label names, each once": (lambda table: table, {"label_names": ["boat", "boat"]}),
}


@pytest.mark.parametrize("message", SCHEMA_FAULTS)
def test_faults_of_the_schema_end_the_check(table, message: str) -> None:
    artifact, rows = table
    spoil, content = SCHEMA_FAULTS[message]
    findings = findings_of(rewrite(artifact, spoil(rows), content))
    assert not_ok(findings) == {"schema_faults": "failed"}
    assert list(findings) == ["schema_faults"]
    assert findings["schema_faults"].examples == (message,)


@pytest.mark.parametrize(
    ("column", "values", "name", "example"),
    [
        ("split", ["dev", *["train"] * 39], "unknown_splits", "i0: 'dev'"),
        ("labels", [["ship"], *[["boat"]] * 39], "unknown_labels", "i0: 'ship'"),
        ("has_text", [False, *[True] * 39], "text_flag_faults", "i0"),
    ],
)
def test_faults_of_the_columns(table, column: str, values: list, name: str, example: str) -> None:
    artifact, rows = table
    findings = findings_of(rewrite(artifact, replaced(rows, column, values)))
    assert not_ok(findings) == {name: "failed"}
    assert findings[name].examples == (example,)


def test_files_that_are_no_parquet_and_no_array(write, items, tmp_path: Path) -> None:
    artifact = write(items, LABELS, image_vectors=np.ones((40, 2)))
    with write_artifact(tmp_path / "broken", kind=KIND, provenance={}) as draft:
        (draft.path / "data-00000.parquet").write_bytes(b"hello")
        (draft.path / "vectors").mkdir()
        (draft.path / "vectors" / "image.npy").write_bytes(b"hello")
        np.save(draft.path / "vectors" / "text.npy", np.ones((3, 2)))
        draft.content = artifact.content
    [finding] = check_dataset(read_artifact(tmp_path / "broken", KIND), LIMITS)
    assert finding.verdict == "failed" and finding.value == 5
    assert finding.examples[0].startswith("data-00000.parquet is not a Parquet file (")


# --- against another data set


def draw(
    seed: int, size: int, *, words: str = "the a boat sea tree night over under", shares=(0.6, 0.3, 0.1, 0.05)
) -> tuple[list[Item], np.ndarray]:
    rng = np.random.default_rng(seed)
    vocabulary = words.split()
    items, vectors = [], []
    for number in range(size):
        has = rng.random(4) < shares
        has[rng.integers(4)] |= not has.any()
        text = " ".join(rng.choice(vocabulary, rng.integers(3, 9)))
        names = [name for name, present in zip(LABELS, has, strict=True) if present]
        split = SPLITS[number % 5]
        items.append(Item(f"{seed}-{number}", f"{text} {number}", names, None, "", split))
        vectors.append(rng.normal(size=12) + has[0])
    return items, np.array(vectors, np.float32)


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.sampled_from([60, 300]))
def test_halves_of_the_same_data_pass(write, seed: int, size: int) -> None:
    items, vectors = draw(seed, 2 * size)
    half = np.random.default_rng(seed).permutation(2 * size) < size
    one, other = (
        write(
            [item for item, here in zip(items, half == side, strict=True) if here],
            LABELS,
            image_vectors=vectors[half == side],
            name=f"half-{side}",
        )
        for side in (True, False)
    )
    findings = findings_of(one, SOUND, against=other)
    assert [name for name, verdict in not_ok(findings).items() if verdict == "failed"] == []
    assert {"label_shift", "text_length_shift", "unseen_words", "image_vector_shift", "shared_texts"} <= set(findings)


SHIFTS = {
    "label_shift": {"shares": (0.2, 0.3, 0.1, 0.4)},
    "text_length_shift": {"words": "one,two,three,four a boat,sea the,tree,night,over,under"},
    "unseen_words": {"words": "the a boat sea tree night over under zebra lion"},
}


@pytest.mark.parametrize("name", SHIFTS)
def test_an_injected_shift_fails(write, name: str) -> None:
    (items, _), (other, _) = draw(1, 400, **SHIFTS[name]), draw(2, 400)
    findings = findings_of(write(items, LABELS), LIMITS, against=write(other, LABELS, name="other"))
    assert findings[name].verdict == "failed"
    assert findings[name].examples


def test_shifted_vectors_fail(write) -> None:
    (items, vectors), (other, other_vectors) = draw(1, 400), draw(2, 400)
    vectors[:, 7] += 1
    findings = findings_of(
        write(items, LABELS, image_vectors=vectors),
        SOUND,
        against=write(other, LABELS, image_vectors=other_vectors, name="other"),
    )
    assert not_ok(findings) == {"image_vector_shift": "failed"}
    assert findings["image_vector_shift"].examples[0].startswith("dimension 7: 0.")


def test_vectors_of_other_dimensions(write) -> None:
    (items, vectors), (other, other_vectors) = draw(1, 100), draw(2, 100)
    findings = findings_of(
        write(items, LABELS, image_vectors=vectors),
        SOUND,
        against=write(other, LABELS, image_vectors=other_vectors[:, :5], name="other"),
    )
    assert not_ok(findings) == {"image_vector_dimensions": "failed"}
    assert "image_vector_shift" not in findings


def test_labels_of_one_data_set_alone(write) -> None:
    (items, vectors), (other, other_vectors) = draw(1, 200), draw(2, 200)
    items = [item._replace(labels=("harbour",)) if row < 10 else item for row, item in enumerate(items)]
    other = [item._replace(labels=("lake",)) if row < 10 else item for row, item in enumerate(other)]
    findings = findings_of(
        write(items, (*LABELS, "harbour"), image_vectors=vectors),
        SOUND,
        against=write(other, (*LABELS, "lake"), image_vectors=other_vectors, name="other"),
    )
    assert not_ok(findings) == {"unseen_labels": "failed", "missing_labels": "warning"}
    assert findings["unseen_labels"].examples == ("harbour",)
    assert findings["missing_labels"].examples == ("lake",)
    assert findings["unseen_labels"].value == 0.05


def test_shared_items_and_darker_smaller_images(write, items, scene, encode) -> None:
    def darker(number: int) -> bytes:
        return encode(scene(100 + number).resize((48, 48)).point(lambda value: value // 3))

    new = [item._replace(id=f"new-{row}", image=darker(row)) for row, item in enumerate(items)]
    new[0] = new[0]._replace(id="i7", image=items[5].image)
    new[1] = new[1]._replace(image=encode(scene(6), quality=50))
    findings = findings_of(write(new, LABELS), SOUND, against=write(items, LABELS, name="other"))
    assert not_ok(findings) == {
        "image_brightness_shift": "failed",
        "image_size_shift": "warning",
        "shared_ids": "warning",
        "shared_images": "failed",
        "shared_near_images": "failed",
        "shared_texts": "warning",
    }
    assert findings["shared_ids"].examples == ("i7",)
    assert findings["shared_images"].examples == ("i7 = i5 of the other",)
    assert findings["shared_near_images"].examples == ("new-1 = i6 of the other",)
    assert findings["shared_images"].value == 1 / 40


def test_an_unsound_data_set_is_nothing_to_compare_with(write, items, table) -> None:
    artifact, rows = table
    broken = rewrite(artifact, replaced(rows, "split", ["dev", *["train"] * 39]))
    with pytest.raises(InputError, match=r"rewritten: unknown_splits: i0: 'dev'; expected a sound data set"):
        check_dataset(artifact, LIMITS, against=broken)


def test_a_value_at_its_limit_is_ok() -> None:
    assert judge("name", 0.01, 0.01, "why").verdict == "ok"
    assert judge("name", 0.02, 0.01, "why", above="warning").verdict == "warning"
    assert not has_failed([judge("name", 0.02, 0.01, "why", above="warning")])
    assert has_failed([judge("name", 1, 0, "why", examples="abcde")])
    assert judge("name", 1, 0, "why", examples="abcde").examples == ("a", "b", "c")
