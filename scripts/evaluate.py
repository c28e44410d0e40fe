"""Evaluate a trial's kept best checkpoints again: `just evaluate --trial-id UUID [--split test]`."""

import argparse
import os
import re
from pathlib import Path

from redsm5 import files, paths
from redsm5.errors import ConfigError, LockedError, exit_with_message
from redsm5.records import EvaluationReport
from redsm5.study.launch import quoted
from redsm5.study.trial import open_store, read_record, trial_config
from redsm5.tracking.logs import open_logs


def main() -> int:
    parser = argparse.ArgumentParser(prog="just evaluate", description=__doc__)
    parser.add_argument("--trial-id", required=True, help="the uuid in the name of the trial's folder")
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--experiments", type=Path, default=Path(os.environ.get("REDSM5_EXPERIMENTS", "experiments")))
    arguments = parser.parse_args()
    files.make_private()
    folder = paths.trial_dir(arguments.experiments, arguments.trial_id)
    record = read_record(folder)
    if not re.fullmatch(r"[0-9a-f-]{36}", arguments.trial_id) or record is None:
        raise ConfigError(
            f"there is no trial {arguments.trial_id} in {arguments.experiments}",
            remedy="The trials are the folders trial_<uuid> there.",
        )
    config = trial_config([f"trial.id={arguments.trial_id}", f"experiments={quoted(str(arguments.experiments))}"])
    with files.try_lock(folder / paths.LOCK) as held:
        if not held:
            raise LockedError(f"trial {arguments.trial_id} is being trained", remedy="Wait for it to end.")

        from accelerate import Accelerator

        from redsm5.data import SYMPTOMS, load_splits
        from redsm5.data.tokenize import build_tokenizer
        from redsm5.evaluation.report import evaluate_trial, write_report
        from redsm5.model import MultiTaskModel, set_deterministic

        set_deterministic(config.train.deterministic)
        tokenizer = build_tokenizer(config.model.model_id, load_splits(config.data).train, config.model.revision)
        model = MultiTaskModel(config.model, vocab_size=len(tokenizer), criteria=len(SYMPTOMS))
        store = open_store(folder, config, log=open_logs(None).info)
        accelerator = Accelerator(mixed_precision=config.train.mixed_precision, cpu=config.launch == "cpu")
        report = evaluate_trial(record, config, model, tokenizer, store, accelerator, split=arguments.split)
        if arguments.split == "test":
            write_report(store, report)
    print(table(report))
    return 0


def table(report: EvaluationReport) -> str:
    """The report's figures for a terminal."""

    def figure(value: float | None) -> str:
        return f"{value:6.3f}" if value is not None else "     –"

    criteria, evidence = report.test_metrics.criteria_matching, report.test_metrics.evidence_binding
    lines = [
        f"trial {report.trial_id} · {report.split} split ({report.data_counts[report.split]} posts)",
        f"{len(report.evaluated_checkpoints)} best checkpoint(s) by {report.optimization_metric_name} on validation",
        "",
        f"{'symptom':<18}    F1   prec  recall PR AUC support     tn     fp     fn     tp",
    ]
    for row in criteria.per_criterion:
        cells = " ".join(map(figure, (row.f1, row.precision, row.recall, row.pr_auc)))
        (tn, fp), (fn, tp) = row.confusion_matrix
        lines.append(f"{row.id:<18}{cells} {row.support:7} {tn:6} {fp:6} {fn:6} {tp:6}")
    lines += [
        "",
        f"criteria  F1 macro {figure(criteria.f1_macro)}  micro {figure(criteria.f1_micro)}  weighted "
        f"{figure(criteria.f1_weighted)}  PR AUC {figure(criteria.macro_pr_auc)}  accuracy {figure(criteria.accuracy)}",
        f"evidence  exact {figure(evidence.exact_match)}  token F1 {figure(evidence.f1)}  character F1 "
        f"{figure(evidence.char_f1)}  no-evidence right {figure(evidence.null_span_accuracy)}",
        "Trials are chosen by validation; test scores are shown, never used to choose.",
    ]
    return "\n".join(lines)


exit_with_message(main)
