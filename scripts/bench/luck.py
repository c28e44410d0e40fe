"""How far the score that a search names is from the truth: `just bench luck`.

Each search has invented posts of its own (as many as ReDSM5 has, split like its), and draws configurations of a linear
model (hashed words, one SGD classifier a symptom) at random, since one trains in a tenth of a second; its score is
macro F1 on the validation posts at a threshold of 0.5. Then the best are confirmed by the code that confirms a study
(redsm5/engine/study/confirming.py), with other seeds and other splits of the same posts, as `study.confirm.top` does.
The truth is known: the same trained models score 20,000 fresh posts. For each named score the table has

- bias: what is named minus the truth, mean over the searches, and the 95 % interval of that mean;
- covered: in how many searches the 95 % interval that is named with it holds the truth. The raw best has none of its
  own; a bootstrap over the validation posts is what a report of that trial would give;
- true score: of what was chosen, on the fresh posts.

`raw best` is the best of the search and its score there. `its confirmed mean` is the mean of its repeats. `confirmed
winner` is the one that the study names, the cheapest within one standard error of the best mean.
"""

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import numpy as np
from numpy.typing import NDArray
from results import Result, arguments_of, digits, finish
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import f1_score

from redsm5.config import compose
from redsm5.data import load_splits
from redsm5.data.posts import Post, labels_of
from redsm5.data.read import read_corpus
from redsm5.data.synthesize import write_csvs
from redsm5.engine.documents import now
from redsm5.engine.errors import exit_with_message
from redsm5.engine.records import Best, TrialRecord
from redsm5.engine.study.confirming import chosen, confirmed, estimate, race
from redsm5.engine.study.search import seed_for
from redsm5.engine.tables import Row
from redsm5.engine.terminal import show

POSTS = 1484  # as many as ReDSM5 has
STUDY = "00000000-0000-4000-8000-000000000000"
BOOTSTRAPS = 1000
WORDS = HashingVectorizer(n_features=2**14, ngram_range=(1, 2), alternate_sign=False)

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """Posts as a model reads them."""

    words: Any
    labels_P9: Labels


def sample_of(posts: Sequence[Post]) -> Sample:
    return Sample(WORDS.transform([post.text for post in posts]), labels_of(posts))


@dataclass(frozen=True)
class Trained:
    """A configuration that was trained once: its score on the validation posts, the decisions there, and the truth."""

    score: float
    decided_P9: Labels
    truth: float


class Posts:
    """One search's posts: their splits by seed."""

    def __init__(self, number: int) -> None:
        self._words = [f"data.posts={POSTS}", f"data.seed={1000 + number}"]
        self._split: dict[int | None, tuple[Sample, Sample]] = {}

    def split(self, seed: int | None) -> tuple[Sample, Sample]:
        """Training and validation posts; None: the search's own split."""
        if seed not in self._split:
            again = [] if seed is None else [f"data.validation_seed={seed}"]
            splits = load_splits(compose([*self._words, *again]).data)
            self._split[seed] = sample_of(splits.train), sample_of(splits.validation)
        return self._split[seed]


def macro_f1(labels_P9: Labels, decided_P9: Labels) -> float:
    return float(f1_score(labels_P9, decided_P9, average="macro", zero_division=0))


def draw(seed: int) -> dict[str, Any]:
    """A configuration: how strongly it is regularized, how long it trains, and how rare labels count."""
    dice = np.random.default_rng(seed)
    return {
        "alpha": float(10 ** dice.uniform(-7, -3)),
        "max_iter": int(dice.integers(2, 12)),
        "l1_ratio": float(dice.uniform(0, 0.5)),
        "class_weight": [None, "balanced"][dice.integers(2)],
    }


def train(parameters: dict[str, Any], train: Sample, validation: Sample, fresh: Sample, seed: int) -> Trained:
    """Train a classifier for each symptom."""
    decided, true = [], []
    for labels in train.labels_P9.T:
        model = SGDClassifier(loss="log_loss", penalty="elasticnet", tol=None, random_state=seed, **parameters)
        if labels.any():
            model.fit(train.words, labels)
        decided.append(model.predict(validation.words) if labels.any() else np.zeros(len(validation.labels_P9), int))
        true.append(model.predict(fresh.words) if labels.any() else np.zeros(len(fresh.labels_P9), int))
    decided_P9 = np.stack(decided, 1)
    truth = macro_f1(fresh.labels_P9, np.stack(true, 1))
    return Trained(macro_f1(validation.labels_P9, decided_P9), decided_P9, truth)


def record(number: int, trained: Trained, parameters: dict[str, Any], **changes: Any) -> TrialRecord:
    name = f"{number} {changes.get('repeat', 0)}"
    return TrialRecord(
        trial_id=str(uuid5(UUID(STUDY), name)),
        study_id=STUDY,
        number=number,
        state="completed",
        created_at=now(),
        epochs=1,
        epoch=1,
        best=Best(epoch=1, value=trained.score),
        active_seconds=float(parameters["max_iter"]),  # the time to train, but for the machine's noise
        parameters=parameters,
        **changes,
    )


def bootstrap(labels_P9: Labels, decided_P9: Labels, seed: int) -> tuple[float, float]:
    """The 95 % percentile interval of macro F1 over the posts."""
    dice = np.random.default_rng(seed)
    drawn = (dice.integers(len(labels_P9), size=len(labels_P9)) for _ in range(BOOTSTRAPS))
    scores = [macro_f1(labels_P9[rows], decided_P9[rows]) for rows in drawn]
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)


def search(number: int, trials: int, top: int, repeats: int, fresh: Sample) -> dict[str, Any]:
    """One search and its confirmation: what is named, and the truth."""
    posts = Posts(number)
    own = posts.split(None)
    found: dict[int, Trained] = {}
    records: list[TrialRecord] = []
    for trial in range(trials):
        parameters = draw(seed_for(number, trial, "draw"))
        found[trial] = train(parameters, *own, fresh, seed_for(number, trial, "training"))
        records.append(record(trial, found[trial], parameters))
    repeated: dict[tuple[int, int], Trained] = {}
    epochs = sum(r.active_seconds for r in records)
    while not (state := race(records, top=top, repeats=repeats, maximize=True)).over:
        for trial_record, repeat in state.open:
            of = trial_record.number or 0
            split = posts.split(seed_for(number, repeat, "confirm splits"))
            seed = seed_for(number, of, f"confirm {repeat}")
            again = repeated[of, repeat] = train(trial_record.parameters, *split, fresh, seed)
            changes = {"confirms": trial_record.trial_id, "repeat": repeat}
            records.append(record(of, again, trial_record.parameters, **changes))
    named = confirmed(state)
    assert named, "every repeat has a score"
    best = chosen(records, top=1, maximize=True)[0].number or 0

    def truth(of: int) -> float:
        return statistics.fmean(trained.truth for (n, _), trained in repeated.items() if n == of)

    raw = estimate([trained.score for (n, _), trained in repeated.items() if n == best])
    return {
        "raw best": (
            found[best].score,
            found[best].truth,
            *bootstrap(own[1].labels_P9, found[best].decided_P9, number),
        ),
        "its confirmed mean": (raw.mean, truth(best), raw.low, raw.high),
        "confirmed winner": (named.mean, truth(named.number), named.low, named.high),
        "more": sum(r.active_seconds for r in records if r.confirms) / epochs,
    }


def main() -> int:
    parser = arguments_of("luck", __doc__)
    parser.add_argument("--searches", type=int, default=20)
    parser.add_argument("--trials", type=int, default=50, help="of each search")
    parser.add_argument("--top", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--fresh", type=int, default=20_000, help="posts on which the truth is measured")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="redsm5-luck-") as scratch:
        write_csvs(Path(scratch), arguments.fresh, seed=1)
        fresh = sample_of(read_corpus(Path(scratch)).posts)
    results = []
    for number in range(arguments.searches):
        results.append(search(number, arguments.trials, arguments.top, arguments.repeats, fresh))
        show(f"search {number + 1} of {arguments.searches}", error=True)
    more = statistics.fmean(result.pop("more") for result in results)
    rows: list[Row] = []
    for name in results[0]:
        biases = estimate([result[name][0] - result[name][1] for result in results])
        covered = sum(result[name][2] <= result[name][1] <= result[name][3] for result in results)
        interval = "" if biases.low is None or biases.high is None else f"{biases.low:+.4f} to {biases.high:+.4f}"
        rows.append(
            {
                "what is named": name,
                "bias": f"{biases.mean:+.4f}",
                "95 % interval": interval,
                "covered": f"{covered} of {len(results)}",
                "true score": digits(statistics.fmean(result[name][1] for result in results)),
            }
        )
    show(f"the confirmation took {more:.0%} of the epochs of the search", error=True)
    measured = {"searches": results, "share_of_epochs": more}
    return finish(Result("bias and coverage of what a search names", rows, measured=measured), arguments.json)


if __name__ == "__main__":
    exit_with_message(main)
