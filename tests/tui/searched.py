"""A study of many trials with six parameters, what `just summary` says of it, and a machine that is looked at."""

import math
import random

from redsm5.engine import paths
from redsm5.engine.records import Best, StudyIndex
from redsm5.reports import ParameterImportance
from tui.read.machine import Gpu, MachineView, Sample
from tui.read.reports import Importance

SHARES = {
    "train.learning_rate": 0.431,
    "model.criteria_head_type": 0.214,
    "model.criteria_dropout": 0.087,
    "train.batch_size": 0.052,
    "train.loss_function": 0.018,
}
HEADS = ("linear", "mlp", "mlp_residual", "gated")
LOSSES = ("bce", "focal", "hybrid")


def searched(folder, count=44, running=1):
    """The study; the nearer the learning rate is to 3e-5 and with a gated head, the better. Some were pruned."""
    draw = random.Random(5)
    states = ["pruned" if n % 9 == 7 else "completed" for n in range(count - running)] + ["running"] * running
    study_id = folder.study(states=tuple(states), wanted=count + 16, index=False)
    table = []
    for number, state in enumerate(states):
        rate, head, loss = 10 ** draw.uniform(-6, -3.5), draw.choice(HEADS), draw.choice(LOSSES)
        dropout, batch = draw.uniform(0.0, 0.5), draw.choice((8, 16, 32))
        value = 0.55 - 0.09 * abs(math.log10(rate / 3e-5)) + 0.05 * HEADS.index(head) / 3 - 0.1 * abs(dropout - 0.2)
        parameters = {
            "train.learning_rate": rate,
            "train.batch_size": batch,
            "train.loss_function": loss,
            "model.criteria_head_type": head,
            "model.criteria_dropout": dropout,
        }
        if head != "linear":
            parameters["model.criteria_hidden_dim"] = draw.choice((128, 256, 512))
        trial = folder.trial(study_id, number, state, count)
        trial = trial.model_copy(
            update={"parameters": parameters, "best": Best(epoch=3, value=round(value + draw.gauss(0, 0.01), 4))}
        )
        (paths.trial_dir(folder.root, trial.trial_id) / paths.TRIAL).write_bytes(trial.to_json())
        table.append(trial)
    index = StudyIndex(study_id=study_id, updated_at=folder.ago(0), trials=table)
    (paths.study_dir(folder.root, study_id) / paths.INDEX).write_bytes(index.to_json())
    return study_id


def importance(study_id, completed=35, share=None, **more):
    """What summary.json says of it, as far as it is read."""
    found = {
        key: ParameterImportance(share=share or told, trials=completed, conditional=False)
        for key, told in SHARES.items()
    }
    found["model.criteria_hidden_dim"] = ParameterImportance(
        share=None, trials=6, conditional=True, reason="fewer than 10 completed trials have it"
    )
    return Importance(
        study_id=study_id,
        generated_at="2026-03-14T07:31:00.000Z",
        counts={"completed": completed},
        parameter_importance=found | more,
    )


def summarized(folder, study_id, told=None):
    """Put it where `just summary` writes it, beside what else stands there."""
    document = (told or importance(study_id)).to_json().rstrip()[:-1] + b', "note": "more", "trials": []}'
    (paths.study_dir(folder.root, study_id) / paths.SUMMARY).write_bytes(document)


def machine(here=None, gpus=2):
    """Five minutes of a machine at work."""
    samples = tuple(
        Sample(
            at=1000.0 + at,
            cpu=45 + 40 * math.sin(at / 40) * math.cos(at / 7),
            memory=int(11e9 + 4e7 * at),
            load=(3.2, 2.8, 2.1),
            read=3e6 * (1 + math.sin(at / 11)),
            written=1.2e8 if at % 60 < 8 else 4e5,
            gpus=tuple(
                Gpu(f"NVIDIA H100 80GB HBM3 {n}", 85 + 15 * math.sin(at / 5 + n), 61_200_000_000, 80_000_000_000, 64.0)
                for n in range(gpus)
            ),
        )
        for at in range(0, 290)
    )
    return MachineView(samples, "node-17", 16, 64_000_000_000, "nvme0n1", here)
