"""The folder that `just export` writes: a trained model that stands alone.

```
DIR/  model.safetensors  config.json  thresholds.json  labels.json  tokenizer.json  tokenizer_config.json  README.md
      SHA256SUMS  encoder/
```

`encoder/` is the encoder alone, for `AutoModel.from_pretrained`, with the tokenizer. config.json has what a prediction
depends on besides the weights: neither paths nor names of where it was trained. SHA256SUMS, which `read` verifies,
lists all but README.md and thresholds.json, which a person may change. The folder is there completely, or not at all.
"""

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from transformers.utils import logging as of_transformers

from redsm5 import hub
from redsm5.config import Config, compose
from redsm5.data.posts import SYMPTOMS
from redsm5.data.tokenize import build_tokenizer
from redsm5.engine import files, migrations, paths
from redsm5.engine.errors import InputError
from redsm5.engine.installed import command
from redsm5.engine.jsonio import dumps, loads
from redsm5.engine.spec import completed_snapshot, snapshot_of, validate
from redsm5.engine.storage import tensors
from redsm5.engine.storage.store import DamagedCheckpoint, sums
from redsm5.evaluation.stored import Stored, read_with_files
from redsm5.model import MultiTaskModel
from redsm5.reports import Thresholds

ENCODER, LABELS, CARD = "encoder", "labels.json", "README.md"
CHANGEABLE = (CARD, paths.THRESHOLDS, paths.SUMS)
# What a prediction depends on, of each section; of `model` and `symptoms` all of it.
DEPENDS_ON: dict[str, tuple[str, ...]] = {
    "data": ("long_posts", "window_overlap"),
    "train": ("batch_size", "max_tokens", "part_cost", "mixed_precision", "deterministic"),
}


def is_exported(folder: Path) -> bool:
    """Whether the folder looks like one that `write` wrote: it may be damaged."""
    return (folder / LABELS).is_file()


# ---------------------------------------------------------------------------------------------------------------------
# write


def write(trial: Path, to: Path, card: str) -> Stored:
    """Write a completed trial's model into a new or empty folder.

    Args:
        card: the content of README.md.

    Raises:
        InputError: the folder is not empty; or as `stored.read`, as all other errors.
    """
    refuse_others(to)
    member, contents = read_with_files(trial)
    to = to.absolute()
    work = to.with_name(f".{to.name}.exporting")  # on the same file system, so that it can be renamed
    with files.Lock(work / "lock"):
        fresh = work / to.name
        shutil.rmtree(fresh, ignore_errors=True)  # of an export that was killed
        files.make_dir(fresh / ENCODER)
        encoder = member.model.encoder
        encoder.config.name_or_path = ""  # may be a folder of this machine
        with _quiet():
            encoder.save_pretrained(fresh / ENCODER)
        for folder in (fresh, fresh / ENCODER):
            member.tokenizer.save_pretrained(folder)
        documents: dict[str, bytes | bytearray] = {
            paths.WEIGHTS: contents[paths.WEIGHTS],
            paths.CONFIG: _as_json(_essence(member.config)),
            paths.THRESHOLDS: _as_json(member.thresholds.model_dump(mode="json", exclude={"weights"})),
            LABELS: _as_json(list(SYMPTOMS)),
            CARD: card.encode(),
        }
        for name, content in documents.items():
            files.write_durable(fresh / name, content)
        _seal(fresh)
        refuse_others(to)
        fresh.rename(to)
        files.fsync_dir(to.parent)
    shutil.rmtree(work, ignore_errors=True)
    return member


def refuse_others(to: Path) -> None:
    """Refuse a target that is neither new nor an empty folder.

    Raises:
        InputError: it is something else.
    """
    if to.is_symlink() or (to.exists() and not to.is_dir()):
        raise InputError("it is not a folder", where=str(to), remedy="Name a new or empty folder.")
    if to.is_dir() and any(to.iterdir()):
        raise InputError("the folder is not empty", where=str(to), remedy="Name a new or empty folder.")


def _essence(config: Config) -> dict[str, Any]:
    """What a prediction depends on besides the weights."""
    snapshot = snapshot_of(config)
    model = snapshot["model"]
    if hub.is_local(model["model_id"]):
        model["model_id"] = Path(model["model_id"]).name
    sections = {section: {key: snapshot[section][key] for key in keys} for section, keys in DEPENDS_ON.items()}
    return {
        migrations.SCHEMA: migrations.CONFIG_SCHEMA,
        "launch": "cpu" if config.on_cpu else "gpu",
        "model": model,
        "symptoms": snapshot["symptoms"],
        **sections,
    }


def _seal(folder: Path) -> None:
    """Write SHA256SUMS, and make all files durable."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            files.fsync_dir(path)
            continue
        with path.open("rb") as file:
            name = str(path.relative_to(folder))
            if name not in CHANGEABLE:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
    files.write_durable(folder / paths.SUMS, sums(digests))
    files.fsync_dir(folder)


def _as_json(value: Any) -> bytes:
    return dumps(value, indent=True) + b"\n"


# ---------------------------------------------------------------------------------------------------------------------
# read


def read(folder: Path) -> Stored:
    """The model in an exported folder; needs nothing but the folder. All files are verified but the card and the
    thresholds.

    Raises:
        InputError: a file is missing, damaged, or a newer version wrote it.
    """
    digests = _verified(folder)
    try:
        document = loads(files.read_bytes(folder / paths.CONFIG))
        labels = loads(files.read_bytes(folder / LABELS))
        saved = completed_snapshot(Config, document)
        limits = Thresholds.model_validate(loads(files.read_bytes(folder / paths.THRESHOLDS)))
    except FileNotFoundError as error:
        raise _damaged(folder, f"{Path(error.filename).name} is missing") from None
    except ValidationError:
        raise _damaged(folder, f"{paths.THRESHOLDS} has unexpected fields") from None
    except ValueError as error:
        raise _damaged(folder, str(error)) from None
    if labels != list(SYMPTOMS) or limits.criteria.keys() != set(SYMPTOMS):
        raise _damaged(folder, "its labels are not the nine symptoms of this version")
    config = _completed(saved, folder / ENCODER)
    tokenizer = build_tokenizer(config.model.model_id, ())
    with _quiet():  # transformers reports that BERT's pooling layer, which no model here has, is missing
        model = MultiTaskModel(config.model, vocab_size=len(tokenizer))
    try:
        model.load_state_dict(tensors.read(bytearray(files.read_bytes(folder / paths.WEIGHTS))))
    except (RuntimeError, DamagedCheckpoint) as error:
        raise _damaged(folder, str(error).splitlines()[0]) from None
    return Stored(config, tokenizer, model, limits, digests[paths.WEIGHTS])


def _completed(saved: dict[str, Any], encoder: Path) -> Config:
    """The whole configuration: the defaults where no prediction depends on them."""
    raw = compose([]).model_dump()
    raw["launch"], raw["symptoms"] = saved["launch"], saved["symptoms"]
    raw["model"] = {**saved["model"], "model_id": str(encoder.absolute()), "revision": None}
    for section, keys in DEPENDS_ON.items():
        raw[section] |= {key: saved[section][key] for key in keys}
    return validate(Config, raw)


def _verified(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file that SHA256SUMS lists, all of which have it."""
    try:
        text = files.read_bytes(folder / paths.SUMS)
        digests = {m[2].decode(): m[1].decode() for m in re.finditer(rb"([0-9a-f]{64})  ([\w./-]+)\n", text)}
        if sums(digests) != text or not {paths.WEIGHTS, paths.CONFIG, LABELS} <= digests.keys():
            raise _damaged(folder, f"{paths.SUMS} is malformed")
        for name, digest in digests.items():
            with files.open_regular(folder / name) as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    raise _damaged(folder, f"{name} does not match {paths.SUMS}")
    except FileNotFoundError as error:
        raise _damaged(folder, f"{Path(error.filename).name} is missing") from None
    return digests


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing of transformers' own on the terminal but errors."""
    before = of_transformers.get_verbosity()
    of_transformers.set_verbosity(logging.ERROR)
    of_transformers.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        of_transformers.set_verbosity(before)


def _damaged(folder: Path, what: str) -> InputError:
    again = command("export", "ID", "--to", "DIR")
    remedy = f"Export the trial again into a new folder, or copy the folder again: `{again}`."
    return InputError(f"the exported model cannot be read: {what}", where=str(folder), remedy=remedy)
