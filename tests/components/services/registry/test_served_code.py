"""What of this library is stored with a model."""

import importlib
import json
import os
import runpy
import sys
from collections.abc import Iterator
from functools import cache, partial
from itertools import chain
from pathlib import Path

import pytest

import dagnn_core
from components.services.registry import served_code
from components.services.registry.served_code import PYFUNC_MODEL, copy_served_code, served_files
from dagnn_core.config.features import IMAGE_ENCODERS, TEXT_ENCODERS
from dagnn_core.config.model import KINDS
from tests.fixtures import forked
from tests.fixtures.locations import ROOT

NETWORKS = {kind: parts.network for kind, parts in KINDS.items()}
PARTS = sorted({*IMAGE_ENCODERS.values(), *TEXT_ENCODERS.values(), *NETWORKS.values()})
OURS = ("components", "dagnn_core", "pipeline")
# what the parts import, so that their processes need not
PACKAGES = ("mlflow.pyfunc", "numpy", "pandas", "PIL.Image", "pyarrow.parquet", "safetensors.torch", "torch", "tqdm")


@pytest.fixture(scope="module", autouse=True)
def files_parsed_once() -> Iterator[None]:
    """Which modules a file imports is the same for all parts."""
    follow = cache(lambda name, file: tuple(imports(name, file)))
    imports = served_code._imports
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(served_code, "_imports", follow)
        yield


def load_each(pyfunc_model: str, folders: dict[str, str]) -> None:
    """Load each part in a process of its own that sees the stored code alone, and say what of it is imported."""
    for name in PACKAGES:
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
        del sys.modules[name]
    sys.path[:] = [entry for entry in sys.path if not Path(entry, "dagnn_core").exists()]
    for part, folder in folders.items():
        sys.stdout.flush()
        if os.fork() == 0:
            sys.path.insert(0, folder)
            runpy.run_path(pyfunc_model)
            importlib.import_module("dagnn_core.registry").load(part, "part")
            imported = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "dagnn_core"]
            sys.stdout.write(json.dumps([part, imported]) + "\n")
            sys.stdout.flush()
            os._exit(0)
        assert os.wait()[1] == 0, part


@pytest.mark.slow
def test_each_encoder_and_network_brings_the_modules_that_it_imports_and_no_others(tmp_path: Path) -> None:
    folders = {part: tmp_path / str(number) for number, part in enumerate(PARTS)}
    for part, folder in folders.items():
        copy_served_code([part], folder)
    stored = {part: str(folder) for part, folder in folders.items()}
    done = forked.fork(partial(load_each, str(PYFUNC_MODEL), stored), cwd=tmp_path).wait()
    assert done.returncode == 0, done.stderr
    imported = dict(json.loads(line) for line in done.stdout.splitlines())
    assert set(imported) == set(PARTS)
    for part, folder in folders.items():
        files = {str(path.relative_to(folder)) for path in folder.rglob("*.py")}
        assert {str(Path(file).relative_to(folder)) for file in imported[part]} == files, part


def test_a_model_carries_less_than_a_third_of_the_library() -> None:
    served = served_files([IMAGE_ENCODERS["huggingface"], TEXT_ENCODERS["huggingface"], NETWORKS["dagnn"]])
    assert len(served) < len(list((ROOT / "dagnn_core").rglob("*.py"))) / 3


# code of the user's own -> what it needs of this library
@pytest.mark.parametrize(
    ("files", "needed"),
    [
        ({"my.py": "from dagnn_core.losses.similarity import x"}, ["losses/similarity.py"]),
        ({"my.py": "import dagnn_core.losses.similarity as s"}, ["losses/similarity.py"]),
        ({"my.py": "def f():\n    from dagnn_core.losses import similarity"}, ["losses/similarity.py"]),
        ({"my.py": "from dagnn_core import train"}, ["training/loop.py"]),
        ({"my.py": "import dagnn_core"}, ["training/loop.py", "label_graph/label_graph.py"]),
        (
            {"my/__init__.py": "from .parts import x", "my/parts/__init__.py": "from ..more import y", "my/more.py": ""}
            | {"my/parts/unused.py": "from dagnn_core import train"},
            [],
        ),
        (
            {"my/__init__.py": "from . import parts", "my/parts.py": "from dagnn_core.losses.similarity import x"},
            ["losses/similarity.py"],
        ),
        ({"my.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from dagnn_core import train"}, []),
    ],
)
def test_the_users_own_code_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], needed: list[str]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for name, code in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(code)
    library = Path(dagnn_core.__file__).parent
    more = served_files(["my:Encoder"]) - served_files([])
    assert {library / name for name in needed} <= more
    assert bool(more) == bool(needed)


def test_nothing_but_this_library_is_taken() -> None:
    files = served_files(chain(PARTS, ["json:JSONDecoder", "no_such_module:Encoder"]))
    assert {file.relative_to(ROOT).parts[0] for file in files} == {"dagnn_core"}
