"""The compiled pipeline: what a cluster gets to see."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kfp.compiler import Compiler

from components.params_file import load_params
from dagnn_core.config.section import parse_section
from dagnn_core.config.sections import SECTIONS
from dagnn_core.errors import InputError
from pipeline.cli.kubeflow import compile_pipeline
from pipeline.compiling import write_pipeline
from pipeline.graph import PipelineOptions, RawDataVersion, build_pipeline
from pipeline.images import Images
from pipeline.raw_data import _endpoint_of_tasks
from pipeline.step_table import STEPS
from pipeline.target import FOLDER, Gpu, Target, read_target
from tests.fixtures import forked
from tests.pipeline.specs import FAST_LOADER, Spec, containers_of, faults, kubernetes_of, read_specs, tasks_of

ROOT = Path(__file__).parents[2]
TASKS, TRAIN = (f"registry.example/dagnn-{name}@sha256:" + "0" * 64 for name in ("cpu", "gpu"))
PARAMS = load_params(ROOT / "params.yaml")
ELSEWHERE = {"tune", "extract_shard"}  # see test_search, and the shards below
GPU = Gpu(count=1, node_selector=("gpu=h100", "zone=a"), toleration="nvidia.com/gpu")
TARGET = Target(
    mlflow_uri="http://mlflow:5000",
    experiment="images",
    mlflow_secret="mlflow-tasks",
    s3_endpoint_url="https://s3.example.org",
    s3_secret="s3-credentials",
    checkpoints="s3://dagnn/checkpoints",
    webhook_secret="webhook",
    gpu=GPU,
)
STAGES = ("dataset", "extract-features", "build-label-graph", "train", "evaluate")
MD5 = "0123456789abcdef0123456789abcdef"
RAW = RawDataVersion(md5=f"{MD5}.dir", remote="s3://dagnn/dvc", revision="c0ffee", path="data/photos")
WHOLE = PipelineOptions(
    raw=RAW, seeds=(103, 104, 105), promote=True, check=True, champion_dataset="s3://runs/dataset_out"
)
CHOICES = [
    PipelineOptions(raw=raw, seeds=seeds, promote=promote)
    for raw, seeds, promote in product((None, RAW), ((), (7,), (103, 104)), (False, True))
]


def compiled(
    folder: Path, target: Target = TARGET, options: PipelineOptions = WHOLE, *, shards: int = 1
) -> tuple[Spec, Spec]:
    out = folder / "pipeline.yaml"
    params = PARAMS | {"features": replace(PARAMS["features"], shards=shards)}
    write_pipeline(out, images=Images(TASKS, TRAIN), params=params, target=target, options=options)
    return read_specs(out)


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Spec, Spec]:
    """The pipeline with all that it can have, and its platform."""
    return compiled(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module")
def pipeline(specs: tuple[Spec, Spec]) -> Spec:
    return specs[0]


@pytest.fixture(scope="module")
def kubernetes(specs: tuple[Spec, Spec]) -> Spec:
    return kubernetes_of(specs[1])


def environment(pipeline: Spec, executor: str) -> dict[str, str]:
    container = pipeline["deploymentSpec"]["executors"][executor]["container"]
    return {entry["name"]: entry["value"] for entry in container["env"]}


def secrets(kubernetes: Spec, executor: str) -> dict[str, tuple[str, str]]:
    """Environment variable -> secret and key."""
    return {
        key["envVar"]: (entry["secretName"], key["secretKey"])
        for entry in kubernetes[executor].get("secretAsEnv", [])
        for key in entry["keyToEnv"]
    }


def compile_both(folder: Path) -> None:
    """As kfp's own file and as manifests for Kubernetes."""
    folder.mkdir()
    for native in (False, True):
        out = folder / f"{native}.yaml"
        images = Images(TASKS, TRAIN)
        write_pipeline(out, images=images, params=PARAMS, target=TARGET, options=WHOLE, kubernetes_native=native)


@pytest.mark.slow
def test_compiling_in_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    compile_both(tmp_path / "one")
    program = "import sys; from pathlib import Path; from tests.pipeline.test_compile import compile_both\n"
    program += "compile_both(Path(sys.argv[1]))"
    variables = os.environ | {"PYTHONHASHSEED": str(1 + hash(tmp_path) % 1000)}  # sets in another order
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "two")], check=True, cwd=ROOT, env=variables)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert set(one) == {"False.yaml", "True.yaml"}
    assert one == two


@pytest.mark.parametrize("options", CHOICES, ids=str)
def test_every_choice_hangs_together(tmp_path: Path, options: PipelineOptions) -> None:
    pipeline, platform = compiled(tmp_path, options=options)
    assert faults(pipeline, platform) == []
    expected = {*STAGES, "register", "record-outcome"}
    expected |= {"fetch-dataset"} if options.raw else set()
    expected |= {"select-model"} if len(options.seeds) > 1 else set()
    expected |= {"promote"} if options.promote else set()
    assert set(tasks_of(pipeline)) == expected
    parameters = set(pipeline["root"]["inputDefinitions"]["parameters"])
    expected = {*SECTIONS, "model_name", "cache", "work", "checkpoints"}
    expected |= {"seed"} if len(options.seeds) < 2 else set()
    expected |= {f"data_{name}" for name in RawDataVersion._fields} if options.raw else set()
    assert parameters == expected


def break_component(pipeline: Spec) -> None:
    del pipeline["components"]["comp-train"]


def break_executor(pipeline: Spec) -> None:
    del pipeline["deploymentSpec"]["executors"]["exec-train"]


def break_producer(pipeline: Spec) -> None:
    task = pipeline["components"]["comp-exit-handler-1"]["dag"]["tasks"]["extract-features"]
    task["inputs"]["artifacts"]["dataset"]["taskOutputArtifact"]["producerTask"] = "register"


def break_type(pipeline: Spec) -> None:
    inputs = pipeline["components"]["comp-evaluate"]["inputDefinitions"]["artifacts"]
    inputs["model"]["artifactType"]["schemaTitle"] = "system.Dataset"


def break_list(pipeline: Spec) -> None:
    del pipeline["components"]["comp-select-model"]["inputDefinitions"]["artifacts"]["models"]["isArtifactList"]


def break_parameter(pipeline: Spec) -> None:
    del pipeline["root"]["inputDefinitions"]["parameters"]["train"]


def break_input(pipeline: Spec) -> None:
    del pipeline["components"]["comp-exit-handler-1"]["dag"]["tasks"]["register"]["inputs"]["artifacts"]["report"]


def break_order(pipeline: Spec) -> None:
    pipeline["components"]["comp-exit-handler-1"]["dag"]["tasks"]["dataset"]["dependentTasks"].append("register")


BREAKAGES = [
    *(break_component, break_executor, break_producer, break_type),
    *(break_list, break_parameter, break_input, break_order),
]


@pytest.mark.parametrize("damage", BREAKAGES)
def test_the_check_finds_what_does_not_hang_together(specs: tuple[Spec, Spec], damage: Callable[[Spec], None]) -> None:
    pipeline, platform = copy.deepcopy(specs)
    damage(pipeline)
    assert faults(pipeline, platform) != []


def test_every_task_runs_in_its_image_and_installs_nothing(pipeline: Spec) -> None:
    images = {name: container["image"] for name, container in containers_of(pipeline).items()}
    assert images.pop("exec-train") == TRAIN
    assert set(images.values()) == {TASKS}
    assert {name: environment(pipeline, name)["DAGNN_IMAGE"] for name in images} == images
    assert "pip install" not in json.dumps(pipeline)


def test_every_parameter_is_text_and_its_default_is_the_section(pipeline: Spec) -> None:
    parameters = pipeline["root"]["inputDefinitions"]["parameters"]
    assert {entry["parameterType"] for entry in parameters.values()} == {"STRING"}
    sections = {
        name: parse_section(SECTIONS[name], json.loads(entry["defaultValue"]), name)
        for name, entry in parameters.items()
        if name in SECTIONS
    }
    assert sections == PARAMS


def test_parameters_of_tasks_are_text(pipeline: Spec) -> None:
    kinds = {
        entry["parameterType"]
        for component in pipeline["components"].values()
        for entry in component.get("inputDefinitions", {}).get("parameters", {}).values()
    }
    assert kinds == {"STRING", "TASK_FINAL_STATUS"}


def test_artifacts_are_typed(pipeline: Spec) -> None:
    outputs = {
        (component.removeprefix("comp-"), name): entry["artifactType"]["schemaTitle"]
        for component, spec in pipeline["components"].items()
        for name, entry in spec.get("outputDefinitions", {}).get("artifacts", {}).items()
        if spec.get("executorLabel") in containers_of(pipeline)
    }
    assert outputs == {
        ("fetch-dataset", "raw_out"): "system.Artifact",
        ("dataset", "dataset_out"): "system.Dataset",
        ("extract-features", "features_out"): "system.Artifact",
        ("build-label-graph", "label_graph_out"): "system.Artifact",
        ("train", "model_out"): "system.Model",
        ("train", "val_metrics"): "system.Metrics",
        ("select-model", "model_out"): "system.Model",
        ("evaluate", "report_out"): "system.Artifact",
        ("evaluate", "metrics"): "system.Metrics",
        ("evaluate", "report_html"): "system.HTML",
    }


def test_nothing_is_made_of_data_that_fails_its_check(tmp_path: Path) -> None:
    options = PipelineOptions(raw=RAW, check=True, champion_dataset="s3://runs/dataset_out")
    pipeline, platform = compiled(tmp_path, options=options)
    assert faults(pipeline, platform) == []
    tasks = tasks_of(pipeline)
    for name in ("extract-features", "build-label-graph"):
        assert "check-data" in tasks[name]["dependentTasks"]
    assert set(tasks["check-data"]["inputs"]["artifacts"]) == {"dataset", "against"}
    assert set(tasks["compare"]["inputs"]["artifacts"]) == {"dataset", "model", "champion_dataset"}
    assert "compare" in tasks["register"]["dependentTasks"]
    defaults = pipeline["root"]["inputDefinitions"]["parameters"]
    assert defaults["champion_dataset"]["defaultValue"] == "s3://runs/dataset_out"
    alone = tasks_of(compiled(tmp_path, options=replace(options, champion_dataset=""))[0])
    assert set(alone["check-data"]["inputs"]["artifacts"]) == {"dataset"} and "compare" not in alone


def test_what_looks_outside_is_never_cached(pipeline: Spec) -> None:
    uncached = {name for name, task in tasks_of(pipeline).items() if not task["cachingOptions"].get("enableCache")}
    assert uncached == {"compare", "register", "promote", "record-outcome"}


def test_raw_data_that_has_no_digest_is_never_cached(tmp_path: Path) -> None:
    pipeline, _ = compiled(tmp_path, options=PipelineOptions(raw=RawDataVersion(uri="s3://dagnn/photos")))
    assert not tasks_of(pipeline)["fetch-dataset"]["cachingOptions"].get("enableCache")


def test_every_task_has_a_name_to_show_and_limits(pipeline: Spec) -> None:
    names = {task["taskInfo"]["name"] for task in tasks_of(pipeline).values()}
    assert names == {step.title for name, step in STEPS.items() if name not in ELSEWHERE}
    for container in containers_of(pipeline).values():
        resources = container["resources"]
        for kind in ("Cpu", "Memory"):
            for bound in ("Request", "Limit"):
                assert resources[f"resource{kind}{bound}"]
    train = pipeline["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]
    assert train["resourceMemoryLimit"] == TARGET.train.memory_limit


def test_tasks_are_tried_again_where_that_is_sound(pipeline: Spec) -> None:
    retries = {name: task.get("retryPolicy") for name, task in tasks_of(pipeline).items()}
    assert {name for name, policy in retries.items() if policy is None} == {"promote", "record-outcome"}
    for name, policy in retries.items():
        if policy:
            assert policy["maxRetryCount"] == (3 if name == "train" else 2)
            assert (policy["backoffDuration"], policy["backoffFactor"]) == ("30s", 2.0)


@pytest.mark.parametrize("cluster", sorted(path.stem for path in (ROOT / FOLDER).glob("*.yaml")))
def test_every_task_has_a_time_limit_and_the_time_for_all_of_its_attempts(cluster: str, tmp_path: Path) -> None:
    target = read_target(str(ROOT / FOLDER / f"{cluster}.yaml"))
    pipeline, platform = compiled(tmp_path, target)
    tasks = tasks_of(pipeline)
    assert set(tasks) == {name.replace("_", "-") for name in STEPS if name not in ELSEWHERE}
    for name, task in tasks.items():
        limit = int(kubernetes_of(platform)[f"exec-{name}"]["activeDeadlineSeconds"])
        assert limit > 2 * target.backend_patience, name
        if policy := task.get("retryPolicy"):
            first, factor = int(policy["backoffDuration"].removesuffix("s")), policy["backoffFactor"]
            waits = sum(first * factor**attempt for attempt in range(policy["maxRetryCount"]))
            budget = int(policy["backoffMaxDuration"].removesuffix("s"))
            assert budget >= limit * (policy["maxRetryCount"] + 1) + waits, name


def test_the_tasks_that_use_a_backend_know_how_long_to_wait_for_it(tmp_path: Path) -> None:
    pipeline, _ = compiled(tmp_path, replace(TARGET, backend_patience=90))
    patience = {}
    for name, container in containers_of(pipeline).items():
        variables = {entry["name"]: entry["value"] for entry in container.get("env", [])}
        patience[name.removeprefix("exec-")] = variables.get("DAGNN_BACKEND_PATIENCE")
    waiting = {name for name, seconds in patience.items() if seconds == "90"}
    assert waiting == {"fetch-dataset", "train", "evaluate", "compare", "register", "promote", "record-outcome"}
    assert {seconds for name, seconds in patience.items() if name not in waiting} == {None}


def test_the_training_gets_gpus_time_and_checkpoints(pipeline: Spec, kubernetes: Spec) -> None:
    for name, container in containers_of(pipeline).items():
        assert ("accelerator" in container["resources"]) == (name == "exec-train")
        assert ("nodeSelector" in kubernetes[name]) == (name == "exec-train")
        assert ("tolerations" in kubernetes[name]) == (name == "exec-train")
    accelerator = pipeline["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]["accelerator"]
    assert (accelerator["resourceType"], accelerator["resourceCount"]) == ("nvidia.com/gpu", "1")
    train = kubernetes["exec-train"]
    assert train["nodeSelector"]["labels"] == {"gpu": "h100", "zone": "a"}
    assert train["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert train["activeDeadlineSeconds"] == "86400"
    assert pipeline["root"]["inputDefinitions"]["parameters"]["checkpoints"]["defaultValue"] == TARGET.checkpoints


def test_without_gpus_nothing_is_asked_of_nodes(tmp_path: Path) -> None:
    pipeline, platform = compiled(tmp_path, target=replace(TARGET, gpu=replace(GPU, count=0)))
    text = json.dumps([pipeline, platform])
    assert not any(word in text for word in ("accelerator", "nodeSelector", "tolerations"))


def test_tasks_that_compute_have_shared_memory(kubernetes: Spec) -> None:
    with_memory = {name for name, entry in kubernetes.items() if "emptyDirMounts" in entry}
    light = ("fetch-dataset", "select-model", "register", "record-outcome")
    assert with_memory == set(kubernetes) - {f"exec-{name}" for name in light}
    mount = {"volumeName": "shared-memory", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": "2Gi"}
    assert kubernetes["exec-train"]["emptyDirMounts"] == [mount]


def test_credentials_are_references_and_go_only_where_they_are_needed(pipeline: Spec, kubernetes: Spec) -> None:
    mlflow = {
        "MLFLOW_TRACKING_USERNAME": ("mlflow-tasks", "username"),
        "MLFLOW_TRACKING_PASSWORD": ("mlflow-tasks", "password"),
    }
    s3 = {
        "AWS_ACCESS_KEY_ID": ("s3-credentials", "access-key"),
        "AWS_SECRET_ACCESS_KEY": ("s3-credentials", "secret-key"),
    }
    got = {name: secrets(kubernetes, name) for name in kubernetes}
    webhook = {"DAGNN_WEBHOOK_URL": ("webhook", "url")}
    assert [got.pop(f"exec-{name}") for name in ("promote", "record-outcome")] == [mlflow | webhook] * 2
    assert got.pop("exec-train") == mlflow | s3
    assert got.pop("exec-fetch-dataset") == s3
    assert [got.pop(f"exec-{name}") for name in ("evaluate", "compare", "register")] == [mlflow] * 3
    without = ("dataset", "check-data", "extract-features", "build-label-graph", "select-model")
    assert set(got) == {f"exec-{name}" for name in without}
    assert not any(got.values())
    plain = {name for executor in kubernetes for name in environment(pipeline, executor)}
    assert not plain & {*mlflow, *s3, "DAGNN_WEBHOOK_URL"}


def test_the_exit_handler_alone_asks_kubeflow(pipeline: Spec, kubernetes: Spec) -> None:
    asking = [name for name in kubernetes if "DAGNN_KUBEFLOW_URL" in environment(pipeline, name)]
    assert asking == ["exec-record-outcome"]
    assert environment(pipeline, asking[0])["DAGNN_KUBEFLOW_URL"] == "http://ml-pipeline.kubeflow:8888"


def test_addresses_are_in_the_environment(pipeline: Spec, kubernetes: Spec) -> None:
    train = environment(pipeline, "exec-train")
    assert train["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert train["MLFLOW_EXPERIMENT_NAME"] == "images"
    assert train["AWS_ENDPOINT_URL_S3"] == "https://s3.example.org"
    for name in ("train", "evaluate", "register", "promote", "record-outcome"):
        assert direct_transfer(pipeline, f"exec-{name}") == {"false"}, "MLflow may name a store that no task reaches"
    assert train["AWS_REQUEST_CHECKSUM_CALCULATION"] == "when_required"
    for executor in kubernetes.values():
        assert executor["fieldPathAsEnv"] == [
            {"name": "DAGNN_PIPELINE_RUN", "fieldPath": "metadata.labels['pipeline/runid']"}
        ]


def test_tasks_go_past_the_mlflow_server_where_the_cluster_says_so(tmp_path: Path) -> None:
    pipeline, _ = compiled(tmp_path, target=replace(TARGET, mlflow_direct_s3=True))
    assert direct_transfer(pipeline, "exec-register") == {"true"}


def direct_transfer(pipeline: Spec, executor: str) -> set[str]:
    variables = environment(pipeline, executor)
    return {variables[f"MLFLOW_ENABLE_PROXY_MULTIPART_{way}"] for way in ("DOWNLOAD", "UPLOAD")}


def test_no_task_has_the_id_of_the_run_among_its_inputs(pipeline: Spec) -> None:
    assert "pipeline_job" not in json.dumps(pipeline), "it would never be found in the cache"


def test_one_seed_makes_no_loop(tmp_path: Path) -> None:
    pipeline, _ = compiled(tmp_path, options=PipelineOptions(seeds=(7,)))
    assert pipeline["root"]["inputDefinitions"]["parameters"]["seed"]["defaultValue"] == "7"
    assert "parameterIterator" not in json.dumps(pipeline)


def test_several_seeds_make_a_loop_of_trainings(pipeline: Spec) -> None:
    tasks = pipeline["components"]["comp-exit-handler-1"]["dag"]["tasks"].values()
    (loop,) = [task for task in tasks if "parameterIterator" in task]
    assert json.loads(loop["parameterIterator"]["items"]["raw"]) == ["103", "104", "105"]


def test_shards_of_the_features_make_a_loop_of_extractions_that_begin_after_the_check(tmp_path: Path) -> None:
    pipeline, platform = compiled(tmp_path, shards=3)
    assert faults(pipeline, platform) == []
    tasks = pipeline["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    loops = {task["parameterIterator"]["items"]["raw"]: task for task in tasks.values() if "parameterIterator" in task}
    loop = loops['["0", "1", "2"]']
    assert "check-data" in loop["dependentTasks"]
    assert list(tasks["extract-features"]["inputs"]["artifacts"]) == ["dataset", "shards"]
    shard = tasks_of(pipeline)["extract-shard"]
    assert shard["cachingOptions"] == {"enableCache": True} and shard["retryPolicy"]["maxRetryCount"] == 2


@pytest.mark.parametrize("root", ["s3://images/runs", "minio://images/runs"])
def test_shards_read_the_data_set_by_range_where_runs_store_it_in_s3(tmp_path: Path, root: str) -> None:
    pipeline, platform = compiled(tmp_path, replace(TARGET, pipeline_root=root), shards=3)
    assert faults(pipeline, platform) == []
    tasks = tasks_of(pipeline)
    in_s3 = root.startswith("s3://")
    for name in ("extract-shard", "extract-features"):
        inputs = tasks[name]["inputs"]
        assert ("dataset" in inputs.get("artifacts", {})) != in_s3
        given = {"dataset_uri", "dataset_digest"} & set(inputs["parameters"])
        assert given == ({"dataset_uri", "dataset_digest"} if in_s3 else set())
        env = environment(pipeline, f"exec-{name}")
        assert (env.get("AWS_ENDPOINT_URL_S3") == "https://s3.example.org") == in_s3
        assert ("DAGNN_BACKEND_PATIENCE" in env) == in_s3
        assert ("AWS_SECRET_ACCESS_KEY" in secrets(kubernetes_of(platform), f"exec-{name}")) == in_s3
    if in_s3:
        made = {
            name: tasks["extract-features"]["inputs"]["parameters"][f"dataset_{name}"] for name in ("uri", "digest")
        }
        assert {name: entry["taskOutputParameter"] for name, entry in made.items()} == {
            name: {"producerTask": "dataset", "outputParameterKey": name} for name in made
        }
        alone = tasks_of(compiled(tmp_path, replace(TARGET, pipeline_root=root))[0])["extract-features"]["inputs"]
        assert list(alone["artifacts"]) == ["dataset"] and "dataset_uri" not in alone["parameters"]
    assert "dataset" in tasks["evaluate"]["inputs"]["artifacts"]


def test_manifests_for_kubernetes_hold_the_same_pipeline(tmp_path: Path, specs: tuple[Spec, Spec]) -> None:
    out = tmp_path / "manifests.yaml"
    images = Images(TASKS, TRAIN)
    write_pipeline(out, images=images, params=PARAMS, target=TARGET, options=WHOLE, kubernetes_native=True)
    pipeline, version = yaml.load_all(out.read_text(), Loader=FAST_LOADER)
    assert (pipeline["kind"], pipeline["metadata"]["name"]) == ("Pipeline", "dagnn")
    assert version["kind"] == "PipelineVersion"
    assert version["spec"]["pipelineName"] == "dagnn"
    assert (version["spec"]["pipelineSpec"], version["spec"]["platformSpec"]) == specs
    write_pipeline(out, images=images, params=PARAMS, target=TARGET, kubernetes_native=True)
    _, other = yaml.load_all(out.read_text(), Loader=FAST_LOADER)
    names = [entry["metadata"]["name"] for entry in (version, other)]
    assert all(name.startswith("dagnn-") for name in names)
    assert names[0] != names[1], "a version never changes"


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(seeds=st.lists(st.integers(0, 2**31), max_size=4, unique=True), promote=st.booleans(), gpus=st.integers(0, 8))
def test_any_choice_compiles_and_hangs_together(seeds: list[int], promote: bool, gpus: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        options = PipelineOptions(seeds=tuple(seeds), promote=promote)
        pipeline, platform = compiled(
            Path(folder), target=replace(TARGET, gpu=replace(GPU, count=gpus)), options=options
        )
    assert faults(pipeline, platform) == []


def test_a_seed_named_twice_is_refused() -> None:
    with pytest.raises(InputError, match="seeds must differ, got 103, 103"):
        PipelineOptions(seeds=(103, 103))


@pytest.mark.parametrize("cluster", ["kind", "gpu-cluster"])
def test_the_shipped_clusters_compile(tmp_path: Path, cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    compile_pipeline(tmp_path / "pipeline.yaml", image=TASKS, target=cluster)
    pipeline, platform = read_specs(tmp_path / "pipeline.yaml")
    assert faults(pipeline, platform) == []
    gpus = "accelerator" in json.dumps(pipeline)
    assert gpus == (cluster == "gpu-cluster")


def test_data_under_dvc_is_found_by_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos.dvc").write_text(f"outs:\n- {{md5: {MD5}, size: 5, hash: md5, path: photos}}\n")
    identity = ["-c", "user.name=test", "-c", "user.email=test"]
    run: Callable[..., Any] = lambda *command: subprocess.run(command, check=True, capture_output=True)  # noqa: E731
    run("git", "init", "--quiet")
    Path(".dvc").mkdir()  # as `dvc init` and `dvc remote add` leave it
    Path(".dvc/config").touch()
    commit = ("git", *identity, "commit", "--quiet", "--all", "--message", "Test")
    run("git", "add", ".")
    run(*commit)
    arguments: dict[str, Any] = {"image": TASKS, "params": ROOT / "params.yaml", "data": "photos"}
    arguments["target"] = str(ROOT / "configs/clusters/kind.yaml")
    out = Path("pipeline.yaml")
    with pytest.raises(InputError, match=r"the DVC remote of 'photos' at HEAD is .*/\.dvc/cache, expected s3://"):
        compile_pipeline(out, **arguments)
    assert not out.exists()
    Path(".dvc/config").write_text("[core]\n    remote = storage\n['remote \"storage\"']\n    url = s3://dagnn/dvc\n")
    run(*commit)
    compile_pipeline(out, **arguments)
    pipeline, _ = read_specs(out)
    defaults = {
        name: entry["defaultValue"] for name, entry in pipeline["root"]["inputDefinitions"]["parameters"].items()
    }
    head = run("git", "rev-parse", "HEAD").stdout.decode().strip()
    assert (defaults["data_md5"], defaults["data_remote"]) == (MD5, "s3://dagnn/dvc")
    assert (defaults["data_revision"], defaults["data_path"]) == (head, "photos")
    with pytest.raises(InputError, match=r"'none' is not in"):
        compile_pipeline(out, **arguments | {"data": "none"})


@pytest.mark.parametrize("images", [None, Images(TASKS, TRAIN)])
def test_on_this_machine_there_is_nothing_of_a_cluster(tmp_path: Path, images: Images | None) -> None:
    out = tmp_path / "pipeline.yaml"
    Compiler().compile(build_pipeline(images=images, params=PARAMS), package_path=str(out))
    (pipeline,) = yaml.load_all(out.read_text(), Loader=FAST_LOADER)  # no platform
    assert set(tasks_of(pipeline)) == {*STAGES, "register"}
    assert set(pipeline["root"]["outputDefinitions"]["artifacts"]) == {"model", "report"}
    assert set(pipeline["root"]["outputDefinitions"]["parameters"]) == {"name", "version"}
    for name, executor in pipeline["deploymentSpec"]["executors"].items():
        container = executor["container"]
        assert "resources" not in container
        variables = {entry["name"]: entry["value"] for entry in container.get("env", [])}
        expected = {"DAGNN_IMAGE": TRAIN if name == "exec-train" else TASKS}
        assert variables == (expected if images else {})


class TestWrongInput:
    """One clear line each, exit status 2, and no file."""

    def compile(self, folder: Path, *arguments: str) -> str:
        done = forked.run("pipeline.cli.main", "compile", folder / "build/pipeline.yaml", *arguments)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert not (folder / "build").exists()
        return line

    def test_an_image_without_digest(self, tmp_path: Path) -> None:
        assert "error: image dagnn:latest: expected NAME@sha256:" in self.compile(tmp_path, "--image", "dagnn:latest")

    def test_params_that_do_not_validate(self, tmp_path: Path) -> None:
        (tmp_path / "params.yaml").write_text("train: {lr: fast}\n")
        line = self.compile(tmp_path, "--image", TASKS, "--params", str(tmp_path / "params.yaml"))
        assert line.endswith("train.lr must be a finite number, got 'fast'; correct it there")

    def test_an_unknown_cluster(self, tmp_path: Path) -> None:
        line = self.compile(tmp_path, "--image", TASKS, "--target", "moon")
        assert line == (
            "error: configs/clusters/moon.yaml does not exist, expected a cluster (gpu-cluster, kind, private-cluster) "
            "or the path of a YAML file"
        )

    def test_a_name_that_is_not_yaml(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"pipeline\.json: a compiled pipeline is a YAML file"):
            write_pipeline(tmp_path / "pipeline.json", images=Images(TASKS, TRAIN), params=PARAMS, target=TARGET)


def test_no_credentials_are_in_what_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://key:Zw9q@s3.example.org")
    target = replace(TARGET, s3_endpoint_url="", mlflow_uri="http://mlflow:5000")
    raw = RAW._replace(endpoint_url=_endpoint_of_tasks(target, ""), repository="https://example.org/x.git")
    params = {
        **PARAMS,
        "register": replace(PARAMS["register"], data_licence="see https://me:Zw9q@example.org/?token=Zw9q"),
    }
    out = tmp_path / "pipeline.yaml"
    options = replace(WHOLE, raw=raw)
    write_pipeline(out, images=Images(TASKS, TRAIN), params=params, target=target, options=options)
    text = out.read_text()
    assert "Zw9q" not in text and "https://s3.example.org" in text and "see https://example.org/?token=***" in text


@pytest.mark.parametrize("name", ["mlflow_uri", "s3_endpoint_url", "data_endpoint_url"])
@pytest.mark.parametrize("url", ["http://me:Zw9q@host", "http://host/?token=Zw9q", "http://Zw9q@host"])
def test_a_cluster_has_no_credentials(name: str, url: str) -> None:
    with pytest.raises(InputError, match=rf"{name} must be without credentials: name (mlflow|s3)_secret") as raised:
        replace(TARGET, **{name: url})
    assert "Zw9q" not in str(raised.value)
