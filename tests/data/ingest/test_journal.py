import json

import pytest

from dagnn_core.data.ingest import journal as journal_module
from dagnn_core.data.ingest.journal import CheckJournal, UnusableImage
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
def test_a_torn_last_line_is_dropped_and_written_anew(tmp_path, lost):
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
