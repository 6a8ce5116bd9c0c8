"""A search on a cluster: its graph, its pods, the secret of its database, and the command that submits it."""

import json
from pathlib import Path

import pytest

from components.params import read_yaml
from components.params_file import load_params
from components.space_file import read_space
from dagnn_core.config.section import parse_section
from dagnn_core.config.space import SEARCHABLE, parse_space
from dagnn_core.errors import InputError
from pipeline.compiling import write_pipeline
from pipeline.graph import PipelineOptions, RawDataVersion, WorkersOfSearch
from pipeline.images import Images
from pipeline.step_table import STEPS
from pipeline.target import FOLDER, Target, read_target
from tests.pipeline.conftest import ROOT, Dagnn
from tests.pipeline.kfp_server import KubeflowServer
from tests.pipeline.specs import Spec, faults, kubernetes_of, pod_of, read_specs, tasks_of
from tests.pipeline.test_cluster_commands import set_target

IMAGES = Images("registry.example/cpu@sha256:" + "0" * 64, "registry.example/gpu@sha256:" + "0" * 64)
SPACE = parse_space({"seeds": [1, 2], "train": {"lr": {"low": 1e-4, "high": 1e-2, "log": True}}})
WITH_GRAPH = parse_space({"label_graph": {"threshold": {"low": 0.1, "high": 0.6}}})


def compiled(folder: Path, target: Target, options: PipelineOptions) -> tuple[Spec, Spec]:
    write_pipeline(
        folder / "p.yaml", images=IMAGES, params=load_params(ROOT / "params.yaml"), target=target, options=options
    )
    return read_specs(folder / "p.yaml")


@pytest.fixture(scope="module")
def target() -> Target:
    return read_target(str(ROOT / FOLDER / "private-cluster.yaml"))


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory, target: Target) -> tuple[Spec, Spec]:
    options = PipelineOptions(search=WorkersOfSearch(SPACE, "lr", 3))
    return compiled(tmp_path_factory.mktemp("compiled"), target, options)


def test_workers_follow_the_features_and_the_label_graph(specs: tuple[Spec, Spec]) -> None:
    pipeline, platform = specs
    assert faults(pipeline, platform) == []
    tasks = tasks_of(pipeline)
    assert set(tasks) == {"dataset", "extract-features", "build-label-graph", "tune", "record-outcome"}
    assert tasks["tune"]["taskInfo"]["name"] == STEPS["tune"].title
    assert not tasks["tune"]["cachingOptions"].get("enableCache")
    (loop,) = (
        task["parameterIterator"]
        for component in pipeline["components"].values()
        for task in component.get("dag", {}).get("tasks", {}).values()
        if "parameterIterator" in task
    )
    assert json.loads(loop["items"]["raw"]) == ["1", "2", "3"]
    given = pipeline["root"]["inputDefinitions"]["parameters"]
    parameters = {name: entry["defaultValue"] for name, entry in given.items()}
    sections = {"dataset", "features", *SEARCHABLE}
    assert set(parameters) == {*sections, "space", "search", "cache", "work"}
    assert read_space(parameters["space"]) == SPACE and parameters["search"] == "lr"


def test_workers_run_where_trainings_run_with_the_secret_of_the_database(
    specs: tuple[Spec, Spec], target: Target
) -> None:
    schemas = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed: make setup")
    pod = pod_of(*specs, "exec-tune")
    schemas.validate(pod, "1.36", strict=True)
    (container,) = pod["spec"]["containers"]
    assert container["image"] == IMAGES.train
    assert container["resources"]["limits"][target.gpu.type] == "1"
    assert pod["spec"]["nodeSelector"] == {"pool": "gpu", "nvidia.com/mig.strategy": "mixed"}
    entries = {entry["name"]: entry for entry in container["env"]}
    reference = {"name": "search-database", "key": "url"}
    assert entries["DAGNN_TUNE_STORAGE"]["valueFrom"]["secretKeyRef"] == reference
    assert entries["MLFLOW_TRACKING_URI"]["value"] == target.mlflow_uri
    assert entries["DAGNN_IMAGE"]["value"] == IMAGES.train
    _, platform = specs
    others = {name: text for name, text in kubernetes_of(platform).items() if name != "exec-tune"}
    assert "search-database" not in json.dumps(others)


@pytest.mark.parametrize("space", [SPACE, WITH_GRAPH], ids=["train", "label_graph"])
def test_workers_fetch_the_data_set_only_if_they_build_label_graphs(
    tmp_path: Path, target: Target, space: object
) -> None:
    options = PipelineOptions(raw=RawDataVersion(uri="s3://images/raw"), search=WorkersOfSearch(space, "s", 1))  # type: ignore[arg-type]
    pipeline, platform = compiled(tmp_path, target, options)
    assert faults(pipeline, platform) == []
    artifacts = tasks_of(pipeline)["tune"]["inputs"]["artifacts"]
    assert set(artifacts) == {"features", "label_graph"} | ({"dataset"} if space is WITH_GRAPH else set())
    assert "fetch-dataset" in tasks_of(pipeline)


def test_a_search_has_no_seeds_and_no_promotion() -> None:
    for more in ({"seeds": (1, 2)}, {"promote": True}):
        with pytest.raises(InputError, match="a search trains with the seeds of its space, and registers no model"):
            PipelineOptions(search=WorkersOfSearch(SPACE, "s", 1), **more)  # type: ignore[arg-type]


@pytest.mark.usefixtures("no_cluster")
class TestSubmit:
    @pytest.fixture(autouse=True)
    def a_database(self, dagnn: Dagnn) -> None:
        set_target(tune_secret="search-database")

    def test_fixed_values_go_into_the_sections(self, server: KubeflowServer, dagnn: Dagnn) -> None:
        done = dagnn("submit", "--tune", "best", "--workers", "4", "--name", "again")
        assert (done.status, done.error) == (0, "")
        (version,) = server.versions.values()
        spec = version["pipeline_spec"]["pipeline_spec"]
        parameters = spec["root"]["inputDefinitions"]["parameters"]
        space = read_space(ROOT / "configs/tune/best.yaml")
        assert read_space(parameters["space"]["defaultValue"]) == space
        base = space.over(read_yaml(ROOT / "params.yaml"))
        for name, kind in SEARCHABLE.items():
            assert parse_section(kind, json.loads(parameters[name]["defaultValue"]), name) == base[name]
        assert parameters["search"]["defaultValue"] == "again"
        assert "tune" in spec["deploymentSpec"]["executors"]["exec-tune"]["container"]["args"][-1]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--tune", "bets"], "bets does not exist, expected a file, or one of aaai21, best"),
            (["--tune", "space.yaml"], "space.yaml: unknown key model.hop; did you mean 'hops'?"),
            (["--tune", "braces.yaml"], "braces.yaml: model.custom_loss must not contain '{{'"),
            (["--tune", "best", "--seed", "1"], "a search trains with the seeds of its space"),
            (["--tune", "best", "--promote"], "a search trains with the seeds of its space"),
            (["--tune", "best", "--name", "{{x}}"], "--name must not contain '{{'"),
        ],
    )
    def test_wrong_input_is_one_line(
        self, server: KubeflowServer, dagnn: Dagnn, arguments: list[str], message: str
    ) -> None:
        Path("space.yaml").write_text("model: {hop: [1, 2]}\n")
        Path("braces.yaml").write_text('model: {custom_loss: "{{x}}", hops: [1, 2]}\n')
        done = dagnn("submit", *arguments)
        assert (done.status, done.out, done.error.count("\n")) == (2, "", 1)
        assert done.error.startswith(f"error: {message}"), done.error
        assert server.created == []

    def test_a_target_without_a_database(self, server: KubeflowServer, dagnn: Dagnn) -> None:
        set_target(tune_secret="")
        done = dagnn("submit", "--tune", "best")
        assert done.status == 2 and "set tune_secret to a secret with its url" in done.error
        assert server.created == []
