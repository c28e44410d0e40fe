"""The baseline: TF-IDF and one linear SVM per symptom; the authors' own SVM is in redsm5/evaluation/protocol.py.

Features are word unigrams and bigrams with sublinear term frequency; the classifier is scikit-learn's LinearSVC with
balanced class weights. The decision value d is mapped to the probability 1 / (1 + exp(-d)), which is one half at the
SVM's own decision boundary. The evidence is the post's sentences with the highest scores of the same SVM.

Shapes: P posts, M sentences, C = 9 symptoms.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import LinearSVC

from redsm5.data.encode import sentences_of
from redsm5.data.posts import SYMPTOMS, Post, labels_of
from redsm5.evaluation.predict import CANDIDATES, Predictions, ScoredSpan
from redsm5.evaluation.ranking import ScoredSentences

FEW = 50  # posts; with fewer, words that occur only once are features too
NEVER = -10.0  # the decision value of a symptom that no training post has


def fit(posts: Sequence[Post], *, seed: int, labels_PK: NDArray[np.int64] | None = None) -> list[Pipeline | None]:
    """One SVM per symptom, or per label of labels_PK; None if all training posts have the same label."""
    texts = [post.text for post in posts]
    models: list[Pipeline | None] = []
    for labels_P in (labels_of(posts) if labels_PK is None else labels_PK).T:
        if len(set(labels_P.tolist())) < 2:
            models.append(None)
            continue
        vectors = TfidfVectorizer(ngram_range=(1, 2), min_df=2 if len(posts) >= FEW else 1, sublinear_tf=True)
        model = make_pipeline(vectors, LinearSVC(class_weight="balanced", random_state=seed))
        models.append(model.fit(texts, labels_P))
    return models


def predictions_of(models: Sequence[Pipeline | None], posts: Sequence[Post]) -> Predictions:
    """The SVMs' predictions for these posts; without a loss."""
    sentences = [sentences_of(post.text) for post in posts]
    cut = [post.text[start:end] for post, ranges in zip(posts, sentences, strict=True) for start, end in ranges]
    values_PC = decisions(models, [post.text for post in posts])
    values_MC = decisions(models, cut)
    margins_PC = np.full((len(posts), len(SYMPTOMS)), NEVER)
    spans: dict[tuple[int, int], list[ScoredSpan]] = {}
    scored: list[ScoredSentences] = []
    first = 0
    for p, ranges in enumerate(sentences):
        rows_MC = values_MC[first : first + len(ranges)]
        first += len(ranges)
        scored.append(ScoredSentences(ranges, rows_MC))
        for c in range(len(SYMPTOMS)):
            best = np.argsort(-rows_MC[:, c], kind="stable")[:CANDIDATES]
            spans[p, c] = [ScoredSpan(ranges[m][0], ranges[m][1], float(expit(rows_MC[m, c]))) for m in best]
            if len(ranges):
                margins_PC[p, c] = rows_MC[:, c].max()
    return Predictions(float("nan"), expit(values_PC), margins_PC, spans, scored)


def decisions(models: Sequence[Pipeline | None], texts: list[str]) -> NDArray[np.float64]:
    """The decision values, with a row for each text and a column for each model."""
    columns = [
        np.full(len(texts), NEVER) if model is None or not texts else model.decision_function(texts) for model in models
    ]
    return np.stack(columns, axis=1)
