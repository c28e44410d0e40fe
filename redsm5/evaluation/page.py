"""A trial's report as a self-contained HTML page: evaluation_report.html next to evaluation_report.json.

It is made from the files in the trial's folder only, but for the links to other pages (neighbours.py), needs no script
and no network, and escapes their content. The page names files that are missing or damaged, and gives the reason of
undefined metrics.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from redsm5.engine import files, paths
from redsm5.engine.documents import load
from redsm5.engine.errors import InputError
from redsm5.engine.installed import command
from redsm5.engine.records import MetricRow, TrialRecord
from redsm5.engine.spec import flatten
from redsm5.engine.tracking.journal import read_metrics
from redsm5.evaluation import plots
from redsm5.evaluation.metricnames import CALIBRATION, CRITERIA, DISCRIMINATION, EVIDENCE, RANKING
from redsm5.evaluation.neighbours import block, with_links_of
from redsm5.evaluation.pagetable import Cell, Column, PageTable, scores
from redsm5.evaluation.rendering import figure, render, value_text, words
from redsm5.reports import (
    Calibration,
    CalibrationBin,
    CriteriaMetrics,
    CriterionMetrics,
    Discrimination,
    EvaluationReport,
    EvidenceMetrics,
    SentenceRanking,
)

CARDS = ("criteria_matching.f1_macro", "criteria_matching.f1_micro", "evidence_binding.f1")
FIXED_THRESHOLD = 0.5
TRAIN_LOSS, VAL_LOSS = "train_loss", "val_loss"


def write_page(trial_folder: Path) -> Path:
    """Write the page of a trial's report atomically, and return its path; it keeps the links to other pages that it
    had. The caller holds the trial's lock.

    Raises:
        InputError: the report is missing or damaged.
    """
    page = trial_folder / paths.REPORT_PAGE
    html = with_links_of(render_page(trial_folder), page)
    files.write_atomic(page, html.encode(errors="replace"))
    return page


def render_page(trial_folder: Path) -> str:
    """The page of a trial's report.

    Raises:
        InputError: the report is missing or damaged.
    """
    report = load(trial_folder / paths.REPORT, EvaluationReport)
    if report is None:
        again = command("evaluate", trial_folder.name.removeprefix("trial_"), experiments=trial_folder.parent)
        raise InputError(
            "there is no report",
            where=str(trial_folder / paths.REPORT),
            remedy="A trial gets one as it completes; " f"`{again}` writes it again.",
        )
    found: list[str] = []
    record = _record(trial_folder, found)
    rows = _journal(trial_folder, found)
    study = report.config.get("study")
    name = f" of study {study['name']}" if isinstance(study, dict) and study.get("name") and report.study_id else ""
    of = f"Trial {report.trial_id[:8] if record is None or record.number is None else record.number}"
    home = f"../{paths.study_dir(Path(), report.study_id or '').name}/{paths.SUMMARY_PAGE}"
    return render(
        "trial.html",
        heading="Baseline: TF-IDF and linear SVMs" if trial_folder.name.startswith("baseline_") else f"{of}{name}",
        report=report,
        record=record,
        seconds=record and record.seconds,
        posts=report.data_counts.get(report.split),
        found=found,
        **_metrics(report),
        **_learning(rows, report),
        checkpoints=_checkpoints(report),
        **_configuration(report, record),
        origin=_origin(report),
        links=block([("The study", home)] if (trial_folder / home).exists() else []),
    )


# ---------------------------------------------------------------------------------------------------------------------
# data from the files


def _record(folder: Path, found: list[str]) -> TrialRecord | None:
    try:
        record = load(folder / paths.TRIAL, TrialRecord)
    except InputError as error:
        found.append(f"{paths.TRIAL}: {error.what}")
        return None
    if record is None and folder.name.startswith("trial_"):  # a baseline has no record
        found.append(f"{paths.TRIAL} is missing")
    return record


def _journal(folder: Path, found: list[str]) -> list[MetricRow]:
    try:
        return read_metrics(folder)
    except InputError as error:
        found.append(f"{paths.METRICS}: {error.what}")
    return []


def _metrics(report: EvaluationReport) -> dict[str, Any]:
    """Both tasks' tables, the symptoms' rows and curves, thresholds and hard negatives."""
    criteria, evidence = report.test_metrics.criteria_matching, report.test_metrics.evidence_binding
    groups: list[dict[str, Any]] = [
        {
            "title": "Criteria: which symptoms a post shows",
            "caption": "Below each value, its 95 % interval: a bootstrap over posts.",
            "rows": _rows("criteria_matching", CRITERIA, criteria, report),
            "name": "criteria",
            "undefined": _by_reason((CRITERIA.get(k, (words(k),))[0], why) for k, why in criteria.undefined.items()),
        },
        {
            "title": "Evidence: where the post shows them",
            "caption": "Over pairs of post and symptom; spans are compared without whitespace at their ends.",
            "rows": _rows("evidence_binding", EVIDENCE, evidence, report),
            "name": "evidence",
            "undefined": _by_reason((EVIDENCE.get(k, (words(k),))[0], why) for k, why in evidence.undefined.items()),
        },
    ]
    rows = {row["key"]: row for group in groups for row in group["rows"]}
    if report.discrimination:
        groups[0]["rows"] += _rows("discrimination", DISCRIMINATION, report.discrimination, report)
        groups[0]["undefined"] |= _by_reason(
            (DISCRIMINATION[key][0], why) for key, why in report.discrimination.undefined.items()
        )
    thresholds = report.decision_thresholds
    symptoms = [_symptom(row, thresholds) for row in criteria.per_criterion]
    ids = {row.id for row in criteria.per_criterion}
    return {
        "groups": [group | {"table": _scores(group["name"], group["title"], group["rows"])} for group in groups],
        "cards": [rows[key] | {"label": _card_label(key)} for key in CARDS],
        "symptoms": symptoms,
        "by_symptom": _by_symptom(symptoms, report),
        "confusion": _confusion(criteria),
        "undefined": _by_reason(
            (f"{words(row.id)} ({', '.join(map(words, fields))})", why)
            for row in criteria.per_criterion
            for why, fields in _by_reason(row.undefined.items()).items()
        ),
        "curves": [curve for c, row in enumerate(criteria.per_criterion) if (curve := _curve(c, row, report))],
        "thresholds_fixed": report.config.get("train", {}).get("thresholds") == "fixed",
        "thresholds": thresholds and {words(k): v for k, v in thresholds.items() if k not in ids},
        "hard": report.hard_negatives,
        "discrimination": _discrimination(report),
        **_probabilities(report),
        **_ranking(report),
    }


def _probabilities(report: EvaluationReport) -> dict[str, Any]:
    """The calibration's figures, its rows by symptom and its plots; nothing for a report of an older version."""
    found = report.calibration
    if found is None:
        return {"calibration": None}
    plotted: list[tuple[str, str, Sequence[CalibrationBin]]] = [("All symptoms", "together", found.bins)]
    plotted += [(words(row.id), f"error {figure(row.ece)}", row.bins) for row in found.per_criterion]
    return {
        "calibration": {
            "table": _scores("calibration", "Calibration", _rows("calibration", CALIBRATION, found, report)),
            "symptoms": PageTable(
                "Calibration by symptom",
                "calibration-by-symptom",
                [Column("Symptom"), Column("Brier score", "bar"), Column("Calibration error", "bar")],
                [
                    [Cell(words(row.id)), _of_symptom(report, row.id, "brier", row.brier), Cell(row.ece)]
                    for row in found.per_criterion
                ],
            ),
            "undefined": _by_reason(found.undefined.items()),
            "plots": [svg for n, each in enumerate(plotted) if (svg := _reliability(n, *each))],
        }
    }


def _reliability(position: int, name: str, note: str, bins: Sequence[CalibrationBin]) -> dict[str, Any] | None:
    drawn = [((b.mean_probability, b.share_positive), b.count) for b in bins]
    some = [((x, y), n) for (x, y), n in drawn if x is not None and y is not None and plots.finite([(x, y)])]
    if not some:
        return None
    title = f"{name}: share with the symptom over mean probability, {note}"
    svg = plots.reliability(f"rel{position}", title, [point for point, _ in some], [count for _, count in some])
    return {"name": name, "note": note, "svg": Markup(svg)}


def _ranking(report: EvaluationReport) -> dict[str, Any]:
    """The sentence ranking's figures and rows by symptom; nothing for a report of an older version."""
    found = report.sentence_ranking
    if found is None:
        return {"ranking": None}
    return {
        "ranking": {
            "table": _scores("ranking", "Sentence ranking", _rows("sentence_ranking", RANKING, found, report)),
            "symptoms": PageTable(
                "Sentence ranking by symptom",
                "ranking-by-symptom",
                [
                    Column("Symptom"),
                    Column("Posts", "number"),
                    Column("Average precision", "bar"),
                    Column("nDCG@10", "bar"),
                ],
                [
                    [Cell(words(row.id)), Cell(row.posts), Cell(row.average_precision), Cell(row.ndcg_at_10)]
                    for row in found.per_criterion
                ],
            ),
            "undefined": _by_reason(
                (words(row.id), why) for row in found.per_criterion for why in sorted({*row.undefined.values()})
            ),
        }
    }


def _rows(
    task: str,
    known: Mapping[str, tuple[str, str]],
    metrics: CriteriaMetrics | EvidenceMetrics | Calibration | Discrimination | SentenceRanking,
    report: EvaluationReport,
) -> list[dict[str, Any]]:
    rows = []
    for name, (label, definition) in known.items():
        interval = _interval(report, f"{task}.{name}")
        rows.append(
            {
                "key": f"{task}.{name}",
                "label": label,
                "definition": definition,
                "value": getattr(metrics, name),
                "interval": None if getattr(metrics, name) is None else interval,
                "reason": metrics.undefined.get(name, "no reason was given"),
            }
        )
    return rows


def _scores(name: str, title: str, rows: Sequence[Mapping[str, Any]]) -> PageTable:
    return scores(name, title, [(row["label"], row["definition"], row["value"], row["interval"]) for row in rows])


def _by_reason(undefined: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The undefined values, grouped by reason."""
    names: dict[str, list[str]] = {}
    for name, reason in undefined:
        names.setdefault(reason, []).append(name)
    return names


def _card_label(key: str) -> str:
    task, _, name = key.partition(".")
    return CRITERIA[name][0] if task == "criteria_matching" else f"Evidence: {EVIDENCE[name][0]}"


def _symptom(row: CriterionMetrics, thresholds: Mapping[str, float] | None) -> dict[str, Any]:
    confusion = []
    for label, counts in zip(("absent", "present"), row.confusion_matrix, strict=False):
        total = sum(counts)
        confusion.append((label, [(count, count / total if total else None) for count in counts]))
    return {
        **row.model_dump(include={"support", "f1", "precision", "recall", "pr_auc"}),
        "id": row.id,
        "name": words(row.id),
        "threshold": FIXED_THRESHOLD if thresholds is None else thresholds.get(row.id),
        "confusion": confusion,
    }


def _interval(report: EvaluationReport, name: str) -> list[float] | None:
    """The 95 % interval of a metric, if the report has it."""
    interval = report.confidence_intervals.get(name, [])
    return interval if len(interval) == 2 and all(map(math.isfinite, interval)) else None


def _of_symptom(report: EvaluationReport, symptom: str, name: str, value: float | None) -> Cell:
    return Cell(value, interval=None if value is None else _interval(report, f"by_symptom.{symptom}.{name}"))


def _by_symptom(symptoms: Sequence[Mapping[str, Any]], report: EvaluationReport) -> PageTable:
    columns = [Column("Symptom"), Column("Support", "number")]
    columns += [Column(label, "bar") for label in ("F1", "Precision", "Recall", "PR AUC")]
    rows = []
    for row in symptoms:
        scores = [_of_symptom(report, row["id"], name, row[name]) for name in ("f1", "precision", "recall", "pr_auc")]
        rows.append([Cell(row["name"]), Cell(row["support"]), *scores, Cell(row["threshold"])])
    return PageTable("By symptom", "by-symptom", [*columns, Column("Threshold", "number")], rows)


def _discrimination(report: EvaluationReport) -> dict[str, Any] | None:
    """ROC AUC and MCC by symptom; None for a report of an older version."""
    found = report.discrimination
    if found is None:
        return None
    rows = [
        [Cell(words(row.id)), *(_of_symptom(report, row.id, name, getattr(row, name)) for name in ("roc_auc", "mcc"))]
        for row in found.per_criterion
    ]
    columns = [Column("Symptom"), Column("ROC AUC", "bar"), Column("MCC", "number")]
    names = {"roc_auc": "ROC AUC", "mcc": "MCC"}
    undefined = _by_reason(
        (f"{words(row.id)} ({', '.join(names.get(field, field) for field in fields)})", why)
        for row in found.per_criterion
        for why, fields in _by_reason(row.undefined.items()).items()
    )
    table = PageTable("Discrimination by symptom", "discrimination-by-symptom", columns, rows)
    return {"table": table, "undefined": undefined}


def _confusion(criteria: CriteriaMetrics) -> PageTable:
    labels = ("True negatives", "False positives", "False negatives", "True positives")
    rows = [
        [Cell(words(row.id)), *(Cell(count) for label in row.confusion_matrix for count in label)]
        for row in criteria.per_criterion
    ]
    columns = [Column("Symptom"), *(Column(label, "number") for label in labels)]
    return PageTable("Confusion matrices", "confusion", columns, rows)


def _checkpoints(report: EvaluationReport) -> PageTable:
    labels = ("Epoch", "Validation", "F1 macro", "F1 micro", "PR AUC macro", "Accuracy", "Evidence F1", "Exact match")
    rows = []
    for row in report.evaluated_checkpoints:
        criteria, evidence = row.test_metrics.criteria_matching, row.test_metrics.evidence_binding
        values = [row.val_metric, criteria.f1_macro, criteria.f1_micro, criteria.macro_pr_auc, criteria.accuracy]
        values += [evidence.f1, evidence.exact_match]
        rows.append([Cell(row.checkpoint_id.split("/")[-1]), Cell(row.epoch), *map(Cell, values)])
    columns = [Column("Checkpoint"), *(Column(label, "number") for label in labels)]
    return PageTable("Evaluated checkpoints", "checkpoints", columns, rows)


def _curve(position: int, row: CriterionMetrics, report: EvaluationReport) -> dict[str, Any] | None:
    points = [(point[0], point[1]) for point in report.pr_curves.get(row.id, []) if len(point) == 2]
    if not points:
        return None
    posts = sum(map(sum, row.confusion_matrix))
    chosen = None if row.recall is None or row.precision is None else (row.recall, row.precision)
    title = f"{words(row.id)}: precision over recall, PR AUC {figure(row.pr_auc)}"
    prevalence = row.support / posts if posts else None
    svg = plots.pr_curve(f"pr{position}", title, points, prevalence=prevalence, chosen=chosen)
    return {"name": words(row.id), "pr_auc": row.pr_auc, "svg": Markup(svg)}


def _learning(rows: Sequence[MetricRow], report: EvaluationReport) -> dict[str, Any]:
    """The curves with at least one point, and the names of metrics with values that cannot be drawn."""
    objective = report.optimization_metric_name
    train, validation = ([(row.step, row.value) for row in rows if row.metric == m] for m in (TRAIN_LOSS, VAL_LOSS))
    scores = [(row.epoch, row.value) for row in rows if row.metric == objective]
    drawn = []
    if plots.finite(train) or plots.finite(validation):
        drawn.append(("loss", plots.loss_curves(train, validation)))
    if plots.finite(scores):
        epochs = [checkpoint.epoch for checkpoint in report.evaluated_checkpoints]
        drawn.append((objective, plots.objective_curve(objective, scores, epochs)))
    series = {TRAIN_LOSS: train, VAL_LOSS: validation, objective: scores}
    left_out = [name for name, points in series.items() if len(plots.finite(points)) < len(points)]
    return {"learning": [(name, Markup(svg)) for name, svg in drawn], "left_out": left_out}


def _configuration(report: EvaluationReport, record: TrialRecord | None) -> dict[str, Any]:
    """The configuration by section, and the searched keys: those drawn for this trial, and those not drawn."""
    flat = flatten(report.config)
    space = flat.get("search.space")
    space = space if isinstance(space, dict) else {}
    drawn = set(record.parameters if record else space)
    if drawn:
        drawn |= {key for key in space if flat.get(key) is None}
    sections: dict[str, list[dict[str, Any]]] = {}
    for key, value in flat.items():
        section, _, name = key.rpartition(".") if key != "search.space" else ("search", "", "space")
        text = f"{len(space)} parameters" if key == "search.space" else value_text(value)
        sections.setdefault(section or "general", []).append(
            {"name": name or key, "value": text, "set": bool(report.study_id) and key in drawn}
        )
    any_set = any(row["set"] for rows in sections.values() for row in rows)
    return {"configuration": sections, "any_set": any_set}


def _origin(report: EvaluationReport) -> list[tuple[str, str]]:
    return [
        ("trial", report.trial_id),
        ("study", report.study_id or "–"),
        ("report", report.report_id),
        ("code version", report.code_version),
        ("seed", str(report.seed)),
        ("data fingerprint", report.data_fingerprint),
    ]
