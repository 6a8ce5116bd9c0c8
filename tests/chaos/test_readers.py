"""Every reader, on files that are damaged by chance: it gives what was written or refuses in one line, in bounded time.

The fast form draws a few damages of each file from fixed seeds; the slow one draws many from a seed of its own, which
the message of a failure shows.
"""

import gzip
import io
import json
import random
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
import torch
from PIL import Image

from components.params import load_section, read_yaml
from components.services.data_versions.raw_version import RawLineage, read_lineage, write_lineage
from dagnn_core.artifacts import read_artifact, write_artifact
from dagnn_core.config.evaluate import EvaluateConfig
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.config.label_graph import LabelGraphConfig
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.train import TrainConfig
from dagnn_core.data.dataset import Dataset, Item
from dagnn_core.data.formats.json_stream import read_members
from dagnn_core.data.formats.matrix_file import read_matrix
from dagnn_core.data.formats.table import read_table
from dagnn_core.data.ingest.writer import DatasetWriter
from dagnn_core.data.labels import read_label_names
from dagnn_core.data.vectors import read_vectors
from dagnn_core.errors import DagnnError
from dagnn_core.features.extraction.extract import write_features
from dagnn_core.features.features import Features
from dagnn_core.label_graph.build import write_label_graph
from dagnn_core.label_graph.embeddings import read_label_vectors
from dagnn_core.label_graph.label_graph import ARRAYS, LabelGraph
from dagnn_core.model.embedder import TrainedModel
from dagnn_core.model.files import write_model
from dagnn_core.records import read_history, read_metrics
from dagnn_core.reports.evaluation.measure import evaluate
from dagnn_core.reports.evaluation.report import write_report
from dagnn_core.training.inputs import graph_tensors, read_split
from dagnn_core.training.loop import train
from tests.chaos.damage import damage, spoil_json, swap

pytestmark = pytest.mark.filterwarnings("ignore")  # of numpy, about the numbers that damage makes

KINDS = ("dataset", "features", "label_graph", "model", "report")
LABELS = ("boat", "car", "sea")
SPLITS = ("train", "train", "train", "val", "test")
MODEL = ModelConfig(embedding_dim=4, image_to_text_hidden=4, text_to_image_hidden=4, hops=1)
TRAINING = TrainConfig(epochs=2, batch_size=8)
SECONDS = 20  # for one read, on a machine that others use as well


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an artifact of each kind, made of 30 items."""
    root = tmp_path_factory.mktemp("artifacts")
    provenance = {"ancestors": {}, "git": {"commit": "c0ffee", "dirty": False}, "params": {}}

    def write(kind: str) -> Any:
        return write_artifact(root / kind, kind=kind, provenance=provenance)

    with write("dataset") as draft:
        with DatasetWriter(draft.path, LABELS, shard_bytes=2000) as writer:
            for row in range(30):
                labels = [LABELS[row % 3], LABELS[(row + 1 + row // 15) % 3]]
                image = io.BytesIO()
                Image.new("RGB", (8, 8), (row * 8, 9, 99)).save(image, "PNG")
                text = " and ".join(labels)
                writer.add(Item(f"i{row}", text, labels, image.getvalue(), f"{row}.png", SPLITS[row // 3 % 5]))
            writer.write_rejected([])
            writer.write_vectors("image", np.arange(60, dtype=np.float32).reshape(30, 2), range(30))
        draft.content = writer.content
    dataset = Dataset.read(root / "dataset")
    with write("features") as draft:
        config = FeaturesConfig(text="supervised_bow", supervised_dim=3, min_word_count=1)
        draft.content = write_features(draft.path, dataset, config, cache=root / "cache")
    features = Features.read(root / "features")
    with write("label_graph") as draft:
        write_label_graph(draft, dataset, LabelGraphConfig())
    graph = graph_tensors(LabelGraph.read(root / "label_graph"))
    result = train_on(features, graph, root / "work" / "checkpoint.safetensors")
    with write("model") as draft:
        draft.content = write_model(
            draft.path,
            config=MODEL,
            state=result.weights,
            graph=graph,
            features=features.artifact,
            history=result.history,
            val_metrics=result.val_metrics,
        )
    with write("report") as draft:
        model = TrainedModel.read(root / "model")
        evaluation = evaluate(model, features)
        config = EvaluateConfig()
        write_report(draft, evaluation, dataset=dataset, features=features, model=model, config=config, resources={})
    return root


def train_on(features: Features, graph: Any, checkpoint: Path) -> Any:
    splits = {f"{split}_split": read_split(features, split) for split in ("train", "val")}
    return train(
        **splits, graph=graph, model_config=MODEL, config=TRAINING, checkpoint=checkpoint, checkpoint_seconds=0
    )


def everything(kind: str, path: Path, *, verify: bool) -> list[Any]:
    """All that the readers of an artifact give, as values that compare."""
    if kind == "dataset":
        data = Dataset.read(path, verify=verify)
        vectors = data.vectors("image")
        assert vectors is not None
        images = [image for group in data.iterate_images() for image in group]
        arrays = [data.splits, data.has_image, data.has_text, data.labels, vectors]
        return [data.artifact.content, data.ids, data.texts, images, data.images([3, 1]), *map(np.array2string, arrays)]
    if kind == "features":
        features = Features.read(path, verify=verify)
        arrays = [getattr(features, name) for name in ("splits", "has_image", "has_text", "image", "text", "labels")]
        return [features.artifact.content, features.ids, features.label_names, *(array.tobytes() for array in arrays)]
    if kind == "label_graph":
        graph = LabelGraph.read(path, verify=verify)
        return [graph.artifact.content, graph.threshold, *(getattr(graph, name).tobytes() for name in ARRAYS)]
    if kind == "model":
        model = TrainedModel.read(path, verify=verify)
        image = io.BytesIO()
        Image.new("RGB", (9, 9), "teal").save(image, "PNG")
        embeddings = [model.encode_images([image.getvalue()]), model.encode_texts(["a boat at sea"])]
        artifact = model.artifact
        epochs = read_history(artifact.file("history.jsonl"), "again")
        metrics = read_metrics(artifact.file("val_metrics.json"), "again")
        return [artifact.content, artifact.provenance, epochs, metrics, *(array.tobytes() for array in embeddings)]
    report = read_artifact(path, kind, verify=verify)
    return [report.content, read_metrics(report.file("metrics.json"), "again")]


def refuses_or_reads(read: Callable[[], Any], what: str) -> Any:
    """What a reader gives; None where it refuses in one line."""
    began = time.monotonic()
    try:
        found = read()
    except DagnnError as error:
        assert "\n" not in str(error), what
        found = None
    except BaseException as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    assert time.monotonic() - began < SECONDS, what
    return found


def seeds(first: int, rounds: int) -> Iterator[tuple[int, random.Random]]:
    return ((seed, random.Random(seed)) for seed in range(first, first + rounds))


def check_artifact(artifacts: Path, folder: Path, kind: str, first: int, rounds: int) -> None:
    """Damage every file of an artifact in turn."""
    expected = everything(kind, artifacts / kind, verify=True)
    files = [path.relative_to(artifacts / kind) for path in (artifacts / kind).rglob("*") if path.is_file()]
    copy = folder / kind
    shutil.copytree(artifacts / kind, copy)
    for file in sorted(files):
        for seed, draw in seeds(first, rounds):
            how = damage(copy / file, draw)
            what = f"{kind}/{file}, {how} of seed {seed}"
            assert refuses_or_reads(lambda: everything(kind, copy, verify=True), what) in (None, expected), what
            refuses_or_reads(lambda: everything(kind, copy, verify=False), f"{what}, unverified")
            shutil.copyfile(artifacts / kind / file, copy / file)
    for seed, draw in seeds(first, rounds):
        one, other = (copy / file for file in draw.sample(files, 2))
        swap(one, other)
        what = f"{kind}, {one.name} and {other.name} in each other's place, seed {seed}"
        assert refuses_or_reads(lambda: everything(kind, copy, verify=True), what) in (None, expected), what
        swap(one, other)
        for name in (file for file in files if file.suffix == ".json"):
            spoil_json(copy / name, draw)
            what = f"{kind}/{name}, another value of seed {seed}"
            assert refuses_or_reads(lambda: everything(kind, copy, verify=True), what) in (None, expected), what
            refuses_or_reads(lambda: everything(kind, copy, verify=False), f"{what}, unverified")
            shutil.copyfile(artifacts / kind / name, copy / name)


@pytest.mark.parametrize("kind", KINDS)
def test_an_artifact_is_read_as_it_was_written_or_refused(artifacts: Path, tmp_path: Path, kind: str) -> None:
    check_artifact(artifacts, tmp_path, kind, 0, 2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_an_artifact_is_read_as_it_was_written_or_refused_long(artifacts: Path, tmp_path: Path, kind: str) -> None:
    check_artifact(artifacts, tmp_path, kind, random.SystemRandom().randrange(10**9), 40)


def damage_checkpoint(artifacts: Path, folder: Path, first: int, rounds: int, log: pytest.LogCaptureFixture) -> None:
    features = Features.read(artifacts / "features")
    graph = graph_tensors(LabelGraph.read(artifacts / "label_graph"))
    whole = artifacts / "work" / "checkpoint.safetensors"
    expected = TrainedModel.read(artifacts / "model").network.state_dict()
    for seed, draw in seeds(first, rounds):
        copy = folder / str(seed) / "work" / whole.name
        copy.parent.mkdir(parents=True)
        shutil.copyfile(whole, copy)
        how = damage(copy, draw)
        log.clear()
        result = train_on(features, graph, copy)
        for name, value in expected.items():
            assert torch.equal(result.weights[name], value), f"{name}: {how} of seed {seed}"
        assert f"{copy} " in log.text and "training starts over" in log.text, f"{how} of seed {seed}"


def test_a_damaged_checkpoint_changes_no_weight(
    artifacts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damage_checkpoint(artifacts, tmp_path, 0, 6, caplog)
    elsewhere = tmp_path / "of other inputs" / "checkpoint.safetensors"
    elsewhere.parent.mkdir()
    shutil.copyfile(artifacts / "work" / "checkpoint.safetensors", elsewhere)
    features = Features.read(artifacts / "features")
    train_on(features, graph_tensors(LabelGraph.read(artifacts / "label_graph")), elsewhere)
    assert f"{elsewhere} is damaged: training starts over" in caplog.text


@pytest.mark.slow
def test_a_damaged_checkpoint_changes_no_weight_long(
    artifacts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damage_checkpoint(artifacts, tmp_path, random.SystemRandom().randrange(10**9), 100, caplog)


# what users bring: nothing says whether a value in it is right


def user_files(folder: Path) -> dict[str, Callable[[Path], Any]]:
    """Small files of every format that users bring, and what reads each."""
    ids, matrix = np.array(["a", "b", "c"]), np.arange(6, dtype=np.float32).reshape(3, 2)
    np.save(folder / "matrix.npy", matrix)
    np.savez(folder / "matrix.npz", x=matrix)
    np.savez_compressed(folder / "vectors.npz", ids=ids, features=matrix)
    np.savez(folder / "words.npz", names=ids, vectors=matrix)
    scipy.io.savemat(folder / "matrix.mat", {"x": matrix})
    (folder / "words.txt").write_text("a 1 2\nb 3 4\nc 5 6\n")
    (folder / "labels.json").write_text('{"labels": [{"name": "a"}, {"name": "b"}]}')
    (folder / "labels.txt").write_text("a\nb\n")
    (folder / "table.csv").write_text('id,text\na,"x, y"\nb,z\n')
    (folder / "table.jsonl").write_text('{"id": "a", "text": "x"}\n{"id": "b", "text": ["y", "z"]}\n')
    pq.write_table(pa.table({"id": ["a", "b"], "text": ["x", "y"]}), folder / "table.parquet")
    (folder / "coco.json").write_text('{"images": [{"id": 1}, {"id": 2}], "info": {"year": 1.5e3}}')
    (folder / "coco.json.gz").write_bytes(gzip.compress((folder / "coco.json").read_bytes()))
    (folder / "params.yaml").write_text("train: {epochs: 3, learning_rate: 5e-5}\nmodel:\n  - &a [x]\n  - *a\n")
    write_lineage(folder, RawLineage(md5="a" * 32, size=3, num_files=1))
    columns = {"id": "id", "text": "text"}
    return {
        "matrix.npy": lambda path: read_matrix(path).sum(),
        "matrix.npz": lambda path: read_matrix(path).sum(),
        "matrix.mat": lambda path: read_matrix(path).sum(),
        "vectors.npz": read_vectors,
        "words.npz": lambda path: read_label_vectors(str(path), ["a", "b", "c"]),
        "words.txt": lambda path: read_label_vectors(str(path), ["a", "b", "c"]),
        "labels.json": read_label_names,
        "labels.txt": read_label_names,
        "table.csv": lambda path: read_table(path, columns),
        "table.jsonl": lambda path: read_table(path, columns),
        "table.parquet": lambda path: read_table(path, columns),
        "coco.json": lambda path: list(read_members(path)),
        "coco.json.gz": lambda path: list(read_members(path)),
        "params.yaml": read_yaml,
        ".lineage.json": lambda path: read_lineage(path.parent),
    }


def check_user_files(folder: Path, first: int, rounds: int) -> None:
    for name, read in user_files(folder).items():
        whole = (folder / name).read_bytes()
        expected = read(folder / name)
        # a file of MATLAB 5 is read in a process of its own, which takes its time
        for seed, draw in seeds(first, rounds // 10 if name == "matrix.mat" else rounds):
            is_json = name in ("labels.json", "coco.json", ".lineage.json") and seed % 2
            how = "another value" if is_json and not spoil_json(folder / name, draw) else damage(folder / name, draw)
            what = f"{name}, {how} of seed {seed}"
            found = refuses_or_reads(partial(read, folder / name), what)
            if name == ".lineage.json":  # it has a digest
                assert found in (None, expected), what
            (folder / name).unlink()
            (folder / name).write_bytes(whole)


def test_files_of_users_are_read_or_refused(tmp_path: Path) -> None:
    check_user_files(tmp_path, 0, 30)


@pytest.mark.slow
def test_files_of_users_are_read_or_refused_long(tmp_path: Path) -> None:
    check_user_files(tmp_path, random.SystemRandom().randrange(10**9), 1000)


DEEP = 400
BILLION = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10))


@pytest.mark.parametrize(
    "text",
    [
        "train: " + "[" * DEEP + "]" * DEEP,
        "train: " + "{a: " * DEEP + "1" + "}" * DEEP,
        f"train: {{epochs: {'9' * 5000}}}",
        f"train: {{epochs: 0x{'f' * 5000}}}",
        f"train: {{epochs: {'9' * 30}}}",
        f"a0: &a0 [x]\n{BILLION}",
        "a: &a [*a]",
        "a: 2024-99-99",
        "a: !!int x",
        "? [a]\n: b",
    ],
)
def test_yaml_that_no_person_writes_is_refused_at_once(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    found = refuses_or_reads(lambda: read_yaml(tmp_path / "params.yaml"), text[:80])
    assert found is None or text.startswith("?")


def test_an_array_that_claims_more_than_it_has_is_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    header = io.BytesIO()
    claim = {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**6)}
    np.lib.format.write_array_header_1_0(header, claim)
    with zipfile.ZipFile(tmp_path / "vectors.npz", "w") as archive:
        archive.writestr("ids.npy", header.getvalue() + bytes(100))
        archive.writestr("features.npy", header.getvalue() + bytes(100))
    for read in (read_vectors, lambda path: read_label_vectors(str(path), ["a"])):
        with pytest.raises(DagnnError, match=r"claims 4000000000000000 bytes, but has 228"):
            read(tmp_path / "vectors.npz")  # type: ignore[operator]


def test_values_of_json_parameters_that_no_section_has() -> None:
    for value in ("1e999", "NaN", "9" * 5000, "[" * 2000 + "]" * 2000, "9" * 30, '"x"'):
        with pytest.raises(DagnnError):
            load_section(json.dumps({"lr": "VALUE"}).replace('"VALUE"', value), TrainConfig)
