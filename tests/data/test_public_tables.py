"""Tables and Hugging Face data sets as people publish them: right values, or one clear line."""

from collections import Counter
from pathlib import Path

import pytest

from dagnn_core.config.dataset import DatasetConfig, FolderConfig, HuggingFaceConfig
from dagnn_core.data.ingest.build import write_dataset
from dagnn_core.data.layouts import open_layout
from dagnn_core.data.raw import RawData
from dagnn_core.errors import InputError
from tests.fixtures.locations import SHARED

CASES = SHARED / "cases"
LABELS = {"boat": 24, "dog": 34, "sun": 28, "tree": 32}

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the public cases are not at ../shared/cases")


def open_case(source: str, **options: object) -> RawData:
    """Open a case by the layout that its options are of; tables have their images beside them."""
    if "table" in options:
        section: object = FolderConfig(**{"images": "images"} | options)
        return open_layout(CASES / source, DatasetConfig(layout="folder", source=source, folder=section))
    section = HuggingFaceConfig(**options)
    return open_layout(CASES / source, DatasetConfig(layout="huggingface", source=source, huggingface=section))


def label_counts(raw: RawData) -> dict[str, int]:
    return dict(sorted(Counter(label for item in raw.items for label in item.labels).items()))


EACH_LABEL = ("boat", "tree", "dog", "sun")


@pytest.mark.parametrize(
    ("source", "options", "expected"),
    [
        ("01-onehot-columns", {"table": "table.csv", "label_columns": EACH_LABEL}, LABELS),
        ("01-onehot-columns", {"table": "bool.csv", "label_columns": EACH_LABEL}, LABELS),
        ("02-hf-multihot/int", {"label_names": "names.txt"}, LABELS),
        ("03-pylist-labels", {"table": "table.csv"}, LABELS),
        ("09-windows-paths", {"table": "table.csv", "image_column": "file"}, LABELS),
        ("10-nfd-names", {"table": "table.csv"}, LABELS),
        ("13-csv-long-field", {"table": "table.csv"}, LABELS),
        ("13-csv-long-field", {"table": "extra.csv"}, LABELS),
        ("16-hf-test-only", {}, LABELS),
        ("17-hf-save-to-disk", {}, LABELS),
        *((f"18-hf-split-names/{name}", {}, LABELS) for name in "abc"),
        *(("24-parquet-types", {"table": f"{name}.parquet"}, LABELS) for name in ("largelist", "listdict", "listview")),
        ("24-parquet-types", {"table": "fixedlist.parquet"}, None),
        *(
            ("24-parquet-types", {"table": f"{name}.parquet"}, None)
            for name in ("binary", "dictionary", "stringview", "floatid")
        ),
        ("24-parquet-types", {"table": "nan.parquet"}, {"1": 20, "2": 20}),
        *(
            ("27-csv-quirks", {"table": name}, LABELS)
            for name in ("TABLE.CSV", "idspace.csv", "index.csv", "nul.csv", "semicolon.csv", "spaces.csv", "t.tsv")
        ),
        ("27-csv-quirks", {"table": "utf16.csv"}, LABELS),
    ],
)
def test_public_tables_have_their_labels_and_images(source, options, expected):
    raw = open_case(source, **options)
    counts = label_counts(raw)
    assert counts == expected if expected else set(counts) <= set(LABELS)
    if "floatid" not in str(options):  # its ids name no image
        assert all(raw.image(item) for item in raw.items)


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_splits_by_other_names_are_kept(name):
    raw = open_case(f"18-hf-split-names/{name}")
    sizes = Counter(item.split for item in raw.items)
    assert sizes == {"train": 40, "test": 20}, "eval is a name of test, as in the library datasets"


def test_saved_splits_are_kept():
    assert Counter(item.split for item in open_case("17-hf-save-to-disk").items) == {"train": 45, "test": 15}


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("01-onehot-columns", {"table": "table.csv", "label_columns": ("boat",)}, "holds only '0', '1', which name"),
        ("24-parquet-types", {"table": "boollabel.parquet"}, "holds only 'false', 'true', which name"),
        ("27-csv-quirks", {"table": "twice.csv"}, "has the column 'labels' twice"),
    ],
)
def test_what_is_wrong_is_one_clear_line(source, options, message):
    with pytest.raises(InputError, match=message):
        open_case(source, **options)


def test_labels_in_mixed_case_are_folded_where_asked_for(tmp_path, caplog):
    source = CASES / "27-csv-quirks"
    config = DatasetConfig(
        layout="folder", source=str(source), folder=FolderConfig(table="case.csv", images="images"), label_case="fold"
    )
    content = write(tmp_path, open_layout(source, config), config)
    assert sorted(name.casefold() for name in content["label_names"]) == sorted(LABELS)
    assert "case alone" not in caplog.text


def write(folder: Path, raw: RawData, config: DatasetConfig) -> dict:
    (folder / "out").mkdir()
    (folder / "work").mkdir()
    return write_dataset(folder / "out", raw, config, work=folder / "work")
