"""What training and evaluation get to see of the data."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from redsm5.data import load_splits, load_test
from redsm5.data.synthesize import write_csvs
from redsm5.errors import InputError


def config(**changes):
    fields = {"source": "synthetic", "dir": None, "posts": 100, "seed": 7}
    fractions = {"split_seed": 42, "validation_fraction": 0.15, "test_fraction": 0.2, "long_posts": "truncate"}
    return SimpleNamespace(**{**fields, **fractions, **changes})


def test_training_gets_no_test_post():
    splits, test = load_splits(config()), load_test(config())
    ids = [{post.post_id for post in part} for part in (splits.train, splits.validation, test.test)]
    assert sum(map(len, ids)) == len(set.union(*ids)) == 100
    assert splits.fingerprint == test.fingerprint
    assert splits.counts == test.counts
    assert [splits.counts[name] for name in ("train", "validation", "test")] == list(map(len, ids))


def test_the_same_posts_from_a_folder_are_the_same_data(tmp_path):
    write_csvs(tmp_path, 100, 7)
    assert load_splits(config(source="csv", dir=str(tmp_path), posts=None, seed=None)) == load_splits(config())


def test_another_seed_is_another_data_set():
    assert load_splits(config(seed=8)).fingerprint != load_splits(config()).fingerprint


def test_missing_configuration_and_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"data\.dir"):
        load_splits(config(source="csv"))
    with pytest.raises(InputError, match="does not exist"):
        load_splits(config(source="csv", dir=str(tmp_path / "gone")))
    with pytest.raises(InputError, match="synthetic posts need"):
        load_splits(config(posts=None))


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(tmp_path):
    write_csvs(tmp_path, 60, 7)
    (tmp_path / "redsm5_posts.csv").unlink()
    os.mkfifo(tmp_path / "redsm5_posts.csv")
    with pytest.raises(InputError, match="no regular file"):
        load_splits(config(source="csv", dir=str(tmp_path)))


def test_importing_the_package_imports_neither_torch_nor_transformers():
    code = "import sys, redsm5.data; assert not {'torch', 'transformers', 'tokenizers'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
