"""`dagnn submit` against an HTTP server that keeps the official description of Kubeflow's API.

This is a contract test, not a cluster: the server validates every request and answer against the OpenAPI description
of v2beta1, and models what the real one does with pipelines, versions, experiments and runs; no task runs anywhere.
"""

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dagnn_core.errors import BackendError, InputError
from pipeline.cron import read_cron
from pipeline.kubeflow.client import Kubeflow, check_versions
from pipeline.kubeflow.credentials import read_secret
from pipeline.kubeflow.errors import ServerFailedError
from pipeline.submit import Job, check_clean, connect, disable_caching, former_version_name, submit, version_name
from tests.components.fault_proxy import Fault, FaultProxy, only
from tests.pipeline.conftest import GIT
from tests.pipeline.kfp_description import Agreement
from tests.pipeline.kfp_server import KubeflowServer, serving
from tests.pipeline.recorded import recorded

TOKEN = "token-that-nobody-shall-see"


def behind_faults(server: KubeflowServer, plan: Callable[[Any], Fault | None]) -> FaultProxy:
    return FaultProxy(server.url, plan=plan)


@pytest.mark.parametrize(
    ("method", "path", "body", "violation"),
    [
        ("GET", "/apis/v2beta1/runz", None, "no such path: GET /apis/v2beta1/runz"),
        ("GET", "/apis/v2beta1/runs?colour=red", None, "RunService_ListRuns has no query parameter colour"),
        ("GET", "/apis/v2beta1/runs?page_size=ten", None, "page_size is no integer: ten"),
        ("POST", "/apis/v2beta1/runs", {"colour": "red"}, ": Additional properties are not allowed ('colour' was"),
        ("POST", "/apis/v2beta1/runs", {"display_name": 1}, "display_name: 1 is not of type 'string'"),
        ("POST", "/apis/v2beta1/runs", {"state": "DONE"}, "state: 'DONE' is not one of ['RUNTIME_STATE_UNSPECIFIED', "),
    ],
)
def test_the_server_refuses_what_the_description_lacks(
    description: Agreement, method: str, path: str, body: object, violation: str
) -> None:
    with serving(KubeflowServer(description)) as server:
        done = requests.request(method, server.url + path, json=body, timeout=10)
    assert done.status_code in (400, 404)
    assert [entry[: len(violation)] for entry in server.violations] == [violation]


@pytest.mark.parametrize("name", ["versions_filter_quoted_once", "versions_filter_quoted_twice"])
def test_the_server_unescapes_filters_as_the_real_one(server: KubeflowServer, kubeflow: Kubeflow, name: str) -> None:
    real = recorded(name)
    version = recorded("versions_filter_quoted_twice")["body"]["pipeline_versions"][0]
    server.versions[version["pipeline_version_id"]] = version
    path = f"{server.url}/apis/v2beta1/pipelines/{version['pipeline_id']}/versions"
    answer = requests.get(f"{path}?{real['request']}", timeout=10).json()
    assert answer.get("pipeline_versions") == real["body"].get("pipeline_versions")


class TestSubmit:
    def test_makes_pipeline_version_experiment_and_run(
        self, server: KubeflowServer, kubeflow: Kubeflow, job: Job
    ) -> None:
        done = submit(connect(kubeflow), job)
        (run,) = server.runs.values()
        assert run["run_id"] == done.run_id
        assert run["display_name"] == "one"
        assert run["experiment_id"] == done.experiment_id
        assert run["runtime_config"] == {"parameters": {"cache": "/cache"}}
        assert "plugins_input" not in run
        assert run["pipeline_version_reference"] == {
            "pipeline_id": done.pipeline_id,
            "pipeline_version_id": done.version_id,
        }
        assert [entry["display_name"] for entry in server.pipelines.values()] == ["dagnn"]
        assert [entry["display_name"] for entry in server.versions.values()] == [job.version]
        assert done.version_id is not None and server.packages[done.version_id] == job.package.read_bytes()

    def test_tells_where_artifacts_and_mlflow_runs_go(
        self, server: KubeflowServer, kubeflow: Kubeflow, job: Job
    ) -> None:
        told = {"mlflow": {"experiment_name": "images"}}
        job = replace(job, pipeline_root="s3://images/runs", plugins_input=told)
        submit(kubeflow, job)
        submit(kubeflow, replace(job, cron="0 30 2 * * 1-5"))
        (run,), (recurring,) = server.runs.values(), server.recurring_runs.values()
        for made in (run, recurring):
            assert made["runtime_config"]["pipeline_root"] == "s3://images/runs"
            assert made["plugins_input"] == told

    def test_a_second_time_uses_what_is_there(self, server: KubeflowServer, kubeflow: Kubeflow, job: Job) -> None:
        first, second = submit(kubeflow, job), submit(kubeflow, job)
        assert first[:3] == second[:3] and first.run_id != second.run_id
        assert server.created.count("UploadPipelineVersion") == 1
        other = submit(kubeflow, replace(job, version="0.1.0-other"))
        assert other.pipeline_id == first.pipeline_id and other.version_id != first.version_id

    def test_names_are_found_through_all_pages(self, server: KubeflowServer, kubeflow: Kubeflow) -> None:
        for number in range(23):
            kubeflow.create_experiment(f"experiment {number}")
        page = kubeflow.find_experiment("experiment 22")
        assert page and server.experiments[page]["display_name"] == "experiment 22"
        # a server that does not filter gives pages of others
        server._list = (
            lambda kind, entries, request, owner: {  # type: ignore[method-assign]
                kind: list(entries.values())[(start := int(request.query["page_token"] or 0)) : start + 10],
                **({"next_page_token": str(start + 10)} if start + 10 < len(entries) else {}),
            }
        )
        assert kubeflow.find_experiment("experiment 22") == page
        assert kubeflow.find_experiment("experiment 23") is None

    def test_a_dry_run_makes_nothing(self, server: KubeflowServer, kubeflow: Kubeflow, job: Job) -> None:
        assert submit(kubeflow, job, dry_run=True) == (None, None, None, None)
        assert server.created == []

    def test_many_users_have_namespaces(self, server: KubeflowServer, kubeflow: Kubeflow, job: Job) -> None:
        server.multi_user = True
        with pytest.raises(InputError, match="has many users; name your namespace with --namespace"):
            connect(kubeflow)
        done = submit(connect(replace(kubeflow, namespace="team")), job)
        assert server.experiments[done.experiment_id or ""]["namespace"] == "team"
        assert server.pipelines[done.pipeline_id or ""]["namespace"] == "team"

    def test_one_user_has_none(self, server: KubeflowServer, kubeflow: Kubeflow, job: Job) -> None:
        submit(connect(replace(kubeflow, namespace="team")), job)
        assert "namespace" not in next(iter(server.experiments.values()))

    def test_a_namespace_of_others(self, server: KubeflowServer, kubeflow: Kubeflow) -> None:
        server.multi_user, server.forbidden = True, "theirs"
        with pytest.raises(
            BackendError,
            match=r"does not permit this in namespace theirs \(403: PermissionDenied: .*; correct --namespace",
        ):
            connect(replace(kubeflow, namespace="theirs"))

    def test_two_users_at_once_use_what_the_faster_one_made(
        self, server: KubeflowServer, kubeflow: Kubeflow, job: Job, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = submit(kubeflow, job)
        real = server._list
        server.requests.clear()
        making = {
            "pipelines": "PipelineService_CreatePipeline",
            "pipeline_versions": "UploadPipelineVersion",
            "experiments": "ExperimentService_CreateExperiment",
        }

        def late(kind: str, *arguments: Any) -> Any:
            """Nothing before we try to make it ourselves: the other one came after we had looked."""
            return real(kind, *arguments) if making[kind] in server.requests else {}

        monkeypatch.setattr(server, "_list", late)
        assert submit(kubeflow, job)[:3] == first[:3]
        assert len(server.runs) == 2 and [len(server.versions), len(server.experiments)] == [1, 1]

    def test_what_is_there_but_is_not_listed(
        self, server: KubeflowServer, kubeflow: Kubeflow, job: Job, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        submit(kubeflow, job)
        monkeypatch.setattr(server, "_list", lambda *_: {})
        with pytest.raises(
            BackendError, match=r"not started: .* has this already \(409: AlreadyExist.*; use what is there"
        ):
            submit(kubeflow, job)

    def test_a_version_of_an_earlier_release_is_found(
        self, server: KubeflowServer, kubeflow: Kubeflow, job: Job
    ) -> None:
        former = former_version_name(job.version)
        assert "+" in former
        first = submit(kubeflow, replace(job, version=former))
        assert [entry["display_name"] for entry in server.versions.values()] == [former]
        assert submit(kubeflow, job)[:3] == first[:3] and len(server.versions) == 1

    @pytest.mark.parametrize("name", ["a+b c", "100%", "50%25", "ä&?=/"])
    def test_names_are_found_whatever_characters_they_have(self, kubeflow: Kubeflow, name: str) -> None:
        made = kubeflow.create_experiment(name)
        kubeflow.create_experiment("a b c")
        assert kubeflow.find_experiment(name) == made

    def test_an_archived_experiment(self, server: KubeflowServer, kubeflow: Kubeflow, job: Job) -> None:
        done = submit(kubeflow, job)
        server.experiments[done.experiment_id or ""]["storage_state"] = "ARCHIVED"
        with pytest.raises(InputError, match="experiment 'dagnn' is archived; restore it, or name another"):
            submit(kubeflow, job)

    def test_an_argument_that_the_pipeline_lacks(self, kubeflow: Kubeflow, job: Job) -> None:
        with pytest.raises(InputError, match=r"the run was not started: .* \(400: .*unknown parameter\(s\): color\)"):
            submit(kubeflow, replace(job, arguments={"color": "red"}))

    def test_the_service_account(self, server: KubeflowServer, kubeflow: Kubeflow, job: Job) -> None:
        submit(kubeflow, replace(job, service_account="dagnn-tasks"))
        assert next(iter(server.runs.values()))["service_account"] == "dagnn-tasks"


class TestRecurring:
    def test_a_schedule(self, server: KubeflowServer, kubeflow: Kubeflow, job: Job) -> None:
        scheduled = replace(job, cron=read_cron("30 2 * * MON-FRI"), run="nightly")
        done = submit(kubeflow, scheduled)
        (made,) = server.recurring_runs.values()
        assert made["recurring_run_id"] == done.run_id
        assert made["trigger"] == {"cron_schedule": {"cron": "0 30 2 * * MON-FRI"}}
        assert (made["mode"], made["max_concurrency"], made["no_catchup"]) == ("ENABLE", "1", True)
        assert server.runs == {}

    def test_not_twice(self, server: KubeflowServer, kubeflow: Kubeflow, job: Job) -> None:
        scheduled = replace(job, cron="0 30 2 * * *", run="nightly")
        done = submit(kubeflow, scheduled)
        with pytest.raises(InputError, match=rf"'nightly' is there already, .*delete {done.run_id}` deletes it$"):
            submit(kubeflow, replace(scheduled, version="0.1.0-other"))
        assert len(server.versions) == 1
        server.recurring_runs[done.run_id or ""]["status"] = "DISABLED"
        submit(kubeflow, scheduled)
        assert len(server.recurring_runs) == 2

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("", "it has 0 fields"),
            ("@daily", "it has 1 fields"),
            ("* * * *", "it has 4 fields"),
            ("60 * * * *", "'60' is no minute: expected 0 to 59"),
            ("0 24 * * *", "'24' is no hour"),
            ("0 0 0 * *", "'0' is no day of the month: expected 1 to 31"),
            ("0 0 * 13 *", "'13' is no month: expected 1 to 12 or JAN to DEC"),
            ("0 0 * * 7", "'7' is no day of the week: expected 0 to 6 or SUN to SAT"),
            ("5-1 * * * *", "'5-1' is no minute: the range ends before it begins"),
            ("*/0 * * * *", r"'\*/0' is no minute: expected a step of 1 or more"),
            ("0 0 * * MONDAY", "'MONDAY' is no day of the week"),
            ("1,,2 * * * *", "'' is no minute: expected *"),
            ("-1 * * * *", "'-1' is no minute"),
            ("٣ * * * *", "'٣' is no minute"),
        ],
    )
    def test_what_is_no_schedule(self, text: str, why: str) -> None:
        with pytest.raises(InputError, match=f"is not a cron schedule: {why.replace('expected *', 'expected')}"):
            read_cron(text)

    @given(st.data())
    def test_schedules(self, data: st.DataObject) -> None:
        fields = []
        for first, last, words in (
            (0, 59, None),
            (0, 23, None),
            (1, 31, None),
            (1, 12, "JAN"),
            (0, 6, "sat"),
        ):
            low = data.draw(st.integers(first, last))
            high = data.draw(st.integers(low, last))
            items = st.sampled_from(["*", "?", f"{low}", f"{low}-{high}", f"{low}-{high}/2", "*/5", words or "*"])
            fields.append(",".join(data.draw(st.lists(items, min_size=1, max_size=3))))
        read = read_cron("  ".join(fields))
        assert read.split() == ["0", *fields]
        assert read_cron(read) == read


class TestVersions:
    def test_of_a_server(self, server: KubeflowServer, kubeflow: Kubeflow) -> None:
        server.tag_name = "2.16.1"
        with pytest.raises(BackendError, match=r"Pipelines 2\.16\.1, older than kfp 2\.17\.0 .*\"kfp>=2\.16,<2\.17\""):
            connect(kubeflow)
        assert server.requests == ["HealthzService_GetHealthz"]

    @pytest.mark.parametrize("tag_name", ["2.17.0", "2.17.3-rc.1", "2.18.0", "3.0.0", "v2.20", "unknown", ""])
    def test_that_are_fine(self, server: KubeflowServer, kubeflow: Kubeflow, tag_name: str) -> None:
        server.tag_name = tag_name
        connect(kubeflow)

    @pytest.mark.parametrize(("sdk", "server"), [("2.17.0", "2.16.9"), ("3.0.0", "2.99.0"), ("2.10.0", "2.9.0")])
    def test_that_are_not(self, sdk: str, server: str) -> None:
        with pytest.raises(BackendError, match="upgrade the server, or pin"):
            check_versions(sdk, server)


class TestCredentials:
    def test_a_token(self, server: KubeflowServer, kubeflow: Kubeflow, job: Job) -> None:
        server.token = TOKEN
        submit(connect(replace(kubeflow, read_token=lambda: TOKEN)), job)
        assert len(server.runs) == 1

    def test_cookies(self, server: KubeflowServer, kubeflow: Kubeflow, job: Job) -> None:
        server.cookies = "authservice_session=secret"
        submit(connect(replace(kubeflow, cookies=server.cookies)), job)
        assert len(server.runs) == 1

    def test_a_refused_token(self, server: KubeflowServer, kubeflow: Kubeflow) -> None:
        server.token = TOKEN
        with pytest.raises(BackendError, match=r"wants a token or cookies \(401: .*; give a token \(DAGNN_KFP_TOKEN"):
            connect(kubeflow)
        with pytest.raises(BackendError, match=r"does not take the token or cookies \(401: .*; renew them") as failure:
            connect(replace(kubeflow, read_token=lambda: "old-token"))
        assert "old-token" not in str(failure.value)

    def test_a_login_page_is_no_answer(self, server: KubeflowServer, kubeflow: Kubeflow) -> None:
        server.cookies = "authservice_session=secret"
        with pytest.raises(BackendError, match=r"wants a token or cookies \(302\)"):
            connect(kubeflow)
        assert "login" not in server.requests

    def test_a_token_in_a_file_is_read_again(self, server: KubeflowServer, kubeflow: Kubeflow, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text("first\n")
        server.token = "first"
        connected = connect(replace(kubeflow, read_token=read_secret("--token", file, "NONE")))
        file.write_text("second\n")
        server.token = "second"
        connected.check_access()

    def test_no_secret_is_shown(self, kubeflow: Kubeflow, tmp_path: Path) -> None:
        shown = repr(replace(kubeflow, read_token=lambda: TOKEN, cookies=TOKEN))
        assert TOKEN not in shown
        with pytest.raises(InputError, match="--token names no file with one line of text") as failure:
            read_secret("--token", Path(TOKEN), "DAGNN_KFP_TOKEN")
        assert TOKEN not in str(failure.value)
        with pytest.raises(InputError, match="has credentials in its URL; give a token") as failure:
            Kubeflow(host=f"https://user:{TOKEN}@kubeflow.example.org")
        assert TOKEN not in str(failure.value)

    @pytest.mark.parametrize("content", [b"", b"\n", b"one\ntwo", b"\xff\xfe"])
    def test_files_that_hold_no_secret(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "token").write_bytes(content)
        with pytest.raises(InputError, match="--token names no file with one line of text"):
            read_secret("--token", tmp_path / "token", "DAGNN_KFP_TOKEN")


class TestAddresses:
    @pytest.mark.parametrize(
        "host", ["kubeflow.example.org", "ftp://kubeflow.example.org", "https://", "localhost:8888"]
    )
    def test_that_are_no_urls(self, host: str) -> None:
        with pytest.raises(InputError, match="is not the address of a Kubeflow server, expected a URL"):
            Kubeflow(host=host)

    def test_where_nothing_listens(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            host = f"http://127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(
                ServerFailedError, match=r"cannot be reached .*refused.*; check the network, and --host"
            ):
                connect(Kubeflow(host=host, pause=0.0))

    def test_that_do_not_exist(self) -> None:
        with pytest.raises(ServerFailedError, match=r"kubeflow\.invalid cannot be reached"):
            connect(Kubeflow(host="http://kubeflow.invalid", pause=0.0))

    def test_of_something_else(self, s3_server: str) -> None:
        with pytest.raises(InputError, match="404, expected Kubeflow Pipelines; correct --host"):
            connect(Kubeflow(host=s3_server, pause=0.0))

    def test_pages_are_those_of_the_user_interface(self, server: KubeflowServer, kubeflow: Kubeflow) -> None:
        server.page = True
        assert replace(kubeflow, host=f"{server.url}/").page("runs") == f"{server.url}/#/runs"
        behind = Kubeflow(host="http://localhost:8888", ui_host="https://a.example.org")
        assert behind.page("runs") == "https://a.example.org/#/runs"

    def test_the_port_of_the_api_has_no_pages(self, kubeflow: Kubeflow) -> None:
        assert kubeflow.page("runs") == ""

    def test_a_page_behind_a_login_is_one(self, server: KubeflowServer, kubeflow: Kubeflow) -> None:
        server.page, server.cookies = True, "authservice_session=secret"
        assert kubeflow.page("runs") == f"{server.url}/#/runs"


class TestFaults:
    def test_reading_is_repeated(self, server: KubeflowServer, kubeflow: Kubeflow, job: Job) -> None:
        with behind_faults(server, only("error", 0, 2, 4, status=503)) as proxy:
            submit(connect(replace(kubeflow, host=proxy.url)), job)
        with behind_faults(server, only("reset", 0, 2, 4)) as proxy:
            submit(connect(replace(kubeflow, host=proxy.url)), job)
        assert len(server.runs) == 2

    @pytest.mark.parametrize("kind", ["error", "reset"])
    @pytest.mark.parametrize("number", range(4))
    def test_making_is_not_but_taken_up_again(
        self, server: KubeflowServer, kubeflow: Kubeflow, job: Job, kind: Any, number: int
    ) -> None:
        """Pipeline, version, experiment, run: whichever fails, the second try completes."""
        version = re.escape(job.version)
        said = [
            "^the run was not started: Kubeflow at [^;]*; [^;]*$",
            "^the run was not started: .*; the pipeline dagnn will be used again$",
            f"; the pipeline dagnn and the version {version} will be used again$",
            f"^could not confirm .*; the pipeline dagnn and the version {version} and the experiment dagnn will be ",
        ]
        with behind_faults(server, only(kind, number, method="POST", status=500)) as proxy:
            with pytest.raises(ServerFailedError, match=said[number]):
                submit(replace(kubeflow, host=proxy.url), job)
            assert proxy.count("POST") == number + 1
            assert server.runs == {}
            submit(replace(kubeflow, host=proxy.url), job)
        assert [len(kind) for kind in (server.pipelines, server.versions, server.experiments, server.runs)] == [1] * 4

    def test_an_answer_that_does_not_come(self, server: KubeflowServer, kubeflow: Kubeflow, job: Job) -> None:
        slow = only("stall", 3, method="POST", seconds=3.0)
        with behind_faults(server, slow) as proxy:
            with pytest.raises(ServerFailedError, match=r"in time .*; look for 'one' before you submit again$"):
                submit(replace(kubeflow, host=proxy.url, read_timeout=1.0), job)
            assert len(server.runs) == 1  # what the message warns of

    def test_a_server_that_only_fails(self, server: KubeflowServer, kubeflow: Kubeflow) -> None:
        with behind_faults(server, only("error", status=503)) as proxy:
            with pytest.raises(ServerFailedError, match="answers 503; try later"):
                connect(replace(kubeflow, host=proxy.url))
            assert proxy.count("GET") == 4

    def test_a_server_that_never_answers(self, server: KubeflowServer, kubeflow: Kubeflow) -> None:
        with behind_faults(server, only("stall", seconds=1.0)) as proxy:
            start = time.monotonic()
            with pytest.raises(ServerFailedError, match="cannot be reached or does not answer in time"):
                connect(replace(kubeflow, host=proxy.url, read_timeout=0.05))
            assert time.monotonic() - start < 1.0


def certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 that nobody has signed, with its key."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(tz=datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return file


def test_a_certificate_that_nobody_knows(tmp_path: Path) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"multi_user": false, "tag_name": "2.17.0"}')

    file = certificate(tmp_path)
    listener = HTTPServer(("127.0.0.1", 0), Handler)
    listener.handle_error = lambda *_: None  # type: ignore[method-assign]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    listener.socket = context.wrap_socket(listener.socket, server_side=True)
    threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    kubeflow = Kubeflow(host=f"https://127.0.0.1:{listener.server_address[1]}", pause=0.0)
    with pytest.raises(BackendError, match=r"cannot be trusted \(.*CERTIFICATE.*; name a file .* in SSL_CERT_FILE"):
        kubeflow.health()
    assert replace(kubeflow, ca_file=str(file)).health().version == "2.17.0"
    with pytest.raises(BackendError, match=r"cannot be trusted \(.*No such file.*SSL_CERT_FILE"):
        replace(kubeflow, ca_file="none.pem").health()
    listener.shutdown()
    listener.server_close()


class TestVersionName:
    def test_has_semantic_version_commit_and_digest(self, compiled: Path) -> None:
        name = version_name(compiled, GIT)
        assert re.fullmatch(r"0\.1\.0-c0ffeec0ffee-[0-9a-f]{8}", name)  # a name that Kubernetes takes too
        assert version_name(compiled, GIT | {"dirty": True}) == name.replace("ee-", "ee-dirty-")

    def test_the_former_name_is_that_of_earlier_releases(self) -> None:
        assert former_version_name("0.1.0-de41756df7b9-0dd871a4") == "0.1.0+de41756df7b9.0dd871a4"
        assert former_version_name("0.1.0-de41756df7b9-dirty-23a1ade3") == "0.1.0+de41756df7b9.dirty.23a1ade3"

    def test_other_content_has_another_name(self, compiled: Path, tmp_path: Path) -> None:
        other = tmp_path / "pipeline.yaml"
        other.write_bytes(compiled.read_bytes() + b"\n")
        assert version_name(other, GIT) != version_name(compiled, GIT)

    def test_a_dirty_checkout_is_refused(self) -> None:
        check_clean(GIT)
        with pytest.raises(
            InputError, match=r"not what its commit c0ffeec0ffee has.*; commit and .* or add --allow-dirty"
        ):
            check_clean(GIT | {"dirty": True})


def test_without_caching_nothing_else_changes(compiled: Path, tmp_path: Path) -> None:
    package = tmp_path / "pipeline.yaml"
    package.write_bytes(compiled.read_bytes())
    disable_caching(package)
    before, after = (list(yaml.safe_load_all(path.read_text())) for path in (compiled, package))
    cached = 0
    for level in (before[0]["root"], *before[0]["components"].values()):
        for task in level.get("dag", {}).get("tasks", {}).values():
            cached += bool(task.get("cachingOptions"))
            task["cachingOptions"] = {}
    assert cached > 3 and after == before
