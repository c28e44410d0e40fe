"""The authors' protocol: their split, their ten labels and their SVM, against scikit-learn."""

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.svm import LinearSVC

from redsm5.config import compose
from redsm5.data import load_splits, load_test, posts_by_row
from redsm5.data.posts import SYMPTOMS, Post, labels_of
from redsm5.data.split import authors_split
from redsm5.engine.errors import ConfigError, InputError
from redsm5.evaluation import protocol
from redsm5.evaluation.protocol import Part, authors_svm, by_authors, f1_figures, rows_of, with_none

NAMES = (*SYMPTOMS, "NO_SYMPTOMS")


def post_of(number, *present, text=None):
    labels = tuple(int(c in present) for c in range(9))
    return Post(f"p{number:02d}", text or f"post number {number} of a few", labels, (), ())


@pytest.fixture(scope="module")
def part():
    return Part(protocol.AUTHORS, *authors_split(posts_by_row(compose(["data.posts=200"]).data)))


def test_ten_labels_by_hand():
    truth_P10 = with_none(labels_of([post_of(0, 0, 8), post_of(1), post_of(2, 5)]))
    assert truth_P10.tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
    ]
    # of two predictions for a post without symptoms, one is that it has one
    said_P10 = with_none(np.array([[1, *[0] * 8], [0] * 9, [0] * 9])) > 0
    figures = f1_figures(said_P10, truth_P10)
    assert figures["micro_f1"] == pytest.approx(2 * 2 / (3 + 4)), "2 right of 3 predicted and 4 present"
    assert figures["macro_f1"] == pytest.approx((1 + 0 + 0 + 2 / 3) / 4), "of the four labels that posts have"


def test_the_split_is_that_of_scikit_learn_over_the_rows():
    posts = [post_of(number) for number in range(17)]
    train, test = train_test_split(posts, test_size=0.2, random_state=42)
    assert authors_split(posts) == (train, test)
    assert [post.post_id for post in test] == ["p00", "p01", "p05", "p15"], "as scikit-learn has it for 17 rows"
    assert authors_split(posts[::-1])[1] != test, "it depends on the order of the rows"
    with pytest.raises(InputError, match="a single post"):
        authors_split(posts[:1])


def test_a_folder_s_posts_are_in_the_order_of_its_rows(tmp_path):
    (tmp_path / "redsm5_posts.csv").write_text("post_id,text\nc1,x\na2,y\nb3,z\nd4,w\n")
    (tmp_path / "redsm5_annotations.csv").write_text(
        "post_id,sentence_id,sentence_text,DSM5_symptom,status\na2,a2_0,y,FATIGUE,1\n"
    )
    config = compose(["data=csv", f"data.dir={tmp_path}"]).data
    assert [post.post_id for post in posts_by_row(config)] == ["c1", "a2", "b3", "d4"]


def test_a_trial_can_be_trained_for_the_authors_split(tmp_path):
    """Their test posts in the order of the rows, whatever the ids; of the others, copies stay together."""
    names = [f"p{(7 * number) % 60:02d}" for number in range(60)]
    copied = "the same words about the same long night written twice by one person who cannot sleep at all"
    texts = {name: copied if number % 4 == 0 else name * 9 for number, name in enumerate(names)}
    table = "".join(f"{name},{texts[name]}\n" for name in names)
    (tmp_path / "redsm5_posts.csv").write_text("post_id,text\n" + table)
    signs = "".join(f"{n},{n}_0,{texts[n]},{SYMPTOMS[i % 9]},1\n" for i, n in enumerate(names) if i % 3)
    (tmp_path / "redsm5_annotations.csv").write_text("post_id,sentence_id,sentence_text,DSM5_symptom,status\n" + signs)
    words = ["data=csv", f"data.dir={tmp_path}"]
    config = compose([*words, "data.test_split=authors"]).data
    train, test = train_test_split(names, test_size=0.2, random_state=42)
    splits = load_splits(config)
    assert [post.post_id for post in load_test(config).test] == sorted(test)
    assert sorted(post.post_id for post in splits.learned) == sorted(train)
    copies = {name for name in train if texts[name].startswith(copied)}
    assert copies <= {post.post_id for post in splits.train} or copies <= {post.post_id for post in splits.validation}
    ours = load_splits(compose(words).data)
    assert ours.fingerprint != splits.fingerprint


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data.test_fraction=0.3"], "they test on 0.2 of the posts"),
        (["data=hub"], "their test posts depend on the order of rows"),
    ],
)
def test_the_authors_split_is_refused_where_it_would_not_be_theirs(words, expected):
    with pytest.raises(ConfigError, match=expected):
        compose([*words, "data.test_split=authors"])


def test_the_authors_svm_is_their_notebook_s(part):
    """Their notebook's steps with scikit-learn's own classes."""
    binarizer = MultiLabelBinarizer(classes=NAMES)

    def names(posts):
        return [[name for name, x in zip(SYMPTOMS, p.labels, strict=True) if x] or ["NO_SYMPTOMS"] for p in posts]

    learned_P10 = binarizer.fit_transform(names(part.train))
    vectors = TfidfVectorizer(max_features=10_000_000, stop_words="english", sublinear_tf=True)
    features = vectors.fit_transform([post.text for post in part.train])
    model = OneVsRestClassifier(LinearSVC(random_state=0, tol=1e-5)).fit(features, learned_P10)
    said_P10 = model.predict(vectors.transform([post.text for post in part.test]))
    assert (authors_svm(part.train, part.test) == said_P10.astype(bool)).all()
    truth_P10 = binarizer.transform(names(part.test))
    (row,) = [r for r in by_authors(part, 1) if (r["model"], r["labels"]) == (protocol.THEIR_SVM, 10)]
    assert truth_P10.any(axis=0).all(), "else the notebook's macro F1 counts a label without posts as 0"
    assert row["macro_f1"] == pytest.approx(f1_score(truth_P10, said_P10, average="macro", zero_division=0))
    assert row["micro_f1"] == pytest.approx(f1_score(truth_P10, said_P10, average="micro"))


def test_the_majority_is_scikit_learns(part):
    learned_P10, truth_P10 = with_none(labels_of(part.train)), with_none(labels_of(part.test))
    dummy = DummyClassifier(strategy="most_frequent").fit(np.zeros((len(learned_P10), 1)), learned_P10)
    expected = f1_score(truth_P10, dummy.predict(np.zeros((len(truth_P10), 1))), average="micro", zero_division=0)
    (row,) = [r for r in by_authors(part, 1) if (r["model"], r["labels"]) == (protocol.MAJORITY, 10)]
    assert row["micro_f1"] == pytest.approx(expected)


def test_intervals_hold_their_figures(part):
    for row in by_authors(part, 1):
        for name in ("macro", "micro"):
            assert row[f"{name}_low"] <= row[f"{name}_f1"] <= row[f"{name}_high"]


def test_copies_of_training_posts_among_the_test_posts_are_counted():
    text = "I have not slept for days and I do not know what to do with all these hours of the night any more"
    train = [post_of(1, text=text), post_of(2, text="something else"), post_of(3, text="yet another")]
    test = [post_of(4, text=text.upper()), post_of(5, text=text + " now"), post_of(6), post_of(7)]
    assert Part("x", train, test).copies == 2
    assert Part("x", train[1:], test).copies == 0, "copies of each other are not counted"
    assert {row["copies"] for row in rows_of(Part("x", train, test), "m", np.zeros((4, 10), dtype=bool))} == {2}


def test_a_figure_that_the_posts_leave_undefined_is_none():
    none = np.zeros((3, 9), dtype=np.int64)
    assert set(f1_figures(none > 0, none).values()) == {None}


def test_ours_is_the_baseline_of_the_same_splits(part):
    config = compose(["data.posts=200"])
    splits, test = load_splits(config.data), load_test(config.data).test
    ours = Part(protocol.OURS, [*splits.train, *splits.validation], test)
    rows = protocol.by_us(ours, splits, seed=1, scope="fixed", metric="val_f1_macro")
    models = protocol.fit(splits.train, seed=1)
    said_P9 = protocol.predictions_of(models, test).probabilities_P9 >= 0.5
    assert rows[0]["micro_f1"] == pytest.approx(f1_score(labels_of(test), said_P9, average="micro"))
    ten_P10 = np.column_stack([said_P9, ~said_P9.any(axis=1)])
    assert rows[1]["micro_f1"] == pytest.approx(f1_score(with_none(labels_of(test)), ten_P10, average="micro"))
    assert {row["copies"] for row in rows} == {0}
