"""The other searches of `just bench live`: Ray Tune and HF Trainer, on this model, these posts and this search space.

`peers.py ray|trainer FOLDER TRIALS SEED KEY=VALUE ...` runs one of them, with its results in FOLDER, and prints what it
`Found` as JSON. Both use this repository's data, model, losses, optimizer and schedule: `plain_loop` is
redsm5/train.py without the session, and has the same scores.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import optuna
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import Trainer, TrainingArguments

from redsm5.config import Config, compose
from redsm5.data import load_splits
from redsm5.data.batches import loaders, on_device
from redsm5.data.encode import EncodedPosts
from redsm5.data.posts import labels_of
from redsm5.data.tokenize import tokenizer_of
from redsm5.engine.batches import set_order
from redsm5.engine.sections import CategoricalParameter
from redsm5.engine.storage.checkpoint import seed_everything
from redsm5.engine.study.space import configured
from redsm5.engine.terminal import show
from redsm5.evaluation.predict import predict
from redsm5.evaluation.thresholds import default_thresholds, score, validation_metrics
from redsm5.model import (
    EmbeddingAdversary,
    MultiTaskModel,
    build_criteria_loss,
    build_optimizer,
    build_schedule,
    forward_backward,
    multitask_loss,
    set_numerics,
)

METRIC = "val_f1_macro"
CONCURRENT = 2
REDUCTION_FACTOR = 3


@dataclass(frozen=True)
class Tried:
    """A configuration of a search, and its scores after each epoch that it was trained."""

    parameters: dict[str, Any]
    scores: list[float]


@dataclass(frozen=True)
class Found:
    """What a search did and named.

    Attributes:
        parameters, reported: the winner, and its score as the tool reports it.
        tried: every configuration.
    """

    parameters: dict[str, Any]
    reported: float
    tried: list[Tried]

    @property
    def epochs(self) -> int:
        """Trained in all."""
        return sum(len(trial.scores) for trial in self.tried)

    def completed(self, epochs: int) -> int:
        """How many configurations were trained for all their epochs."""
        return sum(len(trial.scores) == epochs for trial in self.tried)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Found":
        return cls(values["parameters"], values["reported"], [Tried(**trial) for trial in values["tried"]])


# ---------------------------------------------------------------------------------------------------------------------
# what both train


class Parts:
    """Data and model of a configuration, in the order in which redsm5/train.py makes them."""

    def __init__(self, config: Config, device: torch.device) -> None:
        self.config = config
        set_numerics(config.train.deterministic)
        seed_everything(config.train.seed)
        self._splits = load_splits(config.data)
        tokenizer = tokenizer_of(config, self._splits.train)
        train_set = EncodedPosts(self._splits.train, tokenizer, config)
        self._validation_set = EncodedPosts(self._splits.validation, tokenizer, config)
        self.model = MultiTaskModel(config.model, vocab_size=len(tokenizer)).to(device)
        self._criteria_loss = build_criteria_loss(config.train, torch.from_numpy(labels_of(self._splits.train)))
        self._criteria_loss.to(device)
        embeddings = self.model.encoder.get_input_embeddings()
        self.adversary = EmbeddingAdversary(embeddings, config.train.adversarial_epsilon)
        train, validation = loaders(train_set, self._validation_set, config, tokenizer.pad_token_id, (0, 1))
        self.train_batches, self._validation_batches = on_device(train, device), on_device(validation, device)

    @property
    def steps(self) -> int:
        """Optimizer steps in an epoch."""
        return len(self.train_batches)

    def loss_of(self, outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
        return multitask_loss(outputs, batch, self._criteria_loss, self.config.train.task_weights)

    def optimizer(self) -> Optimizer:
        return build_optimizer(self.model, self.config.train)

    def schedule(self, optimizer: Optimizer) -> Any:
        return build_schedule(optimizer, self.config.train, total_steps=self.steps * self.config.train.epochs)

    def score(self) -> float:
        """The score on the validation posts."""
        predictions = predict(self.model, self._validation_batches, self._validation_set, self.loss_of)
        thresholds = default_thresholds(self.config.model.evidence_head_type)
        return validation_metrics(score(predictions, self._splits.validation, thresholds))[METRIC]


def plain_loop(config: Config, report: Callable[[float], object]) -> None:
    """Train a configuration, and report the score after each epoch."""
    accelerator = Accelerator(cpu=True)
    parts = Parts(config, accelerator.device)
    model, optimizer = accelerator.prepare(parts.model, parts.optimizer())
    schedule = parts.schedule(optimizer.optimizer)
    for epoch in range(1, config.train.epochs + 1):
        set_order(parts.train_batches, config.train.seed, epoch)
        model.train()
        for micro_batches in parts.train_batches:
            forward_backward(accelerator, model, micro_batches, parts.loss_of, parts.adversary)
            accelerator.clip_grad_norm_(model.parameters(), config.train.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        report(parts.score())


def suggest(trial: Any, config: Config) -> dict[str, Any]:
    """Draw the parameters of the search space from an Optuna trial; once drawn, they stay."""
    drawn = {}
    for name, parameter in config.search.space.items():
        if isinstance(parameter, CategoricalParameter):
            drawn[name] = trial.suggest_categorical(name, parameter.choices)
        else:
            drawn[name] = trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log)
    return drawn


# ---------------------------------------------------------------------------------------------------------------------
# Ray Tune


def ray_tune(folder: Path, trials: int, seed: int, words: Sequence[str]) -> Found:
    """Ray's ASHA with TPE: a trial that is not among the best third at a rung is stopped for good."""
    ray, tune = import_module("ray"), import_module("ray.tune")
    schedulers, search = import_module("ray.tune.schedulers"), import_module("ray.tune.search.optuna")
    config = compose(list(words))

    def trainable(parameters: dict[str, Any]) -> None:
        own = configured(compose(list(words)), parameters)
        plain_loop(own, lambda value: tune.report({METRIC: value}))

    ray.init(num_cpus=CONCURRENT, include_dashboard=False, log_to_driver=False)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            num_samples=trials,
            max_concurrent_trials=CONCURRENT,
            reuse_actors=True,  # else each trial imports torch again, in a process of its own
            search_alg=search.OptunaSearch(partial(suggest, config=config), metric=METRIC, mode="max", seed=seed),
            scheduler=schedulers.ASHAScheduler(
                max_t=config.train.epochs, grace_period=1, reduction_factor=REDUCTION_FACTOR
            ),
        ),
        run_config=tune.RunConfig(name="live", storage_path=str(folder.absolute()), verbose=0),
    )
    results = tuner.fit()
    if results.num_errors:
        raise results.errors[0]
    best = results.get_best_result()
    tried = [Tried(result.config, result.metrics_dataframe[METRIC].tolist()) for result in results]
    return Found(best.config, best.metrics[METRIC], tried)


# ---------------------------------------------------------------------------------------------------------------------
# HF Trainer


class OurTrainer(Trainer):
    """A Trainer whose model, batches, loss, optimizer, schedule and score are `Parts` of each trial's configuration."""

    def __init__(self, config: Config, args: TrainingArguments) -> None:
        self._config = config
        self.tried: list[Tried] = []
        super().__init__(args=args, model_init=self._make, train_dataset=[0], eval_dataset=[0])  # type: ignore[arg-type]

    def _make(self, trial: Any = None) -> nn.Module:
        parameters = suggest(trial, self._config) if trial else {}
        if trial:
            self.tried.append(Tried(parameters, []))
        self.parts = Parts(configured(self._config, parameters) if trial else self._config, self.args.device)
        return self.parts.model

    def get_train_dataloader(self) -> Any:
        return self.parts.train_batches

    def create_optimizer(self, model: Any = None) -> Any:
        self.optimizer = self.parts.optimizer()
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        prepared: Any = self.optimizer
        self.lr_scheduler = self.parts.schedule(getattr(prepared, "optimizer", prepared))
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        model.train()
        return forward_backward(self.accelerator, model, inputs, self.parts.loss_of, self.parts.adversary)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        self.tried[-1].scores.append(self.parts.score())
        return {METRIC: self.tried[-1].scores[-1]}


def hf_trainer(folder: Path, trials: int, seed: int, words: Sequence[str]) -> Found:
    """Trainer's search with Optuna's TPE and Hyperband: one trial after the other, a pruned one stopped for good."""
    config = compose(list(words))
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=config.train.epochs,
        per_device_train_batch_size=config.train.batch_size,
        max_grad_norm=config.train.max_grad_norm,
        seed=config.train.seed,
        eval_strategy="epoch",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = OurTrainer(config, arguments)
    steps = trainer.parts.steps  # Trainer reports its scores to Optuna by step
    pruner = optuna.pruners.HyperbandPruner(
        min_resource=steps, max_resource=steps * config.train.epochs, reduction_factor=REDUCTION_FACTOR
    )
    best: Any = trainer.hyperparameter_search(
        hp_space=lambda _: {},  # OurTrainer draws, since its parameters are not among Trainer's arguments
        compute_objective=lambda metrics: metrics[METRIC],
        n_trials=trials,
        direction="maximize",
        backend="optuna",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=pruner,
        study_name="live",  # Optuna's Hyperband draws brackets by it
    )
    return Found(best.hyperparameters, best.objective, trainer.tried)


PEERS = {"ray": ray_tune, "trainer": hf_trainer}

if __name__ == "__main__":
    name, root, count, number, *keys = sys.argv[1:]
    show(json.dumps(asdict(PEERS[name](Path(root), int(count), int(number), keys))))
