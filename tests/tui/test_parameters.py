"""Which parameters matter, how the trials ran, what the best have in common: as computed, drawn, and kept current."""

import pytest

from redsm5.engine import paths
from redsm5.engine.records import Best
from redsm5.reports import ParameterImportance
from tests.tui.pilots import notices, pressed, settled, shown, until, words
from tests.tui.searched import importance, searched, summarized
from tui import app as app_module
from tui.app import TerminalApp
from tui.panels.axis import Axis, axis_of
from tui.panels.parallel import BEST, FIFTH, REST, SELECTED, Parallel, Path, draw
from tui.panels.parameters import MOST_DRAWN, bars, common, drawn, in_common, ordered, parallel, ranked
from tui.read.reader import Snapshot
from tui.read.trials import Trials
from tui.read.view import View
from tui.write import control

RATE, HEAD = "train.learning_rate", "model.criteria_head_type"


@pytest.fixture(autouse=True)
def _on_demand(monkeypatch):
    monkeypatch.setattr(app_module, "POLL_S", 600)


def many(folder, count, **changes):
    """Completed trials, of which the last is the best."""
    first = folder.trial(None, 0, "completed")
    return Trials(
        first.model_copy(
            update={
                "trial_id": f"t{n}",
                "number": n,
                "best": Best(epoch=1, value=n / count),
                "parameters": {RATE: 10.0 ** (n / count), HEAD: "gated" if n >= count // 2 else "mlp"},
            }
            | changes
        )
        for n in range(count)
    )


# ---------------------------------------------------------------------------------------------------------------------
# what it comes to


def test_the_most_important_parameter_is_first_and_those_of_which_nothing_is_told_last():
    told = importance("s", broken=ParameterImportance(share=float("nan"), trials=3, conditional=False))
    keys = ["broken", "model.criteria_hidden_dim", "train.batch_size", HEAD, RATE]
    assert ordered(keys, told) == [RATE, HEAD, "train.batch_size", "broken", "model.criteria_hidden_dim"]
    assert ordered(keys, None) == keys


def test_only_completed_trials_that_were_trained_are_ranked(folder):
    trials = many(folder, 12)
    others = [
        trials[11].model_copy(update={"trial_id": "p", "state": "pruned"}),
        trials[11].model_copy(update={"trial_id": "d", "duplicate_of": "t11"}),
        trials[11].model_copy(update={"trial_id": "n", "best": Best(epoch=1, value=float("nan"))}),
    ]
    assert [one.trial.number for one in ranked(Trials([*trials, *others]))] == [*range(11, -1, -1)]


def test_of_thousands_the_best_and_the_newest_are_drawn(folder):
    worst_newest = many(folder, 2000)
    turned = Trials(t.model_copy(update={"best": Best(epoch=1, value=-t.best.value)}) for t in worst_newest)
    found = drawn(ranked(turned))
    assert len(found) == MOST_DRAWN
    assert {one.trial.number for one in found} == {*range(250), *range(1750, 2000)}
    assert [one.value for one in found] == sorted((one.value for one in found), reverse=True)


@pytest.mark.parametrize(
    ("values", "log", "words", "middle"),
    [
        ([1e-6, 1e-4], True, (), "1e-05"),
        ([1.0, 20.0], False, (), "10.5"),
        ([0.0, 100.0], False, (), "50"),
        ([8, 16, float("nan"), 10**400, None], False, (), "12"),
        (["b", "a", None, "c"], False, ("a", "b", "c"), "b"),
        ([True, False], False, ("False", "True"), "False"),
        ([7, 7], False, (), "7"),
    ],
)
def test_axes(values, log, words, middle):
    axis = axis_of("x", values)
    assert (axis.log, axis.words, axis.label(0.5)) == (log, words, middle)
    assert all(axis.place(v) is None for v in values if v is None or v == 10**400)
    assert all(0 <= axis.place(v) <= 1 for v in values if isinstance(v, str) or v in (7, 8, 16, 1e-6, 100.0))


def test_what_the_best_tenth_has_in_common_is_told_against_all(folder):
    found = ranked(many(folder, 40))
    rate, head = (common([one.trial.parameters for one in found], key) for key in (RATE, HEAD))
    assert (rate.low, rate.high) == pytest.approx((10 ** (36 / 40), 10 ** (39 / 40)))
    assert dict(head.best) == {"gated": 4}
    assert dict(head.all) == {"gated": 20, "mlp": 20}
    page = in_common(found, [RATE, HEAD, "none"], 76).plain.split("\n")
    assert page[0].split("  ")[-2:] == ["7.94 – 9.44", "of 1 – 9.44"]
    assert page[0].count("━") == 4
    assert "gated 4/4 (all 50%)" in page[1]
    assert "(0 of 4 have it)" in page[2]
    assert "fewer than 10" in in_common(found[:9], [RATE], 76).plain


def test_the_share_is_a_bar_and_where_it_cannot_be_told_stands_why():
    page = bars(importance("s"), [RATE, "model.criteria_hidden_dim", "other"], 60, "").plain.split("\n")
    assert page[0].startswith("lr            43.1% █")
    assert page[1].split(None, 2) == ["hidden", "–", "fewer than 10 completed trials have it"]
    assert page[2].split(None, 2) == ["other", "–", "not searched"]
    assert "i computes" in bars(None, [RATE], 60, "").plain


# ---------------------------------------------------------------------------------------------------------------------
# parallel coordinates


def test_the_best_fifth_lies_above_the_others_and_the_best_on_top(folder):
    trials = many(folder, 20)
    view = View(Snapshot(folder.root, trials=trials), selected="t3")
    paths_ = parallel(view, drawn(ranked(trials)), [RATE, HEAD]).paths
    assert [path.layer for path in paths_] == [REST] * 15 + [FIFTH] * 3 + [SELECTED, BEST]
    assert [path.label for path in paths_ if path.label] == ["▸ #3", "★ #19"]
    assert list(paths_[-1].places) == [1.0, 0.0, 1.0]


def test_a_selected_trial_that_was_pruned_is_drawn_too(folder):
    trials = many(folder, 20)
    trials = Trials([*trials[:3], trials[3].model_copy(update={"state": "pruned"}), *trials[4:]])
    data = parallel(View(Snapshot(folder.root, trials=trials), selected="t3"), drawn(ranked(trials)), [RATE])
    assert "▸ #3" in [path.label for path in data.paths]


def test_lines_go_from_axis_to_axis_and_end_where_a_parameter_is_missing():
    axes = [Axis("one", 0, 1), Axis("two", 0, 1), Axis("end", 0, 1)]
    flat = draw(Parallel(axes, [Path([0.5, 0.5, 0.5], BEST, "★ #1")]), 50, 12).plain.split("\n")
    assert flat[0].split() == ["one", "two", "end"]
    assert all(len(line) <= 50 for line in flat)
    middle = next(line for line in flat if "★ #1" in line)
    assert sum("⠀" < c <= "⣿" for c in middle) > 25
    broken = draw(Parallel(axes, [Path([0.5, None, 0.5], BEST, "★ #1")]), 50, 12).plain
    assert not any("⠀" < c <= "⣿" for c in broken)


def test_labels_at_one_height_stand_one_above_the_other():
    axes = [Axis("one", 0, 1), Axis("end", 0, 1)]
    page = draw(Parallel(axes, [Path([0, 1.0], SELECTED, "▸ #2"), Path([0, 1.0], BEST, "★ #1")]), 50, 10).plain
    lines = page.split("\n")
    assert "★ #1" in lines[1]
    assert "▸ #2" in lines[2]


# ---------------------------------------------------------------------------------------------------------------------
# the screen


@pytest.mark.asyncio
async def test_it_says_of_how_many_trials_the_summary_is_and_shows_a_new_one(frozen):
    study = searched(frozen)
    app = TerminalApp(frozen.root)
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot)
        await pressed(pilot, "7")
        assert "No summary of this study yet" in shown(app)
        assert "best 4 of 39" in shown(app)
        summarized(frozen, study)
        await settled(pilot)
        assert "07:31:00, of 35 of 39 trials" in shown(app)
        assert "43.1%" in shown(app)
        (paths.study_dir(frozen.root, study) / paths.SUMMARY).write_text("{")
        await settled(pilot)
        assert app.is_running


@pytest.mark.asyncio
@pytest.mark.parametrize("read_only", [True, False])
async def test_i_computes_it_in_the_background_and_keeps_it_also_read_only(frozen, monkeypatch, read_only):
    study = searched(frozen)
    summarized(frozen, study)
    newer = importance(study, 39, 0.5).model_copy(update={"generated_at": "2026-03-14T07:40:00.000Z"})
    monkeypatch.setattr(control, "importance", lambda experiments, study_id: newer)
    app = TerminalApp(frozen.root, read_only=read_only)
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot)
        await pressed(pilot, "7", "i")
        await until(pilot, lambda: "of 39 of 39 trials" in shown(app) and "50.0%" in shown(app))


@pytest.mark.asyncio
async def test_where_it_cannot_be_computed_it_says_why(frozen, monkeypatch):
    searched(frozen)

    def refuse(experiments, study_id):
        raise OSError("[red] it is damaged")

    monkeypatch.setattr(control, "importance", refuse)
    app = TerminalApp(frozen.root)
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot)
        await pressed(pilot, "7", "i")
        await until(pilot, lambda: "it cannot be computed: [red] it is damaged" in words(app))
        assert not notices(app)


@pytest.mark.asyncio
async def test_it_is_drawn_anew_only_when_a_trial_has_completed(frozen, monkeypatch):
    study = searched(frozen)
    drawings = []
    monkeypatch.setattr("tui.panels.parallel.draw", lambda *args: drawings.append(args) or draw(*args))
    monkeypatch.setattr("tui.screens.parameters.ranked", lambda trials: drawings.append(trials) or ranked(trials))
    app = TerminalApp(frozen.root)
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot)
        await pressed(pilot, "7")
        await settled(pilot)
        before = len(drawings)
        running = paths.trial_dir(frozen.root, frozen.id(study, 43)) / paths.TRIAL
        frozen.rewrite(running, epoch=9)
        await settled(pilot)
        assert len(drawings) == before
        frozen.rewrite(running, state="completed")
        await settled(pilot)
        await settled(pilot)
        assert len(drawings) > before
        assert "40 trials" in shown(app)


def test_the_command_prints_what_it_computes_and_writes_nothing(folder):
    study = searched(folder, 12)
    space = {RATE: {"type": "float", "low": 1e-6, "high": 1e-3, "log": True}}
    record = paths.study_dir(folder.root, study) / paths.STUDY
    folder.rewrite(record, config={"search": {"space": space}})
    before = sorted(folder.root.rglob("*"))
    told = control.importance(folder.root, study)
    assert sorted(folder.root.rglob("*")) == before
    assert told.study_id == study
    assert told.completed == 10
