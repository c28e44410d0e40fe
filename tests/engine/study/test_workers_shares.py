"""How the machine is dealt out to the workers of `just hpo workers=N`."""

import os
from collections import namedtuple

import pytest

from redsm5.config import compose
from redsm5.engine.errors import ConfigError
from redsm5.engine.study import workers
from redsm5.engine.study.sharing import SHARED
from redsm5.engine.study.workers import asked_for, shares

Memory = namedtuple("Memory", "total")
CPU, GPU = compose([]), compose(["launch=gpu"])


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen cores of two threads each, 20 GB, four GPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(32)))
    monkeypatch.setattr(workers.psutil, "cpu_count", lambda logical: 32 if logical else 16)
    monkeypatch.setattr(workers.psutil, "virtual_memory", lambda: Memory(20 * 10**9))
    monkeypatch.setattr(workers, "_gpus", lambda: ["0", "1", "2", "3"])


def test_what_is_said_of_workers_is_taken_out_of_the_command() -> None:
    words = ["study.trials=9", "workers=4", "workers_per_gpu=2", "train.epochs=1"]
    assert asked_for(words) == ({"workers": "4", "workers_per_gpu": "2"}, ["study.trials=9", "train.epochs=1"])
    assert asked_for(["study.name=workers"]) == ({}, ["study.name=workers"])


@pytest.mark.usefixtures("machine")
def test_on_cpus_each_worker_gets_its_share_of_the_cores() -> None:
    assert shares({}, CPU, {}) == shares({"workers": "1"}, CPU, {}) == []
    assert shares({"workers": "4"}, CPU, {}) == [{"OMP_NUM_THREADS": "8"}] * 4
    assert shares({"workers": "4"}, CPU, {"OMP_NUM_THREADS": "3"}) == [{"OMP_NUM_THREADS": "3"}] * 4
    assert len(shares({"workers": "auto"}, CPU, {})) == 5, "one for every 4 GB, which are fewer than pairs of cores"


@pytest.mark.usefixtures("machine")
def test_on_gpus_each_worker_gets_one() -> None:
    def dealt(*words: str, **environ: str) -> list[str]:
        asked, _ = asked_for(words)
        return [share["CUDA_VISIBLE_DEVICES"] for share in shares(asked, GPU, environ)]

    assert dealt("workers=auto") == ["0", "1", "2", "3"]
    assert dealt("workers=3") == ["0", "1", "2"]
    assert dealt("workers=auto", CUDA_VISIBLE_DEVICES="2,MIG-7") == ["2", "MIG-7"], "as Slurm has dealt them"
    assert dealt("workers=6", "workers_per_gpu=2") == ["0", "1", "2", "3", "0", "1"]
    dealt_twice = shares({"workers": "6", "workers_per_gpu": "2"}, GPU, {})
    assert [share.get(SHARED) for share in dealt_twice] == ["0", "1", None, None, "0", "1"]


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("words", "environ", "said"),
    [
        (["workers=0"], {}, "workers=0: allowed: a number of at least 1 or auto"),
        (["workers=many"], {}, "workers=many: allowed"),
        (["workers=2", "workers_per_gpu=-1"], {}, "workers_per_gpu=-1: allowed: a number of at least 1"),
        (["workers=5"], {}, "workers=5, but there are 4 GPUs"),
        (["workers=2"], {"CUDA_VISIBLE_DEVICES": "0,7"}, "names GPU 7, but there are 4 GPUs"),
        (["workers=2"], {"CUDA_VISIBLE_DEVICES": ""}, "there are 0 GPUs"),
    ],
)
def test_what_does_not_fit_is_refused(words: list[str], environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        shares(asked_for(words)[0], GPU, environ)


@pytest.mark.usefixtures("machine")
def test_trials_of_several_processes_have_the_machine_to_themselves() -> None:
    with pytest.raises(ConfigError, match="already runs in several processes"):
        shares({"workers": "2"}, compose(["launch=multi_gpu"]), {})
