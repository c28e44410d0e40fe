"""A trained model for new posts: `redsm5.load(folder).predict([...])`.

A folder is a trial's, or one that `just export` wrote. Posts are read as in training: in windows if they are long, in
batches of similar length. Their probabilities are those that the trial's evaluation would record for them. No post is
cached, and none leaves the process.

Shapes: P posts, M models, C = 9 symptoms.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import torch
from accelerate.utils import convert_outputs_to_fp32
from torch import Tensor

from redsm5.config import Config
from redsm5.data.batches import eval_loader, micro_batching_of, on_device
from redsm5.data.encode import EncodedPosts
from redsm5.data.posts import SYMPTOMS, Post
from redsm5.engine.errors import ConfigError, InputError
from redsm5.engine.installed import typed
from redsm5.engine.spec import with_parameters
from redsm5.evaluation import exported, stored
from redsm5.evaluation.metrics import Pair
from redsm5.evaluation.predict import Predictions, ScoredSpan, predict, without_overlaps
from redsm5.evaluation.stored import Stored
from redsm5.evaluation.thresholds import vector
from redsm5.reports import Thresholds

CHUNK = 1024  # posts that `predict` sorts by length together
# Of a micro-batch, if the training had no limit: a batch of long posts, each with dozens of windows, must not fill the
# memory. Only the last digits of a prediction depend on it.
MAX_TOKENS = 16_384
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Evidence:
    """Characters [start, end) of a post that are evidence for a symptom, with a score in [0, 1]."""

    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class SymptomPrediction:
    """What a model says of a symptom in a post.

    Attributes:
        probability: in [0, 1].
        present: whether the probability reaches the symptom's threshold.
        evidence: the spans that reach the thresholds of evidence, the best first; they do not overlap. The evidence
            head decides by itself, so there may be evidence for a symptom that is not present, or none for one that is.
    """

    symptom: str
    probability: float
    present: bool
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class PostPrediction:
    """What a model says of a post: `symptoms` has all nine, in the order of `redsm5.data.SYMPTOMS`."""

    symptoms: tuple[SymptomPrediction, ...]

    def __getitem__(self, symptom: str) -> SymptomPrediction:
        """The prediction for a symptom by its name, such as SLEEP_ISSUES.

        Raises:
            KeyError: there is no such symptom.
        """
        if symptom not in SYMPTOMS:
            raise KeyError(symptom)
        return self.symptoms[SYMPTOMS.index(symptom)]

    @property
    def present(self) -> tuple[str, ...]:
        """The names of the symptoms that are present."""
        return tuple(each.symptom for each in self.symptoms if each.present)


class Model:
    """A trained model, or several whose predictions are averaged; `load` makes it.

    Averaged are probabilities, log-odds of evidence, thresholds, and the scores of a span that several models propose,
    which is 0 for a model that does not.

    Attributes:
        thresholds: at which a symptom is present, and a span is evidence.
        device: where it computes.
        identity: the SHA-256 of each model's weights and the thresholds: what predictions depend on.
    """

    def __init__(self, members: Sequence[Stored], device: torch.device) -> None:
        self.device = device
        self.thresholds = _mean([member.thresholds for member in members])
        self.identity = [*(member.weights for member in members), self.thresholds.model_dump_json()]
        self._members = [_placed(member, device) for member in members]

    def predict(self, posts: Iterable[str]) -> list[PostPrediction]:
        """Predictions for the posts' texts, in their order, whatever their length.

        Raises:
            InputError: a text is empty, or is not text.
        """
        texts = list(posts)
        chunks = (texts[first : first + CHUNK] for first in range(0, len(texts), CHUNK))
        return [prediction for chunk in chunks for prediction in self.predict_chunk(chunk)]

    def predict_chunk(self, texts: Sequence[str], check: Callable[[], object] = lambda: None) -> list[PostPrediction]:
        """Predictions for so many posts as are sorted by length together.

        Args:
            check: called before each batch; what it raises ends the work.

        Raises:
            InputError: a text is empty, or is not text.
        """
        for number, text in enumerate(texts, 1):
            _check(text, number)
        if not texts:
            return []
        posts = [Post("", text, (0,) * len(SYMPTOMS), (), ()) for text in texts]
        return _answers(_averaged([self._of_member(member, posts, check) for member in self._members]), self.thresholds)

    def _of_member(self, member: Stored, posts: Sequence[Post], check: Callable[[], object]) -> Predictions:
        dataset = EncodedPosts(posts, member.tokenizer, member.config, cached=False)
        parts = micro_batching_of(member.config)
        if parts.max_tokens is None:
            parts = replace(parts, max_tokens=MAX_TOKENS)
        size, pad_id = member.config.train.batch_size, member.tokenizer.pad_token_id
        loader = eval_loader(dataset, size, pad_id, micro_batching=parts)
        return predict(member.model, _checked(on_device(loader, self.device), check), dataset)


def load(*folders: str | Path, device: str | None = None) -> Model:
    """The trained model in a folder; of several folders, models whose predictions are averaged.

    Args:
        folders: each a trial's folder, or one that `just export` wrote. A trial's needs the pretrained encoder that it
            began from and, with model=tiny, its data; an exported one needs nothing else.
        device: cpu, cuda or cuda:1; by default the GPU, if there is one.

    Raises:
        InputError: a folder has no trained model, or what it needs has changed.
        ConfigError: there is no such device.
        NoCheckpointError: the weights were deleted or are damaged.
        LockedError: the trial is being trained.
    """
    if not folders:
        raise InputError("no folder is named", remedy=typed("Name a trial's folder, or one that `just export` wrote."))
    where = _device(device)
    return Model(
        [(exported if exported.is_exported(folder) else stored).read(folder) for folder in map(Path, folders)], where
    )


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        raise ConfigError(f"there is no device {name} here", remedy="Name cpu, cuda or cuda:1.") from None
    return device


def _placed(member: Stored, device: torch.device) -> Stored:
    """The member on a device, ready to predict there with the precision that it was trained with, if the device has
    it.
    """
    precision = member.config.train.mixed_precision
    if precision == "fp16" and device.type == "cpu":
        precision = "no"
    # `launch` says how batches are split into micro-batches: as is best on a CPU, or on a GPU.
    place = {"launch": "cpu" if device.type == "cpu" else "gpu", "train.mixed_precision": precision}
    config: Config = with_parameters(member.config, place)
    model = member.model.to(device).eval().requires_grad_(False)
    forward = type(model).forward

    def mixed(self: Any, batch: Any) -> Any:
        with torch.autocast(device.type, DTYPES[precision]) if precision in DTYPES else nullcontext():
            return forward(self, batch)

    if precision in DTYPES:
        model.forward = MethodType(convert_outputs_to_fp32(mixed), model)  # type: ignore[method-assign]
    return Stored(config, member.tokenizer, model, member.thresholds, member.weights)


def _checked(loader: Iterable[Any], check: Callable[[], object]) -> Iterator[list[dict[str, Tensor]]]:
    for batch in loader:
        check()
        yield batch


def _check(text: object, number: int) -> None:
    what = ""
    if not isinstance(text, str):
        what = f"it is not text, but {type(text).__name__}"
    elif not text.strip():
        what = "it is empty"
    else:
        try:
            text.encode()
        except UnicodeEncodeError:
            what = "it has a lone surrogate, which is not Unicode text"
    if what:
        raise InputError(what, where=f"post {number}", remedy="Give the posts' texts as strings, none of them empty.")


def _answers(predictions: Predictions, limits: Thresholds) -> list[PostPrediction]:
    limits_C = vector(limits)
    answers = []
    for p, row_C in enumerate(predictions.probabilities_P9):
        symptoms = []
        for c, name in enumerate(SYMPTOMS):
            spans = predictions.spans[p, c] if predictions.margins_P9[p, c] >= limits.evidence_null_threshold else []
            evidence = tuple(Evidence(*span) for span in spans if span.score >= limits.min_span_score)
            symptoms.append(SymptomPrediction(name, float(row_C[c]), bool(row_C[c] >= limits_C[c]), evidence))
        answers.append(PostPrediction(tuple(symptoms)))
    return answers


def _averaged(each: Sequence[Predictions]) -> Predictions:
    if len(each) == 1:
        return each[0]
    spans: dict[Pair, list[ScoredSpan]] = {}
    for pair in each[0].spans:
        totals: dict[tuple[int, int], float] = {}
        for predictions in each:
            for start, end, score in predictions.spans[pair]:
                totals[start, end] = totals.get((start, end), 0.0) + score
        spans[pair] = without_overlaps(ScoredSpan(*ends, total / len(each)) for ends, total in totals.items())
    return Predictions(
        float("nan"),
        np.mean([predictions.probabilities_P9 for predictions in each], axis=0),
        np.mean([predictions.margins_P9 for predictions in each], axis=0),
        spans,
    )


def _mean(each: Sequence[Thresholds]) -> Thresholds:
    def mean(values: Iterable[float]) -> float:
        return float(np.mean(list(values)))

    if len(each) == 1:
        return each[0].model_copy(update={"weights": None})
    return Thresholds(
        criteria={name: mean(limits.criteria[name] for limits in each) for name in SYMPTOMS},
        evidence_null_threshold=mean(limits.evidence_null_threshold for limits in each),
        min_span_score=mean(limits.min_span_score for limits in each),
    )
