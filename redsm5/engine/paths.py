"""The names of all files in an experiments folder, defined in one place; and where the user's cache is.

```
experiments/
  optuna.journal  mlflow.db  mlartifacts/
  study_<uuid>/   study.json  events.jsonl  index.json  rungs.jsonl  budget.json  budget.lock  lock  claims/  control/
                  base/  logs/  summary.json  summary.html
  trial_<uuid>/   config.json  trial.json  metrics.jsonl  decisions.jsonl  retention.jsonl  shipped.json
                  thresholds.json  predictions.json  evaluation_report.json  evaluation_report.html  logs/
                  lock  shipping.lock  checkpoints/epoch-0003/
```
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

OPTUNA_JOURNAL = "optuna.journal"
MLFLOW_DB = "mlflow.db"
MLFLOW_ARTIFACTS = "mlartifacts"
LOCK = "lock"
LOGS = "logs"
LOG = "log.jsonl"
OUTPUT = "output.log"  # what a trial prints

STUDY = "study.json"
EVENTS = "events.jsonl"
INDEX = "index.json"
RUNGS = "rungs.jsonl"
SUMMARY = "summary.json"
SUMMARY_PAGE = "summary.html"
BUDGET = "budget.json"
BUDGET_LOCK = "budget.lock"
CONTROL = "control"
CLAIMS = "claims"
WORKERS_LOCK = "workers.lock"  # in claims/, shared by the workers of the study

# Orders, in a study's control/ (redsm5/engine/study/control.py)
STOP = "stop"
STOP_NOW = "stop-now"
PAUSE = "pause"
PRUNE = "prune-"  # and the trial's uuid

CONFIG = "config.json"
TRIAL = "trial.json"
METRICS = "metrics.jsonl"
DECISIONS = "decisions.jsonl"
RETENTION = "retention.jsonl"
SHIPPED = "shipped.json"
SHIPPING_LOCK = "shipping.lock"
REPORT = "evaluation_report.json"
THRESHOLDS = "thresholds.json"
PREDICTIONS = "predictions.json"
REPORT_PAGE = "evaluation_report.html"
CHECKPOINTS = "checkpoints"

WEIGHTS = "model.safetensors"
STATE_TENSORS = "training_state.safetensors"
STATE_JSON = "training_state.json"
MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
WEIGHTS_DELTA = "model.delta"  # in the place of WEIGHTS (redsm5/engine/storage/delta.py)
STATE_DELTA = "training_state.delta"  # in the place of STATE_TENSORS
DELTAS = {WEIGHTS: WEIGHTS_DELTA, STATE_TENSORS: STATE_DELTA}
BASE = "base"  # in a study's folder: the pretrained weights that the differences refer to

# Before the name of a checkpoint: half written; retired and not wholly removed; damaged and quarantined
TEMPORARY = ".tmp-"
TRASH = ".trash-"
DAMAGED = ".damaged-"


def cache_dir() -> Path:
    """The cache folder, which is apart from experiments: $REDSM5_CACHE, else redsm5 in $XDG_CACHE_HOME or ~/.cache.

    Raises:
        RuntimeError: there is no home folder.
    """
    if chosen := os.environ.get("REDSM5_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "redsm5"


def study_dir(experiments: Path, study_id: str) -> Path:
    return experiments / f"study_{study_id}"


def trial_dir(experiments: Path, trial_id: str) -> Path:
    return experiments / f"trial_{trial_id}"


_NAME = re.compile(r"(?:study|trial)_[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_ours(name: str) -> bool:
    """Whether an entry of an experiments folder has the name of a study's or a trial's folder: no other is ours."""
    return _NAME.fullmatch(name) is not None


def study_dirs(experiments: Path) -> list[Path]:
    """Every study's folder, in the order of their names. A link is none."""
    return _dirs(experiments, "study_")


def trial_dirs(experiments: Path) -> list[Path]:
    """Every trial's folder, in the order of their names. A link is none."""
    return _dirs(experiments, "trial_")


def _dirs(experiments: Path, prefix: str) -> list[Path]:
    try:
        with os.scandir(experiments) as entries:
            names = [
                entry.name
                for entry in entries
                if entry.name.startswith(prefix) and is_ours(entry.name) and entry.is_dir(follow_symlinks=False)
            ]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [experiments / name for name in sorted(names)]


def moved(saved: Mapping[str, Any], experiments: Path) -> dict[str, Any]:
    """A saved configuration with paths adapted to where its experiments folder is now.

    Besides absolute paths, only database URLs are adapted.
    """
    before, here = str(saved.get("experiments") or "").rstrip("/"), str(experiments)

    def follow(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: follow(item) for key, item in value.items()}
        if isinstance(value, list):
            return [follow(item) for item in value]
        scheme = "sqlite:///" if isinstance(value, str) and value.startswith("sqlite:///") else ""
        if not isinstance(value, str) or not (scheme or before.startswith("/")):
            return value
        path = value.removeprefix(scheme)
        return f"{scheme}{here}{path.removeprefix(before)}" if path.startswith(f"{before}/") else value

    return {**(follow(saved) if before and before != here else saved), "experiments": here}
