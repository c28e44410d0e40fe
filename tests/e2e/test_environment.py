"""What lies around where a study is started changes none of its results: variables, files, what prints in between."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from redsm5.config import Config
from redsm5.engine.spec import load_config
from redsm5.engine.study.launch import trains
from tests.e2e.conftest import ROOT, all_metrics, records, weights

TINY = ["data.posts=60", "model.max_length=48", "train.epochs=1", "study.enqueue_defaults=false"]
# Each of these, by itself, has changed or stopped a training, or would have, where the device is there.
HOSTILE = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "8",
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ACCELERATE_TORCH_DEVICE": "meta",
    "ACCELERATE_USE_CPU": "false",
    "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR",
    "ACCELERATE_USE_FSDP": "true",
    "ACCELERATE_USE_DEEPSPEED": "true",
    "ACCELERATE_USE_MEGATRON_LM": "true",
    "FSDP_OFFLOAD_PARAMS": "true",
    "TORCH_COMPILE_DISABLE": "1",
    "PYTORCH_JIT": "0",
    "NVIDIA_TF32_OVERRIDE": "1",
    "PYTHONHASHSEED": "7",
    "CUBLAS_WORKSPACE_CONFIG": ":0:0",
    "WORLD_SIZE": "2",
    "RANK": "1",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "192.0.2.1",
    "TORCHELASTIC_RUN_ID": "another",
    "PMI_SIZE": "2",
    "PMI_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "SLURM_PROCID": "1",
    "PYTHONOPTIMIZE": "2",
}


def run(script: str, *words: object, expect: int = 0, cwd: Path = ROOT, **variables: str) -> str:
    """Run a script to its end, in this folder and with these variables; what it printed."""
    command = [sys.executable, ROOT / "scripts" / script, *map(str, words)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | variables
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_hostile_environment_changes_no_bit(tmp_path: Path) -> None:
    """Of a study and of an evaluation: every variable at once, a sitecustomize that prints, a configuration of
    accelerate's in the cache, and a file beside the user that has a library's name.
    """
    plain, hostile, user = tmp_path / "plain", tmp_path / "hostile", tmp_path / "user"
    run("hpo.py", *TINY, "study.trials=1", f"experiments={plain}")
    (user / "accelerate").mkdir(parents=True)
    (user / "torch.py").write_text("raise SystemExit('not the library')")
    (user / "sitecustomize.py").write_text("print('hello')")
    (user / "accelerate" / "default_config.yaml").write_text(
        "{compute_environment: LOCAL_MACHINE, distributed_type: MULTI_CPU, num_processes: 2, mixed_precision: bf16}"
    )
    (user / "site").mkdir()
    (user / "sitecustomize.py").rename(user / "site" / "sitecustomize.py")
    surroundings = HOSTILE | {"HF_HOME": str(user), "PYTHONPATH": f"{ROOT}:{user / 'site'}"}

    said = run("hpo.py", *TINY, "study.trials=1", f"experiments={hostile}", cwd=user, **surroundings)
    assert "one by one" not in said
    (ignored,) = (line for line in said.splitlines() if "ignoring environment variables" in line)
    expected = HOSTILE.keys() - {"PYTHONHASHSEED", "CUBLAS_WORKSPACE_CONFIG"}
    assert all(name in ignored for name in expected)
    assert "192.0.2.1" not in said
    assert all_metrics(hostile) == all_metrics(plain) != []
    assert weights(hostile) == weights(plain)

    (record,) = records(hostile)
    shown = run("evaluate.py", "--trial-id", record["trial_id"], "--experiments", hostile, cwd=user, **surroundings)
    assert "f1" in shown.lower()


def test_what_is_broken_on_a_machine_costs_a_study_nothing(local_bert: Path, tmp_path: Path) -> None:
    """A model's file that is torn: of a new study, and, later, of one that has been at work."""
    experiments, model = tmp_path / "e", local_bert / "model.safetensors"
    whole = model.read_bytes()

    def study(trials: int, *, torn: bool = False) -> str:
        model.write_bytes(whole[:1000] if torn else whole)
        words = [*TINY, f"model.model_id={local_bert}", f"study.trials={trials}", f"experiments={experiments}"]
        try:
            return run("hpo.py", *words, expect=2 if torn else 0)
        finally:
            model.write_bytes(whole)

    said = study(2, torn=True)
    assert "failed 3 times in a row before its first step, for the same reason" in said
    assert [record["state"] for record in records(experiments)] == ["interrupted"] * 2
    parameters = [record["parameters"] for record in records(experiments)]
    study(2)
    assert [(record["state"], record["parameters"]) for record in records(experiments)] == [
        ("completed", parameters[0]),
        ("completed", parameters[1]),
    ]
    said = study(3, torn=True)
    assert "trial 2 failed before its first step, and trial 0, which was trained before, no longer starts" in said
    assert [record["state"] for record in records(experiments)] == ["completed", "completed", "interrupted"]

    never = SimpleNamespace(requested=False)
    trained = experiments / f"trial_{records(experiments)[0]['trial_id']}" / "config.json"
    assert trains(load_config(Config, trained.parent), never), "the model's file is whole again"
