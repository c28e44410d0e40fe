"""The state of optimizers and schedules: tensors, and values that go to JSON and come back in their own types.

JSON has neither integer keys nor tuples nor infinite numbers: the types come from the optimizer or schedule into which
they are loaded, which the training script makes anew with the same structure.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from redsm5.engine.jsonio import from_json_number

FUNCTIONS = "lr_lambdas"  # of a LambdaLR or MultiplicativeLR: the training script makes them again


def optimizer_state(optimizer: Optimizer | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as tensors named `optimizer.<parameter>.<field>`, and the rest, which JSON can hold."""
    state_dict = optimizer.state_dict() if optimizer else {"state": {}, "param_groups": []}
    tensors, plain = {}, {}
    for index, fields in state_dict["state"].items():
        for name, value in fields.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                plain[f"{index}.{name}"] = value
    return tensors, {"param_groups": for_json(state_dict["param_groups"]), "plain": plain}


def set_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    """Put back what `optimizer_state` returned."""
    state: dict[int, dict[str, Any]] = {}
    named = {k.removeprefix("optimizer."): v for k, v in tensors.items() if k.startswith("optimizer.")}
    for name, value in {**named, **from_json(plain["plain"], None)}.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    groups = from_json(plain["param_groups"], optimizer.state_dict()["param_groups"])
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def schedule_state(schedule: LRScheduler | None) -> dict[str, Any]:
    """A schedule's state, which JSON can hold."""
    state = schedule.state_dict() if schedule else {}
    return {name: for_json(value) for name, value in state.items() if name != FUNCTIONS}


def set_schedule(schedule: LRScheduler, plain: Mapping[str, Any]) -> None:
    """Put back what `schedule_state` returned."""
    own = schedule.state_dict()
    functions = {FUNCTIONS: [None] * len(own[FUNCTIONS])} if FUNCTIONS in own else {}
    schedule.load_state_dict(from_json(plain, own) | functions)
    if isinstance(schedule, LambdaLR):
        _set_rates(schedule)


def _set_rates(schedule: LambdaLR) -> None:
    """Set the learning rates of the current step: the saved ones, unless the trial was extended and so has another
    schedule.
    """
    rates = [
        base * factor(schedule.last_epoch) for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    ]
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates


def for_json(value: Any) -> Any:
    """The value, at any depth, with a number in place of a tensor of one, such as a learning rate."""
    if isinstance(value, Tensor) and value.dim() == 0:
        return value.item()
    if isinstance(value, Mapping):
        return {key: for_json(item) for key, item in value.items()}
    return [for_json(item) for item in value] if isinstance(value, list | tuple) else value


def from_json(value: Any, own: Any) -> Any:
    """A value from JSON, at any depth in the types of the present one; of what is not there, the type is JSON's."""
    if isinstance(value, Mapping):
        present = own if isinstance(own, Mapping) else {}
        whole = bool(present) and all(isinstance(key, int) for key in present)
        items = [(int(key) if whole else key, item) for key, item in value.items()]
        read = {key: from_json(item, present.get(key)) for key, item in items}
        return Counter(read) if isinstance(own, Counter) else read
    if isinstance(value, list):
        others = own if isinstance(own, list | tuple) and len(own) == len(value) else [None] * len(value)
        items_read = [from_json(item, other) for item, other in zip(value, others, strict=True)]
        return tuple(items_read) if isinstance(own, tuple) else items_read
    if isinstance(own, Tensor):
        return torch.tensor(from_json_number(value), dtype=own.dtype, device=own.device)
    return value if isinstance(own, str) else from_json_number(value)
