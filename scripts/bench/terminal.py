"""The terminal app on a study of many trials: `just bench terminal [--trials 10000] [--epochs 50] [--keep DIR]`.

The folder is generated in the format of the driver and the trials. The app runs in a pseudo-terminal, 160 × 48, with
the same command as by hand, and is measured from outside: what it paints, when, with how much CPU time and memory.

- first paint: from the start of the process to the first frame, and to the first ones with the study and its trials;
- counting: from the start until the bytes of all trials have been counted, and the CPU time of a core meanwhile;
- rest: CPU time of a core while nobody writes and no key is pressed;
- refresh: CPU time to read the folder and paint it, while four trials write;
- keys: from a key to the first byte that is painted for it, on all screens in turn, while the trials write; separately,
  a screen that is opened for the first time, which is built then.

For comparison, in the same run and with the same rows: Textual's own DataTable, and the bare import of Textual.
"""

import argparse
import json
import os
import pty
import random
import re
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fcntl import ioctl
from pathlib import Path
from typing import Any

import psutil
from results import Result, arguments_of, digits, finish

from redsm5.engine import paths
from redsm5.engine.documents import Record, now, timestamp
from redsm5.engine.errors import exit_with_message
from redsm5.engine.records import (
    Best,
    BudgetEntry,
    BudgetLedger,
    ErrorRecord,
    Event,
    MetricRow,
    RetentionRow,
    StudyBest,
    StudyIndex,
    StudyRecord,
    TrialCounts,
    TrialRecord,
)
from redsm5.engine.terminal import show

COLUMNS, ROWS = 160, 48
WRITERS = 4
STEPS = 100  # per epoch
COUNT_S = 900  # at most, for counting the bytes: on a slow disk it takes minutes
WEIGHTS, WHOLE = 438_000_000, 1_314_000_000
HEADS = ("linear", "mlp", "mlp_residual", "gated", "multi_sample_dropout")
METRICS = ("val_f1_macro", "val_loss", "val_accuracy", "val_evidence_f1", "train_loss")
MARK = "night-search"

# ---------------------------------------------------------------------------------------------------------------------
# the folder


def generate(root: Path, trials: int, epochs: int) -> Path:
    """Generate a study in the middle of its search: most trials completed, some pruned or failed, the last four
    running; return its folder.
    """
    draw, study_id = random.Random(0), str(uuid.UUID(int=1))
    folder = paths.study_dir(root, study_id)
    folder.mkdir(parents=True)
    began = datetime.now(UTC) - timedelta(minutes=5 * trials)
    config = {"study": {"name": MARK}, "retention": {"max_total_size": 10_000_000_000}}
    records, events = [], []
    for number in range(trials):
        record = one_trial(study_id, number, trials, epochs, began + timedelta(minutes=5 * number), draw)
        write_trial(root, record, config)
        records.append(record)
        events += [
            Event(timestamp=record.created_at, trial_id=record.trial_id, number=number, state=state, message=None)
            for state in ("queued", "preparing", "running", record.state)
        ]
    best = max((r for r in records if r.state == "completed"), key=lambda r: r.best.value if r.best else 0.0)
    assert best.best is not None
    assert best.number is not None
    finished = sum(r.state in ("completed", "pruned", "failed") for r in records)
    study = StudyRecord(
        study_id=study_id,
        name=MARK,
        state="running",
        created_at=timestamp(began),
        metric="val_f1_macro",
        trials=TrialCounts(wanted=trials + 100, finished=finished, running=WRITERS),
        best=StudyBest(trial_id=best.trial_id, number=best.number, value=best.best.value),
        config=config,
    )
    (folder / paths.STUDY).write_bytes(study.to_json())
    (folder / paths.INDEX).write_bytes(StudyIndex(study_id=study_id, updated_at=now(), trials=records).to_json())
    (folder / paths.EVENTS).write_bytes(lines(events))
    entries = {r.trial_id: BudgetEntry(reserved=2 * WHOLE + WEIGHTS, bytes=WHOLE) for r in records[-WRITERS:]}
    ledger = BudgetLedger(max_total_size=10_000_000_000, entries=entries)
    (folder / paths.BUDGET).write_bytes(ledger.to_json())
    return folder


def one_trial(study_id: str, number: int, trials: int, epochs: int, at: datetime, draw: random.Random) -> TrialRecord:
    state: Any = draw.choices(("completed", "pruned", "failed"), (80, 17, 3))[0]
    state = "running" if number >= trials - WRITERS else state
    epoch = {"completed": epochs, "pruned": max(epochs // 3, 1), "failed": 1, "running": epochs // 2}[state]
    score = 0.5 * (1 - 1 / (2 + number / 50)) + draw.uniform(-0.2, 0.05)
    return TrialRecord(
        trial_id=str(uuid.UUID(int=number + 2)),
        study_id=study_id,
        number=number,
        state=state,
        created_at=timestamp(at),
        started_at=timestamp(at),
        finished_at=None if state == "running" else timestamp(at + timedelta(minutes=4)),
        epoch=epoch,
        epochs=epochs,
        step=epoch * STEPS,
        best=Best(epoch=epoch, value=score),
        bytes=WHOLE if state == "running" else WEIGHTS if number % 1000 == 0 else 0,
        exit_code={"completed": 0, "pruned": 0, "failed": 2}.get(state),
        error=ErrorRecord(kind="not_finite", message="the loss is NaN at step 212") if state == "failed" else None,
        parameters={
            "model.criteria_head_type": draw.choice(HEADS),
            "train.learning_rate": 10 ** draw.uniform(-6, -4),
            "train.batch_size": draw.choice((8, 16, 32)),
            "train.weight_decay": draw.uniform(0, 0.1),
            "train.loss_function": draw.choice(("bce", "weighted_bce", "focal")),
        },
    )


def write_trial(root: Path, record: TrialRecord, config: dict[str, Any]) -> None:
    folder = paths.trial_dir(root, record.trial_id)
    (folder / paths.LOGS).mkdir(parents=True)
    (folder / paths.TRIAL).write_bytes(record.to_json())
    (folder / paths.CONFIG).write_text(json.dumps(config | {"parameters": record.parameters}))
    (folder / paths.METRICS).write_bytes(lines(epoch_rows(record, range(1, record.epoch + 1))))
    kept = [(e, "keep", WHOLE) for e in range(1, record.epoch + 1)]
    gone = [(e, "delete", WHOLE) for e in range(1, record.epoch)]
    rows = [
        RetentionRow(
            timestamp=record.created_at,
            action=action,
            checkpoint=f"epoch-{e:04d}",
            epoch=e,
            step=e * STEPS,
            score=0.4,
            bytes=size,
            reason="last 1" if action == "keep" else "neither last nor best",
        )
        for e, action, size in sorted([*kept, *gone])
    ]
    (folder / paths.RETENTION).write_bytes(lines(rows))
    log = {"timestamp": now(), "severity": "INFO", "message": "epoch", "context": {}}
    (folder / paths.LOGS / "log.jsonl").write_text((json.dumps(log) + "\n") * record.epoch)


def epoch_rows(record: TrialRecord, epochs: range) -> list[MetricRow]:
    score = record.best.value if record.best else 0.0
    return [
        MetricRow(
            trial_id=record.trial_id,
            metric=metric,
            step=e * STEPS,
            epoch=e,
            value=score * e / record.epochs if place else 1 / e,
            timestamp=now(),
        )
        for e in epochs
        for place, metric in enumerate(METRICS)
    ]


def lines(records: list[Any]) -> bytes:
    return b"".join(record.model_dump_json().encode() + b"\n" for record in records)


class Writers:
    """Four running trials: each call writes an epoch of each, as the trials and the driver do."""

    def __init__(self, root: Path, study: Path, records: list[TrialRecord]) -> None:
        self.root, self.study, self.records = root, study, records

    def step(self) -> None:
        for place, record in enumerate(self.records):
            epoch = record.epoch % record.epochs + 1
            record = record.model_copy(update={"epoch": epoch, "step": record.step + STEPS})
            self.records[place] = record
            folder = paths.trial_dir(self.root, record.trial_id)
            row = epoch_rows(record, range(epoch, epoch + 1))
            rows: list[Record] = [r.model_copy(update={"step": record.step}) for r in row]
            with (folder / paths.METRICS).open("ab") as file:
                file.write(lines(rows))
            temporary = folder / ".trial.json.tmp"
            temporary.write_bytes(record.to_json())
            temporary.rename(folder / paths.TRIAL)
            event = Event(timestamp=now(), trial_id=record.trial_id, number=record.number or 0, state="running")
            with (self.study / paths.EVENTS).open("ab") as file:
                file.write(lines([event]))


# ---------------------------------------------------------------------------------------------------------------------
# the app, seen from outside


class Terminal:
    """A process in a pseudo-terminal."""

    def __init__(self, *command: str) -> None:
        self.began = time.perf_counter()
        pid, self._fd = pty.fork()
        if pid == 0:
            os.environ |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "PYTHONPATH": os.getcwd()}
            os.execv(command[0], command)
        ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.process = psutil.Process(pid)

    def read(self, timeout_s: float) -> str:
        """The output painted within `timeout_s`, up to the first pause; empty if there is none."""
        found = b""
        while select.select([self._fd], [], [], timeout_s)[0]:
            try:
                found += os.read(self._fd, 1 << 16)
            except OSError:
                break
            timeout_s = 0.02
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", found.decode(errors="replace"))

    def until(self, *wanted: str, timeout_s: float = 60.0) -> list[float]:
        """Seconds from the start until each of these words is on the screen, or until the timeout."""
        seen, deadline = "", time.perf_counter() + timeout_s
        times: dict[str, float] = {}
        while len(times) < len(wanted) and time.perf_counter() < deadline:
            seen = (seen + self.read(0.005))[-200_000:]
            found = [word for word in wanted if word in seen and word not in times]
            times |= dict.fromkeys(found, time.perf_counter() - self.began)
        return [times.get(word, time.perf_counter() - self.began) for word in wanted]

    def press(self, key: str) -> float:
        """Seconds from the key to the first byte of output."""
        while self.read(0.0):
            pass
        began = time.perf_counter()
        os.write(self._fd, key.encode())
        select.select([self._fd], [], [], 2.0)
        took = time.perf_counter() - began
        self.read(0.05)
        return took

    def cpu(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def close(self) -> None:
        os.write(self._fd, b"q")
        deadline = time.perf_counter() + 5
        while self.process.is_running() and time.perf_counter() < deadline:
            self.read(0.05)
            if self.process.status() == psutil.STATUS_ZOMBIE:
                break
        os.close(self._fd)
        os.waitpid(self.process.pid, 0)


FIRST_PAINT, PEER_PAINT = "first paint with the trials, s", "Textual's DataTable with the same rows, s"
DOWN, UP = "\x1b[B", "\x1b[A"
KEYS = ["2", "1", "2", *[DOWN] * 20, *[UP] * 10, "\x1b[6~", "\x1b[F", "\x1b[H", "m", DOWN, "m", "o", "O", "i", "i"]
KEYS += ["3", "]", "]", "[", "w", "l", "4", "5", "6", "n", "1", "2", "/", *"gated lr<5e-5", "\x1b"]


def measure(root: Path, study: Path, records: list[TrialRecord], *, paint_only: bool) -> dict[str, float]:
    python = sys.executable
    warm = Terminal(python, "-m", "tui", "--experiments", str(root))  # fills the page cache
    warm.until("trials/h")
    warm.close()
    app = Terminal(python, "-m", "tui", "--experiments", str(root))
    first, named, painted = app.until("Overview", MARK, "trials/h")
    found = {"first frame, s": first, "first paint with the study, s": named, FIRST_PAINT: painted}
    if paint_only:
        app.close()
        return found
    before, began = app.cpu(), time.perf_counter()
    [found["bytes of all trials counted, s"]] = app.until("keep-all would hold ", timeout_s=COUNT_S)
    found["CPU meanwhile, % of a core"] = 100 * (app.cpu() - before) / (time.perf_counter() - began)
    settle(app)
    found["memory, MB"] = app.process.memory_info().rss / 1e6
    before, began = app.cpu(), time.perf_counter()
    app.read(0.0)
    drain(app, 10.0)
    found["CPU at rest, % of a core"] = 100 * (app.cpu() - before) / (time.perf_counter() - began)
    writers = Writers(root, study, records[-WRITERS:])
    app.press("2")
    drain(app, 2.0)
    before, looks = app.cpu(), 10
    for _ in range(looks):
        writers.step()
        drain(app, 1.0)
    found["refresh while 4 trials write, ms"] = 1000 * (app.cpu() - before) / looks
    app.press("1")
    found["a screen opened for the first time, worst, ms"] = 1000 * max(app.press(key) for key in "2345621")
    drain(app, 30.0)  # until the data of the storage screen are ready
    times, wrote = [], 0.0
    for key in KEYS:
        if time.perf_counter() - wrote > 1.0:
            writers.step()
            wrote = time.perf_counter()
        times.append(app.press(key))
        if os.environ.get("KEYS"):
            show(f"{key!r:>12} {1000 * times[-1]:8.1f} ms")
    switches = [took for key, took in zip(KEYS, times, strict=True) if key in "12345678"]
    others = [took for key, took in zip(KEYS, times, strict=True) if key not in "12345678"]
    found["key to paint, median, ms"] = 1000 * statistics.median(times)
    found["key to paint, p95, ms"] = 1000 * statistics.quantiles(times, n=20)[18]
    found["  of the keys within a screen, ms"] = 1000 * statistics.quantiles(others, n=20)[18]
    found["  of those that change the screen, median, ms"] = 1000 * statistics.median(switches)
    app.close()
    return found


def settle(app: Terminal) -> None:
    """Wait until background work is done: until the app uses almost no CPU for three seconds."""
    for _ in range(400):  # on a slow disk, counting the folders' bytes takes minutes
        before = app.cpu()
        drain(app, 3.0)
        if app.cpu() - before < 0.1:
            return


def drain(app: Terminal, seconds: float) -> None:
    deadline = time.perf_counter() + seconds
    while (left := deadline - time.perf_counter()) > 0:
        app.read(min(left, 0.1))


PEER = """
import sys, time
from textual.app import App
from textual.widgets import DataTable
from redsm5.engine.records import StudyIndex
from pathlib import Path
class Peer(App):
    def compose(self):
        yield DataTable()
    def on_mount(self):
        rows = StudyIndex.model_validate_json(Path(sys.argv[1]).read_bytes()).trials
        table = self.query_one(DataTable)
        table.add_columns("#", "state", "best", "epoch", "bytes", "again", "lr", "head")
        for r in rows:
            table.add_row(str(r.number), r.state, f"{r.best.value:.3f}", f"{r.epoch}/{r.epochs}", str(r.bytes),
                          str(r.resumes), "%.3g" % r.parameters["train.learning_rate"],
                          r.parameters["model.criteria_head_type"])
        self.sub_title = "ready"
Peer().run()
"""


def peers(index: Path) -> dict[str, float]:
    """Textual's own table with the same rows, and the import of Textual alone."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import textual.app, textual.widgets._footer"], check=True)
    imports = time.perf_counter() - began
    peer = Terminal(sys.executable, "-c", PEER, str(index))
    [painted] = peer.until("completed")
    peer.process.kill()
    return {"Python and Textual imported, s": imports, PEER_PAINT: painted}


def folders(arguments: argparse.Namespace) -> Iterator[Path]:
    if arguments.keep:
        yield arguments.keep
        return
    with tempfile.TemporaryDirectory(prefix="redsm5-tui-") as scratch:
        yield Path(scratch)


def main() -> int:
    parser = arguments_of("terminal", __doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--keep", type=Path, help="generate into this folder and leave it, or use what is there")
    parser.add_argument("--paint-only", action="store_true", help="measure no more than the first paint")
    arguments = parser.parse_args()
    state = tempfile.TemporaryDirectory(prefix="redsm5-tui-state-")
    os.environ["XDG_STATE_HOME"] = state.name  # no state is kept between runs
    for root in folders(arguments):
        found = list(root.glob("study_*"))
        study = found[0] if found else generate(root, arguments.trials, arguments.epochs)
        index = StudyIndex.model_validate_json((study / paths.INDEX).read_bytes())
        results = measure(root, study, index.trials, paint_only=arguments.paint_only) | peers(study / paths.INDEX)
    state.cleanup()
    rows = [{"": name.strip(), "figure": digits(value)} for name, value in results.items()]
    paint = results[PEER_PAINT] / results[FIRST_PAINT]
    title = f"The terminal app on {len(index.trials):,} trials of {arguments.epochs} epochs, {COLUMNS} × {ROWS}"
    times_ours = {"terminal, first paint of the trials": {"Textual's DataTable": paint}}
    return finish(Result(title, rows, times_ours, results), arguments.json)


if __name__ == "__main__":
    exit_with_message(main)
