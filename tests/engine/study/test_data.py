"""What a study says of its data before the first trial, what it refuses, and that an older one keeps its splits; with
a real driver and no training.
"""

import csv
import json
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from redsm5.config import Config, compose
from redsm5.data import load_splits
from redsm5.data.read import ANNOTATIONS_FILE, POSTS_FILE
from redsm5.data.synthesize import write_csvs
from redsm5.engine import paths
from redsm5.engine.errors import ConfigError, InputError, Interrupted
from redsm5.engine.study.driver import Driver
from redsm5.engine.study.launch import dry_run
from redsm5.engine.study.registry import study_config
from redsm5.engine.study.resuming import trial_config
from redsm5.task import ReDSM5
from tests.e2e.conftest import run

FEW = "symptoms that fewer than 5 posts of a split have: their scores say little"
Row = dict[str, str]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def rows_of(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A study of synthetic posts of which every second has a copy."""
    write_csvs(tmp_path, 60, 42)
    posts = rows_of(tmp_path / POSTS_FILE)
    copies = [{"post_id": f"copy_{i}", "text": f" {row['text'].upper()}"} for i, row in enumerate(posts[::2])]
    write(tmp_path / POSTS_FILE, [*posts, *copies])
    return compose(["data=csv", f"data.dir={tmp_path}", f"experiments={tmp_path / 'e'}", "study.trials=3"])


def ended(driver: Driver) -> Driver:
    """The driver, whose study another one can continue."""
    driver.control.leave()
    return driver


def logged(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, object]]:
    """What the driver says before the next trial, by its message; there it is stopped."""

    def stopped(self: Driver) -> None:
        raise Interrupted("stopped before the trial")

    monkeypatch.setattr(Driver, "_next_trial", stopped)
    monkeypatch.setattr(Driver, "_recover", lambda self: None)
    monkeypatch.setattr(driver.shipper, "start", lambda: None)
    monkeypatch.setattr(driver.shipper, "close", lambda hurried: 0)
    with pytest.raises(Interrupted):
        driver.run(standby=None)  # type: ignore[arg-type]
    lines = (driver.folder / paths.LOGS / "log.jsonl").read_text().splitlines()
    return {line["message"]: line["context"] for line in map(json.loads, lines)}


def test_a_new_study_keeps_copies_together_and_counts_them(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(ReDSM5(), config)
    said = logged(driver, monkeypatch)
    counts = next(context for message, context in said.items() if "trials are done" in message)
    assert (counts["duplicate_posts"], counts["duplicate_groups"]) == (60, 30)
    assert said[FEW]["PSYCHOMOTOR"] == "train 1, validation 0, test 0"
    assert not [message for message in said if "duplicates of a post may" in message]
    splits = load_splits(config.data)
    assert driver.board.study.data_fingerprint == splits.fingerprint
    train, validation = ({post.text.strip().casefold() for post in part} for part in (splits.train, splits.validation))
    assert not train & validation


def test_a_study_that_an_older_version_began_goes_on_with_its_own_splits(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = config.model_copy(update={"data": config.data.model_copy(update={"group_duplicates": False})})
    first = ended(Driver(ReDSM5(), before))
    path = first.folder / paths.STUDY
    document = json.loads(path.read_bytes())
    del document["config"]["data"]["group_duplicates"]  # as it was written before there was the key
    path.write_text(json.dumps(document))
    fingerprint = document["data_fingerprint"]
    assert fingerprint == load_splits(before.data).fingerprint != load_splits(config.data).fingerprint

    words = ["data=csv", f"data.dir={config.data.dir}", f"experiments={config.experiments}", "study.trials=3"]
    for _ in range(2):
        driver = ended(Driver(ReDSM5(), study_config(Config, words)[0]))
        assert driver.folder == first.folder
        assert driver.board.study.data_fingerprint == fingerprint
        claimed = driver._next_trial()
        assert claimed is not None
        claim, _, trial_id = claimed
        claim.release()
        trial = trial_config(Config, [f"trial.id={trial_id}", f"experiments={config.experiments}"])
        assert load_splits(trial.data).fingerprint == fingerprint
        assert json.loads(path.read_bytes())["config"]["data"]["group_duplicates"] is False
    said = logged(driver, monkeypatch)
    assert [context for message, context in said.items() if "duplicates of a post may" in message] == [
        {"duplicate_posts": 60}
    ]


def test_a_study_that_this_version_began_does_not_change_its_way_to_split(config: Config) -> None:
    ended(Driver(ReDSM5(), config))
    other = config.model_copy(update={"data": config.data.model_copy(update={"group_duplicates": False})})
    with pytest.raises(ConfigError, match=r"data\.group_duplicates: True before, False now"):
        Driver(ReDSM5(), other)


def test_a_study_from_before_other_tables_could_be_read_goes_on(config: Config) -> None:
    first = ended(Driver(ReDSM5(), config))
    path = first.folder / paths.STUDY
    document = json.loads(path.read_bytes())
    for key in ("path", "columns"):
        del document["config"]["data"][key]
    path.write_text(json.dumps(document))
    assert ended(Driver(ReDSM5(), config)).folder == first.folder
    tables = compose(["data=dataset", f"data.path={config.data.dir}", f"experiments={config.experiments}"])
    with pytest.raises(ConfigError, match=r"data\.source: csv before, dataset now"):
        Driver(ReDSM5(), tables)


def test_a_study_of_other_tables_keeps_its_columns(config: Config) -> None:
    folder = Path(config.data.dir or "")
    rows = [
        {"body" if name == "text" else name: cell for name, cell in row.items()} for row in rows_of(folder / POSTS_FILE)
    ]
    write(folder / POSTS_FILE, rows)
    words = ["data=dataset", f"data.path={folder}", f"experiments={config.experiments}", "study.trials=3"]
    first = ended(Driver(ReDSM5(), compose([*words, "data.columns.text=body"])))
    assert ended(Driver(ReDSM5(), compose([*words, "data.columns.text=body"]))).folder == first.folder
    write(folder / POSTS_FILE, [{**row, "text": row["body"]} for row in rows])
    with pytest.raises(ConfigError, match=r"data\.columns\.text: body before, None now"):
        Driver(ReDSM5(), compose(words))


def keep_symptoms_of(posts: int, folder: Path) -> None:
    """Leave so many posts with a symptom."""
    rows = rows_of(folder / ANNOTATIONS_FILE)
    kept = list(dict.fromkeys(row["post_id"] for row in rows if row["status"] == "1"))[:posts]
    for row in rows:
        row["status"] = row["status"] if row["post_id"] in kept else "0"
    write(folder / ANNOTATIONS_FILE, rows)


@pytest.mark.parametrize("script", ["launch.py", "baseline.py"])
def test_a_trial_and_the_baseline_refuse_posts_without_a_symptom_like_a_study(
    config: Config, tmp_path: Path, script: str
) -> None:
    keep_symptoms_of(0, tmp_path)
    said = run(script, "data=csv", f"data.dir={tmp_path}", f"experiments={tmp_path / 'e'}", expect=1)
    assert "error: data: no post has a symptom" in said
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize("begin", [partial(Driver, ReDSM5()), partial(dry_run, ReDSM5())], ids=["Driver", "dry_run"])
@pytest.mark.parametrize("kept", [0, 1])
def test_a_study_in_which_nothing_can_be_learned_or_chosen_is_refused_before_anything_is_written(
    config: Config, tmp_path: Path, kept: int, begin: Callable[[Config], object]
) -> None:
    keep_symptoms_of(kept, tmp_path)
    with pytest.raises(InputError, match="split has a symptom" if kept else "no post has a symptom"):
        begin(config)
    assert not (tmp_path / "e").exists()
