"""Learning curves of configurations that were trained to the end, as curves.json keeps them for `just bench search`."""

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from redsm5.engine import files, paths
from redsm5.engine.documents import load, milliseconds
from redsm5.engine.errors import InputError
from redsm5.engine.installed import SCRIPTS
from redsm5.engine.records import TrialRecord

CURVES = Path(__file__).with_name("curves.json")
SPACE = """{
train.learning_rate: {type: float, low: 1e-3, high: 2e-2, log: true},
train.batch_size: {type: categorical, choices: [4, 8]},
train.weight_decay: {type: float, low: 0.0, high: 0.1},
train.warmup_ratio: {type: float, low: 0.0, high: 0.1},
model.criteria_dropout: {type: float, low: 0.1, high: 0.3},
train.loss_function: {type: categorical, choices: [bce, weighted_bce]},
train.augmentation.methods: {type: categorical, choices: ["", swap]},
train.augmentation.probability: {type: float, low: 0.1, high: 0.5, when: {train.augmentation.methods: swap}}}"""
RECORDED = [
    *("study.name=curves", "study.sampler=random", "study.pruner=none", "study.enqueue_defaults=false", "workers=2"),
    *("train.epochs=9", "data.posts=400", "model.max_length=128", "retention=minimal"),
    f"search.space={' '.join(SPACE.split())}",
]


@dataclass(frozen=True)
class Curve:
    """A configuration that was trained to the end.

    Attributes:
        seconds: an epoch.
        scores: after each epoch.
    """

    parameters: dict[str, Any]
    seconds: float
    scores: list[float]

    @property
    def best(self) -> float:
        return max(self.scores)


def record(root: Path, trials: int) -> list[Curve]:
    """Train the configurations, or those that are missing in this folder; return the completed ones."""
    command = [sys.executable, str(SCRIPTS / "hpo.py"), *RECORDED, f"study.trials={trials}", f"experiments={root}"]
    subprocess.run(command, check=True)
    found = {}
    for folder in paths.trial_dirs(root):
        trial = load(folder / paths.TRIAL, TrialRecord)
        if trial is None or trial.state != "completed":
            continue
        rows = [row for row in files.read_lines(folder / paths.METRICS) if row["metric"] == "val_f1_macro"]
        times = [milliseconds(row["timestamp"]) / 1000 for row in rows]
        took = statistics.median(after - before for before, after in pairwise(times))
        scores = [round(row["value"], 6) for row in rows]
        found[trial.number or 0] = Curve(trial.parameters, round(took, 3), scores)
    return [curve for _, curve in sorted(found.items())]


def save(curves: Sequence[Curve], path: Path) -> None:
    lines = ",\n".join(json.dumps(vars(curve)) for curve in curves)
    path.write_text(f'{{"recorded_with": {json.dumps(RECORDED)},\n"curves": [\n{lines}\n]}}\n')


def read(path: Path) -> list[Curve]:
    try:
        return [Curve(**row) for row in json.loads(path.read_text())["curves"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "`just bench search --record FOLDER` records them."
        raise InputError(f"no learning curves can be read: {error}", where=str(path), remedy=remedy) from None
