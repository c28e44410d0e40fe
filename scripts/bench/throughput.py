"""Training throughput, compared with padding to 512 and HF Trainer's group_by_length: `just bench throughput`.

All train the same model (a BERT with random weights, and both heads) on the same posts, 16 per step, with AdamW and the
same loss, each in its own process. They take turns after every step, so that all see the same machine. The others use
transformers' attention and torch's default threads, redsm5 what `just train` uses. A round is an epoch of each. The
posts are synthetic, as many and as long as ReDSM5's training posts: 65 % of 1,484, words log-normal with a mean of 295
(from 2 to 6,990, the figures of the data set) and a spread of 0.8, with 1.3 tokens per word (words and punctuation of
its public sample), cut at 512. Padded to 512, 59 % of the tokens are not padding.
"""

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import NormalDist
from typing import Any

import torch
from accelerate import Accelerator
from results import Result, arguments_of, digits, finish
from torch import Tensor, nn
from transformers import BertConfig, BertModel, Trainer, TrainerCallback, TrainingArguments
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from redsm5.config import Config, compose
from redsm5.data.batches import Batch, collate, micro_batching_of, on_device, train_loader
from redsm5.data.encode import EncodedPosts, Example
from redsm5.data.posts import SYMPTOMS, Post, Span, labels_of
from redsm5.data.tokenize import build_tokenizer
from redsm5.engine.errors import TrainingError, exit_with_message
from redsm5.engine.study.launch import launch_environment
from redsm5.engine.tables import Row
from redsm5.engine.terminal import show
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

POSTS, TRAINED, MEAN_WORDS, FEWEST, MOST, SPREAD, TOKENS_A_WORD = 1484, 0.65, 295, 2, 6990, 0.8, 1.3
PADDED, HF = "padded to 512", "HF Trainer, group_by_length"
OURS, OURS_BY_LENGTH = "redsm5", "redsm5, group_by_length"

Step = Callable[[Batch | list[Batch]], None]  # called by a contender after each step, with the step's batch


def lengths(count: int) -> list[int]:
    """The number of tokens of each post, without [CLS] and [SEP]: the quantiles of the distribution."""
    words = NormalDist(torch.tensor(MEAN_WORDS).log().item() - SPREAD**2 / 2, SPREAD)
    quantiles = [torch.tensor(words.inv_cdf((i + 0.5) / count)).exp().item() for i in range(count - 1)]
    return [round(TOKENS_A_WORD * min(max(q, FEWEST), MOST)) for q in (*quantiles, MOST)]


def invent(count: int) -> list[Post]:
    """Posts of these lengths in which every word is a token; every third shows a symptom."""
    posts = []
    for i, length in enumerate(lengths(count)):
        symptom = i % 9 if i % 3 == 0 else None
        labels = tuple(int(c == symptom) for c in range(len(SYMPTOMS)))
        evidence = (Span(symptom, 0, 3),) if symptom is not None else ()
        posts.append(
            Post(f"s_{i}", " ".join(["day", "and", "night"][w % 3] for w in range(length)), labels, evidence, ())
        )
    return posts


def config_of(folder: Path) -> Config:
    return compose(["model=bert_base", f"model.model_id={folder}", "train.epochs=1000"])


class Contenders:
    """Each way to train the encoder in `folder`, as a method that trains epoch after epoch and calls `step` after each
    step.
    """

    def __init__(self, folder: Path, posts: int) -> None:
        invented = invent(posts)
        tokenizer = build_tokenizer("tiny", invented)
        self.config = config_of(folder)
        self.posts = EncodedPosts(invented, tokenizer, self.config)
        self.pad_id: int = tokenizer.pad_token_id
        self.vocab_size = len(tokenizer)
        self.last: Batch = {}  # the last batch of HF's Trainer
        self.criteria_loss = build_criteria_loss(self.config.train, torch.from_numpy(labels_of(invented)))

    def model(self) -> MultiTaskModel:
        torch.manual_seed(0)
        return MultiTaskModel(self.config.model, vocab_size=self.vocab_size).train()

    def peers_model(self) -> MultiTaskModel:
        """The same model with transformers' own attention."""
        model = self.model()
        model.encoder.set_attn_implementation("sdpa")
        return model

    def loss_of(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        return multitask_loss(outputs, batch, self.criteria_loss, self.config.train.task_weights)

    def ours(self, step: Step, *, by_length: bool = False) -> None:
        """As scripts/train.py does."""
        accelerator = Accelerator(cpu=True)
        set_numerics(self.config.train.deterministic)
        bare, train = self.model(), self.config.train
        model, optimizer = accelerator.prepare(bare, build_optimizer(bare, train))
        schedule = build_schedule(optimizer.optimizer, train, total_steps=100_000)
        adversary = EmbeddingAdversary(bare.encoder.get_input_embeddings(), 0.0)
        size, seed, micro_batching = train.batch_size, train.seed, micro_batching_of(self.config)
        loader = on_device(
            train_loader(self.posts, size, seed, self.pad_id, by_length=by_length, micro_batching=micro_batching),
            accelerator.device,
        )
        for epoch in range(1, train.epochs):
            loader.set_epoch(epoch)
            for micro_batches in loader:
                with accelerator.accumulate(model):
                    forward_backward(accelerator, model, micro_batches, self.loss_of, adversary)
                    accelerator.clip_grad_norm_(model.parameters(), train.max_grad_norm)
                    optimizer.step()
                    optimizer.zero_grad()
                schedule.step()
                step(micro_batches)

    def padded_to_512(self, step: Step) -> None:
        """A plain loop over batches drawn at random."""
        model, train = self.peers_model(), self.config.train
        optimizer = build_optimizer(model, train)
        schedule = build_schedule(optimizer, train, total_steps=100_000)
        while True:
            order = torch.randperm(len(self.posts)).tolist()
            for at in range(0, len(order), train.batch_size):
                batch = self._to_512([self.posts[i] for i in order[at : at + train.batch_size]])
                loss = self.loss_of(model(batch), batch)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(model.parameters(), train.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
                step(batch)

    def _to_512(self, examples: list[Example]) -> Batch:
        batch = collate(examples, self.pad_id, self.posts.max_length)
        rest = self.posts.max_length - batch["input_ids_ST"].shape[1]
        return {k: nn.functional.pad(v, (0, rest)) if k.endswith("_ST") else v for k, v in batch.items()}

    def hf_trainer(self, step: Step) -> None:
        """HF's training loop and batch order; the model and the loss are the same."""
        contenders = self

        class Features(torch.utils.data.Dataset[dict[str, Any]]):
            def __len__(self) -> int:
                return len(contenders.posts)

            def __getitem__(self, index: int) -> dict[str, Any]:
                example = contenders.posts[index]
                return {"input_ids": example.item.windows[0].input_ids, "example": example}

        class WithLoss(nn.Module):
            def __init__(self, model: MultiTaskModel) -> None:
                super().__init__()
                self.model = model

            def forward(self, **batch: Tensor) -> dict[str, Tensor]:
                contenders.last = batch
                return {"loss": contenders.loss_of(self.model(batch), batch)}

        class Stepped(TrainerCallback):  # type: ignore[misc, unused-ignore]
            def on_train_begin(self, *_: Any, **__: Any) -> None:
                step([])

            def on_step_end(self, *_: Any, **__: Any) -> None:
                step(contenders.last)

        train = self.config.train
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                num_train_epochs=train.epochs,
                per_device_train_batch_size=train.batch_size,
                learning_rate=train.learning_rate,
                weight_decay=train.weight_decay,
                train_sampling_strategy="group_by_length",
                use_cpu=True,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
                remove_unused_columns=False,
                dataloader_pin_memory=False,
            )
            Trainer(
                model=WithLoss(self.peers_model()),
                args=arguments,
                train_dataset=Features(),
                data_collator=lambda features: collate(
                    [feature["example"] for feature in features], self.pad_id, self.posts.max_length
                ),
                callbacks=[Stepped()],
            ).train()


WAYS: dict[str, Callable[[Contenders, Step], None]] = {
    PADDED: Contenders.padded_to_512,
    HF: Contenders.hf_trainer,
    OURS: Contenders.ours,
    OURS_BY_LENGTH: partial(Contenders.ours, by_length=True),
}


class Turns:
    """A contender in a separate process, which does one step per request; ours is launched like a trial."""

    def __init__(self, name: str, folder: Path, posts: int) -> None:
        self._name = name
        self._ours, theirs = multiprocessing.Pipe()
        processes = multiprocessing.get_context("spawn")
        own = launch_environment(config_of(folder), 1) if name in (OURS, OURS_BY_LENGTH) else {}
        before = dict(os.environ)
        os.environ.update(own)
        processes.Process(target=_contend, args=(theirs, name, folder, posts), daemon=True).start()
        os.environ.clear()
        os.environ.update(before)
        theirs.close()

    def step(self) -> dict[str, float]:
        """One step: wall-clock and CPU seconds, posts, tokens, and tokens with padding.

        Raises:
            TrainingError: the contender's process has ended, and printed the reason.
        """
        try:
            self._ours.send(None)
            figures: dict[str, float] = self._ours.recv()
        except (EOFError, OSError) as error:
            raise TrainingError(f"{self._name} has ended", remedy="See above what it printed.") from error
        return figures


def _contend(turns: Connection, name: str, folder: Path, posts: int) -> None:
    """A contender's process: one step per message."""
    disable_progress_bar()  # type: ignore[no-untyped-call]
    set_verbosity_error()  # type: ignore[no-untyped-call]
    contenders = Contenders(folder, posts)
    turns.recv()
    clock, cpu = time.perf_counter(), time.process_time()

    def step(trained_on: Batch | list[Batch]) -> None:
        nonlocal clock, cpu
        took = {"seconds": time.perf_counter() - clock, "cpu_seconds": time.process_time() - cpu}
        micro_batches = trained_on if isinstance(trained_on, list) else [trained_on]
        masks = [micro_batch["attention_mask_ST"] for micro_batch in micro_batches]
        took["posts"] = sum(len(micro_batch["index_N"]) for micro_batch in micro_batches)
        took["tokens"] = sum(int(mask.sum()) for mask in masks)
        took["padded"] = sum(mask.numel() for mask in masks)
        turns.send(took)
        turns.recv()
        clock, cpu = time.perf_counter(), time.process_time()

    with suppress(EOFError):  # no more steps are requested
        WAYS[name](contenders, step)


def rounds(ways: dict[str, Turns], posts: int, batch_size: int, count: int) -> Iterator[dict[str, dict[str, float]]]:
    """The sums over one epoch for each way, round after round; the ways alternate step by step."""
    for _ in range(count):
        sums: dict[str, dict[str, float]] = {name: {} for name in ways}
        for _ in range(-(-posts // batch_size)):
            for name, turns in ways.items():
                for figure, value in turns.step().items():
                    sums[name][figure] = sums[name].get(figure, 0) + value
        assert all(of_one["posts"] == posts for of_one in sums.values())
        yield sums


def main() -> int:
    parser = arguments_of("throughput", __doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--posts", type=int, default=round(TRAINED * POSTS))
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=128, help="of the model; a multiple of 32")
    arguments = parser.parse_args()
    disable_progress_bar()  # type: ignore[no-untyped-call]
    set_verbosity_error()  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bert = BertConfig(
            vocab_size=len(build_tokenizer("tiny", invent(arguments.posts))),
            hidden_size=arguments.width,
            num_hidden_layers=arguments.layers,
            num_attention_heads=arguments.width // 32,
            intermediate_size=4 * arguments.width,
        )
        BertModel(bert, add_pooling_layer=False).save_pretrained(folder)
        ways = {name: Turns(name, folder, arguments.posts) for name in WAYS}
        ways[HF].step()  # its work before the first step does not count
        for turns in ways.values():
            turns.step()
        batch_size, found = config_of(folder).train.batch_size, []
        for sums in rounds(ways, arguments.posts, batch_size, arguments.rounds):
            found.append(sums)
            show(f"round {len(found)} of {arguments.rounds}", error=True)
    size = f"{arguments.layers} layers, {arguments.width} wide, {arguments.posts} posts an epoch"
    return finish(result_of(found, size), arguments.json)


def result_of(found: list[dict[str, dict[str, float]]], size: str) -> Result:
    """Medians over the rounds; ratios are taken within a round."""

    def slower(name: str, figure: str) -> float:
        return statistics.median(sums[name][figure] / sums[OURS][figure] for sums in found)

    rows: list[Row] = [
        {
            "": name,
            "posts/s": digits(statistics.median(sums[name]["posts"] / sums[name]["seconds"] for sums in found)),
            "useful tokens, %": digits(
                100 * statistics.median(sums[name]["tokens"] / sums[name]["padded"] for sums in found)
            ),
            "time, times redsm5": digits(slower(name, "seconds")),
            "CPU time, times redsm5": digits(slower(name, "cpu_seconds")),
        }
        for name in found[0]
    ]
    times_ours = {"training, an epoch": {name: slower(name, "seconds") for name in (PADDED, HF)}}
    return Result(f"Training on posts as long as ReDSM5's ({size})", rows, times_ours, found)


if __name__ == "__main__":  # a contender's process imports this file, too
    exit_with_message(main)
