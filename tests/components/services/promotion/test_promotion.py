import re
import shutil
from dataclasses import replace
from functools import partial

import pytest

from components.services.promotion import ledger as ledger_module
from components.services.promotion.gate import Check, GateResult
from components.services.promotion.ledger import Action, Ledger, Record
from components.services.promotion.promotion import promote as promote_by_gate
from components.services.promotion.promotion import read_history, rollback
from components.services.registry.versions import CHALLENGER, CHAMPION
from dagnn_core.errors import CheckFailedError, InputError

pytestmark = pytest.mark.usefixtures("quick_looks")


def examine(challenger, champion):
    """A gate of one check, of what the tags say."""
    new, old = float(challenger.tags["map_mean"]), float(champion.tags["map_mean"]) if champion else 0.0
    metrics = {"map_mean": new} | ({"champion_map_mean": old} if champion else {})
    words = f"map_mean {new:.4f} against {old:.4f}"
    return GateResult((Check("map_mean", "passed" if new >= old else "failed", new, old, words),), metrics)


promote = partial(promote_by_gate, examine=examine)


@pytest.fixture
def quick_looks(monkeypatch):
    monkeypatch.setattr(ledger_module, "SECONDS_BETWEEN_LOOKS", 0.01)


@pytest.fixture
def add_version(tracking, store_version):
    """Adds a whole version with some tags to the registered model `dagnn`, and makes it challenger."""
    tracking.client.create_registered_model("dagnn")
    return partial(store_version, tracking)


def aliases(tracking):
    return {alias: str(version) for alias, version in tracking.client.get_registered_model("dagnn").aliases.items()}


def test_first_challenger_becomes_champion(tracking, add_version):
    add_version(map_mean="0.7")
    promotion = promote(tracking, name="dagnn", version=None)
    assert promotion.decision.accepted
    assert (promotion.version, promotion.champion, promotion.metrics) == ("1", None, {"map_mean": 0.7})
    assert aliases(tracking) == {CHALLENGER: "1", CHAMPION: "1"}


def test_champion_stays_when_the_challenger_is_refused(tracking, add_version):
    add_version(map_mean="0.7")
    promote(tracking, name="dagnn", version=None)
    add_version(map_mean="0.6")
    promotion = promote(tracking, name="dagnn", version=None)
    assert (promotion.champion, promotion.decision.accepted) == ("1", False)
    assert aliases(tracking) == {CHALLENGER: "2", CHAMPION: "1"}
    add_version(map_mean="0.8")
    promotion = promote(tracking, name="dagnn", version=None)
    assert (promotion.champion, promotion.decision.accepted) == ("1", True)
    assert aliases(tracking) == {CHALLENGER: "3", CHAMPION: "3"}


def test_named_version_is_promoted_instead_of_the_challenger(tracking, add_version):
    add_version(map_mean="0.7")
    add_version(map_mean="0.6")
    assert promote(tracking, name="dagnn", version="1").version == "1"
    assert aliases(tracking) == {CHALLENGER: "2", CHAMPION: "1"}


def test_champion_is_not_promoted_again(tracking, add_version):
    add_version(map_mean="0.7")
    promote(tracking, name="dagnn", version=None)
    again = promote(tracking, name="dagnn", version=None)
    assert again.decision == (True, "version 1 is the champion already")


def test_nothing_is_examined_where_the_decision_needs_it_not(tracking, add_version, files_of):
    def never(challenger, champion):
        raise AssertionError("examined")

    add_version(map_mean="0.7")
    promote(tracking, name="dagnn", version=None)
    add_version(map_mean="0.8")
    assert promote_by_gate(tracking, name="dagnn", version="1", examine=never).decision.accepted
    shutil.rmtree(files_of(tracking, "2"))
    assert promote_by_gate(tracking, name="dagnn", version="2", examine=never).checks == ()
    tracking.client.set_registered_model_alias("dagnn", CHAMPION, "2")
    assert not promote_by_gate(tracking, name="dagnn", version="1", examine=never).decision.accepted


def test_failure_while_examining_leaves_no_trace(tracking, add_version):
    def fail(challenger, champion):
        raise InputError("no data")

    add_version(map_mean="0.7")
    with pytest.raises(InputError, match="no data"):
        promote_by_gate(tracking, name="dagnn", version=None, examine=fail)
    assert events(tracking) == []
    assert aliases(tracking) == {CHALLENGER: "1"}


def test_unknown_names_and_versions_say_what_exists(tracking, add_version):
    with pytest.raises(InputError, match=r"has no registered model 'other' \(it has: dagnn\); run `dagnn register`"):
        promote(tracking, name="other", version=None)
    with pytest.raises(InputError, match=r"dagnn has no version with alias challenger; run `dagnn register`"):
        promote(tracking, name="dagnn", version=None)
    add_version(map_mean="0.7")
    add_version(map_mean="0.8")
    with pytest.raises(InputError, match=r"dagnn has no version '9' \(it has: 1, 2\); give one of these as --version"):
        promote(tracking, name="dagnn", version="9")


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "it's", "a" * 201])
def test_name_that_mlflow_does_not_take(tracking, name):
    with pytest.raises(InputError, match=r"must consist of letters.*; correct register.model_name"):
        promote(tracking, name=name, version=None)


def test_name_of_a_ledger(tracking):
    with pytest.raises(InputError, match=r"must not end in -promotions, got 'dagnn-promotions': that is the ledger"):
        promote(tracking, name="dagnn-promotions", version=None)


def test_name_of_a_ledger_is_not_offered(tracking, add_version):
    promote_next(tracking, add_version, "0.5")
    with pytest.raises(InputError, match=r"has no registered model 'other' \(it has: dagnn\)"):
        rollback(tracking, name="other", to=None)
    with pytest.raises(InputError, match=r"has no registered model 'other' \(it has: dagnn\)"):
        read_history(tracking, name="other")


def promote_next(tracking, add_version, map_mean, **options):
    add_version(map_mean=map_mean)
    return promote(tracking, name="dagnn", version=None, **options)


def events(tracking):
    return [(event.what, event.source, event.target) for event in read_history(tracking, name="dagnn").events]


def test_history_tells_who_what_and_why(tracking, add_version):
    somebody = replace(tracking, account="ann")
    assert read_history(tracking, name="dagnn") == ("dagnn", None, (), ())
    promote_next(somebody, add_version, "0.5", why="the first\n of all")
    promote_next(tracking, add_version, "0.4")
    promote_next(tracking, add_version, "0.6")
    rollback(somebody, name="dagnn", to=None, why="ticket 7")

    history = read_history(tracking, name="dagnn")
    assert (history.champion, history.remarks) == ("1", ())
    assert events(tracking) == [
        ("promoted", None, "1"),
        ("refused", "1", "2"),
        ("promoted", "1", "3"),
        ("rolled back", "3", "1"),
    ]
    first, refused, _, back = history.events
    assert (first.who, first.why) == ("ann", "the first of all; 1 of 1 checks passed")
    assert first.metrics == {"map_mean": 0.5}
    assert refused.metrics == {"map_mean": 0.4, "champion_map_mean": 0.5}
    assert refused.why == "1 of 1 checks failed: map_mean: 0.4 against 0.5, map_mean 0.4000 against 0.5000"
    assert (back.who, back.why) == ("ann", "ticket 7")
    assert refused.who == tracking.who
    assert "@" in refused.who


def test_dry_run_decides_and_leaves_no_trace(tracking, add_version):
    promotion = promote_next(tracking, add_version, "0.5", dry_run=True)
    assert promotion.decision.accepted
    assert aliases(tracking) == {CHALLENGER: "1"}
    assert [model.name for model in tracking.client.search_registered_models()] == ["dagnn"]
    tracking.client.set_registered_model_alias("dagnn", CHAMPION, "1")
    assert not promote_next(tracking, add_version, "0.4", dry_run=True).decision.accepted
    assert events(tracking) == []


def test_champion_is_no_event(tracking, add_version):
    promote_next(tracking, add_version, "0.5")
    promote(tracking, name="dagnn", version=None)
    assert events(tracking) == [("promoted", None, "1")]


def test_champion_of_a_registry_that_is_older_than_its_ledger_is_adopted(tracking, add_version, caplog):
    add_version(map_mean="0.5")
    tracking.client.set_registered_model_alias("dagnn", CHAMPION, "1")
    [remark] = read_history(tracking, name="dagnn").remarks
    assert remark == "version 1 became champion without a record; the next promotion adopts it"

    promote_next(tracking, add_version, "0.6")
    assert "dagnn: adopted version 1 as champion, which no record explains" in caplog.text
    assert events(tracking) == [("adopted", None, "1"), ("promoted", "1", "2")]
    assert rollback(tracking, name="dagnn", to=None) == ("dagnn", "1", "2")


def test_champion_set_by_hand_stops_promotion_and_rollback(tracking, add_version):
    promote_next(tracking, add_version, "0.5")
    promote_next(tracking, add_version, "0.6")
    add_version(map_mean="0.7")
    tracking.client.set_registered_model_alias("dagnn", CHAMPION, "3")
    reason = "alias champion is at version 3, the ledger at version 2"
    assert reason in read_history(tracking, name="dagnn").remarks[0]

    promotion = promote_next(tracking, add_version, "0.8")
    assert not promotion.decision.accepted
    assert promotion.decision.reason.startswith(reason)
    with pytest.raises(CheckFailedError, match=rf"dagnn is not rolled back to version 1: {reason}.* with --adopt"):
        rollback(tracking, name="dagnn", to=None)
    assert aliases(tracking)[CHAMPION] == "3"

    dry = promote(tracking, name="dagnn", version=None, adopt=True, dry_run=True)
    assert (dry.decision.accepted, dry.champion) == (True, "3")
    assert promote(tracking, name="dagnn", version=None, adopt=True).decision.accepted
    assert events(tracking)[2:] == [
        ("refused", "2", "4"),
        ("refused", "2", "1"),
        ("adopted", "2", "3"),
        ("promoted", "3", "4"),
    ]


def test_rollback_goes_back_champion_by_champion(tracking, add_version):
    for map_mean in ("0.5", "0.6", "0.7"):
        promote_next(tracking, add_version, map_mean)
    assert rollback(tracking, name="dagnn", to=None) == ("dagnn", "2", "3")
    assert rollback(tracking, name="dagnn", to=None) == ("dagnn", "1", "2")
    with pytest.raises(InputError, match=r"dagnn has no champion before version 1 to go back to; see `dagnn history"):
        rollback(tracking, name="dagnn", to=None)
    assert rollback(tracking, name="dagnn", to="3") == ("dagnn", "3", "1")
    assert rollback(tracking, name="dagnn", to="3") == ("dagnn", "3", "3")
    assert aliases(tracking)[CHAMPION] == "3"


def test_rollback_to_what_was_never_champion(tracking, add_version):
    with pytest.raises(InputError, match=r"dagnn has no champion before now to go back to"):
        rollback(tracking, name="dagnn", to=None)
    promote_next(tracking, add_version, "0.5")
    add_version(map_mean="0.9")
    for version in ("2", "9", "x"):
        with pytest.raises(InputError, match=rf"'{version}' of dagnn was never its champion \(were: 1\); .*--version"):
            rollback(tracking, name="dagnn", to=version)


def test_interrupted_rollback_is_finished_and_not_done_twice(tracking, add_version):
    for map_mean in ("0.5", "0.6", "0.7"):
        promote_next(tracking, add_version, map_mean)
    ledger = Ledger(client=tracking.client, model="dagnn", alias=CHAMPION, fault=lambda version: None)
    ledger.append(Record(action=Action.ROLLED_BACK, source="3", target="2", who="ann", why=""))  # and dies here
    assert rollback(tracking, name="dagnn", to=None) == ("dagnn", "2", "3")
    assert aliases(tracking)[CHAMPION] == "2"


def test_version_whose_files_are_gone_is_neither_promoted_nor_restored(tracking, add_version, files_of):
    promote_next(tracking, add_version, "0.5")
    promote_next(tracking, add_version, "0.6")
    add_version(map_mean="0.7")
    for version in ("1", "3"):
        shutil.rmtree(files_of(tracking, version))

    decision = promote(tracking, name="dagnn", version=None).decision
    assert decision == (
        False,
        "version 3 has lost its files: MLmodel is missing in its store; register it again",
    )
    with pytest.raises(CheckFailedError, match=r"not rolled back to version 1: version 1 has lost its files: MLmodel"):
        rollback(tracking, name="dagnn", to=None)
    assert aliases(tracking)[CHAMPION] == "2"
    assert events(tracking)[2:] == [("refused", "2", "3"), ("refused", "2", "1")]


def test_rollback_to_a_deleted_version(tracking, add_version):
    for map_mean in ("0.5", "0.6", "0.7"):
        promote_next(tracking, add_version, map_mean)
    tracking.client.delete_model_version("dagnn", "2")
    expected = r"version 2 was deleted; give another champion as --to \(were: 1, 2, 3\)"
    with pytest.raises(CheckFailedError, match=expected):
        rollback(tracking, name="dagnn", to=None)
    assert rollback(tracking, name="dagnn", to="1") == ("dagnn", "1", "3")


def test_deleted_champion(tracking, add_version):
    promote_next(tracking, add_version, "0.5")
    promote_next(tracking, add_version, "0.6")
    tracking.client.delete_model_version("dagnn", "2")
    with pytest.raises(CheckFailedError, match=r"alias champion is at no version, the ledger at version 2"):
        rollback(tracking, name="dagnn", to=None)
    with pytest.raises(CheckFailedError, match=r"version 2 was deleted"):
        rollback(tracking, name="dagnn", to=None, adopt=True)
    assert rollback(tracking, name="dagnn", to="1") == ("dagnn", "1", None)


def test_challenger_whose_run_was_deleted(tracking, add_version):
    add_version(map_mean="0.5")
    tracking.client.delete_run(tracking.client.get_model_version("dagnn", "1").run_id)
    decision = promote(tracking, name="dagnn", version=None).decision
    assert re.search(
        r"^version 1 stands on the MLflow run \w{32}, which was deleted; register it again", decision.reason
    )


def test_lost_race_is_a_refusal_in_the_history(tracking, add_version):
    promote_next(tracking, add_version, "0.5")
    ledger = Ledger(client=tracking.client, model="dagnn", alias=CHAMPION, fault=lambda version: None)
    ledger.append(Record(action=Action.PROMOTED, source=None, target="1", who="bob", why="mine"))
    assert events(tracking) == [("promoted", None, "1"), ("refused", None, "1")]
    why = read_history(tracking, name="dagnn").events[1].why
    assert why.startswith("mine; another move came first (entry 1, promoted by ")


def test_history_tells_of_damage(tracking, add_version):
    promote_next(tracking, add_version, "0.5")
    promote_next(tracking, add_version, "0.4")
    tracking.client.create_model_version("dagnn-promotions", source="s3://somebody/else")
    tracking.client.delete_model_version("dagnn-promotions", "2")
    assert read_history(tracking, name="dagnn").remarks == (
        "dagnn-promotions version 3 is no record of this program, so it counts for nothing",
        "dagnn-promotions version 2 is missing: somebody has deleted a record",
    )


def test_long_reason(tracking, add_version):
    for command in (partial(promote, version=None), partial(rollback, to=None)):
        with pytest.raises(InputError, match=r"--reason has 1001 characters, expected at most 1000"):
            command(tracking, name="dagnn", why="x" * 1001)
