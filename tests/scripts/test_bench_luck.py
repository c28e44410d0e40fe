"""`just bench luck`: what it calls named, true and covered, on a small search."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts/bench"))
import luck


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(luck, "POSTS", 200)
        fresh = luck.Posts(99).split(None)[0]
        found: dict[str, Any] = luck.search(0, trials=4, top=2, repeats=3, fresh=fresh)
    return found


def test_the_search_names_three_scores_beside_their_truth(result: dict[str, Any]) -> None:
    assert list(result) == ["raw best", "its confirmed mean", "confirmed winner", "more"]
    for name in list(result)[:3]:
        named, truth, low, high = result[name]
        assert 0 <= truth <= 1
        assert low <= named <= high or name == "raw best"  # a percentile interval need not hold its score
    assert result["more"] > 0


def test_the_same_search_has_the_same_scores_again(result: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(luck, "POSTS", 200)
    fresh = luck.Posts(99).split(None)[0]
    assert luck.search(0, trials=4, top=2, repeats=3, fresh=fresh) == result


def test_repeats_have_other_splits_of_the_same_development_posts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(luck, "POSTS", 200)
    posts = luck.Posts(0)

    def rows(sample: luck.Sample) -> set[bytes]:
        return {row.tobytes() for row in np.asarray(sample.words.todense())}

    own, other = posts.split(None), posts.split(7)
    assert rows(own[0]) | rows(own[1]) == rows(other[0]) | rows(other[1])
    assert rows(own[1]) != rows(other[1])
