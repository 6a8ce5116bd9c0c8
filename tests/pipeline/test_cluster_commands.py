"""The commands `dagnn submit`, `follow` and `doctor`, whole: what they print, make and exit with.

A contract test, not a cluster: see `test_submit`.
"""

import hashlib
import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from components.services.tracking.mlflow import Tracking
from tests.components.services.data_versions.test_repository import Project, Pushed, make_source
from tests.fixtures import forked
from tests.fixtures.s3 import SECRET, Bucket, make_bucket
from tests.pipeline.conftest import COMMIT, IMAGE, ROOT, Dagnn
from tests.pipeline.kfp_server import KubeflowServer
from tests.pipeline.kubernetes_server import Kubernetes
from tests.pipeline.specs import read_specs
from tests.pipeline.test_follow import states
from tests.pipeline.trainer_server import rights_of_role

pytestmark = pytest.mark.usefixtures("no_cluster")
TOKEN = "token-that-nobody-shall-see"


def test_submit_prints_where_to_look(server: KubeflowServer, dagnn: Dagnn, monkeypatch: pytest.MonkeyPatch) -> None:
    server.page = True
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:word@localhost:5000")
    done = dagnn("submit", "--experiment", "nightly")
    assert (done.status, done.error) == (0, "")
    (run_id,) = server.runs
    lines = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert lines["page"] == f"{server.url}/#/runs/details/{run_id}"
    assert lines["mlflow"] == "http://localhost:5000"  # the user's: the tasks' is known in the cluster alone
    assert lines["version"].startswith("0.1.0-c0ffeec0ffee-")
    assert lines["experiment"] == "nightly" and lines["run_id"] == run_id


def test_submit_prints_no_page_or_server_that_is_not_there(server: KubeflowServer, dagnn: Dagnn) -> None:
    done = dagnn("submit")
    assert done.status == 0 and "page" not in done.out and "mlflow" not in done.out
    facts = json.loads(dagnn("submit", "--json").out)
    assert facts["page"] is None and facts["mlflow"] is None


def test_submit_tells_the_server_what_the_target_says(server: KubeflowServer, dagnn: Dagnn) -> None:
    set_target(pipeline_root="s3://images/runs", experiment="images", pod_labels=["team=images"])
    assert dagnn("submit").status == 0
    (run,), (version,) = server.runs.values(), server.versions.values()
    assert run["plugins_input"] == {"mlflow": {"experiment_name": "images"}}
    assert run["runtime_config"]["pipeline_root"] == "s3://images/runs"
    executors = version["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert all(executor["podMetadata"] == {"labels": {"team": "images"}} for executor in executors.values())
    set_target(kubeflow_mlflow=False)
    assert dagnn("submit").status == 0
    assert list(server.runs.values())[1]["plugins_input"] == {"mlflow": {"disabled": True}}


def test_submit_refuses_a_cluster_that_lacks_what_the_target_names(
    server: KubeflowServer, dagnn: Dagnn, kubernetes: Kubernetes
) -> None:
    kubernetes.secrets = ["s3-credentials", "mlflow-tasks"]
    set_target(namespace="team", image_pull_secrets=["registry"], scratch={"size": "9Gi", "storage_class": "fast"})
    done = dagnn("submit")
    assert done.status == 2 and "secret registry in namespace team" in done.error and "does not exist" in done.error
    kubernetes.secrets += ["registry"]
    done = dagnn("submit")
    assert done.status == 2 and "storage class fast of http" in done.error
    assert server.created == []
    kubernetes.storage_classes = {"fast": False}
    assert dagnn("submit").status == 0


class TestNodes:
    @pytest.fixture(autouse=True)
    def cluster(self, dagnn: Dagnn, kubernetes: Kubernetes) -> None:
        """A cluster with all that a training on several nodes takes."""
        set_target(namespace="team", s3_secret="", mlflow_secret="", gpu={"count": 1})
        kubernetes.trainer, kubernetes.rights = True, {"default-editor": rights_of_role()}

    def test_submit_trains_on_as_many(self, server: KubeflowServer, dagnn: Dagnn) -> None:
        assert dagnn("submit", "--nodes", "3").status == 0
        (version,) = server.versions.values()
        (train,) = (
            executor["container"]
            for name, executor in version["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"].items()
            if name == "exec-train"
        )
        template = json.loads({entry["name"]: entry["value"] for entry in train["env"]}["DAGNN_TRAIN_JOB"])
        assert (template["nodes"], template["processes"]) == (3, 1)

    @pytest.mark.parametrize(
        ("options", "status", "message"),
        [
            (("--nodes", "0"), 2, "--nodes must be >= 1, got 0"),
            (("--nodes", "-1"), 2, "--nodes must be >= 1, got -1"),
            (("--nodes", "2", "--service-account", "other"), 2, "the account other in namespace team must not create"),
        ],
    )
    def test_submit_refuses(
        self, server: KubeflowServer, dagnn: Dagnn, options: tuple[str, ...], status: int, message: str
    ) -> None:
        done = dagnn("submit", *options)
        assert done.status == status and message in done.error and done.error.count("\n") == 1
        assert server.created == []

    def test_submit_refuses_a_cluster_that_lacks_something(
        self, server: KubeflowServer, dagnn: Dagnn, kubernetes: Kubernetes
    ) -> None:
        kubernetes.trainer = False
        done = dagnn("submit", "--nodes", "2")
        assert done.status == 2 and "Kubeflow Trainer is not installed on http" in done.error
        assert dagnn("submit").status == 0, "one process does without"
        set_target(gpu={"count": 0})
        done = dagnn("compile", "--nodes", "2")
        message = "train.nodes is 2 and gpu.count 0, expected a GPU for each node; set gpu.count in the target, or"
        assert done.status == 2 and message in done.error

    def test_doctor_looks_for_it(self, dagnn: Dagnn) -> None:
        set_target(gpu={"count": 2})
        checks = {check["name"]: check for check in json.loads(dagnn("doctor", "--json").out)}
        assert checks["trainer"]["status"] == checks["trainer rights"]["status"] == "ok"


class TestTargets:
    def test_check_shows_what_each_size_asks_for(self, dagnn: Dagnn) -> None:
        done = dagnn("targets", "check", str(ROOT / "configs/clusters/private-cluster.yaml"))
        rows = {line.split("   ")[0].strip(): line.split("   ", 1)[1].split() for line in done.out.splitlines() if line}
        assert (done.status, done.error) == (0, "")
        assert rows["nodes"] == ["pool=general", "pool=memory", "pool=gpu,", "nvidia.com/mig.strategy=mixed"]
        assert rows["gpus"] == ["-", "-", "nvidia.com/mig-3g.40gb=1"]
        assert rows["/tmp"] == ["200Gi", "fast-disks"] * 3
        assert rows["secret_env"] == ["HF_TOKEN", "from", "hugging-face/token"]
        assert rows["kubeflow_mlflow"] == ["experiment_name=images"]

    def test_check_as_json(self, dagnn: Dagnn) -> None:
        facts = json.loads(dagnn("targets", "check", "kind", "--json").out)
        assert facts["sizes"]["train"]["memory"] == {"request": "1Gi", "limit": "4Gi"}
        assert facts["sizes"]["train"]["pods"] == 1
        assert facts["sizes"]["heavy"]["/dev/shm"] == "1Gi" and facts["sizes"]["light"]["/dev/shm"] == ""
        assert facts["sizes"]["light"]["secret_env"][0] == "AWS_ACCESS_KEY_ID from s3-credentials/access-key"
        assert facts["sizes"]["light"]["env"]["MLFLOW_TRACKING_URI"] == "http://mlflow.dagnn:5000"

    def test_check_of_a_faulty_file(self, dagnn: Dagnn) -> None:
        Path("mine.yaml").write_text("mlflow_uri: http://m\nscratch: {sizes: 9Gi}\n")
        done = dagnn("targets", "check", "mine.yaml")
        assert (done.status, done.out) == (2, "")
        assert done.error.startswith("error: mine.yaml: unknown key mine.scratch.sizes; did you mean 'size'?")
        assert dagnn("targets", "check", "moon").status == 2


def test_submit_twice_in_a_row(server: KubeflowServer, dagnn: Dagnn) -> None:
    assert dagnn("submit").status == dagnn("submit").status == 0
    assert (len(server.versions), len(server.runs)) == (1, 2)


def test_submit_as_json(server: KubeflowServer, dagnn: Dagnn) -> None:
    facts = json.loads(dagnn("submit", "--json", "--no-cache", "--service-account", "dagnn-tasks").out)
    (run,) = server.runs.values()
    assert facts["run_id"] == run["run_id"] and facts["run"] == run["display_name"]
    (version,) = server.versions.values()
    assert "enableCache" not in json.dumps(version["pipeline_spec"])


def test_wait_exits_as_the_run_ends(server: KubeflowServer, dagnn: Dagnn) -> None:
    server.states = [{"state": "SUCCEEDED"}]
    assert dagnn("submit", "--wait").status == 0
    server.states = [{"state": "FAILED", "error": {"code": 2, "message": "no pod could be started"}}]
    done = dagnn("submit", "--wait")
    assert done.status == 1
    assert "failed (no pod could be started)" in done.error and len(done.error.splitlines()) == 1
    run_id = list(server.runs)[1]
    assert dagnn("follow", run_id).status == 1
    assert dagnn("follow", "nothing").status == 2
    assert dagnn("follow", run_id, "--host", "http://127.0.0.1:1").status == 3


def test_recurring(server: KubeflowServer, dagnn: Dagnn) -> None:
    server.page = True
    done = dagnn("submit", "--recurring", "30 2 * * MON-FRI")
    (recurring_id,) = server.recurring_runs
    assert f"{server.url}/#/recurringrun/details/{recurring_id}" in done.out
    assert "dagnn at 0 30 2 * * MON-FRI" in done.out
    again = dagnn("submit", "--recurring", "30 2 * * MON-FRI")
    assert again.status == 2 and "is there already, and would run twice" in again.error


def test_a_dry_run(server: KubeflowServer, dagnn: Dagnn) -> None:
    done = dagnn("submit", "--dry-run")
    assert done.status == 0 and done.out.endswith("nothing was made: --dry-run\n")
    assert server.created == [] and "PipelineService_ListPipelines" in server.requests


def test_a_token_of_the_environment_or_a_file(
    server: KubeflowServer, dagnn: Dagnn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.token = TOKEN
    refused = dagnn("submit")
    assert refused.status == 3 and "wants a token or cookies (401" in refused.error
    (tmp_path / "token").write_text(TOKEN)
    assert dagnn("submit", "--token", str(tmp_path / "token")).status == 0
    monkeypatch.setenv("DAGNN_KFP_TOKEN", TOKEN)
    assert dagnn("submit").status == 0
    server.token = "another"
    refused = dagnn("submit", "--debug")
    assert refused.status == 3 and "Traceback" in refused.error and TOKEN not in refused.out + refused.error


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--host", ""], 2, "no server is named, expected the URL of Kubeflow Pipelines; give --host"),
        (["--host", "http://127.0.0.1:1"], 3, "Kubeflow at http://127.0.0.1:1 cannot be reached"),
        (["--image", "registry.example/dagnn:latest"], 2, "expected NAME@sha256:..., which a cluster can pull"),
        (["--target", "moon"], 2, "configs/clusters/moon.yaml does not exist, expected a cluster"),
        (["--params", "none.yaml"], 2, "none.yaml does not exist, expected a YAML file"),
        (["--recurring", "0 25 * * *"], 2, "'25' is no hour: expected 0 to 23"),
        (["--recurring", "0 2 * * *", "--wait"], 2, "--wait follows a run that starts now"),
        (["--token", "none"], 2, "--token names no file with one line of text"),
        (["--data", "data/photos"], 2, "at HEAD cannot be opened"),
        (["--data", "../x"], 2, "'../x' leads out of the folder"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_made(
    server: KubeflowServer, dagnn: Dagnn, arguments: list[str], status: int, message: str
) -> None:
    done = dagnn("submit", *arguments)
    assert done.status == status
    assert message in done.error and done.error.count("\n") == 1, done.error
    assert server.created == []


def test_params_and_images_are_checked_before_the_server_is_asked(
    server: KubeflowServer, dagnn: Dagnn, tmp_path: Path
) -> None:
    (tmp_path / "params.yaml").write_text("train: {lr: fast}\n")
    done = dagnn("submit")
    assert done == (2, "", "error: params.yaml: train.lr must be a finite number, got 'fast'; correct it there\n")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "infra/images.json").write_text(json.dumps({"cpu": "sha256:" + "1" * 64}))
    assert "expected NAME@sha256:..., which a cluster can pull" in dagnn("submit").error
    (tmp_path / "infra/images.json").unlink()
    assert "`make images` builds the images" in dagnn("submit").error
    assert server.requests == []


def test_images_of_another_commit(server: KubeflowServer, dagnn: Dagnn, tmp_path: Path) -> None:
    (tmp_path / "infra/images.json").write_text(json.dumps({"commit": "0" * 40, "cpu": IMAGE}))
    done = dagnn("submit")
    assert done.status == 2 and not server.runs
    assert done.error == (
        f"error: infra/images.json has images of 000000000000, but the checkout is at {COMMIT[:12]}; "
        "run `make images` again, or add --allow-dirty\n"
    )
    assert dagnn("submit", "--image", IMAGE).status == 0
    assert dagnn("submit", "--allow-dirty").status == 0


def test_a_dirty_checkout(server: KubeflowServer, dagnn: Dagnn, monkeypatch: pytest.MonkeyPatch) -> None:
    git = {"commit": "c0ffee" * 6 + "c0ff", "dirty": True}
    monkeypatch.setattr("components.services.lineage.provenance.git_state", lambda: git)
    done = dagnn("submit")
    assert done.status == 2 and "or add --allow-dirty" in done.error
    assert server.requests == []
    assert "-dirty-" in dagnn("submit", "--allow-dirty").out


def test_a_secret_that_is_missing(server: KubeflowServer, dagnn: Dagnn, kubernetes: Kubernetes) -> None:
    arguments = ("submit", "--namespace", "team")
    done = dagnn(*arguments)
    assert done.status == 2 and done.error.startswith("error: secret s3-credentials in namespace team of http://")
    assert server.requests == []
    assert "in namespace kubeflow of" in dagnn("submit").error  # that of the target
    kubernetes.secrets = ["s3-credentials", "mlflow-tasks"]
    assert dagnn(*arguments).status == 0


def test_the_namespace_of_the_target_is_that_of_a_server_with_many_users(server: KubeflowServer, dagnn: Dagnn) -> None:
    server.multi_user = True
    assert dagnn("submit", "--target", "gpu-cluster").status == 0
    assert dagnn("submit", "--target", "gpu-cluster", "--namespace", "team").status == 0
    assert [entry["namespace"] for entry in server.experiments.values()] == ["dagnn", "team"]


def test_logs(server: KubeflowServer, dagnn: Dagnn) -> None:
    run_id = json.loads(dagnn("submit", "--json").out)["run_id"]
    server.states = states("task_failed_exit_3")
    server.logs["dagnn-brhlq-retry-system-container-impl-3791110383"] = "[fetch_dataset] one\n[fetch_dataset] two\n"
    assert dagnn("logs", run_id, "fetch_dataset", "--tail", "1") == (0, "[fetch_dataset] two\n", "")
    assert dagnn("logs", run_id, "fetch-dataset", "--follow").out.count("\n") == 2
    done = dagnn("logs", run_id)
    assert done.status == 0 and done.out.startswith("==> fetch_dataset\n[fetch_dataset] one\n")
    unknown = dagnn("logs", run_id, "fit")
    assert unknown.status == 2 and "expected one of fetch_dataset, dataset, " in unknown.error
    assert dagnn("logs", run_id, "train", "--follow", "--attempt", "1").status == 2
    assert dagnn("logs", run_id, "--host", "http://127.0.0.1:1").status == 3


def test_ctrl_c_leaves_the_run_going(server: KubeflowServer, dagnn: Dagnn) -> None:
    run_id = json.loads(dagnn("submit", "--json").out)["run_id"]
    server.states = [{"state": "RUNNING"}]
    with forked.start("pipeline.cli.main", "follow", run_id, "--host", server.url) as process:
        deadline = time.monotonic() + 60
        while "RunService_GetRun" not in server.requests and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        done = process.wait()
    assert done.returncode == 130
    last = done.stderr.splitlines()[-1]
    assert last == f"error: interrupted; the run continues, `dagnn follow {run_id}` shows it again"


# data

IN_CLUSTER = "http://s3.dagnn:8333"
NOT_FOR_TASKS = (
    "error: the store of the raw data is {} on this machine, which tasks on a cluster cannot reach; "
    "set s3_endpoint_url of the target, or data_endpoint_url where the data has a store of its own\n"
)


def set_target(**values: object) -> None:
    """Change the cluster that commands in the current folder use."""
    file = Path("configs/clusters/kind.yaml")
    YAML().dump(YAML(typ="safe").load(file.read_text()) | values, file)


@pytest.fixture(scope="module")
def pushed_once(s3_server: str, s3_client: Any, tmp_path_factory: pytest.TempPathFactory) -> Pushed:
    root = tmp_path_factory.mktemp("pushed")
    (root / "project").mkdir()
    project = Project(root / "project")
    project.run("git", "init", "--quiet")
    project.run("dvc", "init", "--quiet")
    return Pushed(project, make_bucket(s3_server, s3_client), make_source(root / "source"))


@pytest.fixture
def pushed(pushed_once: Pushed, bucket: Bucket) -> Pushed:
    return pushed_once


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
class TestData:
    def test_is_resolved_to_commit_and_md5(self, server: KubeflowServer, dagnn: Dagnn, pushed: Pushed) -> None:
        where = ("--repository", str(pushed.project.root), "--data", "data/photos", "--dry-run", "--json")
        facts = json.loads(dagnn("submit", *where, "--revision", "HEAD~1").out)
        assert {name: value for name, value in facts.items() if name.startswith("data_")} == {
            "data_repository": str(pushed.project.root),
            "data_revision": pushed.first_commit,
            "data_path": "data/photos",
            "data_md5": pushed.first.md5,
            "data_remote": pushed.remote,
            "data_endpoint_url": IN_CLUSTER,
        }
        assert json.loads(dagnn("submit", *where).out)["data_md5"] == pushed.second.md5
        assert dagnn("submit", *where[:-2]).status == 0
        (run,) = server.runs.values()
        assert run["runtime_config"]["parameters"]["data_md5"] == pushed.second.md5
        (version,) = server.versions.values()
        assert "fetch-dataset" in json.dumps(version["pipeline_spec"]["pipeline_spec"]["components"])

    def test_what_tasks_get_is_the_address_that_they_reach(
        self, server: KubeflowServer, dagnn: Dagnn, pushed: Pushed, tmp_path: Path
    ) -> None:
        """The address of this machine, which only .dvc/config.local knows, serves the check from here."""
        clone = tmp_path / "clone"
        subprocess.run(["git", "clone", "--quiet", str(pushed.project.root), str(clone)], check=True)
        config = clone / ".dvc/config"
        shared = config.read_text()
        config.write_text(shared.replace(pushed.bucket.endpoint, "http://shared.invalid"))
        (clone / ".dvc/config.local").write_text(
            f"['remote \"storage\"']\n    endpointurl = {pushed.bucket.endpoint}\n"
        )
        submit = ("submit", "--repository", str(clone), "--data", "data/photos", "--dry-run", "--json", "--allow-dirty")
        facts = json.loads(dagnn(*submit).out)
        assert facts["data_endpoint_url"] == IN_CLUSTER
        set_target(data_endpoint_url="https://data.example.org")
        assert json.loads(dagnn(*submit).out)["data_endpoint_url"] == "https://data.example.org"
        set_target(s3_endpoint_url="", data_endpoint_url="")
        assert dagnn(*submit) == (2, "", NOT_FOR_TASKS.format(pushed.bucket.endpoint))
        assert server.created == []
        # the store of DVC's configuration is good enough where the cluster names none and tasks can reach it
        (clone / ".dvc/config.local").unlink()
        facts = json.loads(dagnn(*submit, "--allow-unpushed").out)
        assert facts["data_endpoint_url"] == "http://shared.invalid"

    def test_names_where_a_clone_comes_from(
        self, dagnn: Dagnn, pushed: Pushed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        clone = tmp_path / "clone"
        subprocess.run(["git", "clone", "--quiet", str(pushed.project.root), str(clone)], check=True)
        origin = "https://user:secret@git.example.org/project.git"
        subprocess.run(["git", "-C", str(clone), "remote", "set-url", "origin", origin], check=True)
        done = dagnn("submit", "--repository", str(clone), "--data", "data/photos", "--dry-run")
        assert "https://git.example.org/project.git" in done.out and SECRET not in done.out and "user" not in done.out

    def test_a_revision_that_does_not_exist(self, server: KubeflowServer, dagnn: Dagnn, pushed: Pushed) -> None:
        where = ("--repository", str(pushed.project.root), "--data", "data/photos")
        done = dagnn("submit", *where, "--revision", "v9")
        assert done.status == 2 and "at v9 cannot be opened" in done.error and done.error.count("\n") == 1
        assert server.requests == []

    def test_that_was_never_pushed(self, server: KubeflowServer, dagnn: Dagnn, pushed: Pushed) -> None:
        where = ("--repository", str(pushed.project.root), "--data", "data/photos")
        md5 = hashlib.md5(pushed.first_files["table.csv"]).hexdigest()
        key = f"dvc/files/md5/{md5[:2]}/{md5[2:]}"
        pushed.bucket.client.delete_object(Bucket=pushed.bucket.name, Key=key)
        try:
            done = dagnn("submit", *where, "--revision", "HEAD~1")
            assert done.status == 2 and "lacks 1 of 2 files" in done.error and "run `dvc push` where" in done.error
            assert server.requests == []
            assert dagnn("submit", *where, "--revision", "HEAD~1", "--allow-unpushed", "--dry-run").status == 0
            assert dagnn("submit", *where, "--dry-run").status == 0
        finally:
            pushed.bucket.put(key, pushed.first_files["table.csv"])

    def test_in_a_bucket_that_does_not_exist(
        self, server: KubeflowServer, dagnn: Dagnn, pushed: Pushed, tmp_path: Path
    ) -> None:
        clone = Project(tmp_path / "clone")
        subprocess.run(["git", "clone", "--quiet", str(pushed.project.root), str(clone.root)], check=True)
        config = clone.root / ".dvc/config"
        config.write_text(config.read_text().replace(pushed.bucket.name, "no-such-bucket"))
        clone.commit()
        done = dagnn("submit", "--repository", str(clone.root), "--data", "data/photos")
        assert done.status == 2 and "the bucket of s3://no-such-bucket does not exist" in done.error
        config.write_text("[core]\n    remote = storage\n['remote \"storage\"']\n    url = /mnt/dvc\n")
        clone.commit()
        done = dagnn("submit", "--repository", str(clone.root), "--data", "data/photos")
        assert done.status == 2 and "is /mnt/dvc, expected s3://bucket/prefix" in done.error
        assert server.requests == []


def test_data_that_is_not_under_dvc(
    server: KubeflowServer, dagnn: Dagnn, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.endpoint)
    uri = f"{bucket.uri}/raw/photos"
    done = dagnn("submit", "--data", uri)
    assert done == (2, "", f"error: {uri} has no files, expected raw data; check bucket and prefix\n")
    done = dagnn("submit", "--data", "s3://no-such-bucket/raw")
    assert done.status == 2 and "the bucket of s3://no-such-bucket/raw does not exist" in done.error
    assert server.requests == []
    bucket.put("raw/photos/table.csv", b"id,text\n")
    facts = json.loads(dagnn("submit", "--data", uri, "--dry-run", "--json").out)
    assert (facts["data_uri"], facts["data_endpoint_url"]) == (uri, IN_CLUSTER)
    assert dagnn("compile", "pipeline.yaml", "--data", uri).status == 0
    pipeline, _ = read_specs(Path("pipeline.yaml"))
    defaults = pipeline["root"]["inputDefinitions"]["parameters"]
    assert defaults["data_endpoint_url"]["defaultValue"] == IN_CLUSTER
    set_target(s3_endpoint_url="")
    for command in (("submit",), ("compile", "pipeline.yaml")):
        done = dagnn(*command, "--data", uri)
        assert (done.status, done.error) == (2, NOT_FOR_TASKS.format(bucket.endpoint))
    assert server.created == []


def test_doctor(server: KubeflowServer, dagnn: Dagnn) -> None:
    server.page = True
    done = dagnn("doctor")
    assert done.status == 1
    assert done.error == "error: 1 of 13 checks failed: dvc remote\n"
    assert f"ok       kubeflow               {server.url} is Kubeflow Pipelines 2.17.0, and takes" in done.out
    checks = {check["name"]: check for check in json.loads(dagnn("doctor", "--json").out)}
    assert checks["dvc remote"]["remedy"] == "go to one, or mend .dvc/config"
    assert checks["gpu"]["status"] == "skipped"
    assert server.created == []


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
class TestRetrain:
    @pytest.fixture
    def tracking(self, empty_database: Path, tmp_path: Path, dagnn: Dagnn, monkeypatch: pytest.MonkeyPatch) -> Tracking:
        shutil.copy(empty_database, tmp_path / "mlflow.db")
        tracking = Tracking(uri=f"sqlite:///{tmp_path}/mlflow.db")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
        return tracking

    @pytest.fixture
    def retrain(self, pushed: Pushed) -> tuple[str, ...]:
        return ("retrain", "--target", "kind", "--repository", str(pushed.project.root), "--data", "data/photos")

    def test_new_data_is_submitted_with_its_check_and_a_second_start_joins(
        self, *, server: KubeflowServer, dagnn: Dagnn, tracking: Tracking, pushed: Pushed, retrain: tuple[str, ...]
    ) -> None:
        tracking.client.create_registered_model("dagnn")
        uri = "s3://runs/dataset/dataset_out"
        tracking.client.create_model_version("dagnn", source="file:///nowhere", tags={"dataset_uri": uri})
        tracking.client.set_registered_model_alias("dagnn", "champion", "1")
        done = dagnn(*retrain, "--promote", "--accept-drift")
        assert (done.status, done.error) == (0, "")
        (run,) = server.runs.values()
        given = run["runtime_config"]["parameters"]
        assert (given["data_md5"], given["champion_dataset"], given["accept_drift"]) == (pushed.second.md5, uri, "yes")
        (version,) = server.versions.values()
        spec = json.dumps(version["pipeline_spec"]["pipeline_spec"])
        assert "comp-check-data" in spec and "comp-promote" in spec
        run["state"] = "RUNNING"
        done = dagnn(*retrain, "--json")
        facts = json.loads(done.out)
        assert (done.status, facts["outcome"], facts["run_id"]) == (0, "under way", run["run_id"])
        assert len(server.runs) == 1
        server.states = [{"state": "SUCCEEDED"}]
        assert dagnn(*retrain, "--wait").status == 0 and len(server.runs) == 1
        run["state"] = "FAILED"
        server.states = []
        assert dagnn(*retrain).status == 0 and len(server.runs) == 2

    def test_data_that_was_trained_on_is_not_submitted(
        self,
        *,
        server: KubeflowServer,
        dagnn: Dagnn,
        tracking: Tracking,
        pushed: Pushed,
        retrain: tuple[str, ...],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("components.services.registry.versions.find_fault", lambda *_: None)  # it has no files
        tracking.client.create_registered_model("dagnn")
        md5 = pushed.second.md5
        tracking.client.create_model_version("dagnn", source="file:///nowhere", tags={"raw_digest": md5})
        done = dagnn(*retrain)
        assert (done.status, done.error) == (0, "")
        assert done.out == f"nothing new: dagnn version 1 was trained on this data, {md5}\n"
        done = dagnn(*retrain, "--promote")
        assert done.status == 2 and "run `dagnn promote dagnn --version 1 --target ...`" in done.error
        assert server.requests == []
        assert dagnn(*retrain, "--revision", "HEAD~1").status == 0 and len(server.runs) == 1

    def test_what_is_wrong(self, server: KubeflowServer, dagnn: Dagnn, tracking: Tracking) -> None:
        done = dagnn("submit", "--accept-drift")
        assert done.status == 2 and "--accept-drift is about the check of the data; add --check" in done.error
        done = dagnn("retrain", "--target", "kind", "--data", "data/photos", "--repository", "nowhere")
        assert done.status == 2 and "nowhere at HEAD cannot be opened" in done.error
        assert server.created == []
