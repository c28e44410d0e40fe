"""A worker at a study's budget: python saver.py EXPERIMENTS STUDY_ID TRIAL_ID EPOCHS MAX_TOTAL_SIZE SEED.

It does what a trial does: takes the trial's lock, reserves, saves an epoch after the other with scores that are often
tied, is finished, and gives its reservation back. Killed, it goes on after its newest checkpoint when it is run again.
"""

import random
import sys
import time
from pathlib import Path

from redsm5.engine import files, paths
from redsm5.engine.documents import now
from redsm5.engine.errors import RedSM5Error
from redsm5.engine.records import Best, Manifest, TrialRecord
from redsm5.engine.storage.budget import Budget, reservation
from redsm5.engine.storage.retention import Policy
from redsm5.engine.storage.store import CheckpointStore

WEIGHTS, STATE = 200_000, 400_000


def record_of(trial_id: str, study_id: str | None, **changes: object) -> TrialRecord:
    fields = {"trial_id": trial_id, "study_id": study_id, "number": 0, "state": "running", "epochs": 9}
    return TrialRecord.model_validate({**fields, "created_at": now(), **changes})


def manifest_of(trial_id: str, epoch: int, score: float) -> Manifest:
    return Manifest(
        format_version=1,
        code_version="0.1.0",
        trial_id=trial_id,
        architecture="bert: 2 layers",
        head_config={},
        epoch=epoch,
        batches_done=0,
        step=epoch,
        score=score,
        metrics={},
        data_fingerprint="ab" * 32,
        seed=42,
        created_at=now(),
    )


def contents(seed: int) -> dict[str, bytes]:
    make = random.Random(seed).randbytes
    return {paths.WEIGHTS: make(WEIGHTS), paths.STATE_TENSORS: make(STATE), paths.STATE_JSON: make(200)}


def work(experiments: Path, study_id: str, trial_id: str, epochs: int, max_total_size: int, seed: int) -> None:
    folder = paths.trial_dir(experiments, trial_id)
    lock = files.Lock(folder / paths.LOCK)
    assert lock.acquire(timeout_s=5)
    files.write_atomic(folder / paths.TRIAL, record_of(trial_id, study_id).to_json())
    store = CheckpointStore(folder, Policy(), log=lambda *_, **__: None)
    budget = Budget(store, study_id, max_total_size=max_total_size, min_free_disk_percent=0, log=lambda *_, **__: None)
    budget.reserve(reservation(store.policy, full=WEIGHTS + STATE, weights=WEIGHTS, epochs=epochs))
    store.make_room = budget.make_room
    dice = random.Random(seed)
    done = max((c.step for c in store.checkpoints()), default=0)
    for epoch in range(done + 1, epochs + 1):
        store.commit(manifest_of(trial_id, epoch, dice.choice([0.1, 0.2])), contents(epoch))
        time.sleep(dice.uniform(0, 0.02))
    files.write_atomic(folder / paths.REPORT, b"{}\n")
    best = Best(epoch=1, value=dice.random())
    files.write_atomic(folder / paths.TRIAL, record_of(trial_id, study_id, state="completed", best=best).to_json())
    store.finish()
    budget.release()
    print("done", flush=True)


if __name__ == "__main__":
    experiments, study_id, trial_id, *numbers = sys.argv[1:]
    try:
        work(Path(experiments), study_id, trial_id, *map(int, numbers))
    except RedSM5Error as error:
        sys.exit(error.exit_code)
