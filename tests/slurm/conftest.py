"""A real Slurm of one node, and jobs on it. A tool beside the checkout starts it; without it these are skipped."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, uninterrupted, wait_for

__all__ = ["uninterrupted"]  # a fixture of the tests here, too

TOOL = ROOT.parent / "shared" / "tools" / "slurm-one-node"
TINY = ["data.posts=90", "model.max_length=64"]
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")


class Cluster:
    """Where Slurm's commands work."""

    def __init__(self, configuration: Path) -> None:
        self._env = os.environ | {"SLURM_CONF": str(configuration), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def say(self, *command: str) -> str:
        done = subprocess.run(command, cwd=ROOT, env=self._env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout.strip()

    def submit(self, file: str, log: Path, *overrides: str, flags: tuple[str, ...] = (), **env: str) -> str:
        """Submit a job file as it stands, but for a node as small as this one; the job's number."""
        exported = ",".join(["ALL", *(f"{name}={value}" for name, value in env.items())])
        small = ["--cpus-per-task=1", "--mem=2G", f"--output={log}", f"--export={exported}"]
        return self.say("sbatch", "--parsable", *small, *flags, f"containers/slurm/{file}", *overrides)

    def field(self, job: str, name: str) -> str:
        words = self.say("scontrol", "--oneliner", "show", "job", job).split()
        return next(word.partition("=")[2] for word in words if word.startswith(f"{name}="))

    def state(self, job: str) -> str:
        return self.field(job, "JobState")

    def start_again(self, job: str) -> None:
        """Once the job is back in the queue, start it: Slurm would let two minutes pass before.

        Its own start must be later than its end by seconds, or the node takes it for the old one.
        """
        wait_for(lambda: self.state(job) in ("PENDING", *ENDED))
        assert self.state(job) == "PENDING", "it did not come back"
        self.say("scontrol", "update", f"jobid={job}", "starttime=now+3")

    def wait(self, job: str) -> str:
        """The state in which the job ends."""
        return str(wait_for(lambda: (state := self.state(job)) in ENDED and state, timeout_s=800))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if not TOOL.exists():
        pytest.skip("slurm-one-node is not here")
    if os.geteuid() != 0:
        pytest.skip("Slurm's daemons are started by root alone")
    if not (ROOT / ".venv" / "bin" / "redsm5").exists():
        pytest.skip("the job files run what `just setup` has made")
    folder = tmp_path_factory.mktemp("slurm")
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}  # nproc counts no processor beyond it
    command = [TOOL, folder, "sh", "-c", "echo up; cat"]
    tool = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
    assert tool.stdin is not None
    assert tool.stdout is not None
    try:
        assert tool.stdout.readline() == b"up\n", "Slurm does not start"
        yield Cluster(folder / "slurm.conf")
    finally:
        tool.stdin.close()  # the command ends, and with it the daemons
        tool.wait(timeout=60)
        tool.stdout.close()
