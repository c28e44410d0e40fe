"""How the best trials stand to each other and to the baseline, as the app reads and shows it."""

from types import SimpleNamespace

import pytest

from redsm5.engine import paths
from redsm5.noise import Scores
from tests.evaluation.conftest import report_of
from tests.test_noise import METRIC, scored, written
from tui.app import TerminalApp
from tui.panels import compare, overview, study, trials
from tui.panels import report as report_panel
from tui.read.look import Looker, Wanted
from tui.read.standing import Standing

from .pilots import pressed, settled, shown


@pytest.fixture
def noisy(folder):
    """Four completed trials, of which the last is the best, the third is within noise of it, and the first is not; the
    second left no samples. The best one's test score is far below, and the baseline beats it.
    """
    folder.study(states=("completed",) * 4, state="completed", wanted=4)
    ids = [folder.id(next(iter(folder.root.glob("study_*"))).name.removeprefix("study_"), n) for n in range(4)]
    for number, value, seed in ((0, 0.3, 1), (2, 0.44, 1), (3, 0.45, 2)):
        scores = Scores(scored(value, seed=seed), scored(0.2, seed=3))
        written(paths.trial_dir(folder.root, ids[number]), scores, ids[number])
    study_file = next(folder.root.glob("study_*/study.json"))
    folder.rewrite(study_file, data_fingerprint="f")
    baseline = written(folder.root / "baseline_b", Scores(None, scored(0.6, seed=4)), "b")
    report = report_of("b", data_fingerprint="f", optimization_metric_name=METRIC, best_validation_score=0.55)
    (baseline / paths.REPORT).write_bytes(report.to_json())
    return SimpleNamespace(root=folder.root, ids=ids)


def looked(root, looks=3):
    looker = Looker(root)
    for _ in range(looks):  # the first one reads no scores
        view = looker.look(Wanted())
    return view


def test_near_trials_are_those_within_noise_of_the_best(noisy):
    view = looked(noisy.root)
    assert view.snapshot.trials.best.trial_id == noisy.ids[3]
    assert view.standing.near == {noisy.ids[2]}
    assert view.standing.intervals.keys() == {noisy.ids[0], noisy.ids[2], noisy.ids[3]}
    assert (view.standing.value, view.standing.test_f1_macro) == (0.55, 0.612)
    said = " ".join(view.standing.remarks)
    assert "1 other trial is within noise of the best, of 2" in said
    assert "more than noise" in said
    assert "it is not beaten" in said


def test_the_first_look_reads_no_scores(noisy):
    assert looked(noisy.root, 1).standing == Standing()


def test_a_folder_without_samples_has_no_standing(folder):
    folder.study(states=("completed",) * 3, state="completed", wanted=3)
    assert looked(folder.root).standing == Standing()


def test_a_new_trial_is_read_and_a_damaged_file_does_not_matter(noisy, folder):
    looker = Looker(noisy.root)
    for _ in range(3):
        view = looker.look(Wanted())
    (paths.trial_dir(noisy.root, noisy.ids[0]) / paths.PREDICTIONS).write_text("{")
    assert looker.look(Wanted()).standing == view.standing, "it was read"
    assert looked(noisy.root).standing.intervals.keys() == {noisy.ids[2], noisy.ids[3]}


def test_panels_say_what_is_within_noise(noisy):
    view = looked(noisy.root)
    standing, best = view.standing, noisy.ids[3]
    low, high = standing.intervals[best]
    assert f"[{low:.3f}, {high:.3f}] · 1 within noise" in study.best(view)
    assert "it is not beaten" in overview.leader(view).plain
    assert "it is not beaten" in overview.page(view)
    by_id = view.snapshot.trials.by_id
    assert "within noise of the best" in trials.detail(by_id[noisy.ids[2]], view).plain
    assert "within noise" not in trials.detail(by_id[noisy.ids[0]], view).plain
    columns = trials.columns(view.snapshot.trials, METRIC, {})
    signs = {trial_id: str(trials.cells(by_id[trial_id], view, columns)[0]) for trial_id in noisy.ids}
    assert [signs[trial_id][0] for trial_id in noisy.ids] == [" ", " ", "≈", "★"]
    page = report_panel.report(report_of(noisy.ids[2]), standing, 80).plain
    assert "≈ within noise of the best" in page
    assert "baseline 0.550 on validation, test macro F1 0.612" in page
    details = [Looker(noisy.root).look(Wanted(needs="marked", marked=(i,))).details[i] for i in noisy.ids[2:]]
    page = compare.parameters(details, standing).plain
    assert "≈ the best" in page
    assert "95 % interval" in page


@pytest.mark.asyncio
async def test_the_app_shows_it(noisy):
    app = TerminalApp(noisy.root)
    async with app.run_test(size=(160, 48)) as pilot:
        for _ in range(3):
            app.hurry()
            await settled(pilot)
        assert "1 within noise" in shown(app)
        await pressed(pilot, "2")
        await settled(pilot)
        assert "≈" in shown(app)
