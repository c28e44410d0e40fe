"""Stall, time to durable and load time of a BERT-base training state, with alternatives: `just bench checkpoint`.

The state is BERT-base (random weights) with AdamW's moments, 1.31 GB. All contenders save and load the same tensors,
taking turns, round after round, in one run and on one disk; the table shows medians and ratios. `stall` is how long the
call blocks training; `durable` is the time until the bytes are on the disk, measured with an additional fsync for
contenders that do not fsync themselves. The previous save is kept until the new one is durable. Two reference values: a
copy of the state into preallocated memory (the minimum stall) and a plain write of as many bytes with one fsync.
"""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from results import Result, arguments_of, digits, finish
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.optim.lr_scheduler import LambdaLR
from transformers import BertConfig, BertModel

from redsm5.engine.errors import InputError, exit_with_message
from redsm5.engine.storage.checkpoint import Identity, Saver, TrainingState, resume, save
from redsm5.engine.storage.retention import Policy
from redsm5.engine.storage.store import CheckpointStore
from redsm5.engine.tables import Row
from redsm5.engine.terminal import show

Times = dict[str, list[float]]
FIGURES = ("stall", "durable", "load")
IDENTITY = Identity("0b5c1d1e-2f3a-4b5c-8d7e-9f0a1b2c3d4e", "bert-base", {}, "0" * 64, 42)


class Contenders:
    """The state, and each way to save and load it; every method returns its times in seconds by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = BertModel(BertConfig(), add_pooling_layer=False)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5)
        for parameter in self.model.parameters():
            parameter.grad = torch.full_like(parameter, 1e-3)
        self.optimizer.step()
        self.optimizer.zero_grad()
        schedule = LambdaLR(self.optimizer, lambda step: 1.0)
        self.state = TrainingState(self.model, self.optimizer, schedule, scaler=None)
        self.bytes = sum(len(content) for content in self.state.pack().values())
        self.accelerator = Accelerator(cpu=True)
        self.accelerated = self.accelerator.prepare(self.model, self.optimizer)
        self._tensors = [*self.model.state_dict().values()]
        self._tensors += [t for s in self.optimizer.state_dict()["state"].values() for t in s.values()]
        self._copies = [torch.empty_like(t) for t in self._tensors]
        self._raw = os.urandom(1 << 20) * (self.bytes >> 20)

    def warm_copy(self) -> dict[str, float]:
        return {"stall": timed(lambda: torch._foreach_copy_(self._copies, self._tensors))}

    def raw_write(self) -> dict[str, float]:
        path = fresh(self.folder / "raw")

        def write() -> None:
            with path.open("wb", buffering=0) as file:
                rest = memoryview(self._raw)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())

        return {"durable": timed(write)}

    def redsm5(self) -> dict[str, float]:
        said: list[float] = []  # the store first logs that it keeps the new checkpoint, which is durable by then
        store = CheckpointStore(
            self.folder / "ours", Policy(keep_last_n=1), log=lambda *_, **__: said.append(time.perf_counter())
        )
        with Saver() as saver:
            begin = time.perf_counter()
            self.state.progress.epochs_done += 1
            self.state.progress.step += 1
            save(store, saver, self.state, IDENTITY, score=None, metrics={})
            stall = time.perf_counter() - begin
            saver.wait()
        durable = said[0] - begin
        drop_cache(self.folder)
        load = timed(lambda: resume(store, self.state, IDENTITY, log=lambda *_, **__: None))
        return {"stall": stall, "durable": durable, "load": load}

    def accelerate_save_state(self) -> dict[str, float]:
        target = self.folder / "accelerate"
        return self._blocking(
            target,
            lambda: self.accelerator.save_state(str(target)),
            lambda: self.accelerator.load_state(str(target)),
        )

    def torch_save(self) -> dict[str, float]:
        path = self.folder / "torch" / "state.pt"

        def write() -> None:
            path.parent.mkdir()
            torch.save({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}, path)

        def load() -> None:
            document = torch.load(path, weights_only=True)
            self.model.load_state_dict(document["model"])
            self.optimizer.load_state_dict(document["optimizer"])

        return self._blocking(path.parent, write, load)

    def dcp_async(self) -> dict[str, float]:
        target = fresh(self.folder / "dcp")
        begin = time.perf_counter()
        future = cast("Future[object]", async_save(self._document(), checkpoint_id=str(target)))
        stall = time.perf_counter() - begin
        future.result()
        fsync_all(target)
        durable = time.perf_counter() - begin
        drop_cache(self.folder)
        return {"stall": stall, "durable": durable, "load": timed(lambda: self._dcp_load(target))}

    def _dcp_load(self, target: Path) -> None:
        document = self._document()
        dcp_load(document, checkpoint_id=str(target))
        self.model.load_state_dict(document["model"])
        self.optimizer.load_state_dict(document["optimizer"])

    def _document(self) -> dict[str, dict[str, object]]:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def _blocking(self, target: Path, write: Callable[[], object], load: Callable[[], object]) -> dict[str, float]:
        fresh(target)
        stall = timed(write)
        durable = stall + timed(lambda: fsync_all(target))
        drop_cache(self.folder)
        return {"stall": stall, "durable": durable, "load": timed(load)}


def fresh(target: Path) -> Path:
    """The path for a new save; the previous one is kept beside it, as a program that may be interrupted does."""
    before = target.with_name(f"{target.name}-before")
    shutil.rmtree(before, ignore_errors=True)
    before.unlink(missing_ok=True)
    if target.exists():
        target.rename(before)
    return target


def timed(work: Callable[[], object]) -> float:
    """The seconds that `work` takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def fsync_all(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def drop_cache(folder: Path) -> None:
    """Drop these files from the page cache, so that a load reads from disk, as after a restart."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> int:
    parser = arguments_of("checkpoint", __doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk that is to be measured")
    arguments = parser.parse_args()
    if shutil.disk_usage(arguments.folder).free < 12e9:
        raise InputError(f"{arguments.folder.resolve()} has less than 12 GB free", remedy="Name another --folder.")
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix=".bench-") as folder:
        contenders = Contenders(Path(folder))
        ways = {
            "copy into warm memory": contenders.warm_copy,
            "plain write and fsync": contenders.raw_write,
            "redsm5": contenders.redsm5,
            "accelerate save_state": contenders.accelerate_save_state,
            "torch.save": contenders.torch_save,
            "torch DCP async_save": contenders.dcp_async,
        }
        times: dict[str, Times] = {name: {} for name in ways}
        for turn in range(arguments.rounds + 1):  # the first round warms up caches
            for name, way in ways.items():
                for figure, seconds in way().items():
                    if turn:
                        times[name].setdefault(figure, []).append(seconds)
            show(f"round {turn} of {arguments.rounds}", error=True)
        return finish(result_of(times, contenders.bytes), arguments.json)


def result_of(times: dict[str, Times], size: int) -> Result:
    """Medians in seconds, and the ratios to compare."""
    medians = {name: {f: statistics.median(v) for f, v in figures.items()} for name, figures in times.items()}
    ours = medians["redsm5"]
    rows: list[Row] = []
    for name, figures in medians.items():
        row = {f"{size / 1e9:.2f} GB": name}
        for figure in FIGURES:
            known = figure in figures
            row[f"{figure}, s"] = digits(figures[figure]) if known else "–"
            row[f"times redsm5 ({figure})"] = digits(figures[figure] / ours[figure]) if known else "–"
        rows.append(row)
    times_ours = {
        f"checkpoint, {figure}": {
            name: figures[figure] / ours[figure]
            for name, figures in medians.items()
            if name != "redsm5" and figure in figures
        }
        for figure in FIGURES
    }
    return Result("A checkpoint of BERT-base with its training state", rows, times_ours, times)


if __name__ == "__main__":
    exit_with_message(main)
