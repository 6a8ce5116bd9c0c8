"""Archives that are unpacked safely, and folders of images that become one tar."""

import io
import os
import stat
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.services.data_versions import archives as module
from components.services.data_versions.archives import (
    RawFile,
    check_name,
    check_space,
    copy_packed,
    image_folders,
    list_files,
    unpack,
)
from dagnn_core.errors import BackendError, InputError


def make_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def make_zip(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: (folder / file.name).read_bytes() for file in list_files(folder)}


FILES = [("table.csv", b"a,b\n"), ("images/1.jpg", b"one"), ("images/2.jpg", b"two")]
MAKERS: dict[str, Callable[[Path, list[tuple[str, bytes]]], Path]] = {
    "a.tar": make_tar,
    "a.tar.gz": lambda path, members: make_tar(path, members, "w:gz"),
    "a.tgz": lambda path, members: make_tar(path, members, "w:gz"),
    "a.tar.xz": lambda path, members: make_tar(path, members, "w:xz"),
    "a.tar.bz2": lambda path, members: make_tar(path, members, "w:bz2"),
    "A.ZIP": make_zip,
}


@pytest.mark.parametrize("name", MAKERS)
def test_archives_are_unpacked(tmp_path: Path, name: str) -> None:
    archive = MAKERS[name](tmp_path / name, FILES)
    assert content(unpack(archive, tmp_path / "out")) == dict(FILES)


@pytest.mark.parametrize("name", ["a.tar.gz", "A.ZIP"])
def test_a_lone_folder_is_gone_into(tmp_path: Path, name: str) -> None:
    archive = MAKERS[name](tmp_path / name, [(f"fashion/v1/{file}", text) for file, text in FILES])
    assert content(unpack(archive, tmp_path / "out")) == dict(FILES)


def test_a_lone_folder_of_images_keeps_its_name(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "train2017.zip", [(f"train2017/{i}.jpg", b"x") for i in range(101)])
    assert len(content(unpack(archive, tmp_path / "out"))) == 101
    assert "train2017/0.jpg" in content(tmp_path / "out")


def test_names_as_old_programs_of_windows_and_macos_write_them(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", [("x\\table.csv", b"a"), ("x\\images\\", b""), ("x\\images\\e__.jpg", b"b")])
    archive.write_bytes(archive.read_bytes().replace(b"e__.jpg", "e\u0301.jpg".encode()))
    assert content(unpack(archive, tmp_path / "out")) == {"table.csv": b"a", "images/e\u0301.jpg": b"b"}
    archive = make_zip(tmp_path / "b.zip", [("x\\..\\..\\table.csv", b"a")])
    with pytest.raises(InputError, match="leads out of the folder"):
        unpack(archive, tmp_path / "other")


def test_the_memory_for_many_empty_files_in_a_tar_does_not_grow(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", [(f"{number}.jpg", b"") for number in range(4000)])
    tracemalloc.start()
    assert sum(1 for _ in module._tar_members(archive)) == 4000
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_what_a_mac_puts_into_a_zip_is_left_out(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", [("x/table.csv", b"a"), ("__MACOSX/x/._table.csv", b"b")])
    assert content(unpack(archive, tmp_path / "out")) == {"table.csv": b"a"}


@pytest.mark.parametrize("maker", ["a.tar.gz", "A.ZIP"])
@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..", "a\nb"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str, maker: str) -> None:
    archive = MAKERS[maker](tmp_path / maker, [("good", b"x"), (name, b"x")])
    with pytest.raises(InputError, match=r"leads out of the folder, expected|has control characters in its name"):
        unpack(archive, tmp_path / "deep" / "out")
    assert not (tmp_path / "evil").exists() and not (tmp_path / "deep" / "evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("thing")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(InputError, match=r"a\.tar: 'thing' is a link or a device, expected regular files only"):
        unpack(tmp_path / "a.tar", tmp_path / "out")


def test_links_and_encryption_in_a_zip_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("thing")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match=r"link\.zip: 'thing' is a link or a device"):
        unpack(tmp_path / "link.zip", tmp_path / "out")
    data = bytearray(make_zip(tmp_path / "secret.zip", [("thing", b"x")]).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the directory at the end
    (tmp_path / "secret.zip").write_bytes(data)
    with pytest.raises(InputError, match=r"'thing' is encrypted; unpack the archive yourself"):
        unpack(tmp_path / "secret.zip", tmp_path / "out2")


@pytest.mark.parametrize("maker", ["a.tar", "A.ZIP"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_is_refused(tmp_path: Path, maker: str) -> None:
    for number, names in enumerate([("x", "x"), ("x", "a/../x"), ("x", "x/y"), ("x/y", "x")]):
        archive = MAKERS[maker](tmp_path / maker, [(name, b"x") for name in names])
        with pytest.raises(InputError, match=r"has the same name twice: .*x; pack it again"):
            unpack(archive, tmp_path / f"out{number}")


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NEVER_A_BOMB", 1_000_000)
    for maker in ("a.tar.gz", "A.ZIP"):
        archive = MAKERS[maker](tmp_path / maker, [("zeros", bytes(20_000_000))])
        with pytest.raises(InputError, match="unpacks to more than 200 times its size"):
            unpack(archive, tmp_path / f"out-{maker}")


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILES", 2)
    with pytest.raises(InputError, match="has more than 2 files"):
        unpack(make_tar(tmp_path / "a.tar", FILES), tmp_path / "out")


@pytest.mark.parametrize("name", MAKERS)
def test_damaged_archives(tmp_path: Path, name: str) -> None:
    archive = MAKERS[name](tmp_path / name, [("x", os.urandom(50_000))])
    whole = archive.read_bytes()
    for number, damaged in enumerate([whole[: len(whole) // 2], b"", b"no archive at all"]):
        archive.write_bytes(damaged)
        with pytest.raises(InputError, match=r"is not a whole archive \(.*; copy it again"):
            unpack(archive, tmp_path / f"out{number}")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "..", ".", "", "c d"]), max_size=5), st.booleans())
def test_no_name_that_is_taken_leads_out(parts: list[str], absolute: bool) -> None:
    name = "/" * absolute + "/".join(parts)
    try:
        check_name(name, "test")
    except InputError:
        return
    root = Path("/somewhere/else")
    assert Path(os.path.normpath(root / name)).is_relative_to(root) and os.path.normpath(root / name) != str(root)


# folders


def images(count: int, folder: str, suffix: str = ".jpg") -> list[RawFile]:
    return [RawFile(f"{folder}/{number}{suffix}", 1) for number in range(count)]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (images(101, "images"), {"images"}),
        (images(100, "images"), set()),
        (images(60, "images/a") + images(60, "images/b"), {"images"}),
        ([*images(101, "images"), RawFile("images/list.txt", 1)], set()),
        ([*images(101, "images"), RawFile("images/.DS_Store", 1)], {"images"}),
        ([*images(101, "data/train", ".PNG"), RawFile("data/table.csv", 1)], {"data/train"}),
        (images(101, "tags", ".txt"), set()),
        ([RawFile(f"{number}.jpg", 1) for number in range(200)], set()),
    ],
)
def test_which_folders_are_packed(files: list[RawFile], expected: set[str]) -> None:
    assert image_folders(files) == expected


def make_folder(root: Path, count: int = 120) -> Path:
    (root / "images" / "more").mkdir(parents=True)
    (root / "notes").mkdir()
    (root / "table.csv").write_text("id\n")
    (root / "notes" / "a.txt").write_text("a")
    for number in range(count):
        (root / "images" / ("more" if number % 2 else "") / f"{number}.png").write_bytes(b"%d" % number)
    return root


def test_images_become_a_tar_and_the_rest_stays(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "source")
    copy_packed(source, list_files(source), tmp_path / "out")
    assert sorted(content(tmp_path / "out")) == ["images.tar", "notes/a.txt", "table.csv"]
    with tarfile.open(tmp_path / "out" / "images.tar", "r:") as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == sorted(member.name for member in members)
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode, m.isreg()) for m in members} == {(0, 0, 0, "", 0o644, True)}
        stored = {member.name: tar.extractfile(member).read() for member in members}  # type: ignore[union-attr]
    assert stored == {name.removeprefix("images/"): data for name, data in content(source).items() if "images" in name}


def test_equal_content_makes_equal_files(tmp_path: Path) -> None:
    for name in ("first", "second"):
        source = make_folder(tmp_path / name)
        if name == "second":
            for path in source.rglob("*.png"):
                os.utime(path, (1, 1))
                path.chmod(0o600)
        copy_packed(source, list_files(source), tmp_path / f"{name}-out")
    assert content(tmp_path / "first-out") == content(tmp_path / "second-out")


def test_a_tar_in_the_way(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "source")
    (source / "images.tar").write_bytes(b"")
    with pytest.raises(InputError, match=r"has both images/ and images\.tar, expected one of them"):
        copy_packed(source, list_files(source), tmp_path / "out")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda path: path.symlink_to("/etc/passwd"),
            r"thing is a link that leads out of .*source, to /etc/passwd; put",
        ),
        (lambda path: path.symlink_to("/etc"), r"thing is a link that leads out of .*source, to /etc; put the file"),
        (lambda path: path.symlink_to("nowhere"), r"thing' is a link to 'nowhere', which is not there; bring"),
        (lambda path: path.symlink_to("thing"), r"thing' is a link to 'thing', which is not there"),
        (lambda path: path.symlink_to("."), r"thing' is a link to a folder that it lies in"),
        (os.mkfifo, r"thing' is a device, expected regular files only; remove it"),
    ],
)
def test_links_and_devices_in_a_folder_are_refused(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    source = make_folder(tmp_path / "source")
    make(source / "thing")
    with pytest.raises(InputError, match=message):
        list_files(source)


def test_links_within_a_folder_are_followed(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "source")
    files = {file.name for file in list_files(source)}
    (source / "file").symlink_to("table.csv")
    (source / "folder").symlink_to("images")
    (tmp_path / "link").symlink_to(source)
    images = {f"folder/{name.removeprefix('images/')}" for name in files if name.startswith("images/")}
    assert {file.name for file in list_files(tmp_path / "link")} == files | images | {"file"}
    copy_packed(source, list_files(source), tmp_path / "out")
    assert (tmp_path / "out/file").read_bytes() == (source / "table.csv").read_bytes()
    assert (tmp_path / "out/folder.tar").read_bytes() == (tmp_path / "out/images.tar").read_bytes()
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))


def test_names_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xe9.jpg")).write_bytes(b"")
    with pytest.raises(InputError, match="or is no UTF-8; rename it"):
        list_files(tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder, expected one with raw data"):
        list_files(tmp_path / "none")


def test_too_little_room(tmp_path: Path) -> None:
    check_space(tmp_path, 1)
    with pytest.raises(BackendError, match=r"GB are free on its disk, expected 1000000000\.0 GB; free some"):
        check_space(tmp_path, 10**18)
