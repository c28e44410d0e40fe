"""`just export`: a folder that stands alone, from which the same probabilities come, and no text of a post."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch

import redsm5
from redsm5.config import Config
from redsm5.data import SYMPTOMS, load_splits, load_test
from redsm5.data.encode import sentences_of
from redsm5.data.synthesize import write_csvs
from redsm5.engine.errors import InputError
from redsm5.engine.spec import load_config
from redsm5.evaluation import stored
from tests.e2e.conftest import ROOT, SMALL, kill_group, records, run, small_bert, wait_for
from tests.mlflow_server import free_port

TEXTS = ["I cannot sleep at night.", "Nothing is fun. " * 100, "Nichts — 😀"]


@pytest.fixture(scope="module")
def trial(uninterrupted: Path) -> Path:
    return uninterrupted / f"trial_{records(uninterrupted)[0]['trial_id']}"


@pytest.fixture(scope="module")
def exported(trial: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "model"
    run("export.py", "demo#0", "--experiments", str(trial.parent), "--to", str(folder))
    return folder


def test_the_exported_model_gives_the_same_probabilities(trial: Path, exported: Path) -> None:
    assert redsm5.load(exported).predict(TEXTS) == redsm5.load(trial).predict(TEXTS)


def test_a_pretrained_encoder_and_its_data_may_be_gone(tmp_path: Path) -> None:
    """With the keys that change how posts are read."""
    data, bert, experiments = tmp_path / "data", tmp_path / "bert", tmp_path / "experiments"
    bert.mkdir()
    data.mkdir()
    write_csvs(data, 90, 7)
    small_bert(bert, SMALL)
    words = [f"model.model_id={bert}", "data=csv", f"data.dir={data}", "data.long_posts=window", "model.max_length=64"]
    words += ["model.input_format=binary_pairs", "model.evidence_head_type=sentence_reranker", "train.epochs=1"]
    run("launch.py", *words, f"experiments={experiments}", "model.criteria_pooling=last_2_layer_mix")
    (trial,) = experiments.glob("trial_*")
    posts = load_test(load_config(Config, trial).data).test
    recorded = json.loads((trial / "predictions.json").read_bytes())["probabilities"]
    run(
        "export.py", "best", "--experiments", str(experiments), "--to", str(tmp_path / "model"), expect=1
    )  # of no study
    run("export.py", trial.name[6:14], "--experiments", str(experiments), "--to", str(tmp_path / "model"))
    for folder in (data, bert, experiments):
        shutil.rmtree(folder)
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    found = redsm5.load(tmp_path / "elsewhere").predict([post.text for post in posts])
    for prediction, expected in zip(found, recorded, strict=True):
        assert [each.probability for each in prediction.symptoms] == pytest.approx(expected, abs=1e-6)
    assert str(tmp_path) not in "".join(p.read_text() for p in (tmp_path / "elsewhere").rglob("*.json"))
    assert str(tmp_path) not in (tmp_path / "elsewhere" / "README.md").read_text()


@pytest.mark.parametrize(
    "words",
    [
        ["data.folds=2", "train.epochs=1"],
        ["train.mixed_precision=bf16", "train.epochs=1", "model.evidence_head_type=bio_crf"],
        ["model.dtype=bfloat16", "train.epochs=1", "model.task_coupling=coupled", "model.coupling_method=concat"],
    ],
    ids=["folds", "bf16", "dtype"],
)
def test_every_kind_of_training_exports_what_it_evaluated(words: list[str], tmp_path: Path) -> None:
    words = [*SMALL[:2], *words, *(["model.coupling_pooling=mean"] if "model.task_coupling=coupled" in words else [])]
    run("launch.py", *words, f"experiments={tmp_path / 'experiments'}")
    (trial,) = (tmp_path / "experiments").glob("trial_*")
    where = ("--experiments", str(trial.parent), "--to", str(tmp_path / "model"))
    run("export.py", trial.name.removeprefix("trial_"), *where)
    posts = load_test(load_config(Config, trial).data).test
    recorded = json.loads((trial / "predictions.json").read_bytes())["probabilities"]
    for prediction, expected in zip(
        redsm5.load(tmp_path / "model").predict([post.text for post in posts]), recorded, strict=True
    ):
        assert [each.probability for each in prediction.symptoms] == pytest.approx(expected, abs=1e-6)
    assert ("This is the last fold's" in (tmp_path / "model" / "README.md").read_text()) == ("data.folds=2" in words)


def test_transformers_alone_loads_the_encoder(trial: Path, exported: Path) -> None:
    """In a process that has no redsm5: its states are those of the encoder within the model."""
    code = f"""
import json, sys
from transformers import AutoModel, AutoTokenizer
folder = {str(exported / "encoder")!r}
model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
batch = tokenizer({TEXTS[0]!r}, return_tensors="pt")
print(json.dumps(model(**batch).last_hidden_state.tolist()))
assert not [name for name in sys.modules if name.startswith("redsm5")]
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=exported, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    member = stored.read(trial)
    batch = member.tokenizer(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        expected = member.model.encoder.eval()(**batch).last_hidden_state
    assert torch.allclose(torch.tensor(json.loads(done.stdout)), expected, atol=1e-6)


def test_no_file_has_a_sentence_of_a_post(trial: Path, exported: Path) -> None:
    config = load_config(Config, trial)
    splits = load_splits(config.data)
    posts = [*splits.train, *splits.validation, *load_test(config.data).test]
    sentences = {post.text[a:b].encode() for post in posts for a, b in sentences_of(post.text)}
    sentences = {sentence for sentence in sentences if len(sentence.split()) > 1}
    contents = {path: path.read_bytes() for path in exported.rglob("*") if path.is_file()}
    assert len(sentences) > 100
    assert len(contents) == 12
    leaks = [path for path, content in contents.items() for s in [*sentences, b"I cannot sleep"] if s in content]
    assert leaks == []


def test_the_sums_verify_and_a_changed_bit_is_noticed(exported: Path, tmp_path: Path) -> None:
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=exported, check=True)
    listed = re.findall(r"  (\S+)\n", (exported / "SHA256SUMS").read_text())
    assert {"encoder/model.safetensors", "encoder/tokenizer.json", "model.safetensors", "config.json"} < {*listed}
    for name in [*listed, "SHA256SUMS"]:
        copy = tmp_path / name.replace("/", "-")
        shutil.copytree(exported, copy)
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        with pytest.raises(InputError, match="cannot be read"):
            redsm5.load(copy)
    shutil.copytree(exported, tmp_path / "shorter")
    (tmp_path / "shorter" / "encoder" / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"tokenizer\.json is missing"):
        redsm5.load(tmp_path / "shorter")


def test_thresholds_and_card_may_be_changed(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "model")
    limits = json.loads((exported / "thresholds.json").read_bytes())
    limits["criteria"]["SLEEP_ISSUES"] = 0.0
    (tmp_path / "model" / "thresholds.json").write_text(json.dumps(limits))
    (tmp_path / "model" / "README.md").write_text("ours")
    (prediction,) = redsm5.load(tmp_path / "model").predict(["x"])
    assert prediction["SLEEP_ISSUES"].present


def test_a_folder_with_files_is_refused_and_an_empty_one_taken(trial: Path, tmp_path: Path) -> None:
    words = ("demo#0", "--experiments", str(trial.parent), "--to")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("mine")
    assert "the folder is not empty" in run("export.py", *words, str(tmp_path / "full"), expect=1)
    (tmp_path / "empty").mkdir()
    run("export.py", *words, str(tmp_path / "empty"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full"]
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["a.txt"]


@pytest.mark.parametrize("name", ["encoder", "model.safetensors", "SHA256SUMS"])
def test_a_killed_export_leaves_no_half_folder(name: str, trial: Path, exported: Path, tmp_path: Path) -> None:
    to = tmp_path / "model"
    command = [sys.executable, str(ROOT / "scripts" / "export.py"), "demo#0", "--to", str(to)]
    running = subprocess.Popen([*command, "--experiments", str(trial.parent)])
    fresh = tmp_path / ".model.exporting" / "model"
    wait_for(lambda: (fresh / name).exists() or running.poll() is not None)
    running.send_signal(signal.SIGKILL)
    running.wait()
    if to.exists():
        redsm5.load(to)
    else:
        run("export.py", "demo#0", "--experiments", str(trial.parent), "--to", str(to))
    assert {str(path.relative_to(to)) for path in to.rglob("*")} == {
        str(path.relative_to(exported)) for path in exported.rglob("*")
    }


def test_the_card_says_what_the_report_says_and_what_it_is_not_for(trial: Path, exported: Path) -> None:
    report = json.loads((trial / "evaluation_report.json").read_bytes())
    card = (exported / "README.md").read_text()
    assert report["data_fingerprint"] in card
    criteria = report["test_metrics"]["criteria_matching"]
    evidence = report["test_metrics"]["evidence_binding"]
    for task, metrics in (("criteria_matching", criteria), ("evidence_binding", evidence)):
        for name, (low, high) in report["confidence_intervals"].items():
            if name.startswith(task):
                value = metrics[name.partition(".")[2]]
                assert value is None or f"| {value:.3f} | {low:.3f} to {high:.3f} |" in card
    for row in criteria["per_criterion"]:
        (tn, fp), (fn, tp) = row["confusion_matrix"]
        name = row["id"].replace("_", " ").capitalize()
        assert f"| {name} | {row['support']} | {tp} | {fn} | {fp} | {tn} |" in card
    for words in ("does not diagnose", "Triage", "can cost a life", "Subgroups are unknown", "authors' terms"):
        assert words in card
    assert "Not confirmed" in card
    assert "invented by a program" in card


@pytest.mark.long
def test_mlflow_serves_the_exported_model(trial: Path, tmp_path: Path) -> None:
    experiments = tmp_path / "experiments"
    shutil.copytree(trial.parent, experiments)
    words = ("demo#0", "--experiments", str(experiments), "--to", str(tmp_path / "model"))
    told = run("export.py", *words, "--mlflow", "--name", "symptoms")
    assert "models:/symptoms/1" in told
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/symptoms/1", "--env-manager", "local"]
    settings = {"MLFLOW_TRACKING_URI": f"sqlite:///{experiments}/mlflow.db", "OMP_NUM_THREADS": "1"}
    settings["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # it starts `uvicorn`
    server = subprocess.Popen(
        [*command, "--port", str(port), "--workers", "1"],
        cwd=tmp_path,
        env=os.environ | settings,
        process_group=0,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        wait_for(answers)
        rows = invocation(port, {"dataframe_records": [{"text": text} for text in TEXTS]})
        with pytest.raises(urllib.error.HTTPError):
            invocation(port, {"dataframe_records": [{"words": "x"}]})
    finally:
        kill_group(server)  # type: ignore[arg-type]
    for row, expected in zip(rows, redsm5.load(tmp_path / "model").predict(TEXTS), strict=True):
        assert [row[name] for name in SYMPTOMS] == pytest.approx([s.probability for s in expected.symptoms], abs=1e-6)
        assert tuple(name for name in SYMPTOMS if row[f"{name}_present"]) == expected.present
        assert isinstance(json.loads(row["evidence"]), list)


def test_an_mlflow_that_does_not_answer_is_told_and_the_folder_is_there(trial: Path, tmp_path: Path) -> None:
    experiments = tmp_path / "experiments"
    shutil.copytree(trial.parent, experiments)
    (study,) = experiments.glob("study_*/study.json")
    record = json.loads(study.read_bytes())
    record["config"]["study"]["tracking_uri"] = f"http://127.0.0.1:{free_port()}"
    study.write_text(json.dumps(record))
    words = ("demo#0", "--experiments", str(experiments), "--to", str(tmp_path / "model"))
    told = run("export.py", *words, "--mlflow", expect=2)
    assert "MLflow did not take the model" in told
    assert "Traceback" not in told
    assert redsm5.load(tmp_path / "model").predict(["x"])


def invocation(port: int, content: dict[str, Any]) -> list[dict[str, Any]]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        data=json.dumps(content).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: list[dict[str, Any]] = json.loads(answer.read())["predictions"]
    return found


@pytest.mark.long
def test_a_confirmed_winner_is_averaged_over_its_repeats(tmp_path: Path) -> None:
    words = [*SMALL[:3], "study.trials=1", "study.confirm.top=1", "study.confirm.repeats=2"]
    run("hpo.py", *words, f"experiments={tmp_path / 'experiments'}")
    where = ("--experiments", str(tmp_path / "experiments"))
    winner, *repeats = sorted(records(tmp_path / "experiments"), key=lambda record: record["repeat"] or 0)
    posts = tmp_path / "posts.csv"
    with posts.open("w", newline="") as file:
        csv.writer(file).writerows([("post_id", "text"), *enumerate(TEXTS)])
    told = run(
        "predict_posts.py", "--model", "winner:demo", *where, "--posts", str(posts), "--to", str(tmp_path / "out.jsonl")
    )
    assert "averaging the predictions of confirmed repeats" in told
    folders = [tmp_path / "experiments" / f"trial_{record['trial_id']}" for record in repeats]
    each = [redsm5.load(folder).predict(TEXTS) for folder in folders]
    for n, line in enumerate((tmp_path / "out.jsonl").read_text().splitlines()):
        for name, found in json.loads(line)["symptoms"].items():
            mean = sum(predictions[n][name].probability for predictions in each) / 2
            assert found["probability"] == pytest.approx(mean, abs=1e-9)
    run("export.py", "winner", *where, "--to", str(tmp_path / "model"))
    card = (tmp_path / "model" / "README.md").read_text()
    assert "confirmed by 2 repeats" in card
    assert winner["trial_id"] in card
