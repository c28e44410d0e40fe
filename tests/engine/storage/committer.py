"""A process that commits checkpoints until it is killed: python committer.py TRIAL_DIR.

Each file is a function of the epoch, so that whoever looks afterwards knows what must be in it. It opens the store as a
restarted trial does, goes on after its newest checkpoint and says each committed epoch on a line.
"""

import random
import sys
from pathlib import Path

from redsm5.engine import paths
from redsm5.engine.documents import now
from redsm5.engine.records import Manifest
from redsm5.engine.storage.retention import Policy
from redsm5.engine.storage.store import CheckpointStore


def contents(epoch: int) -> dict[str, bytes]:
    make = random.Random(epoch).randbytes
    return {paths.WEIGHTS: make(30_000), paths.STATE_TENSORS: make(60_000), paths.STATE_JSON: make(200)}


def commit_until_killed(trial_dir: Path) -> None:
    store = CheckpointStore(trial_dir, Policy(), log=lambda *_, **__: None)
    epoch = max((c.step for c in store.checkpoints()), default=0)
    while True:
        epoch += 1
        manifest = Manifest(
            format_version=1,
            code_version="0.1.0",
            trial_id="0b5c1d1e-2f3a-4b5c-8d7e-9f0a1b2c3d4e",
            architecture="bert: 2 layers",
            head_config={},
            epoch=epoch,
            batches_done=0,
            step=epoch,
            score=random.Random(epoch).choice([0.1, 0.2, 0.3]),
            metrics={},
            data_fingerprint="ab" * 32,
            seed=42,
            created_at=now(),
        )
        store.commit(manifest, contents(epoch))
        print(epoch, flush=True)


if __name__ == "__main__":
    commit_until_killed(Path(sys.argv[1]))
