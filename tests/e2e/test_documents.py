"""README, quickstart and the recipes of CONTRIBUTING, run as they are written, in copies of the checkout."""

import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from dagnn_core.artifacts import read_artifact
from dagnn_core.data.dataset import Dataset
from tests.fixtures.documents import Block, read_blocks
from tests.fixtures.locations import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # minutes, on a busy machine

RUN = [ROOT / "README.md", ROOT / "docs" / "quickstart.md", ROOT / "docs" / "library.md"]
REASONS = {"starts a server"}
RECIPES = {block.section for block in read_blocks(ROOT / "CONTRIBUTING.md") if block.section.startswith("Recipe: ")}
# the environment is there already, and `make test` would run this test again
MAKE = """#!/bin/sh
case "$1" in test) exec {make} --just-print -o setup "$@" > /dev/null ;; *) exec {make} -o setup "$@" ;; esac
"""


def in_this_checkout(checkout: Any) -> Any:
    """Let its commands import the copy's packages, and find the tools that `make setup` has installed here."""
    tools = checkout.root.parent / "tools"
    tools.mkdir()
    make = tools / "make"
    make.write_text(MAKE.format(make=shutil.which("make")))
    make.chmod(0o755)
    checkout.environment |= {
        "PATH": f"{tools}:{checkout.environment['PATH']}",
        "PYTHONPATH": str(checkout.root),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return checkout


def script(blocks: list[Block]) -> str:
    """The blocks as one shell session."""
    lines = ["set -euo pipefail"]
    for block in blocks:
        lines.append(block.code if block.language == "bash" else f"python - <<'PYTHON'\n{block.code}PYTHON\n")
    return "\n".join(lines)


def run_blocks(checkout: Any, blocks: list[Block]) -> str:
    done = subprocess.run(
        ["bash", "-c", script(blocks)],
        cwd=checkout.root,
        env=checkout.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=1700,
    )
    assert done.returncode == 0, done.stdout
    return str(done.stdout)


def test_a_new_user_can_follow_readme_and_quickstart(make_checkout: Callable[[], Any]) -> None:
    checkout = in_this_checkout(make_checkout())
    checkout.set({"train": {"lr": 0.0005}})  # so that the quickstart's is another one
    checkout.commit()
    write_notes(checkout.root / "photos")
    blocks = [block for path in RUN for block in read_blocks(path) if block.language in ("bash", "python")]
    assert {block.not_tested for block in blocks} - {""} <= REASONS
    output = run_blocks(checkout, [block for block in blocks if not block.not_tested])
    tables = re.findall(r"(?m)^ +score +(?:relevant +)?id ", output)
    assert len(tables) >= 5, "the demo, README and quickstart search the index"
    assert output.count("\nscene-") >= 5, "the query of the test split prints five items"
    assert output.count("\nphotos/note-") == 10, "the query of the folder prints ten images"
    assert "champion" in output


class TestRecipes:
    @pytest.fixture
    def follow(self, make_checkout: Callable[[], Any]) -> Callable[[str], Any]:
        """Follow a recipe of CONTRIBUTING: write its files, apply its changes, run its commands."""

        def follow(recipe: str) -> Any:
            checkout = in_this_checkout(make_checkout())
            write_notes(checkout.root / "data" / "notes")
            blocks = [block for block in read_blocks(ROOT / "CONTRIBUTING.md") if block.section == f"Recipe: {recipe}"]
            written = []
            for block in blocks:
                target = checkout.root / block.path
                match block.language:
                    case "python":
                        target.write_text(block.code)
                        written.append(block.path)
                    case "diff":
                        target.write_text(apply(block.code, target.read_text()))
                    case "yaml":
                        checkout.set(YAML(typ="safe").load(block.code), file=block.path)
                    case "bash":
                        checkout.run("ruff", "check", *written)
                        checkout.run("ruff", "format", "--check", *written)
                        run_blocks(checkout, [block])
            return checkout

        return follow

    def test_there_is_a_test_for_each(self) -> None:
        assert {f"Recipe: add a {name}" for name in ("layout", "loss", "step")} | {"Recipe: add an encoder"} == RECIPES

    def test_layout(self, follow: Callable[[str], Any]) -> None:
        checkout = follow("add a layout")
        dataset = Dataset.read(checkout.root / "artifacts" / "dataset", verify=True)
        assert len(dataset) == 60
        assert dataset.label_names == ("dark", "even", "light", "odd")
        assert dataset.texts[dataset.ids.index("note-03")] == "note number 3, two lines"
        assert "sidecar" in (checkout.root / "params.schema.json").read_text()

    def test_encoder(self, follow: Callable[[str], Any]) -> None:
        checkout = follow("add an encoder")
        assert read_artifact(checkout.root / "artifacts/features", "features").content["text"]["kind"] == "trigrams"
        encode = "from pathlib import Path; from dagnn_core.model.embedder import TrainedModel; "
        encode += "print(TrainedModel.read(Path('artifacts/model')).encode_texts(['a boat']).shape)"
        assert checkout.run("python", "-c", encode).strip() == "(1, 16)"

    def test_loss(self, follow: Callable[[str], Any]) -> None:
        checkout = follow("add a loss")
        history = (checkout.root / "artifacts/model/history.jsonl").read_text().splitlines()
        assert all(json.loads(line)["loss_custom"] > 0 for line in history)

    def test_step(self, follow: Callable[[str], Any]) -> None:
        checkout = follow("add a step")
        embeddings = read_artifact(checkout.root / "artifacts" / "embeddings", "embeddings", verify=True)
        assert np.load(embeddings.file("text.npy")).shape == (embeddings.content["num_items"], 16)
        assert embeddings.provenance["step"] == "export_embeddings"
        deps = YAML(typ="safe").load(checkout.root / "dvc.yaml")["stages"]["export_embeddings"]["deps"]
        assert "dagnn_core/model/files.py" in deps
        checkout.run("python", "infra/dvc_deps.py", "--check")
        runs = checkout.root / ".dagnn" / "runs"
        exported = [path for path in runs.rglob("image.npy") if "embeddings" in str(path.parent.relative_to(runs))]
        assert len(exported) == 1, "dagnn run made them, too"


def write_notes(folder: Path) -> None:
    """Sixty images in the layout of the recipe."""
    folder.mkdir(parents=True)
    for number in range(60):
        file = io.BytesIO()
        noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file, "JPEG")
        (folder / f"note-{number:02}.jpg").write_bytes(file.getvalue())
        labels = f"{('even', 'odd')[number % 2]}, {('dark', 'light')[number // 30]}"
        (folder / f"note-{number:02}.txt").write_text(f"{labels}\nnote number {number},\ntwo lines\n")


def apply(diff: str, text: str) -> str:
    """Apply a change whose context occurs once."""
    lines = diff.splitlines()
    assert all(line[:1] in (" ", "+", "-") for line in lines)
    before = "".join(f"{line[1:]}\n" for line in lines if line[0] != "+")
    after = "".join(f"{line[1:]}\n" for line in lines if line[0] != "-")
    assert text.count(before) == 1, f"expected once:\n{before}"
    return text.replace(before, after)
