"""The lineage of a version whose raw data is under DVC, and the version rebuilt from it, number for number."""

import json
import re
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.test_versioned_data import write_source

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def registered(make_checkout: Callable[[], Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A checkout with a version whose parameters were committed, and its data pushed, after it was registered."""
    checkout = make_checkout()
    checkout.run("dvc", "remote", "add", "--default", "storage", str(tmp_path_factory.mktemp("remote")))
    checkout.run("dagnn", "data", "add", "photos", str(write_source(tmp_path_factory.mktemp("photos"), 120)))
    checkout.commit()
    folder = {"table": "table.csv", "images": "images.tar", "image_pattern": "{id}.png", "split_column": "split"}
    dataset = {"layout": "folder", "source": "data/photos", "folder": folder, "min_label_count": 1}
    checkout.set({"dataset": dataset, "features": {"min_word_count": 1}, "train": {"lr": 0.002}})
    checkout.run("dvc", "repro")
    checkout.run("dagnn", "register")
    checkout.metrics = (checkout.root / "artifacts/report/metrics.json").read_text()
    checkout.uncommitted = checkout.try_run("dagnn", "lineage", "dagnn@challenger")
    checkout.commit()
    checkout.run("dvc", "push")
    return checkout


def states(tree: dict[str, Any]) -> dict[str, str]:
    found = {tree["kind"]: tree["state"]}
    for child in tree["children"]:
        found |= states(child)
    return found


def test_what_is_not_committed_is_missing(registered: Any) -> None:
    assert registered.uncommitted.returncode == 1
    assert registered.uncommitted.stderr == "error: dagnn 1 (challenger): missing: DVC revision\n"
    assert "DVC revision none: MISSING, no commit has the data set in its dvc.lock" in registered.uncommitted.stdout


def test_everything_is_found_when_it_is_committed_and_pushed(registered: Any) -> None:
    found = states(json.loads(registered.run("dagnn", "lineage", "dagnn@challenger", "--json")))
    assert {kind for kind, state in found.items() if state != "found"} == {"pipeline run", "machine"}
    shutil.rmtree(registered.root / "artifacts")
    shutil.rmtree(registered.root / ".dvc/cache")
    printed = registered.run("dagnn", "lineage", "dagnn/1")
    for kind, path in (("features", "artifacts/features"), ("label graph", "artifacts/label_graph")):
        assert re.search(rf"─ {kind} \w+: found, in the DVC remote storage \({path} at \w+\)\n", printed)
    assert re.search(r"raw data \w+\.dir: found, in the DVC remote storage \(data/photos at \w+\)\n", printed)


def test_the_commands_make_it_again_number_for_number(registered: Any) -> None:
    commands = registered.run("dagnn", "lineage", "dagnn@challenger", "--reproduce").splitlines()
    assert [command.split(":")[0] for command in commands if command.startswith("#")] == [
        "# metrics are the same on the same kind of machine"
    ]
    commands.remove("make -C ../dagnn-1 setup")  # this very environment takes its place
    output = registered.run("bash", "-c", "\n".join(["set -e", *commands]))
    assert len(re.findall("^Running stage ", output, flags=re.MULTILINE)) == 5
    assert output.count("the same\n") == 7
    again = registered.root.parent / "dagnn-1/artifacts/report/metrics.json"
    assert again.read_text() == registered.metrics
