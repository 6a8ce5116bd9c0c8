"""Artifacts: atomic writing, checked reading, digests of content alone."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagnn_core.artifacts import Artifact, manifest_digest_of, read_artifact, write_artifact, write_json
from dagnn_core.errors import ArtifactError, InputError
from tests.chaos.damage import EXTREME_JSON


def write(out: Path, files: dict[str, bytes], provenance: dict[str, str] | None = None) -> Artifact:
    with write_artifact(out, kind="dataset", provenance=provenance or {}) as draft:
        for name, content in files.items():
            (draft.path / name).parent.mkdir(exist_ok=True)
            (draft.path / name).write_bytes(content)
        draft.content["count"] = len(files)
    return read_artifact(out, "dataset", verify=True)


@settings(max_examples=30)  # of three artifacts each
@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8})?\.bin", fullmatch=True), st.binary(max_size=50)))
def test_round_trip_and_digest(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    base = tmp_path_factory.mktemp("artifacts")
    first = write(base / "a", files, {"step": "one"})
    assert {name: first.file(name).read_bytes() for name in first.files} == files
    assert first.content == {"count": len(files)} and first.provenance == {"step": "one"}
    second = write(base / "b", files, {"step": "two"})
    assert first.content_digest == second.content_digest, "provenance is not content"
    changed = write(base / "c", {**files, "extra.bin": b"x"})
    assert changed.content_digest != first.content_digest


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "artifact"
    before = write(out, {"a.bin": b"old"})
    for failure in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(failure), write_artifact(out, kind="dataset", provenance={}) as draft:
            (draft.path / "a.bin").write_bytes(b"half of the new")
            raise failure
        assert read_artifact(out, "dataset", verify=True) == before
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]
    write(out, {"a.bin": b"new"})
    assert (out / "a.bin").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def test_a_kill_leaves_no_artifact(tmp_path: Path) -> None:
    out = tmp_path / "artifact"
    code = (
        "import sys, time, pathlib\n"
        "from dagnn_core.artifacts import write_artifact\n"
        "with write_artifact(pathlib.Path(sys.argv[1]), kind='dataset', provenance={}) as draft:\n"
        "    (draft.path / 'a.bin').write_bytes(b'x')\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == b"writing\n"
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(ArtifactError, match="does not exist"):
        read_artifact(out, "dataset")


def seal(out: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest whose digest is right, as a person could who changes what it says."""
    write_json(out / "manifest.json", manifest | {"manifest_digest": manifest_digest_of(manifest)})


def as_version_2(out: Path, changes: dict[str, Any] | None = None) -> None:
    """Make the manifest one of the program before there was a digest of it."""
    record = json.loads((out / "manifest.json").read_text()) | {"schema_version": 2} | (changes or {})
    del record["manifest_digest"]
    write_json(out / "manifest.json", record)


def _change_digest(out: Path) -> None:
    record = json.loads((out / "manifest.json").read_text())
    seal(out, record | {"content_digest": "0" * 64})


@pytest.mark.parametrize(
    ("damage", "verify", "message"),
    [
        (lambda out: (out / "a.bin").unlink(), False, r"a.bin is missing, though its manifest lists it"),
        (lambda out: (out / "a.bin").write_bytes(b"longer"), False, r"a.bin has 6 bytes, expected 3"),
        (lambda out: (out / "a.bin").write_bytes(b"xyz"), True, r"a.bin does not have the checksum of its manifest"),
        (lambda out: (out / "manifest.json").write_text("{"), False, r"manifest.json is damaged"),
        (lambda out: (out / "manifest.json").write_text("[]"), False, r"manifest.json is damaged"),
        (_change_digest, True, r"manifest.json is damaged: content_digest is not that of its files"),
        (lambda out: (out / "manifest.json").unlink(), False, r"has no manifest.json"),
    ],
)
def test_damage_is_found_and_named(tmp_path: Path, damage: object, verify: bool, message: str) -> None:
    out = tmp_path / "artifact"
    write(out, {"a.bin": b"abc"})
    damage(out)  # type: ignore[operator]
    with pytest.raises(ArtifactError, match=message + r".*dvc repro"):
        read_artifact(out, "dataset", verify=verify)


def test_another_kind_or_schema_version_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "artifact"
    artifact = write(out, {"a.bin": b"abc"})
    with pytest.raises(ArtifactError, match="is a dataset artifact, expected a features artifact"):
        read_artifact(out, "features")
    with pytest.raises(ArtifactError, match=r"no file 'b.bin', expected one of a.bin"):
        artifact.file("b.bin")
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 99}))
    with pytest.raises(ArtifactError, match="schema version 99, but this program reads versions 2 and 3; rebuild"):
        read_artifact(out, "dataset")


def test_other_files_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds other files, which would be lost"):
        write(tmp_path, {"a.bin": b"abc"})
    with pytest.raises(InputError, match="is a file, expected a new folder"):
        write(tmp_path / "thesis.tex", {"a.bin": b"abc"})
    with write_artifact(tmp_path / "model", kind="model", provenance={}):
        pass
    with pytest.raises(InputError, match="holds a model artifact, which would be lost"):
        write(tmp_path / "model", {"a.bin": b"abc"})
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", {"a.bin": b"abc"})
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_file_is_called_a_file(tmp_path):
    (tmp_path / "dataset").write_text("x")
    with pytest.raises(ArtifactError, match="dataset is a file, expected a dataset artifact"):
        read_artifact(tmp_path / "dataset", "dataset")


RECORD = {"size": 3, "sha256": "0" * 64}
NOT_A_SHAPE = {
    "content": [
        [],
        "",
        *({key: value} for key in ("label_names", "splits", "num_items") for value in ("ab", [1], 1.5)),
    ],
    "files": [[], {"a.bin": 3}, {"../a.bin": RECORD}, {"/a.bin": RECORD}, {"x" * 300: RECORD}],
    "provenance": [[], *({key: 1} for key in ("ancestors", "origins", "git")), {"origins": {"raw": {"git": 1}}}],
    "kind": [1, None, {}],
    "content_digest": ["", "0", 7],
    "extra": [1],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in NOT_A_SHAPE.items() for value in values])
@pytest.mark.parametrize("write_manifest", [seal, as_version_2])
def test_a_manifest_of_another_shape_is_refused_and_its_key_named(tmp_path, key, value, write_manifest):
    out = tmp_path / "artifact"
    write(out, {"a.bin": b"abc"})
    record = json.loads((out / "manifest.json").read_text())
    if write_manifest is seal:
        seal(out, record | {key: value})
    else:
        as_version_2(out, {key: value})
    with pytest.raises(ArtifactError, match=rf"manifest.json is damaged \({key}.*dvc repro"):
        read_artifact(out, "dataset")


@pytest.mark.parametrize("text", [text for text in EXTREME_JSON if text not in ("{}", '{"": null}')])
def test_values_that_no_manifest_has(tmp_path, text):
    out = tmp_path / "artifact"
    write(out, {"a.bin": b"abc"})
    for old, new in (('"count": 1', f'"num_items": {text}'), (None, text)):
        whole = (out / "manifest.json").read_text()
        as_version_2(out)
        spoilt = (out / "manifest.json").read_text().replace(old, new) if old else new
        (out / "manifest.json").write_text(spoilt)
        if (old, text) == ('"count": 1', "0"):
            assert read_artifact(out, "dataset").content == {"num_items": 0}
        else:
            with pytest.raises(ArtifactError, match=r"manifest\.json is damaged"):
                read_artifact(out, "dataset")
        (out / "manifest.json").write_text(whole)


def test_a_flipped_bit_of_a_manifest_is_found_wherever_it_is(tmp_path):
    out = tmp_path / "artifact"
    before = write(out, {"a.bin": b"abc"}, {"step": "one"})
    manifest = out / "manifest.json"
    whole = manifest.read_bytes()
    for at in range(len(whole)):
        manifest.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            assert read_artifact(out, "dataset") == before, "white space alone says the same"
        except ArtifactError:
            continue


def test_an_artifact_of_the_program_before_is_read(tmp_path):
    out = tmp_path / "artifact"
    before = write(out, {"a.bin": b"abc"})
    as_version_2(out)
    assert read_artifact(out, "dataset", verify=True) == replace(before, manifest_digest=None)
    assert before.manifest_digest is not None


def test_a_digest_that_was_taken_away_is_missed(tmp_path):
    out = tmp_path / "artifact"
    write(out, {"a.bin": b"abc"})
    record = json.loads((out / "manifest.json").read_text())
    del record["manifest_digest"]
    write_json(out / "manifest.json", record)
    with pytest.raises(ArtifactError, match="manifest_digest is missing"):
        read_artifact(out, "dataset")
    write_json(out / "manifest.json", {**record, "schema_version": 2, "manifest_digest": "0" * 64})
    with pytest.raises(ArtifactError, match="manifest_digest is not that of what it says"):
        read_artifact(out, "dataset")
