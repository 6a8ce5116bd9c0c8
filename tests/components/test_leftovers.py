"""What `dagnn clean` lists and removes, and what it leaves alone."""

from pathlib import Path

import pytest

from components.leftovers import CACHED, DRAFT, UNFINISHED, find_leftovers
from components.locations import ADDING, ARTIFACTS, CACHE, DATA, FETCHED, RETRAINING, RUNS, WORK
from dagnn_core.drafts import draft_of
from dagnn_core.locks import folder_in_use
from dagnn_core.work import work_folder
from pipeline.cli.clean import clean


def make_file(path: Path, size: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("model/manifest.json", ".model.ab12_z.tmp/half", ".model.old.tmp/half", ".notes.tmp"):
        make_file(tmp_path / ARTIFACTS / name)
    for name in ("1/train/model/manifest.json", "1/train/.model.ab12.tmp/half"):
        make_file(tmp_path / RUNS / name)
    for name in ("f00d/checkpoint.safetensors", "f00d.lock", "beef.lock"):
        make_file(tmp_path / WORK / name)
    make_file(tmp_path / RETRAINING / "cafe" / "model" / "manifest.json")
    make_file(tmp_path / ADDING / "photos.v1" / "source" / "a.zip")
    make_file(tmp_path / ADDING / "only_copy" / "old" / "a.jpg")
    make_file(tmp_path / ADDING / "changing" / "change.json")
    for folder in (CACHE, FETCHED, DATA):
        make_file(tmp_path / folder / "x" / "y")
    return tmp_path


REMOVED = {
    f"{ARTIFACTS}/.model.ab12_z.tmp": DRAFT,
    f"{ARTIFACTS}/.model.old.tmp": DRAFT,
    f"{RUNS}/1/train/.model.ab12.tmp": DRAFT,
    f"{WORK}/f00d": UNFINISHED,
    f"{WORK}/beef": UNFINISHED,
    f"{ADDING}/photos.v1": UNFINISHED,
    f"{RETRAINING}/cafe": UNFINISHED,
}
STAYS = (
    *(ARTIFACTS / "model", ARTIFACTS / ".notes.tmp", RUNS / "1/train/model", DATA / "x"),
    *(ADDING / "only_copy/old", ADDING / "changing"),
)


def test_it_lists_by_default_and_removes_when_told_to(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert {str(leftover.path): leftover.what for leftover in find_leftovers(Path())} == REMOVED
    before = sorted(project.rglob("*"))
    clean()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == [str(leftover.path) for leftover in find_leftovers(Path())]
    assert lines[-1] == "nothing was removed; add --yes to remove these"
    assert sorted(project.rglob("*")) == before
    clean(yes=True)
    assert capsys.readouterr().out.count(": removed") == len(REMOVED)
    assert all((project / path).exists() for path in (*STAYS, CACHE / "x/y", FETCHED / "x/y"))
    assert list((project / WORK).iterdir()) == []
    clean(yes=True)
    assert capsys.readouterr().out == "nothing is left over\n"


def test_caches_go_on_request(project: Path) -> None:
    assert {leftover.path for leftover in find_leftovers(Path(), cache=True) if leftover.what == CACHED} == {
        CACHE,
        FETCHED,
    }
    clean(yes=True, cache=True)
    assert not (project / CACHE).exists() and not (project / FETCHED).exists()
    assert all((project / path).exists() for path in STAYS)


def test_a_cache_in_use_stays(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with folder_in_use(CACHE), folder_in_use(CACHE):
        clean(yes=True, cache=True)
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines[str(CACHE)].endswith(": stays, a process is at work on it") and (project / CACHE / "x/y").exists()
    assert lines[str(FETCHED)].endswith(": removed") and not (project / FETCHED).exists()
    clean(yes=True, cache=True)
    assert not (project / CACHE).exists()


def test_what_a_process_is_at_work_on_stays(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with draft_of(project / ARTIFACTS / "features") as draft, work_folder(WORK / "f00d", busy="a training is running"):
        clean(yes=True)
        lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
        for path in (draft.relative_to(project), WORK / "f00d"):
            assert lines[str(path)].endswith(": stays, a process is at work on it")
            assert path.exists()
    assert list((project / ARTIFACTS / "features").iterdir()) == []
