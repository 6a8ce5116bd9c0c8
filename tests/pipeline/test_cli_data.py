import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from dagnn_core.data.dataset import Dataset
from dagnn_core.errors import CheckFailedError, InputError
from pipeline.cli.data import app
from tests.fixtures import forked

ROOT = Path(__file__).parents[2]


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def status_of(*arguments):
    """Exit status and standard error of the command in a process of its own."""
    code = "from components.command import run_command; from pipeline.cli.data import app; run_command(app)"
    done = forked.run_code(code, *arguments)
    return done.returncode, done.stderr


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    (folder / "images").mkdir(parents=True)
    with (folder / "table.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["key", "caption", "kind", "colour", "part"])
        for i in range(10):
            Image.new("RGB", (8, 8), (25 * i, 0, 0)).save(folder / "images" / f"{i}.png")
            part = ("train", "val", "test")[max(0, i - 7)]
            writer.writerow([i, f"caption {i}", "boat" if i < 9 else "", "red" if i % 2 else "blue;dark", part])
    return folder


OPTIONS = [
    *("--table", "table.csv", "--images", "images", "--image-pattern", "{id}.png"),
    *("--id-column", "key", "--text-column", "caption"),
    *("--label-column", "kind", "--label-column", "colour", "--label-separator", ";", "--split-column", "part"),
]


def test_import_folder_by_options(source, tmp_path):
    assert invoke("import", "folder", source, tmp_path / "out", "--min-label-count", 4, *OPTIONS).exit_code == 0
    dataset = Dataset.read(tmp_path / "out", verify=True)
    assert dataset.label_names == ("blue", "boat", "dark", "red")
    assert dataset.artifact.content["splits"] == {"train": 8, "val": 1, "test": 1}


def test_import_folder_keeps_incomplete_items_where_asked_for(source, tmp_path):
    (source / "images" / "0.png").unlink()
    arguments = ("--min-label-count", 4, *OPTIONS)
    with pytest.raises(InputError, match="1 image missing"):
        invoke("import", "folder", source, tmp_path / "out", *arguments)
    assert invoke("import", "folder", source, tmp_path / "out", "--incomplete", "keep", *arguments).exit_code == 0
    assert not Dataset.read(tmp_path / "out", verify=True).has_image[0]


@pytest.mark.parametrize("store", ["source/blobs", "elsewhere"])
def test_import_follows_links_within_the_source_and_into_stores(source, tmp_path, store):
    """In the source under any name; elsewhere under their digest, as DVC and the hub keep files."""
    for number, path in enumerate(sorted(source.rglob("*.*"))):
        name = f"b{number}" if store == "source/blobs" else hashlib.sha256(path.read_bytes()).hexdigest()
        kept = tmp_path / store / name
        kept.parent.mkdir(exist_ok=True)
        path.rename(kept)
        path.symlink_to(os.path.relpath(kept, path.parent))
    assert invoke("import", "folder", source, tmp_path / "out", "--min-label-count", 4, *OPTIONS).exit_code == 0
    assert len(Dataset.read(tmp_path / "out", verify=True)) == 10


def test_import_refuses_links_that_lead_out(source, tmp_path):
    (source / "images" / "0.png").rename(tmp_path / "0.png")
    (source / "images" / "0.png").symlink_to(tmp_path / "0.png")
    for incomplete in ("reject", "keep"):
        with pytest.raises(
            InputError, match=r"1 image path leaves .*0\.png is a link that leads out of .*source, to .*put"
        ):
            invoke("import", "folder", source, tmp_path / "out", "--incomplete", incomplete, *OPTIONS)
    assert invoke("import", "folder", source, tmp_path / "out", "--max-rejected", 0.2, "--min-label-count", 1, *OPTIONS)
    rejected = pq.read_table(tmp_path / "out/rejected.parquet").to_pylist()
    assert [(row["id"], row["reason"]) for row in rejected] == [("0", "image path leaves the folder")]


def test_tables_archives_and_vectors_may_be_links(source, tmp_path):
    """The user names them, so they may lie anywhere, as large archives do."""
    (tmp_path / "elsewhere").mkdir()
    with tarfile.open(tmp_path / "elsewhere" / "images.tar", "w") as tar:
        tar.add(source / "images", ".")
    shutil.rmtree(source / "images")
    vectors = np.arange(20, dtype=np.float32).reshape(10, 2)
    np.savez(tmp_path / "elsewhere" / "vectors.npz", ids=[str(i) for i in range(10)], features=vectors)
    (source / "table.csv").rename(tmp_path / "elsewhere" / "table.csv")
    for name in ("images.tar", "vectors.npz", "table.csv"):
        (source / name).symlink_to(tmp_path / "elsewhere" / name)
    arguments = ("--min-label-count", 4, "--text-vectors", "vectors.npz", *OPTIONS)
    assert invoke("import", "folder", source, tmp_path / "out", *arguments).exit_code == 0
    assert len(Dataset.read(tmp_path / "out", verify=True)) == 10


def test_options_override_the_spec_file(source, tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "table: table.csv\nimages: images\nimage_pattern: '{id}.png'\nid_column: key\ntext_column: wrong\n"
        "label_columns: [kind, colour]\nlabel_separator: ''\nsplit_column: part\n"
    )
    invoke("import", "folder", source, tmp_path / "out", "--spec", spec, "--text-column", "caption")
    dataset = Dataset.read(tmp_path / "out", verify=True)
    assert dataset.label_names == ("blue;dark", "boat", "red")
    assert dataset.texts[0] == "caption 0"


def test_import_folder_wants_a_table(source, tmp_path):
    with pytest.raises(InputError, match=r"dataset\.folder\.table must be the name of a table file, got ''"):
        invoke("import", "folder", source, tmp_path / "out")


@pytest.mark.slow
def test_demo_by_spec_file(tmp_path):
    spec = tmp_path / "scenes.yaml"
    spec.write_text("num_scenes: 300\n")
    arguments = ("--spec", spec, "--seed", 5, "--val-fraction", 0.3, "--test-fraction", 0.3)
    assert invoke("demo", tmp_path / "out", *arguments).exit_code == 0
    dataset = Dataset.read(tmp_path / "out", verify=True)
    assert len(dataset) == 300
    assert 60 < len(dataset.rows("val")) < 120
    assert dataset.artifact.provenance["params"]["dataset"]["seed"] == 5


def test_bad_input_is_one_line_and_status_2(source, tmp_path):
    status, error = status_of("import", "folder", source, tmp_path / "out", *OPTIONS, "--text-column", "captions")
    assert status == 2
    assert error.count("\n") == 1
    assert error.startswith("error: ")
    assert "has no column 'captions' (dataset.folder.text_column), did you mean 'caption'?" in error
    assert not (tmp_path / "out").exists()


def test_add_prints_what_to_commit_and_what_to_set(source, tmp_path, monkeypatch):
    for command in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    printed = invoke("add", "photos", source).stdout
    assert re.match(r"data/photos: 11 files, 0\.0 MB, [0-9a-f]{32}\.dir\n", printed)
    for line in ("git add data/photos.dvc data/.gitignore", "dvc push", "-S dataset.source=data/photos"):
        assert line in printed
    assert (tmp_path / "data/photos/table.csv").read_bytes() == (source / "table.csv").read_bytes()
    with pytest.raises(InputError, match="'a/b' cannot be the name of a data set"):
        invoke("add", "a/b", source)


def test_fetch_by_digest(bucket, tmp_path):
    bucket.put("dvc/files/md5/5d/41402abc4b2a76b9719d911017c592", b"hello")
    arguments = [
        "--md5",
        "5d41402abc4b2a76b9719d911017c592",
        "--remote",
        f"{bucket.uri}/dvc",
        "--path",
        "data/hello.txt",
    ]
    assert invoke("fetch", tmp_path / "out", *arguments, "--endpoint-url", bucket.endpoint).exit_code == 0
    assert (tmp_path / "out/hello.txt").read_text() == "hello"
    with pytest.raises(InputError, match="expected an md5 and a remote, or a repository, a revision and a path"):
        invoke("fetch", tmp_path / "other", "--revision", "main")


def test_help_imports_nothing_heavy():
    code = (
        "import sys; import pipeline.cli.data;"
        "print(sorted({'torch', 'numpy', 'pyarrow', 'PIL', 'boto3', 'dvc'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def imported(source, tmp_path):
    out = tmp_path / "imported"
    invoke("import", "folder", source, out, *OPTIONS)
    return out


def test_check_prints_a_table(imported):
    done = invoke("check", imported, "--min-label-count", 1)
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0].split() == ["verdict", "check", "value", "limit"]
    assert len({line.index(line.split()[1]) for line in lines}) == 1, "the columns are aligned"
    assert all(line.startswith("ok ") for line in lines[1:])


def test_check_explains_what_is_not_ok_in_lines_of_100(imported):
    done = invoke("check", imported, "--min-label-count", 5)
    assert done.exit_code == 0, "a warning does not fail"
    assert "warning  rare_labels" in done.output
    assert "labels on fewer than 5 training items; collect more" in done.output
    assert max(map(len, done.output.splitlines())) <= 100


def test_check_as_json(imported):
    done = invoke("check", imported, "--json", "--min-label-count", 1)
    assert done.exit_code == 0
    answer = json.loads(done.stdout)
    assert answer["dataset"] == str(imported) and answer["against"] is None
    assert len(answer["findings"]) > 10
    assert all(
        list(finding) == ["name", "value", "limit", "verdict", "explanation", "examples"]
        for finding in answer["findings"]
    )
    assert {finding["verdict"] for finding in answer["findings"]} == {"ok"}


def test_a_failed_check_is_status_1_and_the_findings_are_printed_all_the_same(imported):
    with pytest.raises(CheckFailedError, match=r"imported: 1 of \d+ checks failed: shared_images"):
        invoke("check", imported, "--against", imported)
    status, error = status_of("check", imported, "--against", imported, "--json")
    assert status == 1
    assert error.count("\n") == 1 and "checks failed: shared_images" in error
    status, error = status_of("check", imported, "--against", imported, "--max-leaked-images", 1)
    assert (status, error) == (0, "")


def test_check_of_what_is_no_data_set_is_status_2(imported, tmp_path):
    for arguments in ((tmp_path / "none",), (imported, "--against", tmp_path / "none")):
        status, error = status_of("check", *arguments)
        assert status == 2
        assert error.count("\n") == 1 and "none does not exist, expected a dataset artifact" in error
    shard = imported / "data-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-1] + b"X")
    status, error = status_of("check", imported)
    assert status == 2 and "data-00000.parquet does not have the checksum of its manifest" in error


def test_check_refuses_limits_out_of_range(imported):
    for option in ("--max-leaked-images", "--near-distance"):
        assert invoke("check", imported, option, -1).exit_code == 2
