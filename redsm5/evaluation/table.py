"""A report as a table for the terminal."""

from redsm5.engine.documents import Record
from redsm5.engine.terminal import one_line
from redsm5.reports import CHOSEN_BY_VALIDATION, Calibration, EvaluationReport, SentenceRanking


def report_table(report: EvaluationReport) -> str:
    """A row for each symptom, then for both tasks; 95 % intervals of a bootstrap over posts in brackets."""

    def headline(task: str, name: str, value: float | None) -> str:
        interval = report.confidence_intervals.get(f"{task}.{name}")
        return _figure(value) + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")

    criteria = report.test_metrics.criteria_matching
    tasks: dict[str, Record | None] = {
        "criteria_matching": criteria,
        "evidence_binding": report.test_metrics.evidence_binding,
        "calibration": report.calibration,
        "sentence_ranking": report.sentence_ranking,
    }
    limits, metric = report.decision_thresholds or {}, one_line(report.optimization_metric_name)
    lines = [
        f"trial {one_line(report.trial_id)} · {report.split} split ({report.data_counts[report.split]} posts)",
        f"{len(report.evaluated_checkpoints)} best checkpoint(s) by {metric} on validation",
        "",
        f"{'symptom':<18}    F1   prec  recall PR AUC support     tn     fp     fn     tp threshold",
    ]
    for row in criteria.per_criterion:
        cells = " ".join(map(_figure, (row.f1, row.precision, row.recall, row.pr_auc)))
        (tn, fp), (fn, tp) = row.confusion_matrix
        limit = _figure(limits.get(row.id))
        lines.append(f"{one_line(row.id):<18}{cells} {row.support:7} {tn:6} {fp:6} {fn:6} {tp:6}    {limit}")
    lines.append("")
    for task, name, label in (
        ("criteria_matching", "f1_macro", "criteria  F1 macro"),
        ("criteria_matching", "f1_micro", "          F1 micro"),
        ("criteria_matching", "f1_weighted", "          F1 weighted"),
        ("criteria_matching", "macro_pr_auc", "          PR AUC macro"),
        ("criteria_matching", "accuracy", "          subset accuracy, all nine"),
        ("evidence_binding", "exact_match", "evidence  exact match"),
        ("evidence_binding", "f1", "          token F1"),
        ("evidence_binding", "char_f1", "          character F1"),
        ("evidence_binding", "null_span_accuracy", "          no evidence, none predicted"),
        ("calibration", "brier_macro", "criteria  Brier score, macro"),
        ("calibration", "ece_macro", "          calibration error, macro"),
        ("sentence_ranking", "average_precision_macro", "sentences average precision, macro"),
        ("sentence_ranking", "ndcg_at_10_macro", "          nDCG@10, macro"),
    ):
        if (of_task := tasks[task]) is None:  # a report of an older version
            continue
        value = getattr(of_task, name)
        lines.append(f"{label:<40}{headline(task, name, value)}")
    if (hard := report.hard_negatives) and hard.pairs:
        lines.append(
            f"hard negatives ({hard.pairs} pairs)".ljust(40)
            + f"{_figure(hard.criteria_specificity)} symptom not predicted, "
            + f"{_figure(hard.evidence_specificity).strip()} evidence not predicted"
        )
    if report.calibration:
        lines += ["", *_by_symptom(report.calibration, report.sentence_ranking), ""]
    lines.append(CHOSEN_BY_VALIDATION)
    return "\n".join(lines)


def _by_symptom(calibration: Calibration, ranking: SentenceRanking | None) -> list[str]:
    """A row for each symptom: how far its probabilities are calibrated, and how its evidence sentences rank."""
    ranked = {row.id: row for row in ranking.per_criterion} if ranking else {}
    lines = [f"{'symptom':<18} Brier  calibration error  ranked posts  average precision  nDCG@10"]
    for row in calibration.per_criterion:
        line = f"{one_line(row.id):<18}{_figure(row.brier)}  {_figure(row.ece):>17}"
        if found := ranked.get(row.id):
            line += f"  {found.posts:12}  {_figure(found.average_precision):>17}  {_figure(found.ndcg_at_10):>7}"
        lines.append(line)
    return lines


def _figure(value: float | None) -> str:
    return f"{value:6.3f}" if value is not None else "     –"
