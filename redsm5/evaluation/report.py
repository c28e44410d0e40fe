"""A trial's report: its best checkpoints on the test split, with everything that says how they came about."""

import uuid
from typing import Literal

from accelerate import Accelerator
from transformers import PreTrainedTokenizerFast

from redsm5 import code_version, files, paths
from redsm5.config import Config
from redsm5.data import load_splits, load_test
from redsm5.data.batches import eval_loader
from redsm5.data.tokenize import encode
from redsm5.errors import NoCheckpointError
from redsm5.evaluation.predict import predict, score
from redsm5.model import MultiTaskModel
from redsm5.records import EvaluatedCheckpoint, EvaluationReport, TrialRecord, now
from redsm5.storage.checkpoint import Identity, load_best
from redsm5.storage.store import CheckpointStore


def evaluate_trial(
    record: TrialRecord,
    config: Config,
    model: MultiTaskModel,
    tokenizer: PreTrainedTokenizerFast,
    store: CheckpointStore,
    accelerator: Accelerator,
    *,
    split: Literal["validation", "test"] = "test",
) -> EvaluationReport:
    """Evaluate the best checkpoint of a trial, and all tied with it. The model's weights are overwritten.

    Raises:
        NoCheckpointError: none is left that verifies.
        IncompatibleCheckpointError: the data or the code's architecture are not those of the checkpoint.
    """
    best = store.best()
    if not best:
        raise NoCheckpointError(
            f"trial {record.trial_id} has no checkpoint", remedy="Run `just train trial.id=...` to go on with it."
        )
    if split == "test":
        test = load_test(config.data)
        posts, fingerprint, counts = test.test, test.fingerprint, test.counts
    else:
        splits = load_splits(config.data)
        posts, fingerprint, counts = splits.validation, splits.fingerprint, splits.counts
    dataset = encode(posts, tokenizer, config.model.max_length)
    loader = accelerator.prepare(eval_loader(dataset, config.train.batch_size, tokenizer.pad_token_id))
    identity = Identity.of(config, model, fingerprint)
    evaluated = []
    for checkpoint in best:
        manifest = load_best(store.folder / checkpoint.name, model, identity)
        metrics = score(
            predict(
                accelerator.prepare_model(model, evaluation_mode=True), loader, accelerator, config.train.task_weights
            ),
            dataset,
        )
        evaluated.append(
            EvaluatedCheckpoint(
                checkpoint_id=f"{record.trial_id}/{checkpoint.name}",
                path=f"{store.folder.parent.name}/{paths.CHECKPOINTS}/{checkpoint.name}",
                epoch=manifest.epoch,
                val_metric=manifest.score,
                co_best=len(best) > 1,
                test_metrics=metrics,
            )
        )
    lost = {
        "truncated": dataset.truncated_posts,
        "evidence": dataset.evidence_spans,
        "lost_evidence": dataset.lost_spans,
    }
    return EvaluationReport(
        report_id=str(uuid.uuid4()),
        trial_id=record.trial_id,
        study_id=record.study_id,
        generated_at=now(),
        split=split,
        config=config.model_dump(mode="json"),
        optimization_metric_name=config.study.metric,
        best_validation_score=evaluated[0].val_metric,
        evaluated_checkpoints=evaluated,
        test_metrics=evaluated[0].test_metrics,
        data_fingerprint=fingerprint,
        data_counts=counts | {f"{split}_{name}": count for name, count in lost.items()},
        code_version=code_version(),
        seed=config.train.seed,
    )


def write_report(store: CheckpointStore, report: EvaluationReport) -> None:
    """Write evaluation_report.json into the trial's folder, durably."""
    files.write_atomic(store.folder.parent / paths.REPORT, report.to_json())
