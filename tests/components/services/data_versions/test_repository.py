"""Raw data under DVC: added, pushed to a real S3 server, fetched by digest and by revision."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.retries.standard import ExponentialBackoff

from components.services.data_versions import archives as raw_files
from components.services.data_versions import repository as versioning
from components.services.data_versions.object_stores import places, tracked
from components.services.data_versions.raw_version import LINEAGE, RawLineage, raw_lineage, read_lineage
from components.services.data_versions.repository import add
from components.services.storage.s3 import Storage
from components.steps import fetch_dataset
from dagnn_core.errors import BackendError, InputError
from tests.components.fault_proxy import Fault, FaultProxy
from tests.fixtures.locations import ROOT
from tests.fixtures.s3 import AWS, SECRET, Bucket, make_bucket

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.01)


class Project:
    """A folder under git and DVC."""

    def __init__(self, root: Path) -> None:
        self.root = root
        identity = {f"GIT_{role}_{key}": "test" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
        self.environment = os.environ | identity | {"DVC_NO_ANALYTICS": "1"}

    def run(self, *command: str) -> str:
        if command[0] == "dvc":
            command = (sys.executable, "-m", *command)
        done = subprocess.run(
            command, cwd=self.root, env=self.environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def add(self, source: Path | str, name: str = "photos", storage: Storage | None = None) -> RawLineage:
        return add(name, str(source), project=self.root, storage=storage or Storage())

    def commit(self) -> str:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--allow-empty", "--message", "Test")
        return self.run("git", "rev-parse", "HEAD").strip()

    def files(self, folder: str = "data/photos") -> dict[str, bytes]:
        return content(self.root / folder)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = Project(tmp_path_factory.mktemp("template"))
    project.run("git", "init", "--quiet")
    project.run("dvc", "init", "--quiet")
    (project.root / ".gitignore").write_text(".dagnn/\n")
    project.commit()
    return project.root


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Project:
    shutil.copytree(template, tmp_path / "project")
    return Project(tmp_path / "project")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source")


def make_source(source: Path) -> Path:
    (source / "images").mkdir(parents=True)
    (source / "table.csv").write_text("id,text\r\n1,one\r\n")
    for number in range(110):
        (source / "images" / f"{number}.jpg").write_bytes(b"%d" % number * 50)
    return source


# dvc add


def test_a_folder_becomes_a_version(project: Project, source: Path) -> None:
    added = project.add(source)
    assert sorted(project.files()) == ["images.tar", "table.csv"]
    with tarfile.open(project.root / "data/photos/images.tar") as tar:
        assert len(tar.getnames()) == 110
    assert (added.num_files, added.size) == (2, sum(map(len, project.files().values())))
    assert project.run("git", "status", "--porcelain", "--untracked-files=all").split("\n")[:-1] == [
        "?? data/.gitignore",
        "?? data/photos.dvc",
    ]
    assert raw_lineage(project.root / "data/photos") == added
    assert not (project.root / ".dagnn/add/photos").exists()


def test_the_same_data_is_the_same_version_and_other_data_a_new_one(project: Project, source: Path) -> None:
    first = project.add(source)
    old = project.files()
    assert project.add(source) == first
    (source / "images" / "new.jpg").write_bytes(b"new")
    assert project.add(source).md5 != first.md5
    assert project.files() != old


@pytest.mark.slow
def test_the_version_of_an_older_commit_comes_back(project: Project, source: Path) -> None:
    project.add(source)
    project.commit()
    before = project.files()
    (source / "table.csv").write_text("id,text\n2,two\n")
    project.add(source)
    project.commit()
    project.run("git", "checkout", "--quiet", "HEAD~1")
    project.run("dvc", "checkout", "--quiet")
    assert project.files() == before


@pytest.mark.slow
def test_data_that_was_changed_in_place_becomes_a_version(project: Project, source: Path) -> None:
    first = project.add(source)
    target = project.root / "data/photos"
    (target / "table.csv").unlink()
    (target / "table.csv").write_text("id,text\n3,three\n")
    with pytest.raises(
        InputError, match=r"is not what photos\.dvc says.*; keep it as a version \(`dvc add data/photos"
    ):
        project.add(source)
    assert project.files()["table.csv"] == b"id,text\n3,three\n"
    second = project.add(target)
    assert second.md5 != first.md5 and project.files()["table.csv"] == b"id,text\n3,three\n"
    assert project.add(source) == first


def test_a_single_file(project: Project, tmp_path: Path) -> None:
    (tmp_path / "scenes.yaml").write_text("num_scenes: 10\n")
    assert project.add(tmp_path / "scenes.yaml", "scenes").num_files == 1
    assert project.files("data/scenes") == {"scenes.yaml": b"num_scenes: 10\n"}


@pytest.mark.parametrize("name", ["a/b", "../a", "", ".hidden", "a b", "-x", "x.dvc", "ä", "a" * 101])
def test_names_that_cannot_be(project: Project, source: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"cannot be the name of a data set, expected letters, digits"):
        project.add(source, name)


def test_sources_that_cannot_be(project: Project, source: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (source / "photos").mkdir()
    for wrong, message in {
        tmp_path / "nowhere": r"nowhere does not exist, expected a folder, an archive or a file",
        tmp_path / "empty": r"empty has no files, expected raw data",
        project.root: r"lie in each other, expected a source elsewhere",
        project.root / "data/photos/images": r"lie in each other, expected a source elsewhere",
    }.items():
        with pytest.raises(InputError, match=message):
            project.add(wrong)
    (source / "link").symlink_to("table.csv")
    with pytest.raises(InputError, match=r"link' is a link or a device"):
        project.add(source)
    assert not (project.root / "data").exists()


def test_other_data_is_not_replaced(project: Project, source: Path) -> None:
    (project.root / "data/photos").mkdir(parents=True)
    (project.root / "data/photos/mine").write_text("mine")
    with pytest.raises(InputError, match=r"is there and not under DVC, so it would be lost; give another name"):
        project.add(source)
    assert project.files() == {"mine": b"mine"}
    project.add(project.root / "data/photos")
    assert project.files() == {"mine": b"mine"}


def test_a_file_in_place_of_the_folder(project: Project, source: Path) -> None:
    (project.root / "data").write_text("x")
    with pytest.raises(InputError, match="data is a file, expected the folder of the raw data; move it away"):
        project.add(source)


def test_no_dvc_repository(tmp_path: Path, source: Path) -> None:
    with pytest.raises(
        InputError, match=r"is not the root of a DVC repository; go there, or run `git init && dvc init"
    ):
        add("photos", str(source), project=tmp_path, storage=Storage())


def test_no_room(project: Project, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(source)._replace(free=10_000)
    monkeypatch.setattr(raw_files.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(BackendError, match=r"0\.0 GB are free on its disk, expected 0\.0 GB; free some"):
        project.add(source)


@pytest.mark.slow
def test_where_dvc_fails_everything_is_as_before(project: Project, source: Path) -> None:
    first = project.add(source)
    project.commit()
    before = project.files()
    (source / "table.csv").write_text("other")
    (project.root / ".dvc/config").write_text("[core\n")
    with pytest.raises(BackendError, match=r"`dvc status --json data/photos\.dvc` failed: .*config"):
        project.add(source)
    (project.root / ".dvc/config").write_text("")
    shutil.rmtree(project.root / ".dvc/cache/files")
    (project.root / ".dvc/cache/files").write_text("in the way")
    with pytest.raises((BackendError, InputError)) as failure:
        project.add(source)
    assert "\n" not in str(failure.value)
    assert project.files() == before
    assert raw_lineage(project.root / "data/photos") == first


@pytest.mark.slow
@pytest.mark.parametrize("replaced", [False, True])
def test_an_interruption_puts_everything_back(
    project: Project, source: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    if replaced:
        project.add(source)
        (source / "table.csv").write_text("other")
    before = project.files() if replaced else {}
    dvc = versioning._dvc

    def interrupted(root: Path, *arguments: str) -> str:
        answer = dvc(root, *arguments)
        if arguments[0] == "add":
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(versioning, "_dvc", interrupted)
    with pytest.raises(KeyboardInterrupt):
        project.add(source)
    assert (project.root / "data/photos").exists() == replaced
    assert (project.files() if replaced else {}) == before
    monkeypatch.setattr(versioning, "_dvc", dvc)
    project.add(source)
    assert project.files()["table.csv"] == (source / "table.csv").read_bytes()


def test_a_kill_between_two_renames_loses_nothing(project: Project, source: Path) -> None:
    project.add(source)
    before = project.files()
    (project.root / ".dagnn/add/photos").mkdir()
    (project.root / "data/photos").rename(project.root / ".dagnn/add/photos/old")
    with pytest.raises(InputError, match="nowhere does not exist"):
        project.add(source / "nowhere")
    assert project.files() == before


def test_two_at_once(project: Project, source: Path) -> None:
    with (
        versioning._work_folder(project.root / versioning.ADDING / "photos"),
        pytest.raises(
            BackendError,
            match=rf"photos\.lock: another process adds photos \(process {os.getpid()} on .*\), .*; wait for it",
        ),
    ):
        project.add(source)


@pytest.mark.slow
def test_raw_data_from_s3(project: Project, source: Path, bucket: Bucket) -> None:
    archive = shutil.make_archive(str(source), "gztar", source)
    bucket.put("raw/source.tar.gz", Path(archive).read_bytes())
    for name, data in content(source).items():
        bucket.put(f"raw/folder/{name}", data)
    storage = Storage(endpoint_url=bucket.endpoint)
    of_archive = project.add(f"{bucket.uri}/raw/source.tar.gz", storage=storage)
    files = project.files()
    assert project.add(f"{bucket.uri}/raw/folder", storage=storage) == of_archive
    assert project.files() == files and files.keys() == {"images.tar", "table.csv"}
    with pytest.raises(InputError, match=r"nothing does not exist, expected an object or a folder of objects"):
        project.add(f"{bucket.uri}/raw/nothing", storage=storage)


def test_an_interrupted_source_in_s3_goes_on(project: Project, bucket: Bucket) -> None:
    for number in range(3):
        bucket.put(f"raw/{number}", b"%d" % number * 100_000)
    with FaultProxy(
        bucket.endpoint, plan=lambda r: Fault(kind="truncate", at=9) if "raw/2" in r.path else None
    ) as proxy:
        storage = Storage(endpoint_url=proxy.url, attempts=1)
        with pytest.raises(BackendError, match="raw/2 broke off"):
            project.add(f"{bucket.uri}/raw", storage=storage)
        assert not (project.root / "data").exists()
        proxy.plan = lambda request: None
        proxy.requests.clear()
        project.add(f"{bucket.uri}/raw", storage=storage)
        assert "bytes=9-" in [request.headers.get("range") for request in proxy.requests]
    assert project.files()["2"] == b"2" * 100_000


# push, pull, fetch


class Pushed:
    """A project whose data is in S3, at two revisions; the slow test below shows that `dvc push` does the same."""

    def __init__(self, project: Project, bucket: Bucket, source: Path) -> None:
        self.project, self.bucket = project, bucket
        self.remote = f"{bucket.uri}/dvc"
        (project.root / ".dvc/config").write_text(
            f"[core]\n    remote = storage\n['remote \"storage\"']\n    url = {self.remote}\n"
            f"    endpointurl = {bucket.endpoint}\n"
        )
        self.first = project.add(source)
        self.first_files = project.files()
        self.first_commit = project.commit()
        (source / "table.csv").write_text("id,text\n2,two\n")
        self.second = project.add(source)
        self.second_files = project.files()
        project.commit()
        for name, data in content(project.root / ".dvc/cache").items():
            bucket.put(f"dvc/{name}", data)


@pytest.fixture(scope="module")
def pushed_once(template: Path, s3_server: str, s3_client: Any, tmp_path_factory: pytest.TempPathFactory) -> Pushed:
    root = tmp_path_factory.mktemp("pushed")
    shutil.copytree(template, root / "project")
    project = Project(root / "project")
    return Pushed(project, make_bucket(s3_server, s3_client), make_source(root / "source"))


@pytest.fixture
def pushed(pushed_once: Pushed, bucket: Bucket) -> Pushed:
    """The same for all tests: they leave it as it is."""
    return pushed_once


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "raw"


def fetched(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in content(out).items() if name != LINEAGE}


@pytest.mark.slow
def test_push_and_pull_and_no_secret_is_anywhere(
    project: Project, source: Path, bucket: Bucket, tmp_path: Path, out: Path
) -> None:
    project.environment |= AWS
    project.run("dvc", "remote", "add", "--default", "storage", f"{bucket.uri}/dvc")
    project.run("dvc", "remote", "modify", "storage", "endpointurl", bucket.endpoint)
    added = project.add(source)
    project.commit()
    output = project.run("dvc", "push")
    clone = Project(tmp_path / "clone")
    clone.environment |= AWS
    subprocess.run(["git", "clone", "--quiet", str(project.root), str(clone.root)], check=True)
    output += clone.run("dvc", "pull")
    assert clone.files() == project.files()
    fetch_dataset.run(raw_out=out, md5=added.md5, remote=f"{bucket.uri}/dvc", endpoint_url=bucket.endpoint)
    assert fetched(out) == project.files()
    assert SECRET not in output
    for path in project.root.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_fetch_by_digest_needs_neither_git_nor_dvc(pushed: Pushed, out: Path) -> None:
    code = (
        "import sys; sys.modules['dvc'] = None; from pathlib import Path; "
        "from components.steps.fetch_dataset import run;"
        "run(raw_out=Path(sys.argv[1]), md5=sys.argv[2], remote=sys.argv[3], endpoint_url=sys.argv[4])"
    )
    arguments = [str(out), pushed.first.md5, pushed.remote, pushed.bucket.endpoint]
    environment = os.environ | {"PATH": "", "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, env=environment, cwd=pushed.project.root.parent
    )
    assert fetched(out) == pushed.first_files
    known = read_lineage(out)
    assert known is not None
    assert (known.md5, known.size, known.num_files) == (pushed.first.md5, pushed.first.size, pushed.first.num_files)
    assert known.remote == pushed.remote and not list(out.parent.glob(".*"))


def fetch(pushed: Pushed, out: Path, **changes: str) -> None:
    arguments = {"md5": pushed.second.md5, "remote": pushed.remote, "endpoint_url": pushed.bucket.endpoint} | changes
    fetch_dataset.run(raw_out=out, **arguments)


def test_what_is_there_is_left_alone(pushed: Pushed, out: Path, caplog: pytest.LogCaptureFixture) -> None:
    fetch(pushed, out)
    before = (out / LINEAGE).stat().st_mtime_ns
    caplog.set_level("INFO")
    fetch(pushed, out)
    assert (out / LINEAGE).stat().st_mtime_ns == before and "is already in" in caplog.text
    with pytest.raises(InputError, match=r"raw holds something else than \w+\.dir, which would be lost"):
        fetch(pushed, out, md5=pushed.first.md5)
    (out / "table.csv").unlink()
    with pytest.raises(InputError, match="holds something else"):
        fetch(pushed, out)
    assert fetched(out).keys() == {"images.tar"}


def test_a_single_file_by_digest(pushed: Pushed, out: Path) -> None:
    md5 = hashlib.md5(pushed.first_files["table.csv"]).hexdigest()
    fetch(pushed, out, md5=md5, path="data/table.csv")
    assert fetched(out) == {"table.csv": pushed.first_files["table.csv"]}


def test_the_layout_of_dvc_2(pushed: Pushed, out: Path) -> None:
    """No files/md5, and text hashed with its line ends as LF."""
    bucket = pushed.bucket
    entries = []
    for name, data in pushed.first_files.items():
        md5 = hashlib.md5(data.replace(b"\r\n", b"\n") if name.endswith(".csv") else data).hexdigest()
        bucket.put(f"old/{md5[:2]}/{md5[2:]}", data)
        entries.append({"md5": md5, "relpath": name})
    listing = json.dumps(entries).encode()
    top = f"{hashlib.md5(listing).hexdigest()}.dir"
    bucket.put(f"old/{top[:2]}/{top[2:]}", listing)
    fetch(pushed, out, md5=top, remote=f"{bucket.uri}/old/")
    assert fetched(out) == pushed.first_files
    bucket.put(f"old/{entries[0]['md5'][:2]}/{entries[0]['md5'][2:]}", b"other")
    with pytest.raises(BackendError, match=r"'images\.tar' is damaged, it does not have the md5"):
        fetch(pushed, out.with_name("other"), md5=top, remote=f"{bucket.uri}/old")
    assert not out.with_name("other").exists()


def test_versions_that_are_not_there(pushed: Pushed, out: Path) -> None:
    with pytest.raises(InputError, match=r"/dvc does not have 0{32}\.dir: it was never pushed, or to another remote"):
        fetch(pushed, out, md5=f"{'0' * 32}.dir")
    with pytest.raises(InputError, match=r"'main' is not a digest of DVC, expected 32 hexadecimal digits"):
        fetch(pushed, out, md5="main")
    with pytest.raises(InputError, match=r"'/some/folder' is not the address of an object in S3"):
        fetch(pushed, out, remote="/some/folder")
    with pytest.raises(InputError, match="no remote is named"):
        fetch(pushed, out, remote="")
    with pytest.raises(InputError, match="expected an md5 and a remote, or a repository"):
        fetch_dataset.run(raw_out=out, repository="x")
    with pytest.raises(InputError, match=r"the bucket of s3://no-such-bucket does not exist"):
        fetch(pushed, out, remote="s3://no-such-bucket/dvc")
    md5 = hashlib.md5(pushed.second_files["table.csv"]).hexdigest()
    pushed.bucket.client.delete_object(Bucket=pushed.bucket.name, Key=f"dvc/files/md5/{md5[:2]}/{md5[2:]}")
    with pytest.raises(InputError, match=r"/dvc lacks 1 of 2 files of \w+\.dir \(first: 'table\.csv'\); run `dvc push"):
        fetch(pushed, out)
    assert not out.exists()
    pushed.bucket.put(f"dvc/files/md5/{md5[:2]}/{md5[2:]}", pushed.second_files["table.csv"])


def test_a_damaged_object_is_never_taken(pushed: Pushed, out: Path) -> None:
    md5 = hashlib.md5(pushed.second_files["table.csv"]).hexdigest()
    pushed.bucket.put(f"dvc/files/md5/{md5[:2]}/{md5[2:]}", b"something else")
    with pytest.raises(BackendError, match=rf"is damaged: 3 downloads did not have its md5 {md5}; send it again"):
        fetch(pushed, out)
    assert not out.exists()
    pushed.bucket.put(f"dvc/files/md5/{md5[:2]}/{md5[2:]}", pushed.second_files["table.csv"])
    fetch(pushed, out)
    assert fetched(out) == pushed.second_files


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"md5": "0" * 32, "relpath": "../evil"}], "'../evil' leads out of the folder"),
        ([{"md5": "0" * 32, "relpath": "/evil"}], "'/evil' leads out of the folder"),
        ([{"md5": "../../evil", "relpath": "a"}], "is not a list of files as DVC makes it"),
        ([{"md5": "0" * 32, "relpath": LINEAGE}], "is not a list of files as DVC makes it"),
        ([{"md5": "0" * 32}], "is not a list of files as DVC makes it"),
        ([{"md5": "0" * 32, "relpath": "a"}] * 2, "lists a file twice"),
        (5, "is not a list of files as DVC makes it"),
    ],
)
def test_listings_that_are_refused(bucket: Bucket, out: Path, entries: Any, message: str) -> None:
    listing = json.dumps(entries).encode()
    md5 = f"{hashlib.md5(listing).hexdigest()}.dir"
    bucket.put(f"files/md5/{md5[:2]}/{md5[2:]}", listing)
    with pytest.raises(InputError, match=message):
        fetch_dataset.run(raw_out=out, md5=md5, remote=bucket.uri, endpoint_url=bucket.endpoint)
    assert not out.exists()


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[FaultProxy]:
    with FaultProxy(bucket.endpoint) as proxy:
        yield proxy


def test_a_killed_fetch_goes_on_and_fetches_nothing_twice(pushed: Pushed, out: Path, proxy: FaultProxy) -> None:
    tar = hashlib.md5(pushed.second_files["images.tar"]).hexdigest()[2:]
    proxy.plan = lambda r: Fault(kind="trickle", seconds=0.3) if tar in r.path and r.method == "GET" else None
    command = [
        sys.executable,
        "-m",
        "components.steps.fetch_dataset",
        "--raw-out",
        str(out),
        "--md5",
        pushed.second.md5,
    ]
    command += ["--remote", pushed.remote, "--endpoint-url", proxy.url]
    process = subprocess.Popen(command, cwd=ROOT)
    work = out.with_name(".raw.fetch")
    deadline = time.monotonic() + 30
    while not ((work / "table.csv").exists() and (work / ".images.tar.part").exists()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    proxy.plan = lambda request: None
    proxy.requests.clear()
    fetch(pushed, out, endpoint_url=proxy.url)
    assert fetched(out) == pushed.second_files
    csv = hashlib.md5(pushed.second_files["table.csv"]).hexdigest()[2:]
    assert not [request for request in proxy.requests if request.method == "GET" and csv in request.path]


def test_leftovers_of_another_version_go(pushed: Pushed, out: Path) -> None:
    work = out.with_name(".raw.fetch")
    (work / "folder").mkdir(parents=True)
    (work / "table.csv").mkdir()
    for name in ("folder/stranger", "table.csv/stranger", ".stranger.part", "images.tar"):
        (work / name).write_text("x")
    fetch(pushed, out)
    assert fetched(out) == pushed.second_files and not (out / "folder").exists()


# by revision


@pytest.mark.parametrize("revision", ["HEAD~1", "commit"])
def test_fetch_by_revision(pushed: Pushed, out: Path, revision: str) -> None:
    revision = pushed.first_commit if revision == "commit" else revision
    repository = str(pushed.project.root)
    fetch_dataset.run(raw_out=out, repository=repository, revision=revision, path="data/photos")
    assert fetched(out) == pushed.first_files
    assert read_lineage(out) == RawLineage(
        md5=pushed.first.md5,
        size=pushed.first.size,
        num_files=2,
        repository=repository,
        revision=revision,
        commit=pushed.first_commit,
        path="data/photos",
        remote=pushed.remote,
    )


@pytest.mark.slow
def test_credentials_that_only_dvc_knows(pushed: Pushed, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They stay in .dvc/config.local, which git ignores; the fetch then goes through DVC."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    root = pushed.project.root
    local = root / ".dvc/config.local"
    local.write_text(f"['remote \"storage\"']\n    access_key_id = test\n    secret_access_key = {SECRET}\n")
    try:
        assert pushed.project.run("git", "status", "--porcelain") == ""
        fetch_dataset.run(raw_out=out, repository=str(root), revision="HEAD", path="data/photos")
    finally:
        local.unlink()
    assert fetched(out) == pushed.second_files
    assert SECRET not in (out / LINEAGE).read_text()


@pytest.mark.slow
def test_fetch_through_dvc_where_the_remote_is_a_folder(project: Project, source: Path, out: Path) -> None:
    project.run("dvc", "remote", "add", "--default", "disk", str(out.with_name("disk")))
    project.add(source)
    commit = project.commit()
    project.run("dvc", "push", "--quiet")
    shutil.rmtree(project.root / ".dvc/cache")
    arguments = {"repository": project.root.as_uri(), "revision": commit, "path": "data/photos"}
    fetch_dataset.run(raw_out=out, **arguments)
    assert fetched(out) == project.files()
    other = out.with_name("file")
    fetch_dataset.run(raw_out=other, **(arguments | {"path": "data/photos/table.csv"}))
    assert fetched(other) == {"table.csv": project.files()["table.csv"]}


def test_a_plain_remote_is_known_by_what_its_configuration_says(pushed: Pushed, tmp_path: Path) -> None:
    assert versioning.resolve(str(pushed.project.root), "HEAD", "data/photos").is_plain_s3
    clone = Project(tmp_path / "clone")
    subprocess.run(["git", "clone", "--quiet", str(pushed.project.root), str(clone.root)], check=True)
    assert versioning.default_remote(clone.root) == (pushed.remote, pushed.bucket.endpoint, True)
    with (clone.root / ".dvc/config").open("a") as config:
        config.write("    version_aware = true\n")  # keeps files by name, not by digest
    clone.commit()
    assert not versioning.resolve(str(clone.root), "HEAD", "data/photos").is_plain_s3


def test_dvcs_databases_are_closed_after_use(pushed: Pushed) -> None:
    """From 3.13 on, Python warns of a connection that nobody closes."""
    root = pushed.project.root
    commit = versioning.resolve(str(root), "HEAD", "data/photos").lineage.commit
    for use in (
        lambda: versioning.resolve(str(root), "no-such-revision", "data/photos"),
        lambda: versioning.default_remote(root),
        lambda: list(places(root)),
        lambda: tracked(root, commit),
    ):
        with suppress(InputError):
            use()
        assert [file.path for file in psutil.Process().open_files() if Path(file.path).name == "cache.db"] == []


def test_revisions_that_are_not_there(project: Project, source: Path, out: Path) -> None:
    project.run("dvc", "remote", "add", "--default", "disk", str(out.with_name("disk")))
    project.add(source)
    project.commit()
    shutil.rmtree(project.root / ".dvc/cache")

    def try_fetch(**changes: str) -> None:
        known = {"repository": str(project.root), "revision": "HEAD", "path": "data/photos"}
        fetch_dataset.run(raw_out=out, **(known | changes))

    for changes, message in [
        ({"revision": "v9"}, r"project at v9 cannot be opened: .*v9.*; check repository and revision"),
        ({"repository": str(out.with_name("none"))}, r"none at HEAD cannot be opened: .*; check repository"),
        ({"path": "data/none"}, r"'data/none' is not in .*project at HEAD; check path and revision"),
        ({"path": "data"}, r"'data' in .*project at HEAD is not under DVC as a whole"),
        ({"path": "../x"}, r"'\.\./x' leads out of the folder"),
        ({}, r"'data/photos' in .*project at HEAD cannot be (listed|fetched): .*; run `dvc push` where the data is"),
    ]:
        with pytest.raises(InputError, match=message) as failure:
            try_fetch(**changes)
        assert "\n" not in str(failure.value)
    assert not out.exists()
    with pytest.raises(BackendError, match=r"https://127\.0\.0\.1:9/x\.git at main cannot be opened: .*refused"):
        try_fetch(repository="https://me:password@127.0.0.1:9/x.git", revision="main")


# lineage


def test_data_that_differs_from_its_pointer_has_no_lineage(
    project: Project, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    added = project.add(source)
    assert raw_lineage(project.root / "data/photos/table.csv") == added
    (project.root / "data/photos/more").write_text("x")
    assert raw_lineage(project.root / "data/photos") is None
    assert "no version is recorded; run `dvc add" in caplog.text


def test_damaged_records(tmp_path: Path) -> None:
    (tmp_path / LINEAGE).write_text("{}")
    with pytest.raises(InputError, match=r"\.lineage\.json is damaged .*; fetch the data again"):
        raw_lineage(tmp_path)
    (tmp_path / LINEAGE).unlink()
    (tmp_path / "x.dvc").write_text("outs: 5\n")
    with pytest.raises(InputError, match=r"x\.dvc is not a file that `dvc add` made"):
        raw_lineage(tmp_path / "x")


class TestFetchFromUri:
    """A folder in S3 that is not under DVC."""

    def fetch(self, bucket: Bucket, out: Path, uri: str, **arguments: str) -> None:
        fetch_dataset.run(raw_out=out, uri=uri, endpoint_url=bucket.endpoint, **arguments)

    def test_the_folder_arrives_without_a_version(self, bucket: Bucket, tmp_path: Path) -> None:
        bucket.put("photos/table.csv", b"id,text")
        bucket.put("photos/images/1.jpg", b"image")
        bucket.put("photos2/other", b"other")
        self.fetch(bucket, tmp_path / "out", f"{bucket.uri}/photos")
        got = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        assert got == {"out/table.csv": b"id,text", "out/images/1.jpg": b"image"}
        assert raw_lineage(tmp_path / "out") is None

    def test_what_does_not_exist_is_refused(self, bucket: Bucket, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"none/ does not exist, expected an object or a folder"):
            self.fetch(bucket, tmp_path / "out", f"{bucket.uri}/none")
        assert not (tmp_path / "out").exists()

    def test_a_folder_that_is_not_empty_stays(self, bucket: Bucket, tmp_path: Path) -> None:
        bucket.put("photos/table.csv", b"id,text")
        (tmp_path / "mine").write_text("mine")
        with pytest.raises(InputError, match="holds something, which would be lost, expected a new folder"):
            self.fetch(bucket, tmp_path, f"{bucket.uri}/photos")

    def test_a_version_beside_it_is_refused(self, bucket: Bucket, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="and a version under DVC, expected either"):
            self.fetch(bucket, tmp_path / "out", f"{bucket.uri}/photos", md5="x")
