"""Train one trial whose folder exists: accelerate launch scripts/train.py trial.id=UUID experiments=DIR.

`just train` and `just hpo` create the folder and launch this script. It trains until trial.json has an outcome; run
again, it resumes, or does nothing if the trial is finished. Several processes can train one trial together: each takes
its share of every batch, and the first one decides, writes and reports.
"""

import sys

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, skip_first_batches
from torch import Tensor

from redsm5 import hub
from redsm5.data import load_splits
from redsm5.data.augment import Augmenter
from redsm5.data.batches import loaders, on_device, useful_tokens
from redsm5.data.encode import EncodedPosts
from redsm5.data.posts import labels_of
from redsm5.data.tokenize import tokenizer_of
from redsm5.errors import Interrupted, RedSM5Error, show_error
from redsm5.evaluation.predict import predict
from redsm5.evaluation.report import evaluate_trial, write_report
from redsm5.evaluation.thresholds import default_thresholds, score, validation_metrics
from redsm5.files import make_private
from redsm5.model import (
    EmbeddingAdversary,
    MultiTaskModel,
    build_criteria_loss,
    build_optimizer,
    build_schedule,
    compile_layers,
    forward_backward,
    multitask_loss,
    set_numerics,
    slow_in_bf16,
    steps_per_epoch,
)
from redsm5.ranks import Ranks
from redsm5.storage.checkpoint import Identity, Saver, TrainingState, resume, save, seed_everything
from redsm5.study.signals import die_with_parent, wait_while_driver_is_stopped
from redsm5.study.trial import TrialRun, open_store, trial_config
from redsm5.surroundings import prepare
from redsm5.tracking.journal import Journal, StepLosses
from redsm5.tracking.progress import epoch_progress
from redsm5.tracking.system import SystemMetrics, meter

DRY_RUN_STEPS = 5

prepare()
make_private()
die_with_parent()
try:
    config = trial_config(sys.argv[1:])
    trial = TrialRun.open(config)
except RedSM5Error as error:
    show_error(error)
    sys.exit(1)
if trial.done:
    sys.exit(0)

with trial.outcome(), Saver() as saver:
    # -----------------------------------------------------------------------------------------------------------------
    # data, model, optimizer

    accelerator = Accelerator(
        gradient_accumulation_steps=config.train.accumulation_steps,
        mixed_precision=config.train.mixed_precision,
        cpu=config.on_cpu,
        # There are none, but with this gradients are added up in one order from the first step on, resumed or not.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    trial.peers = ranks = Ranks()
    set_numerics(config.train.deterministic)
    if slow_in_bf16(accelerator.device, config.train.mixed_precision):
        trial.log.warning("this CPU emulates bf16: train.mixed_precision=no is far faster")
    seed_everything((config.train.seed + ranks.index) % 2**32)  # dropout differs; all begin with the first's weights

    splits = load_splits(config.data)  # training and validation posts; the test posts are for the report alone
    if config.dry_run:
        splits = splits.head(DRY_RUN_STEPS * config.train.batch_size * config.train.accumulation_steps)
    tokenizer = tokenizer_of(config, splits.train)
    train_set = EncodedPosts(splits.train, tokenizer, config)
    validation_set = EncodedPosts(splits.validation, tokenizer, config)
    for name, commit in hub.commits(config.data, config.model).items():
        trial.log.info(name, commit=commit)
    trial.log.info("data", **splits.counts, truncated=train_set.truncated_posts, lost_evidence=train_set.lost_spans)

    model = MultiTaskModel(config.model, vocab_size=len(tokenizer))
    if config.train.compile:
        compile_layers(model.encoder)
    criteria_loss = build_criteria_loss(config.train, torch.from_numpy(labels_of(splits.train))).to(accelerator.device)
    adversary = EmbeddingAdversary(model.encoder.get_input_embeddings(), config.train.adversarial_epsilon)
    augmenter = Augmenter(config.train.augmentation, config.train.seed, accelerator.device)

    def loss_of(outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
        return multitask_loss(outputs, batch, criteria_loss, config.train.task_weights)

    train_batches, validation_batches = (
        on_device(loader, accelerator.device)
        for loader in loaders(train_set, validation_set, config, tokenizer.pad_token_id, ranks.share)
    )
    model, optimizer = accelerator.prepare(model, build_optimizer(model, config.train))
    epoch_steps = steps_per_epoch(len(train_batches), config.train)
    schedule = build_schedule(optimizer.optimizer, config.train, total_steps=epoch_steps * config.train.epochs)

    # -----------------------------------------------------------------------------------------------------------------
    # resume: everything that the next step depends on, or nothing at all

    journal = Journal(trial.folder, trial.record.trial_id, log=trial.log.error, writes=ranks.first)
    store = open_store(trial.folder, config, log=trial.log.info, writes=ranks.first)
    bare_model = accelerator.unwrap_model(model)
    state = TrainingState(bare_model, optimizer.optimizer, schedule, accelerator.scaler, ranks=ranks)
    identity = Identity.of(config, bare_model, splits.fingerprint)
    budget = trial.admit(store, full=state.full_bytes(), weights=state.weight_bytes())
    at = resume(store, state, identity, log=trial.log.warning)
    system = SystemMetrics(journal, meter(accelerator.device))

    # -----------------------------------------------------------------------------------------------------------------
    # train

    trial.update(state="running", epoch=at.epochs_done, step=at.step, best=at.best)
    while at.epochs_done < config.train.epochs and at.stop_reason is None:
        epoch = at.epochs_done + 1
        if config.train.augmentation.methods:
            train_set.encode(augmenter(splits.train, epoch))
        train_batches.set_epoch(epoch)
        model.train()
        losses = StepLosses(journal, epochs_done=at.epochs_done)
        with epoch_progress(epoch, config.train.epochs, len(train_batches), at.batches_done, shown=ranks.first) as bar:
            for micro_batches in skip_first_batches(train_batches, at.batches_done):
                with accelerator.accumulate(model):
                    loss = forward_backward(accelerator, model, micro_batches, loss_of, adversary)
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(model.parameters(), config.train.max_grad_norm)
                    optimizer.step()
                    optimizer.zero_grad()
                losses.add(ranks.mean(loss))
                at.batches_done += 1
                bar.advance()
                if accelerator.sync_gradients:  # the only place to stop: no gradient is half summed
                    at.step += 1
                    trial.stepped = True
                    losses.end_of_step(at.step)
                    system.end_of_step(at.step, at.epochs_done)
                    saver.check()  # a save that failed fails the trial here
                    wait_while_driver_is_stopped(trial.stop, trial.log.info)
                    if not accelerator.optimizer_step_was_skipped:  # fp16 skips a step whose gradients overflowed
                        schedule.step()
                    stop, every = ranks.any(trial.stop.requested), config.train.checkpoint_every_steps
                    if at.batches_done < len(train_batches) and (stop or (every and at.step % every == 0)):
                        losses.commit()
                        with system.saving():
                            save(store, saver, state, identity, score=None, metrics={})
                        if stop:
                            saver.wait()
                            trial.update(step=at.step, bytes=store.size())
                            raise Interrupted(f"stopped at step {at.step}, in epoch {epoch}")

        losses.commit()
        predictions = predict(bare_model, validation_batches, validation_set, loss_of, ranks)
        scores = score(predictions, splits.validation, default_thresholds(config.model.evidence_head_type))
        metrics = ranks.of_first({"val_loss": predictions.loss} | validation_metrics(scores))
        useful = {"system_useful_tokens_percent": 100 * useful_tokens(train_batches)}
        for name, value in (metrics | useful).items():
            journal.add(name, value, step=at.step, epoch=epoch)
        journal.commit()  # on disk before the checkpoint that they belong to

        objective = metrics[config.study.metric]
        due = epoch % config.retention.min_interval_epochs == 0 or epoch == config.train.epochs
        at.epochs_done, at.batches_done = epoch, 0
        at.observe(objective, patience=config.train.patience)
        if config.study.pruner != "none" and trial.record.study_id:
            decision = ranks.of_first(trial.decision(epoch))
            if decision.prune:
                at.stop_reason = f"pruned: {decision.reason}"
        if due or at.stop_reason:  # the last epoch is saved in any case
            at.note_saved(objective, epoch=epoch)
            with system.saving():
                save(store, saver, state, identity, score=objective, metrics=metrics)
        system.end_of_epoch(at.step, at.epochs_done)
        trial.update(epoch=epoch, step=at.step, best=at.best, bytes=store.size())
        trial.log.info(
            f"epoch {epoch} of {config.train.epochs}",
            step=at.step,
            train_loss=round(losses.last, 4),
            val_loss=round(predictions.loss, 4),
            **{config.study.metric: round(objective, 4)},
        )

    # -----------------------------------------------------------------------------------------------------------------
    # the trial ends with its report: durable first, then the training state goes and the best weights stay

    saver.wait()
    journal.commit()  # the last epoch's system metrics
    ranks.part()
    if not ranks.first:
        sys.exit(0)
    if at.stop_reason:
        trial.log.info(f"training ends after epoch {at.epochs_done}", reason=at.stop_reason)
    pruned = (at.stop_reason or "").startswith("pruned")
    if not pruned and not config.dry_run:
        trial.update(state="finishing")
        best = state.best_in_memory
        write_report(
            trial.folder,
            evaluate_trial(trial.record, config, splits, bare_model, tokenizer, store, accelerator, in_memory=best),
        )
    trial.end("pruned" if pruned else "completed", 0)
    store.finish()
    if budget:
        budget.release()
    trial.update(bytes=store.size())
