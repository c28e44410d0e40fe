"""What training and evaluation get to see of the data."""

import csv
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import datasets
import pytest

from redsm5.data import SYMPTOMS, dataset_dict, few_positives, load_learnable, load_splits, load_test
from redsm5.data.read import ANNOTATIONS_FILE, POSTS_FILE
from redsm5.data.synthesize import write_csvs
from redsm5.engine.errors import InputError


def config(**changes):
    fields = {"source": "synthetic", "dir": None, "posts": 100, "seed": 7}
    fractions = {
        "test_split": "stratified",
        "split_seed": 42,
        "validation_seed": None,
        "folds": None,
        "validation_fraction": 0.15,
        "test_fraction": 0.2,
    }
    return SimpleNamespace(**{**fields, **fractions, "group_duplicates": True, "alignment": "words", **changes})


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
    with pytest.raises(InputError, match="not a regular file"):
        load_splits(config(source="csv", dir=str(tmp_path)))


def rewrite(folder, change):
    """Annotations of synthetic posts, each changed."""
    write_csvs(folder, 100, 7)
    with (folder / ANNOTATIONS_FILE).open(newline="") as file:
        rows = [change(row) for row in csv.DictReader(file)]
    with (folder / ANNOTATIONS_FILE).open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return config(source="csv", dir=str(folder), posts=None, seed=None)


def test_positives_are_counted_in_each_split_and_few_are_told():
    splits, test = load_splits(config()), load_test(config())
    for name, posts in (("train", splits.train), ("validation", splits.validation), ("test", test.test)):
        assert splits.positives[name] == tuple(sum(post.labels[c] for post in posts) for c in range(9))
    assert load_learnable(config()) == splits
    few = few_positives(splits)
    counts = {symptom: [splits.positives[n][c] for n in splits.positives] for c, symptom in enumerate(SYMPTOMS)}
    assert few.keys() == {symptom for symptom, numbers in counts.items() if min(numbers) < 5}
    a, b, c = counts["PSYCHOMOTOR"]
    assert few["PSYCHOMOTOR"] == f"train {a}, validation {b}, test {c}"
    many = replace(splits, positives=dict.fromkeys(splits.positives, (5,) * 9))
    assert few_positives(many) == {}
    assert len(few_positives(replace(many, positives={**many.positives, "test": (4, *[5] * 8)}))) == 1


def test_posts_without_any_symptom_are_refused(tmp_path):
    data = rewrite(tmp_path, lambda row: {**row, "status": "0"})
    assert load_splits(data).counts["posts_without_symptom"] == 100
    with pytest.raises(InputError, match=r"no post has a symptom: none of .* annotations has status 1") as caught:
        load_learnable(data)
    assert "status" in (caught.value.remedy or "")


@pytest.mark.parametrize(("lacking", "aim"), [("train", "learned from"), ("validation", "chosen by")])
def test_a_split_without_any_symptom_is_refused_by_name(tmp_path, monkeypatch, lacking, aim):
    full = load_splits(config()).positives
    monkeypatch.setattr("redsm5.data._positives", lambda *_: {**full, lacking: (0,) * 9})
    with pytest.raises(InputError, match=f"no post of the {lacking} split has a symptom.* nothing to be {aim}"):
        load_learnable(config())


def test_one_post_with_a_symptom_leaves_a_split_without(tmp_path):
    write_csvs(tmp_path, 100, 7)
    first = next(post for post in load_splits(config()).train if any(post.labels)).post_id
    data = rewrite(tmp_path, lambda row: row if row["post_id"] == first else {**row, "status": "0"})
    with pytest.raises(InputError, match=r"no post of the (train|validation) split has a symptom"):
        load_learnable(data)


def test_copies_are_counted_and_the_posts_of_the_cache_are_those_that_were_read(tmp_path):
    write_csvs(tmp_path, 100, 7)
    with (tmp_path / POSTS_FILE).open(newline="") as file:
        text = next(csv.DictReader(file))["text"]
    with (tmp_path / POSTS_FILE).open("a", newline="") as file:
        csv.writer(file).writerow(["copy", text.upper()])
    data = config(source="csv", dir=str(tmp_path), posts=None, seed=None)
    splits = load_splits(data)
    assert (splits.counts["duplicate_posts"], splits.counts["duplicate_groups"]) == (2, 1)
    assert load_splits(data) == splits
    data.group_duplicates = False
    assert load_splits(data).counts["duplicate_posts"] == 2
    assert load_splits(data).fingerprint != splits.fingerprint


def test_importing_the_package_imports_neither_torch_nor_transformers():
    code = "import sys, redsm5.data; assert not {'torch', 'transformers', 'tokenizers'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_whoever_wants_a_dataset_dict_gets_all_posts_by_their_splits(tmp_path):
    splits, test = load_splits(config()), load_test(config()).test
    found = dataset_dict(config())
    assert isinstance(found, datasets.DatasetDict)
    for name, posts in {"train": splits.train, "validation": splits.validation, "test": test}.items():
        assert found[name]["post_id"][:] == [post.post_id for post in posts]
        assert found[name]["text"][:] == [post.text for post in posts]
        assert found[name]["labels"][:] == [list(post.labels) for post in posts]
        for kind in ("evidence", "negatives"):
            spans = [[{"symptom": s.symptom, "start": s.start, "end": s.end} for s in getattr(p, kind)] for p in posts]
            assert found[name][kind][:] == spans
            assert sum(map(len, spans)) > 0
    assert found["train"].features["evidence"].feature["symptom"].names == list(SYMPTOMS)
    found.save_to_disk(tmp_path / "saved")
    assert datasets.load_from_disk(tmp_path / "saved")["test"][0] == found["test"][0]
