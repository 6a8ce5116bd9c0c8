import re
from functools import partial

import pytest

from components.services.promotion import Scores, decide, promote
from components.services.registry import CHALLENGER, CHAMPION
from dagnn_core.errors import InputError

SAME, OTHER = "d" * 64, "e" * 64


def scores(version, map_mean, dataset=SAME):
    return Scores(version=version, dataset_digest=dataset, map_i2t=map_mean, map_t2i=map_mean, map_mean=map_mean)


@pytest.mark.parametrize(
    ("challenger", "champion", "tolerance", "accepted", "reason"),
    [
        (scores("1", 0.7), None, 0.0, True, "there is no champion yet"),
        (scores("2", 0.8), scores("1", 0.7), 0.0, True, "map_mean 0.8000 against the champion's 0.7000"),
        (scores("2", 0.7), scores("1", 0.7), 0.0, True, "map_mean 0.7000"),
        (scores("2", 0.6999), scores("1", 0.7), 0.0, False, "a drop of 0.0001, more than register.tolerance = 0.0"),
        (scores("2", 0.7), scores("1", 0.8), 0.1, True, "map_mean 0.7000"),  # 0.8 - 0.1 is above 0.7 in binary
        (scores("2", 0.69), scores("1", 0.8), 0.1, False, "a drop of 0.1100, more than register.tolerance = 0.1"),
        (scores("1", 0.7), scores("1", 0.7), 0.0, True, "version 1 is the champion already"),
        (
            scores("2", 0.9, OTHER),
            scores("1", 0.7),
            0.0,
            False,
            "evaluated on different data sets .* cannot be compared",
        ),
        (scores("2", 0.9, OTHER), None, 0.0, True, "there is no champion yet"),
        (scores("2", None), scores("1", 0.7), 0.0, False, "version 2 has no map_mean; register it again"),
        (scores("2", None), None, 0.0, False, "version 2 has no map_mean; register it again"),
        (scores("2", 0.9), scores("1", None), 0.0, False, "version 1 has no map_mean; register it again"),
        (scores("2", 0.9, ""), scores("1", 0.7, ""), 0.0, False, "version 2 has no digest of its data set"),
    ],
)
def test_decision(challenger, champion, tolerance, accepted, reason):
    decision = decide(challenger, champion, tolerance)
    assert decision.accepted is accepted
    assert re.search(reason, decision.reason)


@pytest.fixture
def add_version(tracking, store_version):
    """Adds a whole version with some tags to the registered model `dagnn`, and makes it challenger."""
    tracking.client.create_registered_model("dagnn")
    return partial(store_version, tracking)


def aliases(tracking):
    return {alias: str(version) for alias, version in tracking.client.get_registered_model("dagnn").aliases.items()}


def test_first_challenger_becomes_champion(tracking, add_version):
    add_version(map_mean="0.7")
    promotion = promote(tracking, name="dagnn", version=None, tolerance=0.0)
    assert promotion.decision.accepted
    assert (promotion.challenger.map_mean, promotion.champion) == (0.7, None)
    assert aliases(tracking) == {CHALLENGER: "1", CHAMPION: "1"}


def test_champion_stays_when_the_challenger_is_refused(tracking, add_version):
    add_version(map_mean="0.7")
    promote(tracking, name="dagnn", version=None, tolerance=0.0)
    add_version(map_mean="0.6")
    promotion = promote(tracking, name="dagnn", version=None, tolerance=0.05)
    assert not promotion.decision.accepted
    assert aliases(tracking) == {CHALLENGER: "2", CHAMPION: "1"}
    assert promote(tracking, name="dagnn", version=None, tolerance=0.2).decision.accepted
    assert aliases(tracking) == {CHALLENGER: "2", CHAMPION: "2"}


def test_named_version_is_promoted_instead_of_the_challenger(tracking, add_version):
    add_version(map_mean="0.7")
    add_version(map_mean="0.6")
    assert promote(tracking, name="dagnn", version="1", tolerance=0.0).challenger.version == "1"
    assert aliases(tracking) == {CHALLENGER: "2", CHAMPION: "1"}


def test_champion_is_not_promoted_again(tracking, add_version):
    add_version(map_mean="0.7")
    promote(tracking, name="dagnn", version=None, tolerance=0.0)
    again = promote(tracking, name="dagnn", version=None, tolerance=0.0)
    assert again.decision == (True, "version 1 is the champion already")


@pytest.mark.parametrize("figure", ["nan", "inf", "good"])
def test_unusable_figure_counts_as_missing(tracking, add_version, figure):
    add_version(map_mean=figure)
    promotion = promote(tracking, name="dagnn", version=None, tolerance=0.0)
    assert promotion.decision == (False, "version 1 has no map_mean; register it again with its report")


def test_unknown_names_and_versions_say_what_exists(tracking, add_version):
    with pytest.raises(InputError, match=r"has no registered model 'other' \(it has: dagnn\); run `dagnn register`"):
        promote(tracking, name="other", version=None, tolerance=0.0)
    with pytest.raises(InputError, match=r"dagnn has no version with alias challenger; run `dagnn register`"):
        promote(tracking, name="dagnn", version=None, tolerance=0.0)
    add_version(map_mean="0.7")
    add_version(map_mean="0.8")
    with pytest.raises(InputError, match=r"dagnn has no version '9' \(it has: 1, 2\); give one of these as --version"):
        promote(tracking, name="dagnn", version="9", tolerance=0.0)


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "it's"])
def test_name_that_mlflow_does_not_take(tracking, name):
    with pytest.raises(InputError, match=r"must consist of letters.*; correct register.model_name"):
        promote(tracking, name=name, version=None, tolerance=0.0)
