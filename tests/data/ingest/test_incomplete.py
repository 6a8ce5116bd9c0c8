import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagnn_core.data.ingest.incomplete import take_away
from dagnn_core.data.raw import RawItem

fractions = st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)).filter(lambda pair: sum(pair) < 1)


def make_items(count, splits=("train",)):
    return [RawItem(row, f"i{row}", "text", ("a",), "", splits[row % len(splits)]) for row in range(count)]


def taken(items, without_image, without_text, seed=3):
    """Ids of the items without image, and of those without text."""
    left = take_away(items, without_image=without_image, without_text=without_text, seed=seed)
    assert [item.id for item in left] == [item.id for item in items]
    return {item.id for item in left if not item.has_image}, {item.id for item in left if not item.has_text}


def test_the_published_protocol_leaves_a_fifth_complete():
    without_image, without_text = taken(make_items(1000), 0.4, 0.4)
    assert len(without_image) == len(without_text) == 400
    assert not without_image & without_text


def test_who_loses_what_is_pinned():
    """Another order would change experiments that are on record."""
    assert taken(make_items(12), 0.25, 0.25) == ({"i0", "i10", "i5"}, {"i11", "i3", "i6"})


@given(st.integers(0, 40), fractions, st.integers(0, 5))
def test_no_item_loses_both_and_only_complete_training_items_lose_one(count, parts, seed):
    items = make_items(count, ("train", "val", "train", "test"))
    items[1::5] = [item._replace(text="", has_text=False) for item in items[1::5]]
    items[3::5] = [item._replace(has_image=False) for item in items[3::5]]
    complete = {item.id for item in items if item.is_complete and item.split == "train"}
    left = take_away(items, without_image=parts[0], without_text=parts[1], seed=seed)
    for before, after in zip(items, left, strict=True):
        assert after == before or (before.id in complete and after.has_image != after.has_text)
    for part, lost in zip(parts, (lambda item: not item.has_image, lambda item: not item.has_text), strict=True):
        assert sum(lost(item) for item in left if item.id in complete) == round(part * len(complete))


@given(st.integers(0, 40), fractions, st.floats(0, 1))
def test_smaller_fractions_take_from_the_same_items(count, parts, factor):
    items = make_items(count)
    for small, large in zip(taken(items, *(part * factor for part in parts)), taken(items, *parts), strict=True):
        assert small <= large


def test_the_order_of_the_items_does_not_matter_but_the_seed_does():
    items = make_items(100)
    assert taken(items, 0.4, 0.4) == taken(items[::-1], 0.4, 0.4)
    assert taken(items, 0.4, 0.4) != taken(items, 0.4, 0.4, seed=4)


def test_nothing_is_taken_by_default_fractions():
    items = make_items(5)
    assert take_away(items, without_image=0.0, without_text=0.0, seed=1) == items


@pytest.mark.parametrize("parts", [(0.5, 0.49), (0.49, 0.5)])
def test_of_few_items_none_may_stay_complete(parts):
    """The caller refuses that."""
    without_image, without_text = taken(make_items(3), *parts)
    assert len(without_image | without_text) == 3
