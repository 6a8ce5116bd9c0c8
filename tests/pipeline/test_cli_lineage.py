"""`dagnn lineage`: the drawn tree, and the command as a user calls it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.services.lineage.locate import State
from components.services.lineage.reproduce import ReproducedValue
from components.services.lineage.tree import Node
from dagnn_core.errors import CheckFailedError, InputError
from pipeline.cli import lineage as module
from pipeline.cli.lineage import render

TEXT = st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1, max_size=20)
LEAVES = st.builds(
    Node,
    kind=TEXT,
    identity=TEXT,
    state=st.sampled_from(State),
    reason=st.just("") | TEXT,
    details=st.dictionaries(TEXT, TEXT, max_size=2),
)


def _with_children(children: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    return st.builds(
        lambda node, below: Node(**{**vars(node), "children": tuple(below)}), LEAVES, st.lists(children, max_size=3)
    )


def depths(node: Node, depth: int = 0) -> list[tuple[int, str]]:
    return [(depth, node.kind), *(pair for child in node.children for pair in depths(child, depth + 1))]


@given(st.recursive(LEAVES, _with_children, max_leaves=12))
def test_every_node_is_a_line_at_its_depth(node: Node) -> None:
    lines = list(render(node))
    shown = []
    for depth, kind in depths(node):
        while not lines[0][3 * depth :].startswith(kind) or (depth and lines[0][3 * depth - 3] not in "├└"):
            lines.pop(0)  # the details of the node before
        shown.append(lines.pop(0))
    assert len(lines) <= 1
    assert len(shown) == len(depths(node))
    assert all(len(line.splitlines()) == 1 for line in shown)


def test_a_small_tree() -> None:
    commit = Node(kind="git commit", identity="c0ffee" * 6 + "c0ff", state=State.MISSING, reason="not here")
    machine = Node(kind="machine", identity="x86_64", state=State.RECORDED, reason="", details={"memory": "1 GB"})
    run = Node(
        kind="MLflow run",
        identity="r",
        state=State.FOUND,
        reason="in a",
        details={"b": "c"},
        children=(commit, machine),
    )
    assert list(
        render(Node(kind="model version", identity="dagnn 1", state=State.FOUND, reason="", children=(run,)))
    ) == [
        "model version dagnn 1: found",
        "└─ MLflow run r: found, in a",
        "   │  b c",
        "   ├─ git commit c0ffeec0ffee: MISSING, not here",
        "   └─ machine x86_64: recorded",
        "         memory 1 GB",
    ]


def test_the_tree_as_json_and_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    commit = Node(kind="git commit", identity="c0ffee", state=State.MISSING, reason="not here")
    version = Node(kind="model version", identity="dagnn 1", state=State.FOUND, reason="", children=(commit,))
    with pytest.raises(CheckFailedError, match=r"dagnn 1: missing: git commit"):
        module._print_tree(version, as_json=True)
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert printed["children"][0] == {
        **{"kind": "git commit", "identity": "c0ffee", "state": "missing", "reason": "not here"},
        **{"details": {}, "children": []},
    }


def test_a_comparison(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    same = ReproducedValue("model", "a" * 64, "a" * 64)
    module._print_comparison([same], tmp_path, as_json=False)
    assert capsys.readouterr().out.splitlines()[1] == f"{'model':<12}{'a' * 12:<24}{'a' * 12:<24}the same"
    with pytest.raises(CheckFailedError, match="is not the same: map_mean"):
        module._print_comparison([same, ReproducedValue("map_mean", "0.5", "")], tmp_path, as_json=False)
    assert capsys.readouterr().out.splitlines()[2] == f"{'map_mean':<12}{'0.5':<24}{'-':<24}DIFFERS"
    module._print_comparison([same], tmp_path, as_json=True)
    assert json.loads(capsys.readouterr().out)[0]["same"] is True


def test_one_thing_at_a_time() -> None:
    with pytest.raises(InputError, match="--reproduce, --show-params and --compare exclude each other"):
        module.lineage("dagnn", reproduce=True, show_params=True)


@pytest.mark.parametrize("name", ["a@b@c", "dagnn/", "models:/", "dagnn/v1"])
def test_a_wrong_name_is_one_line(name: str) -> None:
    with pytest.raises(InputError, match=r"names no version, expected NAME, NAME@ALIAS or NAME/VERSION; correct it"):
        module.lineage(name)
