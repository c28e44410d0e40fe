"""An interrupted search proposes what an uninterrupted one would have, wherever it was interrupted."""

import copy
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from redsm5.config import Config, compose
from redsm5.engine import paths
from redsm5.engine.errors import ConfigError
from redsm5.engine.searchspace import always_drawn
from redsm5.engine.sections import CategoricalParameter
from redsm5.engine.study.database import reason
from redsm5.engine.study.optuna_private import TOLD, reopen
from redsm5.engine.study.search import draw, make_sampler, open_storage, seed_for, unfinished
from redsm5.engine.study.space import presets, read_enqueued
from redsm5.task import ReDSM5

TRIALS = 13  # TPE draws its first ten at random: the last ones depend on all that was before
SPACE = (
    "search.space={train.accumulation_steps:{type:int,low:1,high:64,log:true,points:3},"
    "train.loss_function:{type:categorical,choices:[bce,focal,hybrid]},"
    "train.hybrid_weight_alpha:{type:float,low:0.1,high:0.9,points:2,when:{train.loss_function:hybrid}},"
    "train.focal_gamma:{type:float,low:1,high:5,points:2,when:{train.loss_function:[focal,hybrid]}},"
    "model.evidence_dropout:{type:float,low:0.0,high:0.5,points:2}}"
)
SETS = """
- {train.learning_rate: 5e-3, train.loss_function: hybrid, train.optimizer: adam}
- {train.loss_function: focal, train.focal_gamma: 2.5}
- {train.learning_rate: 1.0}
"""


def configuration(experiments: Path, sampler: str) -> Config:
    """A study of these proposals: those of a sampler, with sets before them where it says so."""
    sampler, _, enqueued = sampler.partition("+")
    sampler, _, option = sampler.partition(" ")
    overrides = [f"study.sampler={sampler}", f"study.enqueue_defaults={str(bool(enqueued)).lower()}"]
    overrides += [option] if option else []
    if enqueued:
        experiments.mkdir(exist_ok=True)
        (experiments / "sets.yaml").write_text(SETS)
        overrides.append(f"study.enqueue={experiments / 'sets.yaml'}")
    return compose([f"experiments={experiments}", SPACE, *overrides])


def open_optuna(config: Config) -> optuna.Study:
    """As a search that starts again does it: from what is on disk."""
    return optuna.create_study(study_name="s", storage=open_storage(config), direction="maximize", load_if_exists=True)


def ask(study: optuna.Study) -> optuna.Trial:
    """The trial that was begun and not ended, or a new one."""
    begun = unfinished(study)
    return reopen(study, begun[0]) if begun else study.ask()


def value_of(parameters: dict[str, Any]) -> float:
    return -((parameters["train.learning_rate"] - 4e-3) ** 2) * 1e5 - parameters["model.criteria_dropout"]


def proposals(study: optuna.Study, config: Config) -> Iterator[dict[str, Any]]:
    """Ask, draw and tell, one trial after the other."""
    first = presets(config, read_enqueued(config, ReDSM5()))
    while True:
        trial = ask(study)
        parameters = draw(study, trial, config, first)
        study.tell(trial, value_of(parameters))
        yield parameters


SAMPLERS = ["tpe", "tpe study.multivariate=true", "gp", "cmaes", "qmc", "random", "grid"]
WITH_SETS = [f"{sampler}+sets" for sampler in ("tpe", "tpe study.multivariate=true", "cmaes", "qmc", "grid")]


@pytest.fixture(scope="module", params=[*SAMPLERS, *WITH_SETS])
def sampler(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def uninterrupted(sampler: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    config = configuration(tmp_path_factory.mktemp("uninterrupted"), sampler)
    search = proposals(open_optuna(config), config)
    return [next(search) for _ in range(TRIALS)]


def test_every_proposal_is_within_its_range_and_they_differ(uninterrupted: list[dict[str, Any]], sampler: str) -> None:
    space = compose([SPACE]).search.space
    for parameters in uninterrupted[4 if "+" in sampler else 0 :]:
        assert list(parameters) == [name for name in space if name in parameters], "in the order of the space"
        for name, parameter in space.items():
            if name not in parameters:
                continue
            assert parameter.holds_value(parameters[name])
            if not isinstance(parameter, CategoricalParameter):
                assert isinstance(parameters[name], int if parameter.type == "int" else float)
    assert len({tuple(sorted(p.items())) for p in uninterrupted}) == TRIALS


def test_a_parameter_is_drawn_where_its_condition_holds_and_only_there(uninterrupted: list[dict[str, Any]]) -> None:
    conditional = {"train.hybrid_weight_alpha": ("hybrid",), "train.focal_gamma": ("focal", "hybrid")}
    for parameters in uninterrupted:
        for name, losses in conditional.items():
            assert (name in parameters) == (parameters["train.loss_function"] in losses)
    assert {p["train.loss_function"] for p in uninterrupted} == {"bce", "focal", "hybrid"}


def test_sets_come_first_with_the_configuration_s_own_values_for_the_rest(tmp_path: Path) -> None:
    config = configuration(tmp_path, "tpe+sets")
    search = proposals(open_optuna(config), config)
    own = {"train.accumulation_steps": 1, "model.evidence_dropout": 0.1, "train.batch_size": 8}
    own |= {"train.augmentation.methods": ""}
    own |= {"train.weight_decay": 0.01, "model.criteria_dropout": 0.1, "train.learning_rate": 4e-3}
    assert next(search) == own | {"train.loss_function": "bce"}
    hybrid = next(search)
    drawn = {name: hybrid.pop(name) for name in ("train.hybrid_weight_alpha", "train.focal_gamma")}
    assert 0.1 <= drawn["train.hybrid_weight_alpha"] <= 0.9, "the configuration has none of its own"
    changed = {"train.learning_rate": 5e-3, "train.loss_function": "hybrid", "train.optimizer": "adam"}
    assert hybrid == own | changed, "a key beside the space is set too"
    assert next(search) == own | {"train.loss_function": "focal", "train.focal_gamma": 2.5}
    assert next(search) == own | {"train.loss_function": "bce", "train.learning_rate": 1.0}, "as is a value beside it"


def test_a_search_that_is_opened_anew_before_every_trial_proposes_the_same(
    sampler: str, uninterrupted: list[dict[str, Any]], tmp_path: Path
) -> None:
    config = configuration(tmp_path, sampler)
    assert [next(proposals(open_optuna(config), config)) for _ in range(TRIALS)] == uninterrupted


def test_a_trial_that_was_drawn_and_not_told_is_drawn_the_same_again(
    sampler: str, uninterrupted: list[dict[str, Any]], tmp_path: Path
) -> None:
    config = configuration(tmp_path, sampler)
    first = presets(config, read_enqueued(config, ReDSM5()))
    for expected in uninterrupted:
        study = open_optuna(config)
        assert draw(study, ask(study), config, first) == expected
        study = open_optuna(config)
        trial = ask(study)
        assert draw(study, trial, config, first) == expected
        study.tell(trial, value_of(expected))


def interrupted_after(parameters: int) -> Callable[..., None]:
    """A storage's function that stores so many parameters."""
    left, store = parameters, JournalStorage.set_trial_param

    def store_or_interrupt(*args: Any) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        store(*args)

    return store_or_interrupt


@pytest.mark.parametrize("drawn", [1, 5])
def test_a_trial_that_was_half_drawn_is_completed_as_if_it_had_not_been_interrupted(
    sampler: str, uninterrupted: list[dict[str, Any]], tmp_path: Path, drawn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configuration(tmp_path, sampler)
    found = []
    first = presets(config, read_enqueued(config, ReDSM5()))
    for number in range(TRIALS):
        study = open_optuna(config)
        if number in (0, 5, TRIALS - 2, TRIALS - 1):
            monkeypatch.setattr(JournalStorage, "set_trial_param", interrupted_after(drawn))
            with pytest.raises(KeyboardInterrupt):
                draw(study, ask(study), config, first)
            monkeypatch.undo()
            study = open_optuna(config)
            space, values = config.search.space, uninterrupted[number]
            suggested = [name for name in values if name in space and space[name].holds_value(values[name])]
            assert sorted(ask(study).params) == sorted(suggested[:drawn])
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
    config = configuration(tmp_path, sampler)
    # With cmaes, and when a draw is repeated, each value is suggested twice: in the copy, and in the study.
    for kill_at in (19, 61) if "cmaes" in sampler else (9, 30):
        arguments = [str(Path(__file__).parent), str(tmp_path), sampler, str(kill_at)]
        command = [sys.executable, "-c", KILLED_IN_THE_MIDDLE, *arguments]
        killed = subprocess.run(command, capture_output=True, check=False, text=True)
        assert killed.returncode == -9, killed.stderr
        assert len(unfinished(open_optuna(config))) == 1
    study = open_optuna(config)
    search = proposals(study, config)
    while len(study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))) < TRIALS:
        next(search)
    suggested = [
        {k: v for k, v in p.items() if k in t.params} for p, t in zip(uninterrupted, study.get_trials(), strict=True)
    ]
    assert [t.params for t in study.get_trials()] == suggested


def draw_and_die(config: Config, first: list[Any], writes: int) -> None:
    """Draw a trial in a process that is killed before it writes so often to the storage, or after the draw."""
    append = JournalFileBackend.append_logs

    def append_or_die(self: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        nonlocal writes
        if writes == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        writes -= 1
        append(self, logs)

    if (child := os.fork()) == 0:
        try:
            study = open_optuna(config)
            JournalFileBackend.append_logs = append_or_die  # type: ignore[method-assign]
            draw(study, ask(study), config, first)
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("sampler", ["cmaes", "cmaes+sets", "tpe study.multivariate=true"], indirect=True)
def test_a_process_killed_at_any_write_of_a_draw_changes_no_proposal(
    uninterrupted: list[dict[str, Any]], sampler: str, tmp_path: Path
) -> None:
    """Of the trials from which CMA-ES's second generation starts, one after the other."""
    config = configuration(tmp_path / "before", sampler)
    (tmp_path / "before").mkdir(exist_ok=True)
    search = proposals(open_optuna(config), config)
    first = presets(config, read_enqueued(config, ReDSM5()))
    for number in range(TRIALS - 1):
        if number >= 8:
            writes_of_a_draw = 1 + len(uninterrupted[number]) + 2  # asking, the parameters, two attributes
            for writes in range(writes_of_a_draw + 1):
                interrupted = tmp_path / f"{number}-{writes}"
                shutil.copytree(tmp_path / "before", interrupted)
                again = config.model_copy(update={"experiments": str(interrupted)})
                draw_and_die(again, first, writes)
                following = proposals(open_optuna(again), again)
                assert [next(following), next(following)] == uninterrupted[number : number + 2]
        assert next(search) == uninterrupted[number]


# ---------------------------------------------------------------------------------------------------------------------
# what a sampler sees of the earlier trials


def paused_study(experiments: Path, config: Config, values: Callable[[int], float]) -> optuna.Study:
    """As many trials as TPE needs, of which each is paused after an epoch."""
    study = open_optuna(config.model_copy(update={"experiments": str(experiments)}))
    for number in range(TRIALS):
        trial = study.ask()
        draw(study, trial, config)
        trial.report(values(number), 1)
    return study


def as_pruned(trial: FrozenTrial) -> FrozenTrial:
    seen = copy.copy(trial)
    if trial.state == TrialState.RUNNING and trial.intermediate_values:
        seen.state, seen.datetime_complete = TrialState.PRUNED, trial.datetime_start
    return seen


def test_a_sampler_sees_paused_trials_as_the_caller_maps_them(tmp_path: Path) -> None:
    config = configuration(tmp_path, "tpe")

    def proposed(name: str, values: Callable[[int], float], seen: Callable[[FrozenTrial], FrozenTrial] | None) -> Any:
        (tmp_path / name).mkdir()
        study = paused_study(tmp_path / name, config, values)
        trial = study.ask()
        parameters = draw(study, trial, config, seen=seen)
        assert {t.state for t in study.get_trials()} == {TrialState.RUNNING}
        assert study.get_trials()[-1].params == parameters
        return parameters

    plain = proposed("plain", float, None)
    assert proposed("otherwise", lambda number: -float(number), None) == plain, "a paused trial has no result"
    rising, falling = proposed("rising", float, as_pruned), proposed("falling", lambda n: -float(n), as_pruned)
    assert plain not in (rising, falling)
    assert rising != falling
    assert proposed("again", float, as_pruned) == rising


def test_a_half_drawn_trial_sees_paused_trials_the_same_again(tmp_path: Path) -> None:
    config = configuration(tmp_path, "tpe")
    whole = paused_study(tmp_path, config, float)
    shutil.copytree(tmp_path, tmp_path / "killed", ignore=shutil.ignore_patterns("killed"))
    expected = draw(whole, whole.ask(), config, seen=as_pruned)
    half = open_optuna(config.model_copy(update={"experiments": str(tmp_path / "killed")}))
    trial = half.ask()
    (name, value), *_ = expected.items()
    assert isinstance(value, float), "the first one is a range"
    parameter = config.search.space[name]
    half.sampler = optuna.samplers.PartialFixedSampler(expected, optuna.samplers.RandomSampler())
    reopen(half, trial).suggest_float(name, parameter.low, parameter.high, log=parameter.log)
    assert draw(half, trial, config, seen=as_pruned) == expected


# ---------------------------------------------------------------------------------------------------------------------
# CMA-ES and multivariate TPE


def test_what_cmaes_notes_is_numbers_and_no_pickle(tmp_path: Path) -> None:
    config = configuration(tmp_path, "cmaes")
    study = open_optuna(config)
    search = proposals(study, config)
    for _ in range(TRIALS):
        next(search)
    noted = [trial.system_attrs for trial in study.get_trials()]
    assert [attrs["cma:generation"] for attrs in noted] == [0] * 8 + [1] * (TRIALS - 8), "4 + 3 ln 5 trials each"
    (told,) = [attrs[TOLD] for attrs in noted if TOLD in attrs]
    assert told == [0, [[t.number, t.value] for t in study.get_trials()[:8]]]
    assert {key for attrs in noted for key in attrs} == {TOLD, "cma:generation"}


def space_alone(folder: Path, text: str, *words: str) -> Config:
    """A configuration with this search space, and nothing of another one."""
    (folder / "space.yaml").write_text(text)
    return compose([f"experiments={folder / 'e'}", f"study.space={folder / 'space.yaml'}", *words])


def test_cmaes_draws_with_one_range_alone(tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    space = "train.accumulation_steps: {type: int, low: 1, high: 64}"
    config = space_alone(tmp_path, space, "study.sampler=cmaes", "study.enqueue_defaults=false")
    study = open_optuna(config)
    for _ in range(12):
        trial = study.ask()
        study.tell(trial, -abs(draw(study, trial, config)["train.accumulation_steps"] - 40))
    assert [t.system_attrs["cma:generation"] for t in study.get_trials()] == [n // 4 for n in range(12)]


def test_cmaes_refuses_a_space_without_a_range_that_every_trial_draws(tmp_path: Path) -> None:
    space = """
train.loss_function: {type: categorical, choices: [bce, focal]}
train.optimizer: {type: categorical, choices: [adam, adamw]}
train.focal_gamma: {type: float, low: 1, high: 5, when: {train.loss_function: focal}}
model.evidence_dropout: {type: float, low: 0.1, high: 0.1}
"""
    with pytest.raises(ConfigError) as caught:
        space_alone(tmp_path, space, "study.sampler=cmaes")
    assert caught.value.exit_code == 1
    for part in (
        "train.loss_function, train.optimizer: categorical",
        "train.focal_gamma: conditional",
        "model.evidence_dropout: one value",
    ):
        assert part in caught.value.what
    assert not (tmp_path / "e").exists()
    space_alone(tmp_path, space, "study.sampler=tpe")
    space_alone(tmp_path, space.replace("high: 0.1", "high: 0.2"), "study.sampler=cmaes")


def test_a_range_whose_condition_always_holds_is_drawn_always(tmp_path: Path) -> None:
    space = "train.focal_gamma: {type: float, low: 1, high: 5, when: {train.loss_function: focal}}"
    assert list(always_drawn(space_alone(tmp_path, space, "train.loss_function=focal"))) == ["train.focal_gamma"]
    assert always_drawn(space_alone(tmp_path, space, "train.loss_function=bce")) == {}


@pytest.mark.parametrize("sampler", ["gp", "cmaes", "qmc", "random", "grid"])
def test_multivariate_is_refused_with_another_sampler_than_tpe(sampler: str) -> None:
    with pytest.raises(ConfigError, match=rf"study\.multivariate=true .* not {sampler}") as caught:
        compose(["study.multivariate=true", f"study.sampler={sampler}"])
    assert caught.value.exit_code == 1
    assert compose(["study.multivariate=true"]).study.sampler == "tpe"


def test_multivariate_tpe_draws_otherwise_and_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drawn = []
    for sampler in ("tpe", "tpe study.multivariate=true"):
        (tmp_path / sampler).mkdir()
        config = configuration(tmp_path / sampler, sampler)
        search = proposals(open_optuna(config), config)
        drawn.append([next(search) for _ in range(TRIALS)])
    assert drawn[0][:10] == drawn[1][:10], "at random"
    assert drawn[0][10:] != drawn[1][10:]
    assert not caplog.records


# ---------------------------------------------------------------------------------------------------------------------
# the storage


def test_a_torn_journal_tail_is_repaired_and_the_search_goes_on(
    uninterrupted: list[dict[str, Any]], sampler: str, tmp_path: Path
) -> None:
    config = configuration(tmp_path, sampler)
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
    config = configuration(tmp_path, "tpe")
    study = open_optuna(config)
    study.ask()
    with (tmp_path / paths.OPTUNA_JOURNAL).open("ab") as file:
        file.write(b'{"op_code": 4, "wor')
    study.ask()
    assert len(open_optuna(config).get_trials()) == 2


def test_a_lock_whose_holder_was_killed_is_free(tmp_path: Path) -> None:
    config = configuration(tmp_path, "tpe")
    open_optuna(config).ask()
    script = (
        "import os, signal, sys; from pathlib import Path; from redsm5.engine import files\n"
        "assert files.Lock(Path(sys.argv[1])).acquire(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    lock = tmp_path / f"{paths.OPTUNA_JOURNAL}.lock"
    assert subprocess.run([sys.executable, "-c", script, str(lock)], check=False).returncode == -9
    assert len(open_optuna(config).get_trials()) == 1


def test_a_database_that_cannot_be_opened_is_refused_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"study\.storage names an unknown database") as caught:
        open_storage(compose([f"experiments={tmp_path}", "study.storage='nosuchdb://me:hunter2@host/db'"]))
    assert "hunter2" not in str(caught.value)
    assert caught.value.exit_code == 1
    assert caught.value.__suppress_context__


def test_what_a_database_says_is_one_line_without_the_password() -> None:
    url = "postgresql://me:hunter22@host/db"
    assert reason(ValueError("cannot connect\n\tas me with hunter22"), url) == "cannot connect as me with [redacted]"
    assert reason(ValueError(), url) == "ValueError"


def test_a_database_may_hold_the_study(tmp_path: Path) -> None:
    config = compose([f"experiments={tmp_path}", f"study.storage='sqlite:///{tmp_path}/optuna.db'"])
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


def test_the_sampler_is_the_one_that_the_study_names(tmp_path: Path) -> None:
    assert isinstance(make_sampler(configuration(tmp_path, "tpe"), 0), optuna.samplers.TPESampler)
    assert isinstance(make_sampler(configuration(tmp_path, "random"), 0), optuna.samplers.RandomSampler)
    assert isinstance(make_sampler(configuration(tmp_path, "cmaes"), 0), optuna.samplers.CmaEsSampler)
