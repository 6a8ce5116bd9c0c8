"""The lineage of versions in a real registry: read, traced, and written as commands."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.services.data_versions.raw_version import RawLineage
from components.services.lineage import tree as module
from components.services.lineage.locate import ArtifactLocator, Lookup, State
from components.services.lineage.reproduce import commands, compare, recorded_params
from components.services.lineage.tree import Node, Reference, find_raw, parse_reference, read_recorded, trace
from components.services.tracking.mlflow import Tracking
from components.services.tracking.tags import Lineage
from dagnn_core.artifacts import read_artifact, write_artifact, write_json
from dagnn_core.config.sections import SECTIONS
from dagnn_core.errors import ArtifactError, BackendError, InputError
from tests.fixtures.s3 import Bucket

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

MACHINE = {"processor": "x86_64", "device": "cpu", "threads": 2, "processes": 1}
IMAGE = f"registry.example/dagnn-gpu@sha256:{'a' * 64}"
RAW = asdict(RawLineage(md5="b" * 32 + ".dir", size=5, num_files=2))


def params_of(*sections: str, **changes: Any) -> dict[str, Any]:
    """The parameters of a record, as a manifest has them."""
    return {name: json.loads(json.dumps(asdict(SECTIONS[name]()))) | changes for name in sections}


def as_former(record: dict[str, Any]) -> dict[str, Any]:
    """The record as the code wrote it that named sections by their classes."""
    former = record | {"params": {SECTIONS[name].__name__: values for name, values in record["params"].items()}}
    return former | {"origins": {kind: as_former(origin) for kind, origin in record.get("origins", {}).items()}}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one commit, in which the commands run."""
    root = tmp_path / "project"
    (root / "configs").mkdir(parents=True)
    (root / "configs/demo_scenes.yaml").write_text("seed: 1\n")
    monkeypatch.chdir(root)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "Test"]):
        subprocess.run([*git, *command], check=True)
    return root


@pytest.fixture
def git(project: Path) -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    return {"commit": commit, "dirty": False, "changed": []}


@pytest.fixture
def provenance(git: dict[str, Any]) -> dict[str, Any]:
    """What the manifest of a model says that was trained in this project."""
    source = {"source": "configs/demo_scenes.yaml"}
    origins = {
        "dataset": {"params": params_of("dataset", **source), "git": git, "execution": {}},
        "features": {"params": params_of("features"), "git": git, "execution": {}},
        "label_graph": {"params": params_of("label_graph"), "git": git, "execution": {}},
    }
    return {
        "step": "train",
        "params": params_of("model") | params_of("train"),
        "ancestors": {"dataset": "d" * 64, "features": "f" * 64, "label_graph": "9" * 64},
        "origins": origins,
        "git": git,
        "execution": {"machine": MACHINE},
    }


@pytest.fixture
def add(tracking: Tracking, store_version: Callable[..., str]) -> Callable[..., str]:
    return lambda provenance, **tags: store_version(tracking, provenance=provenance, **tags)


def nodes(node: Node) -> dict[str, Node]:
    found = {node.kind: node}
    for child in node.children:
        found |= nodes(child)
    return found


def traced(tracking: Tracking, reference: str = "dagnn@challenger") -> dict[str, Node]:
    recorded = read_recorded(tracking, parse_reference(reference))
    return nodes(trace(tracking, recorded, ArtifactLocator(Path())))


# names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dagnn", Reference("dagnn", "champion")),
        ("dagnn@challenger", Reference("dagnn", "challenger")),
        ("dagnn/12", Reference("dagnn", "champion", "12")),
        ("models:/dagnn@champion", Reference("dagnn", "champion")),
        ("models:/dagnn/3", Reference("dagnn", "champion", "3")),
    ],
)
def test_names_of_versions(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected


@given(
    st.from_regex(r"[A-Za-z0-9_.-]{1,20}", fullmatch=True),
    st.from_regex(r"[a-z][a-z0-9_-]{0,20}", fullmatch=True),
    st.integers(min_value=1, max_value=10**6),
)
def test_a_reference_is_read_as_it_is_shown(name: str, alias: str, number: int) -> None:
    for reference in (Reference(name, alias), Reference(name, version=str(number))):
        assert parse_reference(str(reference)) == reference
        assert parse_reference(f"models:/{reference}") == reference


@given(st.text(max_size=30))
def test_any_text_is_a_reference_or_one_line(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InputError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert reference.name in text


def test_what_does_not_exist_says_what_does(tracking: Tracking, add: Callable[..., str]) -> None:
    missing = r"has no registered model 'dagnn' \(it has: none\); run `dagnn register` first"
    with pytest.raises(InputError, match=missing):
        read_recorded(tracking, Reference("dagnn"))
    add({})
    add({})
    exists = r"does not exist \(dagnn has versions 1, 2, aliases challenger: 2\); give one of these"
    for reference in (Reference("dagnn"), Reference("dagnn", "other"), Reference("dagnn", version="3")):
        with pytest.raises(InputError, match=exists):
            read_recorded(tracking, reference)
    with pytest.raises(InputError, match="the name of a registered model must consist of letters"):
        read_recorded(tracking, Reference("a b"))


# the tree


@pytest.mark.usefixtures("project")
def test_a_version_and_everything_before_it(
    tracking: Tracking, add: Callable[..., str], provenance: dict[str, Any], git: dict[str, Any]
) -> None:
    add(provenance, map_mean="0.5")
    tree = traced(tracking)
    assert tree["model version"].identity == "dagnn 1 (challenger)"
    assert tree["model version"].details["map_mean"] == "0.5"
    for kind in ("model version", "MLflow run", "git commit", "parameters", "raw data"):
        assert tree[kind].state is State.FOUND, tree[kind]
    assert tree["MLflow run"].details["status"] == "FINISHED"
    assert tree["git commit"].reason == "in main"
    assert tree["machine"].identity == "x86_64, cpu, 2 threads, 1 process"
    assert tree["parameters"].details == {"dataset.seed": "103", "features.seed": "103", "train.seed": "103"}
    assert tree["raw data"].reason == f"in git at {git['commit'][:12]}"
    assert {kind for kind, node in tree.items() if node.state is State.MISSING} == {
        *("features", "label graph", "data set"),
        "DVC revision",
    }
    assert "image" not in tree


@pytest.mark.usefixtures("project")
def test_a_version_of_a_pipeline(tracking: Tracking, add: Callable[..., str], provenance: dict[str, Any]) -> None:
    execution = {"image": IMAGE, "pipeline_run": "5e1f", "machine": MACHINE}
    for origin in provenance["origins"].values():
        origin["execution"] = execution
    raw = RAW | {"commit": "c0ffee", "repository": "https://git.example.org/p.git", "path": "data/photos"}
    provenance["origins"]["dataset"]["raw"] = raw
    provenance["ancestors"]["raw"] = raw["md5"]
    add(provenance | {"execution": execution})
    tree = traced(tracking)
    assert (tree["image"].identity, tree["image"].state) == (IMAGE, State.RECORDED)
    assert (tree["pipeline run"].identity, tree["pipeline run"].reason) == ("5e1f", "")
    assert tree["features"].reason == "not here, nor in DVC; where its pipeline run stored it is not recorded"
    assert tree["features"].state is State.UNKNOWN
    assert (tree["DVC revision"].identity, tree["DVC revision"].state) == ("c0ffee", State.RECORDED)
    assert tree["raw data"].identity == raw["md5"]
    assert tree["raw data"].details["path"] == "data/photos"


@pytest.mark.usefixtures("project")
def test_a_pipeline_run_names_the_mlflow_run_that_kubeflow_opened_for_it(
    tracking: Tracking, add: Callable[..., str], provenance: dict[str, Any]
) -> None:
    version = add(provenance | {"execution": {"pipeline_run": "5e1f"}})
    assert "mlflow_run" not in traced(tracking)["pipeline run"].details
    training = tracking.client.get_model_version("dagnn", version).run_id
    experiment = tracking.client.get_run(training).info.experiment_id
    tags = {"kfp.pipeline_run_id": "5e1f", "kfp.pipeline_run_url": "https://kubeflow.example.org/#/runs/details/5e1f"}
    parent = tracking.client.create_run(experiment, tags=tags).info.run_id
    found = traced(replace(tracking, experiment="another"))["pipeline run"].details
    assert found == {"mlflow_run": parent, "page": tags["kfp.pipeline_run_url"]}


@pytest.mark.usefixtures("project")
def test_artifacts_in_the_store_of_the_pipeline_run(
    *,
    tracking: Tracking,
    add: Callable[..., str],
    provenance: dict[str, Any],
    tmp_path: Path,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket.endpoint)
    with write_artifact(tmp_path / "stored", kind="features", provenance={}) as draft:
        write_json(draft.path / "image.json", [1, 2])
    for file in (tmp_path / "stored").iterdir():
        bucket.put(f"run/features_out/{file.name}", file.read_bytes())
    provenance["ancestors"]["features"] = read_artifact(tmp_path / "stored", "features").content_digest
    uris = {kind: f"{bucket.uri}/run/{kind}_out" for kind in ("raw", "dataset", "features", "model")}
    add(provenance | {"uris": uris}, report_uri=f"{bucket.uri}/run/report_out")
    tree = traced(tracking)
    assert (tree["features"].state, tree["features"].reason) == (State.FOUND, f"in {uris['features']}")
    assert tree["data set"].state is State.MISSING
    assert tree["data set"].reason.endswith(f"or its files are gone; {uris['dataset']} has no manifest.json")
    assert tree["label graph"].state is State.MISSING
    assert tree["raw data"].state is State.FOUND and "in git" in tree["raw data"].reason
    stored = {"stored_model": uris["model"], "stored_report": f"{bucket.uri}/run/report_out"}
    assert tree["pipeline run"].details == stored
    add(provenance | {"uris": uris}, features_uri=f"{bucket.uri}/later/features_out")
    assert f"{bucket.uri}/later/features_out has no manifest.json" in traced(tracking)["features"].reason


@pytest.mark.usefixtures("project")
def test_code_that_was_not_committed(tracking: Tracking, add: Callable[..., str], provenance: dict[str, Any]) -> None:
    dirty = provenance["git"] | {"dirty": True}
    add(provenance | {"git": dirty | {"changed": ["data/photos.dvc", "params.yaml"]}})
    assert traced(tracking)["git commit"].state is State.FOUND
    for git, reason in (
        (dirty | {"changed": ["components/steps/train.py"]}, "uncommitted changes of that time are not recorded: "),
        ({"commit": dirty["commit"], "dirty": True}, "the code had uncommitted changes, which are not recorded"),
        ({"commit": "unknown", "dirty": True, "changed": []}, "the code was in no git checkout"),
        (dirty | {"commit": "c0ffee" * 6 + "c0ff", "dirty": False}, "this checkout does not have it"),
    ):
        origins = {kind: origin | {"git": git} for kind, origin in provenance["origins"].items()}
        add(provenance | {"git": git, "origins": origins})
        node = traced(tracking)["git commit"]
        assert (node.state, node.reason.startswith(reason)) == (State.MISSING, True), node


@pytest.mark.usefixtures("project")
def test_features_of_another_commit_have_it(
    tracking: Tracking, add: Callable[..., str], provenance: dict[str, Any]
) -> None:
    provenance["origins"]["features"]["git"] = {"commit": "c0ffee", "dirty": False, "changed": []}
    add(provenance)
    tree = traced(tracking)
    assert [child.identity for child in tree["features"].children] == ["c0ffee"]
    assert tree["label graph"].children == ()


@pytest.mark.usefixtures("project")
def test_other_files_that_features_and_graph_were_made_from(
    tracking: Tracking, add: Callable[..., str], provenance: dict[str, Any]
) -> None:
    files = {"image_model": "owner/model", "image_revision": "abc", "text_vectors": "configs/demo_scenes.yaml"}
    provenance["origins"]["features"]["params"]["features"] |= files
    provenance["origins"]["label_graph"]["params"]["label_graph"]["embedding_file"] = "words.txt"
    add(provenance)
    tree = traced(tracking)
    states = {key: tree[key].state for key in ("image_model", "text_vectors", "embedding_file")}
    assert list(states.values()) == [State.RECORDED, State.FOUND, State.MISSING]


def test_a_deleted_run(tracking: Tracking, add: Callable[..., str], provenance: dict[str, Any], project: Path) -> None:
    add(provenance)
    tracking.client.delete_run(tracking.client.get_model_version("dagnn", "1").run_id)
    tree = traced(tracking)
    assert tree["MLflow run"].state is State.MISSING
    assert "was deleted" in tree["model version"].reason
    assert tree["parameters"].state is State.FOUND  # the files are still there


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("file", ["artifacts/model/manifest.json", "artifacts/model/config.json"])
def test_lost_files(
    tracking: Tracking,
    add: Callable[..., str],
    files_of: Callable[..., Path],
    provenance: dict[str, Any],
    file: str,
) -> None:
    add(
        provenance,
        git_commit=provenance["git"]["commit"],
        git_dirty="false",
        pipeline_run="local/1",
        features_digest="f",
    )
    (files_of(tracking, "1") / file).unlink()
    tree = traced(tracking)
    assert tree["model version"].reason == f"has lost its files: {file} is missing in its store"
    lost = file.endswith("manifest.json")
    assert tree["parameters"].state is (State.MISSING if lost else State.FOUND)
    assert tree["git commit"].state is State.FOUND
    if lost:  # the tags remain
        assert tree["pipeline run"].identity == "local/1"
        assert tree["features"].identity == "f"
        assert tree["raw data"].reason == "neither its version nor its place is recorded"


def test_a_version_that_former_code_registered(
    tracking: Tracking, add: Callable[..., str], provenance: dict[str, Any], project: Path
) -> None:
    former = as_former(provenance)
    assert set(former["params"]) == {"ModelConfig", "TrainConfig"}
    assert set(former["origins"]["dataset"]["params"]) == {"DatasetConfig"}
    tags = Lineage(digests=provenance["ancestors"], git=provenance["git"], execution={"image": IMAGE}).tags()
    assert [add(former, **tags), add(provenance, **tags)] == ["1", "2"]
    old, new = (read_recorded(tracking, parse_reference(f"dagnn/{number}")) for number in (1, 2))
    assert old.sections == new.sections
    assert list(old.sections) == ["dataset", "features", "label_graph", "model", "train"]
    assert recorded_params(old) == recorded_params(new)
    assert commands(old, find_raw(old, ArtifactLocator(project)))[1:] != []
    tree = traced(tracking, "dagnn/1")
    assert tree["parameters"].state is tree["git commit"].state is State.FOUND
    assert tree["image"].identity == IMAGE


@pytest.mark.usefixtures("project")
def test_a_version_without_any_record(tracking: Tracking, add: Callable[..., str]) -> None:
    add({})
    states = {kind: node.state for kind, node in traced(tracking).items()}
    assert states.pop("model version") is states.pop("MLflow run") is State.FOUND
    assert states.pop("pipeline run") is State.RECORDED
    assert states.pop("data set") is State.MISSING  # its digest is among the tags
    assert set(states.values()) == {State.MISSING}


@pytest.mark.usefixtures("project")
def test_a_store_that_cannot_be_reached_is_unknown(
    tracking: Tracking, add: Callable[..., str], provenance: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(provenance)

    def refuse(*_: object) -> None:
        raise RuntimeError("the store\ndoes not answer")

    monkeypatch.setattr(module, "find_fault", refuse)
    node = traced(tracking)["model version"]
    assert (node.state, node.reason) == (
        State.UNKNOWN,
        "its files cannot be looked for: the store does not answer",
    )


def test_a_server_that_is_lost_after_the_first_answer(
    tracking: Tracking, add: Callable[..., str], provenance: dict[str, Any], project: Path
) -> None:
    add(provenance)
    recorded = read_recorded(tracking, Reference("dagnn", "challenger"))
    gone = Tracking(uri=f"sqlite:///{project}/configs/demo_scenes.yaml")
    tree = nodes(trace(gone, recorded, ArtifactLocator(Path())))
    assert tree["MLflow run"].state is State.UNKNOWN
    assert tree["git commit"].state is State.FOUND
    with pytest.raises(BackendError):
        read_recorded(gone, Reference("dagnn"))


# making it again


@pytest.mark.usefixtures("project")
def test_commands(tracking: Tracking, add: Callable[..., str], provenance: dict[str, Any], git: dict[str, Any]) -> None:
    add(provenance)
    recorded = read_recorded(tracking, Reference("dagnn", "challenger"))
    environment = 'PATH="$PWD/.venv/bin:$PATH" MLFLOW_TRACKING_URI=sqlite:///mlflow.db OMP_NUM_THREADS=2'
    assert commands(recorded, find_raw(recorded, ArtifactLocator(Path()))) == [
        "# metrics are the same on the same kind of machine: x86_64, cpu, 2 threads, 1 process",
        f"git worktree add --detach ../dagnn-1 {git['commit']}",
        "dagnn lineage dagnn/1 --show-params > ../dagnn-1/params.yaml",
        "make -C ../dagnn-1 setup",
        f"(cd ../dagnn-1 && {environment} dvc repro --force)",
        "dagnn lineage dagnn/1 --compare ../dagnn-1/artifacts",
    ]


@pytest.mark.usefixtures("project")
def test_commands_for_raw_data(tracking: Tracking, add: Callable[..., str], provenance: dict[str, Any]) -> None:
    provenance["ancestors"]["raw"] = RAW["md5"]
    provenance["origins"]["dataset"] |= {"raw": RAW | {"remote": "s3://bucket/dvc", "path": "data/photos"}}
    provenance["origins"]["dataset"]["params"]["dataset"]["source"] = "/tmp/task/raw"
    add(provenance)
    recorded = read_recorded(tracking, Reference("dagnn", "challenger"))
    tracked = Lookup(State.FOUND, "in DVC's cache", "c0ffee", "data/my photos")
    assert "dvc get . 'data/my photos' --rev c0ffee --out ../dagnn-1/data/photos" in commands(recorded, tracked)
    lost = Lookup(State.MISSING, "the cache lacks it", "c0ffee", "data/photos")
    fetch = f"dagnn data fetch ../dagnn-1/data/photos --md5 {RAW['md5']} --remote s3://bucket/dvc"
    assert fetch in commands(recorded, lost)
    assert recorded_params(recorded)["dataset"]["source"] == "data/photos"
    del provenance["origins"]["dataset"]["raw"]["remote"]
    nowhere = replace(recorded, provenance=provenance)
    assert any(line.startswith(f"# the raw data {RAW['md5']} is not to be had") for line in commands(nowhere, lost))


@pytest.mark.usefixtures("project")
def test_remarks_say_what_may_differ(tracking: Tracking, add: Callable[..., str], provenance: dict[str, Any]) -> None:
    add(provenance)
    recorded = read_recorded(tracking, Reference("dagnn", "challenger"))
    found = Lookup(State.FOUND, "")

    def first_remark(**changes: Any) -> str:
        return commands(replace(recorded, provenance=provenance | changes), found)[0]

    gpu = {"machine": MACHINE | {"device": "NVIDIA H100"}, "image": IMAGE}
    assert first_remark(execution=gpu) == (
        "# trained on NVIDIA H100 without train.deterministic: metrics may differ in the last digits"
    )
    two = {"machine": MACHINE | {"processes": 2}}
    assert first_remark(execution=two) == "# trained by 2 processes: metrics of one differ in the last digits"
    deterministic = provenance["params"] | {"train": {"deterministic": True}}
    assert first_remark(execution=gpu, params=deterministic).startswith("# metrics are the same on the same kind")
    assert first_remark(execution={}).endswith("is not recorded: metrics may differ in the last digits")
    submit = f"dagnn submit --image {IMAGE} --params ../dagnn-1/params.yaml"
    of_image = replace(recorded, provenance=provenance | {"execution": gpu})
    assert commands(of_image, found)[-1] == submit
    in_dvc = Lookup(State.FOUND, "", "c0ffee", "data/photos")
    assert commands(of_image, in_dvc)[-1] == f"{submit} --data data/photos --revision c0ffee"
    dirty = provenance["git"] | {"dirty": True, "changed": ["components/steps/train.py", "params.yaml"]}
    remarks = [
        line for line in commands(replace(recorded, provenance=provenance | {"git": dirty}), found) if line[0] == "#"
    ]
    assert remarks[-1] == "# warning: changed then and not committed, so lost: components/steps/train.py"


@pytest.mark.usefixtures("project")
def test_without_a_record_nothing_can_be_made_again(
    tracking: Tracking, add: Callable[..., str], provenance: dict[str, Any]
) -> None:
    add({})
    recorded = read_recorded(tracking, Reference("dagnn", "challenger"))
    with pytest.raises(InputError, match=r"dagnn/1 does not record its parameters \(dataset, features, label_graph, "):
        commands(recorded, Lookup(State.MISSING, ""))
    no_git = replace(recorded, provenance=provenance | {"git": {"commit": "unknown", "dirty": True}})
    with pytest.raises(InputError, match="dagnn/1 was made by code in no git checkout"):
        commands(no_git, Lookup(State.MISSING, ""))


def test_comparison(
    tracking: Tracking, add: Callable[..., str], provenance: dict[str, Any], tmp_path: Path, project: Path
) -> None:
    add(provenance, map_mean="0.5", map_i2t="0.25")
    recorded = read_recorded(tracking, Reference("dagnn", "challenger"))
    with pytest.raises(ArtifactError, match="does not exist, expected a model artifact"):
        compare(recorded, tmp_path)
    for kind, name in (("model", "model.json"), ("report", "metrics.json")):
        with write_artifact(tmp_path / kind, kind=kind, provenance={}) as draft:
            write_json(draft.path / name, {"map_mean": 0.5, "map_i2t": 0.2500000000000001})
    rows = {row.name: row for row in compare(recorded, tmp_path)}
    assert list(rows) == ["dataset", "label_graph", "features", "model", "map_i2t", "map_mean"]
    assert [name for name, row in rows.items() if row.same] == ["map_mean"]
    assert rows["features"] == ("features", "f" * 64, "")
