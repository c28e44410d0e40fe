"""The pretrained weights of a study, once in its folder `base/`: its trials' weights are stored as the difference."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from redsm5.engine import files, paths
from redsm5.engine.storage.budget import Budget
from redsm5.engine.storage.tensors import TensorFile

FIRST = 64  # elements of each tensor by which pretrained weights are told from others


def keep_base(budget: Budget, study: Path, tensors: Mapping[str, Tensor], log: Callable[..., object]) -> None:
    """Write the pretrained weights into the study's folder, if they are not there and the budget has room to spare."""
    path = study / paths.BASE / f"{fingerprint(tensors)}.safetensors"
    if path.exists() or not tensors:
        return
    file = TensorFile(tensors, pinned=False)
    with budget.room_of_study(len(file.content)) as free:
        if not free:
            log("the budget has no room to spare for the pretrained weights: checkpoints will be larger")
            return
        file.fill(tensors)
        files.make_dir(path.parent)
        files.write_atomic(path, file.content)
    log("the pretrained weights are kept once for the study", bytes=len(file.content))


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """16 digits that tell pretrained weights from others, by the tensors' names, types, shapes and first elements.

    A mistake would cost bytes and nothing else, since the difference to any base is exact.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.flatten()[:FIRST].double().numpy(force=True).tobytes())
    return digest.hexdigest()[:16]
