import io
import json
import shutil
import struct
import zlib

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dagnn_core.artifacts import read_artifact, write_artifact
from dagnn_core.data.dataset import Dataset, Item
from dagnn_core.data.ingest.writer import DatasetWriter
from dagnn_core.disk import DiskError
from dagnn_core.errors import ArtifactError, BackendError, InputError
from dagnn_core.model.embedder import TrainedModel
from dagnn_core.retrieval.metrics import rank_gallery
from dagnn_core.search import build
from dagnn_core.search.build import add_to_index, build_index, remove_from_index
from dagnn_core.search.index import SearchIndex
from dagnn_core.search.sources import DatasetSource, FolderSource, open_source
from dagnn_core.search.strip import draw_strip

from .conftest import OPTIONS


@pytest.fixture(scope="session")
def best(collection):
    return TrainedModel.read(collection.best)


@pytest.fixture(scope="session")
def data(collection):
    return Dataset.read(collection.dataset)


@pytest.fixture
def index(collection, best):
    return SearchIndex.read(collection.index, best, verify=True)


def make(out, model, source, work=None):
    return build_index(
        out, model, source, work=work or out.parent / "work", options=OPTIONS, provenance={"step": "index"}
    )


def png(colour):
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(stream, format="PNG")
    return stream.getvalue()


def test_texts_find_images_in_the_order_of_the_evaluation(index, best, data):
    images = best.encode_images([image for group in data.iterate_images() for image in group])
    texts = best.encode_texts(data.texts[:7])
    ranking = rank_gallery(texts, images)[:, :10]
    hits = index.search([index.text_query(text) for text in data.texts[:7]], 10)
    assert [[hit.row for hit in found] for found in hits] == ranking.tolist()
    first = hits[0][0]
    assert (first.rank, first.id, first.text) == (1, data.ids[first.row], data.texts[first.row])
    assert first.columns == {"split": data.splits[first.row]}


def test_images_find_texts_and_items_find_images(index, best, data):
    encoded = data.images([3])
    texts = best.encode_texts(data.texts)
    expected = rank_gallery(best.encode_images(encoded), texts)[0, :5].tolist()
    assert [hit.row for hit in index.search([index.image_query(encoded[0])], 5)[0]] == expected
    # an image as a query for images ranks by the expected number of shared labels
    images = best.encode_images([image for group in data.iterate_images() for image in group])
    shared = images[:, :-2] @ images[3, :-2]
    rows = [hit.row for hit in index.search([index.item_query(data.ids[3])], 5)[0]]
    np.testing.assert_allclose(shared[rows], np.sort(shared)[::-1][:5], atol=1e-6)


def test_probabilities_and_reasons_follow_from_the_models_label_probabilities(index, best, data):
    query = index.text_query(data.texts[0])
    hit = index.search([query], 1)[0][0]
    image = best.label_probabilities(best.encode_images(data.images([hit.row])))[0]
    text = best.label_probabilities(best.encode_texts(data.texts[:1]))[0]
    assert hit.probability == pytest.approx(1 - np.prod(1 - image.astype(float) * text), abs=1e-6)
    shared = dict(zip(best.label_names, image * text, strict=True))
    assert all(share == pytest.approx(shared[name], abs=1e-6) for name, share in hit.reasons)
    labels = index.nearest_labels(query, 3)
    assert [name for name, _ in labels] == [best.label_names[label] for label in np.argsort(-text)[:3]]


def test_a_hybrid_model_ranks_across_and_within_modalities_and_gives_reasons(collection, data, tmp_path):
    model = TrainedModel.read(collection.hybrid)
    index = SearchIndex(make(tmp_path / "index", model, DatasetSource(data)), model)
    images = model.encode_images([image for group in data.iterate_images() for image in group])
    texts = model.encode_texts(data.texts)
    assert images.shape[1] == texts.shape[1] == model.artifact.content["output_dim"]
    hits = index.search([index.text_query(text) for text in data.texts[:7]], 10)
    assert [[hit.row for hit in found] for found in hits] == rank_gallery(texts[:7], images)[:, :10].tolist()
    probabilities = model.label_probabilities(images)[hits[0][0].row], model.label_probabilities(texts)[0]
    assert hits[0][0].probability == pytest.approx(1 - np.prod(1 - np.prod(probabilities, axis=0)), abs=1e-6)
    # an image as a query for images: all parts of the score count, the entries of the missing length do not
    score = images[:, :-2] @ images[3, :-2]
    rows = [hit.row for hit in index.search([index.item_query(data.ids[3])], 5)[0]]
    np.testing.assert_allclose(score[rows], np.sort(score)[::-1][:5], atol=1e-6)


def test_filters_and_the_smallest_score(index, data):
    query = index.text_query(data.texts[0])
    label = data.label_names[0]
    has = data.labels[:, 0] > 0
    hits = index.search([query], 90, allowed=index.allowed(f"not {label}", ["split=test"]))[0]
    assert sorted(hit.row for hit in hits) == np.flatnonzero(~has & (data.splits == "test")).tolist()
    least = index.search([query], 5)[0][2].score
    assert [hit.rank for hit in index.search([query], 90, min_score=least)[0]][:3] == [1, 2, 3]
    assert all(hit.score >= least for hit in index.search([query], 90, min_score=least)[0])
    assert index.search([query], 5, allowed=index.allowed("", ["split=none"])) == [[]]
    with pytest.raises(InputError, match="k is 0, expected at least 1"):
        index.search([query], 0)


def full_query(index, value):
    return index.vector_query(np.full(index.artifact.content["dim"], value), "text", target="image")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (lambda index: index.text_query("  "), "the query is empty"),
        (lambda index: index.text_query("qqq zzz"), "'qqq zzz' has no word that the model knows"),
        (lambda index: index.image_query(b"no image"), "cannot be decoded|not an image"),
        (lambda index: index.item_query("nobody"), "has no item 'nobody'"),
        (lambda index: index.vector_query(np.ones(3), "text", target="image"), r"shape \[3\], expected \d+ finite"),
        (lambda index: full_query(index, 0.0), "not all zero"),
        (lambda index: full_query(index, 1e300), "finite numbers"),
        (lambda index: full_query(index, 1e-300), "not all zero"),
    ],
)
def test_queries_that_say_nothing_are_refused(index, query, message):
    with pytest.raises(InputError, match=message):
        query(index)


def test_a_model_without_label_probabilities_ranks_and_gives_no_reasons(collection, tmp_path, data):
    ridge = TrainedModel.read(collection.ridge)
    made = make(tmp_path / "index", ridge, DatasetSource(data, ["test"]))
    index = SearchIndex(made, ridge)
    rows = data.rows("test")
    query = index.text_query(data.texts[rows[0]])
    hits = index.search([query], 4)[0]
    expected = rank_gallery(ridge.encode_texts([data.texts[rows[0]]]), ridge.encode_images(data.images(rows.tolist())))
    assert [hit.row for hit in hits] == expected[0, :4].tolist()
    assert {hit.probability for hit in hits} == {None} and index.nearest_labels(query) == []


def test_another_model_is_refused(collection, tmp_path, data):
    ridge = TrainedModel.read(collection.ridge)
    with pytest.raises(InputError, match=r"was built with the model [0-9a-f]{12}, but .* cannot be compared"):
        SearchIndex.read(collection.index, ridge)
    before = read_artifact(collection.index, "index", verify=True).content_digest
    with pytest.raises(InputError, match="cannot be compared"):
        add_to_index(collection.index, ridge, DatasetSource(data), work=tmp_path)
    assert read_artifact(collection.index, "index", verify=True).content_digest == before


def test_an_interrupted_build_resumes_after_the_last_shard(best, data, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "SHARD_ITEMS", 20)
    whole = make(tmp_path / "whole", best, DatasetSource(data))

    starts, stop_at = [], [60]

    class Stopped(DatasetSource):
        def items(self, start, stop):
            starts.append(start)
            if start >= stop_at[0]:
                raise KeyboardInterrupt
            yield from super().items(start, stop)

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "index", best, Stopped(data), tmp_path / "work")
    assert not (tmp_path / "index").exists()
    shard = next((tmp_path / "work").rglob("shard-00001/text.npy"))
    damaged = bytearray(shard.read_bytes())
    damaged[-1] ^= 1
    shard.write_bytes(damaged)
    starts.clear()
    stop_at[0] = 1000
    resumed = make(tmp_path / "index", best, Stopped(data), tmp_path / "work")
    assert starts == [20, 60, 80], "the damaged shard, and those that were missing"
    assert resumed.content_digest == whole.content_digest
    assert not list((tmp_path / "work").rglob("shard-*"))


def test_adding_replacing_and_removing_is_building_without_embedding_again(
    collection, best, data, tmp_path, monkeypatch
):
    work, path = tmp_path / "work", tmp_path / "index"
    whole = make(tmp_path / "whole", best, DatasetSource(data, ["test", "train"]), work)
    make(path, best, DatasetSource(data, ["test"]), work)
    embedded = []
    monkeypatch.setattr(build, "track", lambda starts, **_: embedded.append(len(starts)) or starts)
    add_to_index(path, best, DatasetSource(data, ["train"]), work=work)
    order = [*np.flatnonzero(data.splits == "test"), *np.flatnonzero(data.splits == "train")]
    added = SearchIndex.read(path, best, verify=True)
    assert added.ids == [data.ids[row] for row in order]
    query = added.text_query(data.texts[0])
    found = {hit.id: hit.score for hit in added.search([query], 99)[0]}
    assert found == {hit.id: hit.score for hit in SearchIndex(whole, best).search([query], 99)[0]}
    assert added.thumbnail(0) == SearchIndex.read(collection.index, best).thumbnail(int(order[0]))

    with pytest.raises(InputError, match=r"of the new ids, the first .*dagnn index replace"):
        add_to_index(path, best, DatasetSource(data, ["test"]), work=work)
    add_to_index(path, best, DatasetSource(data, ["test"]), work=work, replace=True)
    replaced = SearchIndex.read(path, best, verify=True)
    assert sorted(replaced.ids) == sorted(added.ids) and replaced.ids != added.ids
    assert {hit.id: hit.score for hit in replaced.search([query], 99)[0]} == found

    gone = [data.ids[row] for row in np.flatnonzero(data.splits == "train")]
    remove_from_index(path, gone)
    assert SearchIndex.read(path, best, verify=True).ids == [
        data.ids[row] for row in np.flatnonzero(data.splits == "test")
    ]
    with pytest.raises(InputError, match=r"has no item 'nobody' \(1 of 2 ids\)"):
        remove_from_index(path, ["nobody", data.ids[order[0]]])
    with pytest.raises(InputError, match="no item would be left"):
        remove_from_index(path, [data.ids[row] for row in np.flatnonzero(data.splits == "test")])


def test_a_crash_while_adding_leaves_the_old_index(collection, best, data, tmp_path, monkeypatch):
    path = tmp_path / "index"
    shutil.copytree(collection.index, path)
    before = {file.name: file.read_bytes() for file in path.iterdir()}

    def crash(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build, "_write_vectors", crash)
    with pytest.raises(DiskError, match="index: no space is left"):
        remove_from_index(path, [data.ids[0]])
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["index"]


@pytest.mark.parametrize("function", ["_write_array", "_item_table", "_write_cells"])
def test_a_full_disk_while_building_leaves_the_old_index_and_the_build_resumes(
    best, data, tmp_path, monkeypatch, function
):
    path, work, options = tmp_path / "index", tmp_path / "work", OPTIONS._replace(exact_limit=20)
    old = make(path, best, DatasetSource(data, ["val"]), work).content_digest
    embedded = []
    original = build._embed

    def embed(items, encoders):
        embedded.append(len(items))
        return original(items, encoders)

    monkeypatch.setattr(build, "_embed", embed)

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    source = DatasetSource(data, ["test"])
    with monkeypatch.context() as patch, pytest.raises(BackendError, match="no space is left") as failure:
        patch.setattr(build, function, full)
        build_index(path, best, source, work=work, options=options, provenance={})
    assert failure.value.exit_status == 3
    assert read_artifact(path, "index", verify=True).content_digest == old
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []
    embedded.clear()
    made = build_index(path, best, source, work=work, options=options, provenance={})
    assert made.content["num_items"] == len(source) and bool(embedded) == (function != "_write_cells")


def test_two_changes_of_one_index_at_once_are_one_too_many(best, data, tmp_path):
    path, work = tmp_path / "index", tmp_path / "work"
    make(path, best, DatasetSource(data, ["val"]), work)

    class Slow(DatasetSource):
        def items(self, start, stop):
            for change in (
                lambda: remove_from_index(path, [data.ids[0]]),
                lambda: add_to_index(path, best, DatasetSource(data, ["train"]), work=work),
                lambda: make(path, best, DatasetSource(data, ["train"]), tmp_path / "other"),
            ):
                with pytest.raises(BackendError, match=r"another process changes .*index \(process \d+ on"):
                    change()
            return super().items(start, stop)

    add_to_index(path, best, Slow(data, ["test"]), work=work)
    assert read_artifact(path, "index").content["num_items"] == len(data.rows("val")) + len(data.rows("test"))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["index", "work"]


def test_other_files_are_not_overwritten_and_that_is_said_at_once(best, data, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr(build, "_embed", None)
    with pytest.raises(InputError, match="holds other files, which would be lost"):
        make(tmp_path, best, DatasetSource(data, ["val"]), tmp_path / "work")


def test_an_item_whose_embedding_is_not_finite_is_rejected(best, data, tmp_path, monkeypatch):
    original = TrainedModel.encode_images

    def encode(model, images):
        embeddings = original(model, images)
        embeddings[0] = np.nan
        return embeddings

    monkeypatch.setattr(TrainedModel, "encode_images", encode)
    source = DatasetSource(data, ["test"])
    artifact = make(tmp_path / "index", best, source)
    assert artifact.content["num_items"] == len(source) - 1
    (rejected,) = pq.read_table(artifact.file("rejected.parquet")).to_pylist()
    assert (rejected["id"], rejected["reason"]) == (
        data.ids[data.rows("test")[0]],
        "its embedding is not finite; check the model",
    )


def bomb(side):
    """A PNG of a few bytes that says it is side x side."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def test_a_huge_image_is_refused_before_it_is_decoded(index, best, tmp_path):
    with pytest.raises(InputError, match=r"decoded|pixels"):
        index.image_query(bomb(60_000))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "bomb.png").write_bytes(bomb(60_000))
    (tmp_path / "photos" / "red.png").write_bytes(png("red"))
    artifact = make(tmp_path / "index", best, FolderSource(tmp_path / "photos"))
    assert [entry["id"] for entry in pq.read_table(artifact.file("rejected.parquet")).to_pylist()] == ["bomb.png"]


def test_more_results_than_items_are_all_items(index, data):
    assert len(index.search([index.text_query(data.texts[0])], 10**9)[0]) == len(index)


def test_an_index_of_a_later_program_is_refused(collection, best, tmp_path):
    path = tmp_path / "index"
    shutil.copytree(collection.index, path)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 99}))
    with pytest.raises(
        ArtifactError, match=r"schema version 99, but this program reads versions .* `dagnn index build`"
    ):
        SearchIndex.read(path, best)


def test_two_builders_at_once_are_one_too_many(best, data, tmp_path):
    class Slow(DatasetSource):
        def items(self, start, stop):
            with pytest.raises(BackendError, match="another build of the same index is running"):
                make(tmp_path / "other", best, DatasetSource(data, ["val"]), tmp_path / "work")
            return super().items(start, stop)

    make(tmp_path / "index", best, Slow(data, ["val"]), tmp_path / "work")


def test_a_folder_of_images_with_what_cannot_be_used_named(best, tmp_path):
    photos = tmp_path / "photos"
    (photos / "sea").mkdir(parents=True)
    (photos / "sea" / "red.png").write_bytes(png("red"))
    (photos / "blue.PNG").write_bytes(png("blue"))
    (photos / "broken.jpg").write_bytes(png("red")[:60])
    (photos / "notes.txt").write_text("no image")
    (tmp_path / "secret").write_text("not of the folder")
    (photos / "link.png").symlink_to(tmp_path / "secret")
    artifact = make(tmp_path / "index", best, FolderSource(photos))
    index = SearchIndex(artifact, best)
    assert index.ids == ["blue.PNG", "sea/red.png"]
    assert artifact.content["num_texts"] == 0
    rejected = pq.read_table(artifact.file("rejected.parquet")).to_pylist()
    assert [(entry["row"], entry["id"]) for entry in rejected] == [(2, "broken.jpg"), (3, "link.png")]
    assert rejected[0]["reason"].startswith("the image cannot be decoded (")
    assert "is a link that leads out of" in rejected[1]["reason"]
    with pytest.raises(InputError, match="the index has no texts to find; find its images"):
        index.item_query("blue.PNG", target="text")
    assert Image.open(io.BytesIO(index.thumbnail(1))).size == (40, 30)
    assert [
        hit.id for hit in index.search([index.item_query("blue.PNG")], 5, allowed=index.allowed("", ["folder=sea"]))[0]
    ] == ["sea/red.png"]
    assert Image.open(io.BytesIO(draw_strip(index, index.search([index.item_query("blue.PNG")], 5)[0]))).format == "PNG"


def test_a_table_with_columns_to_filter_by(best, data, tmp_path):
    (tmp_path / "red.png").write_bytes(png("red"))
    word = data.texts[0].split()[-1].strip(".")
    rows = [
        {"id": "1", "text": word, "image": "red.png", "labels": ["boat", "sea"], "year": 2019},
        {"id": "2", "text": "qqq", "image": "", "labels": [], "year": 2020},
        {"id": "3", "text": word, "image": "", "labels": ["sea"], "year": None},
        {"id": "4", "text": word, "image": "gone.png", "labels": [], "year": 2020},
        {"id": "", "text": word, "image": "", "labels": [], "year": 2020},
        {"id": "1", "text": word, "image": "", "labels": [], "year": 2020},
    ]
    table = tmp_path / "photos.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    artifact = make(tmp_path / "index", best, open_source(table))
    index = SearchIndex(artifact, best)
    assert index.ids == ["1", "3"]
    assert [entry["reason"] for entry in pq.read_table(artifact.file("rejected.parquet")).to_pylist()] == [
        "the text 'qqq' has no word that the model knows",
        "there is no image gone.png",
        "no id",
        "row 1 has the same id",
    ]
    query = index.text_query(word, target="text")
    assert [hit.id for hit in index.search([query], 9, allowed=index.allowed("boat and sea"))[0]] == ["1"]
    assert [hit.id for hit in index.search([query], 9, allowed=index.allowed("", ["year=2019"]))[0]] == ["1"]
    assert index.thumbnail(1) is None


def test_a_data_set_filters_by_the_columns_that_it_keeps(best, data, tmp_path):
    images = data.images(range(6))
    with write_artifact(tmp_path / "dataset", kind="dataset", provenance={}) as draft:
        with DatasetWriter(draft.path, data.label_names, columns=["camera", "f. stop"]) as writer:
            for row, image in enumerate(images):
                cells = {"camera": ("day", "night", "")[row % 3], "f. stop": str(row)}
                writer.add(Item(f"i{row}", data.texts[row], [], image, "", "test", columns=cells))
            writer.write_rejected([])
        draft.content = writer.content
    index = SearchIndex(make(tmp_path / "index", best, open_source(tmp_path / "dataset")), best)
    assert index.item(1).columns == {"camera": "night", "f. stop": "1", "split": "test"}
    query = index.text_query(data.texts[0])
    for conditions, expected in (
        (["camera=night"], {"i1", "i4"}),
        (["camera="], {"i2", "i5"}),
        (["camera=night", "f. stop=4", "split=test"], {"i4"}),
    ):
        hits = index.search([query], 9, allowed=index.allowed("", conditions))[0]
        assert {hit.id for hit in hits} == expected


def test_a_rejected_row_is_listed_until_its_item_is_added(best, data, tmp_path):
    word = data.texts[0].split()[-1].strip(".")
    table, path = tmp_path / "table.csv", tmp_path / "index"

    def rejected(rows: str, change) -> list[str]:
        table.write_text(f"id,text\n{rows}")
        artifact = change(open_source(table))
        return [entry["id"] for entry in pq.read_table(artifact.file("rejected.parquet")).to_pylist()]

    def replace(source):
        return add_to_index(path, best, source, work=tmp_path / "work", replace=True)

    rows = f"1,{word}\n2,qqq\n3,qqq\n,{word}\n"
    assert rejected(rows, lambda source: make(path, best, source)) == ["2", "3", ""]
    assert rejected(rows, replace) == ["2", "3", ""]
    assert rejected(f"2,{word}\n", replace) == ["3", ""]
    assert rejected(f"4,{word}\n5,qqq\n", replace) == ["3", "", "5"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,text\n1,boat\n", "has the columns name, text, expected id, and text or image"),
        ("id,text\n1,qqq\n", "none of 1 items can be indexed, the first: the text 'qqq' has no word"),
    ],
)
def test_tables_that_cannot_be_indexed(best, tmp_path, table, message):
    (tmp_path / "table.csv").write_text(table)
    with pytest.raises(InputError, match=message):
        make(tmp_path / "index", best, open_source(tmp_path / "table.csv"))
    assert not (tmp_path / "index").exists()


def test_sources_that_are_none(collection, tmp_path):
    with pytest.raises(
        InputError, match="does not exist, expected a data set artifact, a folder of images, or a table"
    ):
        open_source(tmp_path / "gone")
    with pytest.raises(InputError, match="has no images"):
        open_source(tmp_path)
    with pytest.raises(InputError, match="has no items of the split 'dev'; it has test, train, val"):
        open_source(collection.dataset, splits=["dev"])
    with pytest.raises(InputError, match="--images belongs to a table"):
        open_source(collection.dataset, images=tmp_path)


def test_a_damaged_index_is_refused(collection, best, tmp_path):
    path = tmp_path / "index"
    shutil.copytree(collection.index, path)
    names = sorted(file.name for file in path.iterdir())
    assert names == [
        *("image.npy", "items.parquet", "manifest.json", "rejected.parquet"),
        *("text.npy", "thumbnail_ends.npy", "thumbnails.npy"),
    ]
    for name in names:
        whole = (path / name).read_bytes()
        damaged = bytearray(whole)
        damaged[len(damaged) // 2] ^= 1
        (path / name).write_bytes(damaged)
        message = "is damaged|not the checksum" if name == "manifest.json" else f"{name} does not have the checksum"
        with pytest.raises(ArtifactError, match=message):
            SearchIndex.read(path, best, verify=True)
        (path / name).write_bytes(whole)
    thumbnails = (path / "thumbnails.npy").read_bytes()
    (path / "thumbnails.npy").write_bytes(thumbnails[:-1] + bytes([thumbnails[-1] ^ 1]))
    SearchIndex.read(path, best, verify=True, with_thumbnails=False)
    (path / "thumbnails.npy").write_bytes(bytes(len(thumbnails)))
    with pytest.raises(ArtifactError, match=r"thumbnails\.npy is damaged"):
        SearchIndex.read(path, best, verify=True, with_thumbnails=False)


def test_a_large_index_is_changed_and_filtered_exactly(best, data, tmp_path):
    """Cells of an index that is added to, replaced in and removed from find under a filter what exact search finds."""
    work = tmp_path / "work"
    parts = [DatasetSource(data, [split]) for split in ("test", "train")]
    found = {}
    for name, limit in (("cells", 10), ("exact", 1000)):
        path, options = tmp_path / name, OPTIONS._replace(exact_limit=limit)
        build_index(path, best, parts[0], work=work, options=options, provenance={})
        add_to_index(path, best, parts[1], work=work)
        add_to_index(path, best, parts[0], work=work, replace=True)
        remove_from_index(path, [data.ids[data.rows("test")[0]]])
        index = SearchIndex.read(path, best, verify=True)
        assert set(index.artifact.content["cells"]) == ({"image", "text"} if name == "cells" else set())
        allowed = index.allowed("not tree")
        assert allowed is not None
        found[name] = index.search([index.text_query(text) for text in data.texts[:5]], 20, allowed=allowed)
    assert found["cells"] == found["exact"]


def test_a_large_index_reads_cells_with_the_recall_that_it_states(best, data, tmp_path):
    options = OPTIONS._replace(exact_limit=50, recall=0.9)
    artifact = build_index(
        tmp_path / "index", best, DatasetSource(data), work=tmp_path / "work", options=options, provenance={}
    )
    assert {cells["recall_at_10"] >= 0.9 for cells in artifact.content["cells"].values()} == {True}
    index = SearchIndex.read(tmp_path / "index", best, verify=True)
    assert index.search([index.text_query(data.texts[0])], 5)[0]
    remove_from_index(tmp_path / "index", list(data.ids[:45]))
    assert read_artifact(tmp_path / "index", "index").content["cells"] == {}, "small enough for exact search"
