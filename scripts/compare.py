"""Compare two trials on the same test posts: `just compare ID ID`.

For each metric of the symptoms: both values, the difference, its 95 % interval and a p value, by a paired bootstrap
over the posts. Both trials must have been evaluated on the same posts, which are read again for their labels.
"""

import os
from dataclasses import asdict
from pathlib import Path

import numpy as np

from redsm5.config import Config
from redsm5.data import SYMPTOMS, load_test
from redsm5.data.posts import labels_of
from redsm5.engine.errors import InputError, exit_with_message
from redsm5.engine.spec import from_snapshot
from redsm5.engine.study.ids import HELP
from redsm5.engine.tables import add_format, render
from redsm5.engine.terminal import Parser, show
from redsm5.evaluation.comparison import Difference, compare
from redsm5.evaluation.saved import predictions_of

COLUMNS = ("metric", "first", "second", "difference", "low", "high", "p")


def main() -> int:
    parser = Parser(prog="just compare", description=__doc__)
    parser.add_argument("first", metavar="ID", help=f"a completed trial: {HELP}")
    parser.add_argument("second", metavar="ID", help="another one")
    parser.add_argument("--experiments", type=Path, default=Path(os.environ.get("REDSM5_EXPERIMENTS", "experiments")))
    add_format(parser)
    arguments = parser.parse_args()
    differences, posts = compared(arguments.experiments, arguments.first, arguments.second)
    rows = [{k: v if k == "metric" else round(v, 4) for k, v in asdict(each).items()} for each in differences]
    show(render(arguments.format, COLUMNS, rows, empty="no metric is defined on these posts"))
    if arguments.format == "table":
        show(f"second minus first on {posts} test posts; low and high: the 95 % interval of the difference")
    return 0


def compared(experiments: Path, first: str, second: str) -> tuple[list[Difference], int]:
    """The differences, and the number of posts.

    Raises:
        InputError: a trial has no predictions, theirs are of different posts, or the posts have changed.
    """
    (ours, report), (theirs, other) = (predictions_of(experiments, trial_id) for trial_id in (first, second))
    if (ours.post_ids, ours.split) != (theirs.post_ids, theirs.split):
        raise InputError(
            f"trials {first} and {second} were evaluated on different posts",
            remedy="Compare trials of the same data and its splits, both evaluated on the test split.",
        )
    config = from_snapshot(Config, report.config)
    posts = {post.post_id: post for post in load_test(config.data).test}
    if posts.keys() != set(ours.post_ids):
        raise InputError(
            "the test posts are not those that the trials were evaluated on",
            where="data",
            remedy="Restore the data that the trials were trained with.",
        )
    labels_PC = labels_of([posts[post_id] for post_id in ours.post_ids])
    limits = [np.array([(each.decision_thresholds or {})[name] for name in SYMPTOMS]) for each in (report, other)]
    probabilities = np.array(ours.probabilities), np.array(theirs.probabilities)
    return compare(*probabilities, labels_PC, limits), len(labels_PC)


if __name__ == "__main__":
    exit_with_message(main)
