"""How a study's best trial stands: to the other trials, to its own test score, and to the baseline."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redsm5.engine import paths
from redsm5.engine.records import StudyRecord
from redsm5.noise import Scores, baseline_of, interval_of_difference, within_noise
from redsm5.reports import SummaryBaseline, SummaryBest, SummaryTrial


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


def remarks(
    metric: str, best: SummaryBest | None, baseline: SummaryBaseline | None, others: Sequence[SummaryTrial] = ()
) -> list[str]:
    """What to know before the best trial is used, a sentence each.

    Args:
        others: the study's trials, the best one among them or not.
    """
    said: list[str] = []
    if best is None:
        return said
    told = [row for row in others if row.within_noise is not None and row.trial_id != best.trial_id]
    if alike := sum(row.within_noise is True for row in told):
        trials = "trial is" if alike == 1 else "trials are"
        said.append(
            f"{alike} other {trials} within noise of the best, of {len(told)}: these validation posts cannot tell them "
            "apart"
        )
    if best.gap:
        said.append(
            f"the best trial's {metric} is {best.value:.4f} {_interval(best.low, best.high)} on validation but "
            f"{best.test:.4f} {_interval(best.test_low, best.test_high)} on the test posts: more than noise; it was "
            "chosen for its luck, or the splits differ"
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
