"""Whether one score is better than another, or only by luck of the posts; and the baseline beside a study.

A trial leaves its score for samples that draw the posts anew (redsm5/evaluation/bootstrap.py). The samples of two
trials are of the same draws, so their differences are a paired bootstrap (Efron & Tibshirani 1993, chapter 16). Nothing
here needs NumPy, so that the terminal app can compute it as it reads.
"""

import statistics
from dataclasses import dataclass
from pathlib import Path

from redsm5.engine import paths
from redsm5.engine.documents import load
from redsm5.engine.errors import InputError
from redsm5.reports import EvaluationReport, PredictionsRecord, ScoreSamples

PARTS = 40  # of which the first and the last are 2.5 % each


@dataclass(frozen=True)
class Scores:
    """A trial's scores with their samples: of the validation posts, and of the test posts; each None if unknown."""

    validation: ScoreSamples | None = None
    test: ScoreSamples | None = None


@dataclass(frozen=True)
class Baseline:
    """What `just baseline` reached on the same posts."""

    folder: Path
    report: EvaluationReport
    scores: Scores


def scores_of(folder: Path) -> Scores:
    """The scores in a trial's or a baseline's folder; none where an older version, or a script, wrote it.

    Raises:
        InputError: they are damaged, or a newer version wrote them.
        OSError: they cannot be read.
    """
    record = load(folder / paths.PREDICTIONS, PredictionsRecord)
    return Scores(record.validation, record.tested if record.split == "test" else None) if record else Scores()


def baseline_of(experiments: Path, fingerprint: str | None) -> Baseline | None:
    """The newest baseline of the posts and splits with this fingerprint; one that cannot be read does not count."""
    found = []
    for folder in experiments.glob("baseline_*"):
        try:
            report = load(folder / paths.REPORT, EvaluationReport)
            if report and fingerprint and report.data_fingerprint == fingerprint:
                found.append(Baseline(folder, report, scores_of(folder)))
        except (InputError, OSError):
            continue
    return max(found, key=lambda each: each.report.generated_at, default=None)


def interval_of_difference(first: ScoreSamples | None, second: ScoreSamples | None) -> tuple[float, float] | None:
    """The 95 % interval of the second score minus the first one, by percentiles of their differences.

    Returns:
        (low, high); None if they are not by the same metric on the same posts, or fewer than two samples define both.
    """
    if first is None or second is None or (first.metric, first.posts) != (second.metric, second.posts):
        return None
    pairs = zip(first.samples, second.samples, strict=False)
    differences = [b - a for a, b in pairs if a is not None and b is not None]
    if len(differences) < 2:
        return None
    cuts = statistics.quantiles(differences, n=PARTS, method="inclusive")
    return cuts[0], cuts[-1]


def within_noise(first: ScoreSamples | None, second: ScoreSamples | None) -> bool | None:
    """Whether the interval of their difference holds 0: these posts cannot tell which is better. None: unknown."""
    interval = interval_of_difference(first, second)
    return None if interval is None else interval[0] <= 0 <= interval[1]
