"""What is read of the documents of evaluations and study summaries, whose forms are in redsm5/reports.py."""

from pydantic import ConfigDict

from redsm5.engine.documents import SecondForm
from redsm5.reports import EvaluationReport, ParameterImportance, StudySummary

from .files import LARGEST

__all__ = ["EvaluationReport", "Importance"]


class Importance(SecondForm):
    """The parts of summary.json that are read: its time, its trials, and each parameter's importance."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    study_id: str
    generated_at: str
    counts: dict[str, int]
    parameter_importance: dict[str, ParameterImportance]

    @classmethod
    def form(cls) -> str:
        return StudySummary.form()

    @property
    def completed(self) -> int:
        """The number of completed trials on which it is based."""
        return min(max(self.counts.get("completed", 0), 0), LARGEST)

    def share(self, key: str) -> float | None:
        """The parameter's share of the variance; None if it is unknown."""
        found = self.parameter_importance.get(key)
        share = found.share if found else None
        return share if share is not None and 0 <= share <= 1 else None
