"""The model card of an exported model: README.md, made of the trial's report and records alone.

It says what was measured and how sure it is, what the model is for, and what it must not be used for.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from redsm5.engine import paths
from redsm5.engine.documents import load
from redsm5.engine.records import StudyRecord, TrialRecord
from redsm5.engine.spec import flatten
from redsm5.evaluation.metricnames import CRITERIA, EVIDENCE
from redsm5.evaluation.rendering import figure, value_text, words
from redsm5.reports import EvaluationReport

SUICIDAL = "SUICIDAL_THOUGHTS"
# What a reader wants of the configuration; the rest says where and how the study ran.
SHOWN = ("model", "train")
PRIVATE = ("model.model_id", "train.augmentation.translation_models")  # may be folders of a machine
SPLIT = (
    "test_split",
    "split_seed",
    "validation_seed",
    "validation_fraction",
    "test_fraction",
    "group_duplicates",
    "folds",
    "alignment",
)


def card_of(report: EvaluationReport, record: TrialRecord, experiments: Path) -> str:
    """The card of the model that the report is about.

    Args:
        experiments: the folder of the trial's study, which says whether its configuration was confirmed.
    """
    study = load(paths.study_dir(experiments, record.study_id) / paths.STUDY, StudyRecord) if record.study_id else None
    criteria, evidence = report.test_metrics.criteria_matching, report.test_metrics.evidence_binding
    data = report.config.get("data") or {}
    return (
        _templates()
        .get_template("card.md")
        .render(
            report=report,
            record=record,
            encoder=_name(str((report.config.get("model") or {}).get("model_id"))),
            source=data.get("repo_id") or data.get("source"),
            split=", ".join(f"{key} {value_text(data[key])}" for key in SPLIT if data.get(key) is not None),
            grouped=data.get("group_duplicates"),
            by_authors=data.get("test_split") == "authors",
            invented=data.get("source") == "synthetic",
            fixed=(report.config.get("train") or {}).get("thresholds") == "fixed",
            folds=data.get("folds"),
            long_posts=data.get("long_posts"),
            groups=[
                ("Symptoms", _metrics("criteria_matching", criteria, CRITERIA, report)),
                ("Evidence", _metrics("evidence_binding", evidence, EVIDENCE, report)),
            ],
            symptoms=_symptoms(report),
            suicidal=next((row for row in _symptoms(report) if row["id"] == SUICIDAL), None),
            undefined=_undefined(report),
            calibration=calibration_of(report),
            ranking=ranking_of(report),
            confirmed=study.confirmed if study and study.confirmed else None,
            is_winner=bool(
                study and study.confirmed and study.confirmed.trial_id in (record.trial_id, record.confirms)
            ),
            metric=report.optimization_metric_name,
            configuration={
                key: value_text(value)
                for key, value in flatten({name: report.config.get(name) or {} for name in SHOWN}).items()
                if key not in PRIVATE
            },
        )
    )


def calibration_of(report: EvaluationReport) -> list[tuple[str, str, str]]:
    """Of each symptom and their mean: its name, Brier score and expected calibration error; empty where the report,
    which may be an older version's, has none.
    """
    if report.calibration is None:
        return []
    rows = [(words(row.id), figure(row.brier), figure(row.ece)) for row in report.calibration.per_criterion]
    return [*rows, ("mean", figure(report.calibration.brier_macro), figure(report.calibration.ece_macro))]


def ranking_of(report: EvaluationReport) -> list[tuple[str, str, str]]:
    """Of each symptom and their mean: its name, average precision and nDCG@10 of the sentences, in the same way."""
    if report.sentence_ranking is None:
        return []
    ranking = report.sentence_ranking
    rows = [(words(row.id), figure(row.average_precision), figure(row.ndcg_at_10)) for row in ranking.per_criterion]
    return [*rows, ("mean", figure(ranking.average_precision_macro), figure(ranking.ndcg_at_10_macro))]


def _name(model_id: str) -> str:
    """A Hub id as it is; of a folder only its name."""
    return model_id if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model_id) else Path(model_id).name


def _metrics(task: str, metrics: Any, names: Mapping[str, tuple[str, str]], report: EvaluationReport) -> list[Any]:
    rows = []
    for name, (label, definition) in names.items():
        interval = report.confidence_intervals.get(f"{task}.{name}")
        shown = f"{figure(interval[0])} to {figure(interval[1])}" if interval else "–"
        rows.append((label, figure(getattr(metrics, name)), shown, definition))
    return rows


def _symptoms(report: EvaluationReport) -> list[dict[str, Any]]:
    rows = []
    for row in report.test_metrics.criteria_matching.per_criterion:
        (tn, fp), (fn, tp) = row.confusion_matrix
        counts: dict[str, Any] = {"tn": tn, "fp": fp, "fn": fn, "tp": tp, "support": row.support}
        scores = {name: figure(getattr(row, name)) for name in ("f1", "precision", "recall", "pr_auc")}
        threshold = figure((report.decision_thresholds or {}).get(row.id))
        rows.append({"id": row.id, "name": words(row.id), "threshold": threshold, **counts, **scores})
    return rows


def _undefined(report: EvaluationReport) -> list[tuple[str, str]]:
    """What is undefined, with its reason."""
    criteria, evidence = report.test_metrics.criteria_matching, report.test_metrics.evidence_binding
    found = [(CRITERIA[name][0], reason) for name, reason in criteria.undefined.items() if name in CRITERIA]
    found += [(f"Evidence: {EVIDENCE[name][0]}", reason) for name, reason in evidence.undefined.items()]
    for row in criteria.per_criterion:
        found += [(f"{words(row.id)}: {words(name)}", reason) for name, reason in row.undefined.items()]
    return found


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        finalize=_escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["figure"] = figure
    return environment


def _escaped(value: Any) -> Any:
    """A text of a file as Markdown that shows it as it is, in one line."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(value.split())) if isinstance(value, str) else value
