import json

import numpy as np
import pytest

from dagnn_core.data.ingest import journal as journal_module
from dagnn_core.data.ingest.journal import CheckJournal, UnusableImage
from dagnn_core.data.ingest.near_copies import Fingerprint
from dagnn_core.data.raw import Reason

MISSING = UnusableImage(Reason.IMAGE_MISSING, "a\udcff.png")
TORN = UnusableImage(Reason.IMAGE_UNDECODABLE, "b.png: OSError: torn\nfile")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(journal_module, "BLOCK_ITEMS", 2)


def record(path, faults, *, interrupted=False):
    try:
        with CheckJournal(path) as journal:
            for fault in faults:
                journal.record(fault)
            if interrupted:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass


def read(path):
    with CheckJournal(path) as journal:
        return journal.num_checked, journal.faults


def test_results_come_back_with_their_indices(tmp_path):
    record(tmp_path / "j", [None, MISSING, None])
    record(tmp_path / "j", [TORN, None])
    assert read(tmp_path / "j") == (5, {1: MISSING, 3: TORN})


def test_an_interruption_loses_the_unfinished_block_alone(tmp_path):
    record(tmp_path / "j", [MISSING, None, TORN], interrupted=True)
    assert read(tmp_path / "j") == (2, {0: MISSING})
    record(tmp_path / "j", [None, TORN], interrupted=True)
    assert read(tmp_path / "j") == (4, {0: MISSING, 3: TORN})


@pytest.mark.parametrize("lost", [1, 2, 30])
def test_a_torn_last_line_is_dropped_and_written_again(tmp_path, lost):
    record(tmp_path / "j", [None, MISSING, TORN, None])
    whole = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(whole[:-lost])
    assert read(tmp_path / "j") == (2, {1: MISSING})
    record(tmp_path / "j", [TORN, None])
    assert (tmp_path / "j").read_bytes() == whole


def test_zeros_after_a_loss_of_power_are_dropped(tmp_path):
    record(tmp_path / "j", [None, MISSING])
    with (tmp_path / "j").open("ab") as stream:
        stream.write(bytes(100) + b"\n")
    assert read(tmp_path / "j") == (2, {1: MISSING})


def test_a_block_is_one_line_on_disk_before_the_next_begins(tmp_path):
    with CheckJournal(tmp_path / "j") as journal:
        for fault in (None, TORN, MISSING):
            journal.record(fault)
        lines = (tmp_path / "j").read_text().splitlines()
        assert [json.loads(line.partition(" ")[2]) for line in lines] == [{"num_checked": 2, "faults": [[1, *TORN]]}]


@pytest.mark.parametrize("order", [(1, 0), (1,), (0, 0, 1)])
def test_a_line_counts_after_the_lines_before_it_alone(tmp_path, order):
    record(tmp_path / "j", [None, MISSING, TORN, None])
    lines = (tmp_path / "j").read_bytes().splitlines(keepends=True)
    (tmp_path / "j").write_bytes(b"".join(lines[number] for number in order))
    assert read(tmp_path / "j") in ((0, {}), (2, {1: MISSING}))


PRINTS = [Fingerprint(2**64 - 1 - number, np.full(192, number, np.uint8)) for number in range(5)]


def record_prints(path, prints, *, interrupted=False):
    """Record the prints that are not there yet; returns how many were."""
    with pytest.MonkeyPatch.context() as patch:
        if interrupted:
            patch.setattr(CheckJournal, "__exit__", lambda self, *_: self._stream.close())
        with CheckJournal(path, fingerprints=True) as journal:
            done = journal.num_checked
            for fingerprint in prints[done:]:
                journal.record(None, fingerprint)
    return done


def read_prints(path):
    with CheckJournal(path, fingerprints=True) as journal:
        pass
    return [(int(hash_), tiles.tolist()) for hash_, tiles in journal.fingerprints]


def test_fingerprints_come_back_in_order_after_any_interruption(tmp_path):
    assert record_prints(tmp_path / "j", PRINTS[:3], interrupted=True) == 0
    assert record_prints(tmp_path / "j", PRINTS) == 2
    assert read_prints(tmp_path / "j") == [(fingerprint.hash, fingerprint.tiles.tolist()) for fingerprint in PRINTS]


@pytest.mark.parametrize("extra", [1, 200, 1000])
def test_fingerprints_beyond_the_last_line_are_dropped(tmp_path, extra):
    record_prints(tmp_path / "j", PRINTS[:2])
    with (tmp_path / "j.prints").open("ab") as stream:
        stream.write(bytes(extra))
    assert record_prints(tmp_path / "j", PRINTS) == 2
    assert [hash_ for hash_, _ in read_prints(tmp_path / "j")] == [fingerprint.hash for fingerprint in PRINTS]


@pytest.mark.parametrize("lost", [1, 10_000])
def test_what_has_lost_its_fingerprints_is_checked_again(tmp_path, lost):
    record_prints(tmp_path / "j", PRINTS)
    whole = (tmp_path / "j.prints").read_bytes()
    (tmp_path / "j.prints").write_bytes(whole[:-lost])
    assert record_prints(tmp_path / "j", PRINTS) == (4 if lost == 1 else 0)
    assert (tmp_path / "j.prints").read_bytes() == whole


@pytest.mark.parametrize("at", [0, 500, -1])
def test_damaged_fingerprints_are_made_again(tmp_path, caplog, at):
    record_prints(tmp_path / "j", PRINTS)
    whole = (tmp_path / "j.prints").read_bytes()
    content = bytearray(whole)
    content[at] ^= 1
    (tmp_path / "j.prints").write_bytes(content)
    assert record_prints(tmp_path / "j", PRINTS) == {0: 0, 500: 2, -1: 4}[at]
    assert f"{tmp_path}/j.prints is damaged: the images from there on are checked again" in caplog.text
    assert (tmp_path / "j.prints").read_bytes() == whole


def test_what_was_checked_without_fingerprints_is_checked_again(tmp_path):
    record(tmp_path / "j", [None, MISSING])
    with CheckJournal(tmp_path / "j", fingerprints=True) as journal:
        assert (journal.num_checked, journal.faults) == (0, {})
        journal.record(TORN)
    assert read_prints(tmp_path / "j") == [(0, [0] * 192)]
    assert read(tmp_path / "j") == (1, {0: TORN})
