"""`just bench live`: searches of a few tiny trials, and the training code that the other searches share with ours."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "scripts" / "bench"
sys.path.append(str(BENCH))

import live  # noqa: E402
import page  # noqa: E402
from curves import SPACE  # noqa: E402
from peers import METRIC, Found, Tried, plain_loop  # noqa: E402

from redsm5.config import compose  # noqa: E402
from redsm5.data.read import read_corpus  # noqa: E402
from redsm5.data.synthesize import write_csvs  # noqa: E402
from redsm5.engine import paths  # noqa: E402
from redsm5.engine.errors import TrainingError  # noqa: E402

WORDS = ["train.epochs=2", "data.posts=60", "model.max_length=64"]
WINNER = {
    "train.learning_rate": 4e-3,
    "train.weight_decay": 0.01,
    "train.warmup_ratio": 0.05,
    "model.criteria_dropout": 0.2,
    "train.loss_function": "weighted_bce",
}
without_ray = pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed here")


def run(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    env = os.environ | live.ONE_THREAD
    return subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, env=env, check=False)


@without_ray
def test_without_ray_one_message_says_how_to_install_it() -> None:
    ended = run(BENCH / "live.py")
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 2
    assert 'pip install "ray[tune]"' in ended.stderr


@without_ray
def test_all_benchmarks_are_those_without_live_where_ray_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert page.all_benches() == [name for name in page.BENCHES if name != "live"]
    assert "live is left out" in capsys.readouterr().err


def test_every_epoch_of_every_configuration_counts() -> None:
    tried = [{"parameters": {}, "scores": [0.1]}, {"parameters": WINNER, "scores": [0.2, 0.5, 0.4]}]
    found = Found.of(json.loads(json.dumps({"parameters": WINNER, "reported": 0.4, "tried": tried})))
    assert found.epochs == 4
    assert (found.completed(3), found.completed(1)) == (1, 1)
    assert found.tried[1] == Tried(WINNER, [0.2, 0.5, 0.4])


def test_a_row_has_the_epochs_of_the_confirmation_and_ratios_to_the_search_alone() -> None:
    found = Found(WINNER, 0.5, [Tried(WINNER, [0.4, 0.5]), Tried({}, [0.1])])
    alone = live.Search(found, live.Cost(10.0, 12.0))
    again = live.Again([0.4, 0.6], [0.3, 0.3])
    row = live.row_of("redsm5, confirmed", live.Search(found, live.Cost(25.0, 30.0), more=6), again, alone, epochs=2)
    assert (row["completed"], row["epochs"]) == ("1 of 2", "3 + 6")
    assert (row["times redsm5 (epochs)"], row["times redsm5 (s)"]) == ("3", "2.5")
    assert row["CPU, s"] == "30"
    assert (row["again"], row["fresh posts"]) == ("0.5000 ± 0.1414", "0.3000 ± 0.0000")


def test_the_space_is_part_of_that_of_the_recorded_curves() -> None:
    whole = yaml.safe_load(SPACE)
    part = yaml.safe_load(live.SPACE.read_text())
    assert len(part) == 5
    assert part == {key: whole[key] for key in part}


def test_the_plain_loop_has_the_scores_of_just_train(tmp_path: Path) -> None:
    words = [*WORDS, "train.loss_function=weighted_bce", "train.learning_rate=1e-2"]
    ended = run(ROOT / "scripts" / "launch.py", *words, f"experiments={tmp_path}")
    assert ended.returncode == 0, ended.stderr
    plain: list[float] = []
    plain_loop(compose(words), plain.append)
    (folder,) = paths.trial_dirs(tmp_path)
    assert live.scores(folder) == plain
    assert len(plain) == 2
    assert max(plain) > 0


def test_trainer_names_the_best_score_after_a_last_epoch(tmp_path: Path) -> None:
    ended = run(BENCH / "peers.py", "trainer", tmp_path, "3", "1", f"study.space={live.SPACE}", *WORDS)
    assert ended.returncode == 0, ended.stderr
    found = Found.of(json.loads(ended.stdout.splitlines()[-1]))
    assert len(found.tried) == 3
    whole = [trial for trial in found.tried if len(trial.scores) == 2]
    best = max(whole, key=lambda trial: trial.scores[-1])
    assert (found.parameters, found.reported) == (best.parameters, best.scores[-1])
    assert found.parameters.keys() == yaml.safe_load(live.SPACE.read_text()).keys()


def test_winners_with_the_same_configuration_share_their_repeats(tmp_path: Path) -> None:
    write_csvs(tmp_path, 50, seed=1)
    fresh = read_corpus(tmp_path).posts
    winners = {"a": Found(WINNER, 0.1, []), "b": Found(dict(reversed(WINNER.items())), 0.2, [])}
    again = live.train_again(tmp_path / "again", winners, 2, 42, WORDS, fresh)
    assert again["a"] == again["b"]
    folders = paths.trial_dirs(tmp_path / "again")
    assert sorted(max(live.scores(folder)) for folder in folders) == sorted(again["a"].validation)
    assert len(again["a"].fresh) == 2


def test_the_cpu_time_of_a_command_is_that_of_all_its_processes() -> None:
    burn = "import time\nwhile time.process_time() < 2: pass"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); print('done')"
    printed, cost = live.timed([sys.executable, "-c", child])
    assert printed == "done\n"
    assert 1 < cost.cpu_seconds < 3
    assert cost.seconds >= cost.cpu_seconds - 0.5


def test_a_command_that_fails_is_named() -> None:
    with pytest.raises(TrainingError, match="exit code 3"):
        live.timed([sys.executable, "-c", "raise SystemExit(3)"])


@pytest.mark.long
def test_our_search_is_the_same_with_its_confirmation(tmp_path: Path) -> None:
    found = live.ours(tmp_path, 3, 1, WORDS)
    alone, confirmed = found["redsm5"], found["redsm5, confirmed"]
    assert alone.found.tried == confirmed.found.tried
    assert len(alone.found.tried) == 3
    assert alone.found.reported == max(max(trial.scores) for trial in alone.found.tried if len(trial.scores) == 2)
    assert confirmed.more == 2 * 3 * alone.found.completed(2)
    assert confirmed.cost.cpu_seconds > alone.cost.cpu_seconds


def test_the_metric_is_that_of_the_study() -> None:
    assert compose([]).study.metric == METRIC
