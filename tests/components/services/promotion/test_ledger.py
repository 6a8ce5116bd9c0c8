from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.services.promotion import ledger as module
from components.services.promotion.ledger import (
    SETTLED,
    Action,
    Entry,
    Ledger,
    LedgerState,
    Record,
    distinct,
    fold,
    lost_to,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


def record(action, source, target, nonce=None):
    values = {"action": Action(action), "source": source, "target": target, "who": "ann", "why": ""}
    return Record(**values, nonce=nonce) if nonce else Record(**values)


def entry(number, *values, settled=True):
    return Entry(number=number, when=START + timedelta(minutes=number), settled=settled, record=record(*values))


def entries(*rows):
    return [entry(number, *row) for number, row in enumerate(rows, start=1)]


@pytest.mark.parametrize(
    ("rows", "champion", "previous", "counted"),
    [
        ([], None, (), []),
        ([("promoted", None, "1")], "1", (), [1]),
        ([("adopted", None, "4"), ("promoted", "4", "5")], "5", ("4",), [1, 2]),
        ([("promoted", None, "1"), ("promoted", None, "2"), ("promoted", None, "3")], "1", (), [1]),
        ([("promoted", None, "1"), ("refused", "1", "2"), ("promoted", "1", "3")], "3", ("1",), [1, 3]),
        ([("promoted", None, "1"), ("promoted", "1", "1")], "1", (), [1]),  # nothing moves
        ([("promoted", "7", "8"), ("promoted", None, "1")], "1", (), [2]),  # what came before 7 is missing
        # the first of two requests with one nonce is the record, even where the second would count again
        (
            [
                ("promoted", None, "1"),
                ("promoted", "1", "2", "x"),
                ("rolled back", "2", "1"),
                ("promoted", "1", "2", "x"),
            ],
            "1",
            (),
            [1, 2, 3],
        ),
        # rollback after rollback goes further back, and promoting continues from there
        (
            [("promoted", None, "1"), ("promoted", "1", "2"), ("promoted", "2", "3"), ("rolled back", "3", "2")],
            "2",
            ("1",),
            [1, 2, 3, 4],
        ),
        (
            [("promoted", None, "1"), ("promoted", "1", "2"), ("promoted", "2", "3"), ("rolled back", "3", "1")],
            "1",
            (),
            [1, 2, 3, 4],
        ),
        # back to a champion that was itself rolled back
        (
            [("promoted", None, "1"), ("promoted", "1", "2"), ("rolled back", "2", "1"), ("rolled back", "1", "2")],
            "2",
            ("1",),
            [1, 2, 3, 4],
        ),
        # the champion was deleted, and that was adopted: rollbacks still know the way
        ([("promoted", None, "1"), ("promoted", "1", "2"), ("adopted", "2", None)], None, ("1", "2"), [1, 2, 3]),
        ([("promoted", None, "1"), ("adopted", "1", None), ("promoted", None, "2")], "2", ("1",), [1, 2, 3]),
    ],
)
def test_fold(rows, champion, previous, counted):
    state = fold(entries(*rows))
    assert (state.champion, state.previous) == (champion, previous)
    assert [move.number for move in state.moves] == counted


@st.composite
def ledgers(draw):
    """What writers leave behind that each have seen the ledger at some earlier moment, and may send twice."""
    written = []
    for number in range(1, draw(st.integers(1, 15)) + 1):
        if written and draw(st.integers(0, 5)) == 0:
            written.append(replace(draw(st.sampled_from(written)), number=number))
            continue
        seen = fold(written[: draw(st.integers(0, len(written)))])
        action = draw(st.sampled_from(list(Action)))
        target = draw(st.sampled_from(["1", "2", "3", *([None] if action is Action.ADOPTED else [])]))
        written.append(entry(number, action, seen.champion, target))
    return written


@settings(max_examples=200, deadline=None)
@given(ledgers(), st.randoms(use_true_random=False))
def test_every_state_has_one_winner_whatever_the_writers_saw(written, random):
    state = fold(written)
    # a chain from nothing to the champion: each state is left by one move
    chain = [None, *(move.record.target for move in state.moves)]
    assert [move.record.source for move in state.moves] == chain[:-1]
    assert state.champion == chain[-1]
    # what counts is known as soon as it is written, and stays so
    for length in range(len(written)):
        assert fold(written[:length]).moves == state.moves[: len(fold(written[:length]).moves)]
    # each request once, refusals never, in whatever order they are read
    assert len({move.record.nonce for move in state.moves}) == len(state.moves)
    assert fold([e for e in written if e.record.action is not Action.REFUSED]) == state
    assert fold(random.sample(written, len(written))) == state
    # a move by one who has seen everything counts
    new = entry(len(written) + 1, "promoted", state.champion, "9")
    assert fold([*written, new]).moves == (*state.moves, new)


def test_loser_learns_who_came_first():
    [first, second] = entries(("promoted", None, "1"), ("promoted", None, "2"))
    state = fold([first, second])
    assert lost_to(second, state) == (
        "another move came first (entry 1, promoted by ann, 2026-01-01 00:01 UTC): the champion is version 1"
    )
    assert lost_to(second, LedgerState()) == "entry 2 does not follow from any record"


@pytest.fixture
def ledger(tracking, monkeypatch):
    """The ledger of a model with five versions, without files."""
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LOOKS", 0.01)
    tracking.client.create_registered_model("scenes")
    for _ in range(5):
        tracking.client.create_model_version("scenes", source="s3://bucket/model")
    return Ledger(client=tracking.client, model="scenes", alias="champion", fault=lambda version: None)


def set_alias(ledger, version):
    ledger.client.set_registered_model_alias("scenes", "champion", version)


def test_move_is_written_then_carried_out(ledger):
    assert ledger.look() == (LedgerState(), None, None, None)
    assert ledger.move(record("promoted", None, "2")) is None
    assert ledger.read_alias() == "2"
    [only] = ledger.read().entries
    assert (only.number, only.settled, only.record.target) == (1, True, "2")
    version = ledger.client.get_model_version("scenes-promotions", "1")
    assert (version.description, version.tags["from"], version.tags["to"]) == ("promoted: none to 2", "none", "2")
    assert abs(only.when - datetime.now(UTC)) < timedelta(minutes=5)


def test_second_of_two_moves_is_refused_and_recorded(ledger):
    assert ledger.move(record("promoted", None, "2")) is None
    refusal = ledger.move(record("promoted", None, "3"))
    assert refusal.startswith("another move came first (entry 1, promoted by ann, ")
    assert refusal.endswith("the champion is version 2; run the command again to stand against it")
    assert ledger.read_alias() == "2"
    assert [found.record.target for found in ledger.read().entries] == ["2", "3"]


def test_lagging_alias_is_repaired_by_the_next_reader(ledger, caplog):
    ledger.move(record("promoted", None, "1"))
    ledger.append(record("promoted", "1", "2"))  # its writer dies here

    assert ledger.look(repair=False)[1:3] == ("1", None)
    assert ledger.read_alias() == "1"
    position = ledger.look()
    assert (position.alias, position.stray, position.finished.number) == ("2", None, 2)
    assert ledger.read_alias() == "2"
    assert "scenes: alias champion lagged, moved to version 2 (entry 2, promoted by ann" in caplog.text
    assert ledger.look().finished is None


def test_mover_that_dies_before_the_last_tag_is_followed(ledger):
    ledger.append(record("promoted", None, "1"))
    set_alias(ledger, "1")
    assert ledger.look().finished.number == 1
    assert ledger.client.get_model_version("scenes-promotions", "1").tags[SETTLED] == "true"


@pytest.mark.parametrize("moved_to", ["1", "3", None])
def test_alias_that_somebody_has_moved_is_reported_and_kept(ledger, moved_to):
    ledger.move(record("promoted", None, "1"))
    ledger.move(record("promoted", "1", "2"))
    if moved_to:
        set_alias(ledger, moved_to)
    else:
        ledger.client.delete_registered_model_alias("scenes", "champion")

    position = ledger.look()
    where = f"version {moved_to}" if moved_to else "no version"
    assert position.stray.startswith(f"alias champion is at {where}, the ledger at version 2 (entry 2, promoted by ann")
    assert position.refusal.endswith("find out who has moved it, and accept it with --adopt")
    assert ledger.read_alias() == moved_to

    adopted = ledger.adopt(position, who="eve", why="checked")
    assert (adopted.state.champion, adopted.stray) == (moved_to, None)
    assert ledger.read().entries[-1].record.action is Action.ADOPTED
    assert ledger.move(record("promoted", moved_to, "4")) is None


def test_alias_moved_between_the_record_and_the_move_is_not_overwritten(ledger, monkeypatch):
    ledger.move(record("promoted", None, "1"))
    append = Ledger.append

    def append_then_interfere(self, written):
        book = append(self, written)
        set_alias(ledger, "5")
        return book

    monkeypatch.setattr(Ledger, "append", append_then_interfere)
    assert "alias champion is at version 5, the ledger at version 2" in ledger.move(record("promoted", "1", "2"))
    assert ledger.read_alias() == "5"


def test_lagging_alias_does_not_follow_to_a_version_that_is_gone(ledger):
    ledger.move(record("promoted", None, "1"))
    ledger.append(record("promoted", "1", "2"))
    broken = replace(ledger, fault=lambda version: "was deleted")
    assert broken.look().stray.endswith(", which was deleted")
    assert ledger.read_alias() == "1"


def test_request_sent_twice_is_one_record(ledger):
    ledger.append(record("promoted", None, "1", nonce="n"))
    assert ledger.move(record("promoted", None, "1", nonce="n")) is None
    assert [found.number for found in ledger.read().entries] == [1]
    assert len(ledger.client.search_model_versions("name = 'scenes-promotions'")) == 2


@pytest.mark.parametrize(
    "damage",
    [
        {"action": "crowned"},
        {"from": "first"},
        {"to": "v2"},
        {"figures": "[1]"},
        {"figures": "{"},
        {"figures": '{"a": []}'},
    ],
)
def test_strangers_and_damaged_records_are_told_apart(ledger, damage):
    ledger.move(record("promoted", None, "1"))
    ledger.client.create_model_version("scenes-promotions", source="s3://somebody/else")
    ledger.append(record("refused", "1", "2"))
    for tag, value in damage.items():
        ledger.client.set_model_version_tag("scenes-promotions", "3", tag, value)
    ledger.append(record("refused", "1", "3"))
    ledger.client.delete_model_version("scenes-promotions", "4")
    ledger.append(record("refused", "1", "4"))

    book = ledger.read()
    assert [found.number for found in book.entries] == [1, 5]
    assert (book.damaged, book.missing) == ((2, 3), (4,))
    assert fold(book.entries).champion == "1"


def test_deleted_move_leaves_the_alias_to_a_person(ledger):
    for source, target in ((None, "1"), ("1", "2"), ("2", "3")):
        ledger.move(record("promoted", source, target))
    ledger.client.delete_model_version("scenes-promotions", "2")

    position = ledger.look()
    assert "alias champion is at version 3, the ledger at version 1" in position.stray
    assert ledger.read_alias() == "3"
    assert ledger.adopt(position, who="eve", why="").state.champion == "3"


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(list(Action)),
    st.none() | st.integers(1, 10**9).map(str),
    st.text(min_size=1, max_size=30).filter(str.strip),
    st.dictionaries(st.sampled_from(["map_i2t", "map_mean"]), st.floats(0, 1)),
)
def test_record_survives_its_way_through_tags(action, version, words, metrics):
    written = Record(action=action, source=version, target=version, who=words, why=words, metrics=metrics)

    class Version:
        version, creation_timestamp, tags = "7", 1_000, written.tags()

    assert module._parse(Version).record == written


def test_distinct_keeps_the_first_of_each_request():
    doubled = [
        entry(3, "promoted", None, "1", "n"),
        entry(1, "promoted", None, "1", "n"),
        entry(2, "refused", "1", "2"),
    ]
    assert [found.number for found in distinct(doubled)] == [1, 2]
