"""Scores within noise of each other, and the baseline beside a study."""

import shlex

import numpy as np
import pytest

from redsm5.config import compose
from redsm5.data.posts import SYMPTOMS, Post, labels_of
from redsm5.engine import paths
from redsm5.engine.errors import InputError
from redsm5.engine.records import StudyRecord
from redsm5.evaluation.bootstrap import criteria_samples, weightings
from redsm5.evaluation.predict import Predictions
from redsm5.evaluation.thresholds import default_thresholds, score, score_samples, vector
from redsm5.noise import (
    Scores,
    baseline_of,
    beside_baseline,
    interval_of_difference,
    remarks,
    scores_of,
    with_test,
    within_noise,
)
from redsm5.reports import PredictionsRecord, ScoreSamples, SummaryBest
from redsm5.task import baseline_command
from tests.evaluation.conftest import STUDY, report_of

LIMITS = default_thresholds("start_end_linear")
METRIC = "val_f1_macro"


def posts_of(count, rng):
    labels = rng.random((count, 9)) < 0.25
    return [Post(f"p{i:03d}", "a text", tuple(map(int, row)), (), ()) for i, row in enumerate(labels)]


def predictions_of(posts, rng, skill):
    """Of a model that is right about a share `skill` of the labels beyond chance."""
    truth_PC = labels_of(posts).astype(float)
    right = rng.random(truth_PC.shape) < skill
    probabilities_PC = np.where(right, truth_PC, rng.random(truth_PC.shape) < 0.25).astype(float)
    none = {(p, c): [] for p in range(len(posts)) for c in range(9)}
    return Predictions(float("nan"), probabilities_PC, np.full(truth_PC.shape, -10.0), none, None)


def samples_of(posts, predictions, metric=METRIC):
    found = score_samples(metric, predictions, posts, LIMITS)
    assert found
    return found


def test_the_interval_of_a_difference_is_the_paired_bootstrap_s():
    rng = np.random.default_rng(1)
    posts = posts_of(80, rng)
    both = [predictions_of(posts, rng, skill) for skill in (0.3, 0.6)]
    first, second = (samples_of(posts, each) for each in both)
    weights_RP = weightings(80, 1000)
    a, b = (
        criteria_samples(each.probabilities_P9, labels_of(posts), vector(LIMITS), weights_RP)["f1_macro"]
        for each in both
    )
    expected = np.percentile((b - a)[1:], (2.5, 97.5))
    assert interval_of_difference(first, second) == pytest.approx(expected, abs=2e-5)
    metrics = score(both[0], posts, LIMITS).criteria_matching
    assert first.value == pytest.approx(metrics.f1_macro)
    assert first.low < first.value < first.high


def test_better_is_told_from_luck():
    rng = np.random.default_rng(2)
    posts = posts_of(200, rng)
    poor, good, equal = (samples_of(posts, predictions_of(posts, rng, skill)) for skill in (0.2, 0.7, 0.7))
    assert within_noise(poor, good) is False
    assert within_noise(good, equal) is True
    assert within_noise(good, good) is True


def test_of_equal_models_nearly_all_are_within_noise():
    """At 5 %: of 100 pairs, 0.2 % of studies would have 12 or more that are not."""
    rng = np.random.default_rng(3)
    told = []
    for _ in range(100):
        posts = posts_of(100, rng)
        told.append(within_noise(*(samples_of(posts, predictions_of(posts, rng, 0.5)) for _ in range(2))))
    assert 0 < told.count(False) < 12


def test_scores_of_other_posts_or_by_another_metric_are_not_compared():
    rng = np.random.default_rng(4)
    posts, others = posts_of(50, rng), posts_of(51, rng)
    first = samples_of(posts, predictions_of(posts, rng, 0.5))
    assert within_noise(first, samples_of(others, predictions_of(others, rng, 0.5))) is None
    assert within_noise(first, samples_of(posts, predictions_of(posts, rng, 0.5), "val_f1_micro")) is None
    assert within_noise(first, None) is None


def test_a_loss_and_an_undefined_score_have_no_samples():
    rng = np.random.default_rng(5)
    posts = posts_of(20, rng)
    predictions = predictions_of(posts, rng, 0.5)
    assert score_samples("val_loss", predictions, posts, LIMITS) is None
    assert score_samples("val_evidence_exact_match", predictions, posts, LIMITS) is None, "no post has evidence"


def written(folder, scores, trial_id, **changes):
    record = PredictionsRecord(
        trial_id=trial_id,
        checkpoint="epoch-0001",
        split="test",
        symptoms=list(SYMPTOMS),
        post_ids=[],
        probabilities=[],
        validation=scores.validation,
        tested=scores.test,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / paths.PREDICTIONS).write_bytes(record.model_copy(update=changes).to_json())
    return folder


def scored(value, half=0.05, seed=0):
    draws = np.random.default_rng(seed).normal(value, half / 2, 1000)
    return ScoreSamples(metric=METRIC, posts="x", value=value, low=value - half, high=value + half, samples=[*draws])


def test_scores_are_read_from_a_trial_s_folder(tmp_path):
    scores = Scores(scored(0.6), scored(0.5))
    folder = written(tmp_path / "a", scores, "a")
    assert scores_of(folder) == scores
    assert scores_of(written(folder, scores, "a", split="validation")).test is None
    assert scores_of(tmp_path / "nowhere") == Scores()
    (folder / paths.PREDICTIONS).write_text('{"validation": {"metric": 3}}')
    with pytest.raises(InputError, match=paths.PREDICTIONS):
        scores_of(folder)


@pytest.fixture
def study():
    return StudyRecord.model_construct(
        study_id=STUDY, name="s", metric=METRIC, config={"study": {"direction": "maximize"}}, data_fingerprint="f"
    )


@pytest.mark.parametrize(
    ("theirs", "beaten", "words"),
    [(0.3, True, "it is beaten"), (0.8, False, "it is not beaten"), (0.5, None, "these posts cannot tell")],
)
def test_the_baseline_is_beaten_or_not_or_nobody_can_tell(tmp_path, study, theirs, beaten, words):
    folder = written(tmp_path / "baseline_b", Scores(None, scored(theirs, seed=1)), "b")
    report = report_of("b", data_fingerprint="f", optimization_metric_name=METRIC, best_validation_score=0.4)
    (folder / paths.REPORT).write_bytes(report.to_json())
    best = with_test(
        SummaryBest(trial_id="t", number=0, value=0.6, test_metrics=None, report=None),
        Scores(scored(0.6), scored(0.5)),
        maximize=True,
    )
    found = beside_baseline(tmp_path, study, Scores(scored(0.6), scored(0.5)))
    assert found
    assert (found.value, found.beaten, found.test) == (0.4, beaten, theirs)
    assert found.difference == pytest.approx(0.5 - theirs)
    (said,) = [sentence for sentence in remarks(METRIC, best, found) if "baseline" in sentence]
    assert words in said
    assert baseline_of(tmp_path, "other posts") is None
    assert baseline_of(tmp_path, None) is None


@pytest.mark.parametrize(("test", "gap"), [(0.3, True), (0.57, False), (0.9, False)])
def test_a_test_score_far_below_validation_is_named(test, gap):
    best = SummaryBest(trial_id="t", number=0, value=0.6, test_metrics=None, report=None)
    found = with_test(best, Scores(scored(0.6), scored(test)), maximize=True)
    assert found.gap is gap
    assert any("more than noise" in sentence for sentence in remarks(METRIC, found, None)) is gap
    turned = with_test(best, Scores(scored(0.6), scored(test)), maximize=False)
    assert turned.gap is (test == 0.9)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["data.posts=90", "data.validation_seed=3", "study.metric=val_f1_micro"],
        ["data=csv", "data.dir=/some folder/it's here", "data.test_split=authors"],
        ["data=dataset", "data.path=/x.csv", "data.columns.text=body"],
        ["experiments='a b'", "study.metric=val_loss", "study.direction=minimize"],
    ],
)
def test_the_command_of_the_baseline_reads_the_same_posts(words, monkeypatch):
    monkeypatch.delenv("REDSM5_EXPERIMENTS", raising=False)
    config = compose(words)
    just, name, *overrides = shlex.split(baseline_command(config))
    assert (just, name) == ("just", "baseline")
    again = compose(overrides)
    assert again.data == config.data
    assert (again.study.metric, again.experiments) == (config.study.metric, config.experiments)
