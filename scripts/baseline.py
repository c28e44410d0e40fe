"""Train the baseline (TF-IDF with linear SVMs) on the same splits and report it: `just baseline [overrides]`.

just baseline                                   on the synthetic posts
just baseline data=csv data.dir=DIR             on the posts of a folder, to compare a search on them with
"""

import json
import sys
import uuid
from pathlib import Path

from redsm5 import code_version
from redsm5.config import Config, compose
from redsm5.data import FEW_POSITIVES, SYMPTOMS, few_positives, load_learnable, load_test
from redsm5.engine import environment, files, paths
from redsm5.engine.documents import now
from redsm5.engine.errors import exit_with_message
from redsm5.engine.migrations import LEGACY
from redsm5.engine.spec import snapshot_of
from redsm5.engine.study.launch import note_ignored
from redsm5.engine.terminal import help_asked, show
from redsm5.engine.tracking.logs import open_logs
from redsm5.evaluation.page import write_page
from redsm5.evaluation.table import report_table
from redsm5.reports import EvaluatedCheckpoint, EvaluationReport, PredictionsRecord

NAME = "tfidf-svm"


def main() -> int:
    if help_asked(sys.argv[1:], "just baseline", __doc__):
        return 0
    files.make_private()
    config = compose(sys.argv[1:])
    log = open_logs(None)
    note_ignored(log)
    environment.start_over()

    # Imported here, since these imports take seconds and must come after the environment is set up.
    import torch

    from redsm5.engine import receipts
    from redsm5.evaluation import report as reports
    from redsm5.evaluation.baseline import fit, predictions_of
    from redsm5.evaluation.thresholds import choose, default_thresholds, score, score_samples, validation_metrics

    splits = load_learnable(config.data)
    log.info("training TF-IDF and linear SVMs", **splits.counts)
    if few := few_positives(splits):
        log.warning(FEW_POSITIVES, **few)
    models = fit(splits.train, seed=config.train.seed)

    seen = predictions_of(models, splits.validation)
    default = default_thresholds("sentence_reranker")  # it also scores each sentence by itself
    limits = choose(seen, splits.validation, scope=config.train.thresholds, metric=config.study.metric, default=default)
    validation = validation_metrics(score(seen, splits.validation, default))
    log.info("validation", **{config.study.metric: round(validation[config.study.metric], 4)})

    test = load_test(config.data).test
    predictions = predictions_of(models, test)
    metrics = score(predictions, test, limits)
    # The same data and configuration give the same baseline: it is rewritten in the same folder, also if an older
    # version, which lacked some keys, created it.
    snapshot = {k: v for k, v in snapshot_of(config).items() if k in ("data", "train", "study", "symptoms")}
    for key, value in {**LEGACY, **Config.LEGACY}.items():
        section, _, name = key.partition(".")
        if section in snapshot and snapshot[section].get(name, ...) == value:
            del snapshot[section][name]
    baseline_id = str(uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([splits.fingerprint, snapshot], sort_keys=True)))
    report = EvaluationReport(
        report_id=str(uuid.uuid4()),
        trial_id=baseline_id,
        study_id=None,
        generated_at=now(),
        split="test",
        config=snapshot_of(config) | {"model": {"model_id": NAME}},
        optimization_metric_name=config.study.metric,
        best_validation_score=validation[config.study.metric],
        evaluated_checkpoints=[
            EvaluatedCheckpoint(
                checkpoint_id=f"{baseline_id}/{NAME}",
                path=None,
                epoch=0,
                val_metric=validation[config.study.metric],
                co_best=False,
                test_metrics=metrics,
            )
        ],
        data_fingerprint=splits.fingerprint,
        data_counts=splits.counts,
        environment=receipts.environment(torch.device("cpu")),
        code_version=code_version(),
        seed=config.train.seed,
        test_metrics=metrics,
        **reports.figures(predictions, test, limits),
    )
    metric = config.study.metric
    kept = PredictionsRecord(
        trial_id=baseline_id,
        checkpoint=NAME,
        split="test",
        symptoms=list(SYMPTOMS),
        post_ids=[post.post_id for post in test],
        probabilities=predictions.probabilities_P9.tolist(),
        validation=score_samples(metric, seen, splits.validation, default),
        tested=score_samples(metric, predictions, test, limits),
    )
    folder = Path(config.experiments) / f"baseline_{baseline_id}"
    files.make_dir(folder)
    files.write_atomic(folder / paths.PREDICTIONS, kept.to_json())
    files.write_atomic(folder / paths.REPORT, report.to_json())
    write_page(folder)
    show(report_table(report))
    log.info("written", report=str(folder / paths.REPORT))
    return 0


if __name__ == "__main__":
    exit_with_message(main)
