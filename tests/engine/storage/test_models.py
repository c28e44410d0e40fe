"""A model of arrays: what its state may hold comes back as it was, and what it may not hold is named."""

import math
from typing import Any

import numpy as np
import pytest

from redsm5.engine.storage.models import ArrayModel


class Model:
    def __init__(self, state: dict[Any, Any]) -> None:
        self.state = state

    def state_dict(self) -> dict[Any, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state


def loaded(state: dict[Any, Any]) -> dict[str, Any]:
    model = Model({})
    ArrayModel(model).load_state_dict(ArrayModel(Model(state)).state_dict())
    return model.state


def test_values_come_back_as_they_were() -> None:
    state = {"best": math.inf, "steps": 10**30, "name": "NaN", "none": None, "list": [1, {"a": -math.inf}], "json": 1}
    assert loaded(state) == state
    assert math.isnan(loaded({"loss": math.nan})["loss"])
    assert loaded({"score": np.float32(0.5), "count": np.int64(3)}) == {"score": 0.5, "count": 3}
    assert loaded({}) == {}


@pytest.mark.parametrize("dtype", ["u2", "u4", "u8", "i4", "f2", "f8", "?", "c8"])
def test_arrays_of_numbers_come_back_as_they_were(dtype: str) -> None:
    for array in (np.ones(3, dtype), np.ones((), dtype), np.zeros((0, 2), dtype), np.arange(6).reshape(2, 3)[:, ::-1]):
        back = loaded({"a": array})["a"]
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize(
    "value",
    [np.array([1, "a"], object), np.array(["a"]), {"w": np.ones(2)}, {1, 2}],
    ids=["object", "text", "in", "set"],
)
def test_what_cannot_be_saved_is_named(value: Any) -> None:
    with pytest.raises(TypeError, match="trees in a model's state is"):
        ArrayModel(Model({"trees": value})).state_dict()
