import logging
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

from components.leftovers import find_leftovers, remove
from components.locations import CACHE
from components.services.storage.artifacts import send_artifact
from components.services.storage.datasets import StoredDataset, open_dataset
from components.services.storage.s3 import Storage
from components.steps import extract_features, extract_shard
from dagnn_core.artifacts import read_artifact, write_artifact
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.data.dataset import Dataset, Item
from dagnn_core.data.ingest import shards
from dagnn_core.data.ingest.writer import DatasetWriter
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.features.extraction import extract, vector_cache
from dagnn_core.features.extraction.precomputed import own_vector_files
from dagnn_core.features.features import SHARD_KIND, Features
from tests.fixtures import forked

TEXTS = ["red boat", "blue boat", "blue sea", "red boat", "unheard of"]
SPLITS = ["train", "train", "train", "val", "test"]


@pytest.fixture
def dataset(tmp_path):
    path = tmp_path / "dataset"
    with write_artifact(path, kind="dataset", provenance={"ancestors": {}}) as draft:
        with DatasetWriter(draft.path, ["boat"]) as writer:
            for row, (text, split) in enumerate(zip(TEXTS, SPLITS, strict=True)):
                file = tmp_path / "image.png"
                Image.fromarray(np.random.default_rng(row).integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(file)
                writer.add(Item(str(row), text, ("boat",), file.read_bytes(), file.name, split))
            file.unlink()
            writer.write_rejected([])
        draft.content = writer.content
    return path


def test_step_writes_the_artifact_with_its_lineage(dataset, tmp_path, caplog):
    out = tmp_path / "features"
    with caplog.at_level(logging.INFO):
        extract_features.run(
            dataset=dataset, params=FeaturesConfig(min_word_count=1), cache=tmp_path / "cache", features_out=out
        )
    features = Features.read(out, verify=True)
    assert features.text.shape == (5, 4)
    assert features.artifact.provenance["step"] == "extract_features"
    assert features.artifact.provenance["params"]["features"]["min_word_count"] == 1
    assert list(features.artifact.provenance["ancestors"]) == ["dataset"]
    assert f"features of 5 items: image classic [{features.image.shape[1]}], text bow [4]: {out}" in caplog.text
    assert "text vectors without any value: 0 train, 0 val, 1 test" in caplog.text
    assert "image vectors without any value" not in caplog.text


def test_dagnn_clean_leaves_the_cache_of_a_running_step(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write, removed = vector_cache.VectorCache._write, []

    def write_and_clean(*arguments):
        write(*arguments)
        removed.extend(remove(leftover) for leftover in find_leftovers(tmp_path, cache=True))

    monkeypatch.setattr(vector_cache.VectorCache, "_write", write_and_clean)
    run = partial(extract_features.run, dataset=dataset, params=FeaturesConfig(min_word_count=1), cache=CACHE)
    run(features_out=tmp_path / "features")
    assert removed == [False] and list(CACHE.glob("features/*/*.safetensors"))
    assert [remove(leftover) for leftover in find_leftovers(tmp_path, cache=True)] == [True] and not CACHE.exists()


def test_two_runs_give_equal_content(dataset, tmp_path):
    digests = set()
    for name in ("one", "other"):
        out = tmp_path / name
        extract_features.run(
            dataset=dataset,
            params=FeaturesConfig(text="tfidf", min_word_count=1),
            cache=tmp_path / f"cache-{name}",
            features_out=out,
        )
        digests.add(Features.read(out).artifact.content_digest)
    assert len(digests) == 1


@pytest.mark.parametrize("count", [2, 9])
def test_parts_of_several_tasks_give_the_features_of_one_to_the_byte(dataset, tmp_path, monkeypatch, count):
    monkeypatch.setattr(vector_cache, "SHARD_ROWS", 2)
    params = FeaturesConfig(min_word_count=1)
    extract_features.run(dataset=dataset, params=params, cache=tmp_path / "alone", features_out=tmp_path / "one")
    params = replace(params, shards=count)
    parts = [tmp_path / f"part-{index}" for index in range(count)]
    for index, part in enumerate(parts):
        extract_shard.run(dataset=dataset, params=params, index=index, shard_out=part)
    num_files = [sum(name.endswith(".safetensors") for name in read_artifact(part, SHARD_KIND).files) for part in parts]
    assert num_files == [2, 1] if count == 2 else num_files == [1, 1, 1, *[0] * 6]
    monkeypatch.setattr(extract, "describe_images", lambda *_: pytest.fail("nothing is left to be described"))
    for again in ("two", "three"):
        extract_features.run(
            dataset=dataset, params=params, cache=tmp_path / "cache", shards=parts, features_out=tmp_path / again
        )
        assert Features.read(tmp_path / again, verify=True).artifact.content_digest == (
            Features.read(tmp_path / "one").artifact.content_digest
        )
    victim = next(parts[0].rglob("*.safetensors"))
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=rf"{victim.name}.* run `dvc repro extract_features`"):
        extract_features.run(
            dataset=dataset, params=params, cache=tmp_path / "cache", shards=parts, features_out=tmp_path / "four"
        )


@pytest.fixture
def several_files(dataset, tmp_path, monkeypatch):
    """The same data set in files of one item each, with precomputed image vectors beside its images."""
    source = Dataset.read(dataset)
    path = tmp_path / "several"
    monkeypatch.setattr(shards, "ROW_GROUP_ITEMS", 1)
    record = {"step": "dataset", "ancestors": {"raw": "0" * 32}, "uris": {"raw": "s3://runs/raw_out"}}
    with write_artifact(path, kind="dataset", provenance=record) as draft:
        with DatasetWriter(draft.path, ["boat"], shard_bytes=1) as writer:
            for row, image in enumerate(source.images(range(len(source)))):
                writer.add(Item(source.ids[row], source.texts[row], ("boat",), image, "", str(source.splits[row])))
            writer.write_rejected([])
            writer.write_vectors("image", np.eye(5, dtype=np.float32), range(5))
        draft.content = writer.content
    return path


@pytest.fixture
def stored(several_files, bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket.endpoint)
    uri = f"{bucket.uri}/dataset_out"
    send_artifact(several_files, uri, Storage())
    return StoredDataset(uri, read_artifact(several_files, "dataset").content_digest)


@pytest.mark.parametrize("image", ["classic", "precomputed"])
def test_parts_of_a_stored_data_set_give_the_features_of_one_task_to_the_byte(
    several_files, stored, tmp_path, monkeypatch, image
):
    monkeypatch.setattr(vector_cache, "SHARD_ROWS", 1)
    params = FeaturesConfig(image=image, min_word_count=1, shards=3)
    own = {"params": params, "uri": "s3://runs/features_out"}
    extract_features.run(dataset=several_files, cache=tmp_path / "alone", features_out=tmp_path / "one", **own)
    parts = [tmp_path / f"part-{index}" for index in range(3)]
    for index, part in enumerate(parts):
        extract_shard.run(dataset=stored, params=params, index=index, shard_out=part)
    shard = read_artifact(parts[0], SHARD_KIND)
    assert shard.provenance["ancestors"] == {"raw": "0" * 32, "dataset": stored.digest}

    def join(shards, name):
        with open_dataset(stored, files=own_vector_files(params)) as source:
            out = tmp_path / name
            extract_features.run(dataset=source, shards=shards, cache=tmp_path / "cache", features_out=out, **own)

    if image == "classic":
        message = r"features\.shards is 3, but the vectors of 2 parts do not cover all images \(.*'4' is asked for\)"
        with pytest.raises(InputError, match=rf"{message}; leave features\.shards as the pipeline was compiled"):
            join(parts[:2], "two")
        assert not (tmp_path / "two").exists()
    join(parts, "two")
    one, two = (read_artifact(tmp_path / name, "features", verify=True) for name in ("one", "two"))
    assert (two.content_digest, two.content) == (one.content_digest, one.content)
    ran = ("execution", "packages", "git")  # what ran it
    assert {key: value for key, value in two.provenance.items() if key not in ran} == {
        key: value for key, value in one.provenance.items() if key not in ran
    }


def test_a_missing_data_set_names_the_stage_that_makes_it(tmp_path):
    with pytest.raises(ArtifactError, match=r"does not exist, expected a dataset artifact; run `dvc repro dataset`"):
        extract_features.run(
            dataset=tmp_path / "no", params=FeaturesConfig(), cache=tmp_path, features_out=tmp_path / "features"
        )


def test_command_line(dataset, tmp_path):
    out = tmp_path / "features"

    def command(params):
        arguments = ["--dataset", dataset, "--params", params, "--cache", tmp_path / "cache", "--features-out", out]
        return forked.run("components.steps.extract_features", *arguments)

    done = command('{"min_word_count": 1}')
    assert done.returncode == 0, done.stderr
    digest = Features.read(out, verify=True).artifact.content_digest

    refused = command('{"image": "precomputed", "min_word_count": 1}')
    assert refused.returncode == 2
    *_, last = refused.stderr.splitlines(keepends=True)
    assert last == (
        f"error: {dataset} has no precomputed image vectors, as features.image: precomputed expects; name a file with "
        "them in features.image_vectors, or choose another features.image in params.yaml\n"
    )
    assert Features.read(out).artifact.content_digest == digest  # what stood there stays
    assert {entry.name for entry in tmp_path.iterdir()} == {"cache", "dataset", "features"}
