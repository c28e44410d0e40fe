"""What the evaluation of a trial left in its folder, as other evaluations read it."""

from pathlib import Path

from redsm5.engine import paths
from redsm5.engine.documents import load
from redsm5.engine.errors import InputError
from redsm5.engine.installed import command
from redsm5.engine.study.ids import find_trial
from redsm5.reports import EvaluationReport, PredictionsRecord


def predictions_of(experiments: Path, trial_id: str) -> tuple[PredictionsRecord, EvaluationReport]:
    """A trial's predictions for the test posts, and its report.

    Raises:
        ConfigError, InputError: as `find_trial`; or it has none.
    """
    folder, record = find_trial(experiments, trial_id)
    predictions = load(folder / paths.PREDICTIONS, PredictionsRecord)
    report = load(folder / paths.REPORT, EvaluationReport)
    if predictions is None or report is None or report.decision_thresholds is None:
        again = command("evaluate", record.trial_id, experiments=folder.parent)
        raise InputError(
            f"trial {trial_id} is {record.state} and has no predictions of ReDSM5's test posts",
            where=str(folder),
            remedy=f"Compare completed trials; `{again}` writes what an older version did not.",
        )
    return predictions, report
