"""`dagnn retrain` on this machine: real data under DVC, a real registry, the real gate; killed anywhere, it resumes."""

import csv
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from components.services.data_versions.adding import add
from components.services.promotion import evidence
from components.services.promotion.gate import LoadTest
from components.services.promotion.promotion import read_history
from components.services.storage.s3 import Storage
from components.services.tracking.mlflow import Tracking
from components.steps import fetch_dataset
from tests.components.services.data_versions.conftest import kill_at
from tests.fixtures import forked
from tests.fixtures.mlflow_server import mlflow_server
from tests.fixtures.shared import made_once
from tests.fixtures.webhook import Webhook
from tests.pipeline.conftest import CommandLine, Ended

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 40, 210)}
LOADED = LoadTest(served_difference=0.0, latency_p50_ms=1.0, latency_p95_ms=2.0, peak_memory_mib=500.0)
"""What a load test could say: a fresh process takes seconds."""
PARAMS = """
dataset: {layout: folder, source: data/photos, min_label_count: 1, folder: {table: table.csv, images: images.tar,
  image_pattern: "{id}.png", split_column: split}}
features: {image: classic, min_word_count: 1}
model: {kind: ridge, embedding_dim: 8}
evaluate: {num_queries: 1, num_retrieved: 1}
register: {data_licence: none, gate: {max_drop_i2t: 0.9, max_drop_t2i: 0.9, max_slice_drop: 0.9}}
"""
SPARE_LOAD_TEST = """
import components.services.promotion.evidence as evidence
evidence.load_test = lambda *_: evidence.LoadTest(0.0, 1.0, 2.0, 500.0)
"""
RETRAIN = ("retrain", "--data", "data/photos", "--revision", "main")


def git(*arguments: str, cwd: Path) -> str:
    names = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    done = subprocess.run(["git", *names, *arguments], cwd=cwd, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def write_source(folder: Path, count: int, *, dark: bool = False) -> Path:
    """Images in the colours that their labels name; more of them are the same ones and others."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with (folder / "table.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "text", "labels", "split"])
        for number in range(count):
            rng = np.random.default_rng(number)
            names = [name for name in COLOURS if rng.random() < 0.4] or ["red"]
            shade = np.mean([COLOURS[name] for name in names], axis=0) + rng.normal(0, 30, (16, 16, 3))
            pixels = (shade * (0.1 if dark else 1.0)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
            split = ("train", "train", "train", "val", "test")[number % 5]
            writer.writerow([number, f"something {' and '.join(names)}", "|".join(names), split])
    return folder


def add_version(project: Path, source: Path, count: int, **options: Any) -> str:
    """Make a new revision of the data; return its commit."""
    add("photos", str(write_source(source, count, **options)), project=project, storage=Storage())
    git("add", "--all", cwd=project)
    git("commit", "--quiet", "--message", f"{count} photos", cwd=project)
    return git("rev-parse", "HEAD", cwd=project)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """A project with a first revision of its data."""

    def make(folder: Path) -> None:
        project = folder / "project"
        project.mkdir()
        git("init", "--quiet", "--initial-branch", "main", cwd=project)
        done = forked.run("dvc", "init", "--quiet", cwd=project)
        assert done.returncode == 0, done.stderr
        (project / ".gitignore").write_text(".dagnn/\nmlflow.db\nmlartifacts/\n")
        (project / "params.yaml").write_text(PARAMS)
        shutil.copy(empty_database, project / "mlflow.db")
        add_version(project, folder / "source", 120)

    return made_once(tmp_path_factory, "retraining", make) / "project"


class Project(NamedTuple):
    root: Path
    run: Callable[..., Ended]
    """Run `dagnn`."""
    source: Path
    tracking: Tracking

    def retrain(self, *options: str) -> dict[str, Any]:
        """A retraining that succeeds, as JSON."""
        done = self.run([*RETRAIN, "--json", *options])
        assert done.status == 0, done.err
        return json.loads(done.out)  # type: ignore[no-any-return]

    @property
    def versions(self) -> list[Any]:
        return list(self.tracking.client.search_model_versions("name = 'dagnn'"))

    @property
    def events(self) -> list[tuple[str, str | None]]:
        return [(event.what, event.target) for event in read_history(self.tracking, name="dagnn").events]

    @property
    def left(self) -> list[str]:
        """What is left of retrainings."""
        return sorted(path.name for path in (self.root / ".dagnn/retrain").glob("*"))


@pytest.fixture
def project(
    template: Path, in_project: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Project]:
    root = tmp_path / "work" / "project"
    shutil.copytree(template, root, symlinks=True)
    monkeypatch.chdir(root)
    monkeypatch.setenv("DAGNN_GIT_COMMIT", "c0ffee" * 6 + "c0de")  # committed, whatever the state of this checkout
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")  # MLflow keeps relative ones open
    monkeypatch.setattr(evidence, "load_test", lambda stored, queries: LOADED)
    yield Project(root, in_project, tmp_path / "source", Tracking(uri=f"sqlite:///{root}/mlflow.db"))
    logging.getLogger("components").setLevel(logging.NOTSET)


def test_the_first_data_is_trained_on_once(project: Project) -> None:
    done = project.retrain()
    assert (done["outcome"], done["name"], done["version"]) == ("registered", "dagnn", "1")
    assert done["commit"] == git("rev-parse", "HEAD", cwd=project.root)
    (alone,) = done["comparison"]
    assert alone["data"] == "new data" and alone["challenger"]["map_mean"] > 0.6 and alone["champion"] == {}
    (version,) = project.versions
    assert version.tags["raw_digest"] == done["md5"] and version.tags["raw_path"] == "data/photos"
    assert project.left == []
    again = project.run([*RETRAIN])
    assert again.status == 0
    assert again.out == f"nothing new: dagnn version 1 was trained on this data, {done['md5']}\n"
    assert len(project.versions) == 1 and project.events == []


@pytest.mark.slow
def test_other_data_that_gives_an_equal_model_is_trained_on_once(project: Project) -> None:
    project.retrain()
    source = write_source(project.source, 120)
    shutil.copy(source / "images" / "0.png", source / "images" / "of_no_row.png")
    add("photos", str(source), project=project.root, storage=Storage())
    git("commit", "--quiet", "--all", "--message", "an image that no row has", cwd=project.root)
    done = project.retrain()
    assert (done["outcome"], done["version"]) == ("registered", "1")
    again = project.retrain()
    assert (again["outcome"], again["version"], again["md5"]) == ("nothing new", "1", done["md5"])
    (version,) = project.versions
    assert version.tags["raw_digest"] != done["md5"], "the version says what it was made from"


@pytest.mark.slow
def test_new_data_is_compared_on_both_test_splits_and_promoted(project: Project) -> None:
    first = project.retrain("--promote")
    assert first["outcome"] == "promoted", first["reason"]
    assert "made of the raw data" in first["reason"] and project.events == [("promoted", "1")]
    assert project.retrain("--promote")["outcome"] == "nothing new"
    add_version(project.root, project.source, 180)
    second = project.retrain("--promote")
    assert (second["outcome"], second["version"]) == ("promoted", "2"), second["reason"]
    new, old = second["comparison"]
    assert (new["data"], new["num_items"], old["data"], old["num_items"]) == ("new data", 36, "champion's data", 24)
    for entry in (new, old):
        assert 0.5 < entry["champion"]["map_mean"] <= 1 and 0.5 < entry["challenger"]["map_mean"] <= 1
        for direction, found in entry["differences"].items():
            difference = entry["challenger"][f"map_{direction}"] - entry["champion"][f"map_{direction}"]
            assert found["low"] <= found["mean"] <= found["high"]
            assert found["mean"] == pytest.approx(difference, abs=1e-6)
    assert project.events == [("promoted", "1"), ("promoted", "2")]
    run = project.tracking.client.get_model_version("dagnn", "2").run_id
    files = project.tracking.client.list_artifacts(run, "comparison")
    assert [file.path for file in files] == ["comparison/comparison.json"]
    done = project.run([*RETRAIN, "--promote"])
    assert done.status == 0 and "nothing new: dagnn version 2 was trained on this data" in done.out
    assert "promoted: retrained on data/photos at main" in done.out
    # going back to a revision that was trained on before is nothing new either
    assert project.run([*RETRAIN[:-1], "main~1"]).out.startswith("nothing new: dagnn version 1 was trained on")


@pytest.mark.slow
def test_a_promotion_that_was_not_asked_for_can_follow_and_a_refusal_is_kept(
    project: Project, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook.reset()
    monkeypatch.setenv("DAGNN_WEBHOOK_URL", webhook.url)
    assert project.retrain()["outcome"] == "registered"
    assert project.retrain("--promote")["outcome"] == "promoted"
    assert [content["event"] for _, content in webhook.got] == ["promoted"]
    strict = PARAMS.replace("gate: {", "gate: {max_latency_ms: 0.001, ")
    (project.root / "params.yaml").write_text(strict)
    add_version(project.root, project.source, 130)
    done = project.run([*RETRAIN, "--promote"])
    assert done.status == 1 and "dagnn version 2 is not promoted: " in done.err, done.err
    assert [content["event"] for _, content in webhook.got] == ["promoted", "refused"]
    done = project.run([*RETRAIN, "--promote"])
    assert done.status == 0 and "nothing new" in done.out and "(refused: retrained on data/photos" in done.out
    assert project.events == [("promoted", "1"), ("refused", "2")] and project.left == []


@pytest.mark.slow
def test_data_that_fails_its_check_is_not_trained_on(
    project: Project, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.retrain("--promote")
    webhook.reset()
    monkeypatch.setenv("DAGNN_WEBHOOK_URL", webhook.url)
    shutil.rmtree(project.source, ignore_errors=True)
    add_version(project.root, project.source, 120, dark=True)
    for _ in range(2):
        done = project.run([*RETRAIN, "--promote"])
        assert done.status == 1
        assert done.err.splitlines()[-1].startswith(
            "error: data/photos at main fails its check, so nothing is trained: image_brightness_shift 1 against 0.1, "
        )
        assert done.err.endswith("; look at the data, and accept that it differs with --accept-drift\n")
    assert len(project.versions) == 1
    assert [content["event"] for _, content in webhook.got] == ["refused"] * 2
    done = project.run([*RETRAIN, "--accept-drift"])
    assert done.status == 0 and "which is accepted: image_brightness_shift" in done.err
    assert len(project.versions) == 2 and project.left == []


@pytest.mark.slow
def test_the_champions_data_is_made_again_where_it_is_gone(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.retrain("--promote")
    (kept,) = (project.root / ".dagnn/datasets").iterdir()
    elsewhere = shutil.move(kept, project.root.parent / "kept")
    add_version(project.root, project.source, 140)
    done = project.run([*RETRAIN])
    assert done.status == 0 and "making its data set again" in done.err
    assert kept.is_dir() and "champion's data" in done.out
    # and where that is not possible, the user can name it
    project.tracking.client.set_registered_model_alias("dagnn", "champion", "1")
    shutil.rmtree(kept)
    add_version(project.root, project.source, 150)
    monkeypatch.setattr("pipeline.retraining._rebuild", lambda *_: None)
    done = project.run([*RETRAIN])
    assert done.status == 2
    assert done.err.endswith("give the folder of the champion's data set as --against\n"), done.err
    assert project.run([*RETRAIN, "--against", str(elsewhere)]).status == 0
    assert len(project.versions) == 3


@pytest.mark.slow
def test_a_second_start_beside_the_first_ends(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def fetch(**arguments: Any) -> None:
        started.append(forked.run("pipeline.cli.main", *RETRAIN, cwd=project.root))
        original(**arguments)

    original = fetch_dataset.run
    monkeypatch.setattr(fetch_dataset, "run", fetch)
    assert project.retrain()["outcome"] == "registered"
    (second,) = started
    assert second.returncode == 0, second.stderr
    assert second.stdout.startswith("under way: .dagnn/retrain/")
    assert "another process retrains on this revision (process " in second.stdout
    assert len(project.versions) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    [
        "components.steps.fetch_dataset:fetch_by_dvc after 1",
        "components.steps.dataset:write_dataset after 1",
        "components.steps.check_data:check_dataset before 1",
        "pipeline.retraining:_check after 1",
        "components.steps.extract_features:write_features after 1",
        "components.steps.train:write_model before 1",
        "components.steps.evaluate:write_report after 1",
        "pipeline.retraining:_compare before 1",
        "components.services.registry.versions:add_version before 1",
        "components.services.registry.versions:add_version after 1",
        "components.services.promotion.side_by_side:score after 1",
        "components.services.promotion.evidence:score before 1",
        "components.services.promotion.ledger:Ledger.append before 1",
        "components.services.promotion.ledger:Ledger.append after 1",
        "pipeline.retraining:_keep_dataset before 1",
    ],
)
def test_a_start_that_was_killed_is_taken_up(project: Project, point: str) -> None:
    call = SPARE_LOAD_TEST + "from pipeline.cli.main import main\nmain()\n"
    kill_at(point, call, *RETRAIN, "--promote", cwd=project.root)
    done = project.retrain("--promote")
    assert done["outcome"] in ("promoted", "nothing new"), done["reason"]
    (version,) = project.versions
    assert project.events == [("promoted", "1")]
    assert project.tracking.client.get_registered_model("dagnn").aliases == {"challenger": 1, "champion": 1}
    assert project.left == []
    assert [path.name for path in (project.root / ".dagnn/datasets").iterdir()] == [version.tags["dataset_digest"]]
    assert project.retrain("--promote")["outcome"] == "nothing new"


@pytest.mark.slow
def test_a_registry_that_goes_away_in_the_middle_costs_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start() -> str:
        return running.enter_context(mlflow_server(f"sqlite:///{project.root}/mlflow.db", project.root))

    with ExitStack() as running:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", start())
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.retraining._compare", lambda *_, **__: running.close() or [])
            done = project.run([*RETRAIN, "--promote"])
        assert done.status == 3, done.err
        assert done.err.splitlines()[-1].startswith("error: MLflow at http://127.0.0.1:")
        assert len(project.left) == 1 and project.versions == []
        monkeypatch.setenv("MLFLOW_TRACKING_URI", start())
        # a new process, as on the next day: MLflow remembers servers
        command = [sys.executable, "-m", "pipeline.cli.main", *RETRAIN, "--promote"]
        again = subprocess.run(command, capture_output=True, text=True, check=False)
        assert again.returncode == 0 and "model of epoch" not in again.stderr, again.stderr
    assert len(project.versions) == 1 and project.events == [("promoted", "1")] and project.left == []


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--data", "data/photos", "--revision", "v9"), 2, "at v9 cannot be opened: "),
        (("--data", "s3://bucket/photos"), 2, "s3://bucket/photos has no versions, expected a path under DVC"),
        (("--data", "data/films"), 2, "'data/films' is not in . at HEAD; check path and revision"),
        (("--data", "params.yaml"), 2, "'params.yaml' in . at HEAD is not under DVC as a whole"),
        (("--data", "data/photos", "--repository", "nowhere"), 2, "nowhere at HEAD cannot be opened"),
        (("--data", "data/photos", "--params", "none.yaml"), 2, "none.yaml does not exist, expected a YAML file"),
        (("--data", "data/photos", "--wait"), 2, "are for a retraining on a cluster; add --target"),
        (("--data", "data/photos", "--target", "kind", "--against", "x"), 2, "--against is for a retraining on this"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_made(
    project: Project, arguments: tuple[str, ...], status: int, message: str
) -> None:
    done = project.run(["retrain", *arguments])
    assert done.status == status
    assert message in done.err and done.err.count("\n") == 1, done.err
    assert project.left == [] and project.versions == []


def test_data_that_was_never_pushed(project: Project) -> None:
    shutil.rmtree(project.root / ".dvc" / "cache")
    done = project.run([*RETRAIN])
    assert done.status == 2
    assert "run `dvc push` where the data is" in done.err.splitlines()[-1]
    assert project.versions == []
