"""A trial's report: its best checkpoints evaluated on the test split, with their provenance."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from redsm5 import code_version
from redsm5.config import Config
from redsm5.data import SYMPTOMS, Splits, load_splits, load_test
from redsm5.data.batches import eval_loader, micro_batching_of, on_device
from redsm5.data.encode import EncodedPosts
from redsm5.data.posts import Post, labels_of
from redsm5.data.tokenize import tokenizer_of
from redsm5.engine import files, paths
from redsm5.engine.documents import load, now
from redsm5.engine.errors import NoCheckpointError
from redsm5.engine.installed import command
from redsm5.engine.receipts import environment
from redsm5.engine.records import Manifest, TrialRecord
from redsm5.engine.spec import snapshot_of
from redsm5.engine.storage.checkpoint import Identity, load_best
from redsm5.engine.storage.store import CheckpointStore, DamagedCheckpoint, weights_sha256
from redsm5.evaluation.calibration import calibration
from redsm5.evaluation.discrimination import discrimination
from redsm5.evaluation.predict import Predictions, predict
from redsm5.evaluation.ranking import ranked_pairs, sentence_ranking
from redsm5.evaluation.thresholds import (
    choose,
    default_thresholds,
    hard_negative_metrics,
    intervals,
    pr_curves,
    score,
    score_samples,
    vector,
)
from redsm5.model import MultiTaskModel, identity_of, set_numerics
from redsm5.reports import (
    EvaluatedCheckpoint,
    EvaluationReport,
    PredictionsRecord,
    TestMetrics,
    Thresholds,
    TrialThresholds,
)

IN_MEMORY = "memory"  # the name of the weights in memory if no checkpoints are written


@dataclass(frozen=True)
class Evaluation:
    """A report, and the two documents written with it."""

    report: EvaluationReport
    thresholds: TrialThresholds
    predictions: PredictionsRecord


@dataclass(frozen=True)
class _Evaluated:
    """A checkpoint's predictions for the split's posts, and the metrics with its thresholds."""

    name: str
    manifest: Manifest
    limits: Thresholds
    predictions: Predictions
    metrics: TestMetrics


def evaluate_trial(
    record: TrialRecord,
    config: Config,
    splits: Splits,
    model: MultiTaskModel,
    tokenizer: PreTrainedTokenizerFast,
    store: CheckpointStore,
    accelerator: Accelerator,
    *,
    split: Literal["validation", "test"] = "test",
    in_memory: tuple[Manifest, dict[str, Tensor]] | None = None,
) -> Evaluation:
    """Evaluate the best checkpoint of a trial, and all tied with it. This overwrites the model's weights.

    Thresholds come from the trial's thresholds.json; for a checkpoint that is not in it, they are chosen on the
    validation split. A damaged checkpoint is quarantined; if none of the best is left, the next best is evaluated. If
    checkpoints are turned off, the best weights come from memory.

    Raises:
        NoCheckpointError: no checkpoint passes verification.
        IncompatibleCheckpointError: the data or the architecture differ from the checkpoint's.
    """
    validation_set = EncodedPosts(splits.validation, tokenizer, config)
    dataset = EncodedPosts(load_test(config.data).test, tokenizer, config) if split == "test" else validation_set

    def predictions_on(dataset: EncodedPosts, *, sentences: bool = False) -> Predictions:
        micro_batching = micro_batching_of(config)
        loader = eval_loader(dataset, config.train.batch_size, tokenizer.pad_token_id, micro_batching=micro_batching)
        ready = accelerator.prepare_model(model, evaluation_mode=True)
        return predict(ready, on_device(loader, accelerator.device), dataset, sentences=sentences)

    known = load(store.folder.parent / paths.THRESHOLDS, TrialThresholds)
    thresholds = dict(known.checkpoints) if known else {}
    evaluated: list[_Evaluated] = []
    seen: Predictions | None = None  # of the validation posts, by the first of the best
    for name, manifest in _load_each(store, model, identity_of(config, model, splits.fingerprint), in_memory):
        weights = None if in_memory else weights_sha256(store.folder / name)
        limits = thresholds.get(name)
        if limits is None or weights is None or limits.weights != weights:
            predictions = predictions_on(validation_set)
            seen, limits = seen or predictions, _chosen(predictions, splits.validation, config, weights)
        else:
            seen = seen or predictions_on(validation_set)
        thresholds[name] = limits
        predictions = predictions_on(dataset, sentences=True)
        evaluated.append(_Evaluated(name, manifest, limits, predictions, score(predictions, dataset.posts, limits)))

    first, where = evaluated[0], environment(accelerator.device, accelerator.num_processes)
    metric, default = config.study.metric, default_thresholds(config.model.evidence_head_type)
    return Evaluation(
        _report(record, config, splits, split, dataset, evaluated, where),
        TrialThresholds(
            trial_id=record.trial_id,
            scope=config.train.thresholds,
            metric=config.study.metric,
            checkpoints=thresholds,
        ),
        PredictionsRecord(
            trial_id=record.trial_id,
            checkpoint=first.name,
            split=split,
            symptoms=list(SYMPTOMS),
            post_ids=[post.post_id for post in dataset.posts],
            probabilities=first.predictions.probabilities_P9.tolist(),
            # With folds the score is over all folds' posts, of which this model knows most.
            validation=(
                None if config.folds > 1 or seen is None else score_samples(metric, seen, splits.validation, default)
            ),
            tested=score_samples(metric, first.predictions, dataset.posts, first.limits),
        ),
    )


def _chosen(predictions: Predictions, posts: Sequence[Post], config: Config, weights: str | None) -> Thresholds:
    """The thresholds of these weights, chosen on the validation posts."""
    limits = choose(
        predictions,
        posts,
        scope=config.train.thresholds,
        metric=config.study.metric,
        default=default_thresholds(config.model.evidence_head_type),
    )
    return limits.model_copy(update={"weights": weights})


def _report(
    record: TrialRecord,
    config: Config,
    splits: Splits,
    split: Literal["validation", "test"],
    dataset: EncodedPosts,
    evaluated: Sequence[_Evaluated],
    environment: dict[str, str],
) -> EvaluationReport:
    """The report on the evaluated checkpoints, the best first."""
    first, folder = evaluated[0], paths.trial_dir(Path(), record.trial_id)
    rows = [
        EvaluatedCheckpoint(
            checkpoint_id=f"{record.trial_id}/{each.name}",
            path=None if each.name == IN_MEMORY else str(folder / paths.CHECKPOINTS / each.name),
            epoch=each.manifest.epoch,
            val_metric=each.manifest.score,
            co_best=len(evaluated) > 1,
            test_metrics=each.metrics,
        )
        for each in evaluated
    ]
    return EvaluationReport(
        report_id=str(uuid.uuid4()),
        trial_id=record.trial_id,
        study_id=record.study_id,
        generated_at=now(),
        split=split,
        config=snapshot_of(config),
        optimization_metric_name=config.study.metric,
        best_validation_score=first.manifest.score,
        evaluated_checkpoints=rows,
        test_metrics=first.metrics,
        data_fingerprint=splits.fingerprint,
        data_counts=splits.counts | _counts_of(dataset, split),
        environment=environment,
        code_version=code_version(),
        seed=config.train.seed,
        **figures(first.predictions, dataset.posts, first.limits),
    )


def evaluate_again(
    record: TrialRecord,
    config: Config,
    store: CheckpointStore,
    *,
    split: Literal["validation", "test"] = "test",
) -> Evaluation:
    """Evaluate a trial from its folder, outside its training process. The caller holds the trial's lock."""
    set_numerics(config.train.deterministic)
    splits = load_splits(config.data)
    tokenizer = tokenizer_of(config, splits.train)
    model = MultiTaskModel(config.model, vocab_size=len(tokenizer))
    accelerator = Accelerator(mixed_precision=config.train.mixed_precision, cpu=config.on_cpu)
    return evaluate_trial(record, config, splits, model, tokenizer, store, accelerator, split=split)


def figures(predictions: Predictions, posts: Sequence[Post], limits: Thresholds) -> dict[str, Any]:
    """The fields of a report beside its metrics: thresholds, hard negatives, intervals, curves, calibration,
    discrimination, and the ranking of sentences if the predictions have their scores.
    """
    ranked = None if predictions.sentences is None else ranked_pairs(predictions.sentences, posts)
    return {
        "decision_thresholds": {
            **limits.criteria,
            "evidence_null_threshold": limits.evidence_null_threshold,
            "min_span_score": limits.min_span_score,
        },
        "hard_negatives": hard_negative_metrics(predictions, posts, limits),
        "confidence_intervals": intervals(predictions, posts, limits),
        "pr_curves": pr_curves(predictions, posts),
        "calibration": calibration(predictions.probabilities_P9, labels_of(posts), SYMPTOMS),
        "discrimination": discrimination(predictions.probabilities_P9, labels_of(posts), vector(limits), SYMPTOMS),
        "sentence_ranking": ranked and sentence_ranking(ranked, len(posts)),
    }


def _counts_of(dataset: EncodedPosts, split: str) -> dict[str, int]:
    return {
        f"{split}_truncated": dataset.truncated_posts,
        f"{split}_evidence": dataset.evidence_spans,
        f"{split}_lost_evidence": dataset.lost_spans,
    }


def _load_each(
    store: CheckpointStore,
    model: MultiTaskModel,
    identity: Identity,
    in_memory: tuple[Manifest, dict[str, Tensor]] | None,
) -> Iterator[tuple[str, Manifest]]:
    """Load the best checkpoints into the model, one after the other, and yield each one's name and manifest."""
    if in_memory:
        model.load_state_dict(in_memory[1])
        yield IN_MEMORY, in_memory[0]
        return
    found = False
    while not found:
        best = store.best()
        if not best:
            again = command("train", f"trial.id={identity.trial_id}", experiments=store.folder.parent.parent)
            raise NoCheckpointError(
                f"trial {identity.trial_id} has no valid checkpoint",
                remedy=f"Resume it: `{again}`; or train a new trial with the same configuration.",
            )
        for checkpoint in best:
            try:
                manifest = load_best(store.folder / checkpoint.name, model, identity)
            except DamagedCheckpoint as error:
                store.quarantine(checkpoint.name, str(error))
                continue
            found = True
            yield checkpoint.name, manifest


def write_report(folder: Path, evaluation: Evaluation) -> None:
    """Write the trial's report durably, after the documents that belong to it."""
    files.write_atomic(folder / paths.THRESHOLDS, evaluation.thresholds.to_json())
    files.write_atomic(folder / paths.PREDICTIONS, evaluation.predictions.to_json())
    files.write_atomic(folder / paths.REPORT, evaluation.report.to_json())
