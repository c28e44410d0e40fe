"""Train a trial again from its snapshot and compare every metric: `just reproduce UUID [--into DIR] [--data-dir DIR]`.

Two things are judged. The kept checkpoint is evaluated here, and its probabilities are compared with those on record:
they may differ by 1e-4 at most, on any machine. The trial is trained anew, elsewhere, and every metric of every step is
compared: on a machine and with libraries like those on record each must be equal to the bit; elsewhere the differences
are only told. The exit code is 0 where what must hold holds, else 2.
"""

import argparse
import json
import math
import os
import re
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from redsm5 import code_version, files, paths
from redsm5.config import Config, validate
from redsm5.errors import ConfigError, InputError, Interrupted, exit_with_message
from redsm5.records import EvaluationReport, PredictionsRecord, load
from redsm5.study.launch import launch_trial, quoted
from redsm5.study.signals import StopRequest
from redsm5.study.trial import create_trial, open_store, read_record, trial_config
from redsm5.tracking.journal import read_metrics
from redsm5.tracking.logs import open_logs

TOLERANCE = 1e-4  # of a probability of the same checkpoint on another machine
SHOWN = 10  # metrics that differ, by name


def main() -> int:
    parser = argparse.ArgumentParser(prog="just reproduce", description=__doc__)
    parser.add_argument("trial_id", metavar="UUID", help="of a completed trial, as in the name of its folder")
    parser.add_argument("--experiments", type=Path, default=Path(os.environ.get("REDSM5_EXPERIMENTS", "experiments")))
    parser.add_argument(
        "--into", type=Path, help="keep the repeated trial in this experiments folder; default: nowhere"
    )
    parser.add_argument("--data-dir", help="where the CSVs are here, if the trial read them from another folder")
    parser.add_argument("--launch", help="a file of accelerate_configs/; default: the trial's own")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    arguments = parser.parse_args()
    files.make_private()
    stop = StopRequest()
    folder, report, config = recorded(arguments)
    log = open_logs(None)

    checkpoint = compare_checkpoint(folder, config)
    with ExitStack() as stack:
        into = arguments.into or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="redsm5-")))
        files.make_dir(into)
        again = validate({**config.model_dump(), "experiments": str(into.absolute()), "trial": {"id": None}})
        trial_id = create_trial(again).trial_id
        log.info("training it again", folder=str(paths.trial_dir(into, trial_id)))
        launch_trial(again, trial_id, output=None).attend(stop)
        training = compare_training(folder, report, paths.trial_dir(into, trial_id), stop)
    told = verdict(report, checkpoint, training)
    print(json.dumps(told, indent=2) if arguments.json else text(told))
    return 0 if told["reproduced"] else 2


def recorded(arguments: argparse.Namespace) -> tuple[Path, EvaluationReport, Config]:
    """The trial's folder, report and configuration, as it is to be trained here."""
    trial_id, experiments = arguments.trial_id, arguments.experiments
    folder = paths.trial_dir(experiments, trial_id)
    record = read_record(folder) if re.fullmatch(r"[0-9a-f-]{36}", trial_id) else None
    if record is None:
        raise ConfigError(
            f"there is no trial {trial_id} in {experiments}", remedy="The trials are the folders trial_<uuid> there."
        )
    if record.duplicate_of:
        raise ConfigError(
            f"trial {trial_id} was not trained: it repeats {record.duplicate_of}", remedy="Reproduce that one."
        )
    report = load(folder / paths.REPORT, EvaluationReport)
    if record.state != "completed" or report is None:
        raise InputError(
            f"trial {trial_id} is {record.state} and has no report to compare with",
            remedy="Only a completed trial can be reproduced.",
        )
    words = [f"trial.id={trial_id}", f"experiments={quoted(str(experiments))}"]
    words += [f"launch={arguments.launch}"] if arguments.launch else []
    config = trial_config(words)
    if arguments.data_dir:
        data = config.data.model_copy(update={"dir": arguments.data_dir})
        config = validate(config.model_copy(update={"data": data}).model_dump())
    return folder, report, config


def compare_checkpoint(folder: Path, config: Config) -> dict[str, Any]:
    """Evaluate the kept checkpoint here, and hold its probabilities against those on record."""
    before = load(folder / paths.PREDICTIONS, PredictionsRecord)
    if before is None:
        return {"compared": False, "reason": f"{paths.PREDICTIONS} is not there"}
    if not (folder / paths.CHECKPOINTS / before.checkpoint).is_dir():
        return {"compared": False, "reason": f"checkpoint {before.checkpoint} was not kept"}
    with files.try_lock(folder / paths.LOCK) as held:
        if not held:
            return {"compared": False, "reason": "another process is at the trial"}

        from redsm5.evaluation.report import evaluate_again

        record = read_record(folder)
        assert record is not None
        after = evaluate_again(record, config, open_store(folder, config, log=open_logs(None).info)).predictions
    if (after.checkpoint, after.post_ids) != (before.checkpoint, before.post_ids):
        return {"compared": False, "reason": "the posts or the best checkpoint are others than on record"}
    pairs = zip(before.probabilities, after.probabilities, strict=True)
    largest = max((abs(a - b) for x, y in pairs for a, b in zip(x, y, strict=True)), default=0.0)
    return {
        "compared": True,
        "checkpoint": before.checkpoint,
        "largest_difference": largest,
        "tolerance": TOLERANCE,
        "holds": largest <= TOLERANCE,
    }


def compare_training(folder: Path, report: EvaluationReport, again: Path, stop: StopRequest) -> dict[str, Any]:
    """Hold the repeated trial's every metric and its report against those on record."""
    record = read_record(again)
    if stop.requested:
        raise Interrupted("the repeated training was stopped; run the same command again to begin anew")
    if record is None or record.state != "completed":
        reason = record.error.message if record and record.error else "it ended without an outcome"
        return {"completed": False, "reason": reason}
    before, after = metrics_of(folder), metrics_of(again)
    different = {key for key in before.keys() | after.keys() if not same(before.get(key), after.get(key))}
    by_name: dict[str, float] = {}
    for metric, step in different:
        a, b = before.get((metric, step)), after.get((metric, step))
        gap = math.inf if a is None or b is None else abs(a - b)
        by_name[metric] = max(by_name.get(metric, 0.0), gap if math.isfinite(gap) else math.inf)
    report_again = load(again / paths.REPORT, EvaluationReport)
    assert report_again is not None
    return {
        "completed": True,
        "metrics": len(before),
        "metrics_different": len(different),
        "largest_differences": {name: by_name[name] for name in sorted(by_name)},
        "report_equal": report_again.test_metrics == report.test_metrics
        and report_again.decision_thresholds == report.decision_thresholds,
        "validation": [report.best_validation_score, report_again.best_validation_score],
        "test_f1_macro": [r.test_metrics.criteria_matching.f1_macro for r in (report, report_again)],
        "environment": report_again.environment,
    }


def metrics_of(folder: Path) -> dict[tuple[str, int], float]:
    """Each metric by step, but for those that depend on the clock or the machine."""
    return {(row.metric, row.step): row.value for row in read_metrics(folder) if not row.metric.startswith("system_")}


def same(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and math.isnan(a) and math.isnan(b))


def verdict(report: EvaluationReport, checkpoint: dict[str, Any], training: dict[str, Any]) -> dict[str, Any]:
    """What holds, and whether that is all that must."""
    environment = training.get("environment", {})
    differing = {
        key: [report.environment.get(key), environment.get(key)]
        for key in sorted(report.environment.keys() | environment.keys())
        if report.environment.get(key) != environment.get(key)
    }
    if report.code_version != code_version():
        differing["code_version"] = [report.code_version, code_version()]
    identical = training["completed"] and not training["metrics_different"] and training["report_equal"]
    must_be_identical = training["completed"] and not differing
    reproduced = training["completed"] and checkpoint.get("holds", True) and (identical or not must_be_identical)
    return {
        "trial_id": report.trial_id,
        "reproduced": bool(reproduced),
        "identical": bool(identical),
        "same_environment": not differing if training["completed"] else None,
        "environment_differences": differing if training["completed"] else {},
        "checkpoint": checkpoint,
        "training": training,
    }


def text(told: dict[str, Any]) -> str:
    """The verdict for a person."""
    checkpoint, training = told["checkpoint"], told["training"]
    lines = [f"trial {told['trial_id']}"]
    if checkpoint["compared"]:
        lines.append(
            f"same checkpoint ({checkpoint['checkpoint']}): probabilities differ by at most "
            f"{checkpoint['largest_difference']:.2g}; allowed {TOLERANCE:g}: "
            f"{'holds' if checkpoint['holds'] else 'DOES NOT HOLD'}"
        )
    else:
        lines.append(f"same checkpoint: not compared, {checkpoint['reason']}")
    if not training["completed"]:
        lines.append(f"trained again: it did not complete: {training['reason']}")
    else:
        equal = training["metrics"] - training["metrics_different"]
        report = "equal" if training["report_equal"] else "different"
        lines.append(
            f"trained again: {equal} of {training['metrics']} metrics are equal to the bit; the report is {report}"
        )
        for name, gap in list(training["largest_differences"].items())[:SHOWN]:
            lines.append(f"  {name}: differs by up to {gap:.3g}")
        before, after = training["validation"]
        lines.append(f"best validation score: {before} on record, {after} here")
        for key, (before, after) in told["environment_differences"].items():
            lines.append(f"  another {key}: {before} on record, {after} here")
    if told["identical"]:
        lines.append("verdict: reproduced, identical")
    elif told["reproduced"]:
        lines.append("verdict: reproduced within what holds across machines; the repeated training is judged apart")
    else:
        lines.append("verdict: NOT reproduced")
    return "\n".join(lines)


exit_with_message(main)
