"""The data set of a version, found among those that were fetched before."""

import shutil

import pytest

from components.leftovers import find_leftovers, remove
from components.locations import FETCHED
from components.services.promotion.datasets import dataset_digest, find_dataset
from dagnn_core.artifacts import read_artifact
from dagnn_core.errors import InputError


def test_a_fetched_data_set_stays_as_long_as_it_is_open(scenes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = read_artifact(scenes.models["good"], "model")
    shutil.copytree(scenes.datasets["scenes"], FETCHED / dataset_digest(model))
    data = find_dataset(model, "version 1", named=None, commit=None)
    assert data.artifact.content_digest == dataset_digest(model)
    (leftover,) = find_leftovers(tmp_path, cache=True)
    assert not remove(leftover) and data.artifact.path.is_dir()
    del data
    assert remove(leftover) and not FETCHED.exists() and remove(leftover)
    with pytest.raises(InputError, match=r"version 1 was made from .* and no commit here has a dvc\.lock"):
        find_dataset(model, "version 1", named=None, commit=None)
    assert not FETCHED.exists()


def test_a_damaged_one_is_not_taken_and_not_held(scenes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = read_artifact(scenes.models["good"], "model")
    shutil.copytree(scenes.datasets["scenes"], FETCHED / dataset_digest(model))
    (next((FETCHED / dataset_digest(model)).glob("data-*"))).write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"and no commit here has a dvc\.lock"):
        find_dataset(model, "version 1", named=None, commit=None)
    (leftover,) = find_leftovers(tmp_path, cache=True)
    assert remove(leftover)
