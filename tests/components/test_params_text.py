"""Values put into the text of a configuration, and the change as a patch that tools take."""

import subprocess
from pathlib import Path

import pytest

from components.params_text import diff, with_values

TEXT = """# a configuration
model:
  preset: best
  hops: 1          # of the graph

train:
  epochs: 3        # passes over the data
  lr: 2.0e-3
"""
FOUND = {"model": {"hops": 2, "graph": "none"}, "train": {"lr": 7e-4}, "label_graph": {"threshold": 0.3}}
AFTER = """# a configuration
model:
  preset: best
  graph: none
  hops: 2          # of the graph

train:
  epochs: 3        # passes over the data
  lr: 0.0007
label_graph:
  threshold: 0.3
"""


def test_comments_and_order_stay() -> None:
    assert with_values(TEXT, FOUND) == AFTER
    assert with_values(TEXT, {}) == TEXT and diff(TEXT, TEXT, Path("params.yaml")) == ""
    last = "model:\n  preset: best  # it\n\n# the training\ntrain:\n  lr: 1\n"
    assert with_values(last, {"model": {"hops": 2, "graph": "none"}, "train": {"epochs": 3}}) == (
        "model:\n  preset: best  # it\n  hops: 2\n  graph: none\n\n# the training\ntrain:\n  epochs: 3\n  lr: 1\n"
    )
    assert with_values("", {"train": {"lr": 0.1}}) == "train:\n  lr: 0.1\n"


@pytest.mark.parametrize("text", [TEXT, TEXT.rstrip("\n"), TEXT.replace("\n", "\r\n"), "", TEXT + "# \u2028 \n"])
@pytest.mark.parametrize("tool", ["git apply", "patch -p1"])
@pytest.mark.parametrize("place", ["params.yaml", "configs/my own.yaml", "absolute", "up", "elsewhere"])
def test_tools_apply_the_change_of_any_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, tool: str, place: str
) -> None:
    root = tmp_path / "project"
    (root / "configs").mkdir(parents=True)
    monkeypatch.chdir(root)
    named = {"absolute": root / "params.yaml", "up": "configs/../params.yaml", "elsewhere": "../params.yaml"}
    path = Path(named.get(place, place))
    path.write_bytes(text.encode())
    after = with_values(text, FOUND)
    change = diff(text, after, path)
    folder = "/" if place == "elsewhere" else "."
    done = subprocess.run(tool.split(), input=change.encode(), cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert path.read_bytes() == after.encode()
    if place != "elsewhere":
        assert change.startswith(f"--- a/{'configs/my own.yaml' if 'own' in place else 'params.yaml'}")
