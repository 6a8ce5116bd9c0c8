"""The command line: it starts fast, and every way to fail is one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures import forked

ROOT = Path(__file__).parents[2]
DAGNN = "from pipeline.cli.main import main; main()"
HEAVY = ("torch", "kfp", "kfp_server_api", "kubernetes", "mlflow", "pyarrow", "numpy", "rich", "boto3", "optuna")


def dagnn(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return forked.run("pipeline.cli.main", *arguments, cwd=cwd, environment={})


def test_help_imports_nothing_heavy() -> None:
    program = "import sys\ntry:\n    from pipeline.cli.main import app\n    app(['--help'])\nexcept SystemExit: pass\n"
    program += f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


@pytest.mark.slow
def test_compiling_does_not_import_torch(tmp_path: Path) -> None:
    program = "import sys\nfrom pathlib import Path\nfrom pipeline.cli.kubeflow import compile_pipeline\n"
    program += "compile_pipeline(Path(sys.argv[1]), image='name@sha256:' + '0' * 64)\n"
    program += "assert 'torch' not in sys.modules and 'mlflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "p.yaml")], cwd=ROOT, check=True)


def test_help_names_every_command() -> None:
    done = dagnn("--help")
    assert done.returncode == 0
    for command in (
        *("data", "params", "embed", "run", "compile", "images", "submit", "follow", "logs", "runs", "cancel", "retry"),
        *("schedules", "doctor", "targets", "tune", "results"),
        *("register", "promote", "rollback", "history", "lineage", "bench"),
    ):
        assert f"  {command} " in done.stdout


@pytest.mark.parametrize("arguments", [("--help",), ("data", "--help"), ("bench", "--help"), ("params", "--help")])
def test_every_help_text_has_a_line_for_each_command(arguments: tuple[str, ...]) -> None:
    commands = dagnn(*arguments).stdout.split("Commands:\n")[1].split("\n\n")[0].splitlines()
    assert all(len(line.split()) > 2 for line in commands), commands


def test_an_unknown_command_is_wrong_usage() -> None:
    done = dagnn("trane")
    assert done.returncode == 2
    assert "trane" in done.stderr


def test_a_command_in_the_background_of_a_shell_runs_and_says_nothing_of_it() -> None:
    program = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {DAGNN}"
    command = [sys.executable, "-c", program, "params", "show"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)})
    assert (done.stdout, done.stderr) == (dagnn("params", "show").stdout, "")


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    plain, debug = dagnn("compile", cwd=tmp_path), dagnn("compile", "--debug", cwd=tmp_path)
    assert plain.returncode == debug.returncode == 2
    assert plain.stderr.splitlines() == [
        "error: params.yaml does not exist, expected a YAML file; `dagnn params use demo` writes params.yaml"
    ]
    assert "Traceback" in debug.stderr


def test_run_checks_params_before_any_task(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("train: {lr: fast}\n")
    done = dagnn("run", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: params.yaml: train.lr must be a finite number, got 'fast'; correct it there\n"
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_params_show_fills_in_defaults(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("train: {lr: 1e-3}\n")
    shown = json.loads(dagnn("params", "show", "--json", cwd=tmp_path).stdout)
    assert shown["train"]["lr"] == 1e-3
    assert shown["model"]["hops"] == 5


def test_what_params_show_prints_is_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("train: {lr: 1e-3}\n")
    before = dagnn("params", "show", "--json", cwd=tmp_path).stdout
    (tmp_path / "params.yaml").write_text(dagnn("params", "show", cwd=tmp_path).stdout)
    assert dagnn("params", "show", "--json", cwd=tmp_path).stdout == before


def test_a_command_without_its_optional_package_names_it(tmp_path: Path) -> None:
    program = f"import sys; sys.modules['dvc'] = None; {DAGNN}"  # as if it were not installed
    command = ("data", "fetch", "raw", "--repository", ".", "--revision", "HEAD", "--path", "data/x")
    done = subprocess.run(
        [sys.executable, "-c", program, *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    expected = "error: this needs dvc, which is not installed; run `pip install 'dvc[s3]'`\n"
    assert (done.returncode, done.stderr) == (2, expected)


def test_params_schema_prints_the_committed_schema() -> None:
    done = dagnn("params", "schema")
    assert done.returncode == 0
    assert done.stdout == (ROOT / "params.schema.json").read_text(encoding="utf-8")


class TestParamsUse:
    @pytest.fixture
    def project(self, tmp_path: Path) -> Path:
        (tmp_path / "configs").mkdir()
        (tmp_path / "configs/one.yaml").write_text("train: {lr: 0.1}\n")
        (tmp_path / "configs/two.yaml").write_text("train: {lr: 0.2}\n")
        (tmp_path / "configs/scenes.yaml").write_text("num_scenes: 3\n")
        return tmp_path

    def test_replaces_a_shipped_configuration(self, project: Path) -> None:
        for name in ("one", "two"):
            done = dagnn("params", "use", name, cwd=project)
            assert done.returncode == 0, done.stderr
            assert (project / "params.yaml").read_bytes() == (project / f"configs/{name}.yaml").read_bytes()

    def test_the_schema_is_found_from_where_params_yaml_is(self, project: Path) -> None:
        line = "# yaml-language-server: $schema={}\ntrain: {{lr: 0.1}}\n"
        (project / "configs/one.yaml").write_text(line.format("../params.schema.json"))
        for name in ("one", "two"):  # what it wrote itself is no edit
            assert dagnn("params", "use", name, cwd=project).returncode == 0
            if name == "one":
                assert (project / "params.yaml").read_text() == line.format("params.schema.json")

    def test_keeps_edits_unless_forced(self, project: Path) -> None:
        edited = "train: {lr: 0.3}\n"
        (project / "params.yaml").write_text(edited)
        done = dagnn("params", "use", "one", cwd=project)
        assert done.returncode == 2
        assert "params.yaml holds edits that no configuration has; save them, or give --force" in done.stderr
        assert (project / "params.yaml").read_text() == edited
        assert dagnn("params", "use", "one", "--force", cwd=project).returncode == 0
        assert (project / "params.yaml").read_text() == "train: {lr: 0.1}\n"

    @pytest.mark.parametrize("name", ["three", "scenes"])
    def test_names_the_configurations_there_are(self, project: Path, name: str) -> None:
        done = dagnn("params", "use", name, cwd=project)
        assert done.returncode == 2
        assert (
            "is not a configuration, expected one of coco, demo, fashion, mirflickr, nuswide, one, two\n" in done.stderr
        )
        assert not (project / "params.yaml").exists()
