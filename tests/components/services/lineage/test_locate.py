"""Commits, artifacts and raw data, looked for in a real repository, in DVC's cache, and in a real S3 server."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from botocore.retries.standard import ExponentialBackoff

from components.services.data_versions.raw_version import read_pointer
from components.services.lineage.locate import ArtifactLocator, Lookup, State, lost_changes
from dagnn_core.artifacts import MANIFEST, manifest_digest_of, read_artifact, write_artifact
from tests.fixtures import forked
from tests.fixtures.s3 import SECRET, Bucket

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


class Checkout:
    """A repository with features and raw data under DVC, committed after the code that made them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *command: str) -> str:
        identity = {f"GIT_{role}_{key}": "test" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
        environment = os.environ | identity | {"DVC_NO_ANALYTICS": "1"}
        if command[0] == "dvc":
            done = forked.run(*command, cwd=self.root, environment=environment)
        else:
            done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def commit(self) -> str:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", "Test")
        return self.run("git", "rev-parse", "HEAD")

    def write_features(self, text: str) -> str:
        """Make features of this content, and put them under DVC; return their content digest."""
        with write_artifact(self.root / "artifacts/features", kind="features", provenance={}) as draft:
            (draft.path / "image.npy").write_text(text)
        self.run("dvc", "add", "--quiet", "artifacts/features")
        return read_artifact(self.root / "artifacts/features", "features").content_digest

    def push(self, bucket: Bucket) -> None:
        """Copy DVC's cache to the bucket, and make it the remote."""
        cache = self.root / ".dvc/cache"
        for file in cache.rglob("*"):
            if file.is_file():
                bucket.put(f"dvc/{file.relative_to(cache)}", file.read_bytes())
        self.set_remote(f"{bucket.uri}/dvc", bucket.endpoint)

    def set_remote(self, url: str, endpoint: str) -> None:
        settings = f"    url = {url}\n    endpointurl = {endpoint}\n" if endpoint else f"    url = {url}\n"
        (self.root / ".dvc/config").write_text(f"[core]\n    remote = storage\n['remote \"storage\"']\n{settings}")

    def lose(self, *paths: str) -> None:
        for path in paths:
            shutil.rmtree(self.root / path)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    project = Checkout(tmp_path_factory.mktemp("template"))
    project.run("git", "init", "--quiet", "--initial-branch", "main")
    project.run("dvc", "init", "--quiet")
    (project.root / "spec.yaml").write_text("seed: 1\n")
    project.code = project.commit()
    (project.root / "photos").mkdir()
    for name in ("table.csv", "images.tar"):
        (project.root / "photos" / name).write_text(name)
    project.run("dvc", "add", "--quiet", "photos")
    project.write_features("the first")
    project.commit()
    project.digest = project.write_features("the second")
    project.data = project.commit()
    project.raw = read_pointer(project.root / "photos.dvc").md5
    return project


@pytest.fixture
def project(template: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.01)
    shutil.copytree(template.root, tmp_path / "project")
    copy = Checkout(tmp_path / "project")
    vars(copy).update({name: value for name, value in vars(template).items() if name != "root"})
    return copy


def features(project: Checkout, digest: str = "") -> Lookup:
    return ArtifactLocator(project.root).artifact("features", digest or project.digest, project.code)


def raw(project: Checkout, remote: str = "") -> Lookup:
    return ArtifactLocator(project.root).raw(project.raw, project.code, remote)


# commits


def test_a_commit_and_its_branches(project: Checkout) -> None:
    assert ArtifactLocator(project.root).commit(project.code, []) == Lookup(State.FOUND, "in main")
    for name in ("a", "b", "c"):
        project.run("git", "branch", name)
    project.run("git", "tag", "v1", project.code)
    assert ArtifactLocator(project.root).commit(project.code, []).reason == "in a, b, c and 2 more"


def test_a_commit_that_no_branch_has(project: Checkout) -> None:
    lost = project.run("git", "rev-parse", "HEAD")
    project.run("git", "reset", "--quiet", "--hard", "HEAD~1")
    finding = ArtifactLocator(project.root).commit(lost, [])
    assert finding == Lookup(State.FOUND, "in no branch and no tag, so git may remove it; tag it")


def test_a_commit_of_elsewhere(project: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = ArtifactLocator(project.root).commit("c0ffee" * 6 + "c0ff", [])
    assert finding == (
        State.MISSING,
        "this checkout does not have it; fetch it, if a clone of the project does",
        "",
        "",
    )
    outside = ArtifactLocator(tmp_path).commit(project.code, [])
    assert outside.state is State.UNKNOWN
    assert outside.reason.endswith("is not in a git checkout; run this in the project")
    with monkeypatch.context() as patched:
        patched.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
        untrusted = ArtifactLocator(project.root).commit(project.code, [])
    assert untrusted.state is State.UNKNOWN and "run `git config --global --add safe.directory" in untrusted.reason


def test_uncommitted_code_is_lost_and_what_is_recorded_is_not(project: Checkout) -> None:
    recorded = ["data/.gitignore", "data/photos.dvc", "params.yaml"]
    assert lost_changes([*recorded, "components/steps/train.py"]) == ["components/steps/train.py"]
    assert ArtifactLocator(project.root).commit(project.code, recorded).state is State.FOUND
    finding = ArtifactLocator(project.root).commit(project.code, [*recorded, "components/steps/train.py"])
    assert finding == Lookup(
        State.MISSING, "uncommitted changes of that time are not recorded: components/steps/train.py"
    )


# artifacts


def test_features_in_the_folder_and_in_the_cache(project: Checkout) -> None:
    place = f"(artifacts/features at {project.data[:12]})"
    assert features(project).reason == f"in artifacts/features, in DVC's cache {place}"
    project.lose("artifacts/features")
    assert features(project) == (State.FOUND, f"in DVC's cache {place}", project.data, "artifacts/features")


def test_features_that_are_not_under_dvc(project: Checkout) -> None:
    project.lose("artifacts/features")
    with write_artifact(
        project.root / ".dagnn/runs/1/extract-features/features_out", kind="features", provenance={}
    ) as d:
        (d.path / "image.npy").write_text("a third")
    digest = read_artifact(project.root / ".dagnn/runs/1/extract-features/features_out", "features").content_digest
    assert features(project, digest) == Lookup(State.FOUND, "in .dagnn/runs/1/extract-features/features_out")
    assert features(project, "0" * 64).state is State.MISSING


def test_a_damaged_folder_does_not_count(project: Checkout) -> None:
    (project.root / "artifacts/features/image.npy").chmod(0o644)
    (project.root / "artifacts/features/image.npy").write_text("short")
    assert features(project).reason.startswith("in DVC's cache (")


def test_features_in_the_remote_alone(project: Checkout, bucket: Bucket) -> None:
    project.push(bucket)
    assert f"in DVC's cache and {bucket.uri}/dvc (" in features(project).reason
    project.lose("artifacts/features", ".dvc/cache")
    found = features(project)
    assert found.state is State.FOUND
    assert found.reason == f"in {bucket.uri}/dvc (artifacts/features at {project.data[:12]})"


def test_features_that_are_lost(project: Checkout) -> None:
    project.lose("artifacts/features", ".dvc/cache")
    lost = "no dvc.lock or .dvc file of 3 commits looked at has it, or its files are gone"
    assert features(project) == Lookup(State.MISSING, lost)


@pytest.mark.parametrize(("lost", "content"), [("list", None), ("list", "[]"), ("list", "{"), ("manifest", None)])
def test_what_is_damaged_in_the_cache_is_looked_for_in_the_remote(
    project: Checkout, bucket: Bucket, lost: str, content: str | None
) -> None:
    project.push(bucket)
    project.lose("artifacts/features")
    cache = project.root / ".dvc/cache/files/md5"
    md5 = read_pointer(project.root / "artifacts/features.dvc").md5
    file = cache / md5[:2] / md5[2:]
    if lost == "manifest":
        (md5,) = (entry["md5"] for entry in json.loads(file.read_text()) if entry["relpath"] == MANIFEST)
        file = cache / md5[:2] / md5[2:]
    file.unlink()
    if content is not None:
        file.write_text(content)
    finding = features(project)
    assert finding.state is State.FOUND
    assert finding.reason == f"in {bucket.uri}/dvc (artifacts/features at {project.data[:12]})"


# raw data


def test_raw_data_in_the_cache_and_in_the_remote(project: Checkout, bucket: Bucket) -> None:
    at = f"(photos at {project.run('git', 'rev-parse', 'HEAD~1')[:12]})"
    assert raw(project).reason == f"in DVC's cache {at}"
    project.push(bucket)
    assert raw(project).reason == f"in DVC's cache and {bucket.uri}/dvc {at}"
    project.lose(".dvc/cache")
    assert raw(project).reason == f"in {bucket.uri}/dvc {at}"


def test_a_file_that_is_lost_in_the_remote_is_named(project: Checkout, bucket: Bucket) -> None:
    project.push(bucket)
    project.lose(".dvc/cache")
    md5 = hashlib.md5(b"images.tar").hexdigest()
    bucket.client.delete_object(Bucket=bucket.name, Key=f"dvc/files/md5/{md5[:2]}/{md5[2:]}")
    finding = raw(project)
    assert finding.state is State.MISSING
    assert finding.reason.startswith(
        f"DVC's cache lacks it; {bucket.uri}/dvc lacks 1 of 2 files, such as images.tar (photos at "
    )


def test_raw_data_that_was_never_pushed(project: Checkout, bucket: Bucket) -> None:
    project.set_remote(f"{bucket.uri}/dvc", bucket.endpoint)
    assert raw(project).reason.startswith("in DVC's cache (photos at ")
    project.lose(".dvc/cache")
    assert raw(project).reason.startswith(f"DVC's cache lacks it; {bucket.uri}/dvc lacks it (photos at ")
    assert raw(project).state is State.MISSING


@pytest.mark.parametrize("url", ["s3://{bucket}/dvc", "ssh://host.invalid/dvc", "nonsense://x"])
def test_a_remote_that_cannot_be_used_is_unknown(project: Checkout, bucket: Bucket, url: str) -> None:
    project.set_remote(url.format(bucket=bucket.name), "http://127.0.0.1:9" if url.startswith("s3") else "")
    project.lose(".dvc/cache", "artifacts/features")
    for finding in (raw(project), features(project)):
        assert finding.state is State.UNKNOWN, finding
        assert finding.reason
        assert SECRET not in finding.reason
        assert "\n" not in finding.reason


def test_raw_data_of_a_pod_is_in_the_remote_that_its_record_names(
    project: Checkout, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.push(bucket)
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.endpoint)
    project.run("git", "checkout", "--quiet", ".dvc/config")
    project.lose(".dvc/cache")
    assert raw(project, f"{bucket.uri}/dvc") == Lookup(State.FOUND, f"in {bucket.uri}/dvc")
    assert raw(project, f"{bucket.uri}/other") == Lookup(State.MISSING, f"{bucket.uri}/other lacks it")
    assert raw(project, "s3://no-such-bucket/dvc").state is State.UNKNOWN


# the store of a pipeline run


class Stored(NamedTuple):
    """Features in a bucket, as Kubeflow's launcher stores a task's output."""

    bucket: Bucket
    digest: str
    uri: str

    def find(self, uri: str = "", digest: str = "") -> Lookup:
        return ArtifactLocator(Path()).stored_artifact(uri or self.uri, digest or self.digest)


@pytest.fixture
def stored(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stored:
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.01)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket.endpoint)
    with write_artifact(tmp_path / "features_out", kind="features", provenance={}) as draft:
        (draft.path / "parts").mkdir()
        for name in ("image.npy", "parts/text.npy"):
            (draft.path / name).write_text(name)
    artifact = read_artifact(tmp_path / "features_out", "features")
    for file in (MANIFEST, *artifact.files):
        bucket.put(f"v2/artifacts/run-7/features_out/{file}", (artifact.path / file).read_bytes())
    return Stored(bucket, artifact.content_digest, f"{bucket.uri}/v2/artifacts/run-7/features_out")


def test_an_artifact_in_the_store_of_its_run(stored: Stored) -> None:
    assert stored.find() == Lookup(State.FOUND, f"in {stored.uri}")
    minio = stored.uri.replace("s3://", "minio://")
    assert stored.find(minio) == Lookup(State.FOUND, f"in {minio}")


def test_an_artifact_that_its_store_has_lost(stored: Stored) -> None:
    other = stored.find(digest="0" * 64)
    assert other == Lookup(State.MISSING, f"{stored.uri} has another content (digest {stored.digest[:12]})")
    key = "v2/artifacts/run-7/features_out/{}".format
    stored.bucket.put(key("image.npy"), b"short")
    assert stored.find().reason == f"{stored.uri} lacks 1 of 2 files, such as image.npy"
    stored.bucket.put(key("image.npy"), b"image.npy")
    stored.bucket.client.delete_object(Bucket=stored.bucket.name, Key=key("parts/text.npy"))
    assert stored.find() == Lookup(State.MISSING, f"{stored.uri} lacks 1 of 2 files, such as parts/text.npy")
    manifest = json.loads(stored.bucket.get(key(MANIFEST)))
    manifest["files"]["image.npy"]["sha256"] = "0" * 64
    stored.bucket.put(key(MANIFEST), json.dumps(manifest).encode())
    assert f"{stored.uri}/{MANIFEST} is damaged (manifest_digest is not" in stored.find().reason
    manifest["manifest_digest"] = manifest_digest_of(manifest)
    stored.bucket.put(key(MANIFEST), json.dumps(manifest).encode())
    assert "has another content" in stored.find().reason
    stored.bucket.put(key(MANIFEST), b"[]")
    assert f"{stored.uri}/{MANIFEST} is damaged" in stored.find().reason
    assert stored.find(f"{stored.uri}2") == Lookup(State.MISSING, f"{stored.uri}2 has no {MANIFEST}")


def test_a_store_that_may_not_be_read_is_unknown(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = stored.find("gs://bucket/features_out")
    assert elsewhere.state is State.UNKNOWN and elsewhere.reason.endswith("this program reads S3 alone")
    no_bucket = stored.find("s3://no-such-bucket/features_out")
    assert no_bucket.state is State.UNKNOWN and "the bucket of s3://no-such-bucket does not exist" in no_bucket.reason
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    denied = stored.find()
    assert denied.state is State.UNKNOWN
    assert denied.reason.startswith(f"{stored.uri} cannot be searched: ") and "no credentials for S3" in denied.reason
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    minio = stored.find("minio://mlpipeline/features_out")
    assert minio.state is State.UNKNOWN and "set AWS_ENDPOINT_URL_S3 to its store" in minio.reason


def test_a_store_that_does_not_answer_is_asked_once(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    look = ArtifactLocator(Path())
    first = look.stored_artifact(stored.uri, stored.digest)
    assert first.state is State.UNKNOWN and "cannot be reached" in first.reason
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", stored.bucket.endpoint)
    assert look.stored_artifact(f"{stored.uri}2", stored.digest) == first


def test_raw_data_in_the_store_of_its_run(stored: Stored) -> None:
    uri, look = f"{stored.bucket.uri}/v2/artifacts/run-7/raw_out", ArtifactLocator(Path())
    assert look.stored_raw(uri, "") == Lookup(State.MISSING, f"{uri} has no files")
    stored.bucket.put("v2/artifacts/run-7/raw_out/table.csv", b"id,text")
    assert look.stored_raw(uri, "") == Lookup(State.FOUND, f"in {uri}, in which version is not recorded")
    assert look.stored_raw(uri, "a.dir") == Lookup(State.MISSING, f"{uri} has another version")
    stored.bucket.put("v2/artifacts/run-7/raw_out/.lineage.json", b'{"md5": "a.dir", "size": 1, "num_files": 1}')
    assert look.stored_raw(uri, "a.dir") == Lookup(State.FOUND, f"in {uri}")
    assert look.stored_raw(uri, "b.dir").state is State.MISSING
    stored.bucket.put("v2/artifacts/run-7/raw_out/.lineage.json", b'{"md5": "a.dir"}')
    assert look.stored_raw(uri, "a.dir") == Lookup(State.MISSING, f"the record in {uri} is damaged")


# other files


def test_files_in_git_and_under_dvc(project: Checkout) -> None:
    look = ArtifactLocator(project.root)
    assert look.in_git("spec.yaml", project.code) == Lookup(State.FOUND, f"in git at {project.code[:12]}")
    assert look.in_git("photos/table.csv", project.data).state is State.MISSING
    assert look.input_file("photos/table.csv", project.data).reason == f"in DVC's cache (photos at {project.data[:12]})"
    assert look.input_file("photos/table.csv", project.code).state is State.MISSING
    assert look.input_file("/elsewhere/words.txt", project.data).state is State.MISSING
