"""A report as a table for the terminal."""

from redsm5.engine.terminal import one_line
from redsm5.reports import CHOSEN_BY_VALIDATION, EvaluationReport


def report_table(report: EvaluationReport) -> str:
    """A row for each symptom, then for both tasks; 95 % intervals of a bootstrap over posts in brackets."""

    def figure(value: float | None) -> str:
        return f"{value:6.3f}" if value is not None else "     –"

    def headline(task: str, name: str, value: float | None) -> str:
        interval = report.confidence_intervals.get(f"{task}.{name}")
        return figure(value) + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")

    criteria, evidence = report.test_metrics.criteria_matching, report.test_metrics.evidence_binding
    limits, metric = report.decision_thresholds or {}, one_line(report.optimization_metric_name)
    lines = [
        f"trial {one_line(report.trial_id)} · {report.split} split ({report.data_counts[report.split]} posts)",
        f"{len(report.evaluated_checkpoints)} best checkpoint(s) by {metric} on validation",
        "",
        f"{'symptom':<18}    F1   prec  recall PR AUC support     tn     fp     fn     tp threshold",
    ]
    for row in criteria.per_criterion:
        cells = " ".join(map(figure, (row.f1, row.precision, row.recall, row.pr_auc)))
        (tn, fp), (fn, tp) = row.confusion_matrix
        limit = figure(limits.get(row.id))
        lines.append(f"{one_line(row.id):<18}{cells} {row.support:7} {tn:6} {fp:6} {fn:6} {tp:6}    {limit}")
    lines.append("")
    for task, name, label in (
        ("criteria_matching", "f1_macro", "criteria  F1 macro"),
        ("criteria_matching", "f1_micro", "          F1 micro"),
        ("criteria_matching", "f1_weighted", "          F1 weighted"),
        ("criteria_matching", "macro_pr_auc", "          PR AUC macro"),
        ("criteria_matching", "accuracy", "          accuracy (all nine correct)"),
        ("evidence_binding", "exact_match", "evidence  exact match"),
        ("evidence_binding", "f1", "          token F1"),
        ("evidence_binding", "char_f1", "          character F1"),
        ("evidence_binding", "null_span_accuracy", "          no evidence, none predicted"),
    ):
        value = getattr(criteria if task == "criteria_matching" else evidence, name)
        lines.append(f"{label:<40}{headline(task, name, value)}")
    if (hard := report.hard_negatives) and hard.pairs:
        lines.append(
            f"hard negatives ({hard.pairs} pairs)".ljust(40)
            + f"{figure(hard.criteria_specificity)} symptom not predicted, "
            + f"{figure(hard.evidence_specificity).strip()} evidence not predicted"
        )
    lines.append(CHOSEN_BY_VALIDATION)
    return "\n".join(lines)
