"""Packages against a lock, PyTorch and its driver, programs that are there or not."""

import stat
from pathlib import Path

import pytest

from redsm5.doctor import software


def project(folder: Path, needs: list[str], *locked: str) -> Path:
    (folder / "pyproject.toml").write_text(f"[project]\ndependencies = {needs}\n")
    (folder / "constraints.txt").write_text("\n".join(locked))
    return folder


def installed(name: str) -> str:
    version = software._version(name)
    assert version is not None
    return version


def test_a_package_of_another_version_than_the_lock_is_named_with_both(tmp_path: Path) -> None:
    found = software.check_packages(project(tmp_path, ["packaging"], "packaging==1.0 ; python_version > '3'"))
    assert found.state == "warn"
    assert f"packaging {installed('packaging')} (locked: 1.0)" in found.detail
    assert "just setup" in found.remedy


def test_a_missing_package_is_a_failure_unless_this_machine_does_not_need_it(tmp_path: Path) -> None:
    needs = ["packaging", "not-there ; sys_platform == 'win32'", "nor-this>=2"]
    locked = (f"packaging=={installed('packaging')}", "not-there==1", "nor-this==2.1", "a-tool-of-the-developers==3")
    found = software.check_packages(project(tmp_path, needs, *locked))
    assert (found.state, found.detail) == ("fail", "missing: nor-this")


def test_what_a_package_needs_is_looked_at_too(tmp_path: Path) -> None:
    locked = [f"requests=={installed('requests')}", "idna==0.1"]
    found = software.check_packages(project(tmp_path, ["requests"], *locked))
    assert found.state == "warn"
    assert "idna" in found.detail


def test_without_a_checkout_the_ranges_of_the_installed_package_are_what_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert software.check_packages(None).state == "ok"
    (tmp_path / "redsm5-9.dist-info").mkdir()
    metadata = "Metadata-Version: 2.4\nName: redsm5\nVersion: 9\nRequires-Dist: packaging<1\n"
    optional = "Requires-Dist: nor-this>=2 ; extra == 'postgresql'\n"
    (tmp_path / "redsm5-9.dist-info" / "METADATA").write_text(metadata + optional)
    monkeypatch.syspath_prepend(tmp_path)
    found = software.check_packages(None)
    assert found.state == "warn"
    assert found.detail.endswith(f": packaging {installed('packaging')} (needed: <1)")
    (tmp_path / "redsm5-9.dist-info" / "METADATA").write_text(metadata + optional.partition(" ;")[0])
    assert (software.check_packages(None).state, software.check_packages(None).detail) == ("fail", "missing: nor-this")


def test_variables_that_no_training_gets_to_see_are_named_without_their_values() -> None:
    assert software.check_variables({"PATH": "/bin", "OMP_NUM_THREADS": "2"}).state == "ok"
    environ = {"WORLD_SIZE": "2", "PMI_RANK": "0", "ACCELERATE_MIXED_PRECISION": "bf16", "HOME": "/root"}
    found = software.check_variables(environ)
    assert (found.state, found.detail) == (
        "note",
        "ignored, a launcher's rank, size or address: PMI_RANK, WORLD_SIZE; "
        "settings of the libraries: ACCELERATE_MIXED_PRECISION",
    )


def probe(**seen: object) -> dict[str, object]:
    return {"torch": "2.13.0", "build": "13.0", "driver": None, "supports": None, "usable": False, "gpus": []} | seen


@pytest.mark.parametrize(
    ("seen", "state", "words"),
    [
        (probe(), "note", "no NVIDIA driver"),
        (probe(build=None), "note", "no NVIDIA driver"),
        (probe(build=None, driver="580.1"), "warn", "built for CPUs"),
        (probe(driver="550.1", supports=[12, 4]), "warn", "built for CUDA 13.0, the driver 550.1 goes up to 12.4"),
        (probe(driver="580.1", supports=[13, 0]), "warn", "finds no GPU"),
        (probe(driver="580.1", gpus=[["A100", 70e9, 80e9]]), "ok", "A100 (70 of 80 GB free)"),
    ],
)
def test_the_driver_and_the_build_of_pytorch_are_held_against_each_other(
    seen: dict[str, object], state: str, words: str
) -> None:
    found = software.judge_cuda(seen)
    assert found.state == state
    assert words in found.detail


def test_programs_that_are_missing_fail_or_hang_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def program(name: str, text: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(stat.S_IRWXU)

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(software, "PROGRAM_S", 0.5)
    assert software.check_containers().state == software.check_slurm().state == software.check_just().state == "note"
    program("apptainer", "echo apptainer version 1.4.2-rc1")
    assert (software.check_containers().state, software.check_containers().detail) == ("ok", "apptainer 1.4.2")
    program("docker", '[ "$1" = --version ] && echo Docker version 28.2.2, build x')
    assert "docker cannot start containers here" in software.check_containers().detail
    program("sinfo", '[ "$1" = --version ] && echo slurm 24.05.1 || exec /bin/sleep 60')
    found = software.check_slurm()
    assert (found.state, found.detail) == ("warn", "slurm 24.05.1 is installed, but no controller answers")
    program("sinfo", '[ "$1" = --version ] && echo slurm 24.05.1 || echo "main* 2 nodes idle"')
    assert software.check_slurm().detail == "slurm 24.05.1: main* 2 nodes idle"
