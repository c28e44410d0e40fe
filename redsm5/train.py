"""How a trial on ReDSM5 is trained: data, model, optimizer, the loop, and the report.

It is plain Accelerate. What makes it resume to the bit, keep within the byte budget and lose no metric is the session's
(redsm5/engine/session.py). Several processes train one trial together, each with its share of every batch.
"""

from collections.abc import Callable, Mapping

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor

from redsm5 import hub
from redsm5.config import Config
from redsm5.data import load_splits
from redsm5.data.augment import Augmenter
from redsm5.data.batches import loaders, on_device, useful_tokens
from redsm5.data.encode import EncodedPosts
from redsm5.data.posts import labels_of
from redsm5.data.tokenize import tokenizer_of
from redsm5.engine.session import Session
from redsm5.engine.storage.checkpoint import seed_everything
from redsm5.evaluation.folds import FoldScores
from redsm5.evaluation.predict import predict
from redsm5.evaluation.report import evaluate_trial, write_report
from redsm5.evaluation.thresholds import default_thresholds, report_metrics, validation_metrics
from redsm5.model import (
    EmbeddingAdversary,
    MultiTaskModel,
    build_criteria_loss,
    build_optimizer,
    build_schedule,
    compile_layers,
    forward_backward,
    group_factor,
    identity_of,
    multitask_loss,
    set_numerics,
    slow_in_bf16,
    steps_per_epoch,
)

DRY_RUN_STEPS = 5
SPEC = Config


def main(session: Session) -> None:
    """Train a trial of any configuration to its end."""
    config = session.config
    accelerator = Accelerator(
        gradient_accumulation_steps=config.train.accumulation_steps,
        mixed_precision=config.train.mixed_precision,
        cpu=config.on_cpu,
        # There are no unused parameters, but with this option gradients are reduced in the same order from the first
        # step on, also after a resume.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    set_numerics(config.train.deterministic)
    if slow_in_bf16(accelerator.device, config.train.mixed_precision):
        session.log.warning("this CPU emulates bf16: train.mixed_precision=no is far faster")
    for fold in session.folds():  # one, unless data.folds is set
        report = train(session, accelerator, fold)
    session.finish(report)


def train(session: Session, accelerator: Accelerator, fold: int) -> Callable[[], Mapping[str, float]]:
    """Train a fold's model on the posts of the other folds; what is returned writes the trial's report with it, and
    returns its test metrics."""
    # -----------------------------------------------------------------------------------------------------------------
    # data, model, optimizer

    config, log, group = session.config, session.log, session.group
    if fold:
        accelerator.free_memory()  # of the fold before
    # Dropout differs between processes and folds; all processes start with the first one's weights.
    seed_everything((config.train.seed + fold * group.world_size + group.rank) % 2**32)

    splits = load_splits(config.data, fold)  # training and validation posts; only the report uses test posts
    scores = FoldScores([*splits.train, *splits.validation], config.folds)
    if config.dry_run:
        splits = splits.head(DRY_RUN_STEPS * config.train.batch_size * config.train.accumulation_steps)
    tokenizer = tokenizer_of(config, splits.train)
    train_set = EncodedPosts(splits.train, tokenizer, config)
    validation_set = EncodedPosts(splits.validation, tokenizer, config)
    for name, commit in hub.commits(config.data, config.model).items():
        log.info(name, commit=commit)
    log.info("data", **splits.counts, truncated=train_set.truncated_posts, lost_evidence=train_set.lost_spans)

    bare_model = MultiTaskModel(config.model, vocab_size=len(tokenizer))
    if config.train.compile:
        compile_layers(bare_model.encoder)
    criteria_loss = build_criteria_loss(config.train, torch.from_numpy(labels_of(splits.train))).to(accelerator.device)
    adversary = EmbeddingAdversary(bare_model.encoder.get_input_embeddings(), config.train.adversarial_epsilon)
    augmenter = Augmenter(config.train.augmentation, config.train.seed, accelerator.device)

    def loss_of(outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
        return multitask_loss(outputs, batch, criteria_loss, config.train.task_weights)

    train_batches, validation_batches = (
        on_device(loader, accelerator.device)
        for loader in loaders(train_set, validation_set, config, tokenizer.pad_token_id, group.share)
    )
    model, optimizer = accelerator.prepare(bare_model, build_optimizer(bare_model, config.train))
    epoch_steps = steps_per_epoch(len(train_batches), config.train)
    schedule = build_schedule(optimizer.optimizer, config.train, total_steps=epoch_steps * config.train.epochs)

    # -----------------------------------------------------------------------------------------------------------------
    # train: `track` restores everything on which the next step depends, and `batches` skips the batches already done

    thresholds = default_thresholds(config.model.evidence_head_type)
    kept = scores.tensors if config.folds > 1 else None
    pretrained = None if config.model.model_id == "tiny" else "encoder"
    identity = identity_of(config, bare_model, splits.fingerprint)
    session.track(
        bare_model, optimizer.optimizer, schedule, identity, scaler=accelerator.scaler, kept=kept, pretrained=pretrained
    )
    for epoch in session.epochs():
        if config.train.augmentation.methods:
            train_set.encode(augmenter(splits.train, epoch))
        model.train()
        for micro_batches in session.batches(train_batches):
            with accelerator.accumulate(model):
                factor = group_factor(session.progress.batches_done, len(train_batches), config.train)
                loss = forward_backward(accelerator, model, micro_batches, loss_of, adversary, factor)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), config.train.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
            session.step(loss, stepped=accelerator.sync_gradients, skipped=accelerator.optimizer_step_was_skipped)

        predictions = predict(bare_model, validation_batches, validation_set, loss_of, group)
        scores.put(fold, predictions, splits.validation, thresholds)
        metrics = {"val_loss": scores.loss(fold)} | validation_metrics(scores.metrics(fold, thresholds))
        useful = {"system_useful_tokens_percent": 100 * useful_tokens(train_batches)}
        session.report(metrics, also=useful)

    # -----------------------------------------------------------------------------------------------------------------
    # the report, of the best epoch, on the test posts

    def report() -> dict[str, float]:
        best = session.best_in_memory
        record, store = session.trial.record, session.store
        evaluation = evaluate_trial(record, config, splits, bare_model, tokenizer, store, accelerator, in_memory=best)
        write_report(session.trial.folder, evaluation)
        return report_metrics(evaluation.report.test_metrics)

    return report
