"""A wheel built from the checkout, installed elsewhere, works in any folder."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dagnn_core.artifacts import read_artifact

ROOT = Path(__file__).parents[2]
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 220)}
PARAMS = """
dataset:
  layout: folder
  source: raw
  val_fraction: 0.2
  test_fraction: 0.2
  folder: {table: items.csv, images: images, image_column: image}
features:
  image: classic
  text: my_parts:CharacterTrigrams
  max_words: 200
model:
  embedding_dim: 8
  hops: 1
  custom_loss: my_parts:margin_loss
  custom_loss_weight: 0.5
train: {epochs: 2, lr: 1e-3}
evaluate: {num_queries: 1, num_retrieved: 1}
register: {data_licence: none, gate: {min_map_i2t: 0.0, min_map_t2i: 0.0}}
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dist = tmp_path_factory.mktemp("dist")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(dist))
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(ROOT)], check=True)
    [built] = dist.iterdir()
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel; its dependencies are those of this environment, without this checkout."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = str(venv / "bin" / "python")
    options = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", *options, str(wheel)], check=True)
    [packages] = venv.glob("lib/python*/site-packages")
    # a folder that is named in a .pth file is searched, but its own .pth files, such as an editable install's, are not
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return venv


@pytest.fixture
def run(environment: Path, tmp_path: Path) -> Run:
    """Run a program of the environment in an empty folder."""
    hidden = ("AWS_", "DAGNN_", "KF_", "MLFLOW_", "PYTHON", "VIRTUAL_ENV")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    variables |= {
        "PATH": f"{environment / 'bin'}:/usr/bin:/bin",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "HOME": str(tmp_path),
    }

    def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        folder = tmp_path / "folder"
        folder.mkdir(exist_ok=True)
        program = [str(environment / "bin" / command[0]), *command[1:]]
        done = subprocess.run(program, cwd=folder, env=variables, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return run


def test_the_wheel_has_what_is_shipped_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "components",
        "dagnn_core",
        "pipeline",
        next(name for name in names if ".dist-info/" in name).split("/")[0],
    }
    shipped = {str(path.relative_to(ROOT / "configs")) for path in ROOT.glob("configs/**/*.yaml")}
    assert {name.removeprefix("pipeline/configs/") for name in names if name.endswith(".yaml")} == shipped
    assert {"dagnn_core/py.typed", "dagnn_core/reports/page/style.css"} < set(names)
    page = "components/services/serving/page"
    assert {f"{page}/{path.name}" for path in (ROOT / page).iterdir()} < set(names)


def test_its_dependencies_are_those_of_the_images_and_of_the_command_line() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [name for extra in project["optional-dependencies"].values() for name in extra]
    runtime = (ROOT / "requirements.in").read_text().partition("# development")[0]
    files = (ROOT / "infra/docker/steps.in").read_text() + runtime
    wanted = {_name(line) for line in files.splitlines() if re.match(r"[a-z]", line)}
    assert sorted(map(_name, [*project["dependencies"], *extras])) == sorted(wanted)


@pytest.mark.slow
def test_the_public_names_are_those_of_the_wheel(run: Run, environment: Path) -> None:
    program = (
        "import dagnn_core; from dagnn_core import Dataset, TrainedModel, build_network, evaluate_retrieval; "
        "print(dagnn_core.__file__)"
    )
    assert run("python", "-c", program).stdout.startswith(str(environment))


# a command in a folder that is neither a git checkout nor a DVC repository -> exit status and what it says
@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        ("data demo out", 2, "demo is not in this installation (No module named 'examples'); run it in a git checkout"),
        ("data add photos .", 2, "is not the root of a DVC repository; go there"),
        ("data fetch raw --repository . --revision HEAD --path data/x", 2, "is not a git repository"),
        ("params show", 2, "params.yaml does not exist, expected a YAML file; `dagnn params use demo` writes"),
        ("params use moon", 2, "expected one of coco, demo, fashion, mirflickr, nuswide"),
        ("images", 2, "images are built from a commit, and this folder is not in a git checkout that has one"),
        ("results", 2, "artifacts/report does not exist, expected a report artifact; run `dvc repro evaluate`"),
        ("results", 2, "or `dagnn run` outside of a checkout"),
        ("embed model out.npz --texts texts", 2, "texts cannot be read"),
        ("search boats", 2, "artifacts/model does not exist, expected a model artifact; run `dvc repro train`"),
        ("bench demo", 2, "is not a git checkout, expected the project's root"),
    ],
)
def test_what_a_command_lacks_is_one_line(run: Run, tmp_path: Path, command: str, status: int, message: str) -> None:
    done = run("dagnn", *command.split(), check=False)
    assert (done.returncode, done.stderr.count("\n")) == (status, 1), done.stderr
    assert message in done.stderr
    assert [path.name for path in (tmp_path / "folder").iterdir() if path.name != ".dagnn"] == []


@pytest.mark.slow
def test_shipped_configurations_are_found_by_name(run: Run, tmp_path: Path) -> None:
    run("dagnn", "params", "use", "fashion")
    used = (tmp_path / "folder/params.yaml").read_text(encoding="utf-8").splitlines()
    shipped = (ROOT / "configs/fashion.yaml").read_text(encoding="utf-8").splitlines()
    assert used[1:] == shipped[1:]  # the first line names the schema, relative to the file
    done = run("dagnn", "compile", "--image", f"dagnn@sha256:{'a' * 64}", "--target", "gpu-cluster")
    assert done.stdout == "wrote build/pipeline.yaml, for the cluster gpu-cluster\n"


@pytest.mark.slow
def test_data_become_a_registered_model_that_embeds_and_searches_in_any_folder(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    _write_raw_data(folder / "raw")
    shutil.copyfile(ROOT / "examples/custom_parts.py", folder / "my_parts.py")
    (folder / "params.yaml").write_text(PARAMS)
    options = ("--table", "items.csv", "--images", "images", "--image-column", "image")
    run("dagnn", "data", "import", "folder", "raw", "imported", *options)
    assert read_artifact(folder / "imported", "dataset", verify=True).content["num_items"] == 90
    output = run("dagnn", "run").stdout
    model = folder / re.search(r"^model +(\S+)$", output, re.MULTILINE)[1]  # type: ignore[index]
    assert re.search(r"^version dagnn 1$", output, re.MULTILINE)
    record = read_artifact(model, "model", verify=True).provenance
    assert record["git"] == {"commit": "unknown", "dirty": True, "changed": []}

    (folder / "texts.txt").write_text("a red thing\n\na blue thing\n")
    run("dagnn", "embed", str(model), "texts.npz", "--texts", "texts.txt")
    run("dagnn", "embed", str(model), "images.npz", "--images", "raw/images")
    texts, images = (np.load(folder / f"{name}.npz") for name in ("texts", "images"))
    assert texts["ids"].tolist() == ["a red thing", "a blue thing"]
    assert images["ids"].tolist() == [f"{row}.png" for row in sorted(range(90), key=str)]
    assert (texts["embeddings"].shape, images["embeddings"].shape) == ((2, 8), (90, 8))

    described = run("dagnn", "index", "build", "index", "--source", "imported", "--model", str(model)).stdout
    assert "items     90: 90 images, 90 texts\n" in described
    query = ("dagnn", "search", "a red thing", "-k", "5", "--model", "models:/dagnn/1")
    found = json.loads(run(*query, "--json", "--show", "strip.png").stdout)
    query_vector, *_ = texts["embeddings"]
    cosine = images["embeddings"] @ query_vector / np.linalg.norm(query_vector)
    cosine /= np.linalg.norm(images["embeddings"], axis=1)
    nearest = np.argsort(-cosine)[:5]
    assert [f"{hit['id']}.png" for hit in found["hits"]] == images["ids"][nearest].tolist()
    np.testing.assert_allclose([hit["score"] for hit in found["hits"]], cosine[nearest], atol=1e-5)
    with Image.open(folder / "strip.png") as strip:
        assert strip.format == "PNG"

    (folder / "raw/images/7.png").write_bytes(b"no image")
    done = run("dagnn", "embed", str(model), "more.npz", "--images", "raw/images", check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: raw/images/7.png: ") and done.stderr.count("\n") == 1
    assert not (folder / "more.npz").exists()

    history = json.loads(run("dagnn", "results", "--json", "--report", str(_report(output, folder))).stdout)
    assert 0 < history["map_mean"] <= 1


def _report(output: str, folder: Path) -> Path:
    return folder / Path(re.search(r"^report +(\S+)$", output, re.MULTILINE)[1]).parent  # type: ignore[index]


def _write_raw_data(raw: Path) -> None:
    """Images of one colour with noise, a text that names it, and two labels."""
    rng = np.random.default_rng(0)
    (raw / "images").mkdir(parents=True)
    rows = ["id,text,labels,image"]
    for row in range(90):
        colour = list(COLOURS)[row % 3]
        size = ("small", "large")[row // 3 % 2]
        pixels = rng.normal(COLOURS[colour], 20, (32, 32, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(raw / "images" / f"{row}.png")
        rows.append(f"{row},a {size} {colour} thing number {row},{colour}|{size},{row}.png")
    (raw / "items.csv").write_text("\n".join(rows) + "\n")


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=\s]", requirement)[0].replace("_", "-").replace(".", "-").lower()
