"""What three searches train and find on the same posts, one after the other: `just bench live`.

All train the tiny model on the same synthetic posts (400, of which 60 are validation posts), with the same code for
data, model, losses, optimizer and schedule, one thread each; they draw 27 configurations of 9 epochs with Optuna's TPE
from the same space (live.yaml), on two cores:

- redsm5: `just hpo study.pruner=asha workers=2`: a trial pauses at a rung, and may go on later. It writes checkpoints,
  metrics to MLflow, a report of each completed trial; the others keep scores alone, and no weights;
- redsm5, confirmed: the same search and then, by a second command, `study.confirm.top=3 study.confirm.repeats=3`;
- Ray Tune: ASHAScheduler and OptunaSearch, two trials at a time in processes that stay for the next trial
  (`reuse_actors`), a plain Accelerate loop. A trial that is not among the best third at a rung stops for good;
- HF Trainer: `hyperparameter_search` with Optuna's HyperbandPruner, one trial after the other; a pruned one stops.

Seconds are those of the whole command, CPU seconds those of all its processes (looked at twice a second, so a little of
each is missing); what else the machine does changes the first more than the second. `names` is the score of the winner
as the tool reports it: redsm5 that of the best epoch of the best trial, or the confirmed mean; Ray that of the last
epoch of the best trial, stopped ones included; Trainer that of the last epoch of the best completed trial.

Then redsm5 trains each winner again, `--repeats` times, with other seeds and other splits of the same posts, the same
ones for all winners and none that the confirmation has seen: `again` is the mean validation score and its standard
deviation, `fresh posts` the same of these weights' scores on 4,000 posts that no search has seen. One search of each
tool is one draw: a difference between two winners says little unless it is well above the standard deviations.

Each trial of redsm5 has a seed of its own; those of the others have one seed, and their searches begin with the same
draws. TPE learns from a trial that stopped early, too: redsm5's and Trainer's count as pruned, Ray's as completed with
their last score. Ray is none of this project's dependencies: `.venv/bin/python -m pip install "ray[tune]"`.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import structlog
from luck import macro_f1
from peers import CONCURRENT, METRIC, Found, Tried
from results import Result, arguments_of, digits, finish

from redsm5.config import Config, compose
from redsm5.data import load_splits
from redsm5.data.batches import eval_loader, micro_batching_of
from redsm5.data.encode import EncodedPosts
from redsm5.data.posts import Post, labels_of
from redsm5.data.read import read_corpus
from redsm5.data.synthesize import write_csvs
from redsm5.data.tokenize import tokenizer_of
from redsm5.engine import documents, files, paths
from redsm5.engine.errors import ConfigError, TrainingError, exit_with_message
from redsm5.engine.installed import SCRIPTS, quoted
from redsm5.engine.records import Confirmed, StudyRecord, TrialRecord
from redsm5.engine.spec import with_parameters
from redsm5.engine.storage.checkpoint import load_best
from redsm5.engine.study.confirming import chosen
from redsm5.engine.study.launch import launch_trial
from redsm5.engine.study.search import seed_for
from redsm5.engine.study.signals import StopRequest
from redsm5.engine.study.space import configured
from redsm5.engine.study.trial import create_trial, open_store
from redsm5.engine.tables import Row
from redsm5.engine.terminal import show
from redsm5.evaluation.predict import predict
from redsm5.model import MultiTaskModel, identity_of

SPACE = Path(__file__).with_name("live.yaml")
OURS = [
    *("study.name=live", "study.sampler=tpe", "study.pruner=asha", "study.enqueue_defaults=false", "workers=2"),
    f"study.space={quoted(str(SPACE))}",
]
CONFIRM = ["study.confirm.top=3", "study.confirm.repeats=3"]
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
DEFAULT_SEED = 42
SAMPLE_S = 0.5  # between two looks at a command's processes


@dataclass(frozen=True)
class Cost:
    """What a command takes: seconds, and CPU seconds of all its processes."""

    seconds: float
    cpu_seconds: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)


@dataclass(frozen=True)
class Search:
    """A search.

    Attributes:
        cost: of the whole command, or of both.
        more: epochs that its confirmation trained besides.
    """

    found: Found
    cost: Cost
    more: int = 0


@dataclass(frozen=True)
class Again:
    """A winner trained again: its scores on the validation posts of each repeat, and on fresh posts."""

    validation: list[float]
    fresh: list[float]


def require_ray() -> None:
    """Raises:
    ConfigError: Ray is not installed.
    """
    if find_spec("ray") is None:
        raise ConfigError(
            "just bench live compares with Ray Tune, which is not installed",
            remedy='Run `.venv/bin/python -m pip install "ray[tune]"`: no other command needs it.',
        )


# ---------------------------------------------------------------------------------------------------------------------
# the searches


def ours(root: Path, trials: int, seed: int, words: Sequence[str]) -> dict[str, Search]:
    """Our search without a confirmation and with one, which is the same search."""
    command = [sys.executable, str(SCRIPTS / "hpo.py"), *OURS, *words]
    command += [f"study.trials={trials}", f"study.seed={seed}", f"experiments={quoted(str(root))}"]
    _, cost = timed(command)
    before = [record for _, record in records(root)]
    best = chosen(before, top=1, maximize=True)[0]
    assert best.best
    tried = [Tried(record.parameters, scores(folder)) for folder, record in records(root)]
    alone = Found(best.parameters, best.best.value, tried)
    _, more = timed([*command, *CONFIRM])
    confirmed = named(root)
    winner = next(record for _, record in records(root) if record.trial_id == confirmed.trial_id)
    repeats = sum(record.epoch for _, record in records(root) if record.confirms)
    return {
        "redsm5": Search(alone, cost),
        "redsm5, confirmed": Search(Found(winner.parameters, confirmed.mean, tried), cost + more, repeats),
    }


def theirs(peer: str, root: Path, trials: int, seed: int, words: Sequence[str]) -> Search:
    """Another search, in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("peers.py")), peer, str(root), str(trials), str(seed)]
    printed, cost = timed([*command, f"study.space={quoted(str(SPACE))}", *words])
    return Search(Found.of(json.loads(printed.splitlines()[-1])), cost)


def timed(command: Sequence[str]) -> tuple[str, Cost]:
    """What a command prints, and what it takes.

    Raises:
        TrainingError: it fails; what it said has been shown.
    """
    before = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | ONE_THREAD)
    tree = psutil.Process(process.pid)
    used: dict[psutil.Process, float] = {}
    with ThreadPoolExecutor(1) as reader:
        printed = reader.submit(process.communicate)
        while not printed.done():
            used |= cpu_seconds(tree)
            wait([printed], SAMPLE_S)
    if process.returncode:
        what = " ".join(Path(word).name for word in command[1:3])
        raise TrainingError(f"{what} ended with exit code {process.returncode}, see above")
    return printed.result()[0], Cost(time.perf_counter() - before, sum(used.values()))


def cpu_seconds(tree: psutil.Process) -> dict[psutil.Process, float]:
    """The CPU time so far of each living process of a tree."""
    used = {}
    with suppress(psutil.NoSuchProcess):
        for process in [tree, *tree.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                used[process] = times.user + times.system
    return used


def records(root: Path) -> list[tuple[Path, TrialRecord]]:
    """The trials of our study and their folders."""
    loaded = ((folder, documents.load(folder / paths.TRIAL, TrialRecord)) for folder in paths.trial_dirs(root))
    return [(folder, record) for folder, record in loaded if record]


def scores(folder: Path) -> list[float]:
    """A trial's scores after each of its epochs."""
    by_epoch = {r["epoch"]: r["value"] for r in files.read_lines(folder / paths.METRICS) if r["metric"] == METRIC}
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


def named(root: Path) -> Confirmed:
    """The winner that our study names."""
    study = documents.load(paths.study_dirs(root)[0] / paths.STUDY, StudyRecord)
    assert study
    assert study.confirmed
    return study.confirmed


# ---------------------------------------------------------------------------------------------------------------------
# the winners, trained again


def train_again(
    root: Path, winners: Mapping[str, Found], repeats: int, seed: int, words: Sequence[str], fresh: Sequence[Post]
) -> dict[str, Again]:
    """Train each winner's configuration again; winners with the same one share their repeats."""
    base = compose([f"study.space={quoted(str(SPACE))}", *words, f"experiments={quoted(str(root))}"])
    configs = {
        (key_of(found.parameters), repeat): configured(
            base,
            {
                "train.seed": seed_for(seed, repeat, "live seeds"),
                "data.validation_seed": seed_for(seed, repeat, "live splits"),
                **found.parameters,
            },
        )
        for found in winners.values()
        for repeat in range(repeats)
    }
    done: dict[tuple[str, int], tuple[float, float]] = {}
    waiting = list(configs.items())
    for first in range(0, len(waiting), CONCURRENT):
        begun = [(place, config, create_trial(config)) for place, config in waiting[first : first + CONCURRENT]]
        launched = [launch_trial(config, record.trial_id, output=root / "printed") for _, config, record in begun]
        for each in launched:
            each.attend(StopRequest())
        done |= {
            place: scored(paths.trial_dir(root, record.trial_id), config, fresh) for place, config, record in begun
        }
    return {
        name: Again(*map(list, zip(*(done[key_of(found.parameters), n] for n in range(repeats)), strict=True)))
        for name, found in winners.items()
    }


def key_of(parameters: Mapping[str, Any]) -> str:
    return json.dumps(parameters, sort_keys=True)


def scored(folder: Path, config: Config, fresh: Sequence[Post]) -> tuple[float, float]:
    """A trained trial's score on its validation posts, and that of its best weights on the fresh posts."""
    record = documents.load(folder / paths.TRIAL, TrialRecord)
    if record is None or record.state != "completed" or record.best is None:
        raise TrainingError(f"a winner could not be trained again, see {folder.parent / 'printed'}")
    splits = load_splits(config.data)
    tokenizer = tokenizer_of(config, splits.train)
    model = MultiTaskModel(config.model, vocab_size=len(tokenizer))
    config = with_parameters(config, {"trial.id": record.trial_id})
    store = open_store(folder, config, structlog.get_logger().info)
    load_best(store.folder / store.best()[0].name, model, identity_of(config, model, splits.fingerprint))
    posts = EncodedPosts(fresh, tokenizer, config)
    batches = eval_loader(
        posts, config.train.batch_size, tokenizer.pad_token_id, micro_batching=micro_batching_of(config)
    )
    decided_P9 = (predict(model, batches, posts).probabilities_P9 >= 0.5).astype(int)
    return record.best.value, macro_f1(labels_of(fresh), decided_P9)


# ---------------------------------------------------------------------------------------------------------------------
# figures


def row_of(name: str, search: Search, again: Again, ours: Search, epochs: int) -> Row:
    found = search.found
    return {
        "": name,
        "completed": f"{found.completed(epochs)} of {len(found.tried)}",
        "epochs": f"{found.epochs} + {search.more}" if search.more else f"{found.epochs}",
        "times redsm5 (epochs)": digits((found.epochs + search.more) / ours.found.epochs),
        "s": digits(search.cost.seconds),
        "times redsm5 (s)": digits(search.cost.seconds / ours.cost.seconds),
        "CPU, s": digits(search.cost.cpu_seconds),
        "names": f"{found.reported:.4f}",
        "again": spread(again.validation),
        "fresh posts": spread(again.fresh),
    }


def spread(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.4f} ± {statistics.stdev(values):.4f}"


def main() -> int:
    parser = arguments_of("live", __doc__)
    parser.add_argument("--trials", type=int, default=27, help="configurations of each search")
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--posts", type=int, default=400)
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="of the searches")
    parser.add_argument("--repeats", type=int, default=3, help="of each winner; 2 or more")
    parser.add_argument("--fresh", type=int, default=4000, help="posts that no search saw")
    arguments = parser.parse_args()
    require_ray()
    if arguments.repeats < 2:
        raise ConfigError(f"--repeats {arguments.repeats}: a standard deviation needs two", remedy="Use --repeats 3.")
    words = [f"train.epochs={arguments.epochs}", f"data.posts={arguments.posts}", "model.max_length=128"]
    with tempfile.TemporaryDirectory(prefix="redsm5-live-") as scratch:
        root = Path(scratch)
        write_csvs(root, arguments.fresh, seed=1)
        fresh = read_corpus(root).posts
        show("— redsm5", error=True)
        searches = ours(root / "ours", arguments.trials, arguments.seed, words)
        for name, peer in {"Ray Tune": "ray", "HF Trainer": "trainer"}.items():
            show(f"— {name}", error=True)
            searches[name] = theirs(peer, root / peer, arguments.trials, arguments.seed, words)
        show("— the winners again", error=True)
        winners = {name: search.found for name, search in searches.items()}
        again = train_again(root / "again", winners, arguments.repeats, arguments.seed, words, fresh)
    base = searches["redsm5"]
    rows = [row_of(name, search, again[name], base, arguments.epochs) for name, search in searches.items()]
    times_ours = {name: search.cost.seconds / base.cost.seconds for name, search in searches.items()}
    measured = {
        "arguments": {name: value for name, value in vars(arguments).items() if name != "json"},
        **{name: asdict(search) | {"again": asdict(again[name])} for name, search in searches.items()},
    }
    gaps = [search.found.reported - statistics.fmean(again[name].validation) for name, search in searches.items()]
    title = (
        f"Searches of {arguments.trials} configurations of {arguments.epochs} epochs, live; what they name is "
        f"{min(gaps):+.2f} to {max(gaps):+.2f} from the mean when trained again"
    )
    return finish(Result(title, rows, {"a search, live": times_ours}, measured), arguments.json)


if __name__ == "__main__":
    exit_with_message(main)
