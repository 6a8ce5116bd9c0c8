import csv
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from dagnn_core.data.dataset import Dataset
from dagnn_core.errors import InputError
from pipeline.cli.data import app

ROOT = Path(__file__).parents[2]


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    (folder / "pictures").mkdir(parents=True)
    with (folder / "table.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["key", "caption", "kind", "colour", "part"])
        for i in range(10):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / "pictures" / f"{i}.png")
            part = ("train", "val", "test")[max(0, i - 7)]
            writer.writerow([i, f"caption {i}", "boat", "red" if i % 2 else "blue;dark", part])
    return folder


OPTIONS = [
    *("--table", "table.csv", "--images", "pictures", "--image-pattern", "{id}.png"),
    *("--id-column", "key", "--text-column", "caption"),
    *("--label-column", "kind", "--label-column", "colour", "--label-separator", ";", "--split-column", "part"),
]


def test_import_folder_by_options(source, tmp_path):
    assert invoke("import", "folder", source, tmp_path / "out", "--min-label-count", 4, *OPTIONS).exit_code == 0
    dataset = Dataset.read(tmp_path / "out", verify=True)
    assert dataset.label_names == ("blue", "boat", "dark", "red")
    assert dataset.artifact.content["splits"] == {"train": 8, "val": 1, "test": 1}


def test_import_folder_keeps_incomplete_items_where_asked_for(source, tmp_path):
    (source / "pictures" / "0.png").unlink()
    arguments = ("--min-label-count", 4, *OPTIONS)
    with pytest.raises(InputError, match="1 picture missing"):
        invoke("import", "folder", source, tmp_path / "out", *arguments)
    assert invoke("import", "folder", source, tmp_path / "out", "--incomplete", "keep", *arguments).exit_code == 0
    assert not Dataset.read(tmp_path / "out", verify=True).has_image[0]


def test_options_override_the_spec_file(source, tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "table: table.csv\nimages: pictures\nimage_pattern: '{id}.png'\nid_column: key\ntext_column: wrong\n"
        "label_columns: [kind, colour]\nlabel_separator: ''\nsplit_column: part\n"
    )
    invoke("import", "folder", source, tmp_path / "out", "--spec", spec, "--text-column", "caption")
    dataset = Dataset.read(tmp_path / "out", verify=True)
    assert dataset.label_names == ("blue;dark", "boat", "red")
    assert dataset.texts[0] == "caption 0"


def test_import_folder_wants_a_table(source, tmp_path):
    with pytest.raises(InputError, match=r"dataset\.folder\.table must be the name of a table file, got ''"):
        invoke("import", "folder", source, tmp_path / "out")


def test_demo_by_spec_file(tmp_path):
    spec = tmp_path / "scenes.yaml"
    spec.write_text("num_scenes: 300\n")
    arguments = ("--spec", spec, "--seed", 5, "--val-fraction", 0.3, "--test-fraction", 0.3)
    assert invoke("demo", tmp_path / "out", *arguments).exit_code == 0
    dataset = Dataset.read(tmp_path / "out", verify=True)
    assert len(dataset) == 300
    assert 60 < len(dataset.rows("val")) < 120
    assert dataset.artifact.provenance["params"]["DatasetConfig"]["seed"] == 5


def test_bad_input_is_one_line_and_status_2(source, tmp_path):
    code = "from components.command import run_command; from pipeline.cli.data import app; run_command(app)"
    arguments = ["import", "folder", str(source), str(tmp_path / "out"), *OPTIONS, "--text-column", "captions"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert "has no column 'captions' (dataset.folder.text_column), did you mean 'caption'?" in done.stderr
    assert not (tmp_path / "out").exists()


def test_help_imports_neither_torch_nor_pyarrow():
    code = (
        "import sys; import pipeline.cli.data; print(sorted({'torch', 'numpy', 'pyarrow', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
