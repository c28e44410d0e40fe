"""An interrupted search proposes what an uninterrupted one would have, wherever it was interrupted."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from redsm5 import paths
from redsm5.config import Config, compose
from redsm5.errors import ConfigError
from redsm5.study.search import draw, make_pruner, make_sampler, open_storage, seed_for, unfinished

TRIALS = 13  # TPE draws its first ten at random: the last ones depend on all that was before
SPACE = (
    "search.space={train.epochs:{type:int,low:1,high:20},train.accumulation_steps:{type:int,low:1,high:64,log:true},"
    "model.evidence_dropout:{type:float,low:0.0,high:0.5}}"
)


def configuration(experiments: Path, *overrides: str) -> Config:
    return compose([f"experiments={experiments}", SPACE, *overrides])


def open_optuna(config: Config) -> optuna.Study:
    """As a search that starts again does it: from what is on disk."""
    return optuna.create_study(study_name="s", storage=open_storage(config), direction="maximize", load_if_exists=True)


def ask(study: optuna.Study) -> optuna.Trial:
    """The trial that was begun and not ended, or a new one."""
    begun = unfinished(study)
    return optuna.Trial(study, begun[0]._trial_id) if begun else study.ask()


def value_of(parameters: dict[str, Any]) -> float:
    return -((parameters["train.learning_rate"] - 4e-3) ** 2) * 1e5 - parameters["model.criteria_dropout"]


def proposals(study: optuna.Study, config: Config) -> Iterator[dict[str, Any]]:
    """Ask, draw and tell, one trial after the other."""
    while True:
        trial = ask(study)
        parameters = draw(study, trial, config)
        study.tell(trial, value_of(parameters))
        yield parameters


@pytest.fixture(scope="module", params=["tpe", "random"])
def sampler(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def uninterrupted(sampler: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    config = configuration(tmp_path_factory.mktemp("uninterrupted"), f"study.sampler={sampler}")
    search = proposals(open_optuna(config), config)
    return [next(search) for _ in range(TRIALS)]


def test_every_proposal_is_within_its_range_and_they_differ(uninterrupted: list[dict[str, Any]]) -> None:
    config = compose([SPACE])
    for parameters in uninterrupted:
        assert list(parameters) == list(config.search.space)
        for name, space in config.search.space.items():
            if space.type == "categorical":
                assert parameters[name] in space.choices
            else:
                assert space.low <= parameters[name] <= space.high
                assert isinstance(parameters[name], int if space.type == "int" else float)
    assert len({tuple(p.items()) for p in uninterrupted}) == TRIALS


def test_a_search_that_is_opened_anew_before_every_trial_proposes_the_same(
    sampler: str, uninterrupted: list[dict[str, Any]], tmp_path: Path
) -> None:
    config = configuration(tmp_path, f"study.sampler={sampler}")
    assert [next(proposals(open_optuna(config), config)) for _ in range(TRIALS)] == uninterrupted


def test_a_trial_that_was_drawn_and_not_told_is_drawn_the_same_again(
    sampler: str, uninterrupted: list[dict[str, Any]], tmp_path: Path
) -> None:
    config = configuration(tmp_path, f"study.sampler={sampler}")
    for expected in uninterrupted:
        study = open_optuna(config)
        assert draw(study, ask(study), config) == expected
        study = open_optuna(config)
        trial = ask(study)
        assert draw(study, trial, config) == expected
        study.tell(trial, value_of(expected))


@pytest.mark.parametrize("drawn", [1, 6])
def test_a_trial_that_was_half_drawn_is_completed_as_if_it_had_not_been_interrupted(
    sampler: str, uninterrupted: list[dict[str, Any]], tmp_path: Path, drawn: int
) -> None:
    config = configuration(tmp_path, f"study.sampler={sampler}")
    names = list(config.search.space)
    partial = config.model_copy(
        update={
            "search": config.search.model_copy(update={"space": {n: config.search.space[n] for n in names[:drawn]}})
        }
    )
    found = []
    for number in range(TRIALS):
        study = open_optuna(config)
        if number in (0, 5, TRIALS - 2, TRIALS - 1):
            draw(study, ask(study), partial)  # the process dies after these
            study = open_optuna(config)
            assert list(ask(study).params) == names[:drawn]
        found.append(next(proposals(study, config)))
    assert found == uninterrupted


KILLED_IN_THE_MIDDLE = """
import os, signal, sys
from pathlib import Path
import optuna
sys.path.insert(0, sys.argv[1])
import test_search as search

suggest, left = optuna.Trial.suggest_float, int(sys.argv[4])

def suggest_and_die(*args, **kwargs):
    global left
    value = suggest(*args, **kwargs)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return value

optuna.Trial.suggest_float = suggest_and_die
config = search.configuration(Path(sys.argv[2]), sys.argv[3])
for _ in search.proposals(search.open_optuna(config), config):
    pass
"""


def test_a_process_killed_while_it_draws_changes_no_proposal(
    uninterrupted: list[dict[str, Any]], sampler: str, tmp_path: Path
) -> None:
    """Killed within the third trial, and again within a later one; what follows is as if nothing had been."""
    config = configuration(tmp_path, f"study.sampler={sampler}")
    for kill_at in (9, 30):
        arguments = [str(Path(__file__).parent), str(tmp_path), f"study.sampler={sampler}", str(kill_at)]
        command = [sys.executable, "-c", KILLED_IN_THE_MIDDLE, *arguments]
        killed = subprocess.run(command, capture_output=True, check=False, text=True)
        assert killed.returncode == -9, killed.stderr
        assert len(unfinished(open_optuna(config))) == 1
    study = open_optuna(config)
    search = proposals(study, config)
    while len(study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))) < TRIALS:
        next(search)
    assert [t.params for t in study.get_trials()] == uninterrupted


# ---------------------------------------------------------------------------------------------------------------------
# the storage


def test_a_torn_journal_tail_is_repaired_and_the_search_goes_on(
    uninterrupted: list[dict[str, Any]], sampler: str, tmp_path: Path
) -> None:
    config = configuration(tmp_path, f"study.sampler={sampler}")
    search = proposals(open_optuna(config), config)
    for _ in range(3):
        next(search)
    journal = tmp_path / paths.OPTUNA_JOURNAL
    whole = journal.read_bytes()
    for torn in (b"{", b'{"op_code": 5, "worker_id": "ab', b"\xff\xfe\x00"):
        journal.write_bytes(whole + torn)
        assert len(open_optuna(config).get_trials()) == 3
        assert journal.read_bytes().startswith(whole)
        assert all(line.endswith(b"}\n") for line in journal.read_bytes().splitlines(keepends=True))
    assert next(proposals(open_optuna(config), config)) == uninterrupted[3]


def test_a_tail_torn_by_another_process_is_repaired_before_the_next_write(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    study = open_optuna(config)
    study.ask()
    with (tmp_path / paths.OPTUNA_JOURNAL).open("ab") as file:
        file.write(b'{"op_code": 4, "wor')
    study.ask()
    assert len(open_optuna(config).get_trials()) == 2


def test_a_lock_whose_holder_was_killed_is_free(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    open_optuna(config).ask()
    script = (
        "import os, signal, sys; from pathlib import Path; from redsm5 import files\n"
        "assert files.Lock(Path(sys.argv[1])).acquire(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    lock = tmp_path / f"{paths.OPTUNA_JOURNAL}.lock"
    assert subprocess.run([sys.executable, "-c", script, str(lock)], check=False).returncode == -9
    assert len(open_optuna(config).get_trials()) == 1


def test_a_database_that_cannot_be_opened_is_refused_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"study\.storage cannot be opened") as caught:
        open_storage(configuration(tmp_path, "study.storage='nosuchdb://me:hunter2@host/db'"))
    assert "hunter2" not in str(caught.value)
    assert caught.value.exit_code == 1
    assert caught.value.__suppress_context__


def test_a_database_may_hold_the_study(tmp_path: Path) -> None:
    config = configuration(tmp_path, f"study.storage='sqlite:///{tmp_path}/optuna.db'")
    open_optuna(config).ask()
    assert len(open_optuna(config).get_trials()) == 1
    assert not (tmp_path / paths.OPTUNA_JOURNAL).exists()


# ---------------------------------------------------------------------------------------------------------------------
# seeds, samplers, pruners


def test_a_seed_is_the_same_everywhere_and_its_own_for_each_study_trial_and_purpose() -> None:
    assert seed_for(42, 0, "sampler") == 1_036_914_780  # another value would change every study begun before
    seeds = {seed_for(s, n, p) for s in range(5) for n in range(50) for p in ("sampler", "train")}
    assert len(seeds) == 5 * 50 * 2
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_samplers_and_pruners_are_those_that_the_study_names(tmp_path: Path) -> None:
    assert isinstance(make_sampler(configuration(tmp_path), 0), optuna.samplers.TPESampler)
    assert isinstance(make_sampler(configuration(tmp_path, "study.sampler=random"), 0), optuna.samplers.RandomSampler)
    assert isinstance(make_pruner(configuration(tmp_path)), optuna.pruners.NopPruner)
    assert isinstance(make_pruner(configuration(tmp_path, "study.pruner=median")), optuna.pruners.MedianPruner)
