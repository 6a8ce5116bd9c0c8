"""Which commit holds the dvc.lock that lists a model: real repositories, and DVC's own digest."""

import shutil
import subprocess
import sys

import pytest
from ruamel.yaml import YAML

from components.services.data_versions.layout import folder_digest
from components.services.data_versions.lock_history import find_commit


@pytest.fixture
def artifact(tmp_path):
    folder = tmp_path / "project" / "model"
    (folder / "text_encoder").mkdir(parents=True)
    (folder / "empty").mkdir()
    for name, content in (
        ("manifest.json", b"{}\r\n"),
        ("text_encoder/state.json", b"state"),
        ("text_encoder.txt", b""),
        ("a b.bin", b"\0\x80"),
        ("été", b"x"),
    ):
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def project(artifact):
    git(artifact.parent, "init", "--quiet")
    return artifact.parent


def git(folder, *arguments):
    names = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    done = subprocess.run(["git", *names, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(project, **outs):
    stages = {name: {"cmd": "run", "outs": [{"path": name, "md5": md5}]} for name, md5 in outs.items()}
    YAML().dump({"schema": "2.0", "stages": stages}, project / "dvc.lock")
    git(project, "add", "--force", "dvc.lock")
    git(project, "commit", "--quiet", "--message", "Train")
    return git(project, "rev-parse", "HEAD")


def test_digest_is_that_of_dvc(project, artifact):
    for command in (("init", "--quiet"), ("add", "--quiet", "model")):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=project, check=True, capture_output=True)
    [out] = YAML(typ="safe").load(project / "model.dvc")["outs"]
    assert folder_digest(artifact) == out["md5"]


def test_first_commit_that_lists_the_model(project, artifact):
    digest = folder_digest(artifact)
    commit(project, train="0" * 32 + ".dir")
    expected = commit(project, train=digest)
    commit(project, train=digest, evaluate="1" * 32)
    commit(project, train="2" * 32 + ".dir")
    assert find_commit(project, digest) == expected
    (artifact / "manifest.json").write_text("{} ")
    assert find_commit(project, folder_digest(artifact)) is None


def test_a_digest_that_is_no_output_does_not_count(project):
    commit(project, train="0" * 32)
    (project / "dvc.lock").write_text("schema: '2.0'\nstages: {train: {deps: [{path: a, md5: abc}]}}\n")
    git(project, "commit", "--quiet", "--all", "--message", "As an input")
    (project / "dvc.lock").write_text("abc: [\n")
    git(project, "commit", "--quiet", "--all", "--message", "Broken")
    assert find_commit(project, "abc") is None


def test_commits_of_other_branches_and_tags_count(project):
    commit(project, train="0" * 32)
    main = git(project, "branch", "--show-current")
    git(project, "switch", "--quiet", "--create", "experiment")
    expected = commit(project, train="1" * 32)
    git(project, "switch", "--quiet", main)
    assert find_commit(project, "1" * 32) == expected
    git(project, "tag", "v1", "experiment")
    git(project, "branch", "--quiet", "-D", "experiment")
    assert find_commit(project, "1" * 32) == expected


def test_below_the_root_of_the_repository(project, artifact):
    folder = project / "part"
    folder.mkdir()
    expected = commit(folder, train="1" * 32)
    assert find_commit(folder, "1" * 32) == expected


def test_no_repository_and_no_commit(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    assert find_commit(folder, "1" * 32) is None
    git(folder, "init", "--quiet")
    assert find_commit(folder, "1" * 32) is None
    shutil.rmtree(folder / ".git")
