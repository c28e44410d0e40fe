"""Checks of installed software: Python, locked packages, PyTorch and GPUs, and optional programs."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redsm5.doctor import Finding
from redsm5.engine import environment
from redsm5.engine.installed import CHECKOUT, REPAIR
from redsm5.engine.jsonio import loads

OLDEST = (3, 11)
SHOWN = 4  # names of packages in one line
PROGRAM_S = 5.0  # printing a version takes milliseconds
TORCH_S = 18.0
SETUP = f"{REPAIR[:-1]}; if that changes nothing, `rm .venv/stamp` first." if CHECKOUT else REPAIR


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Finding:
    """Whether this Python is new enough, and belongs to a virtual environment or to our container."""
    shown = ".".join(map(str, version))
    if version[:2] < OLDEST:
        return Finding("fail", f"{shown} is too old", "Set PYTHON to Python 3.11 or newer, and run `just setup`.")
    return Finding("ok", f"{shown} at {sys.prefix}")


def check_variables(environ: Mapping[str, str] = os.environ) -> Finding:
    """Which environment variables are set that training processes do not get."""
    ignored = environment.removed(environ)
    if not ignored:
        return Finding("ok", "no environment variable is set that could change training")
    launcher = [name for name in ignored if environment.LAUNCHER.match(name)]
    others = [name for name in ignored if name not in launcher]
    kinds = {"a launcher's rank, size or address": launcher, "settings of the libraries": others}
    detail = "; ".join(f"{kind}: {_some(names)}" for kind, names in kinds.items() if names)
    return Finding("note", f"ignored, {detail}", "Training is set up by its configuration only: `unset` them.")


# ---------------------------------------------------------------------------------------------------------------------
# packages


def check_packages(checkout: Path | None) -> Finding:
    """Whether the dependencies, and their own dependencies, are installed, of a checkout as locked.

    Args:
        checkout: the folder with pyproject.toml and constraints.txt; None if redsm5 was installed from a wheel, which
            names ranges of versions instead.
    """
    try:
        from packaging.requirements import Requirement
        from packaging.utils import canonicalize_name
    except ImportError:
        return Finding("fail", "the package `packaging` is missing, and probably others", SETUP)
    if checkout:
        lines = (checkout / "constraints.txt").read_text().splitlines()
        versions = [Requirement(line) for line in lines if line and not line.startswith("#")]
        needs = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["dependencies"]
    else:
        needs = importlib.metadata.requires("redsm5") or []
        versions = [Requirement(line) for line in needs]
    wanted = {str(canonicalize_name(r.name)): r.specifier for r in versions if r.marker is None or r.marker.evaluate()}
    missing, other = [], []
    for name in sorted(_needed(needs)):
        version = _version(name)
        if version is None:
            missing.append(name)
        elif name in wanted and not wanted[name].contains(version, prereleases=True):
            word = "locked" if checkout else "needed"
            other.append(f"{name} {version} ({word}: {str(wanted[name]).removeprefix('==')})")
    if missing:
        return Finding("fail", f"missing: {_some(missing)}", SETUP)
    if other:
        which = "differ from the lock" if checkout else "versions outside of what redsm5 needs"
        return Finding("warn", f"{which}: {_some(other)}", SETUP)
    if checkout:
        return Finding("ok", f"{len(wanted)} in the lock; all required ones are installed in the locked version")
    return Finding("ok", "all required ones are installed")


def _needed(requirements: list[str]) -> set[str]:
    """The names of these packages and of their dependencies on this machine, as far as they are installed."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    needed: set[str] = set()
    waiting = list(requirements)
    while waiting:
        requirement = Requirement(waiting.pop())
        # PyTorch pins the nvidia-* libraries itself; they are not in the lock
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = canonicalize_name(requirement.name)
        if name in needed or re.match(r"nvidia-(?!ml)|cuda-|triton", name):
            continue
        needed.add(name)
        if _version(name) is not None:
            waiting += importlib.metadata.requires(name) or []
    return needed


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


# ---------------------------------------------------------------------------------------------------------------------
# PyTorch and the GPUs, in a separate process: a broken driver may crash it or hang it

_PROBE = """
import json, warnings
warnings.simplefilter("ignore")
seen = {"driver": None, "supports": None, "gpus": []}
try:
    import pynvml
    pynvml.nvmlInit()
    number = pynvml.nvmlSystemGetCudaDriverVersion()
    seen["driver"] = pynvml.nvmlSystemGetDriverVersion()
    seen["supports"] = [number // 1000, number % 1000 // 10]
except Exception:
    pass
import torch
seen["torch"], seen["build"], seen["usable"] = torch.__version__, torch.version.cuda, torch.cuda.is_available()
if seen["usable"]:
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        seen["gpus"].append([torch.cuda.get_device_name(index), free, total])
print(json.dumps(seen))
"""


def check_cuda(python: str = sys.executable) -> Finding:
    """Whether PyTorch can be imported, and which GPUs it can use. A CPU is enough, so a missing GPU is a note."""
    try:
        probe = subprocess.run([python, "-c", _PROBE], capture_output=True, text=True, timeout=TORCH_S)
    except subprocess.TimeoutExpired:
        remedy = "Check whether the GPU's driver answers (`nvidia-smi`); on a slow disk, run the doctor again."
        return Finding("fail", f"PyTorch was not imported within {TORCH_S:g} s", remedy)
    if probe.returncode:
        why = (probe.stderr.strip().splitlines() or [f"it exited with {probe.returncode}"])[-1]
        return Finding("fail", f"PyTorch cannot be imported: {why}", SETUP)
    return judge_cuda(loads(probe.stdout.splitlines()[-1]))


def judge_cuda(seen: dict[str, Any]) -> Finding:
    """The finding for the probe's output."""
    head = f"PyTorch {seen['torch']}"
    if seen["gpus"]:
        gpus = ", ".join(
            f"{name} ({free / 1e9:.0f} of {total / 1e9:.0f} GB free)" for name, free, total in seen["gpus"]
        )
        return Finding("ok", f"{head}, driver {seen['driver']}: {gpus}")
    if seen["build"] is None and seen["driver"]:
        remedy = "Install the CUDA build of PyTorch in .venv, or use launch=cpu."
        return Finding("warn", f"{head} is built for CPUs, but there is an NVIDIA driver {seen['driver']}", remedy)
    if seen["build"] and seen["supports"] and seen["supports"][0] < int(seen["build"].partition(".")[0]):
        supports = ".".join(map(str, seen["supports"]))
        detail = f"{head} is built for CUDA {seen['build']}, the driver {seen['driver']} goes up to {supports}"
        return Finding("warn", detail, "Install a newer NVIDIA driver, or use launch=cpu.")
    if seen["driver"]:
        remedy = "Check `nvidia-smi` and CUDA_VISIBLE_DEVICES; in a container, pass --gpus all or --nv."
        return Finding("warn", f"{head} finds no GPU, but there is an NVIDIA driver {seen['driver']}", remedy)
    return Finding("note", f"{head}, no NVIDIA driver: launch=cpu trains on the CPU")


# ---------------------------------------------------------------------------------------------------------------------
# programs


def check_just() -> Finding:
    """Whether `just` is on the path; the scripts run without it too."""
    version = _says("just", "--version")
    if version is None:
        return Finding("note", "not on the path", "pip install rust-just")
    return Finding("ok", version)


def check_containers() -> Finding:
    """Which container programs are installed; none is needed."""
    found, silent = [], []
    for program in ("docker", "podman", "apptainer", "singularity"):
        if (version := _says(program, "--version")) is None:
            continue
        number = re.search(r"\d+(\.\d+)+", version)
        found.append(f"{program} {number[0] if number else version}")
        if program in ("docker", "podman") and _says(program, "info") is None:
            silent.append(program)
    if not found:
        return Finding("note", "no Docker, Podman or Apptainer", "Only needed to run in a container.")
    if silent:
        detail = f"{', '.join(found)}; {' and '.join(silent)} cannot start containers here"
        return Finding("note", detail, f"Start its service, or get permission to use it: `{silent[0]} info` says more.")
    return Finding("ok", ", ".join(found))


def check_slurm() -> Finding:
    """Whether this machine belongs to a Slurm cluster, and whether its controller answers."""
    if shutil.which("sinfo") is None:
        return Finding("note", "not installed", "Only needed for the job files in containers/slurm.")
    version = _says("sinfo", "--version") or "sinfo"
    partitions = _says("sinfo", "--noheader", "--format=%P %D nodes %T")
    if not partitions:
        remedy = "`sinfo` shows why; or ask the cluster's administrators."
        return Finding("warn", f"{version} is installed, but no controller answers", remedy)
    return Finding("ok", f"{version}: {_some([' '.join(line.split()) for line in partitions.splitlines()])}")


def _says(*command: str) -> str | None:
    """A program's output; None if it is not installed, fails or hangs."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
