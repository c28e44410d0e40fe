"""redsm5.def is built and run by a real Apptainer, in a root of its own; `just test-container`.

APPTAINER_SANDBOX names the tool that brings it (default: ../shared/tools/apptainer-sandbox), APPTAINER_SANDBOX_CACHE
the folder where it keeps its root and the image (about 3 GB; default: in ~/.cache).
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from redsm5 import __version__

ROOT = Path(__file__).parent.parent.parent
SANDBOX = Path(os.environ.get("APPTAINER_SANDBOX", ROOT.parent / "shared" / "tools" / "apptainer-sandbox"))
CACHE = Path(os.environ.get("APPTAINER_SANDBOX_CACHE", "~/.cache/redsm5-apptainer")).expanduser()
SAMPLE = ROOT.parent / "shared" / "data" / "redsm5_sample"
HPC = 1000  # the sandbox's user
RUN = "exec apptainer run --unsquash"

pytestmark = [
    pytest.mark.container,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not os.access(SANDBOX, os.X_OK), reason=f"there is no {SANDBOX}: set APPTAINER_SANDBOX"),
    pytest.mark.skipif(os.getuid() != 0, reason="the sandbox needs root, to mount and to change its root"),
]


def start(command: str) -> subprocess.Popen[str]:
    """A shell command, as the user of a cluster would type it, in the sandbox."""
    arguments = [str(SANDBOX), str(CACHE), "bash", "-c", command]
    return subprocess.Popen(
        arguments,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def sandboxed(command: str, code: int = 0) -> str:
    process = start(command)
    output, _ = process.communicate()
    assert process.returncode == code, output
    return output


@pytest.fixture(scope="module")
def image() -> str:
    """The image of this code, at its path in the sandbox."""
    settings = CACHE / "root" / "home" / "hpc" / "pip.conf"
    sandboxed("true")  # the first call makes the sandbox
    options = {key[4:].lower().replace("_", "-"): value for key, value in os.environ.items() if key.startswith("PIP_")}
    settings.write_text("\n".join(["[global]", *(f"{key} = {value}" for key, value in options.items())]))
    settings.chmod(0o644)
    arguments = {"bootstrap": "localimage", "base": "/base", "pip_config": "/mnt/pip.conf", "revision": "abc123"}
    if "find-links" in options:
        arguments["cpu_index"] = ""  # PyTorch's CPU build is among the local wheels
    flags = "--force --bind /opt:/opt --bind /home/hpc:/mnt"
    flags += "".join(f" --build-arg {name}={value}" for name, value in arguments.items())
    sandboxed(f"cd /src && apptainer build {flags} /home/hpc/redsm5.sif containers/redsm5.def")
    return "/home/hpc/redsm5.sif"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A new folder of the sandbox's user, as seen from here; there it is /home/hpc/<its name>."""
    path = CACHE / "root" / "home" / "hpc" / f"test-{uuid.uuid4().hex[:8]}"
    path.mkdir()
    os.chown(path, HPC, HPC)
    yield path
    shutil.rmtree(path)


def records(folder: Path, pattern: str) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted((folder / "experiments").glob(pattern))]


def test_a_study_runs_in_the_image(image: str, folder: Path) -> None:
    data = ""
    if SAMPLE.is_dir():
        shutil.copytree(SAMPLE, folder / "data")
        for path in (folder / "data", *(folder / "data").iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
        data = "data=csv data.dir=data"  # relative to the folder that one is in
    sandboxed(f"cd ~/{folder.name} && {RUN} {image} hpo study.trials=2 train.epochs=2 {data}")
    assert [trial["state"] for trial in records(folder, "trial_*/trial.json")] == ["completed", "completed"]
    reports = records(folder, "trial_*/evaluation_report.json")
    assert {report["code_version"] for report in reports} == {f"{__version__}+gabc123"}
    assert (folder / "experiments" / "mlflow.db").stat().st_size > 0
    assert "completed" in sandboxed(f"cd ~/{folder.name} && {RUN} {image} studies")


def test_the_image_passes_its_own_test(image: str) -> None:
    sandboxed(f"apptainer test --unsquash {image}")


def test_a_home_that_cannot_be_written_is_no_hindrance(image: str, folder: Path) -> None:
    command = f"{RUN} --no-home --cleanenv --env HOME=/nonexistent --bind ~/{folder.name}:/mnt --pwd /mnt"
    sandboxed(f"cd ~/{folder.name} && {command} {image} hpo study.trials=1 train.epochs=1")
    assert [trial["state"] for trial in records(folder, "trial_*/trial.json")] == ["completed"]


def test_sigterm_to_apptainer_reaches_the_study_which_goes_on_afterwards(image: str, folder: Path) -> None:
    run = f"{RUN} {image} hpo study.trials=1 train.epochs=8"
    # As Slurm sends it: to one process, which the command took the place of.
    process = start(f"cd ~/{folder.name} && echo $$ >pid && {run}")
    while not list((folder / "experiments").glob("trial_*/checkpoints/epoch-*")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.2)
    os.kill(int((folder / "pid").read_text()), signal.SIGTERM)
    output, _ = process.communicate()
    assert process.returncode == 75, output
    assert [trial["state"] for trial in records(folder, "trial_*/trial.json")] == ["interrupted"]
    sandboxed(f"cd ~/{folder.name} && {run}")
    (trial,) = records(folder, "trial_*/trial.json")
    assert (trial["state"], trial["resumes"]) == ("completed", 1)


def test_the_image_lists_the_commands_and_passes_exit_codes(image: str) -> None:
    listed = set(re.findall(r"^    (\w[\w-]*)", sandboxed(f"{RUN} {image}"), re.MULTILINE))
    assert {"hpo", "train", "evaluate", "studies", "summary", "tui"} <= listed
    assert "train.epochz" in sandboxed(f"{RUN} {image} hpo train.epochz=1", code=1)
    assert "apptainer run" in sandboxed(f"apptainer run-help {image}")
