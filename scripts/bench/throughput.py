"""Posts a second in training, beside padding to 512 tokens and HF Trainer's group_by_length: `just bench throughput`.

All train the same model (a BERT with random weights, and both heads) on the same posts, 16 a step, with AdamW and the
same loss; each step of one is followed by a step of the next, in one process, so that all see the same machine. A round
is an epoch of each. The posts are invented, as many and as long as those of ReDSM5 that one trains on: 65 % of 1,484,
words log-normal with a mean of 295 (from 2 to 6,990, the figures of the data set) and a spread of 0.8, with 1.3 tokens
a word (words and punctuation of its public sample), cut at 512. Of that, 59 % is useful when all are padded to 512.
"""

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import NormalDist
from typing import Any

import torch
from accelerate import Accelerator
from results import Result, arguments_of, digits, finish
from torch import Tensor, nn
from transformers import BertConfig, BertModel, Trainer, TrainerCallback, TrainingArguments
from transformers.utils.logging import disable_progress_bar

from redsm5.config import Config, compose
from redsm5.data.batches import UNDIVIDED, Batch, Parting, collate, on_device, parting_of, train_loader
from redsm5.data.encode import EncodedPosts, Example
from redsm5.data.posts import SYMPTOMS, Post, Span, labels_of
from redsm5.data.tokenize import build_tokenizer
from redsm5.errors import exit_with_message
from redsm5.model import (
    EmbeddingAdversary,
    MultiTaskModel,
    build_criteria_loss,
    build_optimizer,
    build_schedule,
    forward_backward,
    multitask_loss,
)
from redsm5.tables import Row

POSTS, TRAINED, MEAN_WORDS, FEWEST, MOST, SPREAD, TOKENS_A_WORD = 1484, 0.65, 295, 2, 6990, 0.8, 1.3
PADDED, HF, OURS = "padded to 512", "HF Trainer, group_by_length", "redsm5"

Step = Callable[[Batch | list[Batch]], None]  # what a contender calls after each step, with what it was done on


def lengths(count: int) -> list[int]:
    """Tokens of each post, [CLS] and [SEP] not counted: the quantiles of the distribution."""
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


class Contenders:
    """Each way to train, as a function that calls `step` after each of its steps, epoch after epoch."""

    def __init__(self, folder: Path, layers: int, width: int, posts: int) -> None:
        invented = invent(posts)
        tokenizer = build_tokenizer("tiny", invented)
        bert = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=width // 32,
            intermediate_size=4 * width,
        )
        BertModel(bert, add_pooling_layer=False).save_pretrained(folder)
        self.config: Config = compose(["model=bert_base", f"model.model_id={folder}", "train.epochs=1000"])
        self.posts = EncodedPosts(invented, tokenizer, self.config)
        self.pad_id: int = tokenizer.pad_token_id
        self.vocab_size = len(tokenizer)
        self.last: Batch = {}  # what HF's Trainer trained on last
        self.criteria_loss = build_criteria_loss(self.config.train, torch.from_numpy(labels_of(invented)))

    def model(self) -> MultiTaskModel:
        torch.manual_seed(0)
        return MultiTaskModel(self.config.model, vocab_size=self.vocab_size).train()

    def loss_of(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        return multitask_loss(outputs, batch, self.criteria_loss, self.config.train.task_weights)

    def ours(self, *, by_length: bool = False, parting: Parting) -> Callable[[Step], None]:
        """As scripts/train.py does."""

        def train(step: Step) -> None:
            accelerator = Accelerator(cpu=True)
            bare, train = self.model(), self.config.train
            model, optimizer = accelerator.prepare(bare, build_optimizer(bare, train))
            schedule = build_schedule(optimizer.optimizer, train, total_steps=100_000)
            adversary = EmbeddingAdversary(bare.encoder.get_input_embeddings(), 0.0)
            size, seed = train.batch_size, train.seed
            loader = on_device(
                train_loader(self.posts, size, seed, self.pad_id, by_length=by_length, parting=parting),
                accelerator.device,
            )
            for epoch in range(1, train.epochs):
                loader.set_epoch(epoch)
                for parts in loader:
                    with accelerator.accumulate(model):
                        forward_backward(accelerator, model, parts, self.loss_of, adversary)
                        accelerator.clip_grad_norm_(model.parameters(), train.max_grad_norm)
                        optimizer.step()
                        optimizer.zero_grad()
                    schedule.step()
                    step(parts)

        return train

    def padded_to_512(self, step: Step) -> None:
        """A plain loop over batches drawn at random."""
        model, train = self.model(), self.config.train
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
        """HF's loop and its order; the model and the loss are the same."""
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
                model=WithLoss(self.model()),
                args=arguments,
                train_dataset=Features(),
                data_collator=lambda features: collate(
                    [feature["example"] for feature in features], self.pad_id, self.posts.max_length
                ),
                callbacks=[Stepped()],
            ).train()


class Turns:
    """A contender in a thread of its own that goes one step at a time, when told to."""

    def __init__(self, train: Callable[[Step], None]) -> None:
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._parts: list[Batch] = []
        self._fault: BaseException | None = None
        self._train = train
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        self._go.acquire()
        try:
            self._train(self._stepped)
        except BaseException as error:
            self._fault = error
        self._done.release()

    def _stepped(self, trained_on: Batch | list[Batch]) -> None:
        self._parts = trained_on if isinstance(trained_on, list) else [trained_on]
        self._done.release()
        self._go.acquire()

    def step(self) -> dict[str, float]:
        """One step: seconds by the clock and of the processor, posts, tokens, and tokens with padding."""
        clock, processor = time.perf_counter(), time.process_time()
        self._go.release()
        self._done.acquire()
        clock, processor = time.perf_counter() - clock, time.process_time() - processor
        if self._fault:
            raise self._fault
        masks = [part["attention_mask_ST"] for part in self._parts]
        return {
            "seconds": clock,
            "processor_seconds": processor,
            "posts": sum(len(part["index_N"]) for part in self._parts),
            "tokens": sum(int(mask.sum()) for mask in masks),
            "padded": sum(mask.numel() for mask in masks),
        }


def rounds(ways: dict[str, Turns], posts: int, batch_size: int, count: int) -> Iterator[dict[str, dict[str, float]]]:
    """What an epoch of each came to, round after round; the ways take turns, step by step."""
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
    with tempfile.TemporaryDirectory() as folder:
        contenders = Contenders(Path(folder), arguments.layers, arguments.width, arguments.posts)
        ways = {
            PADDED: Turns(contenders.padded_to_512),
            HF: Turns(contenders.hf_trainer),
            OURS: Turns(contenders.ours(parting=parting_of(contenders.config))),
            f"{OURS}, group_by_length": Turns(contenders.ours(by_length=True, parting=UNDIVIDED)),
        }
        ways[HF].step()  # what it does before its first step does not count
        for turns in ways.values():
            turns.step()
        batch_size, found = contenders.config.train.batch_size, []
        for sums in rounds(ways, arguments.posts, batch_size, arguments.rounds):
            found.append(sums)
            print(f"round {len(found)} of {arguments.rounds}", file=sys.stderr)
    size = f"{arguments.layers} layers, {arguments.width} wide, {arguments.posts} posts an epoch"
    return finish(result_of(found, size), arguments.json)


def result_of(found: list[dict[str, dict[str, float]]], size: str) -> Result:
    """Medians over the rounds; the ratios are of the same round."""

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
            "processor time, times redsm5": digits(slower(name, "processor_seconds")),
        }
        for name in found[0]
    ]
    times_ours = {"training, an epoch": {name: slower(name, "seconds") for name in (PADDED, HF)}}
    return Result(f"Training on posts as long as ReDSM5's ({size})", rows, times_ours, found)


exit_with_message(main)
