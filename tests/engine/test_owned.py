"""What is ours in an experiments folder, and that nothing else is ever deleted, by whichever way things go."""

import json
import os
import uuid
from pathlib import Path

import pytest

from redsm5.config import compose
from redsm5.engine import files, owned, paths
from redsm5.engine.records import Best
from redsm5.engine.spec import snapshot_of
from redsm5.engine.storage.budget import free_trial
from redsm5.engine.storage.cleanup import cleanup
from redsm5.engine.storage.retention import Policy
from redsm5.engine.storage.store import CheckpointStore, read_checkpoint, read_verified
from tests.engine.storage.saver import contents, manifest_of, record_of

ID = "11111111-2f3a-4b5c-8d7e-9f0a1b2c3d4e"
PRECIOUS = b"a week's work"


def store_of(trial: Path) -> CheckpointStore:
    return CheckpointStore(trial, Policy(keep_all=True), log=lambda *_, **__: None)


def make_trial(experiments: Path, state: str = "completed", epochs: int = 2, study_id: str | None = ID) -> Path:
    """A trial as a process leaves it that was killed before it dropped anything."""
    trial_id = str(uuid.uuid4())
    trial = paths.trial_dir(experiments, trial_id)
    store = store_of(trial)
    for epoch in range(1, epochs + 1):
        store.commit(manifest_of(trial_id, epoch, epoch / 10), contents(epoch))
    record = record_of(trial_id, study_id, state=state, best=Best(epoch=epochs, value=epochs / 10))
    files.write_atomic(trial / paths.TRIAL, record.to_json())
    config = {**snapshot_of(compose([])), "retention": {"keep_last_n": 1}}
    (trial / paths.CONFIG).write_text(json.dumps(config))
    (trial / paths.REPORT).write_text("{}\n")
    return trial


@pytest.fixture
def experiments(tmp_path: Path) -> Path:
    folder = tmp_path / "experiments"
    study = paths.study_dir(folder, ID)
    study.mkdir(parents=True)
    (study / paths.STUDY).write_text("{}")
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder outside, with a whole checkpoint and a file in it."""
    (tmp_path / "outside").mkdir()
    trial = make_trial(tmp_path / "outside")
    (trial / paths.CHECKPOINTS / "notes.txt").write_bytes(PRECIOUS)
    return trial


def everything(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


# ---------------------------------------------------------------------------------------------------------------------
# names


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        (f"trial_{ID}", True),
        (f"study_{ID}", True),
        ("study_notes", False),
        ("trial_notes", False),
        (f"trial_{ID}.bak", False),
        (f"trial_{ID.upper()}", False),
        (f"trial_{ID}\n", False),
        (f"copy_{ID}", False),
    ],
)
def test_a_folder_is_ours_by_its_uuid_alone(tmp_path: Path, name: str, ours: bool) -> None:
    (tmp_path / name).mkdir()
    assert bool(paths.trial_dirs(tmp_path) + paths.study_dirs(tmp_path)) == ours


def test_a_link_or_a_file_with_the_name_of_a_folder_is_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / f"trial_{ID}").symlink_to(tmp_path / "away")
    (tmp_path / f"study_{ID}").write_text("")
    assert paths.trial_dirs(tmp_path) + paths.study_dirs(tmp_path) == []


def test_what_is_not_ours_is_found_at_any_depth_and_every_link_is_none(tmp_path: Path) -> None:
    trial = make_trial(tmp_path)
    (trial / paths.LOGS).mkdir()
    for name in ("log.jsonl", "log.jsonl.2026-01-31.001", "output.log"):
        (trial / paths.LOGS / name).touch()
    for name in (".trial.json.tmp", "lock.held", paths.BUDGET_LOCK, paths.REPORT_PAGE):
        (trial / name).touch()
    (trial / paths.CHECKPOINTS / ".tmp-epoch-0003-0a1b2c3d").mkdir()
    assert owned.strangers(trial) == []
    alien = [
        "epoch-0001.txt",
        "notes",
        "logs/train.log",
        "checkpoints/best.safetensors",
        "checkpoints/epoch-0001/notes.txt",
        "checkpoints/epoch-0001/deep",
        "checkpoints/.tmp-mine",
    ]
    for name in alien:
        (trial / name).mkdir() if name in ("notes", alien[5], alien[6]) else (trial / name).touch()
    (trial / "notes" / "deeper.txt").touch()
    (trial / paths.SHIPPED).symlink_to("/dev/null")
    assert owned.strangers(trial) == sorted(trial / name for name in [*alien, paths.SHIPPED])


# ---------------------------------------------------------------------------------------------------------------------
# checkpoints in which somebody's file lies


@pytest.mark.parametrize("way", ["retention", "finish", "quarantined", "eviction", "cleanup", "training state"])
def test_somebodys_file_in_a_checkpoint_stays_where_it_is(experiments: Path, way: str) -> None:
    trial = make_trial(experiments)
    store = store_of(trial)
    precious = trial / paths.CHECKPOINTS / "epoch-0001" / "notes.txt"
    precious.write_bytes(PRECIOUS)
    if way == "retention":
        store.delete(read_checkpoint(precious.parent), "superseded")
    elif way == "finish":
        store.policy = Policy()
        store.finish()
    elif way == "quarantined":
        store.quarantine("epoch-0001", "damaged")
        assert (trial / paths.CHECKPOINTS / ".damaged-epoch-0001" / paths.WEIGHTS).exists()
        store.drop_quarantined()
    elif way == "eviction":
        record = record_of(trial.name.removeprefix("trial_"), ID, state="failed")
        free_trial(trial, record, states_only=False, reason="budget", log=lambda *_, **__: None)
    elif way == "cleanup":
        found = cleanup(experiments, execute=True, evict=True)
        assert (precious, "not written by redsm5: it is not touched, but its bytes count") in found.skipped
    else:
        store.strip(read_checkpoint(precious.parent), "weights suffice")
        (precious.parent / paths.WEIGHTS).unlink()
    assert precious.read_bytes() == PRECIOUS
    left = {path.name for path in precious.parent.iterdir()} - {"notes.txt"}
    assert left == ({paths.MANIFEST, paths.SUMS} if way == "training state" else set())
    assert ("epoch-0001" in store_of(trial).names()) == (way == "training state")


def test_an_epoch_that_is_saved_again_beside_somebodys_file_verifies(experiments: Path) -> None:
    trial = make_trial(experiments, epochs=1)
    store = store_of(trial)
    folder = trial / paths.CHECKPOINTS / "epoch-0001"
    (folder / "notes.txt").write_bytes(PRECIOUS)
    store.quarantine("epoch-0001", "damaged")
    assert store.checkpoints() == []
    store.commit(manifest_of(trial.name.removeprefix("trial_"), 1, 0.5), contents(7))
    assert read_verified(folder)[paths.WEIGHTS] == contents(7)[paths.WEIGHTS]
    assert (folder / "notes.txt").read_bytes() == PRECIOUS
    assert not list(trial.glob("checkpoints/.tmp-*"))


def test_somebodys_file_in_what_was_quarantined_stays_when_that_happens_again(experiments: Path) -> None:
    trial = make_trial(experiments, epochs=1)
    store = store_of(trial)
    store.quarantine("epoch-0001", "damaged")
    precious = trial / paths.CHECKPOINTS / ".damaged-epoch-0001" / "notes.txt"
    precious.write_bytes(PRECIOUS)
    store.commit(manifest_of(trial.name.removeprefix("trial_"), 1, 0.5), contents(7))
    store.quarantine("epoch-0001", "damaged again")
    assert store.names() == []
    assert (precious.parent / paths.WEIGHTS).read_bytes() == contents(7)[paths.WEIGHTS]
    store.drop_quarantined()
    assert [path.name for path in precious.parent.iterdir()] == ["notes.txt"]


def test_a_folder_with_the_name_of_a_checkpoint_in_which_nothing_of_ours_lies_is_somebodys(experiments: Path) -> None:
    trial = make_trial(experiments)
    mine = trial / paths.CHECKPOINTS / "epoch-2024"
    mine.mkdir()
    (mine / "my.txt").write_bytes(PRECIOUS)
    before = everything(mine)
    cleanup(experiments, execute=True, evict=True)
    store = store_of(trial)
    store.finish()
    assert "epoch-2024" not in store.names()
    assert everything(mine) == before


def test_a_file_in_the_place_of_a_checkpoint_is_refused_and_the_trial_can_go_on(experiments: Path) -> None:
    trial = make_trial(experiments, epochs=1)
    (trial / paths.CHECKPOINTS / "epoch-0002").write_bytes(PRECIOUS)
    store = store_of(trial)
    with pytest.raises(owned.NotOursError, match=r"epoch-0002: a checkpoint must be saved there") as refused:
        store.commit(manifest_of(trial.name.removeprefix("trial_"), 2, 0.5), contents(2))
    assert refused.value.resumable
    assert (trial / paths.CHECKPOINTS / "epoch-0002").read_bytes() == PRECIOUS


# ---------------------------------------------------------------------------------------------------------------------
# whole folders


def test_a_trial_of_a_study_that_is_gone_stays_if_somebodys_file_lies_in_it(experiments: Path) -> None:
    kept, gone = (make_trial(experiments, study_id="22222222-2f3a-4b5c-8d7e-9f0a1b2c3d4e") for _ in range(2))
    (kept / "notes.txt").write_bytes(PRECIOUS)
    before = everything(kept)
    found = cleanup(experiments, execute=True)
    assert everything(kept) == before | {paths.LOCK: b""}
    assert not gone.exists()
    assert found.skipped == [(kept, "not deleted, since it contains files that redsm5 did not write: notes.txt")]


def test_a_study_behind_a_link_that_leads_nowhere_now_is_not_gone(experiments: Path) -> None:
    study_id = str(uuid.uuid4())
    paths.study_dir(experiments, study_id).symlink_to("/not/mounted/now")
    trial = make_trial(experiments, study_id=study_id)
    cleanup(experiments, execute=True)
    assert (trial / paths.TRIAL).exists()


@pytest.mark.parametrize("name", ["study_notes", "trial_notes", ".trash-trial_notes", f"trial_{ID}.old"])
def test_folders_with_a_name_like_ours_are_left_alone(experiments: Path, name: str) -> None:
    mine = experiments / name
    (mine / "checkpoints" / "epoch-2024").mkdir(parents=True)
    (mine / "checkpoints" / "epoch-2024" / "my.txt").write_bytes(PRECIOUS)
    before = everything(mine)
    found = cleanup(experiments, execute=True, evict=True)
    assert everything(mine) == before
    assert [path for path, _ in found.skipped] == [mine]


@pytest.mark.parametrize(
    "entry", ["notes.txt", paths.STUDY, paths.EVENTS, paths.BUDGET, "logs/log.jsonl", "control/mine", paths.SUMMARY]
)
def test_a_study_in_which_anything_lies_was_begun(experiments: Path, entry: str) -> None:
    study = paths.study_dir(experiments, str(uuid.uuid4()))
    (study / paths.CONTROL).mkdir(parents=True)
    (study / paths.INDEX).write_text('{"trials": []}')
    assert owned.was_never_begun(study)
    (study / entry).parent.mkdir(exist_ok=True)
    (study / entry).touch()
    assert not owned.was_never_begun(study)


def test_a_study_whose_index_has_trials_was_begun(experiments: Path) -> None:
    study = paths.study_dir(experiments, str(uuid.uuid4()))
    study.mkdir()
    (study / paths.INDEX).write_text('{"trials": [{}]}')
    assert not owned.was_never_begun(study)
    assert (study, f"it has no {paths.STUDY}: a study without its record is not touched") in cleanup(
        experiments, execute=True
    ).skipped


# ---------------------------------------------------------------------------------------------------------------------
# links


def test_nothing_is_deleted_through_a_link(experiments: Path, elsewhere: Path) -> None:
    """Linked: a trial; all checkpoints of one; one checkpoint, with valid sums; a file of one."""
    before = everything(elsewhere)
    (experiments / elsewhere.name).symlink_to(elsewhere)
    all_linked, one_linked = make_trial(experiments), make_trial(experiments)
    for path in sorted((all_linked / paths.CHECKPOINTS).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (all_linked / paths.CHECKPOINTS).rmdir()
    (all_linked / paths.CHECKPOINTS).symlink_to(elsewhere / paths.CHECKPOINTS)
    (one_linked / paths.CHECKPOINTS / "epoch-0009").symlink_to(elsewhere / paths.CHECKPOINTS / "epoch-0001")
    (one_linked / paths.CHECKPOINTS / ".trash-epoch-0008").symlink_to(elsewhere / paths.CHECKPOINTS / "epoch-0002")
    found = cleanup(experiments, execute=True, evict=True)
    assert everything(elsewhere) == before
    named = {path for path, _ in found.skipped}
    assert {experiments / elsewhere.name, all_linked} <= named
    assert {one_linked / paths.CHECKPOINTS / name for name in ("epoch-0009", ".trash-epoch-0008")} <= named
    store = store_of(one_linked)
    store.policy = Policy()
    store.finish()
    assert everything(elsewhere) == before
    assert store.names() == ["epoch-0002"]


def test_linked_checkpoints_are_supported_from_the_first_start_on(experiments: Path, tmp_path: Path) -> None:
    trial = make_trial(experiments, state="queued", epochs=0)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (trial / paths.CHECKPOINTS).rmdir()
    (trial / paths.CHECKPOINTS).symlink_to(scratch)
    assert owned.refuse_links(trial, begins=True) == os.path.realpath(scratch)
    with pytest.raises(owned.NotOursError, match="did not exist when the trial started"):
        store_of(trial)
    record = record_of(trial.name.removeprefix("trial_"), ID, checkpoints_at=str(scratch))
    files.write_atomic(trial / paths.TRIAL, record.to_json())
    store = store_of(trial)
    for epoch in (1, 2):
        store.commit(manifest_of(record.trial_id, epoch, 0.5 / epoch), contents(epoch))
    store.policy = Policy()
    store.finish()
    assert [path.name for path in scratch.iterdir()] == ["epoch-0001"] == store.names()
    read_verified(scratch / "epoch-0001")
    (trial / paths.CHECKPOINTS).unlink()
    (trial / paths.CHECKPOINTS).symlink_to(tmp_path)
    with pytest.raises(owned.NotOursError):
        store_of(trial)


@pytest.mark.parametrize("state", ["missing", "full"])
def test_a_trial_does_not_begin_with_checkpoints_linked_to_what_is_no_empty_folder(tmp_path: Path, state: str) -> None:
    trial = paths.trial_dir(tmp_path, ID)
    trial.mkdir()
    (trial / paths.CHECKPOINTS).symlink_to(tmp_path / "target")
    if state == "full":
        (tmp_path / "target").mkdir()
        (tmp_path / "target" / "mine").touch()
    with pytest.raises(owned.NotOursError, match="may only be linked before its first start"):
        owned.refuse_links(trial, begins=True)


@pytest.mark.parametrize("name", ["", paths.LOGS, paths.CONTROL, paths.CLAIMS])
def test_a_folder_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    folder = paths.study_dir(tmp_path, ID)
    if name:
        folder.mkdir()
    (folder / name).symlink_to(tmp_path)
    with pytest.raises(owned.NotOursError, match="Replace the link with the folder itself") as refused:
        owned.refuse_links(folder)
    assert str(folder / name) in str(refused.value)
