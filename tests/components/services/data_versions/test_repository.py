"""Raw data under DVC: pushed to a real S3 server, fetched by digest and by revision."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from components.services.data_versions import repository as versioning
from components.services.data_versions.object_stores import places, tracked
from components.services.data_versions.raw_version import LINEAGE, RawLineage, raw_lineage, read_lineage
from components.steps import fetch_dataset
from dagnn_core.errors import BackendError, InputError
from tests.components.fault_proxy import Fault, FaultProxy
from tests.components.services.data_versions.conftest import Project, content, kill_at, make_source
from tests.fixtures import forked
from tests.fixtures.locations import ROOT
from tests.fixtures.s3 import AWS, SECRET, Bucket, make_bucket

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


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
    options = ["--raw-out", out, "--md5", pushed.second.md5, "--remote", pushed.remote, "--endpoint-url", proxy.url]
    with forked.start("components.steps.fetch_dataset", *options) as process:
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


FETCH_POINTS = [
    "components.steps.fetch_dataset:write_lineage before 1",
    "dagnn_core.artifacts:json.dumps after 1",
    "components.steps.fetch_dataset:Path.replace before 3",
    "components.steps.fetch_dataset:Path.replace after 3",
]


@pytest.mark.slow
@pytest.mark.parametrize("by", ["digest", "revision", "uri"])
def test_a_fetch_that_is_killed_at_any_point_never_counts_as_fetched(pushed: Pushed, out: Path, by: str) -> None:
    bucket, files = pushed.bucket, pushed.second_files
    for name, data in files.items():
        bucket.put(f"plain/{name}", data)
    arguments = {
        "digest": {"md5": pushed.second.md5, "remote": pushed.remote, "endpoint_url": bucket.endpoint},
        "revision": {"repository": str(pushed.project.root), "revision": "HEAD", "path": "data/photos"},
        "uri": {"uri": f"{bucket.uri}/plain", "endpoint_url": bucket.endpoint},
    }[by]
    points = FETCH_POINTS if by != "uri" else ["shutil:rmtree before 1", *FETCH_POINTS[2:]]
    for number, point in enumerate(points):
        raw_out = out.with_name(f"{by}{number}")
        call = (
            f"from components.steps import fetch_dataset; fetch_dataset.run(raw_out=Path(sys.argv[1]), **{arguments})"
        )
        kill_at(point, call, str(raw_out), cwd=ROOT)
        assert not raw_out.exists() or fetched(raw_out) == files
        for _ in range(2 if by != "uri" else 1):
            fetch_dataset.run(raw_out=raw_out, **arguments)
            assert fetched(raw_out) == files
        assert not list(out.parent.glob(f".{raw_out.name}*"))


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


def test_fetch_from_a_checkout_of_another_user(pushed: Pushed, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(InputError, match=r"belongs to another user; if you trust it, run `git config --global --add"):
        fetch_dataset.run(raw_out=out, repository=str(pushed.project.root), revision="HEAD", path="data/photos")
    assert not out.exists()


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

    def test_a_kill_after_the_last_file_is_recovered_from(self, bucket: Bucket, tmp_path: Path) -> None:
        bucket.put("photos/table.csv", b"id,text")
        self.fetch(bucket, tmp_path / "out", f"{bucket.uri}/photos")
        work = tmp_path / ".out.fetch"
        work.mkdir()  # as a kill leaves it that comes before it goes
        (work / "fetched").write_text(f"{bucket.uri}/photos")
        with pytest.raises(InputError, match="holds something"):
            self.fetch(bucket, tmp_path / "out", f"{bucket.uri}/other")
        self.fetch(bucket, tmp_path / "out", f"{bucket.uri}/photos")
        assert not work.exists() and content(tmp_path / "out") == {"table.csv": b"id,text"}

    def test_a_version_beside_it_is_refused(self, bucket: Bucket, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="and a version under DVC, expected either"):
            self.fetch(bucket, tmp_path / "out", f"{bucket.uri}/photos", md5="x")


def test_without_dvc_a_checkout_answers_for_what_is_checked_out(
    pushed: Pushed, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = Project(tmp_path / "clone")
    subprocess.run(["git", "clone", "--quiet", str(pushed.project.root), str(clone.root)], check=True)
    branch = clone.run("git", "rev-parse", "--abbrev-ref", "HEAD").strip()
    expected = versioning.resolve(str(clone.root), branch, "data/photos")
    monkeypatch.setattr(versioning, "find_spec", lambda name: None)  # as if DVC were not installed
    monkeypatch.setattr(versioning, "_open", lambda *_: pytest.fail("neither git nor DVC is needed"))
    assert versioning.resolve(str(clone.root), branch, "data/photos") == expected
    clone.run("git", "pack-refs", "--all")
    assert versioning.resolve(str(clone.root), branch, "data/photos") == expected
    fetch_dataset.run(raw_out=out, repository=str(clone.root), revision="HEAD", path="data/photos")
    assert {name: data for name, data in content(out).items() if name != LINEAGE} == pushed.second_files
    for revision, path, message in (
        (
            "v9",
            "data/photos",
            f"has {branch} checked out, expected v9: without DVC only that can be read; check it out",
        ),
        ("HEAD", "data/films", "'data/films' is not in .* at HEAD; check path and revision"),
        ("HEAD", "../photos", "photos"),
    ):
        with pytest.raises(InputError, match=message):
            versioning.resolve(str(clone.root), revision, path)
    clone.run("git", "checkout", "--quiet", "HEAD~1")
    first = versioning.resolve(str(clone.root), pushed.first_commit, "data/photos")
    assert (first.lineage.md5, first.lineage.commit) == (pushed.first.md5, pushed.first_commit)
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "new")], check=True)
    with pytest.raises(InputError, match="is no git checkout with a commit"):
        versioning.resolve(str(tmp_path / "new"), "HEAD", "data/photos")
