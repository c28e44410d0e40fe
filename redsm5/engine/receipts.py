"""A completed trial's receipt: what its weights were, and all that must be the same for training them again.

With it, weights that were evicted or deleted come back (`just rebuild`): the configuration with its seed is in the
trial's folder, a trial is deterministic, and the SHA-256 tells whether these are the weights.
"""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from redsm5.engine.records import Receipt, TrialRecord
from redsm5.engine.storage.store import CheckpointStore, weights_sha256
from redsm5.engine.version import code_version

LIBRARIES = ("numpy", "accelerate")  # besides those of `environment`
CHOSEN = ("threads", "processes")  # a repetition takes them from the receipt and the configuration


def environment(device: torch.device, processes: int = 1) -> dict[str, str]:
    """What a result may depend on to the last bit, besides code and configuration; includes the number of processes if
    it is not one.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu()
    return {
        "device": name,
        "threads": str(torch.get_num_threads()) if device.type == "cpu" else "",
        "torch": torch.__version__,
        "transformers": _version("transformers"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **({"processes": str(processes)} if processes > 1 else {}),
    }


def versions(device: torch.device, processes: int = 1) -> dict[str, str]:
    """`environment`, with this code and the other libraries that compute."""
    libraries = {name: _version(name) for name in LIBRARIES}
    return environment(device, processes) | libraries | {"redsm5": code_version()}


def receipt_of(store: CheckpointStore, record: TrialRecord, versions: Mapping[str, str], data: str) -> Receipt | None:
    """The receipt of a trial that has just ended; None if it keeps no checkpoint.

    Args:
        data: the fingerprint of its data; empty if there is none.
    """
    best = store.best()
    if not best:
        return None
    return Receipt(
        weights_sha256=weights_sha256(store.folder / best[0].name),
        seconds=round(record.active_seconds - record.repeated_seconds, 3),
        versions=dict(versions),
        data_fingerprint=data or None,
    )


def changed(receipt: Receipt, here: Mapping[str, str], data: str | None) -> dict[str, tuple[str, str]]:
    """What is not as it was: by name, the value in the receipt and the one here.

    Args:
        data: the fingerprint of the data here; None if the task has none.
    """
    before = {name: value for name, value in receipt.versions.items() if name not in CHOSEN}
    found = {name: (value, here.get(name, "absent")) for name, value in before.items() if here.get(name) != value}
    if data and receipt.data_fingerprint and data != receipt.data_fingerprint:
        found["data"] = (receipt.data_fingerprint[:12], data[:12])
    return found


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "absent"


def _cpu() -> str:
    """The CPU's model name, from Linux's /proc if it exists."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
