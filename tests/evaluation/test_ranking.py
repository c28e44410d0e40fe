"""Sentence ranking: the figures are scikit-learn's and those computed by hand, and every head scores every sentence."""

import math
from typing import get_args

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, ndcg_score

from redsm5.config import compose
from redsm5.data import load_splits
from redsm5.data.batches import eval_loader
from redsm5.data.encode import EncodedPosts, sentences_of, tokens_of
from redsm5.data.posts import SYMPTOMS, Post, Span
from redsm5.data.tokenize import tokenizer_of
from redsm5.evaluation.baseline import fit, predictions_of
from redsm5.evaluation.metrics import NO_POSTS
from redsm5.evaluation.predict import predict
from redsm5.evaluation.ranking import (
    NO_SENTENCE,
    NO_SENTENCE_AT_ALL,
    ScoredSentences,
    gold_sentences,
    ranked_pairs,
    ranking_samples,
    sentence_ranking,
)
from redsm5.model import MultiTaskModel
from redsm5.model.spans import MASKED
from redsm5.sections import ModelConfig

TEXT = "I am tired. I am sad. It is late."
RANGES = sentences_of(TEXT)
HEADS = get_args(ModelConfig.model_fields["evidence_head_type"].annotation)


def post_of(*spans):
    labels = [int(any(symptom == c for symptom, _, _ in spans)) for c in range(9)]
    return Post("p", TEXT, tuple(labels), tuple(Span(*span) for span in spans), ())


def scored(*columns):
    """The sentences with these scores for the first symptoms, and 0 for the others."""
    scores_MC = np.zeros((3, 9))
    scores_MC[:, : len(columns)] = np.array(columns).T
    return ScoredSentences(RANGES, scores_MC)


def test_two_posts_by_hand():
    assert [TEXT[slice(*r)] for r in RANGES] == ["I am tired.", "I am sad.", "It is late."]
    posts = [post_of((0, 12, 21)), post_of((0, 0, 11), (0, 22, 33), (1, 0, 11))]
    sentences = [scored([3.0, 2.0, 1.0]), scored([3.0, 2.0, 1.0], [1.0, 2.0, 3.0])]
    found = sentence_ranking(ranked_pairs(sentences, posts), 2)
    first, second, third = found.per_criterion[:3]
    # the evidence is at rank 2; at ranks 1 and 3; and at rank 3
    assert first.average_precision == pytest.approx((1 / 2 + (1 + 2 / 3) / 2) / 2)
    dcg = [1 / math.log2(rank + 1) for rank in (1, 2, 3)]
    assert first.ndcg_at_10 == pytest.approx((dcg[1] / dcg[0] + (dcg[0] + dcg[2]) / (dcg[0] + dcg[1])) / 2)
    assert (second.average_precision, second.ndcg_at_10) == (pytest.approx(1 / 3), pytest.approx(dcg[2]))
    assert (first.posts, second.posts, third.posts) == (2, 1, 0)
    assert (third.average_precision, third.undefined["average_precision"]) == (None, NO_SENTENCE)
    assert found.average_precision_macro == pytest.approx((first.average_precision + 1 / 3) / 2)
    assert found.ndcg_at_10_macro == pytest.approx((first.ndcg_at_10 + dcg[2]) / 2)


def test_what_nothing_defines_says_why():
    for posts, reason in (([], NO_POSTS), ([post_of()], NO_SENTENCE_AT_ALL)):
        found = sentence_ranking(ranked_pairs([scored()] * len(posts), posts), len(posts))
        assert found.average_precision_macro is found.ndcg_at_10_macro is None
        assert set(found.undefined.values()) == {reason}


def test_a_sentence_is_evidence_from_half_of_the_shorter_on():
    gold_MC = gold_sentences(post_of((0, 6, 21), (1, 12, 15), (2, 10, 14), (3, 9, 22)), RANGES)
    assert gold_MC[:, 0].tolist() == [False, True, False], "5 of 11 characters, all 9, none"
    assert gold_MC[:, 1].tolist() == [False, True, False], "a part of a sentence is the shorter of the two"
    assert gold_MC[:, 2].tolist() == [False, True, False], "one of the span's four characters, and two"
    assert gold_MC[:, 3].tolist() == [False, True, False]
    assert not gold_MC[:, 4:].any()


def test_a_post_of_one_sentence_is_ranked():
    post = Post("p", "I am tired.", (1, *[0] * 8), (Span(0, 0, 11),), ())
    pairs = ranked_pairs([ScoredSentences([(0, 11)], np.zeros((1, 9)))], [post])
    assert pairs.figures_Q2.tolist() == [[1.0, 1.0]]


def test_a_weighting_is_the_split_with_its_posts_repeated():
    rng = np.random.default_rng(4)
    posts = [post_of(*[(c, *RANGES[m]) for c in range(9) for m in range(3) if rng.random() < 0.2]) for _ in range(12)]
    sentences = [ScoredSentences(RANGES, rng.random((3, 9)).round(1)) for _ in posts]
    for _ in range(10):
        draw = rng.integers(12, size=12)
        again = sentence_ranking(ranked_pairs([sentences[p] for p in draw], [posts[p] for p in draw]), 12)
        weights_RP = np.bincount(draw, minlength=12)[None].astype(float)
        for name, (value,) in ranking_samples(ranked_pairs(sentences, posts), weights_RP).items():
            assert value == pytest.approx(getattr(again, name)), name


# ---------------------------------------------------------------------------------------------------------------------
# the scores


def test_the_baseline_ranks_as_its_svm_does():
    splits = load_splits(compose(["data.posts=90"]).data)
    models = fit(splits.train, seed=1)
    predictions = predictions_of(models, splits.validation)
    pairs = ranked_pairs(predictions.sentences, splits.validation)
    assert len(pairs.posts_Q) > 5
    for p, c, (precision, ndcg) in zip(pairs.posts_Q, pairs.symptoms_Q, pairs.figures_Q2, strict=True):
        post = splits.validation[p]
        ranges = sentences_of(post.text)
        gold_M = gold_sentences(post, ranges)[:, c]
        values_M = models[c].decision_function([post.text[slice(*r)] for r in ranges])
        assert precision == pytest.approx(average_precision_score(gold_M, values_M))
        assert ndcg == pytest.approx(ndcg_score(gold_M[None], values_M[None], k=10))


@pytest.mark.parametrize("format", ["multi_label", "binary_pairs"])
@pytest.mark.parametrize("head", HEADS)
def test_every_head_scores_every_sentence(head, format):
    """Whatever the batches are; a head's best candidate is in its best sentence, if the window has it whole."""
    words = ["data.posts=60", f"model.evidence_head_type={head}", f"model.input_format={format}"]
    config = compose([*words, "model.max_length=64", "model.max_span_tokens=6", "data.long_posts=window"])
    splits = load_splits(config.data)
    posts = sorted(splits.train, key=lambda post: len(post.text))[:: len(splits.train) // 5]
    torch.manual_seed(1)
    tokenizer = tokenizer_of(config, splits.train)
    model, dataset = MultiTaskModel(config.model, vocab_size=len(tokenizer)), EncodedPosts(posts, tokenizer, config)
    assert any(len(item.windows) > 1 for item in dataset.items)
    found = [
        predict(model, eval_loader(dataset, size, tokenizer.pad_token_id), dataset, sentences=True) for size in (1, 8)
    ]
    for one, eight, post in zip(*(predictions.sentences for predictions in found), posts, strict=True):
        assert list(one.ranges) == list(eight.ranges) == sentences_of(post.text)
        assert one.scores_MC.shape == (len(one.ranges), len(SYMPTOMS))
        assert (one.scores_MC > MASKED / 2).all(), "windows show all of a post"
        assert one.scores_MC == pytest.approx(eight.scores_MC, rel=1e-4, abs=1e-4)
    assert predict(model, eval_loader(dataset, 8, tokenizer.pad_token_id), dataset).sentences is None


@pytest.mark.parametrize("head", HEADS)
def test_a_sentence_scores_as_the_head_decodes(head):
    """The best candidate that is within a sentence is the reason for the best score, for all heads but bio_crf, whose
    best path is not its sentence with the highest mean; there the score is the sentence's own mean posterior.
    """
    words = ["data.posts=60", f"model.evidence_head_type={head}", "model.max_length=256", "model.max_span_tokens=4"]
    config = compose(words)
    splits = load_splits(config.data)
    posts = [post for post in splits.train if len(sentences_of(post.text)) > 2 and len(post.text) < 500][:6]
    torch.manual_seed(1)
    tokenizer = tokenizer_of(config, splits.train)
    model, dataset = MultiTaskModel(config.model, vocab_size=len(tokenizer)), EncodedPosts(posts, tokenizer, config)
    predictions = predict(model, eval_loader(dataset, 8, tokenizer.pad_token_id), dataset, sentences=True)
    compared = 0
    for p, (ranges, scores_MC) in enumerate(predictions.sentences):
        for c in range(9):
            best = predictions.spans[p, c][0]
            inside = [m for m, (start, end) in enumerate(ranges) if start <= best.start and best.end <= end]
            if head == "bio_crf":
                whole = [m for m in inside if ranges[m] == (best.start, best.end)]
                assert all(scores_MC[m, c] == pytest.approx(best.score, abs=1e-5) for m in whole)
                assert ((scores_MC[:, c] >= 0) & (scores_MC[:, c] <= 1)).all()
                compared += 1
            elif inside:
                assert scores_MC[:, c].argmax() == inside[0]
                assert scores_MC[:, c].max() == pytest.approx(predictions.margins_P9[p, c], abs=1e-4)
                compared += 1
    assert compared > 10


def test_a_sentence_that_was_cut_off_is_last():
    config = compose(["data.posts=60", "model.max_length=64", "data.long_posts=truncate"])
    splits = load_splits(config.data)
    posts = sorted(splits.train, key=lambda post: len(post.text))[-1:]
    tokenizer = tokenizer_of(config, splits.train)
    model, dataset = MultiTaskModel(config.model, vocab_size=len(tokenizer)), EncodedPosts(posts, tokenizer, config)
    (sentences,) = predict(model, eval_loader(dataset, 1, tokenizer.pad_token_id), dataset, sentences=True).sentences
    seen_M = (tokens_of(dataset.items[0].windows[0], sentences.ranges) >= 0).all(axis=1)
    assert seen_M.any()
    assert not seen_M.all()
    assert (sentences.scores_MC[~seen_M] < MASKED / 2).all()
    assert (sentences.scores_MC[seen_M] > MASKED / 2).all()


def test_tokens_share_a_character_with_their_range():
    config = compose(["data.posts=60", "model.max_length=64", "data.long_posts=window"])
    splits = load_splits(config.data)
    post = max(splits.train, key=lambda post: len(post.text))
    dataset = EncodedPosts([post], tokenizer_of(config, splits.train), config)
    ranges = sentences_of(post.text)
    assert len(dataset.items[0].windows) > 2
    for window in dataset.items[0].windows:
        for (start, end), tokens in zip(ranges, tokens_of(window, ranges).tolist(), strict=True):
            touching = [t for t in range(*window.text) if window.offsets[t][0] < end and window.offsets[t][1] > start]
            assert tokens == ([touching[0], touching[-1]] if touching else [-1, -1])
