"""What the tests of the pages share: trials' folders with reports and journals, made by hand."""

import json
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from redsm5.engine import paths
from redsm5.engine.records import MetricRow, StudyIndex, StudyRecord, TrialRecord
from redsm5.reports import EvaluationReport

TIME = "2026-01-31T12:00:00.000Z"
SYMPTOMS = ("DEPRESSED_MOOD", "SLEEP_ISSUES", "PSYCHOMOTOR")
STUDY = "11111111-2f3a-4b5c-8d7e-9f0a1b2c3d4e"
NO_POSITIVES = "no post of this split has the symptom"
SPACE = {
    "train.learning_rate": {"type": "float", "low": 1e-6, "high": 1e-4, "log": True},
    "train.loss_function": {"type": "categorical", "choices": ["bce", "focal"]},
    "train.focal_gamma": {"type": "float", "low": 1.0, "high": 5.0, "when": {"train.loss_function": ["focal"]}},
}
CRITERIA = ("accuracy", "f1_macro", "f1_micro", "f1_weighted", "precision_macro", "recall_macro", "macro_pr_auc")
EVIDENCE = ("exact_match", "f1", "char_f1", "char_precision", "char_recall", "null_span_accuracy")


def metrics(f1_macro: float | None = 0.612) -> dict[str, Any]:
    """Of 80 posts; no post has the last symptom."""
    rows = [
        {"id": name, "f1": 0.741, "precision": 1.0, "recall": 0.588, "pr_auc": 0.818, "support": 17}
        | {"confusion_matrix": [[63, 0], [7, 10]]}
        for name in SYMPTOMS[:-1]
    ]
    undefined = dict.fromkeys(("f1", "precision", "recall", "pr_auc"))
    rows.append(
        {"id": SYMPTOMS[-1], **undefined, "support": 0, "confusion_matrix": [[80, 0], [0, 0]]}
        | {"undefined": dict.fromkeys(undefined, NO_POSITIVES)}
    )
    criteria = dict.fromkeys(CRITERIA, 0.5) | {"f1_macro": f1_macro, "per_criterion": rows}
    evidence = dict.fromkeys(EVIDENCE, 0.25) | {"exact_match": None}
    evidence |= {"undefined": {"exact_match": "there is no evidence"}}
    return {"criteria_matching": criteria, "evidence_binding": evidence}


def report_of(trial_id: str, **changes: Any) -> EvaluationReport:
    evaluated = {
        "checkpoint_id": f"{trial_id}/epoch-0003",
        "path": "p",
        "epoch": 3,
        "val_metric": 0.7,
        "co_best": False,
        "test_metrics": metrics(),
    }
    fields = {
        "report_id": "r",
        "trial_id": trial_id,
        "study_id": STUDY,
        "generated_at": TIME,
        "split": "test",
        "config": {
            "launch": "cpu",
            "train": {"learning_rate": 1e-5, "loss_function": "bce", "focal_gamma": None, "epochs": 4},
            "search": {"space": SPACE},
            "study": {"name": "night"},
        },
        "optimization_metric_name": "val_f1_macro",
        "best_validation_score": 0.7,
        "evaluated_checkpoints": [evaluated],
        "decision_thresholds": dict.fromkeys(SYMPTOMS, 0.31) | {"min_span_score": 0.125},
        "test_metrics": metrics(),
        "confidence_intervals": {"criteria_matching.f1_macro": [0.533, 0.687], "evidence_binding.f1": [0.2, 0.3]},
        "pr_curves": {name: [[0.0, 1.0], [0.5, 0.9], [1.0, 0.2]] for name in SYMPTOMS[:-1]},
        "hard_negatives": {"pairs": 71, "criteria_specificity": 0.831, "evidence_specificity": None},
        "data_fingerprint": "f00d",
        "data_counts": {"train": 260, "test": 80},
        "code_version": "0.1.0",
        "seed": 42,
    }
    return EvaluationReport.model_validate(fields | changes)


def calibration_of(*names: str) -> dict[str, Any]:
    bins = [{"count": 60, "mean_probability": 0.04, "share_positive": 0.1}]
    bins += [{"count": 0, "mean_probability": None, "share_positive": None}] * 8
    bins += [{"count": 20, "mean_probability": 0.93, "share_positive": 0.5}]
    rows = [{"id": name, "brier": 0.132, "ece": 0.153, "bins": bins} for name in names]
    return {"brier_macro": 0.142, "ece_macro": 0.163, "bins": bins, "per_criterion": rows}


def discrimination_of(*names: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [{"id": name, "roc_auc": 0.912, "mcc": -0.123} for name in names[:-1]]
    undefined = dict.fromkeys(("roc_auc", "mcc"), NO_POSITIVES)
    rows.append({"id": names[-1], **dict.fromkeys(undefined), "undefined": undefined})
    return {"roc_auc_macro": 0.913, "mcc_macro": -0.124, "per_criterion": rows}


def ranking_of(*names: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [
        {"id": name, "posts": 17, "average_precision": 0.654, "ndcg_at_10": 0.765} for name in names[:-1]
    ]
    undefined = dict.fromkeys(("average_precision", "ndcg_at_10"), "no post has a sentence")
    rows.append({"id": names[-1], "posts": 0, **dict.fromkeys(undefined), "undefined": undefined})
    return {"average_precision_macro": 0.656, "ndcg_at_10_macro": 0.767, "per_criterion": rows}


def trial_of(trial_id: str, number: int | None = 0, **changes: Any) -> TrialRecord:
    fields = {"trial_id": trial_id, "study_id": STUDY, "number": number, "state": "completed", "created_at": TIME}
    fields |= {"epochs": 4, "epoch": 4, "parameters": {"train.learning_rate": 1e-5, "train.loss_function": "bce"}}
    return TrialRecord.model_validate(fields | changes)


def id_of(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def study_of(**changes: Any) -> StudyRecord:
    fields = {"study_id": STUDY, "name": "night", "state": "running", "created_at": TIME, "metric": "val_f1_macro"}
    config = {"search": {"space": SPACE}, "retention": {"max_total_size": 10_000_000}}
    return StudyRecord.model_validate(fields | {"trials": {"wanted": 9}, "config": config} | changes)


def write_study(experiments: Path, study: StudyRecord, trials: list[TrialRecord] | None = None) -> Path:
    folder = paths.study_dir(experiments, study.study_id)
    folder.mkdir()
    (folder / paths.STUDY).write_bytes(study.to_json())
    if trials is not None:
        index = StudyIndex(study_id=study.study_id, updated_at=TIME, trials=trials)
        (folder / paths.INDEX).write_bytes(index.to_json())
    return folder


def journal_of(trial_id: str, values: Mapping[str, Sequence[float]]) -> bytes:
    """The values of each metric at the steps 10, 20, … and epochs 1, 2, …"""
    rows = [
        MetricRow(trial_id=trial_id, metric=name, step=10 * i, epoch=i, value=value, timestamp=TIME)
        for name, series in values.items()
        for i, value in enumerate(series, 1)
    ]
    return b"".join(row.model_dump_json().encode() + b"\n" for row in rows)


CURVES = {"train_loss": [2.0, 1.0, 0.5, 0.4], "val_loss": [1.5, 1.0, 0.8, 0.9], "val_f1_macro": [0.1, 0.5, 0.7, 0.6]}
MakeTrial = Callable[..., Path]


@pytest.fixture
def make_trial(tmp_path: Path) -> MakeTrial:
    """Make a completed trial's folder; None for a file leaves it out."""

    def make(
        trial_id: str = "0b5c1d1e",
        *,
        record: TrialRecord | None = None,
        report: EvaluationReport | None = None,
        curves: Mapping[str, Sequence[float]] = CURVES,
    ) -> Path:
        folder = paths.trial_dir(tmp_path, trial_id)
        folder.mkdir()
        (folder / paths.TRIAL).write_bytes((record or trial_of(trial_id)).to_json())
        (folder / paths.METRICS).write_bytes(journal_of(trial_id, curves))
        if report:
            (folder / paths.REPORT).write_bytes(report.to_json())
        return folder

    return make


FILES = tuple(f"data:{kind};base64," for kind in ("text/csv;charset=utf-8", "application/x-tex", "image/svg+xml"))
OURS = ("../trial_", "../study_", "../baseline_", *FILES)  # where links lead


class Page(HTMLParser):
    """What a browser would see of a page: its elements with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def values(self, attribute: str) -> list[str]:
        return [attrs[attribute] or "" for _, attrs in self.elements if attribute in attrs]


def check_self_contained(html: str) -> Page:
    """No script, no request of any kind, and every id that something refers to stands once."""
    page = Page(html)
    assert not {tag for tag, _ in page.elements} & {"script", "iframe", "object", "embed", "img", "base", "form"}
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on") or name == "src"]
    assert [value for value in page.values("xlink:href") if not value.startswith("#")] == []
    assert [v for v in page.values("href") if not v.startswith(("data:,", *OURS))] == []
    assert "@import" not in html
    assert html.count("url(") == html.count("url(#")
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    wanted = {value[1:] for value in page.values("xlink:href")} | set(page.values("aria-labelledby"))
    assert wanted <= set(ids)
    return page


def json_of(path: Path) -> Any:
    return json.loads(path.read_bytes())
