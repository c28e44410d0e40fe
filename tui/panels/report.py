"""A trial's evaluation: headline metrics, one line per symptom, evidence, the tied best checkpoints."""

from rich.text import Text

from redsm5.engine.installed import command
from redsm5.reports import CHOSEN_BY_VALIDATION, CriterionMetrics, EvaluationReport

from ..read.standing import Standing
from ..read.view import View
from . import text


def missing(view: View) -> Text:
    """Why there is no report, and what to do."""
    detail = view.detail
    assert detail is not None
    trial, name = detail.record, text.number(detail.record)
    again = text.clean(command("evaluate", trial.trial_id, experiments=view.snapshot.experiments), text.COMMAND)
    if any("evaluation_report" in problem for problem in detail.problems):
        return Text(f"The report of trial {name} cannot be read: `{again}` writes it again.")
    if trial.duplicate_of:
        return Text(
            f"Trial {name} is a duplicate of trial {text.clean(trial.duplicate_of, 60)}: see that trial's report."
        )
    said = {
        "pruned": "was pruned: pruned trials have no report.",
        "failed": "failed before it could be evaluated; 3 shows why.",
        "completed": (
            "was trained by a script of its own, which writes no report here: 3 shows its metrics."
            if detail.config.get("study.script")
            else f"has no report: `{again}` writes it."
        ),
        "finishing": "is being evaluated right now.",
    }.get(trial.state, f"is {trial.state}: its report is written once it has trained all {trial.epochs} epochs.")
    return Text(f"Trial {name} {said}")


TALL = 45  # lines from which precision and recall have bars of their own


def report(report: EvaluationReport, standing: Standing, width: int, height: int = 0) -> Text:
    """The report, with how the trial stands; on a high screen each symptom takes three lines."""
    metrics, evidence = report.test_metrics.criteria_matching, report.test_metrics.evidence_binding
    posts = report.data_counts.get(report.split)
    page = Text.assemble((f"{report.split} split", "bold"), f" ({posts} posts)" if posts is not None else "", "   ")
    for word, name, number in (
        ("macro F1", "criteria_matching.f1_macro", metrics.f1_macro),
        ("micro F1", "criteria_matching.f1_micro", metrics.f1_micro),
        ("PR AUC", "criteria_matching.macro_pr_auc", metrics.macro_pr_auc),
        ("subset accuracy", "criteria_matching.accuracy", metrics.accuracy),
    ):
        page.append(word.replace(" ", "\u00a0") + "\u00a0", text.DIM).append(text.value(number), "bold")
        page.append(f"{interval(report, name)}   ", text.DIM)
    page.append(
        f"\nvalidation {text.clean(report.optimization_metric_name, 40)} {text.value(report.best_validation_score)}"
    )
    page.append_text(_standing(report.trial_id, standing)).append("\n\n")
    page.append_text(table(report, width, tall=height >= TALL))
    page.append("\n\nevidence   ", "bold")
    for word, name, number in (
        ("exact", "exact_match", evidence.exact_match),
        ("token F1", "f1", evidence.f1),
        ("char F1", "char_f1", evidence.char_f1),
        ("no evidence, correct", "null_span_accuracy", evidence.null_span_accuracy),
    ):
        page.append(word.replace(" ", "\u00a0") + "\u00a0", text.DIM).append(text.value(number), "bold")
        page.append(f"{interval(report, f'evidence_binding.{name}')}   ", text.DIM)
    if report.hard_negatives:
        hard = report.hard_negatives
        page.append(f"\nhard negatives   {hard.pairs} pairs   ", "bold")
        page.append(f"symptom absent {text.value(hard.criteria_specificity)}   ")
        page.append(f"no evidence {text.value(hard.evidence_specificity)}")
    page.append("\n\ncheckpoints with the best validation score\n", "bold")
    for checkpoint in report.evaluated_checkpoints[:20]:
        f1 = checkpoint.test_metrics.criteria_matching.f1_macro
        path = text.clean((checkpoint.path or "in memory only").rsplit("/", 1)[-1], 30)
        page.append(f"  {'★' if not checkpoint.co_best else '='} epoch {checkpoint.epoch:<4}")
        page.append(f" validation {text.value(checkpoint.val_metric)}   {report.split} macro F1 {text.value(f1)}   ")
        page.append(f"{path}\n", text.DIM)
    return page.append(f"\n{CHOSEN_BY_VALIDATION}", "italic")


def _standing(trial_id: str, standing: Standing) -> Text:
    """The interval of the validation score, whether it is within noise of the best, and the baseline's scores."""
    bounds, line = standing.intervals.get(trial_id), Text()
    if bounds:
        line.append(f"\u00a0{text.interval(bounds)}", text.DIM)
    if trial_id in standing.near:
        line.append("   ≈ within noise of the best")
    if standing.test_f1_macro is not None:
        line.append("   baseline", text.DIM)
        line.append(f" {text.value(standing.value)} on validation, test macro F1 {text.value(standing.test_f1_macro)}")
    return line


def table(report: EvaluationReport, width: int, *, tall: bool = False) -> Text:
    """A line per symptom: F1 with a bar, precision, recall, area, threshold, support and the confusion matrix.

    `tall`: and a line each with a bar for precision and for recall.
    """
    rows = report.test_metrics.criteria_matching.per_criterion
    names = max([len("symptom"), *(len(text.clean(row.id, 24)) for row in rows)])
    bars = max(width - names - 50, 4)
    lines = [Text.assemble((f"{'symptom':<{names}} {'F1':<{bars}}", text.DIM))]
    for label, cell in (("", 5), ("prec", 5), ("rec", 5), ("PR AUC", 7), ("thr", 5), ("n", 4)):
        lines[0].append(f"{label:>{cell}}", text.DIM)
    lines[0].append("".join(f"{label:>4}" for label in ("tn", "fp", "fn", "tp")), text.DIM)
    for row in rows:
        lines.append(_row(row, report, names, bars))
        for word, share in (("precision", row.precision), ("recall", row.recall)) if tall else ():
            lines.append(Text(f"{word:>{names}} ", text.DIM).append(text.fine_bar(share, bars), "blue"))
    return Text("\n").join(lines)


def _row(row: CriterionMetrics, report: EvaluationReport, names: int, bars: int) -> Text:
    style = "red" if (row.f1 or 0.0) < 0.3 else "yellow" if (row.f1 or 0.0) < 0.6 else "green"
    line = Text(f"{text.clean(row.id, 24):<{names}} ").append(text.fine_bar(row.f1, bars), style)
    threshold = (report.decision_thresholds or {}).get(row.id)
    for number, cell in ((row.f1, 5), (row.precision, 5), (row.recall, 5), (row.pr_auc, 7), (threshold, 5)):
        line.append(f"{'–' if number is None else f'{number:.2f}':>{cell}}", "bold" if number is row.f1 else "")
    line.append(f"{row.support:>4}")
    cells = [str(n) for pair in row.confusion_matrix[:2] for n in pair[:2]]
    return line.append("".join(f"{n:>4}" for n in cells), text.DIM)


def interval(report: EvaluationReport, name: str) -> str:
    """The metric's bootstrap interval, if the report has one."""
    for key in (name, f"test_metrics.{name}"):
        bounds = report.confidence_intervals.get(key)
        if bounds and len(bounds) == 2:
            return f"\u00a0[{bounds[0]:.3f},\u00a0{bounds[1]:.3f}]"
    return ""
