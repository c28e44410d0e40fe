"""Every checkpoint that a trial ever had, from its retention.jsonl and from what is on disk now.

It only reads and takes no lock, so it can run during training: a checkpoint deleted meanwhile is reported as gone.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from redsm5.engine import owned, paths
from redsm5.engine.documents import Number, load_lines
from redsm5.engine.errors import IncompatibleCheckpointError
from redsm5.engine.records import RetentionAction, RetentionRow
from redsm5.engine.storage.store import DamagedCheckpoint, listed_digests, read_manifest

ABSENT = "gone"


@dataclass(frozen=True)
class CheckpointHistory:
    """A checkpoint, there or gone.

    Attributes:
        score: the study's metric; None in mid-epoch.
        on_disk: full (it can be resumed from), weights, damaged (it will be quarantined), quarantined, or gone.
        bytes: on disk now.
        action, reason, time: of the last row of retention.jsonl; None where a crash came before the first.
    """

    checkpoint: str
    epoch: int | None
    step: int | None
    score: Number | None
    on_disk: str
    bytes: int
    action: RetentionAction | None
    reason: str | None
    time: str | None


def checkpoint_history(trial_dir: Path) -> list[CheckpointHistory]:
    """All of a trial's checkpoints, oldest first. One that was quarantined and trained again has a row for each."""
    rows: dict[str, list[RetentionRow]] = defaultdict(list)
    for row in load_lines(trial_dir / paths.RETENTION, RetentionRow):
        rows[row.checkpoint].append(row)
    folder = trial_dir / paths.CHECKPOINTS
    there = list(folder.iterdir()) if folder.is_dir() else []
    aside = {p.name.removeprefix(paths.DAMAGED) for p in there if p.name.startswith(paths.DAMAGED)}
    live = {p.name for p in there if owned.is_checkpoint(p)}
    found = [_history(folder / name, rows[name]) for name in live | (rows.keys() - aside)]
    for name in aside:
        told = max((i for i, row in enumerate(rows[name], 1) if row.action == "set_aside"), default=len(rows[name]))
        found.append(_history(folder / f"{paths.DAMAGED}{name}", rows[name][:told]))
    known = [c for c in found if c.action or c.on_disk != ABSENT]  # else it came and went while we looked
    return sorted(known, key=lambda c: (c.step or 0, c.checkpoint, c.on_disk))


def _history(folder: Path, rows: Sequence[RetentionRow]) -> CheckpointHistory:
    name = folder.name.removeprefix(paths.DAMAGED)
    step, score = _described(folder) if not rows else (max(r.step for r in rows), _last_score(rows))
    on_disk = _on_disk(folder)
    last = rows[-1] if rows else None
    epoch = int(name.removeprefix("epoch-")) if name.startswith("epoch-") else None
    return CheckpointHistory(
        checkpoint=name,
        epoch=epoch,
        step=step,
        score=score,
        on_disk=on_disk,
        bytes=owned.own_bytes(folder),
        action=last.action if last else None,
        reason=last.reason if last else None,
        time=last.timestamp if last else None,
    )


def _on_disk(folder: Path) -> str:
    if folder.name.startswith(paths.DAMAGED):
        return "quarantined"
    try:
        return "full" if paths.STATE_JSON in listed_digests(folder) else "weights"
    except DamagedCheckpoint:
        return "damaged" if folder.is_dir() else ABSENT


def _last_score(rows: Sequence[RetentionRow]) -> float | None:
    """The row that quarantines a damaged checkpoint knows of no score; those before it do."""
    return next((row.score for row in reversed(rows) if row.score is not None), None)


def _described(folder: Path) -> tuple[int | None, float | None]:
    """Step and score as the checkpoint itself says them."""
    try:
        manifest = read_manifest(folder)
    except (DamagedCheckpoint, IncompatibleCheckpointError):
        return None, None
    return manifest.step, manifest.score
