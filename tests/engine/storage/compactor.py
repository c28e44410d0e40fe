"""Stores, evicts and cleans up what two completed trials keep: python compactor.py EXPERIMENTS.

Each has the weights of `study(EXPERIMENTS)`. Killed, it goes on when it is run again; in the end nothing is left of the
checkpoints and the pretrained weights.
"""

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from redsm5.engine import files, paths
from redsm5.engine.records import Best
from redsm5.engine.storage.budget import Budget, free_trial
from redsm5.engine.storage.compaction import compact, drop_unused_bases
from redsm5.engine.storage.retention import Policy
from redsm5.engine.storage.store import CheckpointStore
from redsm5.engine.study.trial import read_record
from tests.engine.storage.saver import manifest_of, record_of

STUDY = "11111111-2f3a-4b5c-8d7e-9f0a1b2c3d4e"
TRIALS = ("0b5c1d1e-2f3a-4b5c-8d7e-9f0a1b2c3d4e", "1b5c1d1e-2f3a-4b5c-8d7e-9f0a1b2c3d4e")
NAMES = ("encoder.embeddings", "encoder.layer")
ROWS, WIDTH = 500, 64


def silent(*_: object, **__: object) -> None:
    pass


def pretrained() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {name: draw.standard_normal((ROWS, WIDTH)).astype(np.float32) for name in NAMES}


def fine_tuned(seed: int) -> dict[str, np.ndarray]:
    """The pretrained tensors, changed a little, and a head."""
    draw = np.random.default_rng(seed)
    near = {name: t + 1e-6 * draw.standard_normal(t.shape).astype(np.float32) for name, t in pretrained().items()}
    return {**near, "head": draw.standard_normal((9, WIDTH)).astype(np.float32), "steps": np.arange(3)}


def contents_of(seed: int) -> dict[str, bytes]:
    """A checkpoint's files; of the moments half are zero, as those of words that no post has."""
    draw = np.random.default_rng(seed)
    moments = draw.standard_normal((ROWS, WIDTH)).astype(np.float32) * (draw.random((ROWS, 1)) < 0.5)
    state = save({"exp_avg": moments.astype(np.float32)})
    return {paths.WEIGHTS: save(fine_tuned(seed)), paths.STATE_TENSORS: state, paths.STATE_JSON: b'{"step":1}'}


def make_study(experiments: Path, *, base: bool = True) -> Path:
    """A study with its pretrained weights and two completed trials, each with a checkpoint; the study's folder."""
    study = paths.study_dir(experiments, STUDY)
    files.make_dir(study)
    if base:
        files.make_dir(study / paths.BASE)
        files.write_atomic(study / paths.BASE / f"{'ab' * 8}.safetensors", save(pretrained()))
    for seed, trial_id in enumerate(TRIALS):
        folder = paths.trial_dir(experiments, trial_id)
        store = CheckpointStore(folder, Policy(), log=silent)
        store.commit(manifest_of(trial_id, 1, score=0.5), contents_of(seed))
        record = record_of(trial_id, STUDY, state="completed", best=Best(epoch=1, value=0.5))
        files.write_atomic(folder / paths.TRIAL, record.to_json())
    return study


def opened(experiments: Path, trial_id: str, limit: int = 10**9) -> tuple[CheckpointStore, Budget]:
    store = CheckpointStore(paths.trial_dir(experiments, trial_id), Policy(), log=silent)
    return store, Budget(store, STUDY, max_total_size=limit, min_free_disk_percent=0, log=silent)


def work(experiments: Path) -> None:
    study = paths.study_dir(experiments, STUDY)
    for trial_id in TRIALS:
        store, budget = opened(experiments, trial_id)
        compact(store, budget, study)
        budget.release()
    for trial_id in TRIALS:
        folder = paths.trial_dir(experiments, trial_id)
        record = read_record(folder)
        assert record is not None
        free_trial(folder, record, states_only=False, reason="evicted", log=silent)
        drop_unused_bases(study)


if __name__ == "__main__":
    work(Path(sys.argv[1]))
