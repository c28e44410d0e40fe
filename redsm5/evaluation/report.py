"""A trial's report: its best checkpoints on the test split, with everything that says how they came about."""

import uuid
from collections.abc import Iterator
from typing import Literal

from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from redsm5 import code_version, files, paths
from redsm5.config import Config
from redsm5.data import load_splits, load_test
from redsm5.data.batches import eval_loader
from redsm5.data.tokenize import encode
from redsm5.errors import NoCheckpointError
from redsm5.evaluation.predict import predict, score
from redsm5.model import MultiTaskModel
from redsm5.records import EvaluatedCheckpoint, EvaluationReport, Manifest, TrialRecord, now
from redsm5.storage.checkpoint import Identity, load_best
from redsm5.storage.store import CheckpointStore, DamagedCheckpoint


def evaluate_trial(
    record: TrialRecord,
    config: Config,
    model: MultiTaskModel,
    tokenizer: PreTrainedTokenizerFast,
    store: CheckpointStore,
    accelerator: Accelerator,
    *,
    split: Literal["validation", "test"] = "test",
    in_memory: tuple[Manifest, dict[str, Tensor]] | None = None,
) -> EvaluationReport:
    """Evaluate the best checkpoint of a trial, and all tied with it. The model's weights are overwritten.

    A damaged one is set aside; the next best takes its place where none of the best is left. Where checkpoints are
    turned off, the best weights come from memory.

    Raises:
        NoCheckpointError: none is left that verifies.
        IncompatibleCheckpointError: the data or the code's architecture are not those of the checkpoint.
    """
    if split == "test":
        test = load_test(config.data)
        posts, fingerprint, counts = test.test, test.fingerprint, test.counts
    else:
        splits = load_splits(config.data)
        posts, fingerprint, counts = splits.validation, splits.fingerprint, splits.counts
    dataset = encode(posts, tokenizer, config.model.max_length)
    loader = accelerator.prepare(eval_loader(dataset, config.train.batch_size, tokenizer.pad_token_id))
    identity = Identity.of(config, model, fingerprint)

    def evaluated(name: str | None, manifest: Manifest) -> EvaluatedCheckpoint:
        prepared = accelerator.prepare_model(model, evaluation_mode=True)
        return EvaluatedCheckpoint(
            checkpoint_id=f"{record.trial_id}/{name or 'memory'}",
            path=name and f"{store.folder.parent.name}/{paths.CHECKPOINTS}/{name}",
            epoch=manifest.epoch,
            val_metric=manifest.score,
            co_best=False,
            test_metrics=score(predict(prepared, loader, accelerator, config.train.task_weights), dataset),
        )

    if in_memory:
        model.load_state_dict(in_memory[1])
        best = [evaluated(None, in_memory[0])]
    else:
        best = [evaluated(name, manifest) for name, manifest in _load_each(store, model, identity)]
    best = [row.model_copy(update={"co_best": len(best) > 1}) for row in best]
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
        best_validation_score=best[0].val_metric,
        evaluated_checkpoints=best,
        test_metrics=best[0].test_metrics,
        data_fingerprint=fingerprint,
        data_counts=counts | {f"{split}_{name}": count for name, count in lost.items()},
        code_version=code_version(),
        seed=config.train.seed,
    )


def _load_each(store: CheckpointStore, model: MultiTaskModel, identity: Identity) -> Iterator[tuple[str, Manifest]]:
    """Load the best checkpoints into the model, one after the other: the name and manifest of each."""
    found = False
    while not found:
        best = store.best()
        if not best:
            raise NoCheckpointError(
                f"trial {identity.trial_id} has no checkpoint that verifies",
                remedy="Go on with it, `just train trial.id=...`, or train a new trial with the same configuration.",
            )
        for checkpoint in best:
            try:
                manifest = load_best(store.folder / checkpoint.name, model, identity)
            except DamagedCheckpoint as error:
                store.set_aside(checkpoint.name, str(error))
                continue
            found = True
            yield checkpoint.name, manifest


def write_report(store: CheckpointStore, report: EvaluationReport) -> None:
    """Write evaluation_report.json into the trial's folder, durably."""
    files.write_atomic(store.folder.parent / paths.REPORT, report.to_json())
