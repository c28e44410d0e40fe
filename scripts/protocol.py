"""Tabulate F1 by the split of ReDSM5's authors and by ours: `just protocol data=csv data.dir=DIR [study=NAME]`.

On each split the SVM and the majority are trained and tested; of a study, its confirmed winner, or its best trial, is
shown on the split that it was trained for (data.test_split). The authors' own figures stand beside them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from redsm5.config import Config, compose
from redsm5.data import load_learnable, load_splits, load_test, posts_by_row
from redsm5.data.split import authors_split
from redsm5.engine import environment, files
from redsm5.engine.errors import exit_with_message
from redsm5.engine.study.ids import find_study
from redsm5.engine.study.launch import note_ignored
from redsm5.engine.tables import Row, add_format, render
from redsm5.engine.terminal import Parser, one_line, show
from redsm5.engine.tracking.logs import open_logs

NOTES = """\
labels: the nine symptoms; with NO_SYMPTOMS, ten
copies: the test posts that are duplicates, or nearly so, of a post that models may learn from
macro F1: the mean over the labels that the test posts have; low and high: the 95 % interval, a bootstrap over posts
authors: train_test_split, 80/20 with seed 42, over the posts in the order of their rows, thresholds at 0.5; their
notebooks read a table redsm5.csv: where its order differs, so do the test posts
ours: thresholds of the baseline and of trials are chosen on a validation split; where they predict no symptom, they
predict NO_SYMPTOMS"""


def main() -> int:
    parser = Parser(prog="just protocol", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="override", help="of the data, and study=NAME, or its uuid")
    add_format(parser)
    arguments = parser.parse_intermixed_args()
    files.make_private()
    studies = [word.removeprefix("study=") for word in arguments.words if word.startswith("study=")]
    config = compose([word for word in arguments.words if not word.startswith("study=")])
    note_ignored(open_logs(None))
    environment.start_over()
    rows = tabulated(config, studies)
    from redsm5.evaluation.protocol import COLUMNS

    show(render(arguments.format, COLUMNS, rows, empty="there is nothing to show"))
    if arguments.format == "table":
        show(f"\n{NOTES}")
    return 0


def tabulated(config: Config, studies: Sequence[str]) -> list[Row]:
    """The rows of both splits, of the studies' winners, and of the authors' notebook.

    Raises:
        InputError: the data cannot be read, there is no such study, or it was evaluated on other posts.
        ConfigError: a study has no completed trial.
    """
    # Imported here, since these imports take seconds and must come after the environment is set up.
    from redsm5.evaluation import protocol
    from redsm5.evaluation.saved import predictions_of

    data = {name: config.data.model_copy(update={"test_split": name}) for name in ("stratified", "authors")}
    splits = load_learnable(data["stratified"])
    ours = protocol.Part(protocol.OURS, splits.learned, load_test(data["stratified"]).test)
    authors = protocol.Part(protocol.AUTHORS, *authors_split(posts_by_row(config.data)))
    seed, scope, metric = config.train.seed, config.train.thresholds, config.study.metric
    theirs = protocol.by_authors(authors, seed)
    our_rows = protocol.by_us(ours, splits, seed=seed, scope=scope, metric=metric)
    experiments = Path(config.experiments)
    for name in studies:
        study = find_study(experiments, name)
        kind = "winner" if study.confirmed else "best"
        shown = f"{kind} of {one_line(study.name)}"
        evaluated = predictions_of(experiments, f"{kind}:{study.study_id}")
        if (evaluated[1].config.get("data") or {}).get("test_split") == "authors":
            learned = load_splits(data["authors"])
            theirs += protocol.of_trial(authors, shown, *evaluated, learned.fingerprint, experiments)
            our_rows.append(protocol.not_evaluated(ours, shown, learned.learned))
        else:
            our_rows += protocol.of_trial(ours, shown, *evaluated, splits.fingerprint, experiments)
            theirs.append(protocol.not_evaluated(authors, shown, splits.learned))
    return [*our_rows, *theirs, *protocol.of_notebooks()]


if __name__ == "__main__":
    exit_with_message(main)
