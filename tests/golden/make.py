"""Make the golden folders of a version: python tests/golden/make.py CHECKOUT LABEL, with this project's own .venv.

CHECKOUT is a checkout of the version (`git worktree add DIR COMMIT`), LABEL names it, for example c6abae9. Each folder
is what that version's own commands left, run on invented posts and packed as tests/golden/LABEL-NAME.tar.xz. Later
versions must open every one of them (tests/golden/test_golden.py). They are made once and never again.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
# The encoder is frozen, so that a training state is small.
SMALL = ["data.posts=90", "model.max_length=64", "model.frozen_layers=2", "train.epochs=2", "train.batch_size=8"]


class Maker:
    """Runs a checkout's commands in a scratch folder, with `experiments` in it."""

    def __init__(self, checkout: Path, scratch: Path) -> None:
        self.checkout, self.scratch = checkout, scratch
        self.experiments = scratch / "experiments"

    def start(self, script: str, *arguments: str) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, "PYTHONPATH": str(self.checkout), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(self.checkout / "scripts" / script), *arguments]
        return subprocess.Popen(command, cwd=self.scratch, env=environment, process_group=0)

    def run(self, script: str, *arguments: str, expect: int = 0) -> None:
        code = self.start(script, *arguments).wait()
        assert code == expect, f"{script} ended with {code}"

    def trial(self, number: int = 0) -> dict[str, object] | None:
        """trial.json of this trial, once it is there."""
        for path in self.experiments.glob("trial_*/trial.json"):
            record: dict[str, object] = json.loads(path.read_bytes())
            if record["number"] == number:
                return record
        return None


def wait_for(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.02)


def completed(make: Maker) -> None:
    """A study of one trial with its summary, and a single trial that kept its training state."""
    make.run("hpo.py", "study.name=night", "study.trials=1", *SMALL)
    make.run("summarize.py")
    make.run("launch.py", "retention.keep_training_state=true", *SMALL)


def pruned(make: Maker) -> None:
    """The second trial is ended by the pruner or by an order."""
    study = make.start("hpo.py", "study.name=pruned", "study.trials=2", "study.pruner=median", *SMALL)
    wait_for(lambda: make.trial(1))
    (control,) = make.experiments.glob("study_*/control")
    record = make.trial(1)
    assert record
    (control / f"prune-{record['trial_id']}").touch()
    assert study.wait() == 0


def failed(make: Maker) -> None:
    """One trial runs out of time, then there is more of it in another study of the same folder."""
    make.run("hpo.py", "study.name=late", "study.trials=1", "study.trial_timeout=0.1", *SMALL)
    make.run("hpo.py", "study.name=whole", "study.trials=1", *SMALL)


def interrupted(make: Maker) -> None:
    """The second trial is stopped by a signal in the middle of an epoch."""
    study = make.start("hpo.py", "study.name=stopped", "study.trials=2", *SMALL, "train.epochs=30")
    wait_for(lambda: (record := make.trial(1)) and record["epoch"] == 2)
    time.sleep(0.1)
    os.kill(study.pid, signal.SIGTERM)
    assert study.wait() == 75
    assert list(make.experiments.glob("trial_*/checkpoints/step-*")), "it was stopped between two epochs: run it again"


def workers(make: Maker) -> None:
    """Two workers at one study, of which one is killed with its trial."""
    words = ["study.name=shared", "study.trials=2", *SMALL, "train.epochs=6"]
    first = make.start("hpo.py", *words)
    wait_for(lambda: make.trial(0))
    second = make.start("hpo.py", *words)
    wait_for(lambda: (record := make.trial(1)) and record["epoch"])
    os.killpg(second.pid, signal.SIGKILL)
    second.wait()
    assert first.wait() == 0


def csv(make: Maker) -> None:
    """Posts from two CSV files, which lie beside the experiments."""
    (make.scratch / "data").mkdir()
    code = "from pathlib import Path; from redsm5.data.synthesize import write_csvs; write_csvs(Path('data'), 90, 7)"
    environment = {**os.environ, "PYTHONPATH": str(make.checkout)}
    subprocess.run([sys.executable, "-c", code], cwd=make.scratch, env=environment, check=True)
    words = [word for word in SMALL if not word.startswith("data.")]
    make.run(
        "hpo.py", "study.name=csv", "study.trials=1", "data=csv", "data.dir=data", "study.pruner=hyperband", *words
    )


SCENARIOS = (completed, pruned, failed, interrupted, workers, csv)


def main() -> None:
    checkout, label, *wanted = sys.argv[1:]
    for scenario in SCENARIOS:
        if wanted and scenario.__name__ not in wanted:
            continue
        scratch = Path(tempfile.mkdtemp(prefix="golden-"))
        scenario(Maker(Path(checkout).resolve(), scratch))
        for litter in scratch.rglob("__pycache__"):
            shutil.rmtree(litter)
        target = HERE / f"{label}-{scenario.__name__}.tar.xz"
        with tarfile.open(target, "w:xz", preset=9) as archive:
            for path in sorted(scratch.iterdir()):
                archive.add(path, arcname=path.name)
        shutil.rmtree(scratch)
        print(target.name, target.stat().st_size)


if __name__ == "__main__":
    main()
