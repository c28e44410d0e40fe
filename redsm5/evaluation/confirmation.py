"""The confirmation of a study's best configurations in its summary: what repeats say of each, and which one won.

Who is dropped and who wins is the engine's decision (redsm5/engine/study/confirming.py), by validation alone; test
scores stand beside it.
"""

from collections.abc import Callable, Mapping, Sequence

from pydantic import ValidationError

from redsm5.engine.records import StudyRecord, TrialRecord
from redsm5.engine.sections import ConfirmConfig
from redsm5.engine.study.confirming import Estimate, Race, Racer, estimate, race
from redsm5.reports import ConfirmationSummary, ConfirmedConfiguration, RepeatSummary, TestMetrics


def confirmation_of(
    study: StudyRecord,
    trials: Mapping[str, TrialRecord],
    tests: Mapping[str, TestMetrics],
    report_of: Callable[[str], str | None],
) -> ConfirmationSummary | None:
    """The confirmation; None if none was asked for, or nothing has completed.

    Args:
        trials: of the study, repeats included, by trial_id. tests: their metrics on the test split.
        report_of: the path of a trial's report, if it has one.
    """
    asked = _asked(study)
    if not asked.top:
        return None
    found = race(trials.values(), top=asked.top, repeats=asked.repeats, maximize=study.maximize)
    if not found.racers:
        return None
    repeats: dict[str, list[TrialRecord]] = {racer.trial.trial_id: [] for racer in found.racers}
    for trial in trials.values():
        if trial.confirms in repeats and (trial.repeat or 0) <= asked.repeats:
            repeats[trial.confirms].append(trial)
    winner = found.winner
    return ConfirmationSummary(
        top=asked.top,
        repeats=asked.repeats,
        rounds=found.rounds,
        winner=winner and winner.trial.trial_id,
        configurations=[
            _configuration(found, racer, repeats[racer.trial.trial_id], tests, report_of, winner=racer == winner)
            for racer in found.racers
        ],
    )


def _asked(study: StudyRecord) -> ConfirmConfig:
    """The study's keys; those of no confirmation if it has none, or another version's."""
    section = study.config.get("study")
    try:
        return ConfirmConfig.model_validate(section.get("confirm") or {} if isinstance(section, dict) else {})
    except ValidationError:
        return ConfirmConfig()


def _configuration(
    found: Race,
    racer: Racer,
    repeats: list[TrialRecord],
    tests: Mapping[str, TestMetrics],
    report_of: Callable[[str], str | None],
    *,
    winner: bool,
) -> ConfirmedConfiguration:
    repeats = sorted(repeats, key=lambda trial: trial.repeat or 0)

    def test_of(trial: TrialRecord) -> float | None:
        metrics = tests.get(trial.trial_id)
        return metrics.criteria_matching.f1_macro if metrics else None

    def estimated(scores: Sequence[float]) -> dict[str, float | None]:
        return estimate(scores)._asdict() if scores else dict.fromkeys(Estimate._fields)

    tested = [test_of(trial) for trial in repeats[: len(racer.scores)]]
    on_test = estimated([score for score in tested if score is not None])
    assert racer.trial.best
    return ConfirmedConfiguration(
        trial_id=racer.trial.trial_id,
        number=racer.trial.number,
        value=racer.trial.best.value,
        **estimated(racer.scores),
        shrinkage=found.shrinkage(racer),
        repeats=len(racer.scores),
        test_f1_macro=on_test["mean"],
        test_low=on_test["low"],
        test_high=on_test["high"],
        left_after=racer.left,
        failed=racer.failed,
        winner=winner,
        trials=[
            RepeatSummary(
                trial_id=trial.trial_id,
                repeat=trial.repeat or 0,
                state=trial.state,
                value=trial.best.value if trial.best else None,
                test_f1_macro=test_of(trial),
                report=report_of(trial.trial_id),
            )
            for trial in repeats
        ],
    )
