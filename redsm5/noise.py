"""Whether one score is better than another, or only by luck of the posts; and the baseline beside a study.

A trial leaves its score for samples that draw the posts anew (redsm5/evaluation/bootstrap.py). The samples of two
trials are of the same draws, so their differences are a paired bootstrap (Efron & Tibshirani 1993, chapter 16). Nothing
here needs NumPy, so that the terminal app can compute it as it reads.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redsm5.engine import paths
from redsm5.engine.documents import load
from redsm5.engine.errors import InputError
from redsm5.engine.records import StudyRecord, TrialRecord
from redsm5.reports import (
    EvaluationReport,
    PredictionsRecord,
    ScoreSamples,
    SummaryBaseline,
    SummaryBest,
    SummaryTrial,
)

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


# ---------------------------------------------------------------------------------------------------------------------
# how a study's best trial stands


def beside_best(row: SummaryTrial, scores: Scores | None, best: Scores | None) -> SummaryTrial:
    """The row with its interval, and whether it is within noise of the best."""
    if scores is None or scores.validation is None or row.state != "completed":
        return row
    seen, within = scores.validation, within_noise(best.validation if best else None, scores.validation)
    return row.model_copy(update={"low": seen.low, "high": seen.high, "within_noise": within})


def with_test(best: SummaryBest, scores: Scores | None, *, maximize: bool) -> SummaryBest:
    """The best trial with the intervals of its scores, and whether its test score is worse than noise explains."""
    if scores is None:
        return best
    seen, test = scores.validation, scores.test
    known: dict[str, Any] = {"low": seen.low, "high": seen.high} if seen else {}
    if test:
        known |= {"test": test.value, "test_low": test.low, "test_high": test.high}
    if seen and test:
        known["gap"] = test.value < seen.low if maximize else test.value > seen.high
    return best.model_copy(update=known)


def beside_baseline(experiments: Path, study: StudyRecord, best: Scores | None) -> SummaryBaseline | None:
    """The baseline of the study's posts, and whether the best trial beats it on the test posts."""
    baseline = baseline_of(experiments, study.data_fingerprint)
    if baseline is None:
        return None
    same = baseline.report.optimization_metric_name == study.metric
    theirs, ours = baseline.scores.test if same else None, best.test if best else None
    interval = interval_of_difference(theirs, ours)
    known: dict[str, Any] = {}
    if theirs and ours and interval:
        sign = 1 if study.maximize else -1
        known = {"difference": ours.value - theirs.value, "low": interval[0], "high": interval[1]}
        known["beaten"] = None if interval[0] <= 0 <= interval[1] else sign * interval[0] > 0
    return SummaryBaseline(
        report=str((baseline.folder / paths.REPORT).relative_to(experiments)),
        value=baseline.report.best_validation_score if same else None,
        test_f1_macro=baseline.report.test_metrics.criteria_matching.f1_macro,
        test=theirs.value if theirs else None,
        test_low=theirs.low if theirs else None,
        test_high=theirs.high if theirs else None,
        **known,
    )


def best_of(record: TrialRecord) -> SummaryBest:
    """A study's best trial, which has a score, before its test score is known."""
    assert record.best
    return SummaryBest(
        trial_id=record.trial_id, number=record.number, value=record.best.value, test_metrics=None, report=None
    )


def remarks(
    metric: str, best: SummaryBest | None, baseline: SummaryBaseline | None, within: Sequence[bool | None] = ()
) -> list[str]:
    """What to know before the best trial is used, a sentence each.

    Args:
        within: of each other trial, whether it is within noise of the best.
    """
    said: list[str] = []
    if best is None:
        return said
    told = [each for each in within if each is not None]
    if alike := sum(told):
        trials = "trial is" if alike == 1 else "trials are"
        said.append(
            f"{alike} other {trials} within noise of the best, of {len(told)}: these validation posts cannot tell them "
            "apart"
        )
    if best.gap:
        said.append(
            f"the best trial's {metric} is {best.value:.4f} {_interval(best.low, best.high)} on validation but "
            f"{best.test:.4f} {_interval(best.test_low, best.test_high)} on the test posts: more than noise "
            "explains: a search favours what fits its validation posts by luck"
        )
    if baseline and baseline.difference is not None and baseline.test is not None:
        verdict = {True: "it is beaten", False: "it is not beaten, it is better", None: "these posts cannot tell"}
        said.append(
            f"the baseline has {baseline.test:.4f} on the test posts, the best trial {best.test:.4f}, a difference of "
            f"{baseline.difference:+.4f} {_interval(baseline.low, baseline.high, '+')}: {verdict[baseline.beaten]}"
        )
    return said


def _interval(low: float | None, high: float | None, sign: str = "") -> str:
    return "" if low is None or high is None else f"[{low:{sign}.4f}, {high:{sign}.4f}]"
