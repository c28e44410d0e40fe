"""The test scores of a study's trials, from their reports: to look at, and never to choose by."""

import time
from collections.abc import Sequence
from pathlib import Path

from redsm5.engine import paths
from redsm5.engine.records import TrialRecord

from .files import Documents
from .reports import EvaluationReport


class ScoresReader:
    """Reads each report once, step by step, the newest first."""

    def __init__(self, experiments: Path) -> None:
        self._experiments = experiments
        self._known: dict[str, float | None] = {}
        self._shown: dict[str, float] = {}

    def look(self, trials: Sequence[TrialRecord], seconds: float) -> dict[str, float]:
        """Macro F1 on the test split by trial id, as far as it is known; the same object if nothing has changed.

        Without any seconds, nothing is read.
        """
        deadline, new = time.monotonic() + seconds, {}
        for trial in reversed(trials):
            if trial.state == "completed" and trial.trial_id not in self._known:
                if seconds <= 0 or time.monotonic() > deadline:
                    break
                found = self._known[trial.trial_id] = self._score(trial.trial_id)
                if found is not None:
                    new[trial.trial_id] = found
        if new:
            self._shown = self._shown | new
        return self._shown

    def _score(self, trial_id: str) -> float | None:
        path = paths.trial_dir(self._experiments, trial_id) / paths.REPORT
        report = Documents().get(path, EvaluationReport)
        return report.test_metrics.criteria_matching.f1_macro if report and report.split == "test" else None
