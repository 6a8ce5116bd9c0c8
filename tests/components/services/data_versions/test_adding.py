"""Raw data put under DVC: as a whole or not at all, whatever is in it and whenever the process is killed."""

import errno
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from PIL import Image

from components.services.data_versions import adding
from components.services.data_versions import archives as raw_files
from components.services.data_versions.adding import add
from components.services.data_versions.raw_version import raw_lineage
from components.services.data_versions.repository import is_unchanged, track
from components.services.storage.s3 import Storage
from dagnn_core.config.dataset import FolderConfig
from dagnn_core.data.layouts.folder import open_folder
from dagnn_core.errors import BackendError, InputError
from tests.components.fault_proxy import Fault, FaultProxy
from tests.components.services.data_versions.conftest import Project, content, kill_at
from tests.fixtures.locations import ROOT
from tests.fixtures.s3 import Bucket

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


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
    os.mkfifo(source / "pipe")
    with pytest.raises(InputError, match=r"pipe' is a device, expected regular files only; remove it"):
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
    with pytest.raises(BackendError, match=r"`dvc .*` failed: .*config"):
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

    def interrupted(root: Path, target: Path) -> None:
        track(root, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(adding, "track", interrupted)
    with pytest.raises(KeyboardInterrupt):
        project.add(source)
    assert (project.root / "data/photos").exists() == replaced
    assert (project.files() if replaced else {}) == before
    monkeypatch.setattr(adding, "track", track)
    project.add(source)
    assert project.files()["table.csv"] == (source / "table.csv").read_bytes()


def test_two_at_once(project: Project, source: Path) -> None:
    with (
        adding._work_folder(project.root / adding.ADDING / "photos"),
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


# files that DVC would not keep


UNKEPT = {
    ".dvc/config": r"DVC ignores \.dvc/config, by the pattern '\.dvc/' \(built into DVC\), .*; rename or remove",
    "nested/.dvc/config": r"DVC ignores nested/\.dvc/config, by the pattern '\.dvc/'",
    ".git/HEAD": r"DVC ignores \.git/HEAD, by the pattern '\.git'",
    "module/.git": r"DVC ignores module/\.git, by the pattern '\.git'",
    ".hg/store": r"DVC ignores \.hg/store, by the pattern '\.hg/'",
    "notes.tmp": r"DVC ignores notes\.tmp, by the pattern '\*\.tmp' \(\.dvcignore:2\), .*; change the pattern, or",
    "cached/x/1": r"DVC ignores cached/x/1, by the pattern 'cached/' \(\.dvcignore:3\)",
    "raw.csv": r"DVC ignores raw\.csv, by the pattern '.*raw\.csv' \(data/\.dvcignore:1\)",
    ".dvcignore": r"DVC would take \.dvcignore for its own, and obey instead of keep it; remove it, or add a copy",
    "deep/.dvcignore": r"DVC would take deep/\.dvcignore for its own",
    "images.dvc": r"DVC would take images\.dvc for its own",
    "deep/dvc.yaml": r"DVC would take deep/dvc\.yaml for its own",
}


def test_what_dvc_would_not_keep_is_refused(project: Project, tmp_path: Path) -> None:
    (project.root / ".dvcignore").write_text("# of this project\n*.tmp\ncached/\n")
    (project.root / "data").mkdir()
    (project.root / "data/.dvcignore").write_text("raw.csv\n")
    for number, (name, message) in enumerate(UNKEPT.items()):
        source = tmp_path / f"source{number}"
        (source / name).parent.mkdir(parents=True)
        (source / name).write_text("outs: []\n")
        (source / "table.csv").write_text("id,text\n")
        with pytest.raises(InputError, match=rf"source{number}: {message}"):
            project.add(source)
        archive = shutil.make_archive(str(source), "zip" if number % 2 else "tar", source)
        with pytest.raises(InputError, match=rf"source{number}\.(zip|tar): {message}"):
            project.add(archive)
    assert sorted(path.name for path in (project.root / "data").iterdir()) == [".dvcignore"]
    with pytest.raises(InputError, match=r"notes\.tmp, by the pattern"):  # a file alone
        project.add(tmp_path / f"source{list(UNKEPT).index('notes.tmp')}" / "notes.tmp")


def test_images_that_a_pattern_matches_are_kept_in_their_tar(project: Project, source: Path) -> None:
    (project.root / ".dvcignore").write_text("*.jpg\n")
    project.add(source)
    assert sorted(project.files()) == ["images.tar", "table.csv"]


def test_data_that_dvc_does_not_keep_is_not_replaced(project: Project, source: Path, tmp_path: Path) -> None:
    """As an earlier release left it, or `dvc add` does: DVC says that it is unchanged, and has none of it."""
    target = project.root / "data/photos"
    shutil.copytree(source, target)
    (target / ".dvc").mkdir()
    (target / ".dvc/config").write_text("")
    track(project.root, target)
    assert is_unchanged(project.root, target)
    before = project.files()
    with pytest.raises(InputError, match=r"photos: DVC ignores \.dvc/config, images/.* more, .*, so it would be lost"):
        project.add(source)
    (target / ".dvc/config").unlink()
    (target / ".dvc").rmdir()
    with pytest.raises(InputError, match=r"is not what photos\.dvc says"):
        project.add(source)
    assert project.files() == {name: data for name, data in before.items() if name != ".dvc/config"}


def test_data_whose_objects_are_gone_is_not_replaced(project: Project, source: Path) -> None:
    added = project.add(source)
    before = project.files()
    lost = hashlib.md5(before["table.csv"]).hexdigest()
    (project.root / ".dvc/cache/files/md5" / lost[:2] / lost[2:]).unlink()
    (source / "table.csv").write_text("other")
    with pytest.raises(InputError, match=r"cache does not have (table\.csv|it), so it would be lost"):
        project.add(source)
    assert project.files() == before and raw_lineage(project.root / "data/photos") == added


@pytest.mark.parametrize("damage", ["object", "pointer", "link"])
def test_what_dvc_keeps_is_compared_with_what_was_added(
    project: Project, source: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """Whatever goes wrong in DVC without a word: an object differs, a file is left out, a link cannot be made."""
    csv = hashlib.md5((source / "table.csv").read_bytes()).hexdigest()

    def damaged(root: Path, target: Path) -> None:
        if damage == "pointer":
            table = (target / "table.csv").rename(root / "aside")
            track(root, target)
            table.rename(target / "table.csv")
            return
        track(root, target)
        (target / "table.csv").unlink()
        if damage == "object":
            kept = root / ".dvc/cache/files/md5" / csv[:2] / csv[2:]
            kept.chmod(0o644)
            kept.write_bytes(b"x" * kept.stat().st_size)
            shutil.copyfile(kept, target / "table.csv")

    monkeypatch.setattr(adding, "track", damaged)
    with pytest.raises(BackendError, match=r"photos: what DVC keeps of table\.csv is not what was added; run again"):
        project.add(source)
    assert not (project.root / "data/photos").exists() and not (project.root / "data/photos.dvc").exists()
    monkeypatch.setattr(adding, "track", track)
    project.add(source)
    assert project.files()["table.csv"] == (source / "table.csv").read_bytes()


def test_why_dvc_failed_is_always_said(project: Project, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.root / ".gitignore").write_text("*.dvc\n")
    with pytest.raises(BackendError, match=r"`dvc add data/photos` failed: .*photos\.dvc' is git-ignored"):
        project.add(source)
    (project.root / ".gitignore").write_text("")

    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("dvc_objects.fs.generic._try_links", full)
        patched.setattr("dvc_objects.fs.generic.copy", full)
        with pytest.raises(BackendError, match=r"`dvc add data/photos` failed: .*No space left on device"):
            project.add(source)
    assert not (project.root / "data/photos").exists() and not (project.root / "data/photos.dvc").exists()
    project.add(source)


# links


@pytest.mark.parametrize(
    "kind", ["symlink", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("reflink,copy", "copy", "hardlink"))]
)
def test_every_kind_of_link_is_added_replaced_and_imported(
    project: Project, source: Path, tmp_path: Path, kind: str
) -> None:
    (project.root / ".dvc/config").write_text(f"[cache]\n    type = {kind}\n    dir = {tmp_path / 'cache'}\n")
    table = tmp_path / "source/table.csv"
    table.write_text("id,image,text,label\n" + "".join(f"{i},{i}.png,text {i},l{i % 2}\n" for i in range(40)))
    shutil.rmtree(source / "images")
    (source / "images").mkdir()
    for number in range(40):  # too few for a tar
        Image.new("RGB", (4, 4), (number, 0, 0)).save(source / "images" / f"{number}.png")
    project.add(source)
    target = project.root / "data/photos"
    files = project.files()
    assert (target / "table.csv").is_symlink() == (kind == "symlink")
    folder = FolderConfig(
        table="table.csv", text_column="text", image_column="image", images="images", label_columns=("label",)
    )
    raw = open_folder(target, folder)
    assert raw.image is not None
    assert [raw.image(item) for item in raw.items] == [files[f"images/{i}.png"] for i in range(40)]
    project.add(target)  # as it is
    assert project.files() == files
    table.write_text("other")
    project.add(source)
    assert project.files() == files | {"table.csv": b"other"}
    project.add(target)
    copied = project.add(target, "copied")
    assert project.files("data/copied") == project.files() and copied == raw_lineage(target)


# kills

POINTS = {
    "before anything is moved": "components.services.data_versions.adding:Path.rename before 1",
    "the new data is in place": "components.services.data_versions.adding:_Change._track before 1",
    "in DVC, the cache has it": "dvc.output:Output._checkout before 1",
    "in DVC, amid the links": "dvc_data.hashfile.checkout:_relink before 2",
    "in DVC, a file is gone": "dvc_data.hashfile.checkout:_remove after 1",
    "in DVC, before its file": "dvc.stage:Stage.dump before 1",
    "DVC is done": "components.services.data_versions.adding:track after 1",
    "nothing is left but to forget": "components.services.data_versions.adding:_Change.close before 1",
    "all is done": "components.services.data_versions.adding:_Change.close after 1",
}


def kill_add(point: str, project: Project, source: Path) -> None:
    kill_at(
        point,
        "from components.services.data_versions.adding import add; from components.services.storage.s3 import Storage;"
        "add('photos', sys.argv[1], project=Path(), storage=Storage())",
        str(source),
        cwd=project.root,
    )


def check_recovery(project: Project, source: Path, before: dict[str, bytes]) -> None:
    """After a kill: either version is there as a whole, and the next start brings the new one."""
    new = {"table.csv": (source / "table.csv").read_bytes()}
    with pytest.raises(InputError, match="nowhere does not exist"):
        project.add(source / "nowhere")
    target = project.root / "data/photos"
    if target.exists():
        assert project.files()["table.csv"] in (before.get("table.csv"), new["table.csv"])
        assert is_unchanged(project.root, target)
        assert raw_lineage(target) is not None
    else:
        assert not before and not target.with_name("photos.dvc").exists()
    added = project.add(source)
    assert project.files()["table.csv"] == new["table.csv"] and raw_lineage(target) == added
    assert is_unchanged(project.root, target)
    assert list((project.root / ".dagnn/add").iterdir()) == [project.root / ".dagnn/add/photos.lock"]


@pytest.mark.parametrize("point", ["the new data is in place", "in DVC, before its file"])
def test_a_kill_at_the_worst_moments(project: Project, source: Path, point: str) -> None:
    kill_add(POINTS[point], project, source)
    check_recovery(project, source, {})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["copy", "symlink"])
@pytest.mark.parametrize("replaces", [False, True])
def test_a_kill_at_every_point(project: Project, source: Path, replaces: bool, kind: str) -> None:
    (project.root / ".dvc/config").write_text(f"[cache]\n    type = {kind}\n")
    if replaces:
        project.add(source)
    before = project.files() if replaces else {}
    fresh = project.root.with_name("fresh")
    shutil.copytree(project.root, fresh, symlinks=True)
    (source / "table.csv").write_text("id,text\n7,seven\n")
    points = list(POINTS.values())
    points += ["components.services.data_versions.adding:Path.rename after 2"] if replaces else []
    for point in points:
        if kind == "copy" and "checkout:" in point:  # DVC leaves the files as they are
            continue
        kill_add(point, project, source)
        check_recovery(project, source, before)
        shutil.rmtree(project.root)
        shutil.copytree(fresh, project.root, symlinks=True)


def test_data_that_is_added_in_place_after_a_kill(project: Project, source: Path) -> None:
    """The way out that the message of an earlier release named, which must not lose anything."""
    kill_add(POINTS["the new data is in place"], project, source)
    (project.root / "data/photos/table.csv").write_text("corrected")
    with pytest.raises(InputError, match=r"photos was changed after a `dagnn data add` that was interrupted; move"):
        project.add(source)
    (project.root / "data/photos/table.csv").write_bytes((source / "table.csv").read_bytes())
    project.add(project.root / "data/photos")
    assert project.files()["table.csv"] == (source / "table.csv").read_bytes()


@pytest.mark.slow
def test_kills_at_random(project: Project, source: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201  # pytest shows it where the test fails
    draw = random.Random(seed)
    for number in range(30):
        (source / f"{number}.bin").write_bytes(draw.randbytes(1 << 20))
    before: dict[str, bytes] = {}
    command = [sys.executable, "-c", "from pipeline.cli.main import main; main()", "data", "add", "photos", str(source)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}
    begin = time.monotonic()
    subprocess.run(command, cwd=project.root, env=environment, check=True, capture_output=True)
    seconds, killed = time.monotonic() - begin, 0
    for version in range(25):
        before = project.files()
        (source / "table.csv").write_text(f"id,text\n{version},{version}\n")
        (source / f"{version % 30}.bin").write_bytes(draw.randbytes(1 << 20))
        process = subprocess.Popen(command, cwd=project.root, env=environment, stdout=subprocess.PIPE, stderr=-1)
        time.sleep(draw.uniform(0.3, 1.1) * seconds)
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        check_recovery(project, source, before)
    assert killed > 10
