"""Predictions for new posts, beside transformers' pipeline with the same weights: `just bench predict`.

Both run the sample model (`minilm`) with one linear layer over [CLS] on the same invented posts, as long as ReDSM5's,
cut at 512 tokens, in batches of equal size, in one process with the same threads, in turns. redsm5 also finds the
evidence of each symptom, which the pipeline does not. The pipeline pads each batch to its longest post; `sorted` gets
the posts by length, which a person would have to do, and to undo. Probabilities must agree to 1e-5.
"""

import csv
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from results import Result, arguments_of, digits, finish
from torch import Tensor, nn
from transformers import BertForSequenceClassification, pipeline
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from redsm5 import sample_model
from redsm5.config import Config, compose
from redsm5.data import SYMPTOMS
from redsm5.data.read import POSTS_FILE
from redsm5.data.synthesize import write_csvs
from redsm5.data.tokenize import tokenizer_of
from redsm5.engine.errors import TrainingError, exit_with_message
from redsm5.engine.storage.checkpoint import seed_everything
from redsm5.engine.tables import Row
from redsm5.evaluation.stored import Stored
from redsm5.evaluation.thresholds import default_thresholds
from redsm5.evaluation.trained import Model
from redsm5.model import MultiTaskModel

OURS, PIPELINE, SORTED = "redsm5", "pipeline", "pipeline, sorted"
TOLERANCE = 1e-5
Probabilities = list[list[float]]  # by post and symptom


class First(nn.Module):
    """The state of the first token, in the place of BERT's pooling layer, which no model here has."""

    def forward(self, states_STH: Tensor) -> Tensor:
        return states_STH[:, 0]


def ours(model: Model) -> Callable[[list[str]], Probabilities]:
    return lambda texts: [[each.probability for each in post.symptoms] for post in model.predict(texts)]


def peers(member: Stored, folder: Path, batch_size: int) -> Callable[[list[str]], Probabilities]:
    """transformers' pipeline with the encoder and the criteria head's layer of a model."""
    peer: Any = BertForSequenceClassification.from_pretrained(
        folder, num_labels=len(SYMPTOMS), id2label=dict(enumerate(SYMPTOMS)), label2id={}
    )
    peer.bert.pooler = First()
    (layer,) = (module for module in member.model.criteria_head.modules() if isinstance(module, nn.Linear))
    peer.classifier = layer
    peer.train(False)
    make: Any = pipeline  # whose types do not know top_k
    run = make("text-classification", model=peer, tokenizer=member.tokenizer, device=torch.device("cpu"), top_k=None)

    def predict(texts: list[str]) -> Probabilities:
        options = {"truncation": True, "max_length": member.config.model.max_length, "padding": True}
        answers = run(texts, batch_size=batch_size, function_to_apply="sigmoid", **options)
        scores = [{each["label"]: each["score"] for each in answer} for answer in answers]
        return [[found[name] for name in SYMPTOMS] for found in scores]

    return predict


def by_length(predict: Callable[[list[str]], Probabilities]) -> Callable[[list[str]], Probabilities]:
    """The same, which gets the longest posts first."""

    def run(texts: list[str]) -> Probabilities:
        order = sorted(range(len(texts)), key=lambda n: -len(texts[n]))
        found = dict(zip(order, predict([texts[n] for n in order]), strict=True))
        return [found[n] for n in range(len(texts))]

    return run


def contenders(folder: Path, batch_size: int) -> dict[str, Callable[[list[str]], Probabilities]]:
    words = ["model=minilm", f"model.model_id={folder}", "model.max_length=512", f"train.batch_size={batch_size}"]
    words += ["model.criteria_pooling=cls", "model.criteria_head_type=linear", "data.long_posts=truncate"]
    config: Config = compose(words)
    tokenizer = tokenizer_of(config, ())
    seed_everything(1)
    model = MultiTaskModel(config.model, vocab_size=len(tokenizer))
    member = Stored(config, tokenizer, model, default_thresholds(config.model.evidence_head_type), "")
    peer = peers(member, folder, batch_size)
    return {OURS: ours(Model([member], torch.device("cpu"))), PIPELINE: peer, SORTED: by_length(peer)}


def texts_of(count: int, folder: Path) -> list[str]:
    write_csvs(folder, count, 1)
    with (folder / POSTS_FILE).open(newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


def main() -> int:
    parser = arguments_of("predict", __doc__)
    parser.add_argument("--posts", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    arguments = parser.parse_args()
    set_verbosity_error()  # type: ignore[no-untyped-call]
    disable_progress_bar()  # type: ignore[no-untyped-call]
    seconds: dict[str, list[float]] = {OURS: [], PIPELINE: [], SORTED: []}
    with tempfile.TemporaryDirectory(prefix="redsm5-predict-") as scratch:
        sample_model.unpack(Path(scratch) / "model")
        texts = texts_of(arguments.posts, Path(scratch))
        runs = contenders(Path(scratch) / "model", arguments.batch_size)
        found = {name: run(texts[: arguments.batch_size]) for name, run in runs.items()}  # warms up
        for _ in range(arguments.rounds):
            for name, run in runs.items():
                began = time.perf_counter()
                found[name] = run(texts)
                seconds[name].append(time.perf_counter() - began)
    difference = max(float((torch.tensor(found[OURS]) - torch.tensor(found[name])).abs().max()) for name in found)
    if difference > TOLERANCE:
        raise TrainingError(f"the probabilities differ by {difference:.1e}", remedy=f"At most {TOLERANCE} is allowed.")
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    rows: list[Row] = [
        {
            f"{len(texts)} posts": name,
            "posts/s": digits(len(texts) / taken),
            "times redsm5": digits(taken / medians[OURS]),
            "largest difference": f"{difference:.1e}",
        }
        for name, taken in medians.items()
    ]
    ratios = {"predicting a post": {name: taken / medians[OURS] for name, taken in medians.items()}}
    return finish(Result("Predictions for new posts", rows, ratios, seconds), arguments.json)


if __name__ == "__main__":
    exit_with_message(main)
